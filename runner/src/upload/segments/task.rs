//! The upload of one HLS output: [`SegmentsUpload`] is the session's handle of a task, in which the media process' segments go
//! in, and progress and in the end the result come out. The task asks `machine` what to send, `objects` sends it. A handle
//! that is dropped without an end leaves everything as it is, for a salvage.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use spillway_ipc::segment_file;
use spillway_plan::segment_name::SegmentFormat;
use spillway_storage::Meta;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{Instrument, Span, info, warn};

use super::leftover;
use super::machine::{SegmentsAction, SegmentsMachine, SpooledSegment};
use super::saved::SegmentsCheckpoint;
use super::sequencer::SegmentTotals;
use crate::upload::checkpoint::{CheckpointWriter, FLUSH_TIMEOUT};
use crate::upload::objects::{ObjectEvent, ObjectFile, ObjectUploads};

/// livekit/egress' MIME type of playlists.
const PLAYLIST_MIME: &str = "application/x-mpegurl";
const INIT_MIME: &str = "video/mp4";
/// For the task to take back what it has begun.
const ABANDON_TIMEOUT: Duration = Duration::from_secs(5);
const MANIFEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Without anything to do.
const IDLE: Duration = Duration::from_secs(3600);

/// How far an HLS output is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SegmentsStatus {
    /// Of all that is listed.
    pub totals: SegmentTotals,
    /// Bytes in the spool.
    pub spooled_bytes: u64,
    /// The store's error while it fails; else empty.
    pub error: String,
}

/// What an HLS output came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SegmentsResult {
    /// Of all that is listed.
    pub totals: SegmentTotals,
    /// Begin of the first listed segment and end of the last, Unix nanoseconds; 0 without one.
    pub started_at: i64,
    /// See `started_at`.
    pub ended_at: i64,
    /// Where the playlist is.
    pub playlist_location: Option<String>,
    /// Where the live playlist is.
    pub live_location: Option<String>,
    /// Name and location of each listed segment, for the manifest.
    pub segments: Vec<(String, String)>,
    /// Something is in the backup store.
    pub used_backup: bool,
    /// For `details`: segments that are lost, and why.
    pub notes: Vec<String>,
    /// Why the playlists are not stored as they should be, for the user.
    pub failure: Option<String>,
    /// The folder of what is not stored then.
    pub spooled: Option<PathBuf>,
    /// A later attempt of this egress has taken the output over and reports it.
    pub gone: bool,
}

/// The upload of one HLS output.
pub struct SegmentsUpload {
    commands: mpsc::UnboundedSender<SegmentsCommand>,
    status: watch::Receiver<SegmentsStatus>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
enum SegmentsCommand {
    Opened { n: u32, at_ns: u64 },
    Wrote { n: u32, bytes: u64 },
    Closed(SpooledSegment),
    Lost(u32),
    Finish(oneshot::Sender<SegmentsResult>),
    PutBeside { name: String, content: Bytes, done: oneshot::Sender<Result<String, String>> },
    Drop(oneshot::Sender<()>),
}

/// The task's own.
pub struct SegmentsUploader {
    /// What is sent when.
    pub machine: SegmentsMachine,
    /// The store.
    pub objects: ObjectUploads,
    /// Keeps the state for a salvage.
    pub checkpoint_writer: CheckpointWriter,
    /// Bytes of the output that may wait in the spool; the oldest segment is given up beyond it.
    pub spool_cap: u64,
}

/// What changes while the task runs.
#[derive(Default)]
struct UploaderState {
    init: Option<Bytes>,
    /// Why segments are lost; the first of each reason.
    reasons: Vec<String>,
    playlist_error: String,
    finish: Option<oneshot::Sender<SegmentsResult>>,
    /// Something of the checkpoint has changed.
    changed: bool,
}

impl Drop for SegmentsUpload {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl SegmentsUpload {
    /// Starts the task.
    pub fn start(uploader: SegmentsUploader) -> Self {
        // Three messages a segment and four a second.
        let (commands, command_rx) = mpsc::unbounded_channel();
        let (status_tx, status) = watch::channel(SegmentsStatus::default());
        let task = tokio::spawn(uploader.run(command_rx, status_tx).instrument(Span::current()));
        Self { commands, status, task }
    }

    /// The media process writes segment `n`, which begins at `at_ns` of media. Never waits.
    pub fn opened(&self, n: u32, at_ns: u64) {
        let _ = self.commands.send(SegmentsCommand::Opened { n, at_ns });
    }

    /// So many bytes of it are in the spool. Never waits.
    pub fn wrote(&self, n: u32, bytes: u64) {
        let _ = self.commands.send(SegmentsCommand::Wrote { n, bytes });
    }

    /// A segment is whole. Never waits.
    pub fn closed(&self, segment: SpooledSegment) {
        let _ = self.commands.send(SegmentsCommand::Closed(segment));
    }

    /// Segment `n` was not written whole. Never waits.
    pub fn lost(&self, n: u32) {
        let _ = self.commands.send(SegmentsCommand::Lost(n));
    }

    /// How far it is.
    pub fn status(&self) -> SegmentsStatus {
        self.status.borrow().clone()
    }

    /// Nothing writes to the spool any more: sends what is left there, and the playlists with their end. Bounded by
    /// `max_outage_ms`.
    pub async fn finish(&self) -> SegmentsResult {
        let taken_over = SegmentsResult { gone: true, ..SegmentsResult::default() };
        let (done, result) = oneshot::channel();
        if self.commands.send(SegmentsCommand::Finish(done)).is_err() {
            return taken_over;
        }
        result.await.unwrap_or(taken_over)
    }

    /// After [`Self::finish`]: puts a small JSON object where the playlists are, into the same store. Answers its location.
    ///
    /// # Errors
    /// The store's message; transient errors were retried for up to 30 s.
    pub async fn put_beside(&self, name: String, content: Bytes) -> Result<String, String> {
        let lost = || "upload was lost".to_owned();
        let (done, answer) = oneshot::channel();
        self.commands.send(SegmentsCommand::PutBeside { name, content, done }).map_err(|_| lost())?;
        answer.await.unwrap_or_else(|_| Err(lost()))
    }

    /// Nothing of it is wanted: nothing more is sent, and the spool is emptied.
    pub async fn abandon(&self) {
        let (done, dropped) = oneshot::channel();
        if self.commands.send(SegmentsCommand::Drop(done)).is_ok() {
            let _ = timeout(ABANDON_TIMEOUT, dropped).await;
        }
    }
}

impl SegmentsUploader {
    async fn run(
        mut self,
        mut commands: mpsc::UnboundedReceiver<SegmentsCommand>,
        status: watch::Sender<SegmentsStatus>,
    ) {
        let mut state = UploaderState { changed: true, ..UploaderState::default() };
        loop {
            loop {
                self.send_what_is_due(&mut state).await;
                if !self.keep_within_cap(&mut state) {
                    break;
                }
            }
            self.publish(&mut state, &status);
            let given_up = self.objects.given_up().is_some() && self.objects.is_drained();
            if state.finish.is_some() && (self.machine.is_complete() || given_up) {
                self.answer(state).await;
                return self.after_the_end(commands).await;
            }
            let wake = self.machine.next_at().map_or_else(|| Instant::now() + IDLE, Instant::from_std);
            tokio::select! {
                biased;
                command = commands.recv() => match command {
                    None => return,
                    Some(SegmentsCommand::Drop(done)) => {
                        self.empty_spool().await;
                        let _ = done.send(());
                        return;
                    }
                    Some(command) => self.on_command(&mut state, command).await,
                },
                event = self.objects.next() => self.on_event(&mut state, event),
                () = sleep_until(wake) => {}
                () = self.checkpoint_writer.superseded() => return,
            }
        }
    }

    /// Until the handle is dropped.
    async fn after_the_end(self, mut commands: mpsc::UnboundedReceiver<SegmentsCommand>) {
        while let Some(command) = commands.recv().await {
            if let SegmentsCommand::PutBeside { name, content, done } = command {
                let meta = Meta::of("application/json");
                let _ = done.send(self.objects.put_small(&name, content, &meta, MANIFEST_TIMEOUT).await);
            }
        }
    }

    async fn on_command(&mut self, state: &mut UploaderState, command: SegmentsCommand) {
        match command {
            SegmentsCommand::Opened { n, at_ns } => {
                self.machine.opened(n, at_ns);
                state.changed = true;
            }
            SegmentsCommand::Wrote { n, bytes } => {
                self.machine.wrote(n, bytes);
            }
            SegmentsCommand::Closed(segment) => {
                self.machine.closed(segment);
                state.changed = true;
            }
            SegmentsCommand::Lost(n) => {
                self.machine.lost(n);
                state.lost("the recorder's disk did not take it".to_owned());
            }
            SegmentsCommand::Finish(done) => {
                self.take_leftover(state).await;
                self.machine.end();
                self.objects.close();
                state.finish = Some(done);
                state.changed = true;
            }
            // The one comes after the end only, the other ends the task.
            SegmentsCommand::PutBeside { .. } | SegmentsCommand::Drop(_) => {}
        }
    }

    fn on_event(&mut self, state: &mut UploaderState, event: ObjectEvent) {
        match event {
            ObjectEvent::Stored { number, bytes, on_backup } => {
                self.machine.stored(number, bytes, on_backup);
                state.changed = true;
            }
            ObjectEvent::Lost { number, message } => {
                self.machine.lost(number);
                state.lost(message);
            }
            ObjectEvent::Text { name, result } => {
                if let Err(message) = &result {
                    warn!(error = message, object = name, "not stored");
                    state.playlist_error.clone_from(message);
                }
                self.machine.text_answered(&name, result.ok(), Instant::now().into_std());
            }
            ObjectEvent::BackupUsed => {
                self.machine.use_backup();
                state.changed = true;
            }
        }
    }

    /// The spool has a bound; the recording goes on with a hole where its oldest segment was. True: something was given up.
    fn keep_within_cap(&mut self, state: &mut UploaderState) -> bool {
        let mut given_up = false;
        while self.machine.spooled_bytes() > self.spool_cap
            && let Some(file) = self.objects.give_up_oldest()
        {
            let why = if self.objects.error().is_empty() { "the store is too slow" } else { self.objects.error() };
            let message = format!("the spool holds no more: {why}");
            warn!(segment = file.number, reason = message, "segment given up");
            self.machine.lost(file.number);
            state.lost(message);
            spawn_blocking(move || fs::remove_file(&file.path));
            given_up = true;
        }
        given_up
    }

    async fn send_what_is_due(&mut self, state: &mut UploaderState) {
        while let Some(action) = self.machine.next_action(Instant::now().into_std()) {
            match action {
                SegmentsAction::PutInit(name) => {
                    if state.init.is_none() {
                        let path = self.machine.plan().folder.join(segment_file::init_name(self.machine.plan().output));
                        state.init =
                            spawn_blocking(move || fs::read(path)).await.ok().and_then(Result::ok).map(Bytes::from);
                    }
                    match state.init.clone() {
                        Some(init) => self.objects.put_text(name, init, Meta::of(INIT_MIME)),
                        // A salvage on another machine; the dead attempt has stored it before anything else.
                        None => {
                            let location = self.objects.location(&name);
                            self.machine.text_answered(&name, Some(location), Instant::now().into_std());
                        }
                    }
                }
                SegmentsAction::Put(number, name) => {
                    let plan = self.machine.plan();
                    let format = plan.names.format;
                    let path = plan.folder.join(segment_file::name(plan.output, number, format));
                    self.objects.put_file(ObjectFile { number, name, path, meta: Meta::of(format.mime()) });
                }
                SegmentsAction::PutPlaylist(name, text) => {
                    self.objects.put_text(name, text.into(), Meta::of(PLAYLIST_MIME));
                }
            }
        }
    }

    /// What the media process has left without an event: of a segment that was open the whole pictures are kept.
    async fn take_leftover(&mut self, state: &mut UploaderState) {
        let (folder, output, format) = {
            let plan = self.machine.plan();
            (plan.folder.clone(), plan.output, plan.names.format)
        };
        let there = folder.clone();
        let numbers = spawn_blocking(move || leftover::numbers(&there, output, format)).await.unwrap_or_default();
        let unfinished: Vec<u32> = numbers.into_iter().filter(|n| self.machine.unfinished_at(*n).is_some()).collect();
        let cut = spawn_blocking(move || leftover::cut(&folder, output, format, &unfinished)).await;
        for left in cut.unwrap_or_default() {
            let Some(at_ns) = self.machine.unfinished_at(left.n) else { continue };
            match left.kept {
                Some((bytes, length)) => {
                    let length_ns = u64::try_from(length.as_nanos()).unwrap_or(u64::MAX);
                    info!(segment = left.n, bytes, "a segment without its end is kept");
                    self.machine.closed(SpooledSegment { n: left.n, at_ns, length_ns, bytes });
                }
                None => {
                    self.machine.lost(left.n);
                    state.lost("nothing of it can be played".to_owned());
                }
            }
        }
        if let Some(n) = self.machine.open_segment() {
            self.machine.lost(n);
            state.lost("nothing of it was written".to_owned());
        }
    }

    fn publish(&self, state: &mut UploaderState, status: &watch::Sender<SegmentsStatus>) {
        let now = SegmentsStatus {
            totals: self.machine.totals(),
            spooled_bytes: self.machine.spooled_bytes(),
            error: self.objects.error().to_owned(),
        };
        status.send_if_modified(|known| {
            let changed = *known != now;
            *known = now;
            changed
        });
        if std::mem::take(&mut state.changed) {
            // The primary store may have refused before anything was recorded.
            let on_backup = self.objects.on_backup();
            self.checkpoint_writer.segments(SegmentsCheckpoint { on_backup, ..self.machine.checkpoint() });
        }
    }

    async fn answer(&self, mut state: UploaderState) {
        let plan = self.machine.plan();
        let totals = self.machine.totals();
        let (event, live) = self.machine.locations();
        let mut failure = (!self.machine.is_complete()).then(|| match self.objects.given_up() {
            Some(message) => message.to_owned(),
            None => state.playlist_error.clone(),
        });
        if totals.count == 0 && totals.lost > 0 {
            failure = failure.or_else(|| state.reasons.first().cloned());
        }
        let unix = |ns: u64| plan.started_at.saturating_add_unsigned(ns);
        let (started_at, ended_at) = self.machine.span_ns().map_or((0, 0), |(begin, end)| (unix(begin), unix(end)));
        if totals.lost > 0 {
            let why = state.reasons.join("; ");
            let what =
                if totals.lost == 1 { "1 segment is".to_owned() } else { format!("{} segments are", totals.lost) };
            state.reasons = vec![format!("{what} missing in {}: {why}", plan.names.path(&plan.names.playlist))];
        }
        let located = |(name, on_backup): (String, bool)| {
            let path = plan.names.path(&name);
            let location =
                if on_backup == self.objects.on_backup() { self.objects.location(&path) } else { (plan.locate)(&path) };
            (path, location)
        };
        let result = SegmentsResult {
            totals,
            started_at,
            ended_at,
            playlist_location: event,
            live_location: live,
            segments: self.machine.listed().into_iter().map(located).collect(),
            used_backup: self.objects.on_backup(),
            notes: state.reasons,
            spooled: failure.is_some().then(|| plan.folder.clone()),
            failure,
            gone: false,
        };
        info!(
            playlist = plan.names.path(&plan.names.playlist),
            segments = totals.count,
            bytes = totals.bytes,
            lost = totals.lost,
            "HLS output finished"
        );
        self.checkpoint_writer.flush(FLUSH_TIMEOUT).await;
        if result.failure.is_none() {
            self.empty_spool().await;
        }
        if let Some(done) = state.finish.take() {
            let _ = done.send(result);
        }
    }

    /// Removes what lies in the spool for this output, and its folder if that is empty then.
    async fn empty_spool(&self) {
        let plan = self.machine.plan();
        let (folder, output, format) = (plan.folder.clone(), plan.output, plan.names.format);
        let _ = spawn_blocking(move || remove_segments(&folder, output, format)).await;
    }
}

impl UploaderState {
    fn lost(&mut self, message: String) {
        self.changed = true;
        if !self.reasons.contains(&message) && self.reasons.len() < 3 {
            self.reasons.push(message);
        }
    }
}

/// Removes the segments of an output from a folder, and the folder if it is empty then. Blocks for the disk.
pub(crate) fn remove_segments(folder: &Path, output: u32, format: SegmentFormat) {
    if folder.as_os_str().is_empty() {
        return;
    }
    for n in leftover::numbers(folder, output, format) {
        let _ = fs::remove_file(folder.join(segment_file::name(output, n, format)));
    }
    let _ = fs::remove_file(folder.join(segment_file::init_name(output)));
    let _ = fs::remove_dir(folder);
}

#[cfg(test)]
mod tests;
