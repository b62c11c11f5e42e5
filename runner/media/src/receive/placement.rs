//! Whole frames → their place on the timeline, and the watermark. Holds what is known of each track.
//!
//! In: the streams' frames and losses, with arrival times. Out: [`TimelineEvent`]s in `out`, key frame requests in
//! `keyframes`. Pure; the streams themselves belong to the `TrackReceiver`, which passes one at a time.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::event::{PayloadFormat, Publication, SourceTime};
use super::reorder::ReorderCounts;
use super::stats::TrackStats;
use super::stream::{StreamOutput, StreamReceiver};
use super::timeline::{LEAST_STEP_NS, Timeline};
use crate::track::{Codec, Frame, TimelineEvent, Track, TrackId};
use crate::units::{MediaTime, Ssrc};

/// A muted or departing track is over when it was quiet this long: the last packets travel beside the news.
const QUIET: Duration = Duration::from_millis(200);
const QUIET_LIMIT: Duration = Duration::from_millis(1500);
/// A track whose frames come more often than this is waited for when it pauses; one that seldom speaks is not.
const REGULAR: u64 = 500_000_000;
/// A track of which nothing came for so long is silent, not late.
const TALKS: Duration = Duration::from_millis(500);
/// Frames may come behind the watermark for so long (a burst after a stall); then they are placed where they arrive.
const BEHIND: Duration = Duration::from_millis(500);
/// How much faster than time a watermark goes that stood still: what is made of it should not seem to lag.
const CATCH_UP: u32 = 6;
/// Way and assembly of a frame from a track that is not waited for.
const MARGIN: Duration = Duration::from_millis(150);
/// A hole that old is not filled any more: the server answers three requests for a packet, 100 ms apart. Not earlier,
/// because after a request for a key frame it retransmits nothing until it has one.
pub(super) const BEYOND_HOPE: Duration = Duration::from_secs(1);
/// A key frame is asked for when none has come for so long …
const ASK_LATER: Duration = Duration::from_millis(500);
/// … and at the beginning; the server begins every subscription with a key frame by itself.
const ASK_FIRST: Duration = Duration::from_millis(300);
/// RFC 7587, 7: Opus is always offered as stereo.
const OPUS_CHANNELS: u8 = 2;

/// How long is waited.
#[derive(Clone, Copy, Debug)]
pub struct ReceiveOptions {
    /// How long a hole is waited for, and how long a regular track may be silent before the others go on.
    pub reorder_wait: Duration,
    /// How far a track that keeps coming may be late before the others go on. A file waits longer than a live output.
    pub late: Duration,
}

/// What has become true of a track that sends nothing.
pub(super) enum Absence {
    /// Its publication is gone.
    Left,
    /// Muted, or cut off by trouble of our own connection.
    Silent { muted: bool },
}

/// Every track's place in time, and what the recording is told of it.
pub(super) struct TrackPlacement {
    pub(super) options: ReceiveOptions,
    pub(super) timeline: Timeline,
    pub(super) tracks: BTreeMap<TrackId, TrackState>,
    /// The watermark so far, and when it was last looked at.
    complete: Option<MediaTime>,
    advanced: SourceTime,
    /// The watermark stands still.
    is_held: bool,
    /// It stood still, and is behind what could be complete.
    is_behind: bool,
    pub(super) finished: bool,
    /// Our own connection does not work.
    pub(super) trouble: bool,
    pub(super) out: VecDeque<TimelineEvent>,
    /// For the user.
    pub(super) notes: Vec<String>,
    /// Streams to ask a key frame of.
    pub(super) keyframes: Vec<Ssrc>,
}

/// A track as far as it is known.
pub(super) struct TrackState {
    pub(super) publication: Publication,
    pub(super) joined: Option<Codec>,
    last: Option<MediaTime>,
    pub(super) last_arrival: SourceTime,
    /// Arrival of its newest whole frame, placed or not.
    came: SourceTime,
    /// Its frames are placed behind the watermark since then.
    behind_since: Option<SourceTime>,
    /// Typical distance of frames, nanoseconds.
    interval: f64,
    pub(super) muted_since: Option<SourceTime>,
    pub(super) left_since: Option<SourceTime>,
    absent: bool,
    told_too_large: bool,
    /// The most that a frame was shown earlier than decoded.
    reorder_ns: u64,
    /// The server was asked to send nothing of it. Until the first frame after it was asked for it again.
    paused: bool,
    /// It is asked for again.
    waking: bool,
    pub(super) stats: TrackStats,
    /// Counts of streams that are over.
    pub(super) past: ReorderCounts,
}

impl TrackState {
    fn track(&self, id: TrackId, codec: Codec, channels: u8) -> Track {
        let Publication { sid, identity, agent, side, origin, .. } = self.publication.clone();
        Track { id, sid, identity, agent, side, origin, codec, channels }
    }
}

impl TrackPlacement {
    pub(super) fn new(options: ReceiveOptions) -> Self {
        Self {
            options,
            timeline: Timeline::default(),
            tracks: BTreeMap::new(),
            complete: None,
            advanced: SourceTime::ZERO,
            is_held: false,
            is_behind: false,
            finished: false,
            trouble: false,
            out: VecDeque::new(),
            notes: Vec::new(),
            keyframes: Vec::new(),
        }
    }

    /// Media time of this moment, never before what was declared complete.
    pub(super) fn now(&self, at: SourceTime) -> MediaTime {
        self.timeline.recording_time(at).max(self.complete.unwrap_or_default())
    }

    /// Media time zero, if this is the first packet: now what was published before has a time.
    pub(super) fn begin(&mut self, at: SourceTime, published: &BTreeMap<String, (bool, bool)>) {
        if self.timeline.origin().is_some() {
            return;
        }
        self.timeline.begin(at);
        self.out.extend(published.iter().map(|(sid, (video, muted))| TimelineEvent::Published {
            sid: sid.clone(),
            video: *video,
            muted: *muted,
            at: MediaTime::ZERO,
        }));
    }

    pub(super) fn of_sid(&mut self, sid: &str) -> Option<&mut TrackState> {
        self.tracks.values_mut().find(|known| known.publication.sid == sid)
    }

    pub(super) fn add(&mut self, id: TrackId, publication: Publication, at: SourceTime) {
        let known = TrackState {
            publication,
            joined: None,
            last: None,
            last_arrival: at,
            came: at,
            behind_since: None,
            interval: 0.0,
            muted_since: None,
            left_since: None,
            absent: false,
            told_too_large: false,
            reorder_ns: 0,
            paused: false,
            waking: false,
            stats: TrackStats::default(),
            past: ReorderCounts::default(),
        };
        self.tracks.insert(id, known);
    }

    /// The first packet, or another codec in the same stream.
    pub(super) fn change_format(
        &mut self,
        ssrc: Ssrc,
        stream: &mut StreamReceiver,
        format: PayloadFormat,
        at: SourceTime,
    ) {
        self.flush(ssrc, stream, at);
        stream.change_form(format, at);
        if let Some(known) = self.tracks.get(&stream.track) {
            let identity = known.publication.identity.clone();
            self.timeline.open(ssrc, &identity, !format.codec.is_video(), format.clock_rate);
        }
    }

    /// The stream is over: what is whole is placed, its counts go to the track.
    pub(super) fn close(&mut self, ssrc: Ssrc, stream: &mut StreamReceiver, at: SourceTime) {
        self.flush(ssrc, stream, at);
        self.timeline.close(ssrc);
        if let Some(known) = self.tracks.get_mut(&stream.track) {
            known.past = known.past + stream.reorder.counts();
        }
    }

    fn flush(&mut self, ssrc: Ssrc, stream: &mut StreamReceiver, at: SourceTime) {
        for made in stream.flush() {
            self.made(ssrc, stream, made, at);
        }
        self.release(ssrc, stream, at, true);
    }

    /// Frames that became whole, in order; asks for a key frame where one is needed.
    pub(super) fn pump(&mut self, ssrc: Ssrc, stream: &mut StreamReceiver, at: SourceTime) {
        while let Some(made) = stream.next(at) {
            self.made(ssrc, stream, made, at);
        }
        self.release(ssrc, stream, at, false);
        let Some(known) = self.tracks.get_mut(&stream.track) else { return };
        let age = |since: SourceTime| at.saturating_sub(since);
        let wait = if stream.had_key { ASK_LATER } else { ASK_FIRST };
        let waited = match stream.reorder.blocked_since() {
            Some(hole) => age(hole) >= BEYOND_HOPE,
            None => stream.key_needed_since.is_some_and(|since| stream.torn || age(since) >= wait),
        };
        // What the server sends nothing of, it has no key frame of either.
        let is_sent = !known.publication.muted && (!known.paused || known.waking);
        if waited && !stream.too_large && stream.key_requests.is_due(at) && is_sent && stream.sends_video() {
            stream.key_requests.ask(at);
            known.stats.keyframes_asked += 1;
            self.keyframes.push(ssrc);
        }
    }

    fn made(&mut self, ssrc: Ssrc, stream: &mut StreamReceiver, made: StreamOutput, at: SourceTime) {
        match made {
            StreamOutput::Unit(unit) => {
                if self.timeline.arrive(ssrc, unit.rtp, unit.at) {
                    self.release(ssrc, stream, at, true);
                }
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
                    self.out.push_back(TimelineEvent::Lost { track: stream.track, at: last.plus_ns(1), packets });
                }
            }
            StreamOutput::TooLarge((width, height)) => {
                let Some(known) = self.tracks.get_mut(&stream.track) else { return };
                known.stats.undecodable += 1;
                if !std::mem::replace(&mut known.told_too_large, true) {
                    let identity = &known.publication.identity;
                    self.notes.push(format!("the video of {identity} is not recorded: {width}×{height} is too large"));
                }
            }
            StreamOutput::Undecodable => {
                if let Some(known) = self.tracks.get_mut(&stream.track) {
                    known.stats.undecodable += 1;
                }
            }
        }
    }

    /// Places what waits, unless the timeline still gathers evidence.
    fn release(&mut self, ssrc: Ssrc, stream: &mut StreamReceiver, at: SourceTime, force: bool) {
        if stream.held.is_empty() {
            return;
        }
        if !self.timeline.is_open(ssrc, if force { Duration::MAX } else { at }) {
            return;
        }
        while let Some(unit) = stream.held.pop_front() {
            let Some(form) = stream.form else { continue };
            let Some(known) = self.tracks.get_mut(&stream.track) else { continue };
            let placed = self.timeline.place(ssrc, unit.rtp, at);
            // A new stream of the same track (reconnect) goes on after the old one.
            let place = known.last.map_or(placed, |last| placed.max(last.plus_ns(LEAST_STEP_NS)));
            let offset_ns = match self.timeline.offset_ns(ssrc) {
                0 => 0,
                offset_ns => offset_ns - place.ns_since(placed) as i64,
            };
            known.reorder_ns = known.reorder_ns.max(offset_ns.unsigned_abs());
            if known.joined != Some(form.codec) {
                if known.joined.is_some() {
                    self.out.push_back(TimelineEvent::Left { track: stream.track, at: place });
                }
                known.joined = Some(form.codec);
                let track = known.track(stream.track, form.codec, form.channels);
                self.out.push_back(TimelineEvent::Joined { track, at: place });
            }
            if let Some(last) = known.last.filter(|_| !known.paused) {
                let step = place.ns_since(last) as f64;
                known.interval =
                    if known.interval == 0.0 { step } else { known.interval + (step - known.interval) * 0.1 };
            }
            known.last = Some(place);
            known.last_arrival = unit.at;
            known.paused &= !std::mem::take(&mut known.waking);
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
                offset_ns,
                key: unit.key,
                size: unit.size,
                data: unit.data,
            }));
        }
    }

    /// Debounced mutes and departures, and silence of our own connection: what is true of the track by now.
    pub(super) fn absence(&self, id: TrackId, at: SourceTime) -> Option<Absence> {
        let known = self.tracks.get(&id)?;
        let over = |since: SourceTime| {
            at.saturating_sub(known.last_arrival.max(since)) >= QUIET || at.saturating_sub(since) >= QUIET_LIMIT
        };
        if known.left_since.is_some_and(over) {
            return Some(Absence::Left);
        }
        let silent = !known.absent && (known.muted_since.is_some_and(over) || self.is_cut_off(known, at));
        silent.then_some(Absence::Silent { muted: known.publication.muted })
    }

    /// While our own connection is in trouble, a regular track that is silent is not there.
    fn is_cut_off(&self, known: &TrackState, at: SourceTime) -> bool {
        self.trouble
            && !known.paused
            && (known.interval as u64) < REGULAR
            && at.saturating_sub(known.last_arrival) >= self.options.reorder_wait
    }

    /// When a track that just stopped is over: one frame after its last, but nothing complete is touched.
    fn end_of(&self, known: &TrackState) -> Option<MediaTime> {
        let last = known.last?;
        let complete = self.complete.unwrap_or_default();
        let end = last.plus_ns((known.interval as u64).clamp(LEAST_STEP_NS, REGULAR));
        Some(complete.max(end))
    }

    /// A sound that is muted and of which nothing has come yet. Browsers, phones and bots send stereo Opus, as it is offered
    /// to them; what comes in another codec joins once more.
    pub(super) fn join_muted(&mut self, id: TrackId) {
        let at = self.complete.unwrap_or_default();
        let Some(known) = self.tracks.get_mut(&id) else { return };
        known.joined = Some(Codec::Opus);
        known.absent = true;
        let track = known.track(id, Codec::Opus, OPUS_CHANNELS);
        self.out.push_back(TimelineEvent::Joined { track, at });
        self.out.push_back(TimelineEvent::Muted { track: id, at, muted: true });
    }

    /// Whether the server is asked for its frames: what is not asked for is not waited for.
    pub(super) fn ask_for(&mut self, id: TrackId, wanted: bool) {
        if let Some(known) = self.tracks.get_mut(&id) {
            known.paused |= !wanted;
            known.waking = wanted && known.paused;
        }
    }

    pub(super) fn absent(&mut self, id: TrackId, muted: bool) {
        let Some(known) = self.tracks.get(&id) else { return };
        let end = self.end_of(known);
        let Some(known) = self.tracks.get_mut(&id) else { return };
        let (false, Some(_), Some(at)) = (known.absent, known.joined, end) else { return };
        known.absent = true;
        known.last = Some(at);
        self.out.push_back(TimelineEvent::Muted { track: id, at, muted });
    }

    pub(super) fn leave(&mut self, id: TrackId) {
        let Some(known) = self.tracks.get(&id) else { return };
        let end = self.end_of(known);
        let Some(known) = self.tracks.get_mut(&id) else { return };
        if let (Some(_), Some(at)) = (known.joined.take(), end) {
            known.absent = true;
            known.last = Some(at);
            self.out.push_back(TimelineEvent::Left { track: id, at });
        }
    }

    /// Everything is complete: nothing more comes.
    pub(super) fn complete_all(&mut self) {
        if self.timeline.origin().is_some() {
            let last = self.tracks.values().filter_map(|known| known.last).max().unwrap_or_default();
            let at = last.max(self.complete.unwrap_or_default());
            self.out.push_back(TimelineEvent::Watermark { at: at.plus_ns(1) });
        }
    }

    /// The watermark stands still, or goes on.
    pub(super) fn hold(&mut self, on: bool) {
        self.is_behind |= self.is_held && !on;
        self.is_held = on;
    }

    /// Moves the watermark to where every track is known.
    pub(super) fn advance(&mut self, streams: &BTreeMap<Ssrc, StreamReceiver>, at: SourceTime) {
        if self.timeline.origin().is_none() {
            return;
        }
        let passed = at.saturating_sub(std::mem::replace(&mut self.advanced, at));
        if self.is_held {
            return;
        }
        let session = |since: SourceTime| self.timeline.recording_time(since);
        let (silent, late) =
            (session(at.saturating_sub(self.options.reorder_wait)), session(at.saturating_sub(self.options.late)));
        let mut complete = session(at.saturating_sub(MARGIN));
        for stream in streams.values() {
            let Some(known) = self.tracks.get(&stream.track) else { continue };
            if let Some(unit) = stream.first_unplaced() {
                // Not placed yet, and its place is not far before its arrival.
                complete = complete.min(session(unit.awaited_since.saturating_sub(MARGIN)));
            }
            let is_here = known.joined.is_some() && !known.absent && !known.paused;
            let waited_for = is_here && (known.interval as u64) < REGULAR;
            if waited_for && let Some(last) = known.last {
                let talks = at.saturating_sub(known.came) < TALKS;
                // What is decoded later may be shown earlier.
                let last = last.minus_ns(known.reorder_ns);
                complete = complete.min(last.max(if talks { late.min(silent) } else { silent }));
            }
        }
        if let Some(before) = self.complete.filter(|_| self.is_behind) {
            let step = before.plus_ns((passed * CATCH_UP).as_nanos() as u64);
            self.is_behind = complete > step;
            complete = complete.min(step);
        }
        if self.complete.is_none_or(|before| complete > before) {
            self.complete = Some(complete);
            self.out.push_back(TimelineEvent::Watermark { at: complete });
        }
    }
}
