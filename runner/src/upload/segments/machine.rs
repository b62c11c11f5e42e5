//! One HLS output: what its segments have become, what its playlists say and when they are uploaded. Segments that are opened
//! and closed in the spool come in, and answers of the store; names of files to send and texts of playlists go out. Pure but
//! for the machine's time zone, which names with a time need: `task` carries out what is answered here. `playlists` is when
//! playlists and the init segment are sent, `state` what a salvage goes on from.

mod playlists;
mod state;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use spillway_plan::segment_name::SegmentNames;

use super::saved::SegmentRuns;
use super::schedule::{PlaylistSchedule, UploadRule};
use super::sequencer::{ListedSegment, SegmentOutcome, SegmentSequencer, SegmentTotals, StoredSegment};
use crate::clock;
use crate::results::playlist::{Playlist, unix_ms};

/// What one HLS output is.
#[derive(Clone)]
pub struct SegmentsPlan {
    /// Number of the output.
    pub output: u32,
    /// Of everything it stores.
    pub names: SegmentNames,
    /// Length that was asked for, nanoseconds.
    pub segment_ns: u64,
    /// Of the spool; empty: there is none on this machine.
    pub folder: PathBuf,
    /// Unix nanoseconds at media time zero.
    pub started_at: i64,
    /// URL of a name in the primary store, for a playlist in the backup.
    pub locate: Arc<dyn Fn(&str) -> String + Send + Sync>,
}

/// A segment whose file in the spool is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpooledSegment {
    /// Its number.
    pub n: u32,
    /// Where it begins, nanoseconds of media.
    pub at_ns: u64,
    /// Nanoseconds.
    pub length_ns: u64,
    /// Its size.
    pub bytes: u64,
}

/// What is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SegmentsAction {
    /// The init segment becomes this object.
    PutInit(String),
    /// The file of segment `n` becomes this object.
    Put(u32, String),
    /// A playlist of this name gets this text.
    PutPlaylist(String, String),
}

/// State of one HLS output.
pub struct SegmentsMachine {
    plan: SegmentsPlan,
    sequencer: SegmentSequencer,
    runs: SegmentRuns,
    playlist: Playlist,
    /// Of the init segment, which never changes but goes to the backup as well.
    init: Option<PlaylistSchedule>,
    event: PlaylistSchedule,
    live: Option<PlaylistSchedule>,
    /// Where the newest playlists are.
    event_location: Option<String>,
    live_location: Option<String>,
    /// Number and begin of the segment that is being written, and its bytes.
    open: Option<(u32, u64)>,
    open_bytes: u64,
    /// Whole and not stored.
    pending: BTreeMap<u32, SpooledSegment>,
    /// Behind every segment of which anything is known.
    next_n: u32,
    /// Number of the first segment of each media process but the first one: nothing continues across it.
    processes: Vec<u32>,
    /// That of the segment listed last, as an index into the media processes.
    listed_process: usize,
    /// Where the last whole segment ends, nanoseconds of media.
    end_ns: u64,
    on_backup: bool,
    /// Nothing more is recorded.
    ended: bool,
    /// The playlists have their end.
    closed: bool,
    actions: VecDeque<SegmentsAction>,
}

impl SegmentsMachine {
    /// Nothing is recorded yet.
    pub fn new(plan: SegmentsPlan) -> Self {
        let live = plan.names.live_playlist.is_some().then(|| PlaylistSchedule::new(UploadRule::EachSegment));
        let playlist = empty_playlist(&plan);
        let mut init = plan.names.init().map(|_| PlaylistSchedule::new(UploadRule::EachSegment));
        if let Some(init) = &mut init {
            init.listed(0);
        }
        Self {
            plan,
            sequencer: SegmentSequencer::default(),
            runs: SegmentRuns::default(),
            playlist,
            init,
            event: PlaylistSchedule::new(UploadRule::BySize),
            live,
            event_location: None,
            live_location: None,
            open: None,
            open_bytes: 0,
            pending: BTreeMap::new(),
            next_n: 0,
            processes: vec![],
            listed_process: 0,
            end_ns: 0,
            on_backup: false,
            ended: false,
            closed: false,
            actions: VecDeque::new(),
        }
    }

    /// Segment `n` is being written.
    pub fn opened(&mut self, n: u32, at_ns: u64) {
        self.skip_to(n);
        self.open = Some((n, at_ns));
        self.open_bytes = 0;
    }

    /// So many bytes of it are in the spool.
    pub fn wrote(&mut self, n: u32, bytes: u64) {
        if self.open.is_some_and(|(open, _)| open == n) {
            self.open_bytes = bytes;
        }
    }

    /// A segment is whole; it is sent.
    pub fn closed(&mut self, segment: SpooledSegment) {
        if self.add(segment) {
            self.send(segment.n);
        }
    }

    /// A pending segment is sent.
    pub fn send(&mut self, n: u32) {
        if let Some(segment) = self.pending.get(&n) {
            let name = self.plan.names.path(&self.name(n, segment.at_ns));
            self.actions.push_back(SegmentsAction::Put(n, name));
        }
    }

    /// The store has segment `n`, of so many bytes.
    pub fn stored(&mut self, n: u32, bytes: u64, on_backup: bool) {
        if let Some(SpooledSegment { at_ns, length_ns, .. }) = self.pending.remove(&n) {
            let name = self.name(n, at_ns);
            let segment = StoredSegment { name, at_ns, length_ns, bytes, on_backup };
            self.resolve(n, SegmentOutcome::Stored(segment));
        }
    }

    /// Nothing of segment `n` will be in the store.
    pub fn lost(&mut self, n: u32) {
        self.pending.remove(&n);
        if let Some((open, at_ns)) = self.open
            && open == n
        {
            (self.open, self.open_bytes) = (None, 0);
            // About: it says how late the next one is at most.
            self.end_ns = self.end_ns.max(at_ns + self.plan.segment_ns);
        }
        self.skip_to(n);
        self.resolve(n, SegmentOutcome::Lost);
    }

    /// The media process is gone, and everything that it has left was closed or lost; another one goes on with segment
    /// `next_n`, with times of its own.
    pub fn interrupted(&mut self, next_n: u32) {
        if self.processes.last() != Some(&next_n) {
            self.processes.push(next_n);
        }
    }

    /// Nothing more is recorded: when every segment is stored or lost the playlists get their end.
    pub fn end(&mut self) {
        self.ended = true;
        self.close_if_resolved();
    }

    /// Of all that is listed.
    pub fn totals(&self) -> SegmentTotals {
        self.sequencer.totals()
    }

    /// Bytes in the spool.
    pub fn spooled_bytes(&self) -> u64 {
        self.open_bytes + self.pending.values().map(|segment| segment.bytes).sum::<u64>()
    }

    /// Segments that are whole and not stored: number, object, size.
    pub fn pending(&self) -> Vec<(u32, String, u64)> {
        let of = |segment: &SpooledSegment| {
            (segment.n, self.plan.names.path(&self.name(segment.n, segment.at_ns)), segment.bytes)
        };
        self.pending.values().map(of).collect()
    }

    /// Where segment `n` begins that is not whole: as it was said, else where the one before it ends. `None`: it is whole,
    /// stored or lost.
    pub fn unfinished_at(&self, n: u32) -> Option<u64> {
        match self.open {
            Some((open, at_ns)) if open == n => Some(at_ns),
            _ => (n >= self.next_n).then_some(self.end_ns),
        }
    }

    /// The segment that is being written.
    pub fn open_segment(&self) -> Option<u32> {
        self.open.map(|(n, _)| n)
    }

    /// Begin of the first listed segment and end of the last, nanoseconds of media.
    pub fn span_ns(&self) -> Option<(u64, u64)> {
        self.runs.span_ns()
    }

    /// Names of all listed segments below the playlist's directory, and whether the backup has them.
    pub fn listed(&self) -> Vec<(String, bool)> {
        let mut listed = vec![];
        for run in self.runs.as_slice() {
            listed.extend(run.segments().map(|(n, at_ns, _)| (self.name(n, at_ns), run.on_backup)));
        }
        listed
    }

    /// What it was made with.
    pub fn plan(&self) -> &SegmentsPlan {
        &self.plan
    }

    /// The media process that wrote segment `n`, of those of this recording from 0 on.
    fn process_of(&self, n: u32) -> usize {
        self.processes.partition_point(|first| *first <= n)
    }

    fn name(&self, n: u32, at_ns: u64) -> String {
        self.plan.names.segment(n, clock::local_of_ms(unix_ms(self.plan.started_at, at_ns)))
    }

    /// False: it is known already.
    fn add(&mut self, segment: SpooledSegment) -> bool {
        let n = segment.n;
        if self.open.is_some_and(|(open, _)| open == n) {
            (self.open, self.open_bytes) = (None, 0);
        } else if n < self.next_n {
            return false;
        }
        self.skip_to(n);
        self.end_ns = segment.at_ns + segment.length_ns;
        self.pending.insert(n, segment);
        true
    }

    /// Numbers of which nothing was said are lost: the media process was, or its event.
    fn skip_to(&mut self, n: u32) {
        for missing in self.next_n..n {
            self.resolve(missing, SegmentOutcome::Lost);
        }
        self.next_n = self.next_n.max(n.saturating_add(1));
    }

    fn resolve(&mut self, n: u32, outcome: SegmentOutcome) {
        for listed in self.sequencer.resolved(n, outcome) {
            self.list(listed);
        }
        self.close_if_resolved();
    }

    fn close_if_resolved(&mut self) {
        if !self.ended || self.closed || !self.pending.is_empty() {
            return;
        }
        for listed in self.sequencer.close() {
            self.list(listed);
        }
        self.closed = true;
        self.event.end();
        if let Some(live) = &mut self.live {
            live.end();
        }
    }

    fn list(&mut self, mut listed: ListedSegment) {
        let process = self.process_of(listed.index);
        listed.discontinuity |= process != self.listed_process;
        self.listed_process = process;
        self.runs.push(&listed);
        self.playlist.push(&self.entry(&listed));
        self.event.listed(listed.segment.bytes);
        if let Some(live) = &mut self.live {
            live.listed(listed.segment.bytes);
        }
    }
}

fn empty_playlist(plan: &SegmentsPlan) -> Playlist {
    let playlist = Playlist::new(Duration::from_nanos(plan.segment_ns), plan.started_at);
    match plan.names.init() {
        Some(init) => playlist.with_init(&init),
        None => playlist,
    }
}

impl fmt::Debug for SegmentsPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SegmentsPlan").field("output", &self.output).field("names", &self.names).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
