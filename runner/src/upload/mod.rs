//! Spool ranges → stored, while they are still being written. `plan` says where a file is cut into parts and `machine`
//! what is sent when; `task` obeys them for one file; `checkpoint` is what another process needs to go on.

mod settings;
pub mod plan;
pub mod machine;
pub mod checkpoint;
pub mod stores;
mod task;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::NaiveDateTime;
use spillway_ipc::restart::{Origin, RestartPoints};
use spillway_ipc::{MediaEvent, SealTracker, SpoolReader, TrackFacts};
use spillway_plan::{AudioPlan, Container, Destination, Destinations, EgressPlan, FileOutput, Output, VideoPlan};
use spillway_process::chain;
use spillway_process::retry::RetrySchedule;
use spillway_storage::{Meta, Storage, StorageError};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{Instrument, Span, info, warn};

pub use settings::UploadSettings;

use crate::results::{OutputError, OutputPath};
use crate::session::machine::SessionEvent;
use checkpoint::{CheckpointWriter, FileCheckpoint, UploadCheckpoint};
use stores::StoreFactory;
use task::{SpoolProgress, UploadCommand, UploadTarget, Uploader};

/// For an abort of what was begun and is not wanted.
const ABORT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long Redis may keep us waiting.
const CHECKPOINT_TIMEOUT: Duration = Duration::from_millis(500);
/// How long the file of a dead task is, is known this well.
const CHECKPOINT_EVERY_NS: u64 = 500_000_000;
const MANIFEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Everything uploads need besides the plan.
#[derive(Clone, Debug)]
pub struct UploadResources {
    /// By output; missing ones are on this machine's disk.
    pub destinations: Vec<Destinations>,
    pub stores: Arc<dyn StoreFactory>,
    pub checkpoint_writer: CheckpointWriter,
    pub settings: UploadSettings,
}

/// An object that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredObject {
    /// Not always the one that was asked for.
    pub filename: String,
    pub location: String,
    pub bytes: u64,
    pub used_backup: bool,
    /// Media of the recording before the object's beginning, nanoseconds.
    pub skipped_ns: u64,
}

/// Why a file is not where it was asked to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadFailure {
    pub message: String,
    /// The beginning of it is, and so many nanoseconds of media are in that.
    pub kept: Option<(StoredObject, u64)>,
    /// Somebody else has completed or aborted the upload: nothing is to be said about it.
    pub gone: bool,
}

impl UploadFailure {
    fn nothing() -> Self {
        Self { message: "nothing was recorded".to_owned(), kept: None, gone: false }
    }
}

/// How far one upload is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UploadProgress {
    /// Bytes that survive the death of this machine.
    pub stored: u64,
    /// How much media behind what is in the file.
    pub behind_ms: u64,
    /// What the store says while it fails.
    pub error: String,
    /// The object's name; it changes when another has to be begun.
    pub name: String,
    /// For the user: what became of the upload.
    pub notes: Vec<String>,
}

/// The outputs of one egress that end in a store.
pub struct Uploads {
    resources: UploadResources,
    outputs: Vec<Option<PreparedOutput>>,
    running: Vec<RunningUpload>,
    session: mpsc::Sender<SessionEvent>,
    /// When files on the disk were last noted, nanoseconds of media.
    checkpointed_ns: Option<u64>,
}

/// Checked and not yet opened.
struct PreparedOutput {
    target: UploadTarget,
    backup: Option<Arc<dyn Storage>>,
    /// Why the target is the backup store already.
    primary_error: String,
    /// Known before the tracks are, and begun.
    name: Option<String>,
}

struct RunningUpload {
    file: u32,
    filename: String,
    primary: Arc<dyn Storage>,
    backup: Option<Arc<dyn Storage>>,
    path: PathBuf,
    written: watch::Sender<SpoolProgress>,
    progress: watch::Receiver<UploadProgress>,
    commands: mpsc::Sender<UploadCommand>,
    task: JoinHandle<()>,
}

impl Drop for RunningUpload {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Uploads {
    /// Opens the stores and tries them, before anything is recorded. Trouble that may pass is no reason not to record.
    pub async fn open(
        plan: &EgressPlan,
        resources: UploadResources,
        now: NaiveDateTime,
        session: mpsc::Sender<SessionEvent>,
    ) -> Result<Self, String> {
        let mut outputs = Vec::new();
        for (index, Output::File(output)) in plan.outputs.iter().enumerate() {
            outputs.push(match resources.destinations.get(index) {
                Some(Destinations { primary: Destination::Disk, .. }) | None => None,
                Some(destinations) => {
                    let ready = PreparedOutput::open(plan, output, destinations, &resources, now).await?;
                    ready.checkpoint(u32::try_from(index).unwrap_or(u32::MAX), plan, output, &resources);
                    Some(ready)
                }
            });
        }
        // Should we die while we wait for media, somebody has to know what to abort.
        resources.checkpoint_writer.flush(CHECKPOINT_TIMEOUT).await;
        Ok(Self { resources, outputs, running: vec![], session, checkpointed_ns: None })
    }

    pub fn is_stored(&self, file: u32) -> bool {
        self.outputs.get(file as usize).is_some_and(Option::is_some) || self.running(file).is_some()
    }

    fn running(&self, file: u32) -> Option<&RunningUpload> {
        self.running.iter().find(|running| running.file == file)
    }

    /// A file begins: answers where it lies in the spool. Its upload has begun when the first bytes are there.
    pub async fn opening(
        &mut self,
        plan: &EgressPlan,
        file: u32,
        container: Container,
        track: &TrackFacts,
        now: NaiveDateTime,
    ) -> Option<Result<OutputPath, OutputError>> {
        let ready = self.outputs.get_mut(file as usize)?.take()?;
        let Some(Output::File(output)) = plan.outputs.get(file as usize) else {
            return Some(Err(OutputError::NotRequested(file)));
        };
        let asked = OutputPath::of(plan, output, container, track, now, Path::new("/"));
        let filename = ready.name.clone().unwrap_or(asked.filename);
        let location = ready.target.store.location(&filename);
        let path = spool_path(&self.resources.settings, plan, file, container);
        let output_path = OutputPath { filename, location: path, display: location };
        let prepared = output_path.clone();
        let opened = tokio::task::spawn_blocking(move || {
            // Nobody but us: it is a recording of people.
            prepared.prepare_private()?;
            SpoolReader::open(&prepared.location)
                .map(|spool| {
                    let free = free_bytes(&prepared.location);
                    (spool, free)
                })
                .map_err(|source| OutputError::File { path: prepared.location.clone(), source })
        });
        let (spool, free) = match opened.await.unwrap_or(Err(OutputError::NotRequested(file))) {
            Ok(opened) => opened,
            Err(error) => return Some(Err(error)),
        };
        info!(file = output_path.display, spool = %output_path.location.display(), "upload while recording");
        let settings = self.resources.settings.clone();
        let spool_cap = settings.spool_cap_bytes.min(free / 5 * 4);
        let (written, written_rx) = watch::channel(SpoolProgress::default());
        let (progress_tx, progress) = watch::channel(UploadProgress::default());
        let (commands, command_rx) = mpsc::channel(2);
        self.resources.checkpoint_writer.opened(FileCheckpoint {
            file,
            filename: output_path.filename.clone(),
            container,
            started_at: None,
            media: vec![],
            path: output_path.location.clone(),
            upload: None,
            origin: Origin::default(),
            kept_from: 0,
        });
        let running = Uploader {
            file,
            asked_name: output_path.filename.clone(),
            name: output_path.filename.clone(),
            origin: Origin::default(),
            points: RestartPoints::new(container),
            meta: Meta::of(container.mime()),
            head: SealTracker::new(container).head(),
            bits_per_second: expected_bits(plan),
            target: ready.target.clone(),
            backup: ready.backup.clone(),
            primary_error: ready.primary_error,
            spool: Arc::new(spool),
            spool_cap,
            settings,
            checkpoint_writer: self.resources.checkpoint_writer.clone(),
            written: written_rx,
            commands: command_rx,
            progress: progress_tx,
            session: self.session.clone(),
        };
        self.running.push(RunningUpload {
            file,
            filename: output_path.filename.clone(),
            primary: ready.target.store,
            backup: ready.backup,
            path: output_path.location.clone(),
            written,
            progress,
            commands,
            task: tokio::spawn(running.run().instrument(Span::current())),
        });
        Some(Ok(output_path))
    }

    /// A file that stays on the disk is known to a salvage too.
    pub fn opened_on_disk(&self, file: u32, container: Container, output_path: &OutputPath) {
        self.resources.checkpoint_writer.opened(FileCheckpoint {
            file,
            filename: output_path.filename.clone(),
            container,
            started_at: None,
            media: vec![],
            path: output_path.location.clone(),
            upload: None,
            origin: Origin::default(),
            kept_from: 0,
        });
    }

    /// Never waits.
    pub fn on_media_event(&mut self, media_event: &MediaEvent) {
        match media_event {
            MediaEvent::Started { at } => {
                for file in 0..u32::try_from(self.outputs.len()).unwrap_or(0) {
                    self.resources
                        .checkpoint_writer
                        .update(file, |checkpoint| checkpoint.started_at = checkpoint.started_at.or(Some(*at)));
                }
            }
            MediaEvent::Wrote { file, end, sealed_to, media_ns } => match self.running(*file) {
                Some(running) => {
                    running.written.send_replace(SpoolProgress { sealed_to: *sealed_to, media_ns: *media_ns });
                }
                None if self.checkpointed_ns.is_none_or(|noted| *media_ns >= noted + CHECKPOINT_EVERY_NS) => {
                    self.checkpointed_ns = Some(*media_ns);
                    self.resources
                        .checkpoint_writer
                        .update(*file, |checkpoint| checkpoint.media = vec![(*end, *media_ns)]);
                }
                None => {}
            },
            _ => {}
        }
    }

    /// Of each file in a store: where it will be, and how far it is.
    pub fn progress(&self) -> impl Iterator<Item = (String, UploadProgress)> {
        self.running.iter().map(|running| {
            let progress = running.progress.borrow().clone();
            let name = if progress.name.is_empty() { &running.filename } else { &progress.name };
            (running.primary.location(name), progress)
        })
    }

    /// What the user should know of a file's upload.
    pub fn notes(&self, file: u32) -> Vec<String> {
        self.running(file).map(|running| running.progress.borrow().notes.clone()).unwrap_or_default()
    }

    /// The file is as it will be, whoever ended it: stores all that was written. Bounded by the settings' patience.
    pub async fn finish(&self, file: u32) -> Option<Result<StoredObject, UploadFailure>> {
        let running = self.running(file)?;
        let (done, result) = oneshot::channel();
        let lost = || UploadFailure { message: "upload was lost".to_owned(), kept: None, gone: true };
        if running.commands.send(UploadCommand::Finish(done)).await.is_err() {
            return Some(Err(lost()));
        }
        let result = result.await.unwrap_or_else(|_| Err(lost()));
        if result.is_ok() {
            self.clear(running).await;
        }
        Some(result)
    }

    /// Where a file that could not be stored still lies.
    pub fn spooled(&self, file: u32) -> Option<&Path> {
        self.running(file).map(|running| running.path.as_path())
    }

    async fn clear(&self, running: &RunningUpload) {
        let path = running.path.clone();
        let removed = tokio::task::spawn_blocking(move || remove_spooled(&path)).await;
        if let Ok(Err(error)) = removed {
            warn!(%error, path = %running.path.display(), "spool not removed");
        }
    }

    /// Nothing was recorded: nothing stays anywhere.
    pub async fn abandon(&mut self) {
        for ready in self.outputs.iter_mut().filter_map(Option::take) {
            if let Some(upload) = &ready.target.upload {
                abort(&*ready.target.store, upload).await;
            }
        }
        for running in &self.running {
            let (done, dropped) = oneshot::channel();
            if running.commands.send(UploadCommand::Drop(done)).await.is_ok() {
                let _ = timeout(ABORT_TIMEOUT, dropped).await;
            }
            self.clear(running).await;
        }
    }

    pub fn has_backup(&self, file: u32) -> bool {
        self.running(file).is_some_and(|running| running.backup.is_some())
    }

    /// A small object beside a file.
    pub async fn put_beside(
        &self,
        file: u32,
        backup: bool,
        name: &str,
        bytes: Bytes,
    ) -> Option<Result<String, String>> {
        let running = self.running(file)?;
        let store = running.backup.as_ref().filter(|_| backup).unwrap_or(&running.primary);
        let settings = &self.resources.settings;
        let mut waits =
            RetrySchedule::new(Duration::from_millis(settings.first_wait_ms.min(1000)), Duration::from_secs(5));
        let give_up = Instant::now() + MANIFEST_TIMEOUT.min(Duration::from_millis(settings.max_outage_ms));
        let meta = Meta::of("application/json");
        loop {
            let message = match timeout_at(give_up, store.put(name, bytes.clone(), &meta)).await {
                Ok(Ok(stored)) => return Some(Ok(stored.location)),
                Ok(Err(error)) if !error.is_transient() => return Some(Err(error.to_string())),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no answer".to_owned(),
            };
            let wait = waits.wait();
            if Instant::now() + wait >= give_up {
                return Some(Err(message));
            }
            sleep(wait).await;
        }
    }
}

impl PreparedOutput {
    async fn open(
        plan: &EgressPlan,
        output: &FileOutput,
        destinations: &Destinations,
        resources: &UploadResources,
        now: NaiveDateTime,
    ) -> Result<Self, String> {
        let backup = match &destinations.backup {
            Some(destination @ Destination::Store(_)) => {
                Some(resources.stores.open(destination).await.map_err(|error| error.to_string())?)
            }
            _ => None,
        };
        let name = known_name(plan, output, now);
        let checked = match resources.stores.open(&destinations.primary).await {
            Ok(store) => check(store, plan, output, name.as_deref(), resources, now).await,
            Err(error) => Err(error),
        };
        let primary_error = match checked {
            Ok(target) => return Ok(Self { target, backup, primary_error: String::new(), name }),
            Err(error) => {
                warn!(%error, cause = %chain(&error), "store refuses");
                error.to_string()
            }
        };
        let Some(backup) = backup else { return Err(primary_error) };
        let target = check(backup, plan, output, name.as_deref(), resources, now)
            .await
            .map_err(|error| format!("primary: {primary_error}\nbackup: {error}"))?;
        Ok(Self { target, backup: None, primary_error, name })
    }
}

impl PreparedOutput {
    fn checkpoint(&self, file: u32, plan: &EgressPlan, output: &FileOutput, resources: &UploadResources) {
        let (Some(name), Some(upload), Some(container)) = (&self.name, &self.target.upload, output.container) else {
            return;
        };
        let rules = self.target.store.rules();
        resources.checkpoint_writer.opened(FileCheckpoint {
            file,
            filename: name.clone(),
            container,
            started_at: None,
            media: vec![],
            path: spool_path(&resources.settings, plan, file, container),
            upload: Some(UploadCheckpoint {
                backup: !self.primary_error.is_empty(),
                upload: upload.clone(),
                completing: false,
                layout: plan::PartLayout::of(&rules, &resources.settings.parts, 0, None),
                parts: vec![],
                left: vec![],
            }),
            origin: Origin::default(),
            kept_from: 0,
        });
    }
}

fn spool_path(settings: &UploadSettings, plan: &EgressPlan, file: u32, container: Container) -> PathBuf {
    settings.spool().join(&plan.egress_id).join(format!("{file}{}", container.extension()))
}

/// Proves that we may write. A name that is known already is begun, and so is its upload.
async fn check(
    store: Arc<dyn Storage>,
    plan: &EgressPlan,
    output: &FileOutput,
    name: Option<&str>,
    resources: &UploadResources,
    now: NaiveDateTime,
) -> Result<UploadTarget, StorageError> {
    if !resources.settings.write_check {
        return Ok(UploadTarget { store, upload: None });
    }
    let container = output.container.unwrap_or(Container::Mp4);
    let probe = || {
        let guess = OutputPath::of(plan, output, container, &TrackFacts::default(), now, Path::new("/")).filename;
        spillway_plan::manifest::path(&guess, &plan.egress_id)
    };
    let meta = Meta::of(container.mime());
    let begin = async {
        match name {
            Some(name) => Ok(Some(store.begin(name, &meta).await?)),
            None => {
                let upload = store.begin(&probe(), &meta).await?;
                abort(&*store, &upload).await;
                Ok(None)
            }
        }
    };
    match timeout(Duration::from_millis(resources.settings.write_check_ms), begin).await {
        Ok(Ok(upload)) => Ok(UploadTarget { store, upload }),
        Ok(Err(error)) if !StorageError::is_transient(&error) => Err(error),
        Ok(Err(error)) => {
            warn!(%error, "store does not answer yet, the recording begins without it");
            Ok(UploadTarget { store, upload: None })
        }
        Err(_) => {
            warn!(store = store.name(), "store does not answer yet, the recording begins without it");
            Ok(UploadTarget { store, upload: None })
        }
    }
}

/// The object's name, if no fact that is still to come is part of it.
fn known_name(plan: &EgressPlan, output: &FileOutput, now: NaiveDateTime) -> Option<String> {
    let container = output.container?;
    let with = |mark: &str| {
        let mut plan = plan.clone();
        if plan.room_id.is_empty() {
            plan.room_id = mark.to_owned();
        }
        let track = TrackFacts {
            publisher_identity: mark.to_owned(),
            track_id: mark.to_owned(),
            track_kind: mark.to_owned(),
            track_source: mark.to_owned(),
            ..TrackFacts::default()
        };
        OutputPath::of(&plan, output, container, &track, now, Path::new("/")).filename
    };
    let name = with("a");
    (name == with("b")).then_some(name)
}

/// Bits per second to be expected, where they were asked for.
fn expected_bits(plan: &EgressPlan) -> Option<u64> {
    let sound = match &plan.sound {
        Some(AudioPlan::Mixed { bitrate, .. }) => u64::from(*bitrate),
        Some(AudioPlan::Copied) => 128,
        None => 0,
    };
    let picture = match &plan.picture {
        None => 0,
        Some(VideoPlan::Single(encoding) | VideoPlan::Composed { encoding, .. }) => u64::from(encoding.bitrate),
        Some(VideoPlan::Copied | VideoPlan::CopiedIfPossible(_)) => return None,
    };
    Some((sound + picture) * 1000)
}

async fn abort(store: &dyn Storage, upload: &spillway_storage::Upload) {
    match timeout(ABORT_TIMEOUT, store.abort(upload)).await {
        Ok(Ok(())) => {}
        // A right that many keys lack; the bucket's life cycle does it.
        Ok(Err(error)) => warn!(%error, "unfinished upload stays in the store"),
        Err(_) => warn!(store = store.name(), "unfinished upload stays in the store: no answer"),
    }
}

/// A file of the spool, and its folder if it was the last there.
pub fn remove_spooled(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    if let Some(folder) = path.parent() {
        let _ = std::fs::remove_dir(folder);
    }
    Ok(())
}

fn free_bytes(path: &Path) -> u64 {
    rustix::fs::statvfs(path).map_or(u64::MAX, |disk| disk.f_bavail.saturating_mul(disk.f_frsize))
}
