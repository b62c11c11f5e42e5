//! Recordings that end in a store, which is a bucket in memory: what all of these tests need. `recorded` is the ordinary way,
//! `several` has more than one file, `hls` segments and playlists, `images` single pictures, `outages` stores that fail,
//! `aborted` an upload that another party aborts, `restarted` a media process that dies, `salvaged` a runner, and
//! `resumed` one whose recording goes on.

mod aborted;
mod hls;
mod images;
mod outages;
mod recorded;
mod restarted;
mod resumed;
mod several;
mod salvaged;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use serde_json::json;
use spillway_plan::destination::S3;
use spillway_plan::{Destination, Destinations, Provider, Store};
use spillway_protocol::livekit::FileInfo;
use spillway_runner::upload::stores::StoreFactory;
use spillway_storage::{PartRules, RamStorage, Storage, StorageError, Unreliable};

use crate::harness::RunnerHarness;

/// Two buckets, and the faults of each.
#[derive(Clone, Debug)]
struct Buckets {
    primary: RamStorage,
    backup: RamStorage,
    over_primary: Unreliable,
    over_backup: Unreliable,
    /// How often a store was opened.
    opened: Arc<AtomicUsize>,
}

impl Buckets {
    fn new(rules: PartRules) -> Self {
        let (primary, backup) = (RamStorage::with_rules(rules), RamStorage::with_rules(rules));
        let over_primary = Unreliable::new(Arc::new(primary.clone()));
        let over_backup = Unreliable::new(Arc::new(backup.clone()));
        Self { primary, backup, over_primary, over_backup, opened: Arc::default() }
    }

    fn open_uploads(&self) -> usize {
        self.primary.open_uploads() + self.backup.open_uploads()
    }
}

#[async_trait]
impl StoreFactory for Buckets {
    async fn open(&self, destination: &Destination) -> Result<Arc<dyn Storage>, StorageError> {
        let Destination::Store(store) = destination else { panic!("a disk is not opened") };
        let Provider::S3(s3) = &store.provider else { panic!("not asked for") };
        self.opened.fetch_add(1, Ordering::Relaxed);
        let store = if s3.bucket == "primary" { &self.over_primary } else { &self.over_backup };
        Ok(Arc::new(store.clone()))
    }
}

fn bucket(name: &str) -> Destination {
    let provider = Provider::S3(Box::new(S3 { bucket: name.into(), ..S3::default() }));
    Destination::Store(Box::new(Store { provider, prefix: String::new(), presign: false }))
}

fn s3() -> PartRules {
    PartRules { min_part_bytes: 64 << 10, max_part_bytes: 1 << 30, max_parts: 10_000, uniform: false }
}

async fn harness(rules: PartRules, backup: bool) -> (RunnerHarness, Buckets) {
    let buckets = Buckets::new(rules);
    let mut harness = RunnerHarness::new().await;
    harness.stores = Arc::new(buckets.clone());
    harness.destinations = Some(Destinations { primary: bucket("primary"), backup: backup.then(|| bucket("backup")) });
    harness.upload = json!({
        "checkpoint_ms": 200,
        "parts": {"small": 128 << 10, "small_until": 20, "middle": 512 << 10, "middle_until": 60, "large": 2 << 20},
        "first_wait_ms": 20,
        "longest_wait_ms": 100,
        "max_outage_ms": 1500,
        "backup_after_ms": 600,
        "write_check_ms": 500,
        "spool_dir": harness.folder.path().join("spool"),
    });
    (harness, buckets)
}

impl RunnerHarness {
    fn spooled(&self) -> Vec<PathBuf> {
        let files =
            |folder: PathBuf| std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        files(self.folder.path().join("spool")).flat_map(files).collect()
    }
}

/// The container decides the extension.
fn name(script: &str) -> &'static str {
    if script.contains("mp4") { "a.mp4" } else { "a.ogg" }
}

fn media(at: u64) -> u8 {
    (at.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8
}

/// Whether it is a recording from its first byte on; for an MP4, whether it is a finished one too.
fn plays(object: &[u8], mp4: bool) -> bool {
    if !mp4 {
        for (at, byte) in object.iter().enumerate() {
            assert_eq!(*byte, media(at as u64), "byte {at}");
        }
        return true;
    }
    let finished = object.ends_with(&[b'M'; 199]);
    assert!(object[..32] == [b'f'; 32] && object[48..300] == [b'f'; 252]);
    let head = &object[32..48];
    if finished {
        assert!(head.starts_with(b"\0\0\0\x08free"), "the last head");
    } else {
        assert_eq!(head, [b'f'; 16], "a head that points to what is not there");
    }
    let mut at = 300;
    let end = object.len() - if finished { 199 } else { 0 };
    while at + 16 <= end {
        assert_eq!((&object[at + 4..at + 8], &object[at + 12..at + 16]), (&b"free"[..], &b"mdat"[..]), "at {at}");
        let size = u32::from_be_bytes(object[at + 8..at + 12].try_into().unwrap()) as usize;
        // Torn, or open: the rest is not looked at by players.
        let to = if size == 0 { end } else { (at + 8 + size).min(end) };
        for (index, byte) in object[at + 16..to].iter().enumerate() {
            assert_eq!(*byte, media((at + 16 + index) as u64));
        }
        at = to;
    }
    finished
}

/// An MP4 of the first bucket.
fn is_stored_whole(buckets: &Buckets, file: &FileInfo) {
    let object = buckets.primary.object(&file.filename).unwrap();
    assert!(plays(&object, true));
    assert_eq!(file.size as usize, object.len());
}
