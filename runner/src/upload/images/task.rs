//! The task of the upload of one image output: images and commands of its handle go in, and progress and in the end the result
//! come out. It asks `machine` what to send, `objects` sends it.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use spillway_ipc::image_file;
use spillway_plan::ImageCodec;
use spillway_storage::Meta;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::spawn_blocking;
use tracing::info;

use super::machine::{ImagesAction, ImagesMachine};
use super::outcome::{ImagesCommand, ImagesResult, ImagesStatus};
use super::saved::ImagesCheckpoint;
use crate::upload::checkpoint::{CheckpointWriter, FLUSH_TIMEOUT};
use crate::upload::objects::{ObjectEvent, ObjectFile, ObjectUploads};
use crate::upload::outcome::LossReasons;

const MANIFEST_TIMEOUT: Duration = Duration::from_secs(30);

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
    rest: Option<oneshot::Sender<()>>,
    /// Something of the checkpoint has changed.
    changed: bool,
}

impl ImagesUploader {
    /// Until everything is stored or given up and the handle is dropped.
    pub(super) async fn run(
        mut self,
        mut commands: mpsc::UnboundedReceiver<ImagesCommand>,
        status: watch::Sender<ImagesStatus>,
    ) {
        let mut state = ImagesUploaderState { changed: true, ..ImagesUploaderState::default() };
        loop {
            self.send_what_is_due();
            self.keep_within_cap(&mut state);
            self.publish(&mut state, &status);
            if self.machine.is_complete()
                && let Some(done) = state.rest.take()
            {
                let _ = done.send(());
            }
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
            ImagesCommand::Interrupted { next_n } => {
                self.take_leftover(next_n).await;
                state.changed = true;
            }
            ImagesCommand::Rest(done) => {
                self.take_leftover(u32::MAX).await;
                (state.rest, state.changed) = (Some(done), true);
            }
            ImagesCommand::Finish(done) => {
                self.take_leftover(u32::MAX).await;
                self.objects.close();
                state.finish = Some(done);
                state.changed = true;
            }
            // The one comes after the end only, the other ends the task.
            ImagesCommand::PutBeside { .. } | ImagesCommand::Drop(_) => {}
        }
    }

    /// Images before number `below` of which the media process has said nothing.
    async fn take_leftover(&mut self, below: u32) {
        let plan = self.machine.plan();
        let (folder, output, codec) = (plan.folder.clone(), plan.output, plan.names.codec);
        let left = spawn_blocking(move || spooled_images(&folder, output, codec)).await.unwrap_or_default();
        for (n, bytes) in left.into_iter().filter(|(n, _)| *n < below) {
            self.machine.left_behind(n, bytes);
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
    if !folder.as_os_str().is_empty() {
        clear_images(folder, output, codec);
        let _ = fs::remove_dir(folder);
    }
}

/// The same, and the folder stays: another media process writes there.
pub(crate) fn clear_images(folder: &Path, output: u32, codec: ImageCodec) {
    for (n, _) in spooled_images(folder, output, codec) {
        let _ = fs::remove_file(folder.join(image_file::name(output, n, codec)));
    }
    let _ = fs::remove_file(folder.join(image_file::unfinished_name(output)));
}

/// Behind the last image of an output in a folder; 0: there is none. Blocks for the disk.
pub(crate) fn next_number(folder: &Path, output: u32, codec: ImageCodec) -> u32 {
    spooled_images(folder, output, codec).last().map_or(0, |(last, _)| last.saturating_add(1))
}

#[cfg(test)]
mod tests;
