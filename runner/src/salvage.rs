//! A dead run's uploads → stored: `spillway-runner --salvage`. The state its runner kept on the bus says which parts its
//! stores have; what still lies in a spool of this machine is sent first. Files on a disk are where they are.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use spillway_ipc::restart::{Origin, RestartPoints};
use spillway_ipc::{SealTracker, SpoolReader};
use spillway_plan::manifest::{self, Manifest};
use spillway_plan::{Container, Destination, Destinations};
use spillway_process::chain;
use spillway_process::retry::RetrySchedule;
use spillway_protocol::ledger::{EgressEndReason, Fact, Outcome};
use spillway_protocol::{Code, EgressId};
use spillway_storage::{Meta, Part, Storage, StorageError, StorageErrorKind, Stored, Upload};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{debug, info, warn};

use crate::report::Reporter;
use crate::upload::checkpoint::{Checkpoint, FileCheckpoint, UploadCheckpoint, host};
use crate::upload::machine::{PartState, UploadMachine};
use crate::upload::stores::StoreFactory;
use crate::upload::{UploadSettings, remove_spooled};

const LOOK_TIMEOUT: Duration = Duration::from_secs(10);

/// What became of a file.
struct SalvagedFile {
    filename: String,
    location: String,
    bytes: u64,
    used_backup: bool,
    /// Unix nanoseconds, as the manifest has them: the run had finished the recording, and could not say so.
    finished: Option<Times>,
}

/// Of a recording that was finished. `None`: there is a manifest and these keys may not read it.
type Times = Option<(i64, i64)>;

/// What still lies in a spool of this machine.
#[derive(Clone)]
struct Spooled {
    spool: Arc<SpoolReader>,
    origin: Origin,
    /// Where an MP4 names places in itself.
    places: Vec<u64>,
    /// Of the object.
    bytes: u64,
}

impl Spooled {
    fn read(&self, range: Range<u64>) -> io::Result<Bytes> {
        self.origin.read(&self.spool, range, &self.places)
    }

    fn is_whole(&self, range: Range<u64>) -> io::Result<bool> {
        self.spool.is_whole(self.origin.in_file(range.start)..self.origin.in_file(range.end))
    }
}

/// Everything a salvage needs.
#[derive(Clone, Debug)]
pub struct SalvageJob {
    pub egress_id: EgressId,
    /// `None`: the dead run had kept nothing.
    pub checkpoint: Option<Checkpoint>,
    pub destinations: Vec<Destinations>,
    pub stores: Arc<dyn StoreFactory>,
    pub settings: UploadSettings,
    /// Why the recording task is gone.
    pub lost: String,
}

/// Tells every file that could be saved, and that the egress failed; or that it is complete, if the dead run had got that
/// far and only could not say so.
pub async fn salvage(job: SalvageJob, reporter: &Reporter) {
    let give_up = Instant::now() + Duration::from_millis(job.settings.max_outage_ms);
    let mut message = job.lost.clone();
    let checkpoint = job.checkpoint.clone().unwrap_or_default();
    let mut finished = !checkpoint.files.is_empty();
    for (index, file) in checkpoint.files.iter().enumerate() {
        let here = checkpoint.host == host();
        match salvage_file(&job, file, here, give_up).await {
            Ok(Some(salvaged)) => {
                info!(file = file.filename, bytes = salvaged.bytes, "file saved");
                let started_at = file.started_at.unwrap_or_default();
                let estimated = (started_at, started_at.saturating_add_unsigned(file.media_ns(salvaged.bytes)));
                let (started_at, ended_at) = salvaged.finished.flatten().unwrap_or(estimated);
                if salvaged.finished == Some(None) {
                    let message = format!("{} is complete; how long it is was estimated", salvaged.filename);
                    reporter.report(Fact::Noted(message));
                }
                finished &= salvaged.finished.is_some();
                if salvaged.used_backup {
                    reporter.report(Fact::BackupUsed);
                }
                reporter.report(Fact::FileOpened {
                    index,
                    filename: salvaged.filename,
                    location: salvaged.location.clone(),
                });
                reporter.report(Fact::FileStored {
                    index,
                    size: salvaged.bytes,
                    started_at,
                    ended_at,
                    location: salvaged.location,
                });
            }
            Ok(None) => {
                finished = false;
                info!(file = file.filename, "nothing of it was recorded");
            }
            Err(why) => {
                finished = false;
                warn!(file = file.filename, error = why, "file not saved");
                message = format!("{message}; {why}");
            }
        }
    }
    if finished {
        info!("the recording was finished; only its last report was missing");
        return reporter.report(Fact::Over(Outcome::Complete));
    }
    reporter.report(Fact::Ending(EgressEndReason::Failure));
    reporter.report(Fact::Over(Outcome::Failed { code: Code::Internal, message }));
}

/// `Ok(None)`: there is nothing, and nothing is left behind. Else why it is not saved, in words.
async fn salvage_file(
    job: &SalvageJob,
    file: &FileCheckpoint,
    here: bool,
    give_up: Instant,
) -> Result<Option<SalvagedFile>, String> {
    let spool = if here { spooled(file).await } else { None };
    let destinations = job.destinations.get(file.file as usize);
    let Some(Destinations { primary: primary @ Destination::Store(_), backup }) = destinations else {
        return Ok(spool.map(|spooled| SalvagedFile {
            filename: file.filename.clone(),
            location: spooled.spool.path().display().to_string(),
            bytes: spooled.bytes,
            used_backup: false,
            finished: manifest_beside(spooled.spool.path(), &job.egress_id),
        }));
    };
    if let Some(finished) = finished(job, file, primary, backup.as_ref()).await {
        if here {
            clear(&file.path).await;
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
            abort(&*primary, left).await;
        }
    }
    let stored = stored?;
    if here {
        clear(&file.path).await;
    }
    Ok(stored.map(|stored| SalvagedFile {
        filename: file.filename.clone(),
        location: stored.location,
        bytes: stored.bytes,
        used_backup: on_backup,
        finished: None,
    }))
}

async fn clear(path: &Path) {
    let spooled = path.to_owned();
    if let Ok(Err(error)) = spawn_blocking(move || remove_spooled(&spooled)).await {
        warn!(%error, path = %path.display(), "spool not removed");
    }
}

/// A file of this machine that has bytes.
async fn spooled(file: &FileCheckpoint) -> Option<Spooled> {
    let (path, container, origin, kept_from) = (file.path.clone(), file.container, file.origin.clone(), file.kept_from);
    let look = spawn_blocking(move || {
        let spool = SpoolReader::open(&path).ok()?;
        let end = spool.end().ok().filter(|bytes| *bytes > 0)?;
        if origin.is_whole() {
            return Some(Spooled { spool: Arc::new(spool), origin, places: vec![], bytes: end });
        }
        let from = origin.from.max(kept_from);
        let mut points = RestartPoints::resume(container, &Origin { head: origin.head.clone(), from });
        points.advance(&spool, end).ok()?;
        let bytes = origin.in_object(points.walked_to());
        Some(Spooled { spool: Arc::new(spool), places: points.places_in(from..end), origin, bytes })
    });
    look.await.ok().flatten()
}

/// The manifest is written last, and only of a recording that ended well: where one is, the run had finished its work
/// before it died or left. A right to look is enough; the times in it need one to read.
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
        let named = read.as_ref().and_then(|read| read.files.get(file.file as usize));
        let filename = named.map_or(&file.filename, |named| &named.filename).clone();
        let Ok(Ok(Some(object))) = timeout(LOOK_TIMEOUT, store.head(&filename)).await else { continue };
        let location = named.map_or_else(|| store.location(&filename), |named| named.location.clone());
        let times = read.map(|read| (read.started_at, read.ended_at));
        return Some(SalvagedFile { filename, location, bytes: object.bytes, used_backup, finished: Some(times) });
    }
    None
}

/// The same for a file on this machine's disk.
fn manifest_beside(file: &Path, egress_id: &EgressId) -> Option<Times> {
    let read = std::fs::read(file.with_file_name(format!("{egress_id}.json"))).ok()?;
    let manifest: Manifest = serde_json::from_slice(&read).ok()?;
    Some(Some((manifest.started_at, manifest.ended_at)))
}

struct FileSalvager<'a> {
    store: Arc<dyn Storage>,
    meta: Meta,
    settings: &'a UploadSettings,
    give_up: Instant,
}

impl FileSalvager<'_> {
    async fn save(
        &self,
        file: &FileCheckpoint,
        checkpoint: &UploadCheckpoint,
        spooled: Option<Spooled>,
    ) -> Result<Option<Stored>, String> {
        if file.started_at.is_none() {
            abort(&*self.store, &checkpoint.upload).await;
            return Ok(None);
        }
        let mut sent = None;
        if let Some(spooled) = spooled
            && let Some(machine) = self.resumed(checkpoint, &spooled).await
        {
            sent = self.send_rest(&checkpoint.upload, machine, &spooled).await;
        }
        let listed = self.listed(checkpoint).await;
        let lists: Vec<_> = sent.into_iter().chain(listed).chain(candidates(&checkpoint.parts)).collect();
        let mut refused = None;
        for parts in &lists {
            match self.with_retries(|| self.store.complete(&checkpoint.upload, parts, &self.meta)).await {
                Ok(stored) => return Ok(Some(stored)),
                Err(error) if error.kind == StorageErrorKind::Invalid => {
                    debug!(%error, parts = parts.len(), "not these parts");
                    refused = Some(error.to_string());
                }
                Err(error) if error.kind == StorageErrorKind::Gone => {
                    return self.made_by_another(file, checkpoint, &lists, &error).await;
                }
                Err(error) => return Err(error.to_string()),
            }
        }
        abort(&*self.store, &checkpoint.upload).await;
        refused.map_or(Ok(None), Err)
    }

    /// The dead run, or one that was to save what it had recorded, may have got as far as the end without being able to
    /// say so.
    async fn made_by_another(
        &self,
        file: &FileCheckpoint,
        checkpoint: &UploadCheckpoint,
        lists: &[Vec<Part>],
        gone: &StorageError,
    ) -> Result<Option<Stored>, String> {
        let found = self.with_retries(|| self.store.head(&file.filename)).await;
        let whole: u64 =
            checkpoint.parts.iter().filter_map(|part| part.acked.as_ref()).map(|part| part.tag.bytes).sum();
        let bytes_of = |list: &Vec<Part>| list.iter().map(|part| part.tag.bytes).sum::<u64>();
        let fits =
            |bytes| (checkpoint.completing && bytes == whole) || lists.iter().any(|list| bytes_of(list) == bytes);
        match found {
            Ok(Some(object)) if fits(object.bytes) => {
                let location = self.store.location(&file.filename);
                Ok(Some(Stored { bytes: object.bytes, etag: object.etag, location }))
            }
            Ok(_) => Err(gone.to_string()),
            Err(error) => Err(format!("{gone}; {error}")),
        }
    }

    /// Its upload had not begun, because the store was away or the recording was young.
    async fn begin_again(&self, file: &FileCheckpoint, spooled: Option<Spooled>) -> Result<Option<Stored>, String> {
        let Some(spooled) = spooled.filter(|_| file.started_at.is_some()) else { return Ok(None) };
        let begin = self.with_retries(|| self.store.begin(&file.filename, &self.meta)).await;
        let upload = begin.map_err(|error| error.to_string())?;
        let machine = self.machine(file.container, &[], &spooled);
        let Some(parts) = self.send_rest(&upload, machine, &spooled).await else {
            abort(&*self.store, &upload).await;
            return Err(format!("{} upload failed: the spool could not be sent", self.store.name()));
        };
        let stored = self.with_retries(|| self.store.complete(&upload, &parts, &self.meta)).await;
        if stored.is_err() {
            abort(&*self.store, &upload).await;
        }
        stored.map(Some).map_err(|error| error.to_string())
    }

    fn machine(&self, container: Container, parts: &[PartState], spooled: &Spooled) -> UploadMachine {
        let head = if spooled.origin.is_whole() { SealTracker::new(container).head() } else { 0 };
        let rules = self.store.rules();
        let layout = crate::upload::plan::PartLayout::of(&rules, &self.settings.parts, head, None);
        self.closed(UploadMachine::resume(layout, rules, self.settings.tuning(), parts), spooled)
    }

    /// Whether the head was rewritten is not known; it is sent again. An object with a head of its own keeps it.
    fn closed(&self, mut machine: UploadMachine, spooled: &Spooled) -> UploadMachine {
        machine.close(spooled.bytes, spooled.origin.is_whole(), Instant::now().into_std());
        machine
    }

    /// `None`: a part that is not known to be stored is not in the spool either.
    async fn resumed(&self, checkpoint: &UploadCheckpoint, spooled: &Spooled) -> Option<UploadMachine> {
        let (spool, mut parts, bytes) = (spooled.clone(), checkpoint.parts.clone(), spooled.bytes);
        let look = spawn_blocking(move || {
            for (index, part) in parts.iter_mut().enumerate() {
                let end = part.end.unwrap_or(bytes);
                if part.start < end && spool.is_whole(part.start..end).ok()? {
                    continue;
                }
                let newest = part.pending.drain(..).rev().find_map(|pending| {
                    let tag = pending.tag?;
                    Some(Part { number: index as u32 + 1, generation: pending.generation, tag })
                });
                part.acked = part.acked.take().or(newest);
                let known = part.acked.as_ref().map(|known| part.start + known.tag.bytes);
                if part.start < end && known != Some(end) {
                    return None;
                }
            }
            Some(parts)
        });
        let parts = look.await.ok().flatten()?;
        let machine =
            UploadMachine::resume(checkpoint.layout.clone(), self.store.rules(), self.settings.tuning(), &parts);
        Some(self.closed(machine, spooled))
    }

    /// All parts, if the rest of them could be sent.
    async fn send_rest(&self, upload: &Upload, mut machine: UploadMachine, spooled: &Spooled) -> Option<Vec<Part>> {
        while let Some(put) = machine.next(Instant::now().into_std()) {
            let (reader, range) = (spooled.clone(), put.range.clone());
            let bytes = spawn_blocking(move || reader.read(range)).await.ok()?.ok()?;
            let (number, generation) = (put.number, put.generation);
            let send = || self.store.put_part(upload, number, generation, bytes.clone());
            match self.with_retries(send).await {
                Ok(tag) => machine.acked(number, generation, tag),
                Err(error) => {
                    warn!(%error, cause = %chain(&error), "rest of the spool not sent");
                    return None;
                }
            }
        }
        machine.finished()
    }

    /// What the store itself says it has, where we may ask.
    async fn listed(&self, checkpoint: &UploadCheckpoint) -> Option<Vec<Part>> {
        let listed = match self.store.list_parts(&checkpoint.upload).await {
            Ok(listed) => listed?,
            Err(error) => {
                debug!(%error, "parts not listed");
                return None;
            }
        };
        let mut parts: Vec<Part> = vec![];
        for (index, state) in checkpoint.parts.iter().enumerate() {
            let number = index as u32 + 1;
            let newest = listed.iter().filter(|part| part.number == number).max_by_key(|part| part.generation);
            let Some(part) = newest else { break };
            parts.push(part.clone());
            if state.end != Some(state.start + part.tag.bytes) {
                break;
            }
        }
        (!parts.is_empty()).then_some(parts)
    }

    async fn with_retries<T, F>(&self, act: impl Fn() -> F) -> Result<T, StorageError>
    where
        F: Future<Output = Result<T, StorageError>>,
    {
        let mut waits = RetrySchedule::new(
            Duration::from_millis(self.settings.first_wait_ms),
            Duration::from_millis(self.settings.longest_wait_ms),
        );
        loop {
            let error = match timeout_at(self.give_up, act()).await {
                Ok(Err(error)) if error.is_transient() => error,
                Ok(result) => return result,
                Err(_) => StorageError::new(StorageErrorKind::Busy, self.store.name(), "salvage", "no answer"),
            };
            let wait = waits.wait();
            if Instant::now() + wait >= self.give_up {
                return Err(error);
            }
            debug!(%error, "tried again");
            sleep(wait).await;
        }
    }
}

async fn abort(store: &dyn Storage, upload: &Upload) {
    if let Err(error) = store.abort(upload).await {
        warn!(%error, "unfinished upload stays in the store");
    }
}

/// Part lists a store may be asked to complete, the one that loses least first. Which one is right depends on sendings
/// whose answer the dead process did not write down: of a part the newest bytes may have arrived, or the older ones may
/// still be there, or none.
pub fn candidates(parts: &[PartState]) -> Vec<Vec<Part>> {
    /// A few more than four sendings at once can be the reason for; a refusal costs one small request.
    const MAX_LISTS: usize = 300;
    let mut lists: Vec<Vec<Part>> = vec![vec![]];
    let mut ready: Vec<Vec<Part>> = vec![];
    for (index, state) in parts.iter().enumerate() {
        let number = index as u32 + 1;
        // A sending of the bytes that were acknowledged changes nothing, whenever it arrives.
        let acked = state.acked.as_ref().map(|part| &part.tag);
        let known: Vec<Part> = state
            .pending
            .iter()
            .rev()
            .filter(|pending| pending.tag.as_ref() != acked)
            .filter_map(|pending| Some(Part { number, generation: pending.generation, tag: pending.tag.clone()? }))
            .chain(state.acked.clone())
            .collect();
        let is_whole = |part: &Part| state.end == Some(state.start + part.tag.bytes);
        // Everything so far could be all there is, if this part's fate is open.
        if state.acked.is_none() || known.len() > 1 {
            ready.extend(lists.iter().cloned());
        }
        let mut longer = vec![];
        for list in lists.drain(..) {
            for part in &known {
                let mut list = list.clone();
                list.push(part.clone());
                // Behind a shorter part nothing can stand.
                if is_whole(part) { longer.push(list) } else { ready.push(list) }
            }
        }
        lists = longer;
        if lists.is_empty() {
            break;
        }
        lists.truncate(MAX_LISTS);
    }
    ready.extend(lists);
    ready.retain(|list| !list.is_empty());
    let bytes = |list: &Vec<Part>| list.iter().map(|part| part.tag.bytes).sum::<u64>();
    // Of equally long ones the newest bytes are likelier to be there.
    let newest = |list: &Vec<Part>| list.iter().map(|part| u64::from(part.generation)).sum::<u64>();
    ready.sort_by_key(|list| std::cmp::Reverse((bytes(list), newest(list))));
    ready.dedup();
    ready.truncate(MAX_LISTS);
    ready
}
