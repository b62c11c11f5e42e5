//! The task of the upload of one HLS output: segments and commands of its handle go in, and progress and in the end the result
//! come out. It asks `machine` what to send, `objects` sends it.

use std::fs;
use std::time::Duration;

use bytes::Bytes;
use spillway_ipc::segment_file;
use spillway_storage::Meta;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use super::leftover;
use super::machine::{SegmentsAction, SegmentsMachine, SpooledSegment};
use super::outcome::{SegmentsCommand, SegmentsResult, SegmentsStatus};
use crate::upload::checkpoint::{CheckpointWriter, FLUSH_TIMEOUT};
use crate::upload::objects::{ObjectEvent, ObjectFile, ObjectUploads};
use crate::upload::outcome::LossReasons;

/// livekit/egress' MIME type of playlists.
pub(super) const PLAYLIST_MIME: &str = "application/x-mpegurl";
const INIT_MIME: &str = "video/mp4";
const MANIFEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Without anything to do.
const IDLE: Duration = Duration::from_secs(3600);

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
    /// Why segments are lost.
    losses: LossReasons,
    playlist_error: String,
    finish: Option<oneshot::Sender<SegmentsResult>>,
    rest: Option<oneshot::Sender<()>>,
    /// Something of the checkpoint has changed.
    changed: bool,
}

impl SegmentsUploader {
    /// Until everything is stored or given up and the handle is dropped.
    pub(super) async fn run(
        mut self,
        mut commands: mpsc::UnboundedReceiver<SegmentsCommand>,
        status: watch::Sender<SegmentsStatus>,
    ) {
        let mut state = UploaderState { changed: true, ..UploaderState::default() };
        if self.objects.on_backup() {
            // The primary store has refused before anything was recorded.
            self.machine.use_backup();
        }
        loop {
            loop {
                self.send_what_is_due(&mut state).await;
                if !self.keep_within_cap(&mut state) {
                    break;
                }
            }
            self.publish(&mut state, &status);
            if self.machine.spooled_bytes() == 0
                && let Some(done) = state.rest.take()
            {
                let _ = done.send(());
            }
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
            SegmentsCommand::Interrupted { next_n } => {
                self.take_leftover(state, next_n).await;
                self.machine.interrupted(next_n);
                state.changed = true;
            }
            SegmentsCommand::Rest(done) => {
                self.take_leftover(state, u32::MAX).await;
                (state.rest, state.changed) = (Some(done), true);
            }
            SegmentsCommand::Finish(done) => {
                self.take_leftover(state, u32::MAX).await;
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
            && let Some((n, message)) = self.objects.give_up_oldest()
        {
            self.machine.lost(n);
            state.lost(message);
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

    /// What the media process has left without an event, of segments before number `below`: of one that was open the whole
    /// pictures are kept.
    async fn take_leftover(&mut self, state: &mut UploaderState, below: u32) {
        let (folder, output, format) = {
            let plan = self.machine.plan();
            (plan.folder.clone(), plan.output, plan.names.format)
        };
        let there = folder.clone();
        let numbers = spawn_blocking(move || leftover::numbers(&there, output, format)).await.unwrap_or_default();
        let is_unfinished = |n: &u32| *n < below && self.machine.unfinished_at(*n).is_some();
        let unfinished: Vec<u32> = numbers.into_iter().filter(is_unfinished).collect();
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
            self.checkpoint_writer.segments(self.machine.checkpoint());
        }
    }

    async fn answer(&self, state: UploaderState) {
        let plan = self.machine.plan();
        let totals = self.machine.totals();
        let (event, live) = self.machine.locations();
        let ended = self.machine.is_complete();
        let mut failure = match (self.objects.files_given_up(), ended) {
            // The end of the recording is on this machine, and not where it was asked to be.
            (Some(message), _) => Some(message.to_owned()),
            (None, true) => None,
            (None, false) => Some(state.playlist_error.clone()),
        };
        if totals.count == 0 && totals.lost > 0 {
            failure = failure.or_else(|| state.losses.first().cloned());
        }
        let unix = |ns: u64| plan.started_at.saturating_add_unsigned(ns);
        let (started_at, ended_at) = self.machine.span_ns().map_or((0, 0), |(begin, end)| (unix(begin), unix(end)));
        let notes = state.losses.notes(totals.lost, "segment", &format!("in {}", plan.names.playlist_path()));
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
            notes,
            spooled: failure.is_some().then(|| plan.folder.clone()),
            ended,
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
        if let Some(done) = state.finish {
            let _ = done.send(result);
        }
    }

    /// Removes what lies in the spool for this output, and its folder if that is empty then.
    async fn empty_spool(&self) {
        let plan = self.machine.plan();
        let (folder, output, format) = (plan.folder.clone(), plan.output, plan.names.format);
        let _ = spawn_blocking(move || leftover::remove_segments(&folder, output, format)).await;
    }
}

impl UploaderState {
    fn lost(&mut self, message: String) {
        self.changed = true;
        self.losses.add(message);
    }
}
