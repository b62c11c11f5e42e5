//! Hours of bad weather in virtual time, with real files and the sizes of real stores.

use std::os::unix::fs::FileExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use spillway_storage::unreliable::Weather;
use spillway_storage::{Object, Part, PartRules, RamStorage, Unreliable};
use tokio::time::sleep;

use super::*;

const MINUTE: Duration = Duration::from_secs(60);
const STEP: Duration = Duration::from_millis(250);

/// A line of so many bits per second for each request, before a store; weighs what is on it.
#[derive(Debug)]
struct Line {
    inner: Unreliable,
    bits_per_second: u64,
    flying: AtomicU64,
    heaviest: AtomicU64,
}

#[async_trait]
impl Storage for Line {
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
        self.inner.complete(upload, parts, meta).await
    }

    async fn abort(&self, upload: &Upload) -> Result<(), StorageError> {
        self.inner.abort(upload).await
    }

    async fn list_parts(&self, upload: &Upload) -> Result<Option<Vec<Part>>, StorageError> {
        self.inner.list_parts(upload).await
    }

    async fn look(&self, name: &str) -> Result<Option<Object>, StorageError> {
        self.inner.look(name).await
    }

    async fn presign(&self, name: &str, life: Duration) -> Result<String, StorageError> {
        self.inner.presign(name, life).await
    }
}

/// A recording and its upload.
struct Lab {
    ram: RamStorage,
    weather: Unreliable,
    line: Arc<Line>,
    folder: tempfile::TempDir,
    shelf: Arc<Shelf>,
    file: Mutex<(std::fs::File, u64)>,
    bits_per_second: u64,
    written: watch::Sender<Written>,
    asks: mpsc::Sender<Ask>,
    progress: watch::Receiver<Progress>,
    /// The most the spool took from the disk.
    spooled: AtomicU64,
    begun: Instant,
    _session: mpsc::Receiver<Event>,
}

impl Lab {
    fn new(bits_per_second: u64, line: u64) -> Self {
        let ram = RamStorage::new();
        let weather = Unreliable::new(Arc::new(ram.clone()));
        let line = Arc::new(Line {
            inner: weather.clone(),
            bits_per_second: line,
            flying: AtomicU64::new(0),
            heaviest: AtomicU64::new(0),
        });
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.mp4");
        let file = std::fs::File::create(&path).unwrap();
        file.write_all_at(&[b'f'; 300], 0).unwrap();
        let shelf = Arc::new(Shelf::open(&path).unwrap());
        let (written, hears) = watch::channel(Written::default());
        let (tells, progress) = watch::channel(Progress::default());
        let (asks, asked) = mpsc::channel(2);
        let (session, told) = mpsc::channel(4);
        let uploader = Uploader {
            file: 0,
            name: "a.mp4".into(),
            meta: Meta::of("video/mp4"),
            head: 48,
            bits_per_second: Some(bits_per_second),
            target: Target { store: line.clone(), upload: None },
            backup: None,
            primary_words: String::new(),
            shelf: shelf.clone(),
            spool_cap: 2 << 30,
            settings: UploadSettings::default(),
            keeper: Keeper::nowhere(),
            written: hears,
            asks: asked,
            progress: tells,
            session,
        };
        tokio::spawn(uploader.run());
        Self {
            ram,
            weather,
            line,
            folder,
            shelf,
            file: Mutex::new((file, 300)),
            bits_per_second,
            written,
            asks,
            progress,
            spooled: AtomicU64::new(0),
            begun: Instant::now(),
            _session: told,
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
                file.0.write_all_at(&chunk, file.1).unwrap();
                file.1 += bytes;
                file.1
            };
            let media_ns = self.begun.elapsed().as_nanos() as u64;
            self.written.send_replace(Written { sealed_to: end, media_ns });
            self.spooled.fetch_max(self.shelf.used().unwrap(), Ordering::Relaxed);
        }
    }

    /// How long it took.
    async fn finish(&self) -> (Result<Kept, Failure>, Duration) {
        let end = {
            let mut file = self.file.lock().unwrap();
            file.0.write_all_at(&[b'M'; 199], file.1).unwrap();
            file.0.write_all_at(b"the last head...", 32).unwrap();
            file.1 += 199;
            file.1
        };
        assert_eq!(self.shelf.end().unwrap(), end);
        let asked = Instant::now();
        let (done, result) = oneshot::channel();
        self.asks.send(Ask::Finish(done)).await.unwrap();
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

    fn heaviest(&self) -> u64 {
        self.line.heaviest.load(Ordering::Relaxed)
    }
}

#[tokio::test(start_paused = true)]
async fn ten_minutes_of_outage_while_recording_cost_nothing() {
    let stall = Duration::from_secs(90);
    for (weather, stall) in [(Weather::Down, Duration::ZERO), (Weather::Stalling(stall), stall)] {
        let lab = Lab::new(2_000_000, 20_000_000);
        lab.record(MINUTE).await;
        lab.weather.set_weather(weather);
        lab.record(10 * MINUTE).await;
        assert!(lab.progress.borrow().behind_ms > 9 * 60_000, "{:?}", lab.progress.borrow());
        assert!(!lab.progress.borrow().trouble.is_empty());
        lab.weather.set_weather(Weather::Fine);
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
    for weather in [Weather::Down, Weather::Stalling(Duration::from_secs(90))] {
        let lab = Lab::new(3_000_000, 20_000_000);
        lab.record(2 * MINUTE).await;
        lab.weather.set_weather(weather);
        lab.record(Duration::from_secs(5)).await;
        let clear = async {
            sleep(10 * MINUTE).await;
            lab.weather.set_weather(Weather::Fine);
        };
        let ((result, took), ()) = tokio::join!(lab.finish(), clear);
        assert_eq!(result.unwrap().bytes, lab.file.lock().unwrap().1);
        assert!(took >= 10 * MINUTE && took < 13 * MINUTE, "{took:?}");
        lab.nothing_is_lost();
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_has_an_end() {
    let lab = Lab::new(1_000_000, 20_000_000);
    lab.record(MINUTE).await;
    lab.weather.set_weather(Weather::Down);
    let (result, took) = lab.finish().await;
    assert!(result.unwrap_err().words.contains("503"));
    assert!(took > 15 * MINUTE && took < 17 * MINUTE, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_sent_held_and_asked_is_bounded_at_every_speed() {
    for (bits, minutes, most) in [(1_000_000, 6, 3.0), (6_000_000, 3, 1.2), (20_000_000, 1, 1.2)] {
        let lab = Lab::new(bits, 2 * bits);
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
        assert!(amplified <= most, "{bits}: {amplified}");
        assert!(lab.heaviest() <= 48 << 20);
        // Part 1, the part that is growing, and what is on the line.
        assert!(lab.spooled.load(Ordering::Relaxed) < 32 << 20);
    }
}
