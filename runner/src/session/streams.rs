//! The streams of one egress: those of the request, and those that UpdateStream adds and removes. Events of the media
//! process and updates come in; commands for the media process and facts for the EgressInfo go out. Pure.
//!
//! A stream that is removed counts as ended at once, also while the media process still sends what it has of it. The
//! output ends with its last live stream: as that one's failure, or without one when it was removed.

use std::time::{Duration, Instant};

use spillway_bus::{LiveStream, LiveStreams};
use spillway_ipc::{MediaCommand, StreamStart, StreamState};
use spillway_plan::hidden_stream_url;
use spillway_protocol::ledger::Fact;
use spillway_protocol::{Code, RpcError, Secret};

use super::stream_url::StreamUrl;

/// Within this time a repeated removal is the same call: its caller has lost the answer.
const REPEAT_WINDOW: Duration = Duration::from_secs(30);
/// Streams that are alive at once. Each may hold 8 MB.
const MAX_LIVE: usize = 32;
/// Streams of an egress from its beginning to its end; EgressInfo has no room for more.
const MAX_STREAMS: u32 = 1000;

/// What follows an event or an update.
#[derive(Clone, Debug, Default)]
pub struct StreamEffects {
    /// For the media process.
    pub commands: Vec<MediaCommand>,
    /// For the EgressInfo.
    pub facts: Vec<Fact>,
    /// No stream is alive any more.
    pub over: Option<StreamsOver>,
    /// There was no stream alive in this output of the plan, and now there is.
    pub reopened: Option<u32>,
}

/// The end of the stream output, until a stream is added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamsOver {
    /// Place in the plan's outputs.
    pub output: u32,
    /// Why the last live stream ended; `None`: it was removed.
    pub failure: Option<(Code, String)>,
}

/// All streams of one egress.
#[derive(Debug)]
pub struct SessionStreams {
    /// Place in the plan's outputs; `None`: this egress has no streams.
    output: Option<u32>,
    /// By their ids.
    entries: Vec<StreamEntry>,
    /// Behind every stream that there was, also of a task before this one.
    next_id: u32,
    /// The media process knows them.
    is_begun: bool,
    /// Streams end with the recording: what fails now has not failed.
    is_ending: bool,
}

#[derive(Debug)]
struct StreamEntry {
    id: u32,
    url: StreamUrl,
    state: EntryState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EntryState {
    Live,
    Removed { at: Instant },
    Over,
}

impl StreamEntry {
    fn is_live(&self) -> bool {
        self.state == EntryState::Live
    }

    /// It goes to this URL, in either form.
    fn has(&self, url: &Secret) -> bool {
        self.url.url == *url || self.url.target == *url
    }

    fn was_removed_just_now(&self, now: Instant) -> bool {
        matches!(self.state, EntryState::Removed { at } if now.saturating_duration_since(at) < REPEAT_WINDOW)
    }
}

impl SessionStreams {
    /// `output`: place of the stream output in the plan; `None` where there is none. `urls`: of the request, in its order.
    pub fn new(output: Option<u32>, urls: Vec<StreamUrl>) -> Self {
        let next_id = u32::try_from(urls.len()).unwrap_or(u32::MAX);
        Self::of(output, (0..).zip(urls).collect(), next_id)
    }

    /// Those that are alive, with their ids, of a recording that may have had others before.
    pub fn of(output: Option<u32>, live: Vec<(u32, StreamUrl)>, next_id: u32) -> Self {
        let entries = live.into_iter().map(|(id, url)| StreamEntry { id, url, state: EntryState::Live }).collect();
        Self { output, entries, next_id, is_begun: false, is_ending: false }
    }

    /// The streams that a task in the place of this one would publish. `None`: they end with the recording.
    pub fn left(&self) -> Option<LiveStreams> {
        let stream = |entry: &StreamEntry| LiveStream { id: entry.id, url: entry.url.url.clone() };
        let left = LiveStreams { next_id: self.next_id, live: self.live().map(stream).collect() };
        (!self.is_ending).then_some(left)
    }

    /// The media process begins: its streams, and in which form EgressInfo shows those that were given as a shorthand.
    /// From now on changes are told by commands.
    pub fn begin(&mut self) -> (Vec<StreamStart>, Vec<Fact>) {
        self.is_begun = true;
        let output = self.output.unwrap_or_default();
        let shown = self.live().filter(|entry| entry.url.url != entry.url.target);
        (self.live().map(|entry| entry.start(output)).collect(), shown.map(StreamEntry::added).collect())
    }

    /// The media process is gone with its connections at `at` (Unix nanoseconds), for the reason `why`: the next one
    /// [begins](Self::begin) with the streams that are alive. Facts for the EgressInfo.
    pub fn interrupted(&mut self, at: i64, why: &str) -> Vec<Fact> {
        let was_begun = std::mem::take(&mut self.is_begun);
        self.is_ending = false;
        if was_begun { self.retried(at, why) } else { vec![] }
    }

    /// All connections were lost at `at` (Unix nanoseconds), for the reason `why`.
    pub fn retried(&self, at: i64, why: &str) -> Vec<Fact> {
        let retried = |entry: &StreamEntry| Fact::StreamRetried { id: entry.id, at, message: why.to_owned() };
        self.live().map(retried).collect()
    }

    /// The recording ends: streams end with it, and a server that closes its connection first is no failure.
    pub fn ending(&mut self) {
        self.is_ending = true;
    }

    /// The media process said this of stream `id`.
    pub fn on_event(&mut self, id: u32, state: &StreamState, message: &str) -> StreamEffects {
        let mut effects = StreamEffects::default();
        let Some(entry) = self.entries.iter_mut().find(|entry| entry.id == id && entry.is_live()) else {
            return effects;
        };
        match state {
            StreamState::Connecting => {}
            StreamState::Active { at } => effects.facts.push(Fact::StreamConnected { id, at: *at }),
            StreamState::Retrying { at } => {
                effects.facts.push(Fact::StreamRetried { id, at: *at, message: message.to_owned() });
            }
            StreamState::Finished { at } => {
                entry.state = EntryState::Over;
                // It was not removed: the media process ends its streams, and says why in its last event.
                self.is_ending = true;
                effects.facts.push(Fact::StreamEnded { id, at: *at, failure: None });
            }
            StreamState::Failed { at, code } => {
                entry.state = EntryState::Over;
                let failure = (!self.is_ending).then(|| message.to_owned());
                effects.over = failure.clone().and_then(|message| self.over(Some((Code::parse(code), message))));
                effects.facts.push(Fact::StreamEnded { id, at: *at, failure });
            }
        }
        effects
    }

    /// An UpdateStream call at `now`, `at` in Unix nanoseconds. `add`: checked and resolved, or why that failed. First all
    /// are added, then all removed; what can be done is done. A call that was answered before changes nothing and is
    /// answered well.
    ///
    /// # Errors
    /// The messages of all parts that failed, a line each, with the code of the first; the rest of the effects counts.
    pub fn update(
        &mut self,
        add: Vec<Result<StreamUrl, RpcError>>,
        remove: &[Secret],
        (now, at): (Instant, i64),
    ) -> (StreamEffects, Result<(), RpcError>) {
        let mut effects = StreamEffects::default();
        let Some(output) = self.output else {
            return (effects, Err(RpcError::new(Code::InvalidArgument, "UpdateStream called on non-streaming egress")));
        };
        let was_over = self.over(None).is_some();
        let mut errors = Vec::new();
        for url in add {
            errors.extend(url.and_then(|url| self.add(url, output, &mut effects)).err());
        }
        let mut was_one_removed = false;
        for url in remove {
            match self.remove(url, (now, at), &mut effects) {
                Ok(removed) => was_one_removed |= removed,
                Err(error) => errors.push(error),
            }
        }
        if was_one_removed {
            effects.over = self.over(None);
        }
        effects.reopened = (was_over && self.over(None).is_none()).then_some(output);
        (effects, joined(&errors))
    }

    fn add(&mut self, url: StreamUrl, output: u32, effects: &mut StreamEffects) -> Result<(), RpcError> {
        if self.live().any(|entry| entry.has(&url.url) || entry.has(&url.target)) {
            return Ok(());
        }
        if self.live().count() >= MAX_LIVE || self.next_id >= MAX_STREAMS {
            return Err(RpcError::new(Code::ResourceExhausted, "this egress can take no further stream"));
        }
        let entry = StreamEntry { id: self.next_id, url, state: EntryState::Live };
        self.next_id += 1;
        effects.facts.push(entry.added());
        if self.is_begun {
            effects.commands.push(MediaCommand::AddStream(entry.start(output)));
        }
        self.entries.push(entry);
        Ok(())
    }

    /// Whether a live stream was removed.
    fn remove(
        &mut self,
        url: &Secret,
        (now, at): (Instant, i64),
        effects: &mut StreamEffects,
    ) -> Result<bool, RpcError> {
        let Some(entry) = self.entries.iter_mut().find(|entry| entry.is_live() && entry.has(url)) else {
            if self.entries.iter().any(|entry| entry.has(url) && entry.was_removed_just_now(now)) {
                return Ok(false);
            }
            return Err(RpcError::new(Code::NotFound, format!("stream {} not found", hidden_stream_url(url.reveal()))));
        };
        entry.state = EntryState::Removed { at: now };
        effects.facts.push(Fact::StreamEnded { id: entry.id, at, failure: None });
        if self.is_begun {
            effects.commands.push(MediaCommand::RemoveStream { id: entry.id });
        }
        Ok(true)
    }

    fn live(&self) -> impl Iterator<Item = &StreamEntry> {
        self.entries.iter().filter(|entry| entry.is_live())
    }

    fn over(&self, failure: Option<(Code, String)>) -> Option<StreamsOver> {
        let output = self.output?;
        self.live().next().is_none().then_some(StreamsOver { output, failure })
    }
}

impl StreamEntry {
    fn start(&self, output: u32) -> StreamStart {
        StreamStart { id: self.id, output, url: self.url.target.clone() }
    }

    /// It is shown in the form that is connected to.
    fn added(&self) -> Fact {
        Fact::stream_added(self.id, self.url.target.reveal())
    }
}

fn joined(errors: &[RpcError]) -> Result<(), RpcError> {
    let Some(first) = errors.first() else { return Ok(()) };
    let messages: Vec<&str> = errors.iter().map(|error| error.message.as_str()).collect();
    Err(RpcError::new(first.code, messages.join("\n")))
}

#[cfg(test)]
#[path = "streams_tests.rs"]
mod tests;
