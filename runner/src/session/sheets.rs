//! Poster and thumbnails of a recording: the media process writes them into the spool and says nothing of them, and when the
//! recording is where it belongs they are put beside it. Runs in the session's task; whatever goes wrong is a note.

use std::path::{Path, PathBuf};

use spillway_ipc::MediaEvent;
use spillway_plan::SheetsPlan;
use spillway_process::LocalRoot;
use tokio::task::spawn_blocking;
use tracing::{info, warn};

use crate::upload::sheets::{StoredSheets, read_index, remove_sheets, store_sheets};
use crate::upload::{ObjectPlace, UploadResources};

/// The sheets of one recording.
pub(super) struct SessionSheets {
    job: Option<SheetsJob>,
    /// Why there are none although they are asked for.
    note: Option<String>,
    /// Unix nanoseconds at media time zero.
    started_at: Option<i64>,
}

/// What is asked for, and where it lies until the end.
pub(super) struct SheetsJob {
    pub(super) plan: SheetsPlan,
    /// Of the spool.
    pub(super) folder: PathBuf,
    pub(super) resources: UploadResources,
    pub(super) root: LocalRoot,
}

/// The file or playlist that they lie beside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RecordedBeside {
    /// Storage path.
    pub(super) name: String,
    /// Unix nanoseconds of its first instant.
    pub(super) started_at: i64,
    /// It is in its second destination.
    pub(super) used_backup: bool,
}

impl SessionSheets {
    /// Of a recording whose folder is there.
    pub(super) fn new(job: SheetsJob) -> Self {
        Self { job: Some(job), note: None, started_at: None }
    }

    /// Of a recording without them; `note`: why, if they are asked for.
    pub(super) fn none(note: Option<String>) -> Self {
        Self { job: None, note, started_at: None }
    }

    /// Where the media process writes them; `None`: there are none.
    pub(super) fn folder(&self) -> Option<&Path> {
        self.job.as_ref().map(|job| job.folder.as_path())
    }

    /// The output that they lie beside.
    pub(super) fn output(&self) -> Option<u32> {
        self.job.as_ref().map(|job| job.plan.output)
    }

    /// The media process said this. Never waits.
    pub(super) fn on_media_event(&mut self, media_event: &MediaEvent) {
        if let MediaEvent::Started { at, .. } = media_event {
            self.started_at = self.started_at.or(Some(*at));
        }
    }

    /// Nothing is written into the spool any more: puts what is there beside the recording. Takes about half a minute at
    /// most.
    pub(super) async fn store(&self, beside: Option<RecordedBeside>) -> StoredSheets {
        let notes = self.note.iter().cloned().collect();
        let (Some(job), Some(beside)) = (&self.job, beside) else {
            return StoredSheets { notes, ..StoredSheets::default() };
        };
        let Some(index) = read_index(&job.folder).await else { return StoredSheets::default() };
        let UploadResources { destinations, stores, settings, .. } = &job.resources;
        let destinations = destinations.get(job.plan.output as usize);
        let place = match ObjectPlace::resume(destinations, beside.used_backup, &job.root, &**stores).await {
            Ok(place) => place,
            Err(message) => {
                warn!(error = message, "sheets not stored");
                let note = format!("the poster and thumbnails of {} are not stored: {message}", beside.name);
                return StoredSheets { notes: vec![note], ..StoredSheets::default() };
            }
        };
        let begun_at = self.started_at.unwrap_or(beside.started_at);
        let skipped_ns = u64::try_from(beside.started_at.saturating_sub(begun_at)).unwrap_or_default();
        let objects = place.uploads(settings.clone());
        let stored = store_sheets(&index, &job.folder, (beside.name.as_str(), skipped_ns), &objects).await;
        info!(beside = beside.name, objects = stored.sheets.len(), "sheets stored");
        stored
    }
}

/// Removes the sheets from a spool folder. Nothing writes there any more.
pub(super) async fn remove(folder: PathBuf) {
    let _ = spawn_blocking(move || remove_sheets(&folder)).await;
}
