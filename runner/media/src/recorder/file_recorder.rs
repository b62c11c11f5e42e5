//! One file being made: what comes is copied into it, composed into it, or both.
//!
//! In: timeline events, on the controller's thread. Out: a pipeline and a compositor that run in
//! their own threads and report to the controller.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::Sender;

use spillway_ipc::{FileId, MediaSettings, Quality, SpoolError, SpoolFile, WriteProgress};
use spillway_plan::{Container, EgressPlan, VideoPlan};

use super::formats::{audio_input, copied_tracks, picture_options, sound_options, video_input};
use super::input::RecorderInput;
use super::mode::{FileStart, RecordingMode, container};
use crate::compositor::{Compositor, CompositorError, CompositorOptions, DegradationBounds, StartRule};
use crate::encode::{VideoInputFormat, black};
use crate::mux::Ivf;
use crate::output::{Feed, Pipeline, PipelineError, PipelineEvent, PipelinePlan, PipelineProgress, RawSink};
use crate::passthrough::{Copied, Passthrough, PassthroughError, PassthroughTarget};
use crate::quality::{ComposedQuality, QualityMeter, add_late_sound};
use crate::track::{Codec, TimelineEvent, Track, TrackId};
use crate::units::MediaTime;

/// Why a file cannot be begun or takes no more.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("open the file")]
    Open(#[from] SpoolError),
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    #[error("start the compositor")]
    Compositor(#[from] CompositorError),
    #[error("copy a frame")]
    Passthrough(#[from] PassthroughError),
}

impl FileError {
    /// The file takes no more; what it has is kept.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Open(error)
            | Self::Passthrough(PassthroughError::Write(error))
            | Self::Pipeline(PipelineError::Write { source: error }) => error.is_full(),
            _ => false,
        }
    }
}

/// What a moment of the recording means beyond the file.
#[derive(Debug, PartialEq, Eq)]
pub enum TakeOutcome {
    Went,
    Noted(String),
    /// Cannot go into this file: it ends here and another one begins.
    OtherCodec,
}

/// Everything that belongs to one file; dropping it stops all of it.
pub struct FileRecorder {
    /// Of the file within the recording, from 0.
    pub number: u32,
    origin: Option<MediaTime>,
    known_to: MediaTime,
    copied: Option<CopiedTrack>,
    /// A newer picture of the same source: copied from its first key frame on.
    next: Option<Track>,
    compositor: Option<Compositor>,
    pipeline: Option<Pipeline>,
    progress: Arc<PipelineProgress>,
    written: Arc<WriteProgress>,
    meter: QualityMeter,
    events: Sender<RecorderInput>,
    spill_dir: Option<PathBuf>,
}

struct CopiedTrack {
    id: TrackId,
    codec: Codec,
    size: (u32, u32),
    copy: Passthrough,
    beside_sound: bool,
    blackened: bool,
}

impl FileRecorder {
    /// Opens the file at `path` and starts what fills it. Blocks for the time GStreamer takes to start.
    ///
    /// # Errors
    ///
    /// When the file cannot be claimed or written, an element is missing, or a thread cannot be started. Nothing of
    /// it is left running.
    pub fn open(
        number: u32,
        mode: RecordingMode,
        plan: &EgressPlan,
        settings: &MediaSettings,
        (path, id): (&Path, Option<FileId>),
        events: &Sender<RecorderInput>,
    ) -> Result<Self, FileError> {
        let (container, inputs) = match &mode {
            RecordingMode::Track { track, first, container } => (*container, copied_tracks(track, *first)),
            RecordingMode::CopiedPicture { first, .. } => {
                let video = VideoInputFormat::Copied { codec: Codec::H264, size: first.size };
                (container(plan), (Some(video), audio_input(plan)))
            }
            RecordingMode::Composed => (container(plan), (video_input(plan), audio_input(plan))),
        };
        let file = SpoolFile::claimed(path, id, container)?;
        let mut recorder = Self {
            number,
            origin: None,
            known_to: MediaTime::ZERO,
            copied: None,
            next: None,
            compositor: None,
            pipeline: None,
            progress: Arc::default(),
            written: file.written(),
            meter: QualityMeter::default(),
            events: events.clone(),
            spill_dir: settings.spill_dir.clone().or_else(|| path.parent().map(Path::to_owned)),
        };
        if let (Container::Ivf, RecordingMode::Track { track, first, .. }) = (container, &mode) {
            let ivf = Ivf::open(file, track.codec, first.size)?;
            recorder.origin = Some(first.at);
            recorder.copied = Some(CopiedTrack::new(track, *first, PassthroughTarget::Ivf(Box::new(ivf)), false));
            recorder.tell(PipelineEvent::Flowing);
            return Ok(recorder);
        }
        let (video, audio) = inputs;
        let plan_ = PipelinePlan { video, audio, container, fragment_ms: settings.fragment_ms };
        let tell = events.clone();
        let (pipeline, feeds) = Pipeline::start(&plan_, file, move |event| {
            // Refused only when the controller is gone.
            let _ = tell.send(RecorderInput::Pipeline(number, event));
        })?;
        recorder.progress = pipeline.progress();
        recorder.pipeline = Some(pipeline);
        match mode {
            RecordingMode::Track { track, first, .. } => {
                recorder.origin = Some(first.at);
                if let Some(feed) = feeds.video.or(feeds.audio) {
                    recorder.copied = Some(CopiedTrack::new(&track, first, PassthroughTarget::Feed(feed), false));
                }
            }
            RecordingMode::CopiedPicture { track, first } => {
                recorder.origin = Some(first.at);
                let beside_sound = feeds.audio.is_some();
                if let Some(feed) = feeds.video {
                    recorder.copied =
                        Some(CopiedTrack::new(&track, first, PassthroughTarget::Feed(feed), beside_sound));
                }
                if let Some(audio) = feeds.audio {
                    recorder.start_compositor(plan, settings, None, Some(audio), StartRule::At(first.at))?;
                }
            }
            RecordingMode::Composed => {
                let rule = match plan.picture {
                    Some(VideoPlan::Composed { .. }) | None => StartRule::Composite,
                    _ => StartRule::FirstMedium,
                };
                recorder.start_compositor(plan, settings, feeds.video, feeds.audio, rule)?;
            }
        }
        Ok(recorder)
    }

    fn start_compositor(
        &mut self,
        plan: &EgressPlan,
        settings: &MediaSettings,
        video: Option<Feed>,
        audio: Option<Feed>,
        start: StartRule,
    ) -> Result<(), CompositorError> {
        let raw_sink = |feed: Feed| Box::new(feed) as Box<dyn RawSink>;
        let options = CompositorOptions {
            picture: video.is_some().then(|| picture_options(plan)).flatten(),
            sound: audio.is_some().then(|| sound_options(plan)).flatten(),
            start,
            degradation: DegradationBounds::FILE,
            backlog_bytes: settings.backlog_bytes,
            spill_dir: self.spill_dir.clone(),
        };
        let (number, events) = (self.number, self.events.clone());
        self.compositor = Some(Compositor::start(options, video.map(raw_sink), audio.map(raw_sink), move |event| {
            let _ = events.send(RecorderInput::Compositor(number, event));
        })?);
        Ok(())
    }

    /// One event, in order.
    ///
    /// # Errors
    ///
    /// When the file takes no more; see [`FileError::is_full`].
    pub fn take(&mut self, timed: &TimelineEvent) -> Result<TakeOutcome, FileError> {
        self.meter.take(timed);
        let mut outcome = TakeOutcome::Went;
        match timed {
            TimelineEvent::Joined { track, .. } if track.codec.is_video() => outcome = self.joined(track),
            TimelineEvent::Frame(frame) => {
                self.known_to = self.known_to.max(frame.at);
                if self.next.as_ref().is_some_and(|next| next.id == frame.track) && frame.key {
                    self.follow();
                }
                if let Some(copied) = self.copied.as_mut().filter(|copied| copied.id == frame.track)
                    && let Copied::Resized { from, to } = copied.copy.frame(frame)?
                {
                    copied.size = to;
                    copied.blackened = false;
                    outcome = TakeOutcome::Noted(format!(
                        "the published picture changed from {}×{} to {}×{}; it is copied as it comes",
                        from.0, from.1, to.0, to.1
                    ));
                }
            }
            TimelineEvent::Muted { track, at, .. } | TimelineEvent::Left { track, at } => {
                if let Some(copied) = self.copied.as_mut().filter(|copied| copied.id == *track) {
                    copied.absent(*at)?;
                }
            }
            TimelineEvent::Watermark { at } => {
                self.known_to = self.known_to.max(*at);
                if let Some(copied) = &mut self.copied {
                    copied.copy.complete_to(*at)?;
                }
            }
            _ => {}
        }
        if outcome != TakeOutcome::OtherCodec
            && let Some(compositor) = &self.compositor
        {
            compositor.take(timed.clone());
        }
        Ok(outcome)
    }

    fn joined(&mut self, track: &Track) -> TakeOutcome {
        let Some(copied) = &self.copied else { return TakeOutcome::Went };
        if copied.codec != track.codec {
            return TakeOutcome::OtherCodec;
        }
        if copied.id != track.id {
            self.next = Some(track.clone());
        }
        TakeOutcome::Went
    }

    fn follow(&mut self) {
        if let (Some(copied), Some(next)) = (&mut self.copied, self.next.take()) {
            copied.id = next.id;
        }
    }

    /// The compositor has decided where the file begins.
    pub fn began(&mut self, at: MediaTime) {
        self.origin.get_or_insert(at);
    }

    /// Nothing more comes. [`PipelineEvent::Drained`] says when the file is whole.
    ///
    /// # Errors
    ///
    /// When the end of a copied track cannot be written.
    pub fn end(&mut self) -> Result<(), FileError> {
        if let Some(compositor) = &self.compositor {
            compositor.end_at(self.known_to);
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
    pub fn wait_drained(&self, drain_timeout: std::time::Duration) -> bool {
        self.pipeline.as_ref().is_none_or(|pipeline| pipeline.wait_drained(drain_timeout))
    }

    /// Stops at once; the file stays as it is.
    pub fn close(&mut self) {
        self.compositor = None;
        self.pipeline = None;
    }

    /// The newest counts of a track.
    pub fn packets(&mut self, track: TrackId, packets: u64, lost: u64) {
        self.meter.packets(track, packets, lost);
    }

    /// How much later than its sound a picture is placed now.
    pub fn av_offset(&mut self, picture: TrackId, ms: Option<f64>) {
        self.meter.av_offset(picture, ms);
    }

    /// Media time of the file's beginning, once it is known.
    pub fn origin(&self) -> Option<MediaTime> {
        self.origin
    }

    /// Bytes of the file, and how many of them are final.
    pub fn bytes(&self) -> (u64, u64) {
        (self.written.end(), self.written.sealed_to())
    }

    /// Length of the file by its encoded frames, nanoseconds.
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

    /// Between what is known of the recording and what is encoded.
    pub fn lag_ms(&mut self) -> u64 {
        let Some(compositor) = &self.compositor else { return 0 };
        let lag = compositor.stats().lag_ns / 1_000_000;
        self.meter.lag(lag);
        lag
    }

    /// Encoded bytes that wait, in memory or spilled.
    pub fn backlog_bytes(&self) -> u64 {
        let compositor = self.compositor.as_ref().map_or(0, |compositor| {
            let backlog = compositor.stats().backlog;
            backlog.memory + backlog.spilled
        });
        compositor + self.copied.as_ref().map_or(0, |copied| copied.copy.waiting_bytes())
    }

    /// What was recorded until now.
    pub fn quality(&self) -> Quality {
        let made = self.compositor.as_ref().map(|compositor| {
            let stats = compositor.stats();
            ComposedQuality {
                pictures: stats.pictures,
                distinct_frames: stats.distinct_frames,
                frames_skipped: stats.frames_skipped,
                max_freeze_ms: stats.longest_freeze_ns / 1_000_000,
                silence_ms: stats.silence_ns / 1_000_000,
                max_lag_ms: stats.longest_lag_ns / 1_000_000,
            }
        });
        let copied = self.copied.as_ref().map(|copied| copied.id);
        let mut quality = self.meter.quality(self.media_ns() / 1_000_000, copied, made);
        if let Some(compositor) = &self.compositor {
            add_late_sound(&mut quality, &compositor.late_sound_ms());
        }
        quality
    }

    fn tell(&self, event: PipelineEvent) {
        let _ = self.events.send(RecorderInput::Pipeline(self.number, event));
    }
}

impl CopiedTrack {
    fn new(track: &Track, first: FileStart, way: PassthroughTarget, beside_sound: bool) -> Self {
        let copy = Passthrough::new(way, track.codec.is_video(), first.at);
        Self { id: track.id, codec: track.codec, size: first.size, copy, beside_sound, blackened: false }
    }

    fn absent(&mut self, at: MediaTime) -> Result<(), FileError> {
        if self.beside_sound && !self.blackened {
            self.copy.fill_with(black(self.size)?);
            self.blackened = true;
        }
        Ok(self.copy.absent(at)?)
    }
}
