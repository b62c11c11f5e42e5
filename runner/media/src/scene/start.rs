//! When a recording begins: at its first picture if one is to be expected, else at its first sound. Pure.
//!
//! In: what is published, who comes and goes, the first sound, all with their session times. Out: a start that needs no
//! picture, and until when a picture would be better. The answer may lie in the past: nothing is made before it is
//! given. Sound before the first picture is not recorded, so that a file begins with both (a player shows the first
//! picture as its poster, and a black one is taken for a broken recording).

use crate::track::{SessionTime, TrackId};

const MS: u64 = 1_000_000;
/// The longest wait for a picture, from the first publication or medium on. livekit/egress' default template starts 5 s
/// after something is subscribed, whatever there is to see; publishers that do not answer requests for a key frame
/// (OBS by WHIP, an ingress without transcoding) send one each 2 to 4 s.
const PATIENCE: u64 = 5_000 * MS;
/// A room in which no video is published is waited for this long after its first sound: the template's 500 ms.
const NO_VIDEO: u64 = 500 * MS;
/// One participant, or named tracks: a camera is published up to a second after its microphone.
const NEAR: u64 = 1_000 * MS;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartRule {
    /// Many tiles.
    Composite,
    /// One source.
    FirstMedium,
    /// This moment, decided elsewhere (by a copied track beside the scene).
    At(SessionTime),
}

/// A start that needs no picture, and until when a picture would be better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub at: SessionTime,
    pub picture_before: SessionTime,
}

/// What is known of the session before it is recorded.
#[derive(Debug, Default)]
pub struct Prelude {
    stays: Vec<Stay>,
    first_sound: Option<SessionTime>,
}

/// A time in which a publication sends, or is to be expected to.
#[derive(Debug)]
struct Stay {
    /// Of the publication (`TR_…`).
    sid: String,
    /// Since its first frame.
    track: Option<TrackId>,
    video: bool,
    from: SessionTime,
    /// Left, or muted before anything was seen.
    gone: Option<SessionTime>,
}

impl Prelude {
    /// A publication is subscribed, or its mute changed; frames follow if it is not muted.
    pub fn published(&mut self, sid: &str, video: bool, muted: bool, at: SessionTime) {
        let of_it = |stay: &&Stay| stay.sid == sid;
        if self.stays.iter().filter(of_it).any(|stay| stay.gone.is_none()) {
            if muted {
                self.unpublished(sid, at);
            }
            return;
        }
        let track = self.stays.iter().rfind(of_it).and_then(|stay| stay.track);
        self.stays.push(Stay { sid: sid.to_owned(), track, video, from: at, gone: muted.then_some(at) });
    }

    /// Nothing (more) comes of a publication.
    pub fn unpublished(&mut self, sid: &str, at: SessionTime) {
        self.end(at, |stay| stay.sid == sid);
    }

    pub fn joined(&mut self, track: TrackId, sid: &str, video: bool, at: SessionTime) {
        match self.stays.iter_mut().find(|stay| stay.gone.is_none() && stay.sid == sid) {
            Some(stay) => stay.track = Some(track),
            None => {
                self.stays.push(Stay { sid: sid.to_owned(), track: Some(track), video, from: at, gone: None });
            }
        }
    }

    pub fn gone(&mut self, track: TrackId, at: SessionTime) {
        self.end(at, |stay| stay.track == Some(track));
    }

    fn end(&mut self, at: SessionTime, which: impl Fn(&Stay) -> bool) {
        for stay in self.stays.iter_mut().filter(|stay| stay.gone.is_none() && which(stay)) {
            stay.gone = Some(at);
        }
    }

    /// A video that was muted sends again.
    pub fn frame(&mut self, track: TrackId, video: bool, at: SessionTime) {
        if !video {
            self.first_sound = Some(self.first_sound.map_or(at, |first| first.min(at)));
        } else if let Some(stay) = self.stays.iter().rfind(|stay| stay.track == Some(track))
            && stay.gone.is_some_and(|gone| gone <= at)
        {
            let sid = stay.sid.clone();
            self.stays.push(Stay { sid, track: Some(track), video, from: at, gone: None });
        }
    }

    /// Where the recording would begin without a picture, as far as the session is known.
    pub fn candidate(&self, rule: StartRule, wants_picture: bool, known_to: SessionTime) -> Option<Candidate> {
        if let StartRule::At(at) = rule {
            return Some(Candidate { at, picture_before: at });
        }
        let first = self.stays.iter().map(|stay| stay.from).min()?;
        let by_patience = after(first, PATIENCE);
        let begin = self.first_sound.map_or(by_patience, |sound| sound.min(by_patience));
        if !wants_picture {
            return Some(Candidate { at: begin, picture_before: begin });
        }
        let alone = if rule == StartRule::Composite { NO_VIDEO } else { NEAR };
        let picture_before = match self.first_sound {
            None => by_patience,
            Some(sound) => self.first_without_video(after(sound, alone), known_to).min(by_patience.max(sound)),
        };
        Some(Candidate { at: begin, picture_before })
    }

    /// The first moment from `from` on at which no video is published.
    fn first_without_video(&self, from: SessionTime, known_to: SessionTime) -> SessionTime {
        let mut moment = from;
        // Each stay can push the moment once; one pass per stay is enough whatever their order.
        for _ in 0..=self.stays.len() {
            let over = self
                .stays
                .iter()
                .find(|stay| stay.video && stay.from <= moment && stay.gone.is_none_or(|gone| gone > moment));
            match over {
                None => return moment,
                // Still there: nothing is known beyond the watermark.
                Some(stay) => moment = stay.gone.unwrap_or_else(|| after(known_to.max(moment), PATIENCE)),
            }
        }
        moment
    }
}

fn after(moment: SessionTime, by: u64) -> SessionTime {
    SessionTime(moment.0 + by)
}

#[cfg(test)]
#[path = "start_tests.rs"]
mod tests;
