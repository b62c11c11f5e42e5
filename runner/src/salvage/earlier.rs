//! Saves the files of a task that is gone, while its recording goes on in this one. Runs beside the session: file after file.

use std::time::Duration;

use spillway_plan::{Destination, Destinations};
use spillway_protocol::ledger::Fact;
use tokio::time::Instant;
use tracing::{info, warn};

use super::object::ABORT_TIMEOUT;
use super::places::SalvagePlaces;
use super::sheets::finish_sheets;
use super::{SalvageJob, salvage_file};
use crate::report::Reporter;
use crate::results::FileResult;
use crate::session::earlier::SavedFiles;
use crate::upload::checkpoint::{CheckpointWriter, FileCheckpoint, SavedFile, host};
use crate::upload::{abort, until_file_is_quiet};

/// Completes the uploads of these files and reports them; what is done is in the checkpoint, for a task that goes on after this
/// one. Bounded by `max_outage_ms`.
pub async fn save_earlier(job: SalvageJob, reporter: &Reporter, checkpoint_writer: &CheckpointWriter) -> SavedFiles {
    let checkpoint = job.checkpoint.clone().unwrap_or_default();
    let here = checkpoint.host == host();
    let give_up = Instant::now() + Duration::from_millis(job.settings.max_outage_ms);
    let mut saved = SavedFiles::default();
    for (place, file) in checkpoint.files.iter().enumerate() {
        if file.started_at.is_none() {
            take_back(&job, file).await;
            continue;
        }
        if here && file.saved.is_none() {
            // Its media process may write what it has left.
            until_file_is_quiet(file.path.clone()).await;
        }
        match salvage_file(&job, file, here, give_up).await {
            Ok(Some(salvaged)) => {
                info!(file = file.filename, bytes = salvaged.bytes, "file of the task before saved");
                let (started_at, ended_at) = salvaged.times(file);
                let number = file.number(place);
                salvaged.report(number.index, (started_at, ended_at), reporter);
                saved.used_backup |= salvaged.used_backup;
                let result = FileResult {
                    number,
                    filename: salvaged.filename,
                    location: salvaged.location,
                    bytes: salvaged.bytes,
                    started_at,
                    ended_at,
                    used_backup: salvaged.used_backup,
                };
                let kept = SavedFile {
                    filename: result.filename.clone(),
                    location: result.location.clone(),
                    bytes: result.bytes,
                    started_at,
                    ended_at,
                    used_backup: result.used_backup,
                };
                checkpoint_writer.update(file.file, |file| file.saved = Some(kept));
                saved.results.push(result);
            }
            Ok(None) => {
                info!(file = file.filename, "nothing of it is kept");
                reporter.report(Fact::Noted(format!("nothing of {} could be kept", file.filename)));
            }
            Err(why) => {
                warn!(file = file.filename, error = why, "file not saved");
                saved.failures.push(why);
            }
        }
    }
    if here {
        let places = SalvagePlaces {
            destinations: &job.destinations,
            root: &job.root,
            stores: &*job.stores,
            settings: &job.settings,
            here,
        };
        let is_saved = saved.failures.is_empty();
        for message in finish_sheets(&places, &checkpoint, job.egress_id.as_str(), (is_saved, true)).await {
            reporter.report(Fact::Noted(message));
        }
    }
    saved
}

/// Nothing was recorded in it, and the file that is recorded now has its number: only its upload is aborted.
async fn take_back(job: &SalvageJob, file: &FileCheckpoint) {
    let Some(upload) = &file.upload else { return };
    let Some(Destinations { primary, backup }) = job.destinations.get(file.output() as usize) else { return };
    let destination = backup.as_ref().filter(|_| upload.backup).unwrap_or(primary);
    if !matches!(destination, Destination::Store(_)) {
        return;
    }
    match job.stores.open(destination).await {
        Ok(store) => abort(&*store, &upload.upload, ABORT_TIMEOUT).await,
        Err(error) => warn!(%error, "an upload that was begun is not aborted"),
    }
}
