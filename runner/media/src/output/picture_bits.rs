//! The bit rate of our encoder of pictures while it is not given all of them. In: which pictures are encoded, from the mixer's
//! thread. Out: the encoder's property, each half second at most.
//!
//! x264 spends as many bits on a picture as its format says that there are pictures a second. Of a camera with 15 pictures in
//! a recording of 30 each would get half of what it got when it was encoded twice, the second time for next to nothing.

use gst::glib;
use gst::prelude::*;
use gstreamer as gst;

/// Of media time, between two looks.
const WINDOW_NS: u64 = 500_000_000;
/// A picture gets at most twice the bits: of one that stands still few are encoded, and they need none.
const MIN_PERCENT: u32 = 50;
/// Smaller changes are not worth telling the encoder.
const NOTICED_PERCENT: u32 = 10;

/// The way to one encoder; does nothing where there is none.
#[derive(Clone, Debug, Default)]
pub struct PictureBits {
    encoder: Option<EncoderBits>,
}

#[derive(Clone, Debug)]
struct EncoderBits {
    element: glib::WeakRef<gst::Element>,
    /// As asked for.
    bitrate_kbps: u32,
}

impl PictureBits {
    /// Of this encoder, which makes `bitrate_kbps` of all pictures.
    pub(super) fn of(encoder: &gst::Element, bitrate_kbps: u32) -> Self {
        Self { encoder: Some(EncoderBits { element: encoder.downgrade(), bitrate_kbps }) }
    }

    /// From the next picture on it is given so many of a hundred.
    fn share(&self, percent: u32) {
        let Some(EncoderBits { element, bitrate_kbps }) = &self.encoder else { return };
        if let Some(encoder) = element.upgrade() {
            encoder.set_property("bitrate", bitrate_kbps.saturating_mul(100) / percent.max(1));
        }
    }
}

/// Counts, and tells the encoder.
#[derive(Debug)]
pub(super) struct ShareMeter {
    bits: PictureBits,
    window: ShareWindow,
}

impl ShareMeter {
    /// The encoder reckons with all pictures.
    pub(super) fn new(bits: PictureBits) -> Self {
        Self { bits, window: ShareWindow::default() }
    }

    /// A picture is encoded or left out.
    pub(super) fn count(&mut self, at_ns: u64, is_encoded: bool) {
        if let Some(percent) = self.window.count(at_ns, is_encoded) {
            self.bits.share(percent);
        }
    }
}

/// What of the newest pictures was encoded. Pure.
#[derive(Debug)]
struct ShareWindow {
    since_ns: u64,
    made: u32,
    encoded: u32,
    told_percent: u32,
}

impl Default for ShareWindow {
    fn default() -> Self {
        Self { since_ns: 0, made: 0, encoded: 0, told_percent: 100 }
    }
}

impl ShareWindow {
    /// The share of pictures that are encoded, where it is another one than before.
    fn count(&mut self, at_ns: u64, is_encoded: bool) -> Option<u32> {
        let is_full = at_ns.saturating_sub(self.since_ns) >= WINDOW_NS && self.made > 0;
        let told = if is_full { self.judge() } else { None };
        if is_full {
            (self.since_ns, self.made, self.encoded) = (at_ns, 0, 0);
        }
        self.made += 1;
        self.encoded += u32::from(is_encoded);
        told
    }

    fn judge(&mut self) -> Option<u32> {
        let percent = (self.encoded * 100 / self.made.max(1)).clamp(MIN_PERCENT, 100);
        let is_noticed = percent.abs_diff(self.told_percent) >= NOTICED_PERCENT;
        if is_noticed {
            self.told_percent = percent;
        }
        is_noticed.then_some(percent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is told of pictures of 30 a second, and at which of them.
    fn told(pictures: u64, is_encoded: impl Fn(u64) -> bool) -> Vec<(u64, u32)> {
        let mut window = ShareWindow::default();
        let count = |n: u64| Some((n, window.count(n * 1_000_000_000 / 30, is_encoded(n))?));
        (0..pictures).filter_map(count).collect()
    }

    #[test]
    fn the_encoder_is_told_what_share_it_gets() {
        assert!(told(300, |_| true).is_empty());
        assert_eq!(told(300, |n| n % 2 == 0), [(15, 53)], "eight of fifteen, then seven");
        assert_eq!(told(300, |n| n % 6 != 5), [(15, 86)], "25 a second");
        assert_eq!(told(300, |n| n % 15 == 0), [(15, 50)], "never more than twice");
        assert_eq!(told(90, |n| n >= 45 || n % 2 == 0), [(15, 53), (60, 100)]);
    }
}
