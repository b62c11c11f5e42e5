//! Many tracks become one picture and one sound, on the session's timeline.
//!
//! `inbox` (encoded frames; the only place where lag is kept, `spill` beyond its bound) → `lane` (a thread per track:
//! `decode`) → `handover` and `voice` (few decoded pictures and packets) → `picture` and `sound` (a thread each: one
//! picture per output time, one block per 20 ms) → the pipeline's feeds.
//!
//! No clock is asked anywhere. A picture is made once every track is known up to its time; being late means lag, held
//! as encoded frames, and what is recorded does not depend on how busy the machine was. `stage` holds what both mixers
//! know; `phase` (when each picture is shown, and where its person's sound goes with it), `start`, `layout`, `focus`,
//! `ladder`, `limiter` and `wish` are pure.

mod spill;
mod inbox;
mod decode;
mod lane;
mod handover;
mod voice;
mod phase;
mod start;
mod stage;
mod layout;
mod focus;
mod ladder;
mod wish;
mod canvas;
mod picture;
mod limiter;
mod sound;
mod tally;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};

use gstreamer as gst;
use spillway_plan::LayoutName;
use spillway_process::chain;

pub use canvas::CanvasError;
pub use ladder::LadderBounds;
pub use layout::{Arrangement, Size};
pub use picture::PictureOptions;
pub use sound::{SoundOptions, encoder_delay};
pub use spill::BacklogStats;
pub use start::{Candidate, Prelude, StartRule};
pub use tally::SceneStats;
pub use wish::Wish;

use crate::pipeline::{Feed, FeedError};
use crate::track::{Frame, Origin, SessionTime, Timed, Track, TrackId};
use canvas::output_time_near;
use handover::Pictures;
use inbox::{Inbox, Turn};
use lane::{LaneCounts, LaneEars, SoundLane, VideoLane};
use phase::{FURTHEST, Follow, Step};
use picture::PictureMixer;
use sound::{SoundMixer, decoder_delay};
use spill::Backlog;
use stage::{Cue, Entrance, Stage};
use tally::Tally;
use voice::Voice;

/// Where finished pictures and sound go: a [`Feed`], and in tests whatever looks at them.
pub trait Onward: Send {
    /// Blocks while enough waits there.
    fn push(&self, buffer: gst::Buffer) -> Result<(), FeedError>;
    fn end(&self);
}

impl Onward for Feed {
    fn push(&self, buffer: gst::Buffer) -> Result<(), FeedError> {
        Feed::push(self, buffer)
    }

    fn end(&self) {
        Feed::end(self);
    }
}

/// What is made. At least one of `picture` and `sound`.
#[derive(Clone, Debug)]
pub struct SceneOptions {
    pub picture: Option<PictureOptions>,
    pub sound: Option<SoundOptions>,
    pub start: StartRule,
    pub ladder: LadderBounds,
    /// Encoded bytes that may wait in memory.
    pub backlog_bytes: u64,
    /// Where they go beyond that.
    pub spill_dir: Option<PathBuf>,
}

/// The last picture of a camera that went silent is held this long, unless told otherwise.
pub const HOLD_NS: u64 = 10_000_000_000;

/// What the scene says while it works, from its own threads. Whoever hears it must not wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SceneEvent {
    /// Output time 0 is this moment of the session.
    Started {
        at: SessionTime,
    },
    Wish(Wish),
    /// Worth telling the user.
    Noted {
        words: String,
    },
    /// No more pictures can be made.
    Broken {
        words: String,
    },
    /// Both feeds are ended; everything up to the end was pushed.
    Ended,
}

#[derive(Debug, thiserror::Error)]
pub enum SceneError {
    #[error("a scene of neither picture nor sound")]
    Nothing,
    #[error("prepare the canvas")]
    Canvas(#[from] CanvasError),
    #[error("start a thread of the scene")]
    Thread(#[from] io::Error),
}

type Tell = Arc<dyn Fn(SceneEvent) + Send + Sync>;

/// A running scene. Dropping it gives it up: threads leave, feeds are ended.
pub struct Scene {
    stage: Arc<Stage>,
    backlog: Arc<Backlog>,
    tally: Arc<Tally>,
    counts: Arc<LaneCounts>,
    tell: Tell,
    /// Pictures a second, if any are made.
    framerate: Option<u32>,
    wants_sound: bool,
    tracks: Mutex<Tracks>,
    leader: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Tracks {
    /// In order of joining; a track that left stays until its lane has finished.
    live: Vec<Live>,
    /// By participant: samples of sound that came when their time was already mixed.
    late_samples: BTreeMap<String, Arc<AtomicU64>>,
    /// Said so far.
    watermark: SessionTime,
    /// Nothing is taken any more.
    over: bool,
}

struct Live {
    track: TrackId,
    identity: String,
    inbox: Arc<Inbox>,
    out: Decoded,
    pace: Pace,
    /// A screen's sound goes along with the screen, a microphone with the camera.
    screen: bool,
    left: bool,
    /// The user knows that pictures of it are missing.
    told_full: bool,
}

impl Tracks {
    /// Where a frame of this track goes.
    fn pace(&mut self, track: TrackId, at: SessionTime) -> SessionTime {
        let Some(index) = self.live.iter().rposition(|live| live.track == track && !live.left) else { return at };
        let late = self.late_beside(&self.live[index]);
        match &mut self.live[index].pace {
            Pace::Pictures(step) => step.show(at),
            Pace::Sound(follow) => follow.hear(at, late),
        }
    }

    /// How late the pictures are shown that the sound of `live` belongs to.
    fn late_beside(&self, live: &Live) -> Option<i64> {
        let same = |other: &&Live| !other.left && other.identity == live.identity && other.screen == live.screen;
        self.live.iter().filter(same).find_map(|other| match &other.pace {
            Pace::Pictures(step) => step.late(),
            Pace::Sound(_) => None,
        })
    }

    fn of_mut(&mut self, track: TrackId) -> Option<&mut Live> {
        self.live.iter_mut().rfind(|live| live.track == track && !live.left)
    }

    fn forget_finished(&mut self) {
        // A lane that has ended has let go of its inbox.
        self.live.retain(|live| !live.left || Arc::strong_count(&live.inbox) > 1);
    }
}

enum Decoded {
    Pictures(Arc<Pictures>),
    Voice(Arc<Voice>),
}

enum Pace {
    Pictures(Step),
    Sound(Follow),
}

impl Live {
    fn is_video(&self) -> bool {
        matches!(self.pace, Pace::Pictures(_))
    }

    /// Where a moment of this track goes.
    fn moved(&self, at: SessionTime) -> SessionTime {
        match &self.pace {
            Pace::Pictures(step) => step.moved(at),
            Pace::Sound(follow) => follow.moved(at),
        }
    }
}

impl Scene {
    /// A feed for each of what `options` make.
    pub fn start(
        options: SceneOptions,
        video: Option<Box<dyn Onward>>,
        audio: Option<Box<dyn Onward>>,
        tell: impl Fn(SceneEvent) + Send + Sync + 'static,
    ) -> Result<Self, SceneError> {
        let picture = options.picture.zip(video);
        let sound = options.sound.zip(audio);
        if picture.is_none() && sound.is_none() {
            return Err(SceneError::Nothing);
        }
        let framerate = picture.as_ref().map(|(options, _)| options.framerate);
        let wants_sound = sound.is_some();
        let stage = Arc::new(Stage::new(options.start, framerate));
        let tally = Arc::new(Tally::default());
        let tell: Tell = Arc::new(tell);

        let picture = match picture {
            Some((options_, feed)) => {
                let mixer = PictureMixer::new(options_, options.ladder, stage.clone(), tally.clone(), tell.clone())?;
                Some((mixer, feed))
            }
            None => None,
        };
        let sound = sound.map(|(options, feed)| (SoundMixer::new(options, stage.clone(), tally.clone()), feed));

        let (leads, says) = (stage.clone(), tell.clone());
        let leader = spawn("scene", move || {
            let pictures = picture.map(|(mixer, feed)| {
                let stage = leads.clone();
                spawn("picture", move || mixer.run(stage.wait_for_start(), feed))
            });
            let sounds = sound.map(|(mixer, feed)| {
                let stage = leads.clone();
                spawn("sound", move || mixer.run(stage.wait_for_start(), feed))
            });
            if let Some(at) = leads.decide_start() {
                says(SceneEvent::Started { at });
            }
            for mixer in [pictures, sounds].into_iter().flatten() {
                match mixer.map(JoinHandle::join) {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => says(SceneEvent::Broken { words: "a mixer of the scene panicked".into() }),
                    Err(error) => says(SceneEvent::Broken { words: format!("a mixer has no thread: {error}") }),
                }
            }
            says(SceneEvent::Ended);
        })?;
        Ok(Self {
            stage,
            backlog: Arc::new(Backlog::new(options.backlog_bytes, options.spill_dir)),
            tally,
            counts: Arc::default(),
            tell,
            framerate,
            wants_sound,
            tracks: Mutex::default(),
            leader: Mutex::new(Some(leader)),
        })
    }

    /// Never waits for the scene, however late it is.
    pub fn take(&self, timed: Timed) {
        let mut tracks = lock(&self.tracks);
        if tracks.over {
            return;
        }
        match timed {
            Timed::Published { sid, video, muted, at } => {
                self.stage.before_start(|prelude| prelude.published(&sid, video, muted, at));
            }
            Timed::Unpublished { sid, at } => self.stage.before_start(|prelude| prelude.unpublished(&sid, at)),
            Timed::Joined { track, at } => self.join(&mut tracks, track, at),
            Timed::Frame(frame) => self.frame(&mut tracks, frame),
            Timed::Absent { track, at, .. } => self.turn(&mut tracks, track, at, Turn::Absent),
            Timed::Left { track, at } => self.turn(&mut tracks, track, at, Turn::Left),
            Timed::Lost { track, at, .. } => self.turn(&mut tracks, track, at, Turn::Lost),
            Timed::Speakers { at, identities } if self.framerate.is_some() => {
                self.stage.cue(at, Cue::Speakers(identities))
            }
            Timed::Layout { at, name } if self.framerate.is_some() => match LayoutName::parse(&name) {
                Ok(layout) => self.stage.cue(at, Cue::Layout(layout)),
                Err(error) => self.note(format!("the layout stays as it is: {}", chain(&error))),
            },
            Timed::Speakers { .. } | Timed::Layout { .. } => {}
            Timed::CompleteTo { at } => {
                // What is still to come may be moved ahead by this much.
                let at = SessionTime(at.0.saturating_sub(FURTHEST as u64));
                tracks.watermark = tracks.watermark.max(at);
                for live in &tracks.live {
                    live.inbox.complete_to(at);
                }
                self.stage.complete_to(at);
            }
        }
    }

    /// The recording ends at this moment of the session: everything before it is made, then the feeds are ended.
    pub fn end_at(&self, end: SessionTime) {
        let mut tracks = lock(&self.tracks);
        if std::mem::replace(&mut tracks.over, true) {
            return;
        }
        for live in &tracks.live {
            live.inbox.complete_to(end);
            live.inbox.close();
        }
        self.stage.end_at(end);
    }

    /// Waits until both feeds are ended.
    pub fn wait(&self) {
        let leader = lock(&self.leader).take();
        if let Some(leader) = leader {
            // It reports its mixers' panics and has none of its own.
            let _ = leader.join();
        }
    }

    pub fn stats(&self) -> SceneStats {
        let (mut stats, picture_at, sound_at) = self.tally.read();
        let started = self.stage.started();
        let made = |at: Option<SessionTime>| match (at, started) {
            (Some(at), Some(start)) => at.0.saturating_sub(start.0),
            _ => 0,
        };
        stats.started = started;
        stats.picture_ns = made(picture_at);
        let positions = [(self.framerate.is_some(), picture_at), (self.wants_sound, sound_at)];
        let behind = positions.iter().filter(|(wanted, _)| *wanted).filter_map(|(_, at)| at.or(started)).min();
        stats.lag_ns = behind.map_or(0, |at| self.stage.lag(at));
        stats.longest_lag_ns = stats.longest_lag_ns.max(stats.lag_ns);
        stats.backlog = self.backlog.stats();
        stats.broken_frames = self.counts.broken_frames.load(Relaxed);
        stats
    }

    /// By participant: milliseconds of sound that arrived too late to be mixed, where any did.
    pub fn late_sound_ms(&self) -> Vec<(String, u64)> {
        let tracks = lock(&self.tracks);
        let ms = tracks.late_samples.iter().map(|(who, samples)| (who, samples.load(Relaxed) * 1000 / voice::RATE));
        ms.filter(|(_, ms)| *ms > 0).map(|(who, ms)| (who.clone(), ms)).collect()
    }

    fn join(&self, tracks: &mut Tracks, track: Track, at: SessionTime) {
        let video = track.codec.is_video();
        let pace = match self.framerate {
            Some(framerate) if video => Pace::Pictures(Step::new(framerate)),
            None if video => return,
            _ if self.wants_sound => Pace::Sound(Follow::default()),
            _ => return,
        };
        tracks.forget_finished();
        if let Some(live) = tracks.of_mut(track.id) {
            // Back after a reconnect without having left: the tile keeps its last picture, the codec may be another.
            let at = live.moved(at);
            self.stage.before_start(|prelude| prelude.joined(track.id, &track.sid, video, at));
            return live.inbox.put_turn(at, Turn::Begins(track.codec));
        }
        // Its first picture may be shown a little ahead of its time, and joins with its track.
        let at = self.framerate.filter(|_| video).map_or(at, |framerate| output_time_near(at, framerate));
        self.stage.before_start(|prelude| prelude.joined(track.id, &track.sid, video, at));
        let inbox = Arc::new(Inbox::new(track.codec, self.backlog.clone()));
        inbox.complete_to(tracks.watermark);
        let ears = Arc::new(Ears { track: track.id, tell: self.tell.clone() });
        let (counts, id, identity) = (self.counts.clone(), track.id, track.identity.clone());
        let screen = matches!(track.origin, Origin::ScreenShare | Origin::ScreenShareAudio);
        let (out, thread) = if video {
            let pictures = Arc::new(Pictures::default());
            self.stage.cue(at, Cue::Video(track.clone(), pictures.clone()));
            let lane = VideoLane { track, inbox: inbox.clone(), pictures: pictures.clone(), ears, counts };
            (Decoded::Pictures(pictures), spawn("video", move || lane.run()))
        } else {
            let dropped = tracks.late_samples.entry(identity.clone()).or_default().clone();
            let voice = Arc::new(Voice::new(decoder_delay(track.codec), dropped));
            self.stage.enters(at, Entrance { track: track.clone(), voice: voice.clone() });
            let lane = SoundLane { track, inbox: inbox.clone(), voice: voice.clone(), ears, counts };
            (Decoded::Voice(voice), spawn("voice", move || lane.run()))
        };
        let live = Live { track: id, identity, inbox, out, pace, screen, left: false, told_full: false };
        if let Err(error) = thread {
            live.abandon();
            self.note(format!("a track is not recorded, it got no thread: {error}"));
        }
        tracks.live.push(live);
    }

    fn frame(&self, tracks: &mut Tracks, frame: Frame) {
        let at = tracks.pace(frame.track, frame.at);
        let Some(live) = tracks.of_mut(frame.track) else { return };
        self.stage.before_start(|prelude| prelude.frame(frame.track, live.is_video(), at));
        let kept = live.inbox.put_frame(at, frame.key, frame.data);
        if !kept && !std::mem::replace(&mut live.told_full, true) {
            self.note(format!(
                "the machine could not keep up and there was no more room to wait: pictures of {} are missing",
                live.identity
            ));
        }
        if let Some(words) = self.backlog.trouble() {
            self.note(words);
        }
    }

    fn note(&self, words: String) {
        (self.tell)(SceneEvent::Noted { words });
    }

    fn turn(&self, tracks: &mut Tracks, track: TrackId, at: SessionTime, turn: Turn) {
        let Some(live) = tracks.of_mut(track) else { return };
        let at = live.moved(at);
        if matches!(turn, Turn::Absent | Turn::Left) {
            self.stage.before_start(|prelude| prelude.gone(track, at));
        }
        live.left |= turn == Turn::Left;
        live.inbox.put_turn(at, turn);
    }
}

impl Live {
    fn abandon(&self) {
        self.inbox.abandon();
        match &self.out {
            Decoded::Pictures(pictures) => pictures.abandon(),
            Decoded::Voice(voice) => voice.abandon(),
        }
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.stage.give_up();
        let mut tracks = lock(&self.tracks);
        tracks.over = true;
        tracks.live.iter().for_each(Live::abandon);
    }
}

struct Ears {
    track: TrackId,
    tell: Tell,
}

impl LaneEars for Ears {
    fn wants_key_frame(&self) {
        (self.tell)(SceneEvent::Wish(Wish::KeyFrame { track: self.track }));
    }

    fn noted(&self, words: String) {
        (self.tell)(SceneEvent::Noted { words });
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    // What a thread says belongs to the recording that started it.
    let span = tracing::Span::current();
    Builder::new().name(name.to_owned()).spawn(move || span.in_scope(work))
}

/// What a panicked thread held is still whole enough: every change under these locks is one step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wait<'a, T>(news: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    news.wait(guard).unwrap_or_else(PoisonError::into_inner)
}
