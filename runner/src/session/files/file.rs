//! One file of a recording: its state from opening to result, and what the disk has of it. Values that the session's task
//! owns; [`DiskLook`] blocks, and runs elsewhere.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use spillway_ipc::{Quality, TrackFacts};
use spillway_protocol::ledger::Fact;
use tracing::debug;

use crate::results::claim::Claim;
use crate::results::{FileNumber, FileResult, OutputPath};
use crate::upload::checkpoint::CheckpointWriter;
use crate::upload::{FileUpload, StoredObject, UploadFailure};

/// How exactly the checkpoint knows the length of a file on the disk, nanoseconds of media.
const CHECKPOINT_EVERY_NS: u64 = 500_000_000;

/// One file of this egress.
pub(super) struct SessionFile {
    pub(super) number: FileNumber,
    pub(super) output_path: OutputPath,
    pub(super) track: TrackFacts,
    pub(super) target: FileTarget,
    /// The media process that writes it, of those of this recording from 0 on.
    pub(super) process: u32,
    /// Another file of the same output is before it.
    pub(super) follows: bool,
    /// Unix nanoseconds of its first instant, as far as is known before it is closed; `None`: nothing is recorded.
    pub(super) began_at: Option<i64>,
    /// The EgressInfo has its name.
    pub(super) reported: bool,
    /// The EgressInfo has so many bytes of it.
    pub(super) reported_bytes: u64,
    /// As the media process said last.
    pub(super) bytes: u64,
    pub(super) media_ns: u64,
    /// Media when the checkpoint last took note of a file on the disk.
    pub(super) checkpointed_ns: Option<u64>,
    pub(super) quality: Option<Quality>,
    pub(super) state: FileState,
}

pub(super) enum FileTarget {
    /// It stays on this machine's disk.
    Disk(Arc<Claim>),
    /// It lies in the spool, for a store.
    Store(Box<FileUpload>),
}

#[derive(Clone, Debug)]
pub(super) enum FileState {
    /// The media process writes it.
    Recording,
    /// The media process has closed it. Unix nanoseconds.
    Sealed { started_at: i64, ended_at: i64 },
    /// Nothing more is written; what it will be when all of it is stored.
    Uploading(FileResult),
    /// It is where it was asked to be, or as much of it as there is.
    Stored(FileResult),
    /// Nothing of it is kept.
    Failed,
}

/// What the uploads of all outputs came to.
#[derive(Default)]
pub struct UploadSummary {
    /// Something is in a backup store.
    pub used_backup: bool,
    /// Uploads were taken over by a later attempt.
    pub gone: bool,
    /// Messages for the user, one per file or other output that is not where it was asked to be.
    pub failures: Vec<String>,
    /// Spool files and folders that stay because they could not be stored.
    pub spooled: Vec<PathBuf>,
}

impl UploadSummary {
    /// What one more output came to: in its backup store, taken over; why it is not where it was asked to be, and the folder
    /// of what is not stored then.
    pub fn add(&mut self, (used_backup, gone): (bool, bool), failure: Option<&str>, spooled: Option<&Path>) {
        self.used_backup |= used_backup;
        self.gone |= gone;
        self.failures.extend(failure.map(str::to_owned));
        // Outputs share a folder.
        if let Some(folder) = spooled.filter(|folder| !self.spooled.iter().any(|known| known == folder)) {
            self.spooled.push(folder.to_owned());
        }
    }
}

impl SessionFile {
    pub(super) fn upload(&self) -> Option<&FileUpload> {
        match &self.target {
            FileTarget::Store(upload) => Some(upload),
            FileTarget::Disk(_) => None,
        }
    }

    pub(super) fn is_told(&self) -> bool {
        match self.state {
            FileState::Recording | FileState::Sealed { .. } => !self.follows || self.media_ns > 0,
            FileState::Uploading(_) | FileState::Stored(_) => true,
            FileState::Failed => false,
        }
    }

    pub(super) fn wrote(&mut self, end: u64, sealed_to: u64, media_ns: u64, checkpoint_writer: &CheckpointWriter) {
        (self.bytes, self.media_ns) = (end, media_ns);
        match &self.target {
            FileTarget::Store(upload) => upload.wrote(sealed_to, media_ns),
            FileTarget::Disk(_) if self.checkpointed_ns.is_none_or(|noted| media_ns >= noted + CHECKPOINT_EVERY_NS) => {
                self.checkpointed_ns = Some(media_ns);
                checkpoint_writer.update(self.number.file, |checkpoint| checkpoint.media = vec![(end, media_ns)]);
            }
            FileTarget::Disk(_) => {}
        }
    }

    /// Unix nanoseconds of first and last instant; `None`: nothing was recorded.
    pub(super) fn times(&self) -> Option<(i64, i64)> {
        let (from, to) = if let FileState::Sealed { started_at, ended_at } = self.state {
            (started_at, ended_at)
        } else {
            let at = self.began_at?;
            (at, at.saturating_add_unsigned(self.media_ns))
        };
        // The recording ended before the new codec was: the file before it has everything.
        (!self.follows || to > from).then_some((from, to))
    }

    pub(super) fn is_recording(&self) -> bool {
        matches!(self.state, FileState::Recording)
    }

    /// Its media process is gone: what it has recorded is all there will be. False: that is less than `min_ns`, and nothing
    /// of it is to be kept.
    pub(super) fn interrupted(&mut self, min_ns: u64) -> bool {
        let Some((started_at, ended_at)) = self.times().filter(|_| self.media_ns >= min_ns.max(1)) else {
            return false;
        };
        self.state = FileState::Sealed { started_at, ended_at };
        if let Some(upload) = self.upload() {
            upload.close();
        }
        true
    }

    /// Unix nanoseconds of its last instant, if it is closed.
    pub(super) fn sealed_at(&self) -> Option<i64> {
        if let FileState::Sealed { ended_at, .. } = self.state { Some(ended_at) } else { None }
    }

    pub(super) fn disk_look(&self) -> DiskLook {
        DiskLook {
            claim: if let FileTarget::Disk(claim) = &self.target { Some(claim.clone()) } else { None },
            path: self.output_path.location.clone(),
            remove: self.times().is_none(),
        }
    }

    /// Takes it away from this machine's disk; `None`: it lies in the spool.
    pub(super) fn removal(&self) -> Option<DiskLook> {
        matches!(self.target, FileTarget::Disk(_)).then(|| DiskLook { remove: true, ..self.disk_look() })
    }

    pub(super) fn recording_ended(&mut self, on_disk: Option<u64>) {
        let Some((started_at, ended_at)) = self.times() else {
            self.state = FileState::Failed;
            return;
        };
        let result = FileResult {
            number: self.number,
            filename: self.output_path.filename.clone(),
            location: self.output_path.display.clone(),
            bytes: on_disk.unwrap_or(self.bytes),
            started_at,
            ended_at,
            used_backup: false,
        };
        self.state = match self.target {
            FileTarget::Store(_) => FileState::Uploading(result),
            FileTarget::Disk(_) => FileState::Stored(result),
        };
    }

    pub(super) async fn finish_upload(&self) -> Option<Result<StoredObject, UploadFailure>> {
        match (&self.state, &self.target) {
            (FileState::Uploading(_), FileTarget::Store(upload)) => Some(upload.finish().await),
            (FileState::Failed, FileTarget::Store(upload)) => {
                upload.abandon().await;
                None
            }
            _ => None,
        }
    }

    pub(super) fn uploaded(
        &mut self,
        finished: Result<StoredObject, UploadFailure>,
        summary: &mut UploadSummary,
        report: &impl Fn(Fact),
    ) {
        let FileState::Uploading(mut result) = std::mem::replace(&mut self.state, FileState::Failed) else { return };
        let kept = match finished {
            Ok(stored) => Some(stored),
            Err(failure) => {
                summary.spooled.extend(self.upload().map(|upload| upload.spool_path().to_owned()));
                summary.gone |= failure.gone;
                summary.failures.push(failure.message);
                failure.kept.map(|(kept, media_ns)| {
                    result.ended_at = result.started_at.saturating_add_unsigned(kept.skipped_ns + media_ns);
                    kept
                })
            }
        };
        let Some(kept) = kept else { return };
        if kept.filename != result.filename {
            let (index, filename) = (result.number.index, kept.filename.clone());
            report(Fact::FileOpened { index, filename, location: String::new() });
        }
        result.filename = kept.filename;
        result.started_at = result.started_at.saturating_add_unsigned(kept.skipped_ns);
        (result.location, result.bytes) = (kept.location, kept.bytes);
        result.used_backup = kept.used_backup;
        summary.used_backup |= kept.used_backup;
        self.state = FileState::Stored(result);
    }
}

/// What the disk has of one file; runs on a blocking thread.
pub(super) struct DiskLook {
    claim: Option<Arc<Claim>>,
    path: PathBuf,
    remove: bool,
}

impl DiskLook {
    /// Bytes of the file; `None`: nothing was recorded and it is removed, or the disk does not say.
    pub(super) fn run(&self) -> Option<u64> {
        if self.remove {
            let removed = self.claim.as_ref().map_or_else(|| fs::remove_file(&self.path), |claim| claim.remove());
            if let Err(error) = removed {
                debug!(%error, path = %self.path.display(), "empty file not removed");
            }
            return None;
        }
        let bytes = match &self.claim {
            Some(claim) => claim.bytes(),
            None => fs::metadata(&self.path).map(|metadata| metadata.len()),
        };
        bytes.ok()
    }
}
