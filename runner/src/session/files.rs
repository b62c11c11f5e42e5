//! The files of a recording, each with one owner of its state from opening to result. Events of the media process and the
//! outcome of uploads come in; sizes, facts for the EgressInfo and results come out. Runs in the session's task; blocks for
//! no disk and no store except in the calls that are `async`.

mod file;
mod going_on;

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::join_all;
use spillway_ipc::{FileId, MediaEvent, Quality, TrackFacts};
use spillway_plan::{Container, manifest};
use spillway_protocol::ledger::Fact;
use tokio::task::spawn_blocking;
use tracing::warn;

use crate::report::FilesProgress;
use crate::results::claim::Claim;
use crate::results::{self, FileNumber, FileResult, OutputPath};
use crate::upload::checkpoint::{CheckpointWriter, FileCheckpoint};
use crate::upload::{FileUpload, PreparedOutputs};
use file::{DiskLook, FileState, FileTarget, SessionFile};

pub use file::UploadSummary;

/// All files of one recording.
pub struct SessionFiles {
    files: Vec<SessionFile>,
    /// Outputs that end in a store; `None`: the stores are still being tried.
    pub outputs: Option<PreparedOutputs>,
    checkpoint_writer: CheckpointWriter,
    /// Unix nanoseconds of the first instant that the media process has recorded which writes now.
    started_at: Option<i64>,
    /// Something was recorded, by it or by one before it.
    started: bool,
    /// Media processes before it.
    process: u32,
    /// Files of a task before this one, whose recording goes on.
    earlier: Vec<FileNumber>,
}

impl SessionFiles {
    /// No file is open yet.
    pub fn new(checkpoint_writer: CheckpointWriter) -> Self {
        let (files, earlier) = (vec![], vec![]);
        Self { files, outputs: None, checkpoint_writer, started_at: None, started: false, process: 0, earlier }
    }

    /// A file was made on this machine's disk; it stays. Answers its identity.
    pub fn opened_on_disk(
        &mut self,
        number: FileNumber,
        container: Container,
        output_path: OutputPath,
        track: TrackFacts,
        mut claim: Claim,
    ) -> FileId {
        claim.keep();
        let id = claim.id();
        // A salvage has to know files on the disk too.
        let (filename, path) = (output_path.filename.clone(), output_path.location.clone());
        self.checkpoint_writer.opened(FileCheckpoint::new(number, filename, container, path));
        self.opened(number, output_path, track, FileTarget::Disk(Arc::new(claim)));
        id
    }

    /// A file was made in the spool, and its upload runs.
    pub fn opened_in_spool(
        &mut self,
        number: FileNumber,
        output_path: OutputPath,
        track: TrackFacts,
        upload: FileUpload,
    ) {
        self.opened(number, output_path, track, FileTarget::Store(Box::new(upload)));
    }

    fn opened(&mut self, number: FileNumber, output_path: OutputPath, track: TrackFacts, target: FileTarget) {
        // After a change of codec it begins where that ended; behind a dead process there is a gap.
        let is_before = |file: &&SessionFile| file.number.output == number.output && file.process == self.process;
        let of_process = self.files.iter().filter(is_before);
        let began_at = of_process.filter_map(SessionFile::sealed_at).max().or(self.started_at);
        let follows = self.count_of(number.output) > 0;
        self.files.push(SessionFile {
            number,
            output_path,
            track,
            target,
            process: self.process,
            follows,
            began_at,
            reported: false,
            reported_bytes: 0,
            bytes: 0,
            media_ns: 0,
            checkpointed_ns: None,
            quality: None,
            state: FileState::Recording,
        });
        if let Some(at) = began_at {
            self.checkpoint_writer.update(number.file, |checkpoint| checkpoint.started_at = Some(at));
        }
    }

    /// The media process said this. Never waits.
    pub fn on_media_event(&mut self, media_event: &MediaEvent) {
        match media_event {
            MediaEvent::Started { at, .. } => {
                self.started = true;
                self.started_at = self.started_at.or(Some(*at));
                for file in self.files.iter_mut().filter(|file| file.process == self.process) {
                    file.began_at = file.began_at.or(Some(*at));
                }
                self.checkpoint_writer.update_all(|checkpoint| {
                    checkpoint.started_at = checkpoint.started_at.or(Some(*at));
                });
            }
            MediaEvent::Wrote { file, end, sealed_to, media_ns } => {
                let checkpoint_writer = self.checkpoint_writer.clone();
                if let Some(known) = self.find(*file) {
                    known.wrote(*end, *sealed_to, *media_ns, &checkpoint_writer);
                }
            }
            MediaEvent::Closed { file, bytes, started_at, ended_at, quality } => {
                let any = self.started_at.is_some() && ended_at > started_at;
                if let Some(known) = self.find(*file) {
                    known.bytes = *bytes;
                    known.quality = Some(quality.clone());
                    known.state = FileState::Sealed { started_at: *started_at, ended_at: *ended_at };
                    // After a change of codec the recording may go on in another file for hours.
                    if let Some(upload) = known.upload().filter(|_| any) {
                        upload.close();
                    }
                }
            }
            _ => {}
        }
    }

    fn find(&mut self, number: u32) -> Option<&mut SessionFile> {
        self.files.iter_mut().find(|file| file.number.file == number)
    }

    /// How many files of an output were opened, by this task or one before it.
    pub fn count_of(&self, output: u32) -> u32 {
        let numbers = self.files.iter().map(|file| &file.number).chain(&self.earlier);
        u32::try_from(numbers.filter(|number| number.output == output).count()).unwrap_or(u32::MAX)
    }

    /// Something was recorded.
    pub fn started(&self) -> bool {
        self.started
    }

    /// Unix nanoseconds of the last instant that is recorded in a file; `None`: there is no file, or nothing is recorded.
    pub fn recorded_to(&self) -> Option<i64> {
        self.files.iter().filter_map(SessionFile::times).map(|(_, to)| to).max()
    }

    /// What the EgressInfo does not say yet of files that are being recorded. A file that follows another is one only when
    /// something was recorded in it.
    pub fn opened_facts(&mut self) -> Vec<Fact> {
        let mut facts = vec![];
        for file in &mut self.files {
            if file.reported || !file.is_told() {
                continue;
            }
            file.reported = true;
            let OutputPath { filename, display, .. } = file.output_path.clone();
            // In a store there is nothing to be found before it is stored.
            let location = if matches!(file.target, FileTarget::Store(_)) { String::new() } else { display };
            facts.push(Fact::FileOpened { index: file.number.index, filename, location });
        }
        facts
    }

    /// Of files that users know and that have grown since the last call.
    pub fn progress_facts(&mut self) -> Vec<Fact> {
        let grown = self.files.iter_mut().filter(|file| file.reported && file.bytes != file.reported_bytes);
        let fact = |file: &mut SessionFile| {
            file.reported_bytes = file.bytes;
            Fact::FileProgress { index: file.number.index, bytes: file.bytes }
        };
        grown.map(fact).collect()
    }

    /// How far all files are, for heartbeats.
    pub fn progress(&self) -> FilesProgress {
        let bytes = self.files.iter().map(|file| (file.output_path.display.clone(), file.bytes));
        let uploads = self.files.iter().filter_map(|file| Some(file.upload()?.progress()));
        FilesProgress { bytes: bytes.collect(), uploads: uploads.collect(), streams: BTreeMap::new() }
    }

    /// The media process is gone or has ended. Times are those of `Closed` where it came, lengths are the disk's; a file in
    /// which nothing was recorded is removed. False: nothing is left.
    pub async fn recording_ended(&mut self) -> bool {
        let looks: Vec<DiskLook> = self.files.iter().map(SessionFile::disk_look).collect();
        let looked = spawn_blocking(move || looks.iter().map(DiskLook::run).collect::<Vec<_>>()).await;
        let looked = looked.unwrap_or_else(|error| {
            warn!(%error, "the disk was not looked at");
            vec![None; self.files.len()]
        });
        for (file, bytes) in self.files.iter_mut().zip(looked) {
            file.recording_ended(bytes);
        }
        self.files.iter().any(|file| !matches!(file.state, FileState::Failed))
    }

    /// Nothing was recorded: nothing stays in a store or in the spool.
    pub async fn abandon(&mut self) {
        self.abandon_unopened().await;
        join_all(self.files.iter().filter_map(SessionFile::upload).map(FileUpload::abandon)).await;
    }

    /// Nothing stays in a store of what was begun for files that were never opened.
    pub async fn abandon_unopened(&mut self) {
        if let Some(outputs) = &mut self.outputs {
            outputs.abandon().await;
        }
    }

    /// Waits for the uploads of sealed files, all at once; of files in which nothing was recorded, nothing stays. `report`
    /// takes what the EgressInfo says of an object that has another name than its file was opened with.
    pub async fn finish_uploads(&mut self, report: impl Fn(Fact)) -> UploadSummary {
        let finished = join_all(self.files.iter().map(SessionFile::finish_upload)).await;
        let mut summary = UploadSummary::default();
        for (file, finished) in self.files.iter_mut().zip(finished) {
            if let Some(finished) = finished {
                file.uploaded(finished, &mut summary, &report);
            }
        }
        summary
    }

    /// What users should know of the uploads.
    pub fn upload_notes(&self) -> impl Iterator<Item = String> {
        self.files.iter().filter_map(SessionFile::upload).flat_map(|upload| upload.progress().notes)
    }

    /// Files that are where they were asked to be, in the order of the EgressInfo.
    pub fn results(&self) -> Vec<FileResult> {
        let stored = self.files.iter().filter_map(|file| match &file.state {
            FileState::Stored(result) => Some(result.clone()),
            _ => None,
        });
        let mut results: Vec<FileResult> = stored.collect();
        results.sort_by_key(|result| result.number.index);
        results
    }

    /// Facts of the first file and quality of the first that has one, for the manifest: a dead media process has told none.
    pub fn first(&self) -> Option<(&TrackFacts, Option<&Quality>)> {
        let mut files: Vec<&SessionFile> = self.files.iter().collect();
        files.sort_by_key(|file| file.number.index);
        let quality = files.iter().find_map(|file| file.quality.as_ref());
        Some((&files.first()?.track, quality))
    }

    /// The name of the file that is written, or was written last, for an output.
    pub fn name_of(&self, output: u32) -> Option<&str> {
        let file = self.files.iter().rev().find(|file| file.number.output == output)?;
        Some(&file.output_path.filename)
    }

    /// The file has a backup store.
    pub fn has_backup(&self, number: FileNumber) -> bool {
        self.files.iter().any(|file| file.number == number && file.upload().is_some_and(FileUpload::has_backup))
    }

    /// Puts the manifest beside a file: into its store, or on the disk. Answers where it is.
    ///
    /// # Errors
    /// The store's or the operating system's message; a store was retried for up to 30 s.
    pub async fn put_manifest(
        &self,
        beside: &FileResult,
        egress_id: &str,
        content: String,
    ) -> Result<Option<String>, String> {
        let Some(file) = self.files.iter().find(|file| file.number == beside.number) else { return Ok(None) };
        let claim = match &file.target {
            FileTarget::Store(upload) => {
                let name = manifest::path(&beside.filename, egress_id);
                return upload.put_beside(beside.used_backup, &name, content.into()).await.map(Some);
            }
            FileTarget::Disk(claim) => claim.clone(),
        };
        let (path, egress_id) = (file.output_path.location.clone(), egress_id.to_owned());
        let written = spawn_blocking(move || results::write_manifest(&claim, &path, &egress_id, &content)).await;
        match written {
            Ok(Ok(location)) => Ok(Some(location)),
            Ok(Err(error)) => Err(error.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// What was really recorded of each file that the media process has closed.
    pub fn qualities(&self) -> impl Iterator<Item = &Quality> {
        self.files.iter().filter_map(|file| file.quality.as_ref())
    }
}
