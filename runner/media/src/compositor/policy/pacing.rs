//! At which output time each picture of a camera is shown, and how its sound goes along. Pure.
//!
//! Output times stand still, cameras do not: each has its own phase, which drifts, and which moves when the timeline
//! learns better (sender reports come seconds after the first frame). Taking the output time nearest to each picture
//! would show one twice or leave one out whenever the phase crosses the middle between two output times. Instead a
//! camera keeps its step, one output time per picture, and what that makes it late or early is measured: the
//! sound of its participant is moved by as much, slowly, so that lips stay in sync to the sample.
//!
//! Worked out where frames come in, in their order, from their times alone: what is recorded does not depend on how
//! busy the machine was.

use crate::units::MediaTime;

const SECOND_NS: u64 = 1_000_000_000;
/// A camera keeps its step up to this far from its time, early or late; then it leaves a picture out, or repeats one.
pub const FURTHEST_NS: i64 = 65_000_000;
/// How much of one picture's distance is believed: cameras are not exact.
const LEARNED: f64 = 0.15;
/// Per picture, towards no distance at all. A camera without a phase (25 pictures a second shown at 30) ends there.
const FORGOTTEN: f64 = 0.0005;
/// A camera this much faster than the output loses pictures anyway: of its pictures the nearest.
const FASTER: f64 = 0.9;
const SPACING_LEARNED: f64 = 0.05;

/// Sound moves by so much per nanosecond: 5 ms a second, which the mixer stretches away unheard.
const SLEW: f64 = 0.005;
/// Nearer than this it is in sync.
const NEAR: f64 = 1_000_000.0;
/// After a silence, or when it has only begun, sound is simply put where it belongs.
const SILENT: u64 = 100_000_000;
const BEGUN: u64 = 1_000_000_000;

/// One track of pictures.
#[derive(Debug)]
pub struct FramePacing {
    framerate: u32,
    interval: f64,
    /// The last picture's time, and the number of the output time it got.
    last: Option<(MediaTime, i64)>,
    /// Typical distance of its pictures.
    spacing: f64,
    /// Typically shown so much later than their time.
    late: Option<f64>,
}

impl FramePacing {
    /// `framerate`: output times a second.
    pub fn new(framerate: u32) -> Self {
        let interval = 1e9 / f64::from(framerate.max(1));
        Self { framerate, interval, last: None, spacing: interval, late: None }
    }

    /// How much later than its time a picture is shown; negative: earlier.
    pub fn late(&self) -> Option<i64> {
        self.late.map(|late| late as i64)
    }

    /// Anything else that happens to this track.
    pub fn moved(&self, at: MediaTime) -> MediaTime {
        shifted(at, self.late.unwrap_or_default())
    }

    /// When the picture of this time is to be shown. The same picture gets the same answer.
    pub fn show(&mut self, at: MediaTime) -> MediaTime {
        let here = at.ns() as f64;
        let Some((last_at, last)) = self.last else {
            let tick = (here / self.interval).round();
            self.late = Some(tick * self.interval - here);
            self.last = Some((at, tick as i64));
            return self.time_of(tick as i64);
        };
        if at <= last_at {
            return self.time_of(last);
        }
        let since = at.ns_since(last_at) as f64;
        // A pause says nothing of how fast a camera is.
        self.spacing += (since.min(4.0 * self.interval) - self.spacing) * SPACING_LEARNED;
        let late = self.late.unwrap_or_default();
        if self.spacing < FASTER * self.interval {
            let late = late * (1.0 - LEARNED);
            self.late = Some(late);
            self.last = Some((at, ((here + late) / self.interval).round() as i64));
            return shifted(at, late);
        }
        let natural = ((here + late) / self.interval).round() as i64;
        let own = natural.max(last + 1);
        let too_late = own as f64 * self.interval - here > FURTHEST_NS as f64 + self.interval / 2.0;
        let tick = if too_late { natural.max(last) } else { own };
        let is = tick as f64 * self.interval - here;
        let late = (late + (is - late) * LEARNED) * (1.0 - FORGOTTEN);
        self.late = Some(late.clamp(-FURTHEST_NS as f64, FURTHEST_NS as f64));
        self.last = Some((at, tick));
        self.time_of(tick)
    }

    fn time_of(&self, tick: i64) -> MediaTime {
        MediaTime::from_ns(output_time(tick.max(0) as u64, self.framerate))
    }
}

/// One track of sound, beside the pictures of the same participant.
#[derive(Debug, Default)]
pub struct LipSync {
    /// Its first time after the last silence.
    began: Option<MediaTime>,
    last: Option<MediaTime>,
    moved: f64,
}

impl LipSync {
    /// Anything else that happens to this track.
    pub fn moved(&self, at: MediaTime) -> MediaTime {
        shifted(at, self.moved)
    }

    /// Where the sound of this time is to be heard. `late`: how much later than theirs the pictures beside it are
    /// shown.
    pub fn shift(&mut self, at: MediaTime, late: Option<i64>) -> MediaTime {
        let since = self.last.map_or(u64::MAX, |last| at.ns_since(last));
        if since >= SILENT || self.began.is_none() {
            self.began = Some(at);
        }
        self.last = Some(at);
        // Without pictures there is nothing to be in sync with.
        let off = late.map_or(0.0, |late| late as f64 - self.moved);
        let fresh = self.began.is_some_and(|began| at.ns_since(began) < BEGUN);
        if off.abs() > NEAR {
            let most = since as f64 * SLEW;
            self.moved += if fresh { off } else { off.clamp(-most, most) };
        }
        shifted(at, self.moved)
    }
}

fn shifted(at: MediaTime, by: f64) -> MediaTime {
    at.shifted_ns(by as i64)
}

/// PTS and duration of picture `n`: whole nanoseconds, so that pictures neither overlap nor leave a hole.
pub fn output_time(n: u64, framerate: u32) -> u64 {
    (u128::from(n) * u128::from(SECOND_NS) / u128::from(framerate.max(1))) as u64
}

/// Number of the first picture at this time or later.
pub fn output_number(at_ns: u64, framerate: u32) -> u64 {
    u64::try_from((u128::from(at_ns) * u128::from(framerate)).div_ceil(u128::from(SECOND_NS))).unwrap_or(u64::MAX)
}

/// Pictures are shown at these times of the recording.
pub fn output_time_near(at: MediaTime, framerate: u32) -> MediaTime {
    let n = (u128::from(at.ns()) * u128::from(framerate) + u128::from(SECOND_NS / 2)) / u128::from(SECOND_NS);
    MediaTime::from_ns(output_time(n as u64, framerate))
}

#[cfg(test)]
#[path = "pacing_tests.rs"]
mod tests;
