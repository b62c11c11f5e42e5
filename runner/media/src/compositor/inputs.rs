//! The way of events into a running compositor: every track has an inbox, those with pictures a thread, and times that are
//! moved by its pacing. Called from the recorder's thread, and never waits there.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::{Builder, JoinHandle};

use spillway_plan::LayoutName;
use spillway_process::chain;

use super::audio::input::AudioInput;
use super::audio::mixer::{AudioMixer, decoder_delay};
use super::audio::track_buffer::AudioTrackBuffer;
use super::decoder_thread::{DecoderCounters, DecoderEvents, DecoderThread};
use super::event::{CompositorEvent, EventFn};
use super::policy::degradation::LiveRule;
use super::policy::layer_request::LayerRequest;
use super::policy::pacing::{FURTHEST_NS, FramePacing, LipSync, output_time_near};
use super::stats::{CompositorStats, StatsCounter};
use super::sync::backlog::Backlog;
use super::sync::decoded_queue::DecodedQueue;
use super::sync::inbox::{Inbox, TrackEvent};
use super::sync::lock::lock;
use super::sync::mixer_sync::{AudioJoin, MixerSync, VideoEvent};
use super::video::frame_queue::FrameQueue;
use super::video::mixer::VideoMixer;
use super::{CompositorError, CompositorOptions};
use crate::output::RawSink;
use crate::track::{Frame, TimelineEvent, Track, TrackId, TrackSource};
use crate::units::{MediaTime, SampleIndex};

/// A running compositor. Dropping it gives it up: threads leave, feeds are ended.
pub struct Compositor {
    sync: Arc<MixerSync>,
    backlog: Arc<Backlog>,
    stats_counter: Arc<StatsCounter>,
    counts: Arc<DecoderCounters>,
    tell: EventFn,
    /// Pictures a second, if any are made.
    framerate: Option<u32>,
    wants_sound: bool,
    tracks: Mutex<Tracks>,
    starter: Mutex<Option<JoinHandle<()>>>,
}

impl Compositor {
    /// A feed for each of what `options` make.
    ///
    /// # Errors
    ///
    /// When neither picture nor sound has both options and a sink, no canvas can be made, or the system has no thread
    /// left.
    pub fn start(
        options: CompositorOptions,
        video: Option<Box<dyn RawSink>>,
        audio: Option<Box<dyn RawSink>>,
        tell: impl Fn(CompositorEvent) + Send + Sync + 'static,
    ) -> Result<Self, CompositorError> {
        let picture = options.picture.zip(video);
        let sound = options.sound.zip(audio);
        if picture.is_none() && sound.is_none() {
            return Err(CompositorError::Nothing);
        }
        let framerate = picture.as_ref().map(|(options, _)| options.framerate);
        let wants_sound = sound.is_some();
        let sync = Arc::new(MixerSync::new(options.start, framerate));
        let stats_counter = Arc::new(StatsCounter::default());
        let tell: EventFn = Arc::new(tell);

        let picture = match picture {
            Some((options_, feed)) => {
                let mixer =
                    VideoMixer::new(options_, options.degradation, sync.clone(), stats_counter.clone(), tell.clone())?;
                Some((mixer, feed))
            }
            None => None,
        };
        let sound = sound.map(|(options, feed)| (AudioMixer::new(options, sync.clone(), stats_counter.clone()), feed));

        let (shared, says) = (sync.clone(), tell.clone());
        let starter = spawn("compositor", move || {
            let pictures = picture.map(|(mixer, feed)| {
                let sync = shared.clone();
                spawn("picture", move || mixer.run(sync.wait_for_start(), feed))
            });
            let sounds = sound.map(|(mixer, feed)| {
                let sync = shared.clone();
                spawn("sound", move || mixer.run(sync.wait_for_start(), feed))
            });
            if let Some(at) = shared.decide_start() {
                says(CompositorEvent::Started { at });
            }
            for mixer in [pictures, sounds].into_iter().flatten() {
                match mixer.map(JoinHandle::join) {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => says(CompositorEvent::Broken { message: "a mixer panicked".into() }),
                    Err(error) => says(CompositorEvent::Broken { message: format!("a mixer has no thread: {error}") }),
                }
            }
            says(CompositorEvent::Ended);
        })?;
        Ok(Self {
            sync,
            backlog: Arc::new(Backlog::new(options.backlog_bytes, options.spill_dir)),
            stats_counter,
            counts: Arc::default(),
            tell,
            framerate,
            wants_sound,
            tracks: Mutex::default(),
            starter: Mutex::new(Some(starter)),
        })
    }

    /// Never waits, however late the mixers are.
    pub fn take(&self, timed: TimelineEvent) {
        let mut tracks = lock(&self.tracks);
        if tracks.over {
            return;
        }
        match timed {
            TimelineEvent::Published { sid, video, muted, at } => {
                self.sync.before_start(|prelude| prelude.published(&sid, video, muted, at));
            }
            TimelineEvent::Unpublished { sid, at } => self.sync.before_start(|prelude| prelude.unpublished(&sid, at)),
            TimelineEvent::Joined { track, at } => self.join(&mut tracks, track, at),
            TimelineEvent::Frame(frame) => self.frame(&mut tracks, frame),
            TimelineEvent::Muted { track, at, .. } => self.track_event(&mut tracks, track, at, TrackEvent::Muted),
            TimelineEvent::Left { track, at } => self.track_event(&mut tracks, track, at, TrackEvent::Left),
            TimelineEvent::Lost { track, at, .. } => self.track_event(&mut tracks, track, at, TrackEvent::Lost),
            TimelineEvent::Speakers { at, identities } if self.framerate.is_some() => {
                self.sync.video_event(at, VideoEvent::Speakers(identities))
            }
            TimelineEvent::Layout { at, name } if self.framerate.is_some() => match LayoutName::parse(&name) {
                Ok(layout) => self.sync.video_event(at, VideoEvent::Layout(layout)),
                Err(error) => self.note(format!("the layout stays as it is: {}", chain(&error))),
            },
            TimelineEvent::Speakers { .. } | TimelineEvent::Layout { .. } => {}
            TimelineEvent::Watermark { at } => {
                // What is still to come may be moved ahead by this much.
                let at = at.minus_ns(FURTHEST_NS as u64);
                tracks.watermark = tracks.watermark.max(at);
                for live in &tracks.live {
                    live.inbox.complete_to(at);
                }
                self.sync.complete_to(at);
            }
        }
    }

    /// Whether a stream is watched: what is given up from which lag on changes with the next picture.
    pub fn set_live(&self, live: LiveRule) {
        self.sync.set_live(live);
    }

    /// The recording ends at this moment: everything before it is made, then the feeds are ended.
    pub fn end_at(&self, end: MediaTime) {
        let mut tracks = lock(&self.tracks);
        if std::mem::replace(&mut tracks.over, true) {
            return;
        }
        for live in &tracks.live {
            live.inbox.complete_to(end);
            live.inbox.close();
        }
        self.sync.end_at(end);
    }

    /// Waits until both feeds are ended.
    pub fn wait(&self) {
        let starter = lock(&self.starter).take();
        if let Some(starter) = starter {
            // It reports its mixers' panics and has none of its own.
            let _ = starter.join();
        }
    }

    /// Counters and positions at this moment; cheap, from any thread.
    pub fn stats(&self) -> CompositorStats {
        let (mut stats, picture_at, sound_at) = self.stats_counter.read();
        let started = self.sync.started();
        let made = |at: Option<MediaTime>| match (at, started) {
            (Some(at), Some(start)) => at.ns_since(start),
            _ => 0,
        };
        stats.started = started;
        stats.picture_ns = made(picture_at);
        let positions = [(self.framerate.is_some(), picture_at), (self.wants_sound, sound_at)];
        let behind = positions.iter().filter(|(wanted, _)| *wanted).filter_map(|(_, at)| at.or(started)).min();
        stats.lag_ns = behind.map_or(0, |at| self.sync.lag(at));
        stats.longest_lag_ns = stats.longest_lag_ns.max(stats.lag_ns);
        stats.backlog = self.backlog.stats();
        stats.broken_frames = self.counts.broken_frames.load(Relaxed);
        stats
    }

    /// By participant: milliseconds of sound that arrived too late to be mixed, where any did.
    pub fn late_sound_ms(&self) -> Vec<(String, u64)> {
        let tracks = lock(&self.tracks);
        let ms =
            tracks.late_samples.iter().map(|(who, samples)| (who, samples.load(Relaxed) * 1000 / SampleIndex::RATE));
        ms.filter(|(_, ms)| *ms > 0).map(|(who, ms)| (who.clone(), ms)).collect()
    }

    fn join(&self, tracks: &mut Tracks, track: Track, at: MediaTime) {
        let video = track.codec.is_video();
        let pace = match self.framerate {
            Some(framerate) if video => TrackPacing::Video(FramePacing::new(framerate)),
            None if video => return,
            _ if self.wants_sound => TrackPacing::Sound(LipSync::default()),
            _ => return,
        };
        tracks.forget_finished();
        if let Some(live) = tracks.of_mut(track.id) {
            // Back after a reconnect without having left: the tile keeps its last picture, the codec may be another.
            let at = live.moved(at);
            self.sync.before_start(|prelude| prelude.joined(track.id, &track.sid, video, at));
            return live.inbox.put_event(at, TrackEvent::Begins(track.codec));
        }
        // Its first picture may be shown a little ahead of its time, and joins with its track.
        let at = self.framerate.filter(|_| video).map_or(at, |framerate| output_time_near(at, framerate));
        self.sync.before_start(|prelude| prelude.joined(track.id, &track.sid, video, at));
        let inbox = Arc::new(Inbox::new(track.codec, self.backlog.clone()));
        inbox.complete_to(tracks.watermark);
        let events = Arc::new(TrackEventSender { track: track.id, tell: self.tell.clone() });
        let (counts, id, identity) = (self.counts.clone(), track.id, track.identity.clone());
        let screen = matches!(track.origin, TrackSource::ScreenShare | TrackSource::ScreenShareAudio);
        let (queue, thread): (Arc<dyn DecodedQueue>, _) = if video {
            let queue = Arc::new(FrameQueue::default());
            self.sync.video_event(at, VideoEvent::Video(track.clone(), queue.clone(), Arc::downgrade(&inbox)));
            let thread = DecoderThread { track, inbox: inbox.clone(), queue: queue.clone(), events, counts };
            (queue, Some(spawn("video", move || thread.run())))
        } else {
            let dropped = tracks.late_samples.entry(identity.clone()).or_default().clone();
            let queue = Arc::new(AudioTrackBuffer::new(decoder_delay(track.codec), dropped));
            let (of, inbox) = (track.clone(), inbox.clone());
            let voice = AudioInput::new(DecoderThread { track, inbox, queue: queue.clone(), events, counts });
            self.sync.enters(at, AudioJoin { track: of, voice });
            (queue, None)
        };
        let live = LiveTrack { track: id, identity, inbox, queue, pace, screen, left: false, told_full: false };
        if let Some(Err(error)) = thread {
            live.abandon();
            self.note(format!("a track is not recorded, it got no thread: {error}"));
        }
        tracks.live.push(live);
    }

    fn frame(&self, tracks: &mut Tracks, frame: Frame) {
        let at = match frame.offset_ns {
            0 => tracks.pace(frame.track, frame.at),
            offset_ns => self.reordered(tracks, frame.track, frame.at.shifted_ns(offset_ns)),
        };
        let Some(live) = tracks.of_mut(frame.track) else { return };
        self.sync.before_start(|prelude| prelude.frame(frame.track, live.is_video(), at));
        let kept = live.inbox.put_frame(at, frame.key, frame.data);
        if !kept && !std::mem::replace(&mut live.told_full, true) {
            self.note(format!(
                "the machine could not keep up and there was no more room to wait: pictures of {} are missing",
                live.identity
            ));
        }
        if let Some(message) = self.backlog.trouble() {
            self.note(message);
        }
    }

    /// Where a B frame is shown; the picture that was decoded before it and is shown later has its place.
    fn reordered(&self, tracks: &mut Tracks, track: TrackId, shown: MediaTime) -> MediaTime {
        let at = tracks.of_mut(track).map_or(shown, |live| live.moved(shown));
        self.framerate.map_or(at, |framerate| output_time_near(at, framerate))
    }

    fn note(&self, message: String) {
        (self.tell)(CompositorEvent::Noted { message });
    }

    fn track_event(&self, tracks: &mut Tracks, track: TrackId, at: MediaTime, track_event: TrackEvent) {
        let Some(live) = tracks.of_mut(track) else { return };
        let at = live.moved(at);
        if matches!(track_event, TrackEvent::Muted | TrackEvent::Left) {
            self.sync.before_start(|prelude| prelude.gone(track, at));
        }
        live.left |= track_event == TrackEvent::Left;
        live.inbox.put_event(at, track_event);
    }
}

impl Drop for Compositor {
    fn drop(&mut self) {
        self.sync.give_up();
        let mut tracks = lock(&self.tracks);
        tracks.over = true;
        tracks.live.iter().for_each(LiveTrack::abandon);
    }
}

struct TrackEventSender {
    track: TrackId,
    tell: EventFn,
}

impl DecoderEvents for TrackEventSender {
    fn wants_key_frame(&self) {
        (self.tell)(CompositorEvent::LayerRequest(LayerRequest::KeyFrame { track: self.track }));
    }

    fn noted(&self, message: String) {
        (self.tell)(CompositorEvent::Noted { message });
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    // What a thread says belongs to the recording that started it.
    let span = tracing::Span::current();
    Builder::new().name(name.to_owned()).spawn(move || span.in_scope(work))
}

#[derive(Default)]
struct Tracks {
    /// In order of joining; a track that left stays until its thread has finished.
    live: Vec<LiveTrack>,
    /// By participant: samples of sound that came when their time was already mixed.
    late_samples: BTreeMap<String, Arc<AtomicU64>>,
    /// Said so far.
    watermark: MediaTime,
    /// Nothing is taken any more.
    over: bool,
}

struct LiveTrack {
    track: TrackId,
    identity: String,
    inbox: Arc<Inbox>,
    queue: Arc<dyn DecodedQueue>,
    pace: TrackPacing,
    /// A screen's sound goes along with the screen, a microphone with the camera.
    screen: bool,
    left: bool,
    /// The user knows that pictures of it are missing.
    told_full: bool,
}

impl Tracks {
    /// Where a frame of this track goes.
    fn pace(&mut self, track: TrackId, at: MediaTime) -> MediaTime {
        let Some(index) = self.live.iter().rposition(|live| live.track == track && !live.left) else { return at };
        let live = &self.live[index];
        let late = if live.is_video() { None } else { self.late_beside(live) };
        match &mut self.live[index].pace {
            TrackPacing::Video(pacing) => pacing.show(at),
            TrackPacing::Sound(lip_sync) => lip_sync.shift(at, late),
        }
    }

    /// How late the pictures are shown that the sound of `live` belongs to.
    fn late_beside(&self, live: &LiveTrack) -> Option<i64> {
        let same = |other: &&LiveTrack| !other.left && other.identity == live.identity && other.screen == live.screen;
        self.live.iter().filter(same).find_map(|other| match &other.pace {
            TrackPacing::Video(pacing) => pacing.late(),
            TrackPacing::Sound(_) => None,
        })
    }

    fn of_mut(&mut self, track: TrackId) -> Option<&mut LiveTrack> {
        self.live.iter_mut().rfind(|live| live.track == track && !live.left)
    }

    fn forget_finished(&mut self) {
        // A thread that has ended has let go of its inbox.
        self.live.retain(|live| !live.left || Arc::strong_count(&live.inbox) > 1);
    }
}

enum TrackPacing {
    Video(FramePacing),
    Sound(LipSync),
}

impl LiveTrack {
    fn is_video(&self) -> bool {
        matches!(self.pace, TrackPacing::Video(_))
    }

    /// Where a moment of this track goes.
    fn moved(&self, at: MediaTime) -> MediaTime {
        match &self.pace {
            TrackPacing::Video(pacing) => pacing.moved(at),
            TrackPacing::Sound(lip_sync) => lip_sync.moved(at),
        }
    }

    fn abandon(&self) {
        self.inbox.abandon();
        self.queue.abandon();
    }
}
