//! When a recording begins: at its first picture if one is near, else at its first sound. Pure.
//!
//! The answer may lie in the past: nothing is made before it is given, so that waiting for a picture loses no sound.

use crate::track::{SessionTime, TrackId};

const MS: u64 = 1_000_000;
/// livekit/egress' default template starts 5 s after something is subscribed, whatever there is to see.
const PATIENCE: u64 = 5_000 * MS;
/// And 500 ms after it when no video is published.
const NO_VIDEO: u64 = 500 * MS;
/// The recording of one participant or of named tracks waits this long for a picture after its first sound.
const NEAR: u64 = 1_000 * MS;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartRule {
    /// Many tiles: a picture is worth waiting for while a video is published and not muted.
    Composite,
    /// One source: its first medium.
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

#[derive(Debug)]
struct Stay {
    track: TrackId,
    video: bool,
    from: SessionTime,
    /// Left, or muted before anything was seen.
    gone: Option<SessionTime>,
}

impl Prelude {
    pub fn joined(&mut self, track: TrackId, video: bool, at: SessionTime) {
        self.stays.push(Stay { track, video, from: at, gone: None });
    }

    pub fn gone(&mut self, track: TrackId, at: SessionTime) {
        for stay in self.stays.iter_mut().filter(|stay| stay.track == track && stay.gone.is_none()) {
            stay.gone = Some(at);
        }
    }

    /// A video that was muted sends again.
    pub fn frame(&mut self, track: TrackId, video: bool, at: SessionTime) {
        if !video {
            self.first_sound = Some(self.first_sound.map_or(at, |first| first.min(at)));
        } else if let Some(stay) = self.stays.iter().rfind(|stay| stay.track == track)
            && stay.gone.is_some_and(|gone| gone <= at)
        {
            self.stays.push(Stay { track, video, from: at, gone: None });
        }
    }

    /// Where the recording would begin without a picture, as far as the session is known.
    pub fn candidate(&self, rule: StartRule, wants_picture: bool, known_to: SessionTime) -> Option<Candidate> {
        if let StartRule::At(at) = rule {
            return Some(Candidate { at, picture_before: at });
        }
        let first_join = self.stays.iter().map(|stay| stay.from).min()?;
        let by_patience = after(first_join, PATIENCE);
        let begin = self.first_sound.map_or(by_patience, |sound| sound.min(by_patience));
        if !wants_picture {
            return Some(Candidate { at: begin, picture_before: begin });
        }
        let picture_before = match (rule, self.first_sound) {
            (_, None) => by_patience,
            (StartRule::FirstMedium | StartRule::At(_), Some(sound)) => after(sound, NEAR).min(by_patience.max(sound)),
            (StartRule::Composite, Some(sound)) => {
                self.first_without_video(after(sound, NO_VIDEO), known_to)?.min(by_patience.max(sound))
            }
        };
        Some(Candidate { at: begin, picture_before })
    }

    /// The first moment from `from` on at which no video is published.
    fn first_without_video(&self, from: SessionTime, known_to: SessionTime) -> Option<SessionTime> {
        let mut moment = from;
        // Each stay can push the moment once; one pass per stay is enough whatever their order.
        for _ in 0..=self.stays.len() {
            let over = self
                .stays
                .iter()
                .find(|stay| stay.video && stay.from <= moment && stay.gone.is_none_or(|gone| gone > moment));
            match over {
                None => return Some(moment),
                // Still there: nothing is known beyond the watermark.
                Some(stay) => moment = stay.gone.unwrap_or_else(|| after(known_to.max(moment), PATIENCE)),
            }
        }
        Some(moment)
    }
}

fn after(moment: SessionTime, by: u64) -> SessionTime {
    SessionTime(moment.0 + by)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAMERA: TrackId = TrackId(1);
    const MICROPHONE: TrackId = TrackId(2);

    fn at(ms: u64) -> SessionTime {
        SessionTime(ms * MS)
    }

    fn candidate(prelude: &Prelude, rule: StartRule) -> Candidate {
        prelude.candidate(rule, true, at(20_000)).unwrap()
    }

    #[test]
    fn an_empty_room_never_starts() {
        assert_eq!(Prelude::default().candidate(StartRule::Composite, true, at(60_000)), None);
    }

    #[test]
    fn without_a_published_video_half_a_second_of_sound_decides() {
        let mut prelude = Prelude::default();
        prelude.joined(MICROPHONE, false, at(100));
        prelude.frame(MICROPHONE, false, at(200));
        assert_eq!(
            candidate(&prelude, StartRule::Composite),
            Candidate { at: at(200), picture_before: at(700) },
            "and the half second is not lost"
        );
    }

    #[test]
    fn a_published_video_is_waited_for_up_to_five_seconds() {
        let mut prelude = Prelude::default();
        prelude.joined(CAMERA, true, at(0));
        prelude.joined(MICROPHONE, false, at(0));
        prelude.frame(MICROPHONE, false, at(300));
        assert_eq!(candidate(&prelude, StartRule::Composite), Candidate { at: at(300), picture_before: at(5000) });
        assert_eq!(candidate(&prelude, StartRule::FirstMedium), Candidate { at: at(300), picture_before: at(1300) });
    }

    #[test]
    fn a_muted_camera_is_not_waited_for() {
        let mut prelude = Prelude::default();
        prelude.joined(CAMERA, true, at(0));
        prelude.gone(CAMERA, at(0));
        prelude.joined(MICROPHONE, false, at(0));
        prelude.frame(MICROPHONE, false, at(300));
        assert_eq!(candidate(&prelude, StartRule::Composite).picture_before, at(800));
    }

    #[test]
    fn participants_without_anything_start_it_after_five_seconds() {
        let mut prelude = Prelude::default();
        prelude.joined(CAMERA, true, at(1000));
        assert_eq!(candidate(&prelude, StartRule::Composite), Candidate { at: at(6000), picture_before: at(6000) });
    }

    #[test]
    fn a_start_decided_elsewhere_is_obeyed_even_in_an_empty_room() {
        let rule = StartRule::At(at(700));
        assert_eq!(candidate(&Prelude::default(), rule), Candidate { at: at(700), picture_before: at(700) });
    }

    #[test]
    fn audio_only_starts_at_its_first_sound() {
        let mut prelude = Prelude::default();
        prelude.joined(MICROPHONE, false, at(0));
        prelude.frame(MICROPHONE, false, at(300));
        let candidate = prelude.candidate(StartRule::Composite, false, at(400)).unwrap();
        assert_eq!(candidate, Candidate { at: at(300), picture_before: at(300) });
    }
}
