//! The files of one egress that end in a store, before they are opened: stores are opened and tried, uploads whose
//! name is known are begun, and each file that opens gets its spool file and its upload task. Runs in the session's task.
//! Errors that may pass are no reason not to record.

use std::sync::Arc;

use chrono::NaiveDateTime;
use futures_util::future::join_all;
use spillway_ipc::restart::RestartPoints;
use spillway_ipc::{Origin, SealTracker, SpoolReader, TrackFacts};
use spillway_plan::{
    AudioPlan, Container, Destination, Destinations, EgressPlan, FileOutput, Output, OutputKind, VideoPlan,
};
use spillway_process::chain;
use spillway_storage::{Meta, Storage, StorageError};
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;
use tracing::{Instrument, Span, info, warn};

use super::abort::{ABORT_TIMEOUT, abort, tried};
use super::checkpoint::{CheckpointWriter, FLUSH_TIMEOUT, FileCheckpoint, UploadCheckpoint};
use super::names::ObjectNames;
use super::outcome::UploadProgress;
use super::plan::PartLayout;
use super::settings::UploadSettings;
use super::spool;
use super::stores::{OpenedStores, StoreFactory};
use super::task::{FileUpload, SpoolProgress, UploadTarget, Uploader};
use crate::events::SessionEvent;
use crate::results::{self, FileNumber, OutputError, OutputPath};

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

/// The file outputs of an egress that end in a store.
pub struct PreparedOutputs {
    resources: UploadResources,
    /// By output; `None`: it stays on the disk.
    outputs: Vec<Option<PreparedOutput>>,
    /// By output, of every kind.
    names: Vec<ObjectNames>,
    session: mpsc::Sender<SessionEvent>,
}

/// A store that was tried, and what its upload is made of.
#[derive(Clone)]
struct PreparedOutput {
    target: UploadTarget,
    backup: Option<Arc<dyn Storage>>,
    /// Not empty: the primary store refused, and the target is the backup.
    primary_error: String,
    /// The name of the output's first object, if it is known before the tracks are and its file is not opened yet; then
    /// its upload is begun.
    name: Option<String>,
    /// Gives names to its objects.
    names: ObjectNames,
}

/// Number, output and destinations of each file of the plan that ends in a store.
fn stored_files<'p, 'r>(
    plan: &'p EgressPlan,
    resources: &'r UploadResources,
) -> impl Iterator<Item = (u32, &'p FileOutput, &'r Destinations)> {
    let stored = (0..).zip(&resources.destinations).filter(|(_, to)| matches!(to.primary, Destination::Store(_)));
    stored.filter_map(move |(number, destinations)| Some((number, plan.file(number)?, destinations)))
}

/// Bytes of the spool that one output may take where `free` are free: all that lie there share them alike.
pub fn spool_share(plan: &EgressPlan, resources: &UploadResources, free: u64) -> u64 {
    let files = stored_files(plan, resources).count();
    let objects = |output: &&Output| matches!(output.kind(), OutputKind::Segments | OutputKind::Images);
    let others = plan.outputs.iter().filter(objects).count();
    resources.settings.spool_cap_bytes.min(free / 5 * 4) / (files + others).max(1) as u64
}

impl PreparedOutputs {
    /// Opens the stores and tries them, all at once, before anything is recorded. `taken`: by output, names of what a task
    /// before this one has recorded.
    ///
    /// # Errors
    /// A store refuses for good and there is no backup that does not: the message for the user. A store that does not
    /// answer is no error.
    pub async fn open(
        plan: &EgressPlan,
        resources: UploadResources,
        now: NaiveDateTime,
        session: mpsc::Sender<SessionEvent>,
        taken: &[(u32, String)],
    ) -> Result<Self, String> {
        let destinations = stored_files(plan, &resources).map(|(_, _, destinations)| destinations);
        let stores = OpenedStores::open(destinations, &*resources.stores).await;
        let all_names = ObjectNames::of_outputs(&resources.destinations);
        for (output, name) in taken {
            if let Some(names) = all_names.get(*output as usize) {
                names.occupy(name);
            }
        }
        let opening = stored_files(plan, &resources).map(|(number, output, destinations)| {
            let names = all_names.get(number as usize).cloned().unwrap_or_default();
            // One that has a file already goes on in another, whose name is numbered.
            let is_first = taken.iter().all(|(of, _)| *of != number);
            // In the order of the request: the first output of a name has it.
            let name = known_name(plan, output, now).filter(|_| is_first).map(|name| names.take(&name));
            let (stores, resources) = (&stores, &resources);
            async move {
                (number, PreparedOutput::open(plan, output, destinations, stores, (name, names), resources, now).await)
            }
        });
        // The names are taken before the first store is tried.
        let opening: Vec<_> = opening.collect();
        let (mut outputs, mut refused) = (vec![None; plan.outputs.len()], None);
        for (number, opened) in join_all(opening).await {
            match (opened, outputs.get_mut(number as usize)) {
                (Ok(prepared), Some(place)) => *place = Some(prepared),
                (Ok(_), None) => {}
                (Err(message), _) => refused = refused.or(Some(message)),
            }
        }
        drop(stores);
        let mut prepared = Self { resources, outputs, names: all_names, session };
        if let Some(message) = refused {
            prepared.abandon().await;
            return Err(message);
        }
        prepared.checkpoint(plan);
        // Should this process die while it waits for media, a salvage has to know what to abort.
        prepared.resources.checkpoint_writer.flush(FLUSH_TIMEOUT).await;
        Ok(prepared)
    }

    /// Gives names to the objects of output `output`, of whatever kind it is.
    pub(crate) fn names(&self, output: u32) -> ObjectNames {
        self.names.get(output as usize).cloned().unwrap_or_default()
    }

    fn checkpoint(&self, plan: &EgressPlan) {
        for (number, output, _) in stored_files(plan, &self.resources) {
            if let Some(Some(prepared)) = self.outputs.get(number as usize) {
                prepared.checkpoint(number, plan, output, &self.resources);
            }
        }
    }

    /// A file opens under the name `asked`, or under the one its upload was begun with: its spool file is made and its upload
    /// task started. `None`: it stays on the disk.
    ///
    /// # Errors
    /// The spool file was not made; a retry is right only where the disk's error passes.
    pub async fn begin(
        &mut self,
        plan: &EgressPlan,
        number: FileNumber,
        container: Container,
        asked: &str,
    ) -> Option<Result<(OutputPath, FileUpload), OutputError>> {
        let output = number.output as usize;
        let prepared = self.outputs.get(output)?.clone()?;
        let filename = prepared.name.clone().unwrap_or_else(|| prepared.names.take(asked));
        let path = spool::path(&self.resources.settings, plan, number.file, container);
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
        let (reader, free) = match opened.await.unwrap_or(Err(OutputError::NotRequested(number.output))) {
            Ok(opened) => opened,
            Err(error) => return Some(Err(error)),
        };
        // What was begun is this file's; another one of the output begins for itself.
        if let Some(Some(known)) = self.outputs.get_mut(output) {
            (known.name, known.target.upload) = (None, None);
        }
        info!(file = output_path.display, spool = %output_path.location.display(), "upload while recording");
        let (filename, location) = (output_path.filename.clone(), output_path.location.clone());
        let opened = FileCheckpoint::new(number, filename, container, location);
        self.resources.checkpoint_writer.opened(opened.clone());
        let spool_cap = spool_share(plan, &self.resources, free);
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
            output: opened.output(),
            asked_name: opened.filename.clone(),
            names: prepared.names,
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
        let outputs: Vec<PreparedOutput> = self.outputs.iter_mut().filter_map(Option::take).collect();
        let aborting = outputs.iter().filter_map(|prepared| {
            let upload = prepared.target.upload.as_ref()?;
            Some(abort(&*prepared.target.store, upload, ABORT_TIMEOUT))
        });
        let aborting: Vec<_> = aborting.collect();
        join_all(aborting).await;
    }
}

impl PreparedOutput {
    async fn open(
        plan: &EgressPlan,
        output: &FileOutput,
        destinations: &Destinations,
        stores: &OpenedStores<'_>,
        (name, names): (Option<String>, ObjectNames),
        resources: &UploadResources,
        now: NaiveDateTime,
    ) -> Result<Self, String> {
        let backup = destinations.backup.as_ref().and_then(|destination| stores.get(destination));
        let backup = backup.transpose().map_err(StorageError::to_string)?;
        let refused = |error: &StorageError| {
            warn!(%error, cause = %chain(error), "store refuses");
            error.to_string()
        };
        let checked = match stores.get(&destinations.primary) {
            Some(Ok(store)) => {
                let checked = check(store, plan, output, name.as_deref(), resources, now).await;
                checked.map_err(|error| refused(&error))
            }
            Some(Err(error)) => Err(refused(error)),
            None => Err("no store".to_owned()),
        };
        let primary_error = match checked {
            Ok(target) => return Ok(Self { target, backup, primary_error: String::new(), name, names }),
            Err(message) => message,
        };
        let Some(backup) = backup else { return Err(primary_error) };
        let target = check(backup, plan, output, name.as_deref(), resources, now)
            .await
            .map_err(|error| format!("primary: {primary_error}\nbackup: {error}"))?;
        Ok(Self { target, backup: None, primary_error, name, names })
    }

    /// Keeps what was begun for the first file of output `number`, which has the output's number.
    fn checkpoint(&self, number: u32, plan: &EgressPlan, output: &FileOutput, resources: &UploadResources) {
        let (Some(name), Some(upload), Some(container)) = (&self.name, &self.target.upload, output.container) else {
            return;
        };
        let rules = self.target.store.rules();
        let path = spool::path(&resources.settings, plan, number, container);
        resources.checkpoint_writer.opened(FileCheckpoint {
            upload: Some(UploadCheckpoint {
                backup: !self.primary_error.is_empty(),
                upload: upload.clone(),
                completing: false,
                stored: None,
                layout: PartLayout::of(&rules, &resources.settings.parts, 0, None),
                parts: vec![],
                left: vec![],
            }),
            ..FileCheckpoint::new(FileNumber::new(plan, number, number), name.clone(), container, path)
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
    let container = output.container.unwrap_or(Container::Mp4);
    let guess = results::filename(plan, output, container, &TrackFacts::default(), now);
    let probe = spillway_plan::manifest::path(&guess, &plan.egress_id);
    let meta = Meta::of(container.mime());
    let upload = tried(&*store, &resources.settings, &meta, name, &probe).await?;
    Ok(UploadTarget { store, upload })
}

/// The object's name, if no fact that is still to come is part of it.
fn known_name(plan: &EgressPlan, output: &FileOutput, now: NaiveDateTime) -> Option<String> {
    let container = output.container?;
    results::known(plan, |plan, track| results::filename(plan, output, container, track, now))
}

/// Bits per second to be expected, where they were asked for.
fn expected_bits(plan: &EgressPlan) -> Option<u64> {
    let audio = match &plan.sound {
        Some(AudioPlan::Mixed { bitrate, .. }) => u64::from(*bitrate),
        Some(AudioPlan::Copied) => 128,
        Some(AudioPlan::Raw { .. }) | None => 0,
    };
    let video = match &plan.picture {
        None => 0,
        Some(VideoPlan::Single(encoding) | VideoPlan::Composed { encoding, .. }) => u64::from(encoding.bitrate),
        Some(VideoPlan::Copied | VideoPlan::CopiedIfPossible(_)) => return None,
    };
    Some((audio + video) * 1000)
}
