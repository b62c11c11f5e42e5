//! After the last event of the media process: files and segments are finished where they lie, or in their stores, and all of
//! it is reported. Runs in the session's task; dropped halfway it has reported no end, and uploads stay as they are.

use futures_util::future::join_all;
use spillway_plan::{EgressPlan, Output, manifest};
use spillway_protocol::Code;
use spillway_protocol::ledger::{Fact, Outcome};
use tracing::{info, warn};

use super::files::{SessionFiles, UploadSummary};
use super::segments::SessionSegments;
use crate::report::Reporter;
use crate::results::{self, FileResult, PlaylistResult};

/// Reports every file and playlist, then the end. Nothing is written into the spool any more.
pub(super) async fn finalize_outputs(
    plan: &EgressPlan,
    reporter: &Reporter,
    mut files: SessionFiles,
    mut segments: SessionSegments,
    mut outcome: Outcome,
) {
    let mut used_backup = false;
    if files.recording_ended().await || segments.any() {
        for fact in files.opened_facts().into_iter().chain(segments.opened_facts()) {
            reporter.report(fact);
        }
        files.abandon_unopened().await;
        let finishing = files.finish_uploads(|fact| reporter.report(fact));
        let (mut uploads, ()) = tokio::join!(finishing, segments.finish());
        for message in files.upload_notes() {
            reporter.report(Fact::Noted(message));
        }
        for fact in segments.result_facts() {
            reporter.report(fact);
        }
        for (_, _, result) in segments.results() {
            uploads.used_backup |= result.used_backup;
            uploads.gone |= result.gone;
            uploads.failures.extend(result.failure.clone());
            uploads.spooled.extend(result.spooled.clone());
        }
        used_backup = uploads.used_backup;
        if uploads.gone {
            // The later attempt that has our uploads reports what became of them.
            info!("uploads were taken over, nothing is reported about them");
        }
        outcome = with_failures(outcome, &uploads, reporter);
    } else {
        tokio::join!(files.abandon(), segments.abandon());
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
            index: file.number.index,
            size: file.bytes,
            started_at: file.started_at,
            ended_at: file.ended_at,
            location: file.location.clone(),
        });
    }
    if matches!(outcome, Outcome::Complete | Outcome::LimitReached) {
        for location in put_manifests(plan, &files, &segments, &results, used_backup).await {
            reporter.report(Fact::ManifestStored { location });
        }
    }
    let mut degraded: Vec<&String> = vec![];
    for message in files.qualities().chain(segments.qualities()).flat_map(|quality| &quality.degraded) {
        if !degraded.contains(&message) {
            degraded.push(message);
            reporter.report(Fact::Noted(message.clone()));
        }
    }
    reporter.report(Fact::Over(outcome));
}

/// A recording that is not where it was asked to be has failed, unless it had failed before.
fn with_failures(outcome: Outcome, uploads: &UploadSummary, reporter: &Reporter) -> Outcome {
    for path in &uploads.spooled {
        let path = path.display();
        reporter.report(Fact::Noted(format!("what is not stored lies on the recorder's disk: {path}")));
    }
    let mut outcome = outcome;
    for message in &uploads.failures {
        match outcome {
            Outcome::Complete | Outcome::LimitReached => {
                outcome = Outcome::Failed { code: Code::InvalidArgument, message: message.clone() };
            }
            _ => reporter.report(Fact::Noted(message.clone())),
        }
    }
    outcome
}

/// Puts one manifest beside the files and playlists of each output that wants one, or has a backup store. Answers where they
/// are, those of files first. One that cannot be written is logged: the recording itself is whole.
async fn put_manifests(
    plan: &EgressPlan,
    files: &SessionFiles,
    segments: &SessionSegments,
    results: &[FileResult],
    used_backup: bool,
) -> Vec<String> {
    let mut places: Vec<(u32, bool, String)> = vec![];
    let beside: Vec<&FileResult> = results
        .iter()
        .filter(|file| {
            let wanted = plan.file(file.number.output).is_some_and(|output| output.manifest);
            let place = (file.number.output, file.used_backup, manifest::path(&file.filename, &plan.egress_id));
            // Files that follow one another lie in one folder.
            let first = !places.contains(&place);
            places.push(place);
            first && (wanted || used_backup || files.has_backup(file.number))
        })
        .collect();
    let playlists = segments.playlist_results();
    let wanted = |playlist: &&PlaylistResult| {
        let output = segments.output(playlist.index).and_then(|output| plan.outputs.get(output as usize));
        output.is_some_and(Output::manifest) || used_backup || segments.has_backup(playlist.index)
    };
    let beside_playlists: Vec<&PlaylistResult> = playlists.iter().filter(wanted).collect();
    let first = files.first().or_else(|| segments.first());
    let (Some((track, quality)), false) = (first, beside.is_empty() && beside_playlists.is_empty()) else {
        return vec![];
    };
    let content = match results::manifest(plan, track.clone(), quality, results, &playlists) {
        Ok(content) => content,
        Err(error) => {
            warn!(%error, "manifest not written");
            return vec![];
        }
    };
    let put: Vec<_> =
        beside.into_iter().map(|file| files.put_manifest(file, &plan.egress_id, content.clone())).collect();
    let mut put = join_all(put).await;
    // After the files': in one folder, both are the same object.
    for playlist in beside_playlists {
        put.push(segments.put_manifest(playlist.index, &plan.egress_id, content.clone()).await);
    }
    let mut locations: Vec<String> = vec![];
    for put in put {
        match put {
            Ok(Some(location)) if !locations.contains(&location) => locations.push(location),
            Ok(_) => {}
            Err(message) => warn!(error = message, "manifest not written"),
        }
    }
    locations
}
