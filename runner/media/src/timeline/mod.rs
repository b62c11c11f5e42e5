//! RTP time, sender reports and arrival → session time. Pure: no clock inside.
//!
//! A stream starts on arrival time. With its first sender report it moves onto its publisher's clock, which sound and
//! picture of one participant share: from then on they are in sync exactly, whatever the way did to them. A
//! participant's clock is laid onto the session by the delay of its reports, so that publishers whose clocks disagree
//! still stand where they were heard.
//!
//! Ears notice steps, eyes hardly: sound only ever slews, and the first report of a sound stream moves the participant's
//! clock to where the sound already is; the picture follows faster. Not so fast that a composite would have to show a
//! picture twice or leave one out, though, unless it is far off.

mod delay;
mod gate;
mod line;

use std::collections::HashMap;
use std::time::Duration;

use self::delay::Delay;
use self::gate::Gate;
use self::line::{Heard, Line};
use crate::track::SessionTime;

/// Correction per second of media. The mixer stretches sound by this much unheard.
const SLEW_SOUND: f64 = 0.005;
/// Less than 1 ms between two pictures of 30 a second, so that whoever composes them can follow.
const SLEW_PICTURE: f64 = 0.02;
/// Lips this far from their sound are worth a picture.
const FAR: f64 = 40e6;
const SLEW_FAR: f64 = 0.2;
const NEAR: f64 = 5e6;
/// Nothing to protect from a step after a pause this long.
const PAUSE: i64 = 500_000_000;
/// Reports that lead this far from arrival are wrong.
const BELIEVABLE: i64 = 500_000_000;
/// Arrival this far from what was expected: the stream jumped.
const JUMP: i64 = 5_000_000_000;
/// Per frame, how much of an earlier and of a later arrival is believed while there are no reports.
const EARLIER: f64 = 0.05;
const LATER: f64 = 0.005;
/// One frame's lateness counts no more than this: a process that was stopped reads seconds of frames at once, and each
/// would say that the way has become longer by seconds.
const LATENESS: f64 = 100e6;
/// And a stream has jumped back only when it goes on like that.
const JUMP_LASTS: Duration = Duration::from_millis(500);

/// Frames of one stream never come closer than this; muxers need rising times.
pub const LEAST_STEP: Duration = Duration::from_millis(1);

#[derive(Debug, Default)]
pub struct Timeline {
    /// Arrival of the first packet of the session.
    origin: Option<Duration>,
    people: HashMap<String, Person>,
    streams: HashMap<u32, Stream>,
}

#[derive(Debug, Default)]
struct Person {
    delay: Delay,
    /// Arrival time minus the publisher's clock, as applied; glides towards `delay`.
    shift: Option<f64>,
    moved_at: Option<Duration>,
    /// Sound streams that have a line: they hold the shift in place.
    anchors: u32,
}

#[derive(Debug)]
struct Stream {
    identity: String,
    sound: bool,
    rate: u64,
    first_rtp: Option<u64>,
    gate: Gate,
    line: Line,
    anchor: bool,
    /// Arrival minus media time, smoothed.
    wall: Option<f64>,
    /// Frames have come as if the stream had jumped back since then.
    late_since: Option<Duration>,
    /// What is applied: session arrival minus media time.
    applied: Option<f64>,
    /// It was far off, and is not near yet.
    hurries: bool,
    last_media: i64,
    /// One time per RTP time.
    last: Option<(u64, u64)>,
}

impl Timeline {
    /// A new RTP stream (a new SSRC) of this participant.
    pub fn open(&mut self, stream: u32, identity: &str, sound: bool, rate: u32) {
        self.close(stream);
        self.people.entry(identity.to_owned()).or_default();
        let it = Stream {
            identity: identity.to_owned(),
            sound,
            rate: u64::from(rate.max(1)),
            first_rtp: None,
            gate: Gate::default(),
            line: Line::default(),
            anchor: false,
            wall: None,
            late_since: None,
            applied: None,
            hurries: false,
            last_media: 0,
            last: None,
        };
        self.streams.insert(stream, it);
    }

    pub fn close(&mut self, stream: u32) {
        let Some(it) = self.streams.remove(&stream) else { return };
        if it.anchor
            && let Some(person) = self.people.get_mut(&it.identity)
        {
            person.anchors -= 1;
        }
    }

    /// The first packet of any track is the session's zero.
    pub fn begin(&mut self, at: Duration) {
        self.origin.get_or_insert(at);
    }

    pub fn origin(&self) -> Option<Duration> {
        self.origin
    }

    /// The session's time at a moment of arrival.
    pub fn session_time(&self, at: Duration) -> SessionTime {
        SessionTime(self.origin.map_or(0, |origin| at.saturating_sub(origin).as_nanos() as u64))
    }

    /// A frame arrived, before it is placed. Feeds the start gate and the arrival clock.
    pub fn arrive(&mut self, stream: u32, rtp: u64, at: Duration) {
        self.begin(at);
        let Some(it) = self.streams.get_mut(&stream) else { return };
        let media = it.media(rtp);
        if it.wall.is_none() {
            it.gate.frame(media, at);
        }
        it.follow_arrival(media, at);
    }

    /// May frames of this stream be placed? Before that they are held.
    pub fn is_open(&mut self, stream: u32, now: Duration) -> bool {
        let Some(it) = self.streams.get_mut(&stream) else { return true };
        if it.wall.is_none() && it.gate.is_open(now) {
            it.wall = it.gate.best.map(|best| best as f64);
        }
        it.wall.is_some()
    }

    /// Every stream has a line: sound and picture can start aligned.
    pub fn has_report(&self, stream: u32) -> bool {
        self.streams.get(&stream).is_some_and(|it| it.line.offset().is_some())
    }

    /// How much later than its publisher's clock says a stream is placed, nanoseconds; only differences of streams of
    /// one participant mean something.
    pub fn lateness(&self, stream: u32) -> Option<f64> {
        let it = self.streams.get(&stream)?;
        Some(it.applied? - it.line.offset()? as f64)
    }

    /// A sender report: RTP time as on the wire, the publisher's clock in nanoseconds since 1970.
    pub fn report(&mut self, stream: u32, rtp: u32, ntp: i64, at: Duration) {
        let Some(it) = self.streams.get_mut(&stream) else { return };
        let Some(person) = self.people.get_mut(&it.identity) else { return };
        let Some(rtp) = it.unwrap(rtp) else { return };
        let media = it.media(rtp);
        let heard = it.line.report(media, ntp, at);
        if matches!(heard, Heard::Doubted | Heard::Repeated) {
            return;
        }
        person.delay.sample(ntp, at);
        let Some(offset) = it.line.offset() else { return };
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

    /// The place of a frame. Frames of one stream are asked in RTP order; the same RTP time gets the same answer.
    pub fn place(&mut self, stream: u32, rtp: u64, at: Duration) -> SessionTime {
        let origin = self.origin.unwrap_or(at).as_nanos() as f64;
        let Some(it) = self.streams.get_mut(&stream) else { return self.session_time(at) };
        if let Some((last_rtp, time)) = it.last
            && last_rtp == rtp
        {
            return SessionTime(time);
        }
        let media = it.media(rtp);
        let wall = it.wall.unwrap_or(at.as_nanos() as f64 - media as f64);
        let goal = self.people.get_mut(&it.identity).and_then(|person| {
            let shift = person.glide(at)?;
            let by_report = it.line.offset()? as f64 + shift;
            ((by_report - wall).abs() < BELIEVABLE as f64).then_some(by_report)
        });
        let goal = goal.unwrap_or(wall);
        let elapsed = media - it.last_media;
        let applied = match it.applied {
            Some(applied) if (0..PAUSE).contains(&elapsed) => {
                let most = elapsed as f64 * it.slew((goal - applied).abs());
                applied + (goal - applied).clamp(-most, most)
            }
            _ => goal,
        };
        it.applied = Some(applied);
        it.last_media = media;
        let wanted = (media as f64 + applied - origin).max(0.0) as u64;
        let least = it.last.map_or(0, |(_, time)| time + LEAST_STEP.as_nanos() as u64);
        let time = wanted.max(least);
        it.last = Some((rtp, time));
        SessionTime(time)
    }
}

impl Person {
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

impl Stream {
    /// Nanoseconds of media since the stream's first frame; negative for what lies before it.
    fn media(&mut self, rtp: u64) -> i64 {
        let first = *self.first_rtp.get_or_insert(rtp);
        let ticks = i128::from(rtp) - i128::from(first);
        (ticks * 1_000_000_000 / i128::from(self.rate)) as i64
    }

    /// The report's 32 bits near the last frame; `None` before the first frame.
    fn unwrap(&self, rtp: u32) -> Option<u64> {
        let near = match self.last {
            Some((rtp, _)) => rtp,
            None => self.first_rtp?,
        };
        let distance = i64::from(rtp.wrapping_sub(near as u32) as i32);
        near.checked_add_signed(distance)
    }

    /// Correction per nanosecond of a stream that is so far from where it belongs.
    fn slew(&mut self, off: f64) -> f64 {
        if self.sound {
            return SLEW_SOUND;
        }
        self.hurries = off > FAR || (self.hurries && off > NEAR);
        if self.hurries { SLEW_FAR } else { SLEW_PICTURE }
    }

    fn follow_arrival(&mut self, media: i64, at: Duration) {
        let Some(wall) = self.wall else { return };
        let off = at.as_nanos() as f64 - media as f64 - wall;
        if off > JUMP as f64 {
            let since = *self.late_since.get_or_insert(at);
            if at.saturating_sub(since) < JUMP_LASTS {
                return;
            }
        }
        self.late_since = None;
        self.wall = Some(if off.abs() > JUMP as f64 {
            wall + off
        } else {
            wall + if off < 0.0 { off * EARLIER } else { off.min(LATENESS) * LATER }
        });
    }
}

#[cfg(test)]
mod tests;
