//! What is made ready before anything is recorded: the stores of all outputs are opened and tried, all at once, and segments
//! and images get their folder in the spool. Runs in the session's task while the media process starts; reports nothing.

use std::path::PathBuf;
use std::time::Duration;

use chrono::NaiveDateTime;
use futures_util::future::join_all;
use spillway_ipc::TrackFacts;
use spillway_plan::segment_name::SegmentFormat;
use spillway_plan::{EgressPlan, ImageCodec, ImagesOutput, Output, SegmentsOutput, manifest};
use spillway_process::LocalRoot;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::warn;

use super::earlier::EarlierRecording;
use super::images::{ImagesJob, SessionImages};
use super::segments::{SegmentsJob, SessionSegments};
use super::sheets::{SessionSheets, SheetsJob};
use crate::events::SessionEvent;
use crate::results::{self, OutputError, claim};
use crate::upload::checkpoint::Checkpoint;
use crate::upload::images::remove_images;
use crate::upload::segments::remove_segments;
use crate::upload::sheets::remove_sheets;
use crate::upload::{ObjectPlace, PreparedOutputs, UploadResources, UploadSettings, free_bytes, spool_share};

/// For folders and a file to be made. A network disk that wakes up takes seconds; one that hangs is an error.
pub(super) const PLACE_TIMEOUT: Duration = Duration::from_secs(15);

/// For a store to say which of the last segments and images of a dead task it has. Nothing is recorded meanwhile.
const LEFT_TIMEOUT: Duration = Duration::from_secs(3);

/// The outputs of a recording whose stores do not refuse.
pub(super) struct OpenedOutputs {
    pub(super) files: PreparedOutputs,
    pub(super) segments: SessionSegments,
    pub(super) images: SessionImages,
    pub(super) sheets: SessionSheets,
}

/// Opens and tries the stores of all outputs. Names that do not depend on tracks are of the time `now`; those of `earlier`
/// tasks are taken, and what they have left of segments and images goes on.
///
/// # Errors
/// A store or disk refuses for good and there is no backup that does not, or there is no folder for segments or images: the
/// message for the user. What was begun is aborted.
pub(super) async fn open_outputs(
    plan: &EgressPlan,
    resources: UploadResources,
    root: &LocalRoot,
    now: NaiveDateTime,
    session: mpsc::Sender<SessionEvent>,
    earlier: Option<&EarlierRecording>,
) -> Result<OpenedOutputs, String> {
    let taken = earlier.map(EarlierRecording::names).unwrap_or_default();
    let files = PreparedOutputs::open(plan, resources.clone(), now, session, &taken);
    let (files, objects) = tokio::join!(files, open_objects(plan, &resources, root, now, earlier));
    match (files, objects) {
        (Ok(mut files), Ok((mut segments, mut images))) => {
            images.share_names(|output| files.names(output));
            let claimed = segments.claim_names(plan, now, PLACE_TIMEOUT, |output| files.names(output)).await;
            if let Err(error) = claimed {
                tokio::join!(files.abandon(), segments.abandon(), images.abandon());
                return Err(error.to_string());
            }
            let sheets = open_sheets(plan, resources, root).await;
            Ok(OpenedOutputs { files, segments, images, sheets })
        }
        (Ok(mut files), Err(message)) => {
            files.abandon().await;
            Err(message)
        }
        (Err(message), Ok((mut segments, mut images))) => {
            tokio::join!(segments.abandon(), images.abandon());
            Err(message)
        }
        (Err(message), Err(_)) => Err(message),
    }
}

/// An output whose store was tried.
type Opened<'a, T> = (u32, &'a T, ObjectPlace);

async fn open_objects(
    plan: &EgressPlan,
    resources: &UploadResources,
    root: &LocalRoot,
    now: NaiveDateTime,
    earlier: Option<&EarlierRecording>,
) -> Result<(SessionSegments, SessionImages), String> {
    let asked = (0u32..).zip(&plan.outputs).filter_map(|(output, of)| match of {
        Output::Segments(segments) => Some((output, segments)),
        _ => None,
    });
    let segments = asked.map(|(output, segments)| async move {
        let names = results::segment_names(plan, &segments.naming, &TrackFacts::default(), now);
        let place = open_place(plan, resources, root, output, &names.playlist_path()).await;
        place.map(|place| (output, segments, place))
    });
    let images = plan.images().map(|(output, images)| async move {
        let names = results::image_names(plan, images, &TrackFacts::default(), now);
        let place = open_place(plan, resources, root, output, &names.prefix).await;
        place.map(|place| (output, images, place))
    });
    // All at once, each kind with its own.
    let (segments, images): (Vec<_>, Vec<_>) = (segments.collect(), images.collect());
    let (segments, images) = tokio::join!(join_all(segments), join_all(images));
    let segments = segments.into_iter().collect::<Result<Vec<Opened<'_, SegmentsOutput>>, String>>()?;
    let images = images.into_iter().collect::<Result<Vec<Opened<'_, ImagesOutput>>, String>>()?;

    let (settings, checkpoint_writer) = (&resources.settings, &resources.checkpoint_writer);
    let mut folder = PathBuf::new();
    let mut spool_cap = 0;
    if !segments.is_empty() || !images.is_empty() {
        folder = spool_folder(plan, settings);
        let mut leftovers = Leftovers {
            segments: segments.iter().map(|(output, segments, _)| (*output, segments.naming.format)).collect(),
            images: images.iter().map(|(output, images, _)| (*output, images.codec)).collect(),
        };
        if let Some(earlier) = earlier.filter(|earlier| earlier.here) {
            let Checkpoint { segments, images, .. } = &earlier.checkpoint;
            leftovers.segments.retain(|(output, _)| segments.iter().all(|left| left.output != *output));
            leftovers.images.retain(|(output, _)| images.iter().all(|left| left.output != *output));
        }
        let free = make_folder(folder.clone(), leftovers).await.map_err(|error| error.to_string())?;
        spool_cap = spool_share(plan, resources, free);
    }
    let job = |(output, segments, place): Opened<'_, SegmentsOutput>| SegmentsJob {
        output,
        naming: segments.naming.clone(),
        segment_ns: segments.segment_ns,
        place,
        spool_cap,
    };
    let jobs = segments.into_iter().map(job).collect();
    let mut segments = SessionSegments::new(jobs, folder.clone(), settings.clone(), checkpoint_writer.clone());
    let job = |(output, images, place): Opened<'_, ImagesOutput>| ImagesJob {
        output,
        images: images.clone(),
        place,
        spool_cap,
    };
    let jobs = images.into_iter().map(job).collect();
    let mut images = SessionImages::new(jobs, folder, settings.clone(), checkpoint_writer.clone());
    if let Some(EarlierRecording { checkpoint: left, here, .. }) = earlier {
        let give_up = Instant::now() + LEFT_TIMEOUT;
        tokio::join!(
            segments.go_on(&left.segments, &plan.egress_id, *here, give_up),
            images.go_on(&left.images, *here, give_up)
        );
    }
    Ok((segments, images))
}

/// Where the objects of an output go. The store is tried beside the object `beside`, at a name that nothing else has.
async fn open_place(
    plan: &EgressPlan,
    resources: &UploadResources,
    root: &LocalRoot,
    output: u32,
    beside: &str,
) -> Result<ObjectPlace, String> {
    let UploadResources { destinations, stores, settings, .. } = resources;
    let probe = manifest::path(beside, &plan.egress_id);
    ObjectPlace::open(destinations.get(output as usize), root, &**stores, settings, &probe).await
}

/// The folder of this egress in the spool, absolute.
fn spool_folder(plan: &EgressPlan, settings: &UploadSettings) -> PathBuf {
    let folder = settings.spool().join(&plan.egress_id);
    std::path::absolute(&folder).unwrap_or(folder)
}

/// The folder for poster and thumbnails. Without it the recording has none.
async fn open_sheets(plan: &EgressPlan, resources: UploadResources, root: &LocalRoot) -> SessionSheets {
    let Some(sheets) = plan.sheets else { return SessionSheets::none(None) };
    let folder = spool_folder(plan, &resources.settings);
    let path = folder.clone();
    let made = claim::within(PLACE_TIMEOUT, folder.clone(), move || {
        // Of an earlier attempt.
        remove_sheets(&path);
        results::private_folder(&path)
    });
    match made.await {
        Ok(()) => SessionSheets::new(SheetsJob { plan: sheets, folder, resources, root: root.clone() }),
        Err(error) => {
            warn!(%error, "no sheets");
            SessionSheets::none(Some(format!("there is no poster and there are no thumbnails: {error}")))
        }
    }
}

/// What an earlier attempt of this egress may have left in the folder: by output, what its files are called.
struct Leftovers {
    segments: Vec<(u32, SegmentFormat)>,
    images: Vec<(u32, ImageCodec)>,
}

/// Makes the folder, which only this user can read: these are recordings of people. What an earlier attempt of this egress
/// has left there of these outputs is removed. Answers how many bytes are free.
async fn make_folder(folder: PathBuf, leftovers: Leftovers) -> Result<u64, OutputError> {
    let path = folder.clone();
    claim::within(PLACE_TIMEOUT, path, move || {
        for (output, format) in leftovers.segments {
            remove_segments(&folder, output, format);
        }
        for (output, codec) in leftovers.images {
            remove_images(&folder, output, codec);
        }
        results::private_folder(&folder)?;
        Ok(free_bytes(&folder))
    })
    .await
}
