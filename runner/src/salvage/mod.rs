//! Completes the uploads of a dead attempt: `spillway-runner --salvage`. Its checkpoint says which parts the stores have; what
//! still lies in a spool of this machine is sent first, and playlists get their end. Files on a disk stay where they are. One
//! task, file after file, HLS and image outputs beside them, poster and thumbnails behind them; facts for the EgressInfo go to
//! the reporter. It begins no recording. Of a recording that goes on in this task `earlier` saves the files beside it.

mod earlier;
mod object;
mod sheets;
mod images;
mod segments;
mod places;
mod spooled;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use spillway_plan::manifest::{self, Manifest};
use spillway_plan::{Destination, Destinations};
use spillway_process::LocalRoot;
use spillway_protocol::ledger::{EgressEndReason, Fact, Outcome};
use spillway_protocol::{Code, EgressId};
use spillway_storage::Meta;
use tokio::time::{Instant, timeout};
use tracing::{debug, info, warn};

use crate::report::Reporter;
use crate::session::images::image_facts;
use crate::session::segments::{opened_fact, result_facts};
use crate::upload::checkpoint::{Checkpoint, FileCheckpoint, host};
use crate::upload::stores::StoreFactory;
use crate::upload::{UploadSettings, abort, remove_spooled};
use images::{SalvagedImages, finish_images};
use object::{ABORT_TIMEOUT, FileSalvager};
use places::SalvagePlaces;
use segments::{SalvagedSegments, finish_segments};
use sheets::finish_sheets;
use spooled::spooled;

pub use earlier::save_earlier;

/// For the store to say whether there is a manifest, and what it says.
const LOOK_TIMEOUT: Duration = Duration::from_secs(10);

/// What became of a file.
struct SalvagedFile {
    filename: String,
    location: String,
    bytes: u64,
    used_backup: bool,
    /// Times of the manifest: the attempt had finished the recording, and only its last report is missing.
    finished: Option<Times>,
}

/// Unix nanoseconds of begin and end. `None`: there is a manifest and these keys may not read it.
type Times = Option<(i64, i64)>;

impl SalvagedFile {
    /// Those of the manifest, else as the checkpoint of the file lets them be estimated.
    fn times(&self, file: &FileCheckpoint) -> (i64, i64) {
        let started_at = file.started_at.unwrap_or_default();
        let estimated = (started_at, started_at.saturating_add_unsigned(file.media_ns(self.bytes)));
        self.finished.flatten().unwrap_or(estimated)
    }

    fn report(&self, index: usize, (started_at, ended_at): (i64, i64), reporter: &Reporter) {
        if self.used_backup {
            reporter.report(Fact::BackupUsed);
        }
        let (filename, location) = (self.filename.clone(), self.location.clone());
        reporter.report(Fact::FileOpened { index, filename, location: location.clone() });
        reporter.report(Fact::FileStored { index, size: self.bytes, started_at, ended_at, location });
    }
}

/// Everything a salvage needs.
#[derive(Clone, Debug)]
pub struct SalvageJob {
    /// The egress.
    pub egress_id: EgressId,
    /// `None`: the dead attempt has written none.
    pub checkpoint: Option<Checkpoint>,
    /// By output.
    pub destinations: Vec<Destinations>,
    /// Where files lie that stay on this machine.
    pub root: LocalRoot,
    /// Opens the stores.
    pub stores: Arc<dyn StoreFactory>,
    /// Timeouts and sizes.
    pub settings: UploadSettings,
    /// Why the recording task is gone, for the user.
    pub lost: String,
    /// The recording goes on in this task: the dead attempt had not finished, and the spool is in use.
    pub goes_on: bool,
}

/// Reports every file that could be saved, and that the egress failed; or that it is complete, if the dead attempt had
/// finished and only its last report is missing.
pub async fn salvage(job: SalvageJob, reporter: &Reporter) {
    let checkpoint = job.checkpoint.clone().unwrap_or_default();
    let here = checkpoint.host == host();
    let places = SalvagePlaces {
        destinations: &job.destinations,
        root: &job.root,
        stores: &*job.stores,
        settings: &job.settings,
        here,
    };
    let (files, segments, images) = tokio::join!(
        salvage_files(&job, &checkpoint, here, reporter),
        salvage_segments(&job, &checkpoint, &places, reporter),
        salvage_images(&job, &checkpoint, &places, reporter),
    );
    // What was saved before the attempt that died says nothing about that.
    let no_files = checkpoint.files.iter().all(|file| file.saved.is_some());
    let is_empty = no_files && checkpoint.segments.is_empty() && checkpoint.images.is_empty();
    let was_finished = !is_empty && files.finished && segments.finished && images.finished;
    if here {
        let is_saved = !was_finished && !is_empty && files.messages.is_empty() && segments.messages.is_empty();
        for message in finish_sheets(&places, &checkpoint, job.egress_id.as_str(), (is_saved, job.goes_on)).await {
            reporter.report(Fact::Noted(message));
        }
    }
    if was_finished {
        info!("the recording was finished; only its last report was missing");
        return reporter.report(Fact::Over(Outcome::Complete));
    }
    let message = [vec![job.lost.clone()], files.messages, segments.messages, images.messages].concat().join("; ");
    reporter.report(Fact::Ending(EgressEndReason::Failure));
    reporter.report(Fact::Over(Outcome::Failed { code: Code::Internal, message }));
}

/// What became of all outputs of a kind.
struct Salvaged {
    /// The dead attempt had finished each of them.
    finished: bool,
    /// Why some are not saved, for the user.
    messages: Vec<String>,
}

async fn salvage_files(job: &SalvageJob, checkpoint: &Checkpoint, here: bool, reporter: &Reporter) -> Salvaged {
    let give_up = Instant::now() + Duration::from_millis(job.settings.max_outage_ms);
    let (mut finished, mut messages) = (true, vec![]);
    for (place, file) in checkpoint.files.iter().enumerate() {
        let index = file.index.unwrap_or(place);
        match salvage_file(job, file, here, give_up).await {
            Ok(Some(salvaged)) => {
                info!(file = file.filename, bytes = salvaged.bytes, "file saved");
                if salvaged.finished == Some(None) {
                    let message = format!("{} is complete; how long it is was estimated", salvaged.filename);
                    reporter.report(Fact::Noted(message));
                }
                finished &= salvaged.finished.is_some();
                salvaged.report(index, salvaged.times(file), reporter);
            }
            Ok(None) => {
                finished = false;
                info!(file = file.filename, "nothing of it was recorded");
            }
            Err(why) => {
                finished = false;
                warn!(file = file.filename, error = why, "file not saved");
                messages.push(why);
            }
        }
    }
    Salvaged { finished, messages }
}

async fn salvage_segments(
    job: &SalvageJob,
    checkpoint: &Checkpoint,
    places: &SalvagePlaces<'_>,
    reporter: &Reporter,
) -> Salvaged {
    let (mut finished, mut messages) = (true, vec![]);
    for segments in &checkpoint.segments {
        // The checkpoint has them in the order of their beginning, the EgressInfo in that of the request.
        let index = checkpoint.segments.iter().filter(|other| other.output < segments.output).count();
        match finish_segments(places, segments, job.egress_id.as_str()).await {
            Ok(SalvagedSegments { result, finished: was_finished }) => {
                reporter.report(opened_fact(index, &segments.names));
                for fact in result_facts(index, &result) {
                    reporter.report(fact);
                }
                finished &= was_finished && result.failure.is_none();
                messages.extend(result.failure);
            }
            Err(why) => {
                finished = false;
                warn!(playlist = segments.names.playlist, error = why, "playlist not finished");
                messages.push(why);
            }
        }
    }
    Salvaged { finished, messages }
}

async fn salvage_images(
    job: &SalvageJob,
    checkpoint: &Checkpoint,
    places: &SalvagePlaces<'_>,
    reporter: &Reporter,
) -> Salvaged {
    let (mut finished, mut messages) = (true, vec![]);
    for images in &checkpoint.images {
        match finish_images(places, images, job.egress_id.as_str()).await {
            Ok(SalvagedImages { result, finished: was_finished }) => {
                let prefix = images.names.told.clone();
                reporter.report(Fact::ImagesOpened { index: images.index, prefix });
                for fact in image_facts(images.index, &result) {
                    reporter.report(fact);
                }
                finished &= was_finished && result.failure.is_none();
                messages.extend(result.failure);
            }
            Err(why) => {
                finished = false;
                warn!(images = images.names.prefix, error = why, "images not finished");
                messages.push(why);
            }
        }
    }
    Salvaged { finished, messages }
}

/// `Ok(None)`: nothing was recorded, and nothing is left behind. `Err`: why it is not saved, for the user.
async fn salvage_file(
    job: &SalvageJob,
    file: &FileCheckpoint,
    here: bool,
    give_up: Instant,
) -> Result<Option<SalvagedFile>, String> {
    if let Some(saved) = &file.saved {
        return Ok(Some(SalvagedFile {
            filename: saved.filename.clone(),
            location: saved.location.clone(),
            bytes: saved.bytes,
            used_backup: saved.used_backup,
            finished: Some(Some((saved.started_at, saved.ended_at))),
        }));
    }
    let spool = if here { spooled(file).await } else { None };
    let destinations = job.destinations.get(file.output() as usize);
    let Some(Destinations { primary: primary @ Destination::Store(_), backup }) = destinations else {
        return Ok(spool.map(|spooled| SalvagedFile {
            filename: file.filename.clone(),
            location: spooled.spool.path().display().to_string(),
            bytes: spooled.bytes,
            used_backup: false,
            finished: manifest_beside(spooled.spool.path(), &file.filename, &job.egress_id).filter(|_| !job.goes_on),
        }));
    };
    if !job.goes_on
        && let Some(finished) = finished(job, file, primary, backup.as_ref()).await
    {
        if here {
            remove_spooled(&file.path).await;
        }
        return Ok(Some(finished));
    }
    let on_backup = file.upload.as_ref().is_some_and(|upload| upload.backup);
    let destination = backup.as_ref().filter(|_| on_backup).unwrap_or(primary);
    let store = job.stores.open(destination).await.map_err(|error| error.to_string())?;
    let salvager = FileSalvager { store, meta: Meta::of(file.container.mime()), settings: &job.settings, give_up };
    let stored = match &file.upload {
        Some(upload) => salvager.save(file, upload, spool).await,
        None => salvager.begin_again(file, spool).await,
    };
    if on_backup && let Some(upload) = &file.upload {
        let primary = job.stores.open(primary).await.map_err(|error| error.to_string())?;
        for left in &upload.left {
            abort(&*primary, left, ABORT_TIMEOUT).await;
        }
    }
    let stored = stored?;
    if here && job.goes_on {
        let _ = tokio::fs::remove_file(&file.path).await;
    } else if here {
        remove_spooled(&file.path).await;
    }
    Ok(stored.map(|stored| SalvagedFile {
        filename: file.filename.clone(),
        location: stored.location,
        bytes: stored.bytes,
        used_backup: on_backup,
        finished: None,
    }))
}

/// The manifest is written last, and only of a recording that ended well: where one is, the attempt had finished its work
/// before it died. The right to `head` is enough; the times in it need the right to read.
async fn finished(
    job: &SalvageJob,
    file: &FileCheckpoint,
    primary: &Destination,
    backup: Option<&Destination>,
) -> Option<SalvagedFile> {
    let name = manifest::path(&file.filename, job.egress_id.as_str());
    let destinations = [(Some(primary), false), (backup, true)];
    for (destination, used_backup) in destinations.into_iter().filter_map(|(to, is)| Some((to?, is))) {
        let Ok(store) = job.stores.open(destination).await else { continue };
        match timeout(LOOK_TIMEOUT, store.head(&name)).await {
            Ok(Ok(Some(_))) => {}
            Ok(Ok(None)) | Err(_) => continue,
            Ok(Err(error)) => {
                debug!(%error, "no manifest seen");
                continue;
            }
        }
        let read = timeout(LOOK_TIMEOUT, store.read_small(&name)).await;
        let read: Option<Manifest> = match read {
            Ok(Ok(Some(bytes))) => serde_json::from_slice(&bytes).ok(),
            _ => None,
        };
        // The object's name is the newest one, of which our checkpoint need not know.
        let named = read.as_ref().and_then(|read| {
            let place = file.index.unwrap_or(file.file as usize);
            read.file(&file.filename).or_else(|| read.files.get(place))
        });
        let filename = named.map_or(&file.filename, |named| &named.filename).clone();
        let Ok(Ok(Some(object))) = timeout(LOOK_TIMEOUT, store.head(&filename)).await else { continue };
        let location = named.map_or_else(|| store.location(&filename), |named| named.location.clone());
        let times = read.map(|read| read.times_of(&filename));
        return Some(SalvagedFile { filename, location, bytes: object.bytes, used_backup, finished: Some(times) });
    }
    None
}

/// The same for a file on this machine's disk.
fn manifest_beside(path: &Path, filename: &str, egress_id: &EgressId) -> Option<Times> {
    let read = std::fs::read(path.with_file_name(manifest::path("", egress_id.as_str()))).ok()?;
    let manifest: Manifest = serde_json::from_slice(&read).ok()?;
    Some(Some(manifest.times_of(filename)))
}
