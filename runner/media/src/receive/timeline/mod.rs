//! RTP time, sender reports and arrival → recording time. Pure: no clock inside.
//!
//! A stream starts on arrival time. With its first sender report it moves onto its publisher's clock, which sound and
//! picture of one participant share: from then on they are in sync exactly, whatever the way did to them. A
//! participant's clock is laid onto the recording by the delay of its reports, so that publishers whose clocks disagree
//! still stand where they were heard.
//!
//! Three witnesses place a packet: its RTP time, the sender reports, its arrival. Where one of them disagrees with the
//! other two it is wrong: RTP time that stood still (`standstill`: the stream steps to its arrival), a publisher's
//! clock that was set (nothing moves), a queue on the way (nothing moves either, up to what a recording waits). Sound that
//! comes before it is to be heard (`ahead`: bots) is placed from its arrival on, one frame after the other.
//!
//! Ears notice steps, eyes hardly: what is less than 100 ms off slews, and the first report of a sound stream moves the
//! participant's clock to where the sound already is; the picture follows faster. Not so fast that a composite would
//! have to show a picture twice or leave one out, though, unless it is far off.

mod ahead;
mod decode_order;
mod delay;
mod gate;
mod mapping;
mod standstill;
mod stream;

use std::collections::HashMap;
use std::time::Duration;

use self::decode_order::MAX_REORDER_NS;
use self::delay::DelayEstimate;
use self::mapping::ReportOutcome;
use self::stream::{BELIEVABLE, SLEW_SOUND, StreamClock};
use crate::units::{MediaTime, RtpTime, Ssrc};

/// Frames of one stream never come closer than this; muxers need rising times.
pub const LEAST_STEP_NS: u64 = 1_000_000;

/// The clocks of all streams and their publishers.
#[derive(Debug, Default)]
pub struct Timeline {
    /// Arrival of the first packet: media time zero.
    origin: Option<Duration>,
    clocks: HashMap<String, PublisherClock>,
    streams: HashMap<Ssrc, StreamClock>,
}

#[derive(Debug, Default)]
struct PublisherClock {
    delay: DelayEstimate,
    /// Arrival time minus the publisher's clock, as applied; glides towards `delay`.
    shift: Option<f64>,
    moved_at: Option<Duration>,
    /// Sound streams that have a mapping: they hold the shift in place.
    anchors: u32,
}

impl Timeline {
    /// A new RTP stream (a new SSRC) of this participant.
    pub fn open(&mut self, stream: Ssrc, identity: &str, sound: bool, rate: u32) {
        self.close(stream);
        self.clocks.entry(identity.to_owned()).or_default();
        self.streams.insert(stream, StreamClock::new(identity, sound, rate));
    }

    /// The stream is over; its publisher's clock stays.
    pub fn close(&mut self, stream: Ssrc) {
        let Some(it) = self.streams.remove(&stream) else { return };
        if it.anchor
            && let Some(person) = self.clocks.get_mut(&it.identity)
        {
            person.anchors -= 1;
        }
    }

    /// The first packet of any track is the recording's zero.
    pub fn begin(&mut self, at: Duration) {
        self.origin.get_or_insert(at);
    }

    /// Arrival of the first packet: media time zero.
    pub fn origin(&self) -> Option<Duration> {
        self.origin
    }

    /// Recording time at a moment of arrival.
    pub fn recording_time(&self, at: Duration) -> MediaTime {
        self.origin.map_or(MediaTime::ZERO, |origin| at.saturating_sub(origin).into())
    }

    /// A frame arrived, before it is placed. Feeds the start gate and the arrival clock. True: frames of this stream
    /// that are held from before are to be placed now, because media time stood still between them and this one.
    #[must_use]
    pub fn arrive(&mut self, stream: Ssrc, rtp: RtpTime, at: Duration) -> bool {
        self.begin(at);
        let Some(it) = self.streams.get_mut(&stream) else { return false };
        let media = it.media(rtp);
        it.arrive(media, at)
    }

    /// May frames of this stream be placed? Before that they are held.
    pub fn is_open(&mut self, stream: Ssrc, now: Duration) -> bool {
        self.streams.get_mut(&stream).is_none_or(|it| it.is_open(now))
    }

    /// What was placed lately is of no use any more: from the next frame on the stream stands where it arrives.
    pub fn catch_up(&mut self, stream: Ssrc) {
        if let Some(it) = self.streams.get_mut(&stream) {
            it.catch_up();
        }
    }

    /// How much later than its publisher's clock says a stream is placed, nanoseconds; only differences of streams of
    /// one participant mean something.
    pub fn lateness(&self, stream: Ssrc) -> Option<f64> {
        let it = self.streams.get(&stream)?;
        Some(it.applied? - it.mapping.offset()? as f64)
    }

    /// A sender report: RTP time as on the wire, the publisher's clock in nanoseconds since 1970.
    pub fn report(&mut self, stream: Ssrc, rtp: u32, ntp: i64, at: Duration) {
        let Some(it) = self.streams.get_mut(&stream) else { return };
        let Some(person) = self.clocks.get_mut(&it.identity) else { return };
        let Some(rtp) = it.extend(rtp).filter(|_| !it.is_ahead()) else { return };
        let media = it.media(rtp);
        let raw = ntp - media;
        let supported = it.supports(raw, person.shift) && person.delay.is_near(ntp, at);
        if !supported && it.is_outdated(raw, at.as_nanos() as i64 - ntp, at) {
            return;
        }
        let mut heard = it.mapping.report(media, ntp, at);
        if heard == ReportOutcome::Doubted && supported {
            it.mapping.restart(raw);
            heard = ReportOutcome::Accepted;
        }
        match heard {
            ReportOutcome::Doubted | ReportOutcome::Repeated => return,
            ReportOutcome::Stepped(by) if person.delay.fell_by(by, ntp, at) => return self.clock_set(stream, by),
            ReportOutcome::First | ReportOutcome::Accepted | ReportOutcome::Stepped(_) => {}
        }
        person.delay.sample(ntp, at);
        let Some(offset) = it.mapping.offset() else { return };
        let first_of_sound = it.sound && !it.anchor;
        if first_of_sound {
            it.anchor = true;
            person.anchors += 1;
        }
        // Where this stream stands now is where its publisher's clock is laid.
        let anchors = person.shift.is_none() || (first_of_sound && person.anchors == 1);
        if anchors {
            let stands = it.applied.or(it.wall).map(|stands| stands - offset as f64);
            let target = person.delay.nanoseconds().map(|delay| delay as f64);
            person.shift = match (stands, target) {
                (Some(stands), Some(target)) if (stands - target).abs() < BELIEVABLE as f64 => Some(stands),
                (_, target) => target,
            };
            person.moved_at = Some(at);
        }
    }

    /// The place of a frame in the order of decoding. Frames of one stream are asked in that order; the same RTP time gets the
    /// same answer. RTP times that go back a little are those of B frames ([`Timeline::offset_ns`]).
    pub fn place(&mut self, stream: Ssrc, rtp: RtpTime, at: Duration) -> MediaTime {
        let origin = self.origin.unwrap_or(at).as_nanos() as f64;
        let Some(it) = self.streams.get_mut(&stream) else { return self.recording_time(at) };
        if let Some((last_rtp, time)) = it.last
            && last_rtp == rtp
        {
            return time;
        }
        let media = it.media(rtp);
        if let (Some(shown), Some((last_rtp, last))) = (it.reordered(media), it.last) {
            // Decoded behind a picture that is shown later.
            let time = last.plus_ns(LEAST_STEP_NS);
            it.last = Some((last_rtp, time));
            // Where the stream was moved since that picture, this one is shown beside it all the same.
            let offset_ns = (shown - origin).max(0.0) as i64 - time.ns() as i64;
            it.offset_ns = offset_ns.clamp(-MAX_REORDER_NS, 0);
            return time;
        }
        it.offset_ns = 0;
        let by_report = self.clocks.get_mut(&it.identity).and_then(|person| {
            let shift = person.glide(at)?;
            Some(it.mapping.offset()? as f64 + shift)
        });
        let wanted = (it.place(media, by_report, at) - origin).max(0.0) as u64;
        let least = it.last.map_or(MediaTime::ZERO, |(_, time)| time.plus_ns(LEAST_STEP_NS));
        let time = MediaTime::from_ns(wanted).max(least);
        it.last = Some((rtp, time));
        time
    }

    /// Of the frame that was placed last: it is shown so much later than it is decoded.
    pub fn offset_ns(&self, stream: Ssrc) -> i64 {
        self.streams.get(&stream).map_or(0, |it| it.offset_ns)
    }

    /// The publisher's clock was set by so much, as this stream's reports and their delay say: its media stays in
    /// place.
    fn clock_set(&mut self, stream: Ssrc, by: i64) {
        let Some(identity) = self.streams.get(&stream).map(|it| it.identity.clone()) else { return };
        if let Some(person) = self.clocks.get_mut(&identity) {
            person.shift = person.shift.map(|shift| shift - by as f64);
            person.delay.shift(-by);
        }
        // Reports of the participant's other streams will say the same, up to 3 s later.
        let others = self.streams.iter_mut().filter(|(ssrc, it)| **ssrc != stream && it.identity == identity);
        others.for_each(|(_, it)| it.mapping.shift(by));
    }
}

impl PublisherClock {
    fn glide(&mut self, at: Duration) -> Option<f64> {
        let shift = self.shift?;
        let target = self.delay.nanoseconds()? as f64;
        let elapsed = at.saturating_sub(self.moved_at.unwrap_or(at)).as_nanos() as f64;
        self.moved_at = Some(self.moved_at.map_or(at, |moved| moved.max(at)));
        let most = elapsed * SLEW_SOUND;
        let shift = shift + (target - shift).clamp(-most, most);
        self.shift = Some(shift);
        Some(shift)
    }
}

#[cfg(test)]
mod tests;
