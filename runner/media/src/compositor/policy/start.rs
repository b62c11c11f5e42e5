//! When a recording begins: at its first picture if one is to be expected, else at its first sound. Pure.
//!
//! In: what is published, who comes and goes, the first sound, all with their media times. Out: a start that needs no
//! picture, and until when a picture would be better. The answer may lie in the past: nothing is made before it is
//! given. Sound before the first picture is not recorded, so that a file begins with both (a player shows the first
//! picture as its poster, and a black one is taken for a broken recording).

use crate::track::TrackId;
use crate::units::MediaTime;

const MS: u64 = 1_000_000;
/// The longest wait for a picture, from the first publication or medium on. livekit/egress' default template starts 5 s
/// after something is subscribed, whatever there is to see; publishers that do not answer requests for a key frame
/// (OBS by WHIP, an ingress without transcoding) send one each 2 to 4 s.
const PICTURE_TIMEOUT: u64 = 5_000 * MS;
/// A room in which no video is published is waited for this long after its first sound: the template's 500 ms.
const NO_VIDEO: u64 = 500 * MS;
/// One participant, or named tracks: a camera is published up to a second after its microphone.
const NEAR: u64 = 1_000 * MS;

/// What decides where an output begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartRule {
    /// Many tiles.
    Composite,
    /// One source.
    FirstMedium,
    /// This moment, decided elsewhere (by a copied track beside the compositor).
    At(MediaTime),
}

/// A start that needs no picture, and until when a picture would be better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Where the recording would begin without a picture.
    pub at: MediaTime,
    /// A picture before this moment makes a better beginning.
    pub picture_before: MediaTime,
}

/// What is known of the room before the recording begins.
#[derive(Debug, Default)]
pub struct Prelude {
    intervals: Vec<TrackInterval>,
    first_sound: Option<MediaTime>,
}

/// A time in which a publication sends, or is to be expected to.
#[derive(Debug)]
struct TrackInterval {
    /// Of the publication (`TR_…`).
    sid: String,
    /// Since its first frame.
    track: Option<TrackId>,
    video: bool,
    from: MediaTime,
    /// Left, or muted before anything was seen.
    gone: Option<MediaTime>,
}

impl Prelude {
    /// A publication is subscribed, or its mute changed; frames follow if it is not muted.
    pub fn published(&mut self, sid: &str, video: bool, muted: bool, at: MediaTime) {
        let of_it = |interval: &&TrackInterval| interval.sid == sid;
        if self.intervals.iter().filter(of_it).any(|interval| interval.gone.is_none()) {
            if muted {
                self.unpublished(sid, at);
            }
            return;
        }
        let track = self.intervals.iter().rfind(of_it).and_then(|interval| interval.track);
        self.intervals.push(TrackInterval { sid: sid.to_owned(), track, video, from: at, gone: muted.then_some(at) });
    }

    /// Nothing (more) comes of a publication.
    pub fn unpublished(&mut self, sid: &str, at: MediaTime) {
        self.end(at, |interval| interval.sid == sid);
    }

    /// The first frame of a track has come.
    pub fn joined(&mut self, track: TrackId, sid: &str, video: bool, at: MediaTime) {
        match self.intervals.iter_mut().find(|interval| interval.gone.is_none() && interval.sid == sid) {
            Some(interval) => interval.track = Some(track),
            None => {
                self.intervals.push(TrackInterval {
                    sid: sid.to_owned(),
                    track: Some(track),
                    video,
                    from: at,
                    gone: None,
                });
            }
        }
    }

    /// The track left or was muted.
    pub fn gone(&mut self, track: TrackId, at: MediaTime) {
        self.end(at, |interval| interval.track == Some(track));
    }

    fn end(&mut self, at: MediaTime, which: impl Fn(&TrackInterval) -> bool) {
        for interval in self.intervals.iter_mut().filter(|interval| interval.gone.is_none() && which(interval)) {
            interval.gone = Some(at);
        }
    }

    /// A video that was muted sends again.
    pub fn frame(&mut self, track: TrackId, video: bool, at: MediaTime) {
        if !video {
            self.first_sound = Some(self.first_sound.map_or(at, |first| first.min(at)));
        } else if let Some(interval) = self.intervals.iter().rfind(|interval| interval.track == Some(track))
            && interval.gone.is_some_and(|gone| gone <= at)
        {
            let sid = interval.sid.clone();
            self.intervals.push(TrackInterval { sid, track: Some(track), video, from: at, gone: None });
        }
    }

    /// Where the recording would begin without a picture, by what is known up to `known_to`.
    pub fn candidate(&self, rule: StartRule, wants_picture: bool, known_to: MediaTime) -> Option<Candidate> {
        if let StartRule::At(at) = rule {
            return Some(Candidate { at, picture_before: at });
        }
        let first = self.intervals.iter().map(|interval| interval.from).min()?;
        let by_timeout = after(first, PICTURE_TIMEOUT);
        let begin = self.first_sound.map_or(by_timeout, |sound| sound.min(by_timeout));
        if !wants_picture {
            return Some(Candidate { at: begin, picture_before: begin });
        }
        let alone = if rule == StartRule::Composite { NO_VIDEO } else { NEAR };
        let picture_before = match self.first_sound {
            None => by_timeout,
            Some(sound) => self.first_without_video(after(sound, alone), known_to).min(by_timeout.max(sound)),
        };
        Some(Candidate { at: begin, picture_before })
    }

    /// The first moment from `from` on at which no video is published.
    fn first_without_video(&self, from: MediaTime, known_to: MediaTime) -> MediaTime {
        let mut moment = from;
        // Each interval can push the moment once; one pass per interval is enough whatever their order.
        for _ in 0..=self.intervals.len() {
            let over = self.intervals.iter().find(|interval| {
                interval.video && interval.from <= moment && interval.gone.is_none_or(|gone| gone > moment)
            });
            match over {
                None => return moment,
                // Still there: nothing is known beyond the watermark.
                Some(interval) => {
                    moment = interval.gone.unwrap_or_else(|| after(known_to.max(moment), PICTURE_TIMEOUT))
                }
            }
        }
        moment
    }
}

fn after(moment: MediaTime, by: u64) -> MediaTime {
    moment.plus_ns(by)
}

#[cfg(test)]
#[path = "start_tests.rs"]
mod tests;
