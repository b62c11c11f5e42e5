//! What is made of what came first: copied, or composed, and where a copy begins. Pure.
//!
//! A copied picture begins its file, as a composed one does (`scene::StartRule`): sound before its first key frame is
//! not recorded.

use std::collections::HashMap;

use spillway_plan::{Container, EgressPlan, Output, Picture};
use spillway_spool::TrackFacts;

use crate::copy;
use crate::scene::{Prelude, StartRule};
use crate::track::{Codec, Frame, Origin, SessionTime, Timed, Track, TrackId};

#[derive(Clone, Debug, PartialEq)]
pub enum Choice {
    /// One track, untouched, alone in its file.
    Track { track: Track, first: First, container: Container },
    /// The picture untouched, the sound mixed.
    CopiedPicture { track: Track, first: First },
    /// Everything through the scene.
    Composed,
}

/// Where a copied file begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct First {
    pub at: SessionTime,
    /// Of the first key frame; (0, 0) for sound.
    pub size: (u32, u32),
}

/// What is known before anything is written.
#[derive(Debug, Default)]
pub struct Known {
    tracks: HashMap<TrackId, Track>,
    first_picture: Option<(TrackId, SessionTime, (u32, u32))>,
    anything: Option<Frame>,
    /// Until when a picture is worth waiting for.
    prelude: Prelude,
    known_to: SessionTime,
}

impl Known {
    pub fn take(&mut self, timed: &Timed) {
        match timed {
            Timed::Published { sid, video, muted, at } => self.prelude.published(sid, *video, *muted, *at),
            Timed::Unpublished { sid, at } => self.prelude.unpublished(sid, *at),
            Timed::Joined { track, at } => {
                self.tracks.insert(track.id, track.clone());
                self.prelude.joined(track.id, &track.sid, track.codec.is_video(), *at);
            }
            Timed::Absent { track, at, .. } | Timed::Left { track, at } => self.prelude.gone(*track, *at),
            Timed::Frame(frame) => {
                let Some(track) = self.tracks.get(&frame.track) else { return };
                self.prelude.frame(frame.track, track.codec.is_video(), frame.at);
                if track.codec.is_video() {
                    let Some(size) = frame.size.filter(|_| frame.key) else { return };
                    self.first_picture.get_or_insert((frame.track, frame.at, size));
                }
                self.anything.get_or_insert_with(|| frame.clone());
            }
            Timed::CompleteTo { at } => self.known_to = self.known_to.max(*at),
            _ => {}
        }
    }

    /// `None`: not enough is known yet.
    pub fn choose(&self, plan: &EgressPlan) -> Option<Choice> {
        let first = self.anything.as_ref()?;
        match &plan.picture {
            // One publication, whatever its kind.
            Some(Picture::Copied) => {
                let track = self.tracks.get(&first.track)?.clone();
                let Output::File(file) = plan.outputs.first()?;
                let container = file
                    .container
                    .filter(|container| copy::fits(track.codec, *container))
                    .unwrap_or_else(|| copy::container(track.codec));
                let first = First { at: first.at, size: first.size.unwrap_or_default() };
                Some(Choice::Track { track, first, container })
            }
            Some(Picture::CopiedIfPossible(_)) => match self.first_picture {
                Some((id, at, size)) => {
                    let track = self.tracks.get(&id)?;
                    if track.codec != Codec::H264 {
                        return Some(Choice::Composed);
                    }
                    Some(Choice::CopiedPicture { track: track.clone(), first: First { at, size } })
                }
                None => {
                    let candidate = self.prelude.candidate(StartRule::FirstMedium, true, self.known_to)?;
                    (candidate.picture_before <= self.known_to).then_some(Choice::Composed)
                }
            },
            Some(Picture::Single(_) | Picture::Composed { .. }) | None => Some(Choice::Composed),
        }
    }

    pub fn facts(&self, plan: &EgressPlan) -> TrackFacts {
        let mut facts = TrackFacts::default();
        let of = |video: bool| self.tracks.values().filter(move |track| track.codec.is_video() == video);
        match plan.kind {
            spillway_plan::Kind::RoomComposite => return facts,
            spillway_plan::Kind::Track => {
                if let Some(track) = self.tracks.values().next() {
                    facts.track_id = track.sid.clone();
                    facts.track_kind = if track.codec.is_video() { "video" } else { "audio" }.to_owned();
                    facts.track_source = source_name(track.origin).to_owned();
                }
            }
            spillway_plan::Kind::TrackComposite | spillway_plan::Kind::Participant => {
                facts.video_track_id = of(true).map(|track| track.sid.clone()).next().unwrap_or_default();
                facts.audio_track_id = of(false).map(|track| track.sid.clone()).next().unwrap_or_default();
            }
        }
        // The publisher of the picture names the file.
        let publisher = of(true).next().or_else(|| of(false).next());
        facts.publisher_identity = publisher.map(|track| track.identity.clone()).unwrap_or_default();
        facts
    }
}

fn source_name(origin: Origin) -> &'static str {
    match origin {
        Origin::Camera => "camera",
        Origin::Microphone => "microphone",
        Origin::ScreenShare => "screen_share",
        Origin::ScreenShareAudio => "screen_share_audio",
        Origin::Unknown => "unknown",
    }
}

/// The container of a recording that is not a single copied track.
pub fn container(plan: &EgressPlan) -> Container {
    plan.outputs.first().and_then(|Output::File(file)| file.container).unwrap_or(if plan.picture.is_some() {
        Container::Mp4
    } else {
        Container::Ogg
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use spillway_plan::{AudioCodec, FileOutput, H264Profile, Kind, Limits, Mixing, Sound, Source, VideoEncoding};

    fn plan(kind: Kind, picture: Picture, container: Option<Container>) -> EgressPlan {
        EgressPlan {
            egress_id: "EG_x".into(),
            room_name: "room".into(),
            room_id: String::new(),
            kind,
            source: Source::Room,
            picture: Some(picture),
            sound: Some(Sound::Mixed { codec: AudioCodec::Aac, bitrate: 128, frequency: 44_100, mixing: Mixing::Both }),
            outputs: vec![Output::File(FileOutput { container, path: String::new(), manifest: false, stored: false })],
            limits: Limits::default(),
            retry_count: 0,
        }
    }

    fn if_possible() -> Picture {
        Picture::CopiedIfPossible(VideoEncoding {
            width: 1280,
            height: 720,
            framerate: 30,
            bitrate: 3000,
            profile: H264Profile::Main,
            key_frame_interval: None,
        })
    }

    fn joined(id: u32, codec: Codec) -> Timed {
        let track = Track {
            id: TrackId(id),
            sid: format!("TR_{id}"),
            identity: "alice".into(),
            agent: false,
            origin: if codec.is_video() { Origin::Camera } else { Origin::Microphone },
            codec,
            clock_rate: 90_000,
            channels: 0,
            published_size: (0, 0),
        };
        Timed::Joined { track, at: SessionTime(0) }
    }

    fn frame(id: u32, ms: u64, size: Option<(u32, u32)>) -> Timed {
        Timed::Frame(Frame {
            track: TrackId(id),
            at: SessionTime(ms * 1_000_000),
            key: size.is_some(),
            size,
            data: Bytes::new(),
        })
    }

    fn known(timed: &[Timed]) -> Known {
        let mut known = Known::default();
        timed.iter().for_each(|timed| known.take(timed));
        known
    }

    fn complete_to(ms: u64) -> Timed {
        Timed::CompleteTo { at: SessionTime(ms * 1_000_000) }
    }

    fn published(muted: bool) -> Timed {
        Timed::Published { sid: "TR_2".into(), video: true, muted, at: SessionTime(0) }
    }

    fn copied_from(known: &Known) -> First {
        match known.choose(&plan(Kind::Participant, if_possible(), Some(Container::Mp4))) {
            Some(Choice::CopiedPicture { first, .. }) => first,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn sound_waits_for_a_picture_to_copy_but_not_for_long() {
        let plan = plan(Kind::Participant, if_possible(), Some(Container::Mp4));
        let mut known = known(&[joined(1, Codec::Opus), frame(1, 100, None), complete_to(900)]);
        assert_eq!(known.choose(&plan), None);
        known.take(&joined(2, Codec::H264));
        known.take(&frame(2, 950, Some((1280, 720))));
        let first = First { at: SessionTime(950_000_000), size: (1280, 720) };
        assert_eq!(copied_from(&known), first, "no sound without a picture before it");
        let late = self::known(&[joined(1, Codec::Opus), frame(1, 100, None), complete_to(1100)]);
        assert_eq!(late.choose(&plan), Some(Choice::Composed));
    }

    #[test]
    fn the_first_key_frame_of_a_published_picture_is_waited_for_and_begins_the_file() {
        let plan = plan(Kind::Participant, if_possible(), Some(Container::Mp4));
        // A key frame each 3 s, and requests for one are not answered.
        let sound = [published(false), joined(1, Codec::Opus), frame(1, 20, None), complete_to(2900)];
        let mut known = known(&sound);
        assert_eq!(known.choose(&plan), None);
        known.take(&joined(2, Codec::H264));
        known.take(&frame(2, 2950, Some((640, 360))));
        assert_eq!(copied_from(&known), First { at: SessionTime(2_950_000_000), size: (640, 360) });

        let mut never = self::known(&sound);
        never.take(&complete_to(4990));
        assert_eq!(never.choose(&plan), None);
        never.take(&complete_to(5000));
        assert_eq!(never.choose(&plan), Some(Choice::Composed));

        let muted = self::known(&[published(true), joined(1, Codec::Opus), frame(1, 20, None), complete_to(1030)]);
        assert_eq!(muted.choose(&plan), Some(Choice::Composed), "a muted camera is not waited for");
    }

    #[test]
    fn a_picture_that_is_not_h264_is_composed() {
        let plan = plan(Kind::TrackComposite, if_possible(), Some(Container::Mp4));
        let known = known(&[joined(2, Codec::Vp8), frame(2, 0, Some((640, 360)))]);
        assert_eq!(known.choose(&plan), Some(Choice::Composed));
    }

    #[test]
    fn a_track_goes_into_the_container_asked_for_if_that_can_carry_it() {
        let tracks = |codec| known(&[joined(1, codec), frame(1, 5, codec.is_video().then_some((320, 180)))]);
        let asked = |container| plan(Kind::Track, Picture::Copied, container);
        for (codec, container, expected) in [
            (Codec::Vp8, Some(Container::Ivf), Container::Ivf),
            (Codec::Vp8, None, Container::Webm),
            (Codec::H264, None, Container::Mp4),
            (Codec::Opus, Some(Container::Ivf), Container::Ogg),
            (Codec::Pcmu, None, Container::Ogg),
        ] {
            match tracks(codec).choose(&asked(container)) {
                Some(Choice::Track { container, .. }) => assert_eq!(container, expected, "{codec:?}"),
                other => panic!("{other:?}"),
            }
        }
    }
}
