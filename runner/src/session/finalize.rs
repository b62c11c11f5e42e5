//! After the last word of the media process: files are finished where they lie, or in their stores; then it is told.

use futures_util::future::join_all;
use spillway_plan::EgressPlan;
use spillway_protocol::Code;
use spillway_protocol::ledger::{Fact, Outcome};
use tokio::task::spawn_blocking;
use tracing::{info, warn};

use crate::report::Reporter;
use crate::results::{self, FileResult, Files};
use crate::upload::{StoredObject, UploadFailure, Uploads};

pub struct FinalizeContext<'a> {
    pub plan: &'a EgressPlan,
    pub reporter: &'a Reporter,
}

/// Tells every file, then the end. Dropped halfway it has said nothing final, and uploads stay as they are.
pub async fn finalize_files(
    context: FinalizeContext<'_>,
    mut files: Files,
    uploads: Option<Uploads>,
    outcome: Outcome,
) {
    let looked = spawn_blocking(move || {
        let results = files.finalize();
        (files, results)
    });
    let (files, mut results) = looked.await.unwrap_or_else(|error| {
        warn!(%error, "files not finalized");
        (Files::default(), vec![])
    });
    let mut outcome = outcome;
    let mut used_backup = false;
    let mut uploads = uploads;
    if let Some(uploads) = &mut uploads {
        if results.is_empty() {
            uploads.abandon().await;
        } else {
            let stored = finish_uploads(uploads, &mut results, context.reporter).await;
            for message in files.numbered().flat_map(|(file, _)| uploads.notes(file)) {
                context.reporter.report(Fact::Noted(message));
            }
            used_backup = stored.used_backup;
            if stored.gone {
                // Whoever has our uploads tells what became of them.
                info!("uploads were taken over, nothing is said about them");
            }
            outcome = stored.changed(outcome, context.reporter);
        }
    }
    if used_backup {
        context.reporter.report(Fact::BackupUsed);
    }
    for file in &results {
        info!(
            file = file.filename,
            bytes = file.bytes,
            seconds = (file.ended_at - file.started_at) / 1_000_000_000,
            "file kept"
        );
        context.reporter.report(Fact::FileStored {
            index: file.index,
            size: file.bytes,
            started_at: file.started_at,
            ended_at: file.ended_at,
            location: file.location.clone(),
        });
    }
    if matches!(outcome, Outcome::Complete | Outcome::LimitReached) {
        match manifest(&context, &files, &results, uploads.as_ref(), used_backup).await {
            Ok(Some(location)) => context.reporter.report(Fact::ManifestStored { location }),
            Ok(None) => {}
            // The recording itself is whole.
            Err(message) => warn!(error = message, "manifest not written"),
        }
    }
    for message in files.degraded() {
        context.reporter.report(Fact::Noted(message));
    }
    context.reporter.report(Fact::Over(outcome));
}

#[derive(Default)]
struct UploadOutcome {
    used_backup: bool,
    gone: bool,
    failures: Vec<String>,
    spooled: Vec<String>,
}

/// Finishes the uploads; what could not be stored is no result.
async fn finish_uploads(uploads: &Uploads, results: &mut Vec<FileResult>, reporter: &Reporter) -> UploadOutcome {
    let finishing = results.iter().map(|result| uploads.finish(result.file));
    let finished: Vec<Option<Result<StoredObject, UploadFailure>>> = join_all(finishing).await;
    let mut stored = UploadOutcome::default();
    let mut kept_results = Vec::new();
    for (mut result, finished) in std::mem::take(results).into_iter().zip(finished) {
        let kept = match finished {
            None => {
                kept_results.push(result);
                continue;
            }
            Some(Ok(kept)) => Some(kept),
            Some(Err(failure)) => {
                if let Some(path) = uploads.spooled(result.file) {
                    stored.spooled.push(path.display().to_string());
                }
                stored.gone |= failure.gone;
                stored.failures.push(failure.message);
                failure.kept.map(|(kept, media_ns)| {
                    result.ended_at = result.started_at.saturating_add_unsigned(kept.skipped_ns + media_ns);
                    kept
                })
            }
        };
        if let Some(kept) = kept {
            if kept.filename != result.filename {
                let (index, filename) = (result.index, kept.filename.clone());
                reporter.report(Fact::FileOpened { index, filename, location: String::new() });
            }
            result.filename = kept.filename;
            result.started_at = result.started_at.saturating_add_unsigned(kept.skipped_ns);
            stored.used_backup |= kept.used_backup;
            (result.location, result.bytes) = (kept.location, kept.bytes);
            kept_results.push(result);
        }
    }
    *results = kept_results;
    stored
}

impl UploadOutcome {
    /// A recording that is not where it was asked to be has failed, unless it had failed before.
    fn changed(&self, outcome: Outcome, reporter: &Reporter) -> Outcome {
        for path in &self.spooled {
            reporter.report(Fact::Noted(format!("what is not stored lies on the recorder's disk: {path}")));
        }
        let Some(message) = self.failures.first() else { return outcome };
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
}

async fn manifest(
    context: &FinalizeContext<'_>,
    files: &Files,
    results: &[FileResult],
    uploads: Option<&Uploads>,
    used_backup: bool,
) -> Result<Option<String>, String> {
    let first = results.first().map(|result| result.file);
    let has_backup = first.zip(uploads).is_some_and(|(file, uploads)| uploads.has_backup(file));
    let manifest = results::manifest(context.plan, files, results, used_backup || has_backup);
    let Some((name, content)) = manifest.map_err(|error| error.to_string())? else { return Ok(None) };
    if let Some((file, uploads)) = first.zip(uploads)
        && let Some(put) = uploads.put_beside(file, used_backup, &name, content.clone().into()).await
    {
        return put.map(Some);
    }
    let Some(first) = first else { return Ok(None) };
    let (files, egress_id) = (files.clone(), context.plan.egress_id.clone());
    let written = spawn_blocking(move || results::write_manifest(&files, first, &egress_id, &content)).await;
    match written {
        Ok(Ok(location)) => Ok(Some(location)),
        Ok(Err(error)) => Err(error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}
