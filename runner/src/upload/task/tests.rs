//! Hours of outages and aborted uploads in virtual time, with real files and the part sizes of real stores.

use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use spillway_ipc::restart::RestartPoints;
use spillway_ipc::{Origin, SpoolReader};
use spillway_storage::unreliable::FaultMode;
use spillway_storage::{
    Meta, Object, Part, PartRules, PartTag, RamStorage, Storage, StorageError, StorageErrorKind, Stored, Unreliable,
    Upload,
};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use super::*;
use crate::events::SessionEvent;
use crate::upload::checkpoint::CheckpointWriter;
use crate::upload::names::ObjectNames;
use crate::upload::outcome::UploadProgress;
use crate::upload::settings::UploadSettings;

const MINUTE: Duration = Duration::from_secs(60);
const STEP: Duration = Duration::from_millis(250);

/// A line of so many bits per second for each request, before a store; weighs what is on it.
#[derive(Debug)]
struct ThrottledLink {
    inner: Unreliable,
    bits_per_second: u64,
    flying: AtomicU64,
    heaviest: AtomicU64,
    /// Its keys may only write, its first answer to `complete` is lost, and then it knows no such upload.
    write_only: bool,
    completions: AtomicU64,
}

#[async_trait]
impl Storage for ThrottledLink {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn location(&self, name: &str) -> String {
        self.inner.location(name)
    }

    fn rules(&self) -> PartRules {
        self.inner.rules()
    }

    async fn put(&self, name: &str, bytes: Bytes, meta: &Meta) -> Result<Stored, StorageError> {
        self.inner.put(name, bytes, meta).await
    }

    async fn begin(&self, name: &str, meta: &Meta) -> Result<Upload, StorageError> {
        self.inner.begin(name, meta).await
    }

    async fn put_part(
        &self,
        upload: &Upload,
        number: u32,
        generation: u32,
        bytes: Bytes,
    ) -> Result<PartTag, StorageError> {
        let weight = bytes.len() as u64;
        let flying = self.flying.fetch_add(weight, Ordering::Relaxed) + weight;
        self.heaviest.fetch_max(flying, Ordering::Relaxed);
        sleep(Duration::from_secs_f64(weight as f64 * 8.0 / self.bits_per_second as f64)).await;
        let put = self.inner.put_part(upload, number, generation, bytes).await;
        self.flying.fetch_sub(weight, Ordering::Relaxed);
        put
    }

    async fn complete(&self, upload: &Upload, parts: &[Part], meta: &Meta) -> Result<Stored, StorageError> {
        let before = self.completions.fetch_add(1, Ordering::Relaxed);
        let done = self.inner.complete(upload, parts, meta).await;
        match (self.write_only, before) {
            (true, 0) => done.and(Err(StorageError::new(StorageErrorKind::Busy, self.name(), "complete", "no answer"))),
            (true, _) => {
                done.and(Err(StorageError::new(StorageErrorKind::Gone, self.name(), "complete", "NoSuchUpload")))
            }
            (false, _) => done,
        }
    }

    async fn abort(&self, upload: &Upload) -> Result<(), StorageError> {
        self.inner.abort(upload).await
    }

    async fn list_parts(&self, upload: &Upload) -> Result<Option<Vec<Part>>, StorageError> {
        self.inner.list_parts(upload).await
    }

    async fn head(&self, name: &str) -> Result<Option<Object>, StorageError> {
        if self.write_only {
            return Err(StorageError::new(StorageErrorKind::Denied, self.name(), "look", "AccessDenied"));
        }
        self.inner.head(name).await
    }

    async fn delete(&self, name: &str) -> Result<(), StorageError> {
        self.inner.delete(name).await
    }

    async fn presign(&self, name: &str, life: Duration) -> Result<String, StorageError> {
        self.inner.presign(name, life).await
    }
}

/// A recording and its upload.
struct UploadLab {
    ram: RamStorage,
    fault_mode: Unreliable,
    link: Arc<ThrottledLink>,
    folder: tempfile::TempDir,
    spool: Arc<SpoolReader>,
    file: Mutex<(std::fs::File, u64)>,
    bits_per_second: u64,
    written: watch::Sender<SpoolProgress>,
    commands: mpsc::Sender<UploadCommand>,
    progress: watch::Receiver<UploadProgress>,
    /// The most the spool took from the disk.
    spooled: AtomicU64,
    begun: Instant,
    session: Mutex<mpsc::Receiver<SessionEvent>>,
    backup: RamStorage,
    /// It writes an MP4 that could be played, not only bytes with a head.
    fragmented: bool,
}

/// What a lab is made of, where it is not the usual.
struct Setting {
    fragmented: bool,
    backup: bool,
    spool_cap: u64,
    write_only: bool,
}

const USUAL: Setting = Setting { fragmented: false, backup: false, spool_cap: 2 << 30, write_only: false };
const MP4: Setting = Setting { fragmented: true, ..USUAL };

fn boxed(name: &[u8; 4], content: &[u8]) -> Vec<u8> {
    [&(content.len() as u32 + 8).to_be_bytes(), &name[..], content].concat()
}

/// `ftyp`, the gap that becomes the head of one `mdat`, `moov`.
fn front() -> Vec<u8> {
    [boxed(b"ftyp", &[b'f'; 24]), boxed(b"free", &[0; 8]), boxed(b"moov", &[b'm'; 200])].concat()
}

/// A fragment at `at` of the file: its data, then where that is.
fn fragment(at: u64, data: &[u8]) -> Vec<u8> {
    let tfhd = boxed(b"tfhd", &[&[0, 0, 0, 1, 0, 0, 0, 1][..], &(at + 16).to_be_bytes()].concat());
    let mdat = [&8u32.to_be_bytes()[..], b"free", &(data.len() as u32 + 8).to_be_bytes(), b"mdat", data].concat();
    [mdat, boxed(b"moof", &boxed(b"traf", &tfhd))].concat()
}

impl UploadLab {
    fn new(bits_per_second: u64, link: u64) -> Self {
        Self::with(bits_per_second, link, USUAL)
    }

    fn with(bits_per_second: u64, link: u64, setting: Setting) -> Self {
        let ram = RamStorage::new();
        let fault_mode = Unreliable::new(Arc::new(ram.clone()));
        let throttled = |inner: &Unreliable| {
            Arc::new(ThrottledLink {
                inner: inner.clone(),
                bits_per_second: link,
                flying: AtomicU64::new(0),
                heaviest: AtomicU64::new(0),
                write_only: setting.write_only,
                completions: AtomicU64::new(0),
            })
        };
        let backup = RamStorage::new();
        let behind = Unreliable::new(Arc::new(backup.clone()));
        let (link, second) = (throttled(&fault_mode), throttled(&behind));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.mp4");
        let file = std::fs::File::create(&path).unwrap();
        let front = if setting.fragmented { front() } else { vec![b'f'; 300] };
        file.write_all_at(&front, 0).unwrap();
        let spool = Arc::new(SpoolReader::open(&path).unwrap());
        let (written, written_rx) = watch::channel(SpoolProgress::default());
        let (progress_tx, progress) = watch::channel(UploadProgress::default());
        let (commands, command_rx) = mpsc::channel(2);
        let (session, told) = mpsc::channel(16);
        let names = ObjectNames::default().for_stores(vec![0, 1]);
        names.take("a.mp4");
        let uploader = Uploader {
            file: 0,
            output: 0,
            asked_name: "a.mp4".into(),
            names,
            name: "a.mp4".into(),
            origin: Origin::default(),
            points: RestartPoints::new(spillway_plan::Container::Mp4),
            meta: Meta::of("video/mp4"),
            head: 48,
            bits_per_second: Some(bits_per_second),
            target: UploadTarget { store: link.clone(), upload: None },
            backup: setting.backup.then_some(second as Arc<dyn Storage>),
            primary_error: String::new(),
            spool: spool.clone(),
            spool_cap: setting.spool_cap,
            settings: UploadSettings::default(),
            checkpoint_writer: CheckpointWriter::disabled(),
            written: written_rx,
            commands: command_rx,
            progress: progress_tx,
            session,
        };
        tokio::spawn(uploader.run());
        Self {
            ram,
            fault_mode,
            link,
            folder,
            spool,
            file: Mutex::new((file, front.len() as u64)),
            bits_per_second,
            written,
            commands,
            progress,
            spooled: AtomicU64::new(0),
            begun: Instant::now(),
            session: Mutex::new(told),
            backup,
            fragmented: setting.fragmented,
        }
    }

    fn byte(at: u64) -> u8 {
        (at.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8
    }

    /// Records at its pace.
    async fn record(&self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            sleep(STEP).await;
            let bytes = self.bits_per_second / 8 / 4;
            let end = {
                let mut file = self.file.lock().unwrap();
                let chunk: Vec<u8> = (file.1..file.1 + bytes).map(Self::byte).collect();
                let chunk = if self.fragmented { fragment(file.1, &chunk) } else { chunk };
                file.0.write_all_at(&chunk, file.1).unwrap();
                file.1 += chunk.len() as u64;
                file.1
            };
            let media_ns = self.begun.elapsed().as_nanos() as u64;
            self.written.send_replace(SpoolProgress { sealed_to: end, media_ns });
            self.spooled.fetch_max(self.spool.used().unwrap(), Ordering::Relaxed);
        }
    }

    /// The media process closes the file.
    fn seal(&self) {
        let end = {
            let mut file = self.file.lock().unwrap();
            let index = if self.fragmented { boxed(b"moov", &[b'M'; 191]) } else { vec![b'M'; 199] };
            file.0.write_all_at(&index, file.1).unwrap();
            file.0.write_all_at(b"the last head...", 32).unwrap();
            file.1 += 199;
            file.1
        };
        assert_eq!(self.spool.end().unwrap(), end);
    }

    /// How long it took.
    async fn finish(&self) -> (Result<StoredObject, UploadFailure>, Duration) {
        self.seal();
        self.result().await
    }

    async fn result(&self) -> (Result<StoredObject, UploadFailure>, Duration) {
        let asked = Instant::now();
        let (done, result) = oneshot::channel();
        self.commands.send(UploadCommand::Finish(done)).await.unwrap();
        (result.await.unwrap(), asked.elapsed())
    }

    fn nothing_is_lost(&self) {
        let object = self.ram.object("a.mp4").unwrap();
        let end = self.file.lock().unwrap().1;
        assert_eq!(object.len() as u64, end);
        assert_eq!(&object[32..48], b"the last head...");
        let media = &object[300..object.len() - 199];
        assert!(media.iter().enumerate().all(|(at, byte)| *byte == Self::byte(at as u64 + 300)));
        assert_eq!(self.ram.open_uploads(), 0);
        assert!(self.folder.path().exists());
    }

    /// What the session was told so far.
    fn told(&self) -> Vec<SessionEvent> {
        let mut session = self.session.lock().unwrap();
        std::iter::from_fn(|| session.try_recv().ok()).collect()
    }

    /// An object of fragments alone, all of them whole, with their own places in them, from the file's fragment that it
    /// begins with to the last. How many bytes of the file it has.
    fn plays_from_the_middle(&self, object: &[u8]) -> u64 {
        let head = [&front()[..32], &front()[48..]].concat();
        assert_eq!(object[..head.len()], head, "what players need comes first");
        let end = self.file.lock().unwrap().1;
        let media = object.len() - head.len();
        let shift = end - 199 - object.len() as u64;
        assert!(shift > 0, "the beginning is lost");
        let mut at = head.len();
        while at < object.len() {
            let size = u32::from_be_bytes(object[at + 8..at + 12].try_into().unwrap()) as usize;
            let moof = at + 8 + size;
            let place = moof + 32;
            assert_eq!((&object[at + 4..at + 8], &object[moof + 4..moof + 8]), (&b"free"[..], &b"moof"[..]), "at {at}");
            assert_eq!(u64::from_be_bytes(object[place..place + 8].try_into().unwrap()), at as u64 + 16);
            let mut data = vec![0; size - 8];
            // The spool was given back; what was written is known.
            let from = at as u64 + 16 + shift;
            data.iter_mut().zip(from - 16..).for_each(|(byte, at)| *byte = Self::byte(at));
            assert!(object[at + 16..moof] == data, "media of the fragment at {at}");
            at = place + 8;
        }
        assert_eq!(at, object.len());
        media as u64
    }

    fn heaviest(&self) -> u64 {
        self.link.heaviest.load(Ordering::Relaxed)
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_closed_is_stored_while_the_recording_goes_on() {
    let lab = UploadLab::new(2_000_000, 20_000_000);
    lab.record(MINUTE).await;
    // For longer than a store may fail after the end of a recording.
    lab.fault_mode.set_fault_mode(FaultMode::Down);
    lab.seal();
    lab.commands.send(UploadCommand::Close).await.unwrap();
    sleep(30 * MINUTE).await;
    lab.fault_mode.set_fault_mode(FaultMode::Fine);
    sleep(5 * MINUTE).await;
    lab.nothing_is_lost();
    assert!(!lab.folder.path().join("0.mp4").exists(), "the spool has room for the next one");
    let (stored, took) = lab.result().await;
    assert_eq!(stored.unwrap().bytes, lab.file.lock().unwrap().1);
    assert!(took < STEP, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn ten_minutes_of_outage_while_recording_cost_nothing() {
    let stall = Duration::from_secs(90);
    for (fault_mode, stall) in [(FaultMode::Down, Duration::ZERO), (FaultMode::Stalling(stall), stall)] {
        let lab = UploadLab::new(2_000_000, 20_000_000);
        lab.record(MINUTE).await;
        lab.fault_mode.set_fault_mode(fault_mode);
        lab.record(10 * MINUTE).await;
        assert!(lab.progress.borrow().behind_ms > 9 * 60_000, "{:?}", lab.progress.borrow());
        assert!(!lab.progress.borrow().error.is_empty());
        lab.fault_mode.set_fault_mode(FaultMode::Fine);
        lab.record(4 * MINUTE).await;
        assert!(lab.progress.borrow().behind_ms < 12_000, "it has caught up: {:?}", lab.progress.borrow());
        let (result, took) = lab.finish().await;
        assert_eq!(result.unwrap().bytes, lab.file.lock().unwrap().1);
        assert!(took < Duration::from_secs(10), "{took:?}");
        lab.nothing_is_lost();
        let spooled = lab.spooled.load(Ordering::Relaxed);
        // The longest wait between two tries is 30 s, and a request that began to stall in the last moment stalls on.
        let longest = 10 * MINUTE + Duration::from_secs(30) + stall;
        assert!(spooled < longest.as_secs() * 250_000 + (12 << 20), "only the outage waits on the disk: {spooled}");
        assert!(lab.heaviest() <= 56 << 20, "{}", lab.heaviest());
    }
}

#[tokio::test(start_paused = true)]
async fn ten_minutes_of_outage_at_the_end_cost_nothing() {
    for fault_mode in [FaultMode::Down, FaultMode::Stalling(Duration::from_secs(90))] {
        let lab = UploadLab::new(3_000_000, 20_000_000);
        lab.record(2 * MINUTE).await;
        lab.fault_mode.set_fault_mode(fault_mode);
        lab.record(Duration::from_secs(5)).await;
        let clear = async {
            sleep(10 * MINUTE).await;
            lab.fault_mode.set_fault_mode(FaultMode::Fine);
        };
        let ((result, took), ()) = tokio::join!(lab.finish(), clear);
        assert_eq!(result.unwrap().bytes, lab.file.lock().unwrap().1);
        assert!(took >= 10 * MINUTE && took < 13 * MINUTE, "{took:?}");
        lab.nothing_is_lost();
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_has_an_end() {
    let lab = UploadLab::new(1_000_000, 20_000_000);
    lab.record(MINUTE).await;
    lab.fault_mode.set_fault_mode(FaultMode::Down);
    let (result, took) = lab.finish().await;
    assert!(result.unwrap_err().message.contains("503"));
    assert!(took > 15 * MINUTE && took < 17 * MINUTE, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_sent_held_and_asked_is_bounded_at_every_speed() {
    for (bits, minutes, max) in [(1_000_000, 6, 3.0), (6_000_000, 3, 1.2), (20_000_000, 1, 1.2)] {
        let lab = UploadLab::new(bits, 2 * bits);
        lab.record(minutes * MINUTE).await;
        let (result, took) = lab.finish().await;
        let bytes = result.unwrap().bytes;
        lab.nothing_is_lost();
        let counts = lab.ram.counts();
        let amplified = counts.bytes as f64 / bytes as f64;
        println!(
            "{bits} bit/s: x{amplified:.2} sent, {} PUTs/h, {:.1} MB in memory, {} MB of spool, finished in {took:.1?}",
            counts.puts * 60 / u64::from(minutes),
            lab.heaviest() as f64 / 1e6,
            lab.spooled.load(Ordering::Relaxed) >> 20,
        );
        assert!(amplified <= max, "{bits}: {amplified}");
        assert!(lab.heaviest() <= 48 << 20);
        // Part 1, the part that is growing, and what is on the line.
        assert!(lab.spooled.load(Ordering::Relaxed) < 32 << 20);
    }
}

const SECOND: Duration = Duration::from_secs(1);

fn notes(told: &[SessionEvent]) -> Vec<String> {
    told.iter()
        .filter_map(|event| if let SessionEvent::Noted(message) = event { Some(message.clone()) } else { None })
        .collect()
}

/// A life-cycle rule, MinIO's sweep after 24 h: the store forgets what was begun and not finished.
#[tokio::test(start_paused = true)]
async fn an_upload_that_was_swept_goes_on_in_a_new_object() {
    let lab = UploadLab::with(2_000_000, 20_000_000, MP4);
    for (number, name) in [(2, "a-2.mp4"), (3, "a-3.mp4")] {
        lab.record(5 * MINUTE).await;
        lab.ram.sweep();
        lab.record(15 * SECOND).await;
        assert_eq!(lab.ram.open_uploads(), 1, "noticed with the next part");
        let noted = notes(&lab.told());
        assert!(noted.len() == 1 && noted[0].contains("NoSuchUpload") && noted[0].contains(name), "{noted:?}");
        assert!(noted[0].contains(" s of a") && noted[0].contains("are lost"), "{noted:?}");
        assert_eq!(lab.ram.counts().begun, number);
        assert_eq!(lab.progress.borrow().name, name);
    }
    lab.record(5 * MINUTE).await;
    assert!(lab.spooled.load(Ordering::Relaxed) < 32 << 20, "the spool is given back as before");
    assert!(!lab.spool.is_whole(8192..1 << 20).unwrap(), "and so is the first part of the first object");
    assert!(lab.spool.is_whole(0..front().len() as u64).unwrap(), "but not the head");
    let (result, took) = lab.finish().await;
    let kept = result.unwrap();
    assert!(took < 10 * SECOND, "{took:?}");
    assert_eq!(lab.ram.keys(), ["a-3.mp4"], "what was swept is gone");
    let object = lab.ram.object("a-3.mp4").unwrap();
    assert_eq!(
        (kept.filename.as_str(), kept.bytes, kept.location.as_str()),
        ("a-3.mp4", object.len() as u64, "ram://a-3.mp4")
    );
    let media = lab.plays_from_the_middle(&object);
    let seconds = media as f64 * 8.0 / 2_000_000.0;
    let skipped = kept.skipped_ns as f64 / 1e9;
    assert!((300.0..330.0).contains(&seconds), "what the spool had is in it: {seconds}");
    assert!((skipped + seconds - 930.0).abs() < 3.0, "{skipped} + {seconds}");
    assert_eq!(lab.ram.open_uploads(), 0);
    assert_eq!(lab.progress.borrow().notes.len(), 2, "and the end says it again");
}

#[tokio::test(start_paused = true)]
async fn an_upload_swept_before_anything_was_given_back_is_begun_again_whole() {
    for setting in [USUAL, MP4] {
        let lab = UploadLab::with(1_000_000, 20_000_000, setting);
        lab.record(20 * SECOND).await;
        lab.ram.sweep();
        lab.record(20 * SECOND).await;
        let noted = notes(&lab.told());
        assert!(noted.len() == 1 && noted[0].contains("nothing of it is lost"), "{noted:?}");
        let kept = lab.finish().await.0.unwrap();
        assert_eq!((kept.filename.as_str(), kept.skipped_ns), ("a.mp4", 0));
        assert_eq!(lab.ram.object("a.mp4").unwrap().len() as u64, lab.file.lock().unwrap().1);
        assert_eq!((lab.ram.keys().len(), lab.ram.open_uploads()), (1, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn an_upload_swept_at_the_very_end_is_stored_as_far_as_the_spool_has_it() {
    let lab = UploadLab::with(2_000_000, 20_000_000, MP4);
    lab.record(5 * MINUTE).await;
    lab.ram.sweep();
    let (result, took) = lab.finish().await;
    let kept = result.unwrap();
    assert!(took < 10 * SECOND, "{took:?}");
    let media = lab.plays_from_the_middle(&lab.ram.object("a-2.mp4").unwrap());
    let lost = kept.skipped_ns as f64 / 1e9;
    assert!((lost + media as f64 * 8.0 / 2e6 - 300.0).abs() < 3.0, "{lost}");
    assert_eq!(lab.progress.borrow().notes.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_backup_takes_over_when_no_new_object_can_be_begun() {
    for fault_mode in [FaultMode::Refusing(StorageErrorKind::Denied), FaultMode::Down] {
        // A spool so small that room had to be made although there is a backup.
        let lab = UploadLab::with(2_000_000, 20_000_000, Setting { backup: true, spool_cap: 40 << 20, ..MP4 });
        lab.record(5 * MINUTE).await;
        assert!(lab.spooled.load(Ordering::Relaxed) < 32 << 20);
        lab.ram.sweep();
        lab.record(12 * SECOND).await;
        lab.ram.sweep();
        lab.fault_mode.set_fault_mode(fault_mode);
        lab.record(3 * MINUTE).await;
        let kept = lab.finish().await.0.unwrap();
        assert!(kept.used_backup && kept.filename.starts_with("a-"), "{kept:?}");
        assert_eq!((lab.ram.keys().len(), lab.backup.keys()), (0, vec![kept.filename.clone()]));
        let media = lab.plays_from_the_middle(&lab.backup.object(&kept.filename).unwrap());
        assert!(media as f64 * 8.0 / 2e6 > 180.0, "{media}");
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_sweep_the_spools_bound_is_still_watched() {
    let lab = UploadLab::with(2_000_000, 20_000_000, Setting { spool_cap: 30 << 20, ..MP4 });
    lab.record(5 * MINUTE).await;
    lab.ram.sweep();
    lab.fault_mode.set_fault_mode(FaultMode::Down);
    lab.record(5 * MINUTE).await;
    let says = |message: &str| message.contains("spool holds no more");
    let full =
        lab.told().iter().any(|event| matches!(event, SessionEvent::OutputFull { message, .. } if says(message)));
    assert!(full, "the recording is ended before the disk is full");
}

/// Bytes that nothing is known about cannot be cut: then the recording ends, and says why.
#[tokio::test(start_paused = true)]
async fn what_would_not_play_ends_the_recording_at_once_with_the_reason() {
    let lab = UploadLab::new(2_000_000, 20_000_000);
    lab.record(5 * MINUTE).await;
    lab.ram.sweep();
    lab.record(15 * SECOND).await;
    let told = lab.told();
    let says = |message: &str| message.contains("NoSuchUpload");
    let full = told.iter().any(|event| matches!(event, SessionEvent::OutputFull { message, .. } if says(message)));
    assert!(full, "{told:?}");
    let (result, took) = lab.finish().await;
    assert!(result.unwrap_err().message.contains("would not play by itself"));
    assert!(took < 10 * SECOND, "{took:?}");
    assert_eq!(lab.ram.open_uploads(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_keeps_no_upload_is_given_up() {
    let lab = UploadLab::with(1_000_000, 20_000_000, MP4);
    lab.record(20 * SECOND).await;
    lab.fault_mode.set_fault_mode(FaultMode::Refusing(StorageErrorKind::Gone));
    let (result, took) = lab.finish().await;
    assert!(!result.unwrap_err().gone);
    assert!(took < MINUTE, "{took:?}");
    assert!(lab.ram.counts().requests < 100, "{:?}", lab.ram.counts());
}

/// MinIO and Ceph answer the repetition of a `complete` with NoSuchUpload, and most keys may only write.
#[tokio::test(start_paused = true)]
async fn a_completion_without_an_answer_is_believed_where_keys_may_not_look() {
    let lab = UploadLab::with(1_000_000, 20_000_000, Setting { write_only: true, ..MP4 });
    lab.record(MINUTE).await;
    let kept = lab.finish().await.0.unwrap();
    assert_eq!((kept.filename.as_str(), kept.bytes), ("a.mp4", lab.file.lock().unwrap().1));
    assert_eq!(lab.ram.keys(), ["a.mp4"]);
    let notes = lab.progress.borrow().notes.clone();
    assert!(notes.len() == 1 && notes[0].contains("may not look"), "{notes:?}");
}

#[tokio::test(start_paused = true)]
async fn a_completion_that_the_primary_did_not_answer_says_nothing_of_the_backup() {
    let lab = UploadLab::with(1_000_000, 20_000_000, Setting { write_only: true, backup: true, ..MP4 });
    lab.record(MINUTE).await;
    let meanwhile = async {
        while lab.link.completions.load(Ordering::Relaxed) == 0 {
            sleep(Duration::from_millis(10)).await;
        }
        lab.fault_mode.set_fault_mode(FaultMode::Down);
        while lab.backup.open_uploads() == 0 {
            sleep(Duration::from_millis(10)).await;
        }
        lab.backup.sweep();
    };
    let ((result, _), ()) = tokio::join!(lab.finish(), meanwhile);
    let kept = result.unwrap();
    assert!(kept.used_backup && lab.backup.counts().begun == 2, "{kept:?}");
    assert_eq!(lab.backup.object("a.mp4").unwrap().len() as u64, lab.file.lock().unwrap().1, "begun again, whole");
    assert_eq!((lab.backup.keys().len(), lab.backup.open_uploads()), (1, 0));
}
