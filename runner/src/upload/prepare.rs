//! The outputs of one egress that end in a store, before their files are opened: stores are opened and tried, uploads whose
//! name is known are begun, and each file that opens gets its spool file and its upload task. Runs in the session's task.
//! Errors that may pass are no reason not to record.

use std::sync::Arc;
use std::time::Duration;

use chrono::NaiveDateTime;
use spillway_ipc::restart::RestartPoints;
use spillway_ipc::{Origin, SealTracker, SpoolReader, TrackFacts};
use spillway_plan::{AudioPlan, Container, Destination, Destinations, EgressPlan, FileOutput, Output, VideoPlan};
use spillway_process::chain;
use spillway_storage::{Meta, Storage, StorageError};
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::{Instrument, Span, info, warn};

use super::abort::abort;
use super::checkpoint::{CheckpointWriter, FLUSH_TIMEOUT, FileCheckpoint, UploadCheckpoint};
use super::outcome::UploadProgress;
use super::plan::PartLayout;
use super::settings::UploadSettings;
use super::spool;
use super::stores::StoreFactory;
use super::task::{FileUpload, SpoolProgress, UploadTarget, Uploader};
use crate::events::SessionEvent;
use crate::results::{self, OutputError, OutputPath};

/// For an abort of what was begun and is not wanted.
const ABORT_TIMEOUT: Duration = Duration::from_secs(5);

/// Everything uploads need besides the plan.
#[derive(Clone, Debug)]
pub struct UploadResources {
    /// By output; missing ones are on this machine's disk.
    pub destinations: Vec<Destinations>,
    /// Opens the stores.
    pub stores: Arc<dyn StoreFactory>,
    /// Keeps the state of all files for a salvage.
    pub checkpoint_writer: CheckpointWriter,
    /// Sizes, timeouts, spool folder.
    pub settings: UploadSettings,
}

/// The outputs of an egress that end in a store and are not opened yet.
pub struct PreparedOutputs {
    resources: UploadResources,
    /// By output; `None`: it stays on the disk, or its file is open.
    outputs: Vec<Option<PreparedOutput>>,
    session: mpsc::Sender<SessionEvent>,
}

/// A store that was tried, and what its upload is made of.
struct PreparedOutput {
    target: UploadTarget,
    backup: Option<Arc<dyn Storage>>,
    /// Not empty: the primary store refused, and the target is the backup.
    primary_error: String,
    /// The object's name, if it is known before the tracks are; then its upload is begun.
    name: Option<String>,
}

impl PreparedOutputs {
    /// Opens the stores and tries them, before anything is recorded.
    ///
    /// # Errors
    /// A store refuses for good and there is no backup that does not: the message for the user. A store that does not
    /// answer is no error.
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
                    let prepared = PreparedOutput::open(plan, output, destinations, &resources, now).await?;
                    prepared.checkpoint(u32::try_from(index).unwrap_or(u32::MAX), plan, output, &resources);
                    Some(prepared)
                }
            });
        }
        // Should this process die while it waits for media, a salvage has to know what to abort.
        resources.checkpoint_writer.flush(FLUSH_TIMEOUT).await;
        Ok(Self { resources, outputs, session })
    }

    /// File `file` opens under the name `asked`, or under the one its upload was begun with: its spool file is made and its
    /// upload task started. `None`: it stays on the disk.
    ///
    /// # Errors
    /// The spool file was not made; a retry is right only where the disk's error passes, and finds the output taken.
    pub async fn begin(
        &mut self,
        plan: &EgressPlan,
        file: u32,
        container: Container,
        asked: &str,
    ) -> Option<Result<(OutputPath, FileUpload), OutputError>> {
        let prepared = self.outputs.get_mut(file as usize)?.take()?;
        let filename = prepared.name.clone().unwrap_or_else(|| asked.to_owned());
        let path = spool::path(&self.resources.settings, plan, file, container);
        let display = prepared.target.store.location(&filename);
        let output_path = OutputPath { filename, location: path, display };
        let spooled = output_path.clone();
        let opened = spawn_blocking(move || {
            // Only this user can read it: it is a recording of people.
            spooled.prepare_private()?;
            match SpoolReader::open(&spooled.location) {
                Ok(reader) => Ok((reader, spool::free_bytes(&spooled.location))),
                Err(source) => Err(OutputError::File { path: spooled.location, source }),
            }
        });
        let (reader, free) = match opened.await.unwrap_or(Err(OutputError::NotRequested(file))) {
            Ok(opened) => opened,
            Err(error) => return Some(Err(error)),
        };
        info!(file = output_path.display, spool = %output_path.location.display(), "upload while recording");
        let opened = FileCheckpoint::new(file, output_path.filename.clone(), container, output_path.location.clone());
        self.resources.checkpoint_writer.opened(opened.clone());
        let spool_cap = self.resources.settings.spool_cap_bytes.min(free / 5 * 4);
        let upload = self.start(prepared, opened, reader, spool_cap, expected_bits(plan));
        Some(Ok((output_path, upload)))
    }

    fn start(
        &self,
        prepared: PreparedOutput,
        opened: FileCheckpoint,
        reader: SpoolReader,
        spool_cap: u64,
        bits_per_second: Option<u64>,
    ) -> FileUpload {
        let settings = self.resources.settings.clone();
        let (written, written_rx) = watch::channel(SpoolProgress::default());
        let (progress_tx, progress) = watch::channel(UploadProgress::default());
        let (commands, command_rx) = mpsc::channel(2);
        let uploader = Uploader {
            file: opened.file,
            asked_name: opened.filename.clone(),
            name: opened.filename,
            origin: Origin::default(),
            points: RestartPoints::new(opened.container),
            meta: Meta::of(opened.container.mime()),
            head: SealTracker::new(opened.container).head(),
            bits_per_second,
            target: prepared.target.clone(),
            backup: prepared.backup.clone(),
            primary_error: prepared.primary_error,
            spool: Arc::new(reader),
            spool_cap,
            settings: settings.clone(),
            checkpoint_writer: self.resources.checkpoint_writer.clone(),
            written: written_rx,
            commands: command_rx,
            progress: progress_tx,
            session: self.session.clone(),
        };
        FileUpload {
            primary: prepared.target.store,
            backup: prepared.backup,
            settings,
            path: opened.path,
            written,
            progress,
            commands,
            task: tokio::spawn(uploader.run().instrument(Span::current())),
        }
    }

    /// Nothing was recorded: uploads that were begun are aborted.
    pub async fn abandon(&mut self) {
        for prepared in self.outputs.iter_mut().filter_map(Option::take) {
            if let Some(upload) = &prepared.target.upload {
                abort(&*prepared.target.store, upload, ABORT_TIMEOUT).await;
            }
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

    fn checkpoint(&self, file: u32, plan: &EgressPlan, output: &FileOutput, resources: &UploadResources) {
        let (Some(name), Some(upload), Some(container)) = (&self.name, &self.target.upload, output.container) else {
            return;
        };
        let rules = self.target.store.rules();
        let path = spool::path(&resources.settings, plan, file, container);
        resources.checkpoint_writer.opened(FileCheckpoint {
            upload: Some(UploadCheckpoint {
                backup: !self.primary_error.is_empty(),
                upload: upload.clone(),
                completing: false,
                layout: PartLayout::of(&rules, &resources.settings.parts, 0, None),
                parts: vec![],
                left: vec![],
            }),
            ..FileCheckpoint::new(file, name.clone(), container, path)
        });
    }
}

/// Proves that we may write. If the object's name is known, its upload is begun for that.
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
        let guess = results::filename(plan, output, container, &TrackFacts::default(), now);
        spillway_plan::manifest::path(&guess, &plan.egress_id)
    };
    let meta = Meta::of(container.mime());
    let begin = async {
        match name {
            Some(name) => Ok(Some(store.begin(name, &meta).await?)),
            None => {
                let upload = store.begin(&probe(), &meta).await?;
                abort(&*store, &upload, ABORT_TIMEOUT).await;
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
        results::filename(&plan, output, container, &track, now)
    };
    let name = with("a");
    (name == with("b")).then_some(name)
}

/// Bits per second to be expected, where they were asked for.
fn expected_bits(plan: &EgressPlan) -> Option<u64> {
    let audio = match &plan.sound {
        Some(AudioPlan::Mixed { bitrate, .. }) => u64::from(*bitrate),
        Some(AudioPlan::Copied) => 128,
        None => 0,
    };
    let video = match &plan.picture {
        None => 0,
        Some(VideoPlan::Single(encoding) | VideoPlan::Composed { encoding, .. }) => u64::from(encoding.bitrate),
        Some(VideoPlan::Copied | VideoPlan::CopiedIfPossible(_)) => return None,
    };
    Some((audio + video) * 1000)
}
