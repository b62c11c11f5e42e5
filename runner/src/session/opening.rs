//! What is made ready before anything is recorded: the stores of all outputs are opened and tried, all at once, and segments
//! get their folder in the spool. Runs in the session's task while the media process starts; reports nothing.

use std::path::PathBuf;
use std::time::Duration;

use chrono::NaiveDateTime;
use futures_util::future::join_all;
use spillway_ipc::TrackFacts;
use spillway_plan::segment_name::SegmentFormat;
use spillway_plan::{EgressPlan, Output, SegmentsOutput, manifest};
use spillway_process::LocalRoot;
use tokio::sync::mpsc;

use super::segments::{SegmentsJob, SessionSegments};
use crate::events::SessionEvent;
use crate::results::{self, OutputError, claim};
use crate::upload::segments::remove_segments;
use crate::upload::{ObjectPlace, PreparedOutputs, UploadResources, free_bytes, spool_share};

/// For folders and a file to be made. A network disk that wakes up takes seconds; one that hangs is an error.
pub(super) const PLACE_TIMEOUT: Duration = Duration::from_secs(15);

/// The outputs of a recording whose stores do not refuse.
pub(super) struct OpenedOutputs {
    pub(super) files: PreparedOutputs,
    pub(super) segments: SessionSegments,
}

/// Opens and tries the stores of all outputs. Names that do not depend on tracks are of the time `now`.
///
/// # Errors
/// A store refuses for good and there is no backup that does not, or there is no folder for segments: the message for the
/// user. What was begun is aborted.
pub(super) async fn open_outputs(
    plan: &EgressPlan,
    resources: UploadResources,
    root: &LocalRoot,
    now: NaiveDateTime,
    session: mpsc::Sender<SessionEvent>,
) -> Result<OpenedOutputs, String> {
    let files = PreparedOutputs::open(plan, resources.clone(), now, session);
    let (files, segments) = tokio::join!(files, open_segments(plan, &resources, root, now));
    match (files, segments) {
        (Ok(files), Ok(segments)) => Ok(OpenedOutputs { files, segments }),
        (Ok(mut files), Err(message)) => {
            files.abandon().await;
            Err(message)
        }
        (Err(message), Ok(mut segments)) => {
            segments.abandon().await;
            Err(message)
        }
        (Err(message), Err(_)) => Err(message),
    }
}

async fn open_segments(
    plan: &EgressPlan,
    resources: &UploadResources,
    root: &LocalRoot,
    now: NaiveDateTime,
) -> Result<SessionSegments, String> {
    let (settings, checkpoint_writer) = (&resources.settings, &resources.checkpoint_writer);
    let asked = (0u32..).zip(&plan.outputs).filter_map(|(output, of)| match of {
        Output::Segments(segments) => Some((output, segments)),
        _ => None,
    });
    let opening: Vec<_> = asked
        .map(|(output, segments)| async move {
            (output, segments, open_place(plan, resources, root, (output, segments), now).await)
        })
        .collect();
    let mut opened = vec![];
    for (output, segments, place) in join_all(opening).await {
        opened.push((output, segments, place?));
    }
    if opened.is_empty() {
        return Ok(SessionSegments::none(settings.clone(), checkpoint_writer.clone()));
    }
    let folder = settings.spool().join(&plan.egress_id);
    let folder = std::path::absolute(&folder).unwrap_or(folder);
    let outputs = opened.iter().map(|(output, segments, _)| (*output, segments.naming.format)).collect();
    let free = make_folder(folder.clone(), outputs).await.map_err(|error| error.to_string())?;
    let spool_cap = spool_share(plan, resources, free);
    let job = |(output, segments, place): (u32, &SegmentsOutput, ObjectPlace)| SegmentsJob {
        output,
        naming: segments.naming.clone(),
        segment_ns: segments.segment_ns,
        place,
        spool_cap,
    };
    let jobs = opened.into_iter().map(job).collect();
    Ok(SessionSegments::new(jobs, folder, settings.clone(), checkpoint_writer.clone()))
}

/// Where the objects of an output go. The store is tried beside the playlists, at a name that nothing else has.
async fn open_place(
    plan: &EgressPlan,
    resources: &UploadResources,
    root: &LocalRoot,
    (output, segments): (u32, &SegmentsOutput),
    now: NaiveDateTime,
) -> Result<ObjectPlace, String> {
    let UploadResources { destinations, stores, settings, .. } = resources;
    let names = results::segment_names(plan, &segments.naming, &TrackFacts::default(), now);
    let probe = manifest::path(&names.playlist_path(), &plan.egress_id);
    ObjectPlace::open(destinations.get(output as usize), root, &**stores, settings, &probe).await
}

/// Makes the folder, which only this user can read: these are recordings of people. What an earlier attempt of this egress
/// has left there of these outputs is removed. Answers how many bytes are free.
async fn make_folder(folder: PathBuf, outputs: Vec<(u32, SegmentFormat)>) -> Result<u64, OutputError> {
    let path = folder.clone();
    claim::within(PLACE_TIMEOUT, path, move || {
        for (output, format) in outputs {
            remove_segments(&folder, output, format);
        }
        results::private_folder(&folder)?;
        Ok(free_bytes(&folder))
    })
    .await
}
