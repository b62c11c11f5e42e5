//! After the decision that a recording is over: the media process ends, files, segments and images are finished where they
//! lie, or in their stores, all of it is reported, and what is not wanted leaves the spool. Runs in the session's task; dropped
//! halfway it has reported no end, and uploads stay as they are.

use std::path::Path;
use std::time::Duration;

use futures_util::future::join_all;
use spillway_plan::manifest::ManifestSheet;
use spillway_plan::{EgressPlan, Output, manifest};
use spillway_protocol::Code;
use spillway_protocol::ledger::{Fact, Outcome};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::{info, warn};

use super::earlier::{EarlierRecording, SavedFiles};
use super::files::{SessionFiles, UploadSummary};
use super::gaps::RecordingGaps;
use super::images::SessionImages;
use super::media::MediaProcess;
use super::segments::SessionSegments;
use super::sheets::{self, RecordedBeside, SessionSheets};
use crate::events::SessionEvent;
use crate::report::Reporter;
use crate::results::{self, FileResult, ImageResult, PlaylistResult};
use crate::upload::checkpoint::CheckpointWriter;

/// A media process that has sent its last event exits by itself within this: killed before, it leaves a page's profile behind,
/// whose browser may take seconds to die on a busy machine. By then everything is reported.
const EXIT_TIMEOUT: Duration = Duration::from_secs(8);
/// After SIGTERM.
const EXIT_GRACE: Duration = Duration::from_secs(2);
/// For what a task that has to leave still stores: platforms kill it 30 s after they have told it, or later.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(15);
/// For Redis to take the last checkpoint then.
const CHECKPOINT_TIMEOUT: Duration = Duration::from_secs(3);

/// How a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionEnd {
    /// The final state is reported.
    Reported,
    /// Nothing more is recorded, and the egress goes on in another task; the reason, for the user.
    HandedOver(String),
    /// Another writer has ended this egress; nothing more is reported.
    OwnershipLost,
}

/// How the recording ends, as the machine has decided.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum RecordingEnd {
    /// With this outcome.
    Over(Outcome),
    /// Another task goes on; the reason, for the user.
    HandedOver(String),
    /// The egress belongs to another writer.
    Lost,
}

/// Everything that was recorded.
pub(super) struct RecordedOutputs {
    pub(super) files: SessionFiles,
    pub(super) segments: SessionSegments,
    pub(super) images: SessionImages,
    pub(super) sheets: SessionSheets,
    pub(super) gaps: RecordingGaps,
    /// What other tasks have recorded.
    pub(super) earlier: Option<EarlierRecording>,
    pub(super) checkpoint_writer: CheckpointWriter,
}

/// Ends the media process, which has sent its last event or not, and finishes what it has recorded. Takes as long as the
/// uploads.
pub(super) async fn end_recording(
    plan: &EgressPlan,
    reporter: &Reporter,
    outputs: RecordedOutputs,
    end: RecordingEnd,
    (mut media, has_ended): (MediaProcess, bool),
    inbox: mpsc::Receiver<SessionEvent>,
) -> SessionEnd {
    // An egress that is aborted after it has recorded something keeps that.
    let aborted = matches!(end, RecordingEnd::Over(Outcome::Aborted { .. })) && !outputs.files.started();
    // Without its last event it may still be writing.
    let written_to = !has_ended && !aborted;
    if written_to {
        media.end(Duration::ZERO, Duration::from_millis(300)).await;
    }
    let spooled = (outputs.segments.spooled(), outputs.images.spooled());
    let sheets_folder = outputs.sheets.folder().map(Path::to_owned);
    let ended = match end {
        // What was begun belongs to the later attempt.
        RecordingEnd::Lost => SessionEnd::OwnershipLost,
        RecordingEnd::HandedOver(why) => tokio::select! {
            () = leave_outputs(reporter, outputs) => SessionEnd::HandedOver(why),
            () = ownership_lost(inbox) => SessionEnd::OwnershipLost,
        },
        RecordingEnd::Over(outcome) => tokio::select! {
            () = finalize_outputs(plan, reporter, outputs, outcome) => SessionEnd::Reported,
            () = ownership_lost(inbox) => SessionEnd::OwnershipLost,
        },
    };
    if !written_to {
        media.end(if has_ended { EXIT_TIMEOUT } else { EXIT_GRACE }, EXIT_GRACE).await;
    }
    if aborted {
        // It may have written until now.
        let (segments, images) = spooled;
        segments.remove().await;
        images.remove().await;
    }
    // What is not stored by now is not missed: only the recording is kept in the spool.
    if let (Some(folder), SessionEnd::Reported) = (sheets_folder, &ended) {
        sheets::remove(folder).await;
    }
    ended
}

/// Another task goes on: what is whole is stored where that takes no longer than the platform waits, the rest is in the
/// checkpoint. Playlists get no end.
async fn leave_outputs(reporter: &Reporter, mut outputs: RecordedOutputs) {
    let RecordedOutputs { files, segments, images, checkpoint_writer, .. } = &mut outputs;
    if files.recording_ended().await || segments.any() || images.any() {
        for fact in [files.opened_facts(), segments.opened_facts(), images.opened_facts()].into_iter().flatten() {
            reporter.report(fact);
        }
        let storing = async {
            files.abandon_unopened().await;
            let finishing = files.finish_uploads(|fact| reporter.report(fact));
            tokio::join!(finishing, segments.leave(), images.leave());
        };
        if timeout(LEAVE_TIMEOUT, storing).await.is_err() {
            warn!("not everything is stored; the next task finds it in the checkpoint");
        }
        files.leave();
        for file in files.results() {
            reporter.report(stored_fact(&file));
        }
    } else {
        tokio::join!(files.abandon(), segments.abandon(), images.abandon());
    }
    checkpoint_writer.flush(CHECKPOINT_TIMEOUT).await;
}

fn stored_fact(file: &FileResult) -> Fact {
    Fact::FileStored {
        index: file.number.index,
        size: file.bytes,
        started_at: file.started_at,
        ended_at: file.ended_at,
        location: file.location.clone(),
    }
}

/// Waits until the egress belongs to another writer. Other events are dropped: the recording has ended, and only uploads
/// go on.
pub async fn ownership_lost(mut inbox: mpsc::Receiver<SessionEvent>) {
    loop {
        match inbox.recv().await {
            Some(SessionEvent::OwnershipLost) => return,
            Some(_) => {}
            None => std::future::pending().await,
        }
    }
}

/// Reports every file, playlist and image output, then the end. Nothing is written into the spool any more.
async fn finalize_outputs(plan: &EgressPlan, reporter: &Reporter, mut outputs: RecordedOutputs, mut outcome: Outcome) {
    let RecordedOutputs { files, segments, images, earlier, gaps, .. } = &mut outputs;
    let mut used_backup = false;
    if files.recording_ended().await || segments.any() || images.any() {
        for fact in [files.opened_facts(), segments.opened_facts(), images.opened_facts()].into_iter().flatten() {
            reporter.report(fact);
        }
        files.abandon_unopened().await;
        let finishing = files.finish_uploads(|fact| reporter.report(fact));
        let (mut uploads, (), ()) = tokio::join!(finishing, segments.finish(), images.finish());
        for message in files.upload_notes() {
            reporter.report(Fact::Noted(message));
        }
        for fact in segments.result_facts().chain(images.result_facts()) {
            reporter.report(fact);
        }
        for (_, _, result) in segments.results() {
            uploads.add((result.used_backup, result.gone), result.failure.as_deref(), result.spooled.as_deref());
        }
        for (_, _, result) in images.results() {
            uploads.add((result.used_backup, result.gone), result.failure.as_deref(), result.spooled.as_deref());
        }
        used_backup = uploads.used_backup;
        if uploads.gone {
            // The later attempt that has our uploads reports what became of them.
            info!("uploads were taken over, nothing is reported about them");
        }
        outcome = with_failures(outcome, &uploads, reporter);
    } else {
        tokio::join!(files.abandon(), segments.abandon(), images.abandon());
    }
    let mut before = SavedFiles::default();
    if let Some(earlier) = earlier {
        before = earlier.settled().await;
        if let Some(message) = gaps.settle(before.kept_to()) {
            reporter.report(Fact::Noted(message));
        }
        let uploads = UploadSummary { failures: std::mem::take(&mut before.failures), ..UploadSummary::default() };
        outcome = with_failures(outcome, &uploads, reporter);
        used_backup |= before.used_backup;
    }
    if used_backup {
        reporter.report(Fact::BackupUsed);
    }
    // Those of other tasks are reported.
    for file in &files.results() {
        info!(
            file = file.filename,
            bytes = file.bytes,
            seconds = (file.ended_at - file.started_at) / 1_000_000_000,
            "file kept"
        );
        reporter.report(stored_fact(file));
    }
    let mut results = [before.results, files.results()].concat();
    results.sort_by_key(|file| file.number.index);
    let RecordedOutputs { segments, sheets, .. } = &outputs;
    let stored = sheets.store(sheets.output().and_then(|output| beside(output, &results, segments))).await;
    for message in stored.notes {
        reporter.report(Fact::Noted(message));
    }
    if matches!(outcome, Outcome::Complete | Outcome::LimitReached) {
        for location in put_manifests(plan, &outputs, (results.as_slice(), stored.sheets.as_slice()), used_backup).await
        {
            reporter.report(Fact::ManifestStored { location });
        }
    }
    let RecordedOutputs { files, segments, images, .. } = &outputs;
    let mut degraded: Vec<&String> = vec![];
    let qualities = files.qualities().chain(segments.qualities()).chain(images.qualities());
    for message in qualities.flat_map(|quality| &quality.degraded) {
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

/// The first file of an output that is kept, or its playlist.
fn beside(output: u32, results: &[FileResult], segments: &SessionSegments) -> Option<RecordedBeside> {
    let first = results.iter().find(|file| file.number.output == output && file.number.file == output);
    let file = first.map(|file| RecordedBeside {
        name: file.filename.clone(),
        started_at: file.started_at,
        used_backup: file.used_backup,
    });
    file.or_else(|| {
        let mut playlists = segments.results().filter(|(index, ..)| segments.output(*index) == Some(output));
        let (_, names, result) = playlists.next()?;
        let is_kept = result.failure.is_none() && !result.gone && result.totals.count > 0;
        is_kept.then(|| RecordedBeside {
            name: names.playlist_path(),
            started_at: result.started_at,
            used_backup: result.used_backup,
        })
    })
}

/// Puts one manifest beside the files, playlists and images of each output that wants one, or has a backup store. Answers
/// where they are, those of files first. One that cannot be written is logged: the recording itself is whole.
async fn put_manifests(
    plan: &EgressPlan,
    RecordedOutputs { files, segments, images, gaps, .. }: &RecordedOutputs,
    (results, sheets): (&[FileResult], &[ManifestSheet]),
    used_backup: bool,
) -> Vec<String> {
    let mut places: Vec<(u32, bool, String)> = vec![];
    let beside: Vec<&FileResult> = results
        .iter()
        // Where those of other tasks lie this one puts nothing.
        .filter(|file| files.knows(file.number))
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
    let image_results = images.image_results();
    let wanted = |result: &&ImageResult| {
        let asked = images.asked(result.index).is_some_and(|asked| asked.manifest);
        asked || used_backup || images.has_backup(result.index)
    };
    let beside_images: Vec<&ImageResult> = image_results.iter().filter(wanted).collect();
    let first = files.first().or_else(|| segments.first()).or_else(|| images.first());
    let nothing = beside.is_empty() && beside_playlists.is_empty() && beside_images.is_empty();
    let (Some((track, quality)), false) = (first, nothing) else {
        return vec![];
    };
    let quality = gaps.added_to(quality);
    let content =
        match results::manifest(plan, track.clone(), quality.as_ref(), results, &playlists, &image_results, sheets) {
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
    for result in beside_images {
        put.push(images.put_manifest(result.index, &plan.egress_id, content.clone()).await);
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
