//! Units as types: media time, sample positions, and the numbers of RTP. Nothing here reads a clock.

use std::fmt;
use std::ops::{Add, AddAssign, Sub};
use std::time::Duration;

use serde::{Deserialize, Serialize};

const SECOND_NS: u128 = 1_000_000_000;

/// A moment of the recording: nanoseconds since its first packet arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MediaTime(u64);

impl MediaTime {
    /// Where the recording's time begins.
    pub const ZERO: Self = Self(0);
    /// Later than every moment that occurs.
    pub const MAX: Self = Self(u64::MAX);

    /// Nanoseconds since the first packet.
    pub const fn from_ns(ns: u64) -> Self {
        Self(ns)
    }

    /// Nanoseconds since the first packet.
    pub const fn ns(self) -> u64 {
        self.0
    }

    /// Nanoseconds from `earlier` to here; 0 when it is later.
    pub const fn ns_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Nanoseconds from `earlier` to here; `None` when it is later.
    pub const fn checked_ns_since(self, earlier: Self) -> Option<u64> {
        self.0.checked_sub(earlier.0)
    }

    /// Distance of two moments, nanoseconds.
    pub const fn abs_diff_ns(self, other: Self) -> u64 {
        self.0.abs_diff(other.0)
    }

    /// So many nanoseconds later; at most [`MediaTime::MAX`].
    pub const fn plus_ns(self, ns: u64) -> Self {
        Self(self.0.saturating_add(ns))
    }

    /// So many nanoseconds earlier; at least [`MediaTime::ZERO`].
    pub const fn minus_ns(self, ns: u64) -> Self {
        Self(self.0.saturating_sub(ns))
    }

    /// Moved by so many nanoseconds, earlier when negative; within the range.
    pub const fn shifted_ns(self, by: i64) -> Self {
        Self(self.0.saturating_add_signed(by))
    }
}

/// Since the first packet; saturates after 584 years.
impl From<Duration> for MediaTime {
    fn from(since: Duration) -> Self {
        Self(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
    }
}

/// A position in 48 kHz samples since media time zero, negative before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SampleIndex(i64);

impl SampleIndex {
    /// Samples per second of every position.
    pub const RATE: u64 = 48_000;

    /// The sample of this number.
    pub const fn new(index: i64) -> Self {
        Self(index)
    }

    /// The sample nearest to a moment.
    pub fn at(time: MediaTime) -> Self {
        Self(((u128::from(time.0) * u128::from(Self::RATE) + SECOND_NS / 2) / SECOND_NS) as i64)
    }

    /// The moment of this sample, rounded down; what lies before media time zero is at zero.
    pub fn time(self) -> MediaTime {
        MediaTime((u128::from(self.0.max(0) as u64) * SECOND_NS / u128::from(Self::RATE)) as u64)
    }
}

impl Add<i64> for SampleIndex {
    type Output = Self;

    fn add(self, samples: i64) -> Self {
        Self(self.0 + samples)
    }
}

impl AddAssign<i64> for SampleIndex {
    fn add_assign(&mut self, samples: i64) {
        self.0 += samples;
    }
}

impl Sub<i64> for SampleIndex {
    type Output = Self;

    fn sub(self, samples: i64) -> Self {
        Self(self.0 - samples)
    }
}

/// Samples between two positions, negative when the other is later.
impl Sub for SampleIndex {
    type Output = i64;

    fn sub(self, other: Self) -> i64 {
        self.0 - other.0
    }
}

/// Synchronisation source: the number of an RTP stream (RFC 3550 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ssrc(u32);

impl Ssrc {
    /// As on the wire.
    pub const fn new(ssrc: u32) -> Self {
        Self(ssrc)
    }

    /// As on the wire.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Ssrc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Sequence number of an RTP packet, extended beyond its 16 bits: never wraps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SeqNo(u64);

impl SeqNo {
    /// An extended number.
    pub const fn new(seq: u64) -> Self {
        Self(seq)
    }

    /// The number after this one.
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The number that is so many before; at least 0.
    pub const fn back(self, packets: u64) -> Self {
        Self(self.0.saturating_sub(packets))
    }

    /// Every number from this one up to and without `end`.
    pub fn until(self, end: Self) -> impl Iterator<Item = Self> {
        (self.0..end.0).map(Self)
    }

    /// Packets from `earlier` up to this one; 0 when it is later.
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Distance of two numbers.
    pub const fn abs_diff(self, other: Self) -> u64 {
        self.0.abs_diff(other.0)
    }

    /// The number nearest to this one that ends in the 16 bits of a packet's header.
    pub const fn extend(self, wire: u16) -> Self {
        let ahead = wire.wrapping_sub(self.0 as u16) as i16;
        Self(self.0.saturating_add_signed(ahead as i64))
    }
}

/// RTP time in ticks of the codec's clock, extended beyond its 32 bits: never wraps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RtpTime(u64);

impl RtpTime {
    /// An extended time.
    pub const fn new(ticks: u64) -> Self {
        Self(ticks)
    }

    /// Nanoseconds from `first` to here at so many ticks a second, negative when it is later. At most 36 years, so that sums
    /// of such times and of clocks stay within 64 bits whatever a publisher sends.
    pub fn ns_since(self, first: Self, rate: u64) -> i64 {
        const MOST: i128 = 1 << 60;
        let ticks = i128::from(self.0) - i128::from(first.0);
        (ticks * 1_000_000_000 / i128::from(rate)).clamp(-MOST, MOST) as i64
    }

    /// As a header says it.
    #[cfg(any(test, feature = "testing"))]
    pub const fn on_wire(self) -> u32 {
        self.0 as u32
    }

    /// The time nearest to this one that ends in the 32 bits of a header or report; `None` before zero.
    pub const fn extend(self, wire: u32) -> Option<Self> {
        let ahead = wire.wrapping_sub(self.0 as u32) as i32;
        match self.0.checked_add_signed(ahead as i64) {
            Some(ticks) => Some(Self(ticks)),
            None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_time_stays_within_its_range() {
        let second = MediaTime::from_ns(1_000_000_000);
        assert_eq!((second.ns_since(MediaTime::MAX), MediaTime::MAX.ns_since(MediaTime::ZERO)), (0, u64::MAX));
        assert_eq!((second.checked_ns_since(MediaTime::MAX), second.minus_ns(u64::MAX)), (None, MediaTime::ZERO));
        assert_eq!(
            (second.plus_ns(u64::MAX), second.shifted_ns(-1)),
            (MediaTime::MAX, MediaTime::from_ns(999_999_999))
        );
    }

    #[test]
    fn a_sample_has_the_time_it_came_from() {
        for index in [0, 1, 959, 48_000, 172_800_001] {
            assert_eq!(SampleIndex::at(SampleIndex::new(index).time()), SampleIndex::new(index));
        }
        assert_eq!(SampleIndex::new(-5).time(), MediaTime::ZERO);
    }

    #[test]
    fn numbers_of_the_wire_are_taken_near_what_is_known() {
        assert_eq!(SeqNo::new(65_536).extend(65_535), SeqNo::new(65_535));
        assert_eq!(SeqNo::new(65_535).extend(2), SeqNo::new(65_538));
        assert_eq!(RtpTime::new(u64::from(u32::MAX)).extend(9), Some(RtpTime::new((1 << 32) + 9)));
        assert_eq!(RtpTime::new(3).extend(u32::MAX), None);
        assert_eq!(RtpTime::new(90_000).ns_since(RtpTime::new(180_000), 90_000), -1_000_000_000);
        assert_eq!(RtpTime::new(u64::MAX).ns_since(RtpTime::new(0), 8000), 1 << 60);
    }
}
