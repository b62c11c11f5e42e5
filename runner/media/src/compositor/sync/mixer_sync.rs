//! What both mixers know: how far the recording is known, when it starts and ends, which tracks join, which layout is
//! wanted from when on. Written from the recorder's thread, waited on by the mixers.
//!
//! The two mixers never wait for one another: each is driven by the watermark and its own tracks alone.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, Weak};

use spillway_plan::LayoutName;

use super::inbox::Inbox;
use super::lock::{lock, wait};
use crate::compositor::audio::input::AudioInput;
use crate::compositor::policy::degradation::LiveRule;
use crate::compositor::policy::pacing::output_time_near;
use crate::compositor::policy::start::{Prelude, StartRule};
use crate::compositor::video::frame_queue::FrameQueue;
use crate::track::Track;
use crate::units::MediaTime;

/// Something the picture mixer obeys from an exact time on.
pub enum VideoEvent {
    /// With its decoded pictures, and with where the encoded ones wait.
    Video(Track, Arc<FrameQueue>, Weak<Inbox>),
    Speakers(Vec<String>),
    Layout(LayoutName),
}

/// A voice joins the mix.
pub struct AudioJoin {
    /// The track.
    pub track: Track,
    /// Its sound.
    pub voice: AudioInput,
}

/// What a wait gave.
pub enum SyncWait<T> {
    Known(T),
    Over,
}

/// No watermark is beyond.
const NEVER: MediaTime = MediaTime::MAX;

/// State under one lock, and a condition variable for each mixer.
pub struct MixerSync {
    state: Mutex<SyncState>,
    /// For those who wait for pictures or for the start.
    news: Condvar,
    /// For the sound mixer.
    heard: Condvar,
    rule: StartRule,
    /// Pictures a second, if any are made.
    framerate: Option<u32>,
}

struct SyncState {
    watermark: MediaTime,
    /// Up to here the watermark notifies neither `news` nor `heard`: their waiters need more.
    seen_to: MediaTime,
    heard_to: MediaTime,
    end: Option<MediaTime>,
    given_up: bool,
    live: LiveRule,
    start: Option<MediaTime>,
    /// Before the start.
    prelude: Prelude,
    videos: Vec<Arc<FrameQueue>>,
    video_events: TimeOrdered<VideoEvent>,
    audio_joins: TimeOrdered<AudioJoin>,
}

/// By time: events of different tracks come in any order as long as the watermark has not passed them.
struct TimeOrdered<T> {
    waiting: BTreeMap<(MediaTime, u64), T>,
    count: u64,
}

impl<T> Default for TimeOrdered<T> {
    fn default() -> Self {
        Self { waiting: BTreeMap::new(), count: 0 }
    }
}

impl<T> TimeOrdered<T> {
    fn put(&mut self, at: MediaTime, item: T) {
        self.count += 1;
        self.waiting.insert((at, self.count), item);
    }

    fn take_to(&mut self, at: MediaTime) -> Vec<(MediaTime, T)> {
        let later = self.waiting.split_off(&(at, u64::MAX));
        std::mem::replace(&mut self.waiting, later).into_iter().map(|((at, _), item)| (at, item)).collect()
    }
}

impl MixerSync {
    /// `framerate`: pictures a second, if any are made.
    pub fn new(rule: StartRule, framerate: Option<u32>) -> Self {
        let state = SyncState {
            watermark: MediaTime::ZERO,
            seen_to: NEVER,
            heard_to: NEVER,
            end: None,
            given_up: false,
            live: LiveRule::Off,
            start: None,
            prelude: Prelude::default(),
            videos: Vec::new(),
            video_events: TimeOrdered::default(),
            audio_joins: TimeOrdered::default(),
        };
        Self { state: Mutex::new(state), news: Condvar::new(), heard: Condvar::new(), rule, framerate }
    }

    /// To be obeyed by the picture mixer from `at` on.
    pub fn video_event(&self, at: MediaTime, video_event: VideoEvent) {
        let mut state = lock(&self.state);
        if let VideoEvent::Video(_, pictures, _) = &video_event
            && state.start.is_none()
        {
            state.videos.push(pictures.clone());
        }
        state.video_events.put(at, video_event);
    }

    /// The sound mixer hears this track from `at` on.
    pub fn enters(&self, at: MediaTime, audio_join: AudioJoin) {
        lock(&self.state).audio_joins.put(at, audio_join);
    }

    /// Facts for the start rule; not needed after the start.
    pub fn before_start(&self, note: impl FnOnce(&mut Prelude)) {
        let mut state = lock(&self.state);
        if state.start.is_none() {
            note(&mut state.prelude);
        }
    }

    /// Everything before `to` has been said; wakes a mixer only when it can go on.
    pub fn complete_to(&self, to: MediaTime) {
        let mut state = lock(&self.state);
        state.watermark = state.watermark.max(to);
        if state.watermark > state.seen_to {
            state.seen_to = NEVER;
            self.news.notify_all();
        }
        if state.watermark > state.heard_to {
            state.heard_to = NEVER;
            self.heard.notify_all();
        }
    }

    fn wake_all(&self) {
        self.news.notify_all();
        self.heard.notify_all();
    }

    /// The recording ends here; the first call counts.
    pub fn end_at(&self, end: MediaTime) {
        let mut state = lock(&self.state);
        state.end.get_or_insert(end);
        state.watermark = state.watermark.max(end);
        self.wake_all();
    }

    /// Both mixers leave where they stand.
    pub fn give_up(&self) {
        lock(&self.state).given_up = true;
        self.wake_all();
    }

    /// The start, once it is decided.
    pub fn started(&self) -> Option<MediaTime> {
        lock(&self.state).start
    }

    /// From the next picture on.
    pub fn set_live(&self, live: LiveRule) {
        lock(&self.state).live = live;
    }

    /// What was set last.
    pub fn live(&self) -> LiveRule {
        lock(&self.state).live
    }

    /// How far the recording is known beyond `at`.
    pub fn lag(&self, at: MediaTime) -> u64 {
        lock(&self.state).watermark.ns_since(at)
    }

    /// For both mixers. `None`: it ended before it began.
    pub fn wait_for_start(&self) -> Option<MediaTime> {
        let mut state = lock(&self.state);
        while state.start.is_none() && !state.given_up {
            state = wait(&self.news, state);
        }
        state.start.filter(|_| !state.given_up)
    }

    /// For the compositor's own thread: decides when the recording begins. `None`: it ended before it began.
    pub fn decide_start(&self) -> Option<MediaTime> {
        let start = self.find_start();
        let mut state = lock(&self.state);
        match start {
            Some(start) => {
                state.start = Some(start);
                state.videos = Vec::new();
                state.prelude = Prelude::default();
            }
            None => state.given_up = true,
        }
        self.wake_all();
        start
    }

    fn find_start(&self) -> Option<MediaTime> {
        loop {
            let (known_to, end, candidate, videos) = {
                let state = lock(&self.state);
                if state.given_up {
                    return None;
                }
                let candidate = state.prelude.candidate(self.rule, self.framerate.is_some(), state.watermark);
                (state.watermark, state.end, candidate, state.videos.clone())
            };
            let horizon = candidate.map_or(known_to, |candidate| candidate.picture_before.min(known_to));
            // A picture is only looked for where one could change the answer.
            let decided = matches!(self.rule, StartRule::At(_));
            let first = videos.iter().filter(|_| !decided).filter_map(|pictures| pictures.first_before(horizon)).min();
            if first.is_some() {
                return first;
            }
            if let Some(candidate) = candidate
                && (candidate.picture_before <= known_to || end.is_some())
            {
                // Pictures stand at the output times of the recording, so that each has its own wherever it begins.
                let at = self.framerate.map_or(candidate.at, |framerate| output_time_near(candidate.at, framerate));
                if at <= known_to {
                    return Some(at).filter(|at| end.is_none_or(|end| *at < end));
                }
            }
            if end.is_some() {
                return None;
            }
            let mut state = lock(&self.state);
            while state.watermark <= known_to && state.end.is_none() && !state.given_up {
                state.seen_to = known_to;
                state = wait(&self.news, state);
            }
        }
    }

    /// Waits until the picture at `at` can be made as far as the recording goes: what happens up to `half`, and up to
    /// when that is. It is earlier where the recording ends before.
    pub fn wait_for_video_events(
        &self,
        at: MediaTime,
        half: MediaTime,
    ) -> SyncWait<(Vec<(MediaTime, VideoEvent)>, MediaTime)> {
        let mut state = lock(&self.state);
        loop {
            if state.given_up || state.end.is_some_and(|end| at >= end) {
                return SyncWait::Over;
            }
            // What is said of the end itself and beyond was said by chance.
            let last = state.end.map(|end| end.minus_ns(1));
            if state.watermark > half || last.is_some() {
                let known = last.map_or(half, |last| last.min(half));
                return SyncWait::Known((state.video_events.take_to(known), known));
            }
            state.seen_to = half;
            state = wait(&self.news, state);
        }
    }

    /// Waits until every voice that is heard before `to` has entered; who enters, and the end if it is known.
    pub fn audio_joins(&self, to: MediaTime) -> SyncWait<(Vec<AudioJoin>, Option<MediaTime>)> {
        let mut state = lock(&self.state);
        loop {
            if state.given_up {
                return SyncWait::Over;
            }
            if state.watermark > to || state.end.is_some() {
                let entered = state.audio_joins.take_to(to).into_iter().map(|(_, audio_join)| audio_join).collect();
                return SyncWait::Known((entered, state.end));
            }
            state.heard_to = to;
            state = wait(&self.heard, state);
        }
    }

    /// Those that enter when nothing is mixed any more.
    pub fn rest_of_audio_joins(&self) -> Vec<AudioJoin> {
        let rest = lock(&self.state).audio_joins.take_to(NEVER);
        rest.into_iter().map(|(_, audio_join)| audio_join).collect()
    }
}
