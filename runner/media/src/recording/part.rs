//! One file being made: what came is copied into it, composed into it, or both.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::Sender;

use spillway_plan::{AudioCodec, Container, EgressPlan, Mixing, Picture, Sound, VideoEncoding};
use spillway_spool::{FileId, MediaSettings, Quality, SpoolError, SpoolFile};

use super::Input;
use super::choose::{Choice, First, container};
use crate::copy::{Copied, Copy, CopyError, Way};
use crate::outlet::{Ivf, Written};
use crate::pipeline::{
    AudioIn, Colour, Feed, Pipeline, PipelineError, PipelineEvent, PipelinePlan, Progress, VideoIn, black,
};
use crate::quality::{Made, Meter, add_late_sound};
use crate::scene::{
    Arrangement, HOLD_NS, LadderBounds, Onward, PictureOptions, Scene, SceneError, SceneOptions, Size, SoundOptions,
    StartRule, encoder_delay,
};
use crate::track::{Codec, SessionTime, Timed, Track, TrackId};

#[derive(Debug, thiserror::Error)]
pub enum PartError {
    #[error("open the file")]
    Open(#[from] SpoolError),
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    #[error("start the scene")]
    Scene(#[from] SceneError),
    #[error("copy a frame")]
    Copy(#[from] CopyError),
}

impl PartError {
    /// The file takes no more; what it has is kept.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Open(error)
            | Self::Copy(CopyError::Write(error))
            | Self::Pipeline(PipelineError::Write { source: error }) => error.is_full(),
            _ => false,
        }
    }
}

/// What a moment of the session means beyond the file.
#[derive(Debug, PartialEq, Eq)]
pub enum Turn {
    Went,
    Noted(String),
    /// Cannot go into this file: it ends here and another one begins.
    OtherCodec,
}

pub struct Part {
    pub number: u32,
    origin: Option<SessionTime>,
    known_to: SessionTime,
    copied: Option<CopiedTrack>,
    /// A newer picture of the same source: copied from its first key frame on.
    next: Option<Track>,
    scene: Option<Scene>,
    pipeline: Option<Pipeline>,
    progress: Arc<Progress>,
    written: Arc<Written>,
    meter: Meter,
    events: Sender<Input>,
    spill_dir: Option<PathBuf>,
}

struct CopiedTrack {
    id: TrackId,
    codec: Codec,
    size: (u32, u32),
    copy: Copy,
    beside_sound: bool,
    blackened: bool,
}

impl Part {
    pub fn open(
        number: u32,
        choice: Choice,
        plan: &EgressPlan,
        settings: &MediaSettings,
        (path, id): (&Path, Option<FileId>),
        events: &Sender<Input>,
    ) -> Result<Self, PartError> {
        let (container, lanes) = match &choice {
            Choice::Track { track, first, container } => (*container, copied_lanes(track, *first)),
            Choice::CopiedPicture { first, .. } => {
                let video = VideoIn::Copied { codec: Codec::H264, size: first.size };
                (container(plan), (Some(video), sound_lane(plan)))
            }
            Choice::Composed => (container(plan), (picture_lane(plan), sound_lane(plan))),
        };
        let file = SpoolFile::claimed(path, id, container)?;
        let mut part = Self {
            number,
            origin: None,
            known_to: SessionTime(0),
            copied: None,
            next: None,
            scene: None,
            pipeline: None,
            progress: Arc::default(),
            written: Arc::default(),
            meter: Meter::default(),
            events: events.clone(),
            spill_dir: settings.spill_dir.clone().or_else(|| path.parent().map(Path::to_owned)),
        };
        if let (Container::Ivf, Choice::Track { track, first, .. }) = (container, &choice) {
            let ivf = Ivf::open(file, track.codec, first.size)?;
            part.origin = Some(first.at);
            part.copied = Some(CopiedTrack::new(track, *first, Way::Ivf(Box::new(ivf)), false));
            part.tell(PipelineEvent::Flowing);
            return Ok(part);
        }
        let (video, audio) = lanes;
        let plan_ = PipelinePlan { video, audio, container, fragment_ms: settings.fragment_ms };
        let tell = events.clone();
        let (pipeline, feeds) = Pipeline::start(&plan_, file, move |event| {
            // Nobody listens any more: the leader is leaving.
            let _ = tell.send(Input::Pipeline(number, event));
        })?;
        part.progress = pipeline.progress();
        part.written = pipeline.written();
        part.pipeline = Some(pipeline);
        match choice {
            Choice::Track { track, first, .. } => {
                part.origin = Some(first.at);
                if let Some(feed) = feeds.video.or(feeds.audio) {
                    part.copied = Some(CopiedTrack::new(&track, first, Way::Feed(feed), false));
                }
            }
            Choice::CopiedPicture { track, first } => {
                part.origin = Some(first.at);
                let beside_sound = feeds.audio.is_some();
                if let Some(feed) = feeds.video {
                    part.copied = Some(CopiedTrack::new(&track, first, Way::Feed(feed), beside_sound));
                }
                if let Some(audio) = feeds.audio {
                    part.start_scene(plan, settings, None, Some(audio), StartRule::At(first.at))?;
                }
            }
            Choice::Composed => {
                let rule = match plan.picture {
                    Some(Picture::Composed { .. }) | None => StartRule::Composite,
                    _ => StartRule::FirstMedium,
                };
                part.start_scene(plan, settings, feeds.video, feeds.audio, rule)?;
            }
        }
        Ok(part)
    }

    fn start_scene(
        &mut self,
        plan: &EgressPlan,
        settings: &MediaSettings,
        video: Option<Feed>,
        audio: Option<Feed>,
        start: StartRule,
    ) -> Result<(), SceneError> {
        let onward = |feed: Feed| Box::new(feed) as Box<dyn Onward>;
        let options = SceneOptions {
            picture: video.is_some().then(|| picture_options(plan)).flatten(),
            sound: audio.is_some().then(|| sound_options(plan)).flatten(),
            start,
            ladder: LadderBounds::FILE,
            backlog_bytes: settings.backlog_bytes,
            spill_dir: self.spill_dir.clone(),
        };
        let (number, events) = (self.number, self.events.clone());
        self.scene = Some(Scene::start(options, video.map(onward), audio.map(onward), move |event| {
            let _ = events.send(Input::Scene(number, event));
        })?);
        Ok(())
    }

    pub fn take(&mut self, timed: &Timed) -> Result<Turn, PartError> {
        self.meter.take(timed);
        let mut turn = Turn::Went;
        match timed {
            Timed::Joined { track, .. } if track.codec.is_video() => turn = self.joined(track),
            Timed::Frame(frame) => {
                self.known_to = self.known_to.max(frame.at);
                if self.next.as_ref().is_some_and(|next| next.id == frame.track) && frame.key {
                    self.follow();
                }
                if let Some(copied) = self.copied.as_mut().filter(|copied| copied.id == frame.track)
                    && let Copied::Resized { from, to } = copied.copy.frame(frame)?
                {
                    copied.size = to;
                    copied.blackened = false;
                    turn = Turn::Noted(format!(
                        "the published picture changed from {}×{} to {}×{}; it is copied as it comes",
                        from.0, from.1, to.0, to.1
                    ));
                }
            }
            Timed::Absent { track, at, .. } | Timed::Left { track, at } => {
                if let Some(copied) = self.copied.as_mut().filter(|copied| copied.id == *track) {
                    copied.absent(*at)?;
                }
            }
            Timed::CompleteTo { at } => {
                self.known_to = self.known_to.max(*at);
                if let Some(copied) = &mut self.copied {
                    copied.copy.complete_to(*at)?;
                }
            }
            _ => {}
        }
        if turn != Turn::OtherCodec
            && let Some(scene) = &self.scene
        {
            scene.take(timed.clone());
        }
        Ok(turn)
    }

    fn joined(&mut self, track: &Track) -> Turn {
        let Some(copied) = &self.copied else { return Turn::Went };
        if copied.codec != track.codec {
            return Turn::OtherCodec;
        }
        if copied.id != track.id {
            self.next = Some(track.clone());
        }
        Turn::Went
    }

    fn follow(&mut self) {
        if let (Some(copied), Some(next)) = (&mut self.copied, self.next.take()) {
            copied.id = next.id;
        }
    }

    /// The scene has decided where the file begins.
    pub fn began(&mut self, at: SessionTime) {
        self.origin.get_or_insert(at);
    }

    /// Nothing more comes. [`PipelineEvent::Drained`] says when the file is whole.
    pub fn end(&mut self) -> Result<(), PartError> {
        if let Some(scene) = &self.scene {
            scene.end_at(self.known_to);
        }
        if let Some(copied) = &mut self.copied {
            copied.copy.end()?;
            if copied.copy.ivf().is_some() {
                self.tell(PipelineEvent::Drained);
            }
        }
        Ok(())
    }

    /// Waits until the last byte is written. Only for the moment between two files.
    pub fn wait_drained(&self, patience: std::time::Duration) -> bool {
        self.pipeline.as_ref().is_none_or(|pipeline| pipeline.wait_drained(patience))
    }

    /// Stops at once; the file stays as it is.
    pub fn close(&mut self) {
        self.scene = None;
        self.pipeline = None;
    }

    pub fn packets(&mut self, track: TrackId, packets: u64, lost: u64) {
        self.meter.packets(track, packets, lost);
    }

    pub fn av_offset(&mut self, picture: TrackId, ms: Option<f64>) {
        self.meter.av_offset(picture, ms);
    }

    pub fn origin(&self) -> Option<SessionTime> {
        self.origin
    }

    /// Bytes of the file, and how many of them are final.
    pub fn bytes(&self) -> (u64, u64) {
        match self.copied.as_ref().and_then(|copied| copied.copy.ivf()) {
            Some(ivf) => (ivf.file().end(), ivf.file().sealed_to()),
            None => (self.written.end(), self.written.sealed_to()),
        }
    }

    pub fn media_ns(&self) -> u64 {
        match self.copied.as_ref().and_then(|copied| copied.copy.ivf()) {
            Some(ivf) => ivf.media_ns(),
            None => self.progress.media_ns(),
        }
    }

    /// Grows while anything is written.
    pub fn worked(&self) -> u64 {
        match self.copied.as_ref().and_then(|copied| copied.copy.ivf()) {
            Some(ivf) => ivf.media_ns(),
            None => self.progress.worked(),
        }
    }

    /// Between what is known of the session and what is encoded.
    pub fn lag_ms(&mut self) -> u64 {
        let Some(scene) = &self.scene else { return 0 };
        let lag = scene.stats().lag_ns / 1_000_000;
        self.meter.lag(lag);
        lag
    }

    pub fn backlog_bytes(&self) -> u64 {
        let scene = self.scene.as_ref().map_or(0, |scene| {
            let backlog = scene.stats().backlog;
            backlog.memory + backlog.spilled
        });
        scene + self.copied.as_ref().map_or(0, |copied| copied.copy.waiting_bytes())
    }

    pub fn quality(&self) -> Quality {
        let made = self.scene.as_ref().map(|scene| {
            let stats = scene.stats();
            Made {
                pictures: stats.pictures,
                different_pictures: stats.different_pictures,
                pictures_skipped: stats.pictures_skipped,
                longest_freeze_ms: stats.longest_freeze_ns / 1_000_000,
                silence_ms: stats.silence_ns / 1_000_000,
                longest_lag_ms: stats.longest_lag_ns / 1_000_000,
            }
        });
        let copied = self.copied.as_ref().map(|copied| copied.id);
        let mut quality = self.meter.quality(self.media_ns() / 1_000_000, copied, made);
        if let Some(scene) = &self.scene {
            add_late_sound(&mut quality, &scene.late_sound_ms());
        }
        quality
    }

    fn tell(&self, event: PipelineEvent) {
        let _ = self.events.send(Input::Pipeline(self.number, event));
    }
}

impl CopiedTrack {
    fn new(track: &Track, first: First, way: Way, beside_sound: bool) -> Self {
        let copy = Copy::new(way, track.codec.is_video(), first.at);
        Self { id: track.id, codec: track.codec, size: first.size, copy, beside_sound, blackened: false }
    }

    fn absent(&mut self, at: SessionTime) -> Result<(), PartError> {
        if self.beside_sound && !self.blackened {
            self.copy.fill_with(black(self.size)?);
            self.blackened = true;
        }
        Ok(self.copy.absent(at)?)
    }
}

fn copied_lanes(track: &Track, first: First) -> (Option<VideoIn>, Option<AudioIn>) {
    if track.codec.is_video() {
        (Some(VideoIn::Copied { codec: track.codec, size: first.size }), None)
    } else {
        (None, Some(AudioIn::Copied { codec: track.codec, channels: track.channels }))
    }
}

fn encoding(plan: &EgressPlan) -> Option<&VideoEncoding> {
    match plan.picture.as_ref()? {
        Picture::Copied => None,
        Picture::CopiedIfPossible(encoding) | Picture::Single(encoding) | Picture::Composed { encoding, .. } => {
            Some(encoding)
        }
    }
}

fn picture_lane(plan: &EgressPlan) -> Option<VideoIn> {
    encoding(plan).map(|encoding| VideoIn::Raw { encoding: encoding.clone(), colour: Colour::Bt601 })
}

fn sound_lane(plan: &EgressPlan) -> Option<AudioIn> {
    mixed(plan).map(|(codec, bitrate, frequency, _)| AudioIn::Raw { codec, bitrate, frequency })
}

fn mixed(plan: &EgressPlan) -> Option<(AudioCodec, u32, u32, Mixing)> {
    match plan.sound.as_ref()? {
        Sound::Copied => None,
        Sound::Mixed { codec, bitrate, frequency, mixing } => Some((*codec, *bitrate, *frequency, *mixing)),
    }
}

fn picture_options(plan: &EgressPlan) -> Option<PictureOptions> {
    let encoding = encoding(plan)?;
    let arrangement = match &plan.picture {
        Some(Picture::Composed { layout, .. }) => Arrangement::Tiles(*layout),
        _ => Arrangement::Single,
    };
    Some(PictureOptions {
        size: Size { width: encoding.width, height: encoding.height },
        framerate: encoding.framerate,
        arrangement,
        hold_ns: HOLD_NS,
    })
}

fn sound_options(plan: &EgressPlan) -> Option<SoundOptions> {
    let (codec, _, frequency, mixing) = mixed(plan)?;
    Some(SoundOptions { mixing, lead: encoder_delay(codec, frequency) })
}
