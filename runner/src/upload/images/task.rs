//! The upload of one image output: [`ImagesUpload`] is the session's handle of a task, in which the media process' images go
//! in, and progress and in the end the result come out. The task asks `machine` what to send, `objects` sends it. A handle
//! that is dropped without an end leaves everything as it is, for a salvage.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use spillway_ipc::image_file;
use spillway_plan::ImageCodec;
use spillway_storage::Meta;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;
use tracing::{Instrument, Span, info};

use super::machine::{ImagesAction, ImagesMachine};
use super::saved::{ImageTotals, ImagesCheckpoint, SpooledImage};
use crate::upload::checkpoint::{CheckpointWriter, FLUSH_TIMEOUT};
use crate::upload::objects::{ObjectEvent, ObjectFile, ObjectUploads};
use crate::upload::outcome::LossReasons;

/// For the task to take back what it has begun.
const ABANDON_TIMEOUT: Duration = Duration::from_secs(5);
const MANIFEST_TIMEOUT: Duration = Duration::from_secs(30);

/// How far an image output is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImagesStatus {
    /// Sums.
    pub totals: ImageTotals,
    /// Bytes in the spool.
    pub spooled_bytes: u64,
    /// The store's error while it fails; else empty.
    pub error: String,
}

/// What an image output came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImagesResult {
    /// Sums.
    pub totals: ImageTotals,
    /// When the first stored image was captured and when the last, Unix nanoseconds; 0 without one.
    pub started_at: i64,
    /// See `started_at`.
    pub ended_at: i64,
    /// Name, location and time of capture (Unix nanoseconds) of each stored object, for the manifest.
    pub images: Vec<(String, String, i64)>,
    /// Something is in the backup store.
    pub used_backup: bool,
    /// For `details`: images that are lost, and why.
    pub notes: Vec<String>,
    /// Why the images are not stored as they should be, for the user.
    pub failure: Option<String>,
    /// The folder of what is not stored then.
    pub spooled: Option<PathBuf>,
    /// A later attempt of this egress has taken the output over and reports it.
    pub gone: bool,
}

/// The upload of one image output.
pub struct ImagesUpload {
    commands: mpsc::UnboundedSender<ImagesCommand>,
    status: watch::Receiver<ImagesStatus>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
enum ImagesCommand {
    Captured(SpooledImage),
    Finish(oneshot::Sender<ImagesResult>),
    PutBeside { name: String, content: Bytes, done: oneshot::Sender<Result<String, String>> },
    Drop(oneshot::Sender<()>),
}

/// The task's own.
pub struct ImagesUploader {
    /// What is sent when.
    pub machine: ImagesMachine,
    /// The store.
    pub objects: ObjectUploads,
    /// URL of a name in the primary store, for what is there when the backup takes over.
    pub locate: Arc<dyn Fn(&str) -> String + Send + Sync>,
    /// Keeps the state for a salvage.
    pub checkpoint_writer: CheckpointWriter,
    /// Bytes of the output that may wait in the spool; the oldest image is given up beyond it.
    pub spool_cap: u64,
}

/// What changes while the task runs.
#[derive(Default)]
struct ImagesUploaderState {
    /// Why images are lost.
    losses: LossReasons,
    finish: Option<oneshot::Sender<ImagesResult>>,
    /// Something of the checkpoint has changed.
    changed: bool,
}

impl Drop for ImagesUpload {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl ImagesUpload {
    /// Starts the task.
    pub fn start(uploader: ImagesUploader) -> Self {
        // One message an image.
        let (commands, command_rx) = mpsc::unbounded_channel();
        let (status_tx, status) = watch::channel(ImagesStatus::default());
        let task = tokio::spawn(uploader.run(command_rx, status_tx).instrument(Span::current()));
        Self { commands, status, task }
    }

    /// An image is whole. Never waits.
    pub fn captured(&self, image: SpooledImage) {
        let _ = self.commands.send(ImagesCommand::Captured(image));
    }

    /// How far it is.
    pub fn status(&self) -> ImagesStatus {
        self.status.borrow().clone()
    }

    /// Nothing writes to the spool any more: sends what is left there. Bounded by `max_outage_ms`.
    pub async fn finish(&self) -> ImagesResult {
        let taken_over = ImagesResult { gone: true, ..ImagesResult::default() };
        let (done, result) = oneshot::channel();
        if self.commands.send(ImagesCommand::Finish(done)).is_err() {
            return taken_over;
        }
        result.await.unwrap_or(taken_over)
    }

    /// After [`Self::finish`]: puts a small JSON object beside the images, into the same store. Answers its location.
    ///
    /// # Errors
    /// The store's message; transient errors were retried for up to 30 s.
    pub async fn put_beside(&self, name: String, content: Bytes) -> Result<String, String> {
        let lost = || "upload was lost".to_owned();
        let (done, answer) = oneshot::channel();
        self.commands.send(ImagesCommand::PutBeside { name, content, done }).map_err(|_| lost())?;
        answer.await.unwrap_or_else(|_| Err(lost()))
    }

    /// Nothing of it is wanted: nothing more is sent, and the spool is emptied.
    pub async fn abandon(&self) {
        let (done, dropped) = oneshot::channel();
        if self.commands.send(ImagesCommand::Drop(done)).is_ok() {
            let _ = timeout(ABANDON_TIMEOUT, dropped).await;
        }
    }
}

impl ImagesUploader {
    async fn run(mut self, mut commands: mpsc::UnboundedReceiver<ImagesCommand>, status: watch::Sender<ImagesStatus>) {
        let mut state = ImagesUploaderState { changed: true, ..ImagesUploaderState::default() };
        loop {
            self.send_what_is_due();
            self.keep_within_cap(&mut state);
            self.publish(&mut state, &status);
            let given_up = self.objects.files_given_up().is_some() && self.objects.is_drained();
            if state.finish.is_some() && (self.machine.is_complete() || given_up) {
                self.answer(state).await;
                return self.after_the_end(commands).await;
            }
            tokio::select! {
                biased;
                command = commands.recv() => match command {
                    None => return,
                    Some(ImagesCommand::Drop(done)) => {
                        self.empty_spool().await;
                        let _ = done.send(());
                        return;
                    }
                    Some(command) => self.on_command(&mut state, command).await,
                },
                event = self.objects.next() => self.on_event(&mut state, event),
                () = self.checkpoint_writer.superseded() => return,
            }
        }
    }

    /// Until the handle is dropped.
    async fn after_the_end(self, mut commands: mpsc::UnboundedReceiver<ImagesCommand>) {
        while let Some(command) = commands.recv().await {
            if let ImagesCommand::PutBeside { name, content, done } = command {
                let meta = Meta::of("application/json");
                let _ = done.send(self.objects.put_small(&name, content, &meta, MANIFEST_TIMEOUT).await);
            }
        }
    }

    async fn on_command(&mut self, state: &mut ImagesUploaderState, command: ImagesCommand) {
        match command {
            ImagesCommand::Captured(image) => {
                self.machine.captured(image);
                state.changed = true;
            }
            ImagesCommand::Finish(done) => {
                let plan = self.machine.plan();
                let (folder, output, codec) = (plan.folder.clone(), plan.output, plan.names.codec);
                let left = spawn_blocking(move || spooled_images(&folder, output, codec)).await;
                left.unwrap_or_default().into_iter().for_each(|(n, bytes)| self.machine.left_behind(n, bytes));
                self.objects.close();
                state.finish = Some(done);
                state.changed = true;
            }
            // The one comes after the end only, the other ends the task.
            ImagesCommand::PutBeside { .. } | ImagesCommand::Drop(_) => {}
        }
    }

    fn on_event(&mut self, state: &mut ImagesUploaderState, event: ObjectEvent) {
        state.changed = true;
        match event {
            ObjectEvent::Stored { number, bytes, on_backup } => self.machine.stored(number, bytes, on_backup),
            ObjectEvent::Lost { number, message } => {
                self.machine.lost(number);
                state.lost(message);
            }
            // No texts are put, and images of the primary store stay there.
            ObjectEvent::Text { .. } | ObjectEvent::BackupUsed => {}
        }
    }

    fn send_what_is_due(&mut self) {
        while let Some(action) = self.machine.next_action() {
            let plan = self.machine.plan();
            let path = |n| plan.folder.join(image_file::name(plan.output, n, plan.names.codec));
            match action {
                ImagesAction::Put(number, name) => {
                    let (path, meta) = (path(number), Meta::of(plan.names.codec.mime()));
                    self.objects.put_file(ObjectFile { number, name, path, meta });
                }
                ImagesAction::Remove(number) => {
                    let path = path(number);
                    spawn_blocking(move || fs::remove_file(path));
                }
            }
        }
    }

    /// The spool has a bound; the recording goes on without its oldest images.
    fn keep_within_cap(&mut self, state: &mut ImagesUploaderState) {
        while self.machine.spooled_bytes() > self.spool_cap
            && let Some((n, message)) = self.objects.give_up_oldest()
        {
            self.machine.lost(n);
            state.lost(message);
            // Of images that replace each other the next one may go now.
            self.send_what_is_due();
        }
    }

    fn publish(&self, state: &mut ImagesUploaderState, status: &watch::Sender<ImagesStatus>) {
        let now = ImagesStatus {
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
            self.checkpoint_writer.images(ImagesCheckpoint { on_backup, ..self.machine.checkpoint() });
        }
    }

    async fn answer(&self, state: ImagesUploaderState) {
        let plan = self.machine.plan();
        let totals = self.machine.totals();
        let mut failure = self.objects.files_given_up().filter(|_| totals.lost > 0).map(str::to_owned);
        if totals.count == 0 && totals.lost > 0 {
            failure = failure.or_else(|| state.losses.first().cloned());
        }
        let notes = state.losses.notes(totals.lost, "image", &format!("of {}", plan.names.prefix));
        let located = |(name, at, on_backup): (String, i64, bool)| {
            let here = on_backup == self.objects.on_backup();
            let location = if here { self.objects.location(&name) } else { (self.locate)(&name) };
            (name, location, at)
        };
        let (started_at, ended_at) = self.machine.span().unwrap_or_default();
        let result = ImagesResult {
            totals,
            started_at,
            ended_at,
            images: self.machine.objects().into_iter().map(located).collect(),
            used_backup: self.objects.on_backup(),
            notes,
            spooled: failure.is_some().then(|| plan.folder.clone()),
            failure,
            gone: false,
        };
        info!(
            images = plan.names.prefix,
            count = totals.count,
            bytes = totals.bytes,
            lost = totals.lost,
            "image output finished"
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
        let (folder, output, codec) = (plan.folder.clone(), plan.output, plan.names.codec);
        let _ = spawn_blocking(move || remove_images(&folder, output, codec)).await;
    }
}

impl ImagesUploaderState {
    fn lost(&mut self, message: String) {
        self.changed = true;
        self.losses.add(message);
    }
}

/// Numbers and sizes of the images of an output in a folder, ascending. A folder that is not there has none. Blocks for the
/// disk.
fn spooled_images(folder: &Path, output: u32, codec: ImageCodec) -> Vec<(u32, u64)> {
    let Ok(entries) = fs::read_dir(folder) else { return vec![] };
    let of = |entry: fs::DirEntry| {
        let n = image_file::number(entry.file_name().to_str()?, output, codec)?;
        Some((n, entry.metadata().ok()?.len()))
    };
    let mut images: Vec<(u32, u64)> = entries.filter_map(|entry| of(entry.ok()?)).collect();
    images.sort_unstable();
    images
}

/// Removes the images of an output from a folder, and the folder if it is empty then. Blocks for the disk.
pub(crate) fn remove_images(folder: &Path, output: u32, codec: ImageCodec) {
    if folder.as_os_str().is_empty() {
        return;
    }
    for (n, _) in spooled_images(folder, output, codec) {
        let _ = fs::remove_file(folder.join(image_file::name(output, n, codec)));
    }
    let _ = fs::remove_file(folder.join(image_file::unfinished_name(output)));
    let _ = fs::remove_dir(folder);
}

#[cfg(test)]
mod tests;
