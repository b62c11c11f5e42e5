//! Arrivals → `TimelineEvent`: reorder, assemble, gates, place. Pure: time is an argument, so a dump gives the same stream
//! as the live room did, as fast as it is read.

pub mod event;
pub mod timeline;
mod depacketize;
mod reorder;
mod stats;
mod stream;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use self::event::{PayloadFormat, Publication, RoomEvent, SourceTime};
use self::reorder::{Packet, ReorderCounts};
pub use self::stats::TrackStats;
use self::stream::{StreamOutput, StreamReceiver};
use self::timeline::{LEAST_STEP, Timeline};
use crate::track::{Codec, Frame, MediaTime, TimelineEvent, Track, TrackId, TrackSource};

/// How often `tick` wants to be called.
pub const TICK: Duration = Duration::from_millis(20);

/// A muted or departing track is over when it was quiet this long: the last packets travel beside the news.
const QUIET: Duration = Duration::from_millis(200);
const QUIET_LIMIT: Duration = Duration::from_millis(1500);
/// A track whose frames come more often than this is waited for when it pauses; one that seldom speaks is not.
const REGULAR: u64 = 500_000_000;
/// A track of which nothing came for so long is silent, not late.
const TALKS: Duration = Duration::from_millis(500);
/// Frames may come behind the watermark for so long (a burst after a stall); then they are placed where they arrive.
const BEHIND: Duration = Duration::from_millis(500);
/// Way and assembly of a frame from a track that is not waited for.
const MARGIN: Duration = Duration::from_millis(150);
/// Between requests for a key frame of one stream.
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// A hole that old is not filled any more: the server answers three requests for a packet, 100 ms apart. Not earlier,
/// because after a request for a key frame it retransmits nothing until it has one.
const BEYOND_HOPE: Duration = Duration::from_secs(1);
/// The server begins every subscription with a key frame by itself.
const ASK_FIRST: Duration = Duration::from_millis(300);

#[derive(Clone, Copy, Debug)]
pub struct ReceiveOptions {
    /// How long a hole is waited for, and how long a regular track may be silent before the others go on.
    pub reorder_wait: Duration,
    /// How far a track that keeps coming may be late before the others go on. A file waits longer than a live output.
    pub late: Duration,
    /// Frames are held until every stream has a sender report, at most this long: copies then start aligned.
    pub hold: Duration,
}

pub struct RoomReceiver {
    options: ReceiveOptions,
    timeline: Timeline,
    streams: BTreeMap<u32, StreamReceiver>,
    tracks: BTreeMap<TrackId, TrackState>,
    /// Subscriptions: whether it is a video, and whether it is muted.
    published: BTreeMap<String, (bool, bool)>,
    ids: HashMap<(String, TrackSource), Vec<TrackId>>,
    out: VecDeque<TimelineEvent>,
    keyframes: Vec<u32>,
    complete: Option<MediaTime>,
    held_since: Option<SourceTime>,
    finished: bool,
    trouble: bool,
}

/// A track as far as it is known.
struct TrackState {
    publication: Publication,
    joined: Option<Codec>,
    last: Option<MediaTime>,
    last_arrival: SourceTime,
    /// Arrival of its newest whole frame, placed or not.
    came: SourceTime,
    /// Its frames are placed behind the watermark since then.
    behind_since: Option<SourceTime>,
    /// Typical distance of frames, nanoseconds.
    interval: f64,
    muted_since: Option<SourceTime>,
    left_since: Option<SourceTime>,
    absent: bool,
    stats: TrackStats,
    /// Counts of streams that are over.
    past: ReorderCounts,
}

impl RoomReceiver {
    pub fn new(options: ReceiveOptions) -> Self {
        Self {
            options,
            timeline: Timeline::default(),
            streams: BTreeMap::new(),
            tracks: BTreeMap::new(),
            published: BTreeMap::new(),
            ids: HashMap::new(),
            out: VecDeque::new(),
            keyframes: Vec::new(),
            complete: None,
            held_since: None,
            finished: false,
            trouble: false,
        }
    }

    pub fn take(&mut self) -> Option<TimelineEvent> {
        self.out.pop_front()
    }

    /// Streams that need a key frame now.
    pub fn keyframes_wanted(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.keyframes)
    }

    /// Arrival time of the session's zero.
    pub fn origin(&self) -> Option<SourceTime> {
        self.timeline.origin()
    }

    pub fn is_receiving(&self) -> bool {
        !self.streams.is_empty()
    }

    pub fn streams_of(&self, track: TrackId) -> impl Iterator<Item = u32> + '_ {
        self.streams.iter().filter(move |(_, stream)| stream.track == track).map(|(ssrc, _)| *ssrc)
    }

    pub fn sid_of(&self, track: TrackId) -> Option<&str> {
        self.tracks.get(&track).map(|known| known.publication.sid.as_str())
    }

    /// A publication whose media is over, for the room to know when nothing more comes.
    pub fn has_left(&self, sid: &str) -> bool {
        !self.tracks.values().any(|known| known.publication.sid == sid && known.joined.is_some())
    }

    pub fn on(&mut self, arrival: RoomEvent, at: SourceTime) {
        match arrival {
            RoomEvent::Opened { stream, publication } => self.open(stream, publication, at),
            RoomEvent::Closed { stream } => self.close(stream, at),
            RoomEvent::Packet { stream, seq, rtp, marker, form, payload } => {
                let Some(it) = self.streams.get(&stream) else { return };
                let other_form = it.form != Some(form);
                if !payload.is_empty() {
                    self.begin(at);
                    if other_form {
                        self.change_form(stream, form, at);
                    }
                }
                let Some(it) = self.streams.get_mut(&stream) else { return };
                let packet = Packet {
                    seq,
                    rtp,
                    starts: it.starts(&payload),
                    ends: marker || !form.codec.is_video(),
                    payload,
                    at,
                };
                it.reorder.put(packet);
                self.pump(stream, at);
            }
            RoomEvent::Report { stream, rtp, ntp } => self.timeline.report(stream, rtp, ntp, at),
            RoomEvent::Published { sid, video, muted } => self.publish(sid, video, muted, at),
            RoomEvent::Muted { sid, muted } => {
                if let Some(video) = self.published.get(&sid).map(|(video, _)| *video) {
                    self.publish(sid.clone(), video, muted, at);
                }
                if let Some(known) = self.tracks.values_mut().find(|known| known.publication.sid == sid) {
                    known.publication.muted = muted;
                    known.muted_since = muted.then_some(at);
                }
            }
            RoomEvent::Left { sid } => {
                self.unpublish(&sid, at);
                if let Some(known) = self.tracks.values_mut().find(|known| known.publication.sid == sid) {
                    known.left_since.get_or_insert(at);
                }
            }
            RoomEvent::Refused { sid } => self.unpublish(&sid, at),
            RoomEvent::Interrupted => {
                for stream in self.streams.keys().copied().collect::<Vec<_>>() {
                    self.close(stream, at);
                }
            }
            RoomEvent::Trouble { on } => self.trouble = on,
            RoomEvent::Speakers { identities } => {
                let at = self.now(at);
                self.out.push_back(TimelineEvent::Speakers { at, identities });
            }
            RoomEvent::Layout { name } => {
                let at = self.now(at);
                self.out.push_back(TimelineEvent::Layout { at, name });
            }
        }
    }

    /// What only time brings. At least every [`TICK`].
    pub fn tick(&mut self, at: SourceTime) {
        for stream in self.streams.keys().copied().collect::<Vec<_>>() {
            self.pump(stream, at);
        }
        for id in self.tracks.keys().copied().collect::<Vec<_>>() {
            self.debounce(id, at);
        }
        self.advance(at);
    }

    /// Nothing more will come: what is whole is placed, and everything is complete.
    pub fn finish(&mut self, at: SourceTime) {
        self.finished = true;
        for stream in self.streams.keys().copied().collect::<Vec<_>>() {
            self.close(stream, at);
        }
        if self.timeline.origin().is_some() {
            let last = self.tracks.values().filter_map(|known| known.last).max().unwrap_or_default();
            let at = last.max(self.complete.unwrap_or_default());
            self.out.push_back(TimelineEvent::Watermark { at: MediaTime(at.0 + 1) });
        }
    }

    /// Session time of this moment, never before what was declared complete.
    fn now(&self, at: SourceTime) -> MediaTime {
        self.timeline.session_time(at).max(self.complete.unwrap_or_default())
    }

    /// The session's zero, if this is the first packet: now what was published before has a time.
    fn begin(&mut self, at: SourceTime) {
        if self.timeline.origin().is_some() {
            return;
        }
        self.timeline.begin(at);
        let zero = MediaTime(0);
        let published = self.published.iter();
        self.out.extend(published.map(|(sid, (video, muted))| TimelineEvent::Published {
            sid: sid.clone(),
            video: *video,
            muted: *muted,
            at: zero,
        }));
    }

    fn publish(&mut self, sid: String, video: bool, muted: bool, at: SourceTime) {
        self.published.insert(sid.clone(), (video, muted));
        if self.timeline.origin().is_some() {
            let at = self.now(at);
            self.out.push_back(TimelineEvent::Published { sid, video, muted, at });
        }
    }

    fn unpublish(&mut self, sid: &str, at: SourceTime) {
        if self.published.remove(sid).is_some() && self.timeline.origin().is_some() {
            self.out.push_back(TimelineEvent::Unpublished { sid: sid.to_owned(), at: self.now(at) });
        }
    }

    fn open(&mut self, ssrc: u32, publication: Publication, at: SourceTime) {
        if let Some(stream) = self.streams.get(&ssrc) {
            if self.tracks.get(&stream.track).is_some_and(|known| known.publication.sid == publication.sid) {
                return;
            }
            self.close(ssrc, at);
        }
        let track = self.id_for(&publication, at);
        let muted_since = publication.muted.then_some(at);
        if let Some(known) = self.tracks.get_mut(&track) {
            known.publication = publication;
            known.muted_since = muted_since;
            known.left_since = None;
            known.last_arrival = at;
        }
        self.streams.insert(ssrc, StreamReceiver::new(track, self.options.reorder_wait, at));
    }

    /// The same participant and source is the same track, unless both live at once.
    fn id_for(&mut self, publication: &Publication, at: SourceTime) -> TrackId {
        let next = TrackId(self.tracks.len() as u32 + 1);
        let ids = self.ids.entry((publication.identity.clone(), publication.origin)).or_default();
        let known = &self.tracks;
        let same = ids.iter().find(|id| known.get(id).is_some_and(|it| it.publication.sid == publication.sid));
        let streams = &self.streams;
        let free = || ids.iter().find(|id| !streams.values().any(|stream| stream.track == **id));
        if let Some(id) = same.or_else(free) {
            return *id;
        }
        ids.push(next);
        let known = TrackState {
            publication: publication.clone(),
            joined: None,
            last: None,
            last_arrival: at,
            came: at,
            behind_since: None,
            interval: 0.0,
            muted_since: None,
            left_since: None,
            absent: false,
            stats: TrackStats::default(),
            past: ReorderCounts::default(),
        };
        self.tracks.insert(next, known);
        next
    }

    fn close(&mut self, ssrc: u32, at: SourceTime) {
        let Some(mut stream) = self.streams.remove(&ssrc) else { return };
        let track = stream.track;
        for made in stream.flush() {
            self.made(ssrc, &mut stream, made, at);
        }
        self.release(ssrc, &mut stream, at, true);
        self.timeline.close(ssrc);
        let still_sent = self.streams.values().any(|other| other.track == track);
        let Some(known) = self.tracks.get_mut(&track) else { return };
        let counts = stream.reorder.counts();
        known.past.packets += counts.packets;
        known.past.lost += counts.lost;
        known.past.recovered += counts.recovered;
        known.past.late += counts.late;
        if known.left_since.is_some() {
            self.leave(track);
        } else if !still_sent && !self.finished {
            let muted = known.publication.muted;
            self.absent(track, muted);
        }
    }

    /// The first packet, or another codec in the same stream.
    fn change_form(&mut self, ssrc: u32, form: PayloadFormat, at: SourceTime) {
        let Some(mut stream) = self.streams.remove(&ssrc) else { return };
        for made in stream.flush() {
            self.made(ssrc, &mut stream, made, at);
        }
        self.release(ssrc, &mut stream, at, true);
        stream.form = Some(form);
        stream.needs_key(at);
        if let Some(known) = self.tracks.get(&stream.track) {
            let identity = known.publication.identity.clone();
            self.timeline.open(ssrc, &identity, !form.codec.is_video(), form.clock_rate);
        }
        self.streams.insert(ssrc, stream);
    }

    /// Frames that became whole, in order.
    fn pump(&mut self, ssrc: u32, at: SourceTime) {
        let Some(mut stream) = self.streams.remove(&ssrc) else { return };
        while let Some(made) = stream.next(at) {
            self.made(ssrc, &mut stream, made, at);
        }
        self.release(ssrc, &mut stream, at, false);
        if let Some(known) = self.tracks.get_mut(&stream.track) {
            let age = |since: SourceTime| at.saturating_sub(since);
            let wait = if stream.had_key { ASK_AGAIN } else { ASK_FIRST };
            let asked_long_ago = stream.asked.is_none_or(|asked| age(asked) >= ASK_AGAIN);
            let waited = match stream.reorder.blocked_since() {
                Some(hole) => age(hole) >= BEYOND_HOPE,
                None => stream.key_needed_since.is_some_and(|since| stream.torn || age(since) >= wait),
            };
            if waited && asked_long_ago && !known.publication.muted && stream.sends_video() {
                stream.asked = Some(at);
                known.stats.keyframes_asked += 1;
                self.keyframes.push(ssrc);
            }
        }
        self.streams.insert(ssrc, stream);
    }

    fn made(&mut self, ssrc: u32, stream: &mut StreamReceiver, made: StreamOutput, at: SourceTime) {
        match made {
            StreamOutput::Unit(unit) => {
                if self.timeline.arrive(ssrc, unit.rtp, unit.at) {
                    self.release(ssrc, stream, at, true);
                }
                self.held_since.get_or_insert(at);
                if let Some(known) = self.tracks.get_mut(&stream.track) {
                    known.came = known.came.max(unit.at);
                }
                stream.held.push_back(unit);
            }
            StreamOutput::Lost(packets) => {
                // What was whole before the hole goes first.
                self.release(ssrc, stream, at, true);
                let Some(known) = self.tracks.get(&stream.track) else { return };
                if let (Some(_), Some(last)) = (known.joined, known.last) {
                    self.out.push_back(TimelineEvent::Lost { track: stream.track, at: MediaTime(last.0 + 1), packets });
                }
            }
            StreamOutput::Undecodable => {
                if let Some(known) = self.tracks.get_mut(&stream.track) {
                    known.stats.undecodable += 1;
                }
            }
        }
    }

    /// Holds are over: place what waits.
    fn release(&mut self, ssrc: u32, stream: &mut StreamReceiver, at: SourceTime, force: bool) {
        if stream.held.is_empty() {
            return;
        }
        let open = self.timeline.is_open(ssrc, if force { Duration::MAX } else { at });
        let held = self.held_since.is_some_and(|since| at.saturating_sub(since) < self.options.hold);
        let waits_for_reports = held
            && !force
            && (!self.timeline.has_report(ssrc)
                || !self.streams.iter().all(|(other, it)| !it.had_key || self.timeline.has_report(*other)));
        if !open || waits_for_reports {
            return;
        }
        while let Some(unit) = stream.held.pop_front() {
            let Some(form) = stream.form else { continue };
            let Some(known) = self.tracks.get_mut(&stream.track) else { continue };
            let placed = self.timeline.place(ssrc, unit.rtp, at);
            // A new stream of the same track (reconnect) goes on after the old one.
            let place = known.last.map_or(placed, |last| placed.max(MediaTime(last.0 + LEAST_STEP.as_nanos() as u64)));
            if known.joined != Some(form.codec) {
                if known.joined.is_some() {
                    self.out.push_back(TimelineEvent::Left { track: stream.track, at: place });
                }
                known.joined = Some(form.codec);
                let publication = &known.publication;
                let track = Track {
                    id: stream.track,
                    sid: publication.sid.clone(),
                    identity: publication.identity.clone(),
                    agent: publication.agent,
                    origin: publication.origin,
                    codec: form.codec,
                    clock_rate: form.clock_rate,
                    channels: form.channels,
                    published_size: publication.size,
                };
                self.out.push_back(TimelineEvent::Joined { track, at: place });
            }
            if let Some(last) = known.last {
                let step = (place.0 - last.0) as f64;
                known.interval =
                    if known.interval == 0.0 { step } else { known.interval + (step - known.interval) * 0.1 };
            }
            known.last = Some(place);
            known.last_arrival = unit.at;
            if self.complete.is_none_or(|complete| place >= complete) {
                known.behind_since = None;
            } else if unit.at.saturating_sub(*known.behind_since.get_or_insert(unit.at)) >= BEHIND {
                known.behind_since = None;
                self.timeline.catch_up(ssrc);
            }
            known.absent = false;
            known.stats.frames += 1;
            known.stats.bytes += unit.data.len() as u64;
            self.out.push_back(TimelineEvent::Frame(Frame {
                track: stream.track,
                at: place,
                key: unit.key,
                size: unit.size,
                data: unit.data,
            }));
        }
    }

    /// Mutes and departures that became true.
    fn debounce(&mut self, id: TrackId, at: SourceTime) {
        let Some(known) = self.tracks.get(&id) else { return };
        let over = |since: SourceTime| {
            at.saturating_sub(known.last_arrival.max(since)) >= QUIET || at.saturating_sub(since) >= QUIET_LIMIT
        };
        if known.left_since.is_some_and(over) {
            for ssrc in self.streams_of(id).collect::<Vec<_>>() {
                self.close(ssrc, at);
            }
            self.leave(id);
        } else if !known.absent && (known.muted_since.is_some_and(over) || self.is_cut_off(known, at)) {
            let muted = known.publication.muted;
            self.absent(id, muted);
        }
    }

    /// While our own connection is in trouble, a regular track that is silent is not there.
    fn is_cut_off(&self, known: &TrackState, at: SourceTime) -> bool {
        self.trouble
            && (known.interval as u64) < REGULAR
            && at.saturating_sub(known.last_arrival) >= self.options.reorder_wait
    }

    /// When a track that just stopped is over: one frame after its last, but nothing complete is touched.
    fn end_of(&self, known: &TrackState) -> Option<MediaTime> {
        let last = known.last?;
        let complete = self.complete.unwrap_or_default();
        let end = last.0 + (known.interval as u64).clamp(LEAST_STEP.as_nanos() as u64, REGULAR);
        Some(complete.max(MediaTime(end)))
    }

    fn absent(&mut self, id: TrackId, muted: bool) {
        let Some(known) = self.tracks.get(&id) else { return };
        let end = self.end_of(known);
        for stream in self.streams.values_mut().filter(|stream| stream.track == id) {
            stream.needs_key_after_pause();
        }
        let Some(known) = self.tracks.get_mut(&id) else { return };
        let (false, Some(_), Some(at)) = (known.absent, known.joined, end) else { return };
        known.absent = true;
        known.last = Some(at);
        self.out.push_back(TimelineEvent::Muted { track: id, at, muted });
    }

    fn leave(&mut self, id: TrackId) {
        let Some(known) = self.tracks.get(&id) else { return };
        let end = self.end_of(known);
        let Some(known) = self.tracks.get_mut(&id) else { return };
        if let (Some(_), Some(at)) = (known.joined.take(), end) {
            known.absent = true;
            known.last = Some(at);
            self.out.push_back(TimelineEvent::Left { track: id, at });
        }
    }

    /// How far every track is said.
    fn advance(&mut self, at: SourceTime) {
        if self.timeline.origin().is_none() {
            return;
        }
        let session = |since: SourceTime| self.timeline.session_time(since);
        let (silent, late) =
            (session(at.saturating_sub(self.options.reorder_wait)), session(at.saturating_sub(self.options.late)));
        let mut complete = session(at.saturating_sub(MARGIN));
        for stream in self.streams.values() {
            let Some(known) = self.tracks.get(&stream.track) else { continue };
            if let Some(unit) = stream.held.front() {
                // Not placed yet, and its place is not far before its arrival.
                complete = complete.min(session(unit.at.saturating_sub(MARGIN)));
            }
            let waited_for = known.joined.is_some() && !known.absent && (known.interval as u64) < REGULAR;
            if waited_for && let Some(last) = known.last {
                let talks = at.saturating_sub(known.came) < TALKS;
                complete = complete.min(last.max(if talks { late.min(silent) } else { silent }));
            }
        }
        if self.complete.is_none_or(|before| complete > before) {
            self.complete = Some(complete);
            self.out.push_back(TimelineEvent::Watermark { at: complete });
        }
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod standstill_tests;
