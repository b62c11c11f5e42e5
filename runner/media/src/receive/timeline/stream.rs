//! One RTP stream: its media time, and how far that is from the recording's.
//!
//! `wall` is what arrival says of the difference, the mapping (sender reports) with the participant's shift is what
//! the publisher says; `applied` follows one of them. It moves by less than 100 ms unheard (slewing), else in one step.

use std::time::Duration;

use super::ahead::AheadSource;
use super::decode_order::DecodeOrder;
use super::gate::StartupGate;
use super::mapping::{NtpMapping, STEP};
use super::standstill::{Recent, Standstill, Verdict};
use crate::units::{MediaTime, RtpTime};

/// Correction per second of media. The mixer stretches sound by this much unheard.
pub(super) const SLEW_SOUND: f64 = 0.005;
/// Less than 1 ms between two pictures of 30 a second, so that the compositor can follow.
const SLEW_PICTURE: f64 = 0.02;
/// Lips this far from their sound are worth a picture.
const FAR: f64 = 40e6;
const SLEW_FAR: f64 = 0.2;
const NEAR: f64 = 5e6;
/// Sound would take 20 s per 100 ms to slew: a stream that stays this far off for so long steps.
const STEP_FROM: f64 = 100e6;
const STEP_AFTER: Duration = Duration::from_secs(1);
/// Nothing to protect from a step after a pause this long.
const PAUSE: i64 = 500_000_000;
/// Reports that lead this far from arrival are wrong …
pub(super) const BELIEVABLE: i64 = 500_000_000;
/// … but a stream whose reports were right may fall behind its arrival by a queue on the way.
const LATEST: i64 = 10_000_000_000;
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

/// Nothing arrives before it was made: media time that gains this much between two frames on the arrival of the last ones,
/// and on where the stream stands, has jumped.
const LEAP: i64 = 150_000_000;
/// The server extrapolates the last report it has, which libwebrtc renews each 5 s for sound and the server sends on each
/// 3 s: for so long after a standstill reports may speak of the time before it.
const REPORTS_LAG: Duration = Duration::from_secs(9);
/// Where arrival and a new report agree; sound travels up to 60 ms less than the picture that is reported beside it.
const SUPPORTED: f64 = 60e6;
/// A stream that is silent for so long cannot confirm a report that differs from those before.
const SILENT: Duration = Duration::from_millis(500);
/// A frame is never placed further ahead of its arrival than this, nanoseconds.
const AHEAD: i64 = 2_000_000_000;
/// Nor one of a sentence that came at once: libwebrtc's listeners keep 200 packets.
const SENTENCE_AHEAD: i64 = 4_000_000_000;

#[derive(Debug)]
pub(super) struct StreamClock {
    pub(super) identity: String,
    pub(super) sound: bool,
    rate: u64,
    first_rtp: Option<RtpTime>,
    pub(super) gate: StartupGate,
    pub(super) mapping: NtpMapping,
    pub(super) anchor: bool,
    /// Arrival minus media time, smoothed.
    pub(super) wall: Option<f64>,
    /// Frames have come as if the stream had jumped back since then.
    late_since: Option<Duration>,
    recent: Recent,
    /// Arrival of the newest frame.
    came: Option<Duration>,
    standstill: Option<Standstill>,
    /// It sends sentences at once: each is heard from its arrival on.
    ahead: Option<AheadSource>,
    stepped_at: Option<Duration>,
    /// Its reports have agreed with its arrival.
    believed: bool,
    far_since: Option<Duration>,
    /// What is applied: session arrival minus media time.
    pub(super) applied: Option<f64>,
    /// It was far off, and is not near yet.
    hurries: bool,
    last_media: i64,
    /// Of the frames that have arrived, and of those that are placed.
    arrived: DecodeOrder,
    placed: DecodeOrder,
    /// Of the frame that was placed last: shown so much later than decoded.
    pub(super) offset_ns: i64,
    /// One time per RTP time.
    pub(super) last: Option<(RtpTime, MediaTime)>,
}

impl StreamClock {
    pub(super) fn new(identity: &str, sound: bool, rate: u32) -> Self {
        Self {
            identity: identity.to_owned(),
            sound,
            rate: u64::from(rate.max(1)),
            first_rtp: None,
            gate: StartupGate::default(),
            mapping: NtpMapping::default(),
            anchor: false,
            wall: None,
            late_since: None,
            recent: Recent::default(),
            came: None,
            standstill: None,
            ahead: None,
            stepped_at: None,
            believed: false,
            far_since: None,
            applied: None,
            hurries: false,
            last_media: 0,
            arrived: DecodeOrder::default(),
            placed: DecodeOrder::default(),
            offset_ns: 0,
            last: None,
        }
    }

    /// Nanoseconds of media since the stream's first frame; negative for what lies before it.
    pub(super) fn media(&mut self, rtp: RtpTime) -> i64 {
        let first = *self.first_rtp.get_or_insert(rtp);
        rtp.ns_since(first, self.rate)
    }

    /// The report's 32 bits near the last frame; `None` before the first frame.
    pub(super) fn extend(&self, rtp: u32) -> Option<RtpTime> {
        let near = match self.last {
            Some((rtp, _)) => rtp,
            None => self.first_rtp?,
        };
        near.extend(rtp)
    }

    /// A frame arrived, before it is placed. True: what waits came before media time stood still, and is placed first.
    pub(super) fn arrive(&mut self, media: i64, at: Duration) -> bool {
        let offset = at.as_nanos() as i64 - media;
        self.came = Some(at);
        // A B frame comes late by what it is shown earlier, which says nothing of its way.
        if !self.sound && self.arrived.is_b_frame(media) {
            return false;
        }
        if self.wall.is_none() {
            self.gate.frame(media, at);
            self.recent.push(offset);
            return false;
        }
        if let Some(ahead) = &mut self.ahead {
            self.recent.push(offset);
            if ahead.is_live(media, at) {
                self.catch_up();
            } else {
                self.wall = self.wall.map(|wall| wall.max(offset as f64));
            }
            return false;
        }
        // Time that passed without a frame counts: what follows a burst does so at once.
        let mut decided = self.standstill.is_some();
        self.judge(at);
        decided &= self.standstill.is_none();
        if let Some(standstill) = &self.standstill
            && let Some(settled) = standstill.rises_again(offset)
        {
            let again = standstill.again(offset, at);
            if settled {
                self.stood_still(at);
                decided = true;
            } else {
                self.standstill = Some(again);
            }
        } else if let Some(standstill) = &mut self.standstill {
            standstill.frame(offset, at);
        }
        if self.is_ahead() {
            self.recent.push(offset);
            return decided;
        }
        if self.standstill.is_none() {
            self.standstill = Standstill::begins(&self.recent, offset, at);
        }
        self.leap(offset, at);
        self.judge(at);
        if self.standstill.is_none() {
            self.recent.push(offset);
            self.follow_arrival(offset, at);
        }
        decided
    }

    /// Media time that gained on arrival by more than arrival can: it has jumped ahead.
    fn leap(&mut self, offset: i64, at: Duration) {
        let stands = self.applied.or(self.wall);
        let (None, Some(min), Some(stands)) = (&self.standstill, self.recent.min(), stands) else { return };
        if min - offset < LEAP || stands - (offset as f64) < LEAP as f64 {
            return;
        }
        // Without reports a queue that was dropped looks the same: either way the frame stands where it arrives.
        let by = if self.mapping.offset().is_some() { offset - min } else { offset - stands as i64 };
        self.step(by, Recent::from([offset; 2]), at);
    }

    /// May its frames be placed now?
    pub(super) fn is_open(&mut self, now: Duration) -> bool {
        if self.wall.is_none() && self.gate.is_open(now) {
            let sentence = self.gate.sentence(now).filter(|_| self.sound && now != Duration::MAX);
            self.wall = sentence.or(self.gate.best).map(|offset| offset as f64);
            if let Some(first) = sentence {
                self.sends_ahead(first);
            }
        }
        // The end of a stream is no evidence.
        if now != Duration::MAX {
            self.judge(now);
        }
        self.wall.is_some() && !self.standstill.as_ref().is_some_and(|standstill| standstill.holds(now))
    }

    fn judge(&mut self, now: Duration) {
        match self.standstill.as_ref().map(|standstill| standstill.verdict(now)) {
            Some(Verdict::CaughtUp) => self.standstill = None,
            Some(Verdict::StoodStill) => self.stood_still(now),
            Some(Verdict::Undecided) | None => {}
        }
    }

    fn stood_still(&mut self, at: Duration) {
        let Some(standstill) = self.standstill.take() else { return };
        match standstill.sentence().filter(|_| self.sound) {
            Some(first) => {
                self.step(standstill.rise_to(first), standstill.recent(), at);
                self.sends_ahead(first);
            }
            None => self.step(standstill.rise(), standstill.recent(), at),
        }
    }

    /// What came last is a sentence, whose first frame had this difference of arrival and media time.
    fn sends_ahead(&mut self, first: i64) {
        self.recent = Recent::from([first; 2]);
        self.ahead = Some(AheadSource::default());
    }

    /// Its reports speak of what was sent, not of when it is heard.
    pub(super) fn is_ahead(&self) -> bool {
        self.ahead.is_some()
    }

    /// Media time moved against arrival by so much, and its publisher's clock did not: everything that is counted from
    /// media time moves along. `recent`: arrival minus media time from now on.
    fn step(&mut self, by: i64, recent: Recent, at: Duration) {
        self.wall = self.wall.map(|wall| wall + by as f64);
        self.applied = self.applied.map(|applied| applied + by as f64);
        self.mapping.shift(by);
        self.recent = recent;
        self.stepped_at = Some(at);
        self.late_since = None;
        self.far_since = None;
    }

    /// Whatever was believed is wrong: it goes on where it arrives.
    pub(super) fn catch_up(&mut self) {
        self.ahead = None;
        if let Some(standstill) = self.standstill.take() {
            self.recent = standstill.recent();
        }
        if let Some(offset) = self.recent.min() {
            self.wall = Some(offset as f64);
            self.applied = self.wall;
            self.believed = false;
            self.far_since = None;
        }
    }

    fn follow_arrival(&mut self, offset: i64, at: Duration) {
        let Some(wall) = self.wall else { return };
        let off = offset as f64 - wall;
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

    /// A report that cannot be held against arrival, or speaks of the time before a step. `raw`: the publisher's clock minus
    /// media time by this report; `delay`: its arrival minus the publisher's clock.
    pub(super) fn is_outdated(&self, raw: i64, delay: i64, at: Duration) -> bool {
        let differs = self.mapping.offset().is_some_and(|known| (raw - known).abs() > STEP);
        if differs && self.came.is_none_or(|came| at.saturating_sub(came) > SILENT) {
            return true;
        }
        if self.stepped_at.is_none_or(|stepped| at.saturating_sub(stepped) >= REPORTS_LAG) {
            return false;
        }
        match (self.mapping.offset(), self.applied.or(self.wall)) {
            (Some(_), _) => differs,
            (None, Some(stands)) => (stands - raw as f64 - delay as f64).abs() > STEP_FROM,
            (None, None) => false,
        }
    }

    /// Arrival of the newest frames agrees with a report that differs from those before.
    pub(super) fn supports(&self, raw: i64, shift: Option<f64>) -> bool {
        let (Some(shift), Some(known), Some(arrived)) = (shift, self.mapping.offset(), self.recent.min()) else {
            return false;
        };
        let change = (raw - known).abs() as f64;
        (raw as f64 + shift - arrived as f64).abs() < SUPPORTED.min(change / 3.0)
    }

    /// The next frame to be placed, if it is a B frame: where it is shown, nanoseconds of arrival time.
    pub(super) fn reordered(&mut self, media: i64) -> Option<f64> {
        let is_b_frame = !self.sound && self.placed.is_b_frame(media);
        self.applied.filter(|_| is_b_frame).map(|applied| media as f64 + applied)
    }

    /// The place of a frame, nanoseconds of arrival time. `by_report`: where its publisher's clock puts media time zero.
    pub(super) fn place(&mut self, media: i64, by_report: Option<f64>, at: Duration) -> f64 {
        let now = at.as_nanos() as f64;
        let wall = self.wall.unwrap_or(now - media as f64);
        let (mut applied, furthest) = if self.is_ahead() {
            (wall, SENTENCE_AHEAD)
        } else {
            let goal = by_report.filter(|by_report| self.believes(wall - by_report)).unwrap_or(wall);
            (self.follow(goal, media, at), AHEAD)
        };
        if media as f64 + applied > now + furthest as f64 {
            applied = applied.min(self.recent.min().map_or(now - media as f64, |offset| offset as f64));
            self.wall = Some(applied.min(wall));
        }
        self.applied = Some(applied);
        self.last_media = media;
        media as f64 + applied
    }

    /// `late`: how far arrival is behind what its reports say, nanoseconds.
    fn believes(&mut self, late: f64) -> bool {
        self.believed = late.abs() < BELIEVABLE as f64 || (self.believed && (0.0..LATEST as f64).contains(&late));
        self.believed
    }

    fn follow(&mut self, goal: f64, media: i64, at: Duration) -> f64 {
        let elapsed = media - self.last_media;
        let Some(applied) = self.applied.filter(|_| (0..PAUSE).contains(&elapsed)) else {
            self.far_since = None;
            return goal;
        };
        let off = goal - applied;
        if off.abs() <= STEP_FROM {
            self.far_since = None;
        } else if at.saturating_sub(*self.far_since.get_or_insert(at)) >= STEP_AFTER {
            self.far_since = None;
            return goal;
        }
        let most = elapsed as f64 * self.slew(off.abs());
        applied + off.clamp(-most, most)
    }

    /// Correction per nanosecond of a stream that is so far from where it belongs.
    fn slew(&mut self, off: f64) -> f64 {
        if self.sound {
            return SLEW_SOUND;
        }
        self.hurries = off > FAR || (self.hurries && off > NEAR);
        if self.hurries { SLEW_FAR } else { SLEW_PICTURE }
    }
}
