//! What comes is copied to the outputs, composed for them, or both; the same for all of them. What a page shows and plays goes
//! to them as it is.
//!
//! In: timeline events, on the controller's thread. Out: a pipeline, and a compositor or the feed of a page, that run in
//! their own threads and report to the controller.

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use spillway_ipc::{MediaSettings, Quality};
use spillway_plan::EgressPlan;

use super::copied_track::CopiedTrack;
use super::copy_choice::CopyChoice;
use super::formats::{lead, page_feed, repeat_rate, sound_options};
use super::input::RecorderInput;
use super::mode::{RecordingMode, start_rule};
use super::recorded_file::FileError;
use crate::compositor::{
    AudioMixerOptions, Compositor, CompositorError, CompositorEvent, CompositorOptions, CompositorStats,
    DegradationBounds, LayerRequest, LiveRule, StartRule, VideoMixerOptions,
};
use crate::output::{
    Fanout, Feed, KeyFrameRequests, Pipeline, PipelinePlan, PipelineProgress, RawFanout, RawPictures, RawSink,
    RawTaker, TakerId, VariableRate,
};
use crate::passthrough::Copied;
use crate::quality::{ComposedQuality, QualityMeter, add_late_sound};
use crate::source::page::PageMedia;
use crate::source::page::feed::PageFeed;
use crate::track::{TimelineEvent, Track, TrackId};
use crate::units::MediaTime;

/// What a moment of the recording means beyond the files.
#[derive(Debug, PartialEq, Eq)]
pub enum TakeOutcome {
    Went,
    Noted(String),
    /// Cannot go into these files: they end here and others begin.
    OtherCodec,
}

/// What takes raw pictures, and what these are.
pub struct RawPictureOutputs {
    /// The ways into the outputs.
    pub takers: Vec<Box<dyn RawTaker>>,
    /// Of the mixer that makes them; `None`: there are no pictures.
    pub canvas: Option<VideoMixerOptions>,
}

/// Everything between the room and the outputs; dropping it stops all of it.
pub struct SourceRecorder {
    /// Within the recording, from 0: a change of codec begins another one.
    pub number: u32,
    origin: Option<MediaTime>,
    known_to: MediaTime,
    copied: Option<CopiedTrack>,
    /// Which track of the copied source is copied.
    choice: CopyChoice,
    compositor: Option<Compositor>,
    /// Of raw pictures alone, beside a copied picture: nothing that it does moves the copy or its sound.
    raw_compositor: Option<Compositor>,
    page: Option<PageFeed>,
    pipeline: Option<Pipeline>,
    progress: Arc<PipelineProgress>,
    meter: QualityMeter,
    events: Sender<RecorderInput>,
}

impl SourceRecorder {
    /// Starts what fills the outputs of `fanout`. Blocks for the time GStreamer takes to start.
    ///
    /// # Errors
    ///
    /// When an element is missing, or a thread cannot be started. Nothing of it is left running, and all outputs are
    /// closed.
    pub fn start(
        number: u32,
        (mode, page): (RecordingMode, Option<PageMedia>),
        plan: &EgressPlan,
        settings: &MediaSettings,
        (inputs, fanout, pictures): (&PipelinePlan, Arc<Fanout>, RawPictureOutputs),
        events: &Sender<RecorderInput>,
    ) -> Result<Self, FileError> {
        let RawPictureOutputs { takers, canvas } = pictures;
        let sound = sound_options(inputs, plan);
        let (pipeline, feeds) = Pipeline::start(inputs, fanout.clone())?;
        let mut recorder = Self {
            number,
            origin: None,
            known_to: MediaTime::ZERO,
            copied: None,
            choice: CopyChoice::default(),
            compositor: None,
            raw_compositor: None,
            page: None,
            progress: pipeline.progress(),
            pipeline: Some(pipeline),
            meter: QualityMeter::default(),
            events: events.clone(),
        };
        if takers.is_empty() {
            fanout.end_raw_pictures();
        }
        match mode {
            RecordingMode::Track { track, first } => {
                recorder.origin = Some(first.at);
                if let Some(feed) = feeds.video.or_else(|| feeds.audio.into_iter().next()) {
                    recorder.copied = Some(CopiedTrack::new(&track, first, feed, false));
                }
            }
            RecordingMode::CopiedPicture { track, first } => {
                recorder.origin = Some(first.at);
                let audio = mixed_sound(inputs, feeds.audio, sound);
                if let Some(feed) = feeds.video {
                    recorder.copied = Some(CopiedTrack::new(&track, first, feed, audio.is_some()));
                }
                if audio.is_some() {
                    recorder.start_compositor(sound, settings, None, audio, StartRule::At(first.at))?;
                }
                if let (Some(canvas), false) = (canvas, takers.is_empty()) {
                    let raw = Box::new(RawPictures::new(None, takers, fanout));
                    recorder.start_raw_compositor(canvas, settings, raw, first.at)?;
                }
            }
            RecordingMode::Composed => {
                let rule = start_rule(plan.picture.as_ref());
                let (rate, bits) = (repeat_rate(plan), feeds.bits);
                let feed =
                    feeds.video.map(|feed| Box::new(VariableRate::new(Box::new(feed), rate, bits)) as Box<dyn RawSink>);
                let video = raw_pictures(feed, takers, fanout);
                let audio = mixed_sound(inputs, feeds.audio, sound);
                recorder.start_compositor(sound, settings, video.zip(canvas), audio, rule)?;
            }
            RecordingMode::Page { began } => {
                recorder.origin = Some(MediaTime::ZERO);
                let feed = feeds.video.map(|feed| Box::new(feed) as Box<dyn RawSink>);
                let video = raw_pictures(feed, takers, fanout);
                let audio = mixed_sound(inputs, feeds.audio, sound);
                let feed = page.map(|page| page.feed(began, page_feed(inputs, plan), video, audio));
                recorder.page = feed.transpose().map_err(FileError::Page)?;
            }
        }
        Ok(recorder)
    }

    fn start_compositor(
        &mut self,
        sound: Option<AudioMixerOptions>,
        settings: &MediaSettings,
        video: Option<(Box<dyn RawSink>, VideoMixerOptions)>,
        audio: Option<Box<dyn RawSink>>,
        start: StartRule,
    ) -> Result<(), CompositorError> {
        let (video, picture) = video.unzip();
        let options = CompositorOptions {
            picture,
            sound: sound.filter(|_| audio.is_some()),
            ..compositor_options(settings, start)
        };
        let (number, events) = (self.number, self.events.clone());
        self.compositor = Some(Compositor::start(options, video, audio, move |event| {
            let _ = events.send(RecorderInput::Compositor(number, event));
        })?);
        Ok(())
    }

    /// Decodes the copied picture once more, for outputs of raw pictures. Its faults are theirs alone; what it would ask of
    /// the publisher is not asked: the copy would show it.
    fn start_raw_compositor(
        &mut self,
        canvas: VideoMixerOptions,
        settings: &MediaSettings,
        raw: Box<dyn RawSink>,
        at: MediaTime,
    ) -> Result<(), CompositorError> {
        let options = CompositorOptions {
            picture: Some(VideoMixerOptions { key_grid: None, ..canvas }),
            ..compositor_options(settings, StartRule::At(at))
        };
        let (number, events) = (self.number, self.events.clone());
        self.raw_compositor = Some(Compositor::start(options, Some(raw), None, move |event| {
            let message = match event {
                CompositorEvent::Noted { message } => message,
                CompositorEvent::Broken { message } => format!("images end here: {message}"),
                CompositorEvent::Started { .. } | CompositorEvent::LayerRequest(_) | CompositorEvent::Ended => return,
            };
            let _ = events.send(RecorderInput::Compositor(number, CompositorEvent::Noted { message }));
        })?);
        Ok(())
    }

    /// One event, in order.
    ///
    /// # Errors
    ///
    /// When the pipeline takes no more.
    pub fn take(&mut self, timed: &TimelineEvent) -> Result<TakeOutcome, FileError> {
        self.meter.take(timed);
        let mut outcome = TakeOutcome::Went;
        match timed {
            TimelineEvent::Joined { track, .. } => outcome = self.joined(track),
            TimelineEvent::Frame(frame) => {
                self.known_to = self.known_to.max(frame.at);
                if let Some(copied) = self.copied.as_mut().filter(|_| frame.key)
                    && self.choice.takes_over(frame.track, copied.id)
                {
                    copied.id = frame.track;
                }
                self.choice.sends(frame.track);
                if let Some(copied) = self.copied.as_mut().filter(|copied| copied.id == frame.track) {
                    copied.left_at = None;
                    if let Copied::Resized { from, to } = copied.copy.frame(frame)? {
                        copied.size = to;
                        copied.blackened = false;
                        if !std::mem::replace(&mut copied.told_size, true) {
                            outcome = TakeOutcome::Noted(format!(
                                "the published picture changes its size, first from {}×{} to {}×{}: each is in the file",
                                from.0, from.1, to.0, to.1
                            ));
                        }
                    }
                }
            }
            TimelineEvent::Muted { track, at, .. } | TimelineEvent::Left { track, at } => {
                let has_left = matches!(timed, TimelineEvent::Left { .. });
                let other = if has_left { self.choice.left(*track) } else { self.choice.stops(*track) };
                if let Some(copied) = self.copied.as_mut().filter(|copied| copied.id == *track) {
                    if has_left {
                        copied.left_at = Some(*at);
                    }
                    // Not when it is our connection that is lost.
                    if !matches!(timed, TimelineEvent::Muted { muted: false, .. }) {
                        copied.copy.muted();
                    }
                    if let Some(note) = copied.absent(*at)? {
                        outcome = TakeOutcome::Noted(note);
                    }
                    if let Some(track) = other {
                        let request = CompositorEvent::LayerRequest(LayerRequest::KeyFrame { track });
                        // Refused only when the controller is gone.
                        let _ = self.events.send(RecorderInput::Compositor(self.number, request));
                    }
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
        if outcome != TakeOutcome::OtherCodec {
            self.compositors().for_each(|compositor| compositor.take(timed.clone()));
        }
        Ok(outcome)
    }

    fn compositors(&self) -> impl Iterator<Item = &Compositor> {
        self.compositor.iter().chain(&self.raw_compositor)
    }

    fn joined(&mut self, track: &Track) -> TakeOutcome {
        let Some(copied) = &self.copied else { return TakeOutcome::Went };
        // Beside a copied picture sound is mixed.
        if copied.codec.is_video() != track.codec.is_video() {
            return TakeOutcome::Went;
        }
        if copied.codec != track.codec {
            return TakeOutcome::OtherCodec;
        }
        self.choice.joined(track.id);
        TakeOutcome::Went
    }

    /// The compositor asks this of the room.
    pub fn asked(&mut self, request: LayerRequest) {
        match request {
            LayerRequest::Prefer { track, .. } => self.meter.asked(track, false),
            LayerRequest::Pause { track } => self.meter.asked(track, true),
            LayerRequest::KeyFrame { .. } => {}
        }
    }

    /// The compositor has decided where the recording begins.
    pub fn began(&mut self, at: MediaTime) {
        self.origin.get_or_insert(at);
    }

    /// Nothing more comes. What is copied alone lasts until it was stopped, if it was, whatever was sent last; a picture beside
    /// mixed sound as long as that.
    /// [`PipelineEvent::Drained`](crate::output::PipelineEvent::Drained) says when all files are whole.
    pub fn end(&mut self, stopped_at: Option<MediaTime>) {
        if let Some(page) = &self.page {
            page.end_at(stopped_at.unwrap_or_else(|| page.now()));
        }
        self.compositors().for_each(|compositor| compositor.end_at(self.known_to));
        if let Some(copied) = &mut self.copied {
            let end = match copied.left_at {
                _ if copied.beside_sound => self.known_to,
                Some(left_at) if copied.codec.is_video() => left_at,
                _ => self.known_to.max(stopped_at.unwrap_or_default()),
            };
            // Refused only by an input that is closed already.
            let _ = copied.copy.lasts_to(end);
            copied.copy.end();
        }
    }

    /// Ends one output; its file is closed when the pipeline says so.
    pub fn remove(&self, taker: TakerId) {
        if let Some(pipeline) = &self.pipeline {
            pipeline.fanout().remove(taker);
        }
    }

    /// What is given up for streams that are watched. Images beside a copied picture are not theirs.
    pub fn set_live(&self, live: LiveRule) {
        if let Some(compositor) = &self.compositor {
            compositor.set_live(live);
        }
        if let Some(page) = &self.page {
            page.set_live(live);
        }
    }

    /// Asks for key frames; does nothing where pictures are not encoded.
    pub fn key_frames(&self) -> KeyFrameRequests {
        self.pipeline.as_ref().map(Pipeline::key_frames).unwrap_or_default()
    }

    /// Waits until the last byte is written. Only for the moment of a change of codec.
    pub fn wait_drained(&self, drain_timeout: Duration) -> bool {
        self.pipeline.as_ref().is_none_or(|pipeline| pipeline.wait_drained(drain_timeout))
    }

    /// Stops at once; the files stay as they are.
    pub fn close(&mut self) {
        (self.compositor, self.raw_compositor) = (None, None);
        self.pipeline = None;
        // After what its threads may be waiting for.
        self.page = None;
    }

    /// The page was not there for so long.
    pub fn page_gap(&mut self, length: Duration) {
        self.meter.gap(length);
    }

    /// The newest counts of a track.
    pub fn packets(&mut self, track: TrackId, packets: u64, lost: u64) {
        self.meter.packets(track, packets, lost);
    }

    /// How much later than its sound a picture is placed now.
    pub fn av_offset(&mut self, picture: TrackId, ms: Option<f64>) {
        self.meter.av_offset(picture, ms);
    }

    /// Media time of the files' beginning, once it is known.
    pub fn origin(&self) -> Option<MediaTime> {
        self.origin
    }

    /// Length of the recording by its encoded frames, nanoseconds.
    pub fn media_ns(&self) -> u64 {
        self.progress.media_ns()
    }

    /// Grows while anything is written.
    pub fn worked(&self) -> u64 {
        self.progress.worked()
    }

    /// Between what is known of the recording and what is encoded.
    pub fn lag_ms(&mut self) -> u64 {
        let Some(stats) = self.made() else { return 0 };
        let lag = stats.lag_ns / 1_000_000;
        self.meter.lag(lag);
        lag
    }

    /// What a compositor or a page has given to the encoders.
    fn made(&self) -> Option<CompositorStats> {
        self.compositor.as_ref().map(Compositor::stats).or_else(|| self.page.as_ref().map(PageFeed::stats))
    }

    /// Encoded bytes that wait for a decoder, in memory or spilled.
    pub fn backlog_bytes(&self) -> u64 {
        let waiting = |compositor: &Compositor| {
            let backlog = compositor.stats().backlog;
            backlog.memory + backlog.spilled
        };
        let compositor: u64 = self.compositors().map(waiting).sum();
        let copied = self.copied.as_ref().map_or(0, |copied| copied.copy.waiting_bytes());
        compositor + copied
    }

    /// What was recorded until now, of a file of this length.
    pub fn quality(&self, media_ns: u64) -> Quality {
        let made = self.made().map(|stats| ComposedQuality {
            pictures: stats.pictures,
            distinct_frames: stats.distinct_frames,
            frames_skipped: stats.frames_skipped,
            frames_thinned: stats.frames_thinned,
            max_freeze_ms: stats.longest_freeze_ns / 1_000_000,
            silence_ms: stats.silence_ns / 1_000_000,
            max_lag_ms: stats.longest_lag_ns / 1_000_000,
        });
        let copied = self.copied.as_ref().map(|copied| copied.id);
        let mut quality = self.meter.quality(media_ns / 1_000_000, copied, made);
        if let Some(compositor) = &self.compositor {
            add_late_sound(&mut quality, &compositor.late_sound_ms());
        }
        if let Some(copied) = self.copied.as_ref().filter(|copied| !copied.codec.is_video()) {
            add_late_sound(&mut quality, &[(copied.identity.clone(), copied.copy.late_sound_ms())]);
        }
        if let Some(page) = &self.page {
            add_late_sound(&mut quality, &[("the page".to_owned(), page.missing_sound_ms())]);
        }
        quality
    }
}

/// Of a compositor that makes nothing yet.
fn compositor_options(settings: &MediaSettings, start: StartRule) -> CompositorOptions {
    CompositorOptions {
        picture: None,
        sound: None,
        start,
        degradation: DegradationBounds::FILE,
        backlog_bytes: settings.backlog_bytes,
        spill_dir: settings.spill_dir.clone(),
    }
}

/// The way of raw pictures to their encoder and to outputs that take them raw; `None`: nothing takes any.
fn raw_pictures(
    feed: Option<Box<dyn RawSink>>,
    takers: Vec<Box<dyn RawTaker>>,
    fanout: Arc<Fanout>,
) -> Option<Box<dyn RawSink>> {
    if takers.is_empty() { feed } else { Some(Box::new(RawPictures::new(feed, takers, fanout))) }
}

/// The mixer's way to its encoders: each gets everything later by what it delays less than the mixer is ahead.
fn mixed_sound(inputs: &PipelinePlan, feeds: Vec<Feed>, sound: Option<AudioMixerOptions>) -> Option<Box<dyn RawSink>> {
    let ahead = sound?.lead;
    let later = inputs.audio.iter().map(|input| ahead.saturating_sub(lead(input)));
    (!feeds.is_empty()).then(|| Box::new(RawFanout::new(feeds.into_iter().zip(later))) as Box<dyn RawSink>)
}
