use std::fs;
use std::sync::Arc;

use async_trait::async_trait;
use proptest::prelude::*;
use spillway_plan::segment_name::{SegmentFormat, SegmentNames, SegmentSuffix};
use spillway_plan::{Destination, Destinations, Provider, Store};
use spillway_process::LocalRoot;
use spillway_storage::{Meta, RamStorage, Storage, StorageError};

use super::*;
use crate::upload::UploadSettings;
use crate::upload::segments::{SegmentRun, UnlistedSegment};
use crate::upload::stores::StoreFactory;

const SECOND_NS: u64 = 1_000_000_000;
const ORIGIN: i64 = 1_772_366_400_000_000_000;

#[derive(Debug)]
struct OneStore(RamStorage);

#[async_trait]
impl StoreFactory for OneStore {
    async fn open(&self, _: &Destination) -> Result<Arc<dyn Storage>, StorageError> {
        Ok(Arc::new(self.0.clone()))
    }
}

fn names() -> SegmentNames {
    SegmentNames {
        directory: "d/".into(),
        playlist: "a.m3u8".into(),
        live_playlist: None,
        prefix: "a".into(),
        suffix: SegmentSuffix::Index,
        format: SegmentFormat::MpegTs,
    }
}

fn stored() -> Destinations {
    let provider = Provider::Local(spillway_plan::destination::Local::default());
    let store = Store { provider, prefix: String::new(), presign: false };
    Destinations { primary: Destination::Store(Box::new(store)), backup: None }
}

fn unlisted(n: u32, stored: bool) -> UnlistedSegment {
    let at_ns = u64::from(n) * 4 * SECOND_NS;
    UnlistedSegment { n, at_ns, length_ns: 4 * SECOND_NS, bytes: 9, stored, on_backup: false }
}

/// Segments 0 and 1 are listed, the others as given; number `open` was being written.
fn checkpoint(folder: PathBuf, unlisted: Vec<UnlistedSegment>, open: Option<u32>) -> SegmentsCheckpoint {
    let run = SegmentRun { first: 0, at_ns: 0, lengths: vec![(2, 4 * SECOND_NS)], bytes: 18, on_backup: false };
    SegmentsCheckpoint {
        output: 0,
        names: names(),
        segment_ns: 4 * SECOND_NS,
        folder,
        started_at: ORIGIN,
        on_backup: false,
        listed: vec![run],
        unlisted,
        open: open.map(|n| (n, u64::from(n) * 4 * SECOND_NS)),
        processes: vec![],
    }
}

async fn salvage(ram: &RamStorage, checkpoint: &SegmentsCheckpoint, here: bool) -> SalvagedSegments {
    let (stores, settings, destinations) = (OneStore(ram.clone()), UploadSettings::default(), stored());
    let places = SalvagePlaces {
        destinations: &[destinations],
        root: &LocalRoot::confined("/nowhere"),
        stores: &stores,
        settings: &settings,
        here,
    };
    finish_segments(&places, checkpoint, "EG_1").await.unwrap()
}

fn listed(ram: &RamStorage) -> Vec<String> {
    let text = String::from_utf8(ram.object("d/a.m3u8").unwrap().to_vec()).unwrap();
    assert!(text.ends_with("#EXT-X-ENDLIST\n"), "{text}");
    text.lines()
        .filter(|line| !line.starts_with("#EXT-X-P") && !line.starts_with("#EXTINF"))
        .skip(5)
        .map(str::to_owned)
        .collect()
}

async fn put(ram: &RamStorage, name: &str) {
    ram.put(name, (&b"nine byte"[..]).into(), &Meta::default()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_lies_in_the_spool_is_sent_and_the_playlist_ends() {
    let folder = tempfile::tempdir().unwrap();
    let spool = folder.path().join("EG_1");
    fs::create_dir(&spool).unwrap();
    let ram = RamStorage::new();
    for name in ["d/a_00000.ts", "d/a_00001.ts", "d/a_00003.ts", "d/a_00004.ts"] {
        put(&ram, name).await;
    }
    // 2 waits to be sent, 3 for 2, 4 was stored and the checkpoint does not know, 5 was open and cannot be played.
    fs::write(spool.join("0-2.ts"), b"nine byte").unwrap();
    fs::write(spool.join("0-5.ts"), b"nothing").unwrap();
    let checkpoint =
        checkpoint(spool.clone(), vec![unlisted(2, false), unlisted(3, true), unlisted(4, false)], Some(5));
    let salvaged = salvage(&ram, &checkpoint, true).await;
    assert_eq!((salvaged.result.totals.count, salvaged.result.totals.lost), (5, 1));
    assert_eq!((salvaged.result.totals.bytes, salvaged.finished), (45, false));
    assert_eq!(salvaged.result.ended_at, ORIGIN + 20_000_000_000);
    let names: Vec<String> = (0..5).map(|n| format!("a_{n:05}.ts")).chain(["#EXT-X-ENDLIST".to_owned()]).collect();
    assert_eq!(listed(&ram), names);
    assert_eq!(ram.object("d/a_00002.ts").unwrap().as_ref(), b"nine byte");
    assert!(!spool.exists());
}

#[tokio::test(start_paused = true)]
async fn another_machine_lists_what_the_store_has() {
    let ram = RamStorage::new();
    put(&ram, "d/a_00003.ts").await;
    put(&ram, "d/EG_1.json").await;
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("0-2.ts"), b"of another").unwrap();
    let checkpoint = checkpoint(folder.path().to_owned(), vec![unlisted(2, false), unlisted(3, false)], Some(4));
    let salvaged = salvage(&ram, &checkpoint, false).await;
    assert_eq!((salvaged.result.totals.count, salvaged.result.totals.lost, salvaged.finished), (3, 2, true));
    let expected = ["a_00000.ts", "a_00001.ts", "#EXT-X-DISCONTINUITY", "a_00003.ts", "#EXT-X-ENDLIST"];
    assert_eq!(listed(&ram), expected);
    assert!(folder.path().join("0-2.ts").exists());
}

#[tokio::test]
async fn what_lies_on_another_disk_is_not_reached() {
    let settings = UploadSettings::default();
    let places = SalvagePlaces {
        destinations: &[],
        root: &LocalRoot::confined("/nowhere"),
        stores: &OneStore(RamStorage::new()),
        settings: &settings,
        here: false,
    };
    let checkpoint = checkpoint("/nowhere".into(), vec![], None);
    let refused = finish_segments(&places, &checkpoint, "EG_1").await.unwrap_err();
    assert_eq!(refused, "d/a.m3u8 lies on the disk of another machine, without its end");
}

proptest! {
    /// Whatever is where when the task dies: the playlist ends, and names exactly what the store has.
    #[test]
    fn every_playlist_is_ended_and_true(
        fates in proptest::collection::vec(0..4u8, 0..12),
        here in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let ram = RamStorage::new();
            put(&ram, "d/a_00000.ts").await;
            put(&ram, "d/a_00001.ts").await;
            let mut segments = vec![];
            for (fate, n) in fates.iter().zip(2..) {
                if fate & 1 == 1 {
                    put(&ram, &format!("d/a_{n:05}.ts")).await;
                }
                if *fate == 2 {
                    fs::write(folder.path().join(format!("0-{n}.ts")), b"nine byte").unwrap();
                }
                segments.push(unlisted(n, *fate == 3));
            }
            let checkpoint = checkpoint(folder.path().to_owned(), segments, None);
            let salvaged = salvage(&ram, &checkpoint, here).await;
            let in_store = ram.keys().iter().filter(|key| key.ends_with(".ts")).count();
            assert_eq!(salvaged.result.totals.count as usize, in_store);
            let named = listed(&ram).iter().filter(|line| line.ends_with(".ts")).count();
            assert_eq!(named, in_store);
        });
    }
}
