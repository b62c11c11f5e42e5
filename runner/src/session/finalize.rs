//! After the last event of the media process: files are finished where they lie, or in their stores, and all of it is
//! reported. Runs in the session's task; dropped halfway it has reported no end, and uploads stay as they are.

use spillway_plan::EgressPlan;
use spillway_protocol::Code;
use spillway_protocol::ledger::{Fact, Outcome};
use tracing::{info, warn};

use super::files::{SessionFiles, UploadSummary};
use crate::report::Reporter;
use crate::results::{self, FileResult};

/// Reports every file, then the end.
pub(super) async fn finalize_files(
    plan: &EgressPlan,
    reporter: &Reporter,
    mut files: SessionFiles,
    mut outcome: Outcome,
) {
    let mut used_backup = false;
    if files.recording_ended().await {
        let uploads = files.finish_uploads(|fact| reporter.report(fact)).await;
        for message in files.upload_notes() {
            reporter.report(Fact::Noted(message));
        }
        used_backup = uploads.used_backup;
        if uploads.gone {
            // The later attempt that has our uploads reports what became of them.
            info!("uploads were taken over, nothing is reported about them");
        }
        outcome = with_failures(outcome, &uploads, reporter);
    } else {
        files.abandon().await;
    }
    if used_backup {
        reporter.report(Fact::BackupUsed);
    }
    let results = files.results();
    for file in &results {
        info!(
            file = file.filename,
            bytes = file.bytes,
            seconds = (file.ended_at - file.started_at) / 1_000_000_000,
            "file kept"
        );
        reporter.report(Fact::FileStored {
            index: file.index,
            size: file.bytes,
            started_at: file.started_at,
            ended_at: file.ended_at,
            location: file.location.clone(),
        });
    }
    if matches!(outcome, Outcome::Complete | Outcome::LimitReached) {
        match manifest(plan, &files, &results, used_backup).await {
            Ok(Some(location)) => reporter.report(Fact::ManifestStored { location }),
            Ok(None) => {}
            // The recording itself is whole.
            Err(message) => warn!(error = message, "manifest not written"),
        }
    }
    for message in files.degraded() {
        reporter.report(Fact::Noted(message));
    }
    reporter.report(Fact::Over(outcome));
}

/// A recording that is not where it was asked to be has failed, unless it had failed before.
fn with_failures(outcome: Outcome, uploads: &UploadSummary, reporter: &Reporter) -> Outcome {
    for path in &uploads.spooled {
        let path = path.display();
        reporter.report(Fact::Noted(format!("what is not stored lies on the recorder's disk: {path}")));
    }
    let Some(message) = uploads.failures.first() else { return outcome };
    match outcome {
        Outcome::Complete | Outcome::LimitReached => {
            Outcome::Failed { code: Code::InvalidArgument, message: message.clone() }
        }
        other => {
            reporter.report(Fact::Noted(message.clone()));
            other
        }
    }
}

/// Answers where the manifest is, if one is wanted.
async fn manifest(
    plan: &EgressPlan,
    files: &SessionFiles,
    results: &[FileResult],
    used_backup: bool,
) -> Result<Option<String>, String> {
    let (Some(first), Some((track, quality))) = (results.first(), files.first()) else { return Ok(None) };
    let wanted_anyway = used_backup || files.has_backup(first.file);
    let manifest = results::manifest(plan, track.clone(), quality, results, wanted_anyway);
    let Some(manifest) = manifest.map_err(|error| error.to_string())? else { return Ok(None) };
    files.put_manifest(first.file, used_backup, &plan.egress_id, manifest).await
}
