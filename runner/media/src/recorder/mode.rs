//! Whether a recording is copied or composed, decided from its first events, and where a copy begins. Pure.
//!
//! A copied picture begins its file, as a composed one does (`compositor::StartRule`): sound before its first key frame
//! is not recorded.

use std::collections::HashMap;

use spillway_ipc::TrackFacts;
use spillway_plan::{AudioPlan, Container, EgressPlan, FileOutput, Source, VideoPlan};

use crate::compositor::{Prelude, StartRule};
use crate::passthrough;
use crate::track::{Codec, Frame, TimelineEvent, Track, TrackId, TrackSource};
use crate::units::MediaTime;

/// How a file is made.
#[derive(Clone, Debug, PartialEq)]
pub enum RecordingMode {
    /// One track, untouched, alone in its files.
    Track { track: Track, first: FileStart },
    /// The picture untouched, the sound mixed.
    CopiedPicture { track: Track, first: FileStart },
    /// Everything through the compositor.
    Composed,
}

/// Where a copied file begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileStart {
    /// Media time of its first frame.
    pub at: MediaTime,
    /// Of the first key frame; (0, 0) for sound.
    pub size: (u32, u32),
}

/// What is known before anything is written.
#[derive(Debug, Default)]
pub struct TrackSurvey {
    tracks: HashMap<TrackId, Track>,
    first_picture: Option<(TrackId, MediaTime, (u32, u32))>,
    anything: Option<Frame>,
    /// A sound that joined muted: nothing has come of it.
    muted: Option<(TrackId, MediaTime)>,
    /// Until when a picture is worth waiting for.
    prelude: Prelude,
    known_to: MediaTime,
}

impl TrackSurvey {
    /// One event before the mode is chosen, in order.
    pub fn take(&mut self, timed: &TimelineEvent) {
        match timed {
            TimelineEvent::Published { sid, video, muted, at } => self.prelude.published(sid, *video, *muted, *at),
            TimelineEvent::Unpublished { sid, at } => self.prelude.unpublished(sid, *at),
            TimelineEvent::Joined { track, at } => {
                self.tracks.insert(track.id, track.clone());
                self.prelude.joined(track.id, &track.sid, track.codec.is_video(), *at);
            }
            TimelineEvent::Muted { track, at, .. } => {
                self.prelude.gone(*track, *at);
                if self.tracks.get(track).is_some_and(|track| !track.codec.is_video()) {
                    self.muted.get_or_insert((*track, *at));
                }
            }
            TimelineEvent::Left { track, at } => self.prelude.gone(*track, *at),
            TimelineEvent::Frame(frame) => {
                let Some(track) = self.tracks.get(&frame.track) else { return };
                self.prelude.frame(frame.track, track.codec.is_video(), frame.at);
                if track.codec.is_video() {
                    let Some(size) = frame.size.filter(|_| frame.key) else { return };
                    self.first_picture.get_or_insert((frame.track, frame.at, size));
                }
                self.anything.get_or_insert_with(|| frame.clone());
            }
            TimelineEvent::Watermark { at } => self.known_to = self.known_to.max(*at),
            _ => {}
        }
    }

    /// `None`: not enough is known yet.
    pub fn choose_mode(&self, plan: &EgressPlan) -> Option<RecordingMode> {
        match &plan.picture {
            // One publication, whatever its kind.
            Some(VideoPlan::Copied) => {
                let first = self.anything.as_ref().map(|first| (first.track, first.at, first.size.unwrap_or_default()));
                let (track, at, size) = first.or(self.muted.map(|(track, at)| (track, at, (0, 0))))?;
                let track = self.tracks.get(&track)?.clone();
                Some(RecordingMode::Track { track, first: FileStart { at, size } })
            }
            picture if self.anything.is_none() => {
                let rule = start_rule(picture.as_ref());
                let candidate = self.prelude.candidate(rule, picture.is_some(), self.known_to)?;
                (candidate.picture_before <= self.known_to).then_some(RecordingMode::Composed)
            }
            Some(VideoPlan::CopiedIfPossible(_)) => match self.first_picture {
                Some((id, at, size)) => {
                    let track = self.tracks.get(&id)?;
                    if !is_copied(track.codec, plan) {
                        return Some(RecordingMode::Composed);
                    }
                    Some(RecordingMode::CopiedPicture { track: track.clone(), first: FileStart { at, size } })
                }
                None => {
                    let candidate = self.prelude.candidate(StartRule::FirstMedium, true, self.known_to)?;
                    (candidate.picture_before <= self.known_to).then_some(RecordingMode::Composed)
                }
            },
            Some(VideoPlan::Single(_) | VideoPlan::Composed { .. }) | None => Some(RecordingMode::Composed),
        }
    }

    /// Pixels of the first picture, if one has come.
    pub fn published_size(&self) -> Option<(u32, u32)> {
        self.first_picture.map(|(_, _, size)| size)
    }

    /// Why what was published cannot be recorded, as livekit/egress says it.
    pub fn refusal(&self, plan: &EgressPlan) -> Option<String> {
        let is_raw = matches!(plan.sound, Some(AudioPlan::Raw { .. }));
        let video = self.tracks.values().map(|track| track.codec).find(|codec| is_raw && codec.is_video())?;
        Some(format!("format websocket incompatible with codec video/{}", format!("{video:?}").to_lowercase()))
    }

    /// What the runner needs for the file's name and for EgressInfo.
    pub fn facts(&self, plan: &EgressPlan) -> TrackFacts {
        let mut facts = TrackFacts::default();
        let of = |video: bool| self.tracks.values().filter(move |track| track.codec.is_video() == video);
        match plan.kind {
            spillway_plan::EgressKind::RoomComposite => return facts,
            // Its audio may be of any number of participants.
            spillway_plan::EgressKind::Media => {
                if let Some(track) = of(true).next() {
                    facts.video_track_id = track.sid.clone();
                    facts.publisher_identity = track.identity.clone();
                }
                return facts;
            }
            spillway_plan::EgressKind::Track => {
                if let Some(track) = self.tracks.values().next() {
                    facts.track_id = track.sid.clone();
                    facts.track_kind = if track.codec.is_video() { "video" } else { "audio" }.to_owned();
                    facts.track_source = source_name(track.origin).to_owned();
                }
            }
            spillway_plan::EgressKind::TrackComposite | spillway_plan::EgressKind::Participant => {
                // What is muted has not joined; its sid is in the request.
                let (audio, video) = match &plan.source {
                    Source::Tracks { audio, video } => (audio.clone(), video.clone()),
                    _ => (None, None),
                };
                let sid = |is_video| of(is_video).next().map(|track| track.sid.clone());
                facts.video_track_id = sid(true).or(video).unwrap_or_default();
                facts.audio_track_id = sid(false).or(audio).unwrap_or_default();
            }
        }
        // The publisher of the picture names the file.
        let publisher = of(true).next().or_else(|| of(false).next());
        let named = || match &plan.source {
            Source::Participant { identity, .. } => identity.clone(),
            _ => String::new(),
        };
        facts.publisher_identity = publisher.map_or_else(named, |track| track.identity.clone());
        facts
    }
}

/// When a composed recording of such a picture begins.
pub fn start_rule(picture: Option<&VideoPlan>) -> StartRule {
    match picture {
        Some(VideoPlan::Composed { .. }) | None => StartRule::Composite,
        Some(VideoPlan::Single(_) | VideoPlan::Copied | VideoPlan::CopiedIfPossible(_)) => StartRule::FirstMedium,
    }
}

fn source_name(origin: TrackSource) -> &'static str {
    match origin {
        TrackSource::Camera => "camera",
        TrackSource::Microphone => "microphone",
        TrackSource::ScreenShare => "screen_share",
        TrackSource::ScreenShareAudio => "screen_share_audio",
        TrackSource::Unknown => "unknown",
    }
}

/// Whether a picture of this codec goes into every file as it is: H264 into MP4, VP8, VP9 and AV1 into WebM where no file has
/// to be an MP4. H265 is composed: an MP4 of livekit/egress holds H264, which every browser plays.
fn is_copied(codec: Codec, plan: &EgressPlan) -> bool {
    codec == Codec::H264 || passthrough::container(codec) == Container::Webm && plan.container_follows_codec()
}

/// Codecs whose pictures go into the files as they are.
pub fn copied_codecs(plan: &EgressPlan) -> Vec<Codec> {
    let all = [Codec::H264, Codec::H265, Codec::Vp8, Codec::Vp9, Codec::Av1];
    match &plan.picture {
        Some(VideoPlan::Copied) => all.to_vec(),
        Some(VideoPlan::CopiedIfPossible(_)) => all.into_iter().filter(|codec| is_copied(*codec, plan)).collect(),
        Some(VideoPlan::Single(_) | VideoPlan::Composed { .. }) | None => vec![],
    }
}

/// The container of a file, decided from the codecs where the request leaves it open or asks for what cannot be.
pub fn container(mode: &RecordingMode, plan: &EgressPlan, file: &FileOutput) -> Container {
    match mode {
        RecordingMode::Track { track, .. } => file
            .container
            .filter(|container| passthrough::fits(track.codec, *container))
            .unwrap_or_else(|| passthrough::container(track.codec)),
        RecordingMode::CopiedPicture { track, .. } => {
            file.container.unwrap_or_else(|| passthrough::container(track.codec))
        }
        RecordingMode::Composed => {
            file.container.unwrap_or(if plan.picture.is_some() { Container::Mp4 } else { Container::Ogg })
        }
    }
}

/// What the user is told of a file that is made in another container than its path asks for.
pub fn container_note(mode: &RecordingMode, file: &FileOutput, made: Container) -> Option<String> {
    let asked = Container::of_path(&file.path).filter(|asked| *asked != made)?;
    let why = match mode {
        RecordingMode::Track { track, .. } | RecordingMode::CopiedPicture { track, .. }
            if passthrough::fits(track.codec, made) =>
        {
            format!(": {} is recorded as it was published", format!("{:?}", track.codec).to_uppercase())
        }
        _ => String::new(),
    };
    Some(format!("a file is made as {}, not as the {} of its path{why}", made.extension(), asked.extension()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use spillway_plan::{
        AudioCodec, EgressKind, FileOutput, H264Profile, Limits, Mixing, Output, StereoSide, VideoEncoding,
    };

    fn plan(kind: EgressKind, picture: VideoPlan, container: Option<Container>) -> EgressPlan {
        EgressPlan {
            egress_id: "EG_x".into(),
            room_name: "room".into(),
            room_id: String::new(),
            kind,
            source: Source::Room,
            picture: Some(picture),
            sound: Some(AudioPlan::Mixed {
                codec: AudioCodec::Aac,
                bitrate: 128,
                frequency: 44_100,
                mixing: Mixing::Both,
                also: vec![],
            }),
            outputs: vec![Output::File(FileOutput {
                container,
                audio: None,
                path: String::new(),
                manifest: false,
                stored: false,
            })],
            limits: Limits::default(),
            retry_count: 0,
            sheets: None,
        }
    }

    fn if_possible() -> VideoPlan {
        VideoPlan::CopiedIfPossible(VideoEncoding {
            width: 1280,
            height: 720,
            framerate: 30,
            bitrate: 3000,
            profile: H264Profile::Main,
            key_frame_interval: None,
        })
    }

    fn joined(id: u32, codec: Codec) -> TimelineEvent {
        let track = Track {
            id: TrackId(id),
            sid: format!("TR_{id}"),
            identity: "alice".into(),
            agent: false,
            side: StereoSide::Both,
            origin: if codec.is_video() { TrackSource::Camera } else { TrackSource::Microphone },
            codec,
            channels: 0,
        };
        TimelineEvent::Joined { track, at: MediaTime::ZERO }
    }

    fn frame(id: u32, ms: u64, size: Option<(u32, u32)>) -> TimelineEvent {
        TimelineEvent::Frame(Frame {
            track: TrackId(id),
            at: MediaTime::from_ns(ms * 1_000_000),
            offset_ns: 0,
            key: size.is_some(),
            size,
            data: Bytes::new(),
        })
    }

    fn survey(timed: &[TimelineEvent]) -> TrackSurvey {
        let mut survey = TrackSurvey::default();
        timed.iter().for_each(|timed| survey.take(timed));
        survey
    }

    fn complete_to(ms: u64) -> TimelineEvent {
        TimelineEvent::Watermark { at: MediaTime::from_ns(ms * 1_000_000) }
    }

    fn published(muted: bool) -> TimelineEvent {
        TimelineEvent::Published { sid: "TR_2".into(), video: true, muted, at: MediaTime::ZERO }
    }

    fn copied_from(survey: &TrackSurvey) -> FileStart {
        match survey.choose_mode(&plan(EgressKind::Participant, if_possible(), Some(Container::Mp4))) {
            Some(RecordingMode::CopiedPicture { first, .. }) => first,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn sound_waits_for_a_picture_to_copy_but_not_for_long() {
        let plan = plan(EgressKind::Participant, if_possible(), Some(Container::Mp4));
        let mut survey = survey(&[joined(1, Codec::Opus), frame(1, 100, None), complete_to(900)]);
        assert_eq!(survey.choose_mode(&plan), None);
        survey.take(&joined(2, Codec::H264));
        survey.take(&frame(2, 950, Some((1280, 720))));
        let first = FileStart { at: MediaTime::from_ns(950_000_000), size: (1280, 720) };
        assert_eq!(copied_from(&survey), first, "no sound without a picture before it");
        let late = self::survey(&[joined(1, Codec::Opus), frame(1, 100, None), complete_to(1100)]);
        assert_eq!(late.choose_mode(&plan), Some(RecordingMode::Composed));
    }

    #[test]
    fn the_first_key_frame_of_a_published_picture_is_waited_for_and_begins_the_file() {
        let plan = plan(EgressKind::Participant, if_possible(), Some(Container::Mp4));
        // A key frame each 3 s, and requests for one are not answered.
        let sound = [published(false), joined(1, Codec::Opus), frame(1, 20, None), complete_to(2900)];
        let mut survey = survey(&sound);
        assert_eq!(survey.choose_mode(&plan), None);
        survey.take(&joined(2, Codec::H264));
        survey.take(&frame(2, 2950, Some((640, 360))));
        assert_eq!(copied_from(&survey), FileStart { at: MediaTime::from_ns(2_950_000_000), size: (640, 360) });

        let mut never = self::survey(&sound);
        never.take(&complete_to(4990));
        assert_eq!(never.choose_mode(&plan), None);
        never.take(&complete_to(5000));
        assert_eq!(never.choose_mode(&plan), Some(RecordingMode::Composed));

        let muted = self::survey(&[published(true), joined(1, Codec::Opus), frame(1, 20, None), complete_to(1030)]);
        assert_eq!(muted.choose_mode(&plan), Some(RecordingMode::Composed), "a muted camera is not waited for");
    }

    #[test]
    fn a_sound_that_joins_muted_begins_a_track_and_nothing_else() {
        let muted = TimelineEvent::Muted { track: TrackId(1), at: MediaTime::ZERO, muted: true };
        let mut survey = survey(&[joined(1, Codec::Opus), muted]);
        let modes = |survey: &TrackSurvey, picture| survey.choose_mode(&plan(EgressKind::Track, picture, None));
        let Some(RecordingMode::Track { first, .. }) = modes(&survey, VideoPlan::Copied) else { panic!("no track") };
        assert_eq!(first, FileStart { at: MediaTime::ZERO, size: (0, 0) });
        assert_eq!(modes(&survey, if_possible()), None);
        // Heard before it was chosen: from its first packet on.
        survey.take(&frame(1, 40, None));
        let Some(RecordingMode::Track { first, .. }) = modes(&survey, VideoPlan::Copied) else { panic!("no track") };
        assert_eq!(first.at, MediaTime::from_ns(40_000_000));
    }

    #[test]
    fn where_everything_is_muted_a_recording_begins_after_five_seconds() {
        let source = Source::Participant { identity: "ann".into(), screen_share: false };
        for picture in [Some(if_possible()), None] {
            let plan = EgressPlan {
                picture,
                source: source.clone(),
                ..plan(EgressKind::Participant, if_possible(), Some(Container::Mp4))
            };
            let mut survey = survey(&[published(true), complete_to(4990)]);
            assert_eq!(survey.choose_mode(&plan), None);
            survey.take(&complete_to(5000));
            assert_eq!(survey.choose_mode(&plan), Some(RecordingMode::Composed));
            assert_eq!(survey.facts(&plan).publisher_identity, "ann");
        }
    }

    #[test]
    fn named_tracks_that_are_muted_are_named_by_the_request() {
        let source = Source::Tracks { audio: Some("TR_1".into()), video: Some("TR_2".into()) };
        let plan = EgressPlan { source, ..plan(EgressKind::TrackComposite, if_possible(), Some(Container::Mp4)) };
        let survey = survey(&[published(true), complete_to(5000)]);
        assert_eq!(survey.choose_mode(&plan), Some(RecordingMode::Composed));
        let facts = survey.facts(&plan);
        assert_eq!((facts.video_track_id.as_str(), facts.audio_track_id.as_str()), ("TR_2", "TR_1"));
    }

    #[test]
    fn a_picture_that_is_not_h264_is_composed_for_an_mp4() {
        let plan = plan(EgressKind::TrackComposite, if_possible(), Some(Container::Mp4));
        let survey = survey(&[joined(2, Codec::Vp8), frame(2, 0, Some((640, 360)))]);
        assert_eq!(survey.choose_mode(&plan), Some(RecordingMode::Composed));
    }

    #[test]
    fn a_picture_is_copied_into_the_container_of_its_codec_where_every_file_may_follow_it() {
        use Container::{Mp4, Ogg, Webm};
        let file = |container| {
            let (path, manifest, stored) = (String::new(), false, false);
            Output::File(FileOutput { container, audio: None, path, manifest, stored })
        };
        let (open, mp4, ogg) = (file(None), file(Some(Mp4)), file(Some(Ogg)));
        for (outputs, codec, copied, containers) in [
            (vec![open.clone()], Codec::Vp8, true, vec![Webm]),
            (vec![open.clone()], Codec::Vp9, true, vec![Webm]),
            (vec![open.clone()], Codec::Av1, true, vec![Webm]),
            (vec![open.clone()], Codec::H264, true, vec![Mp4]),
            (vec![open.clone()], Codec::H265, false, vec![Mp4]),
            (vec![open.clone(), ogg.clone()], Codec::Vp8, true, vec![Webm, Ogg]),
            (vec![open.clone(), mp4.clone()], Codec::Vp8, false, vec![Mp4, Mp4]),
            (vec![open, mp4.clone()], Codec::H264, true, vec![Mp4, Mp4]),
            (vec![mp4, ogg.clone()], Codec::Vp9, false, vec![Mp4, Ogg]),
            // Sound alone is taken, and images need no copy.
            (vec![ogg], Codec::Vp8, false, vec![Ogg]),
            (vec![], Codec::Vp8, false, vec![]),
        ] {
            let plan = EgressPlan { outputs, ..plan(EgressKind::Participant, if_possible(), None) };
            let survey = survey(&[joined(2, codec), frame(2, 0, Some((640, 360)))]);
            let mode = survey.choose_mode(&plan).expect("a mode");
            let is_copied = matches!(&mode, RecordingMode::CopiedPicture { track, .. } if track.codec == codec);
            assert_eq!(is_copied, copied, "{codec:?} {mode:?}");
            let made: Vec<Container> = plan.files().map(|file| container(&mode, &plan, file)).collect();
            assert_eq!(made, containers, "{codec:?} {mode:?}");
        }
    }

    #[test]
    fn a_file_of_another_kind_than_its_path_asks_for_is_told() {
        use Container::{Ivf, Mp4, Ogg, Webm};
        let track = |codec| {
            let survey = survey(&[joined(1, codec), frame(1, 5, codec.is_video().then_some((320, 180)))]);
            survey.choose_mode(&plan(EgressKind::Track, VideoPlan::Copied, None)).expect("a mode")
        };
        let picture = RecordingMode::CopiedPicture {
            track: match track(Codec::H264) {
                RecordingMode::Track { track, .. } => track,
                other => panic!("{other:?}"),
            },
            first: FileStart { at: MediaTime::ZERO, size: (320, 180) },
        };
        let vp8 = "a file is made as .webm, not as the .mp4 of its path: VP8 is recorded as it was published";
        let h264 = "a file is made as .mp4, not as the .webm of its path: H264 is recorded as it was published";
        for (mode, path, made, told) in [
            (track(Codec::Vp8), "rec/{track_id}.mp4", Webm, Some(vp8)),
            (track(Codec::Vp8), "a.webm", Webm, None),
            (track(Codec::Vp8), "a.ivf", Ivf, None),
            (track(Codec::Vp8), "rec/", Webm, None),
            (track(Codec::H264), "a.webm", Mp4, Some(h264)),
            (picture.clone(), "a.webm", Mp4, Some(h264)),
            (picture, "a.mp4", Ogg, Some("a file is made as .ogg, not as the .mp4 of its path")),
            (RecordingMode::Composed, "a.webm", Mp4, Some("a file is made as .mp4, not as the .webm of its path")),
            (RecordingMode::Composed, "a.mov", Mp4, None),
        ] {
            let (path, manifest, stored) = (path.to_owned(), false, false);
            let file = FileOutput { container: None, audio: None, path, manifest, stored };
            assert_eq!(container_note(&mode, &file, made).as_deref(), told, "{file:?} {mode:?}");
        }
    }

    #[test]
    fn a_websocket_takes_no_pictures() {
        let mut plan = plan(EgressKind::Track, if_possible(), None);
        let survey = survey(&[joined(2, Codec::Vp8)]);
        assert_eq!(survey.refusal(&plan), None);
        plan.sound = Some(AudioPlan::Raw { mixing: Mixing::Both });
        assert_eq!(survey.refusal(&plan).as_deref(), Some("format websocket incompatible with codec video/vp8"));
        assert_eq!(self::survey(&[joined(1, Codec::Opus)]).refusal(&plan), None);
    }

    #[test]
    fn a_track_goes_into_the_container_asked_for_if_that_can_carry_it() {
        let tracks = |codec| survey(&[joined(1, codec), frame(1, 5, codec.is_video().then_some((320, 180)))]);
        let asked = |container| plan(EgressKind::Track, VideoPlan::Copied, container);
        for (codec, container, expected) in [
            (Codec::Vp8, Some(Container::Ivf), Container::Ivf),
            (Codec::Vp8, None, Container::Webm),
            (Codec::H264, None, Container::Mp4),
            (Codec::Opus, Some(Container::Ivf), Container::Ogg),
            (Codec::Pcmu, None, Container::Ogg),
        ] {
            let plan = asked(container);
            match tracks(codec).choose_mode(&plan) {
                Some(mode @ RecordingMode::Track { .. }) => {
                    assert_eq!(self::container(&mode, &plan, plan.file(0).unwrap()), expected, "{codec:?}");
                }
                other => panic!("{other:?}"),
            }
        }
    }
}
