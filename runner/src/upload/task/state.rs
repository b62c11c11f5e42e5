//! State of one upload task: what it was made with and what it knows. Nothing here waits or asks a store; the files beside
//! it change the state.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use spillway_ipc::restart::RestartPoints;
use spillway_ipc::{Origin, SpoolReader};
use spillway_storage::{Meta, PartTag, Storage, StorageError, Stored, Upload};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::events::SessionEvent;
use crate::upload::checkpoint::CheckpointWriter;
use crate::upload::machine::UploadMachine;
use crate::upload::names::ObjectNames;
use crate::upload::outage::StoreOutage;
use crate::upload::outcome::{StoredObject, UploadFailure, UploadProgress};
use crate::upload::parts::PartRequest;
use crate::upload::plan::PartLayout;
use crate::upload::settings::UploadSettings;

/// How far the file is, as the media process said last: `FileUpload::wrote`.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::upload) struct SpoolProgress {
    /// Bytes of the file before this one are final, except those of the head.
    pub sealed_to: u64,
    /// Nanoseconds of media in the file.
    pub media_ns: u64,
}

/// What the handle asks of the task.
#[derive(Debug)]
pub(in crate::upload) enum UploadCommand {
    /// The file is as it will be: store all of it.
    Finish(oneshot::Sender<Result<StoredObject, UploadFailure>>),
    /// Nothing of it is wanted.
    Drop(oneshot::Sender<()>),
}

/// A store and the upload that may have been begun there already.
#[derive(Clone, Debug)]
pub(in crate::upload) struct UploadTarget {
    /// Where the object goes.
    pub store: Arc<dyn Storage>,
    /// `None`: not begun yet.
    pub upload: Option<Upload>,
}

/// What an upload is made with; the object's part of it changes when another has to be begun.
pub(in crate::upload) struct Uploader {
    /// Number of the file in the recording.
    pub file: u32,
    /// Which output of the plan it is made for.
    pub output: u32,
    /// The object's name as it was asked for; those begun later are numbered.
    pub asked_name: String,
    /// Gives names to those.
    pub names: ObjectNames,
    /// The object's name.
    pub name: String,
    /// What of the spool the object is made of.
    pub origin: Origin,
    /// Where another object could begin.
    pub points: RestartPoints,
    /// Content type.
    pub meta: Meta,
    /// Bytes at the start of the file that are rewritten when it ends.
    pub head: u64,
    /// Of the recording, where it is known beforehand.
    pub bits_per_second: Option<u64>,
    /// The store in use and its upload.
    pub target: UploadTarget,
    /// The other store; after the change the primary one.
    pub backup: Option<Arc<dyn Storage>>,
    /// Why the primary store was given up. Not empty at the start: it refused then, and the target is the backup.
    pub primary_error: String,
    /// The file.
    pub spool: Arc<SpoolReader>,
    /// Bytes the spool file may take from the disk.
    pub spool_cap: u64,
    /// Sizes and timeouts.
    pub settings: UploadSettings,
    /// Keeps the state for a salvage.
    pub checkpoint_writer: CheckpointWriter,
    /// How far the file is.
    pub written: watch::Receiver<SpoolProgress>,
    /// Finish or drop; closed when the handle is gone.
    pub commands: mpsc::Receiver<UploadCommand>,
    /// How far the upload is.
    pub progress: watch::Sender<UploadProgress>,
    /// For notes, and for a spool that is full.
    pub session: mpsc::Sender<SessionEvent>,
}

/// What a request beside the task came to.
pub(super) enum OperationResult {
    Begun(Result<Upload, StorageError>),
    Read { put: PartRequest, bytes: io::Result<Bytes> },
    Sent { put: PartRequest, result: Result<PartTag, StorageError> },
    Completed(Result<Stored, StorageError>),
}

/// What changes while the task runs.
pub(super) struct UploadTaskState {
    pub(super) machine: UploadMachine,
    pub(super) in_flight: JoinSet<OperationResult>,
    pub(super) outage: StoreOutage,
    pub(super) on_backup: bool,
    /// Uploads at the primary store that are to be aborted in the end.
    pub(super) left: Vec<Upload>,
    pub(super) beginning: bool,
    pub(super) completing: bool,
    /// Nothing of the file from here on was given back to the disk: a restart point as long as there is one.
    pub(super) kept_from: u64,
    /// Ranges of the file that are stored and still take room.
    pub(super) stored: Vec<Range<u64>>,
    /// Uploads that were taken from us since a part was stored last.
    pub(super) taken_away: u32,
    /// Media before the object's beginning, nanoseconds.
    pub(super) skipped_ns: u64,
    /// The store was asked to make the object and did not answer.
    pub(super) unanswered: bool,
    /// The upload was taken away, and why no other can take its place.
    pub(super) lost: Option<String>,
    /// For the user, in `details`.
    pub(super) notes: Vec<String>,
    /// Bytes the spool takes from the disk.
    pub(super) used: u64,
    pub(super) full_reported: bool,
    /// The head as it was last read for sending.
    pub(super) head: Option<Bytes>,
    /// (bytes of the object, nanoseconds of media in them), ascending.
    pub(super) samples: Vec<(u64, u64)>,
    pub(super) checkpointed_at: Instant,
    pub(super) closed_at: Option<Instant>,
    pub(super) finish: Option<oneshot::Sender<Result<StoredObject, UploadFailure>>>,
}

/// Whether the task goes on.
pub(super) enum UploadFlow {
    Continue,
    /// The result was answered.
    Done,
}

impl UploadTaskState {
    pub(super) fn new(uploader: &Uploader) -> Self {
        Self {
            machine: uploader.machine(),
            in_flight: JoinSet::new(),
            outage: StoreOutage::new(&uploader.settings),
            on_backup: !uploader.primary_error.is_empty(),
            left: vec![],
            beginning: false,
            completing: false,
            kept_from: 0,
            stored: vec![],
            taken_away: 0,
            skipped_ns: 0,
            unanswered: false,
            lost: None,
            notes: vec![],
            used: 0,
            full_reported: false,
            head: None,
            samples: vec![],
            checkpointed_at: Instant::now(),
            closed_at: None,
            finish: None,
        }
    }
}

impl Uploader {
    /// How the object is cut into parts.
    pub(super) fn layout(&self) -> PartLayout {
        PartLayout::of(&self.target.store.rules(), &self.settings.parts, self.rewritten(), self.bits_per_second)
    }

    /// Bytes at the object's start that are sent once more at the end.
    pub(super) fn rewritten(&self) -> u64 {
        if self.origin.is_whole() { self.head } else { 0 }
    }

    /// For an object of which nothing is sent yet.
    pub(super) fn machine(&self) -> UploadMachine {
        UploadMachine::new(self.layout(), self.target.store.rules(), self.settings.tuning())
    }

    pub(super) fn kept(&self, state: &UploadTaskState, location: String, bytes: u64) -> StoredObject {
        StoredObject {
            filename: self.name.clone(),
            location,
            bytes,
            used_backup: state.on_backup,
            skipped_ns: state.skipped_ns,
        }
    }
}
