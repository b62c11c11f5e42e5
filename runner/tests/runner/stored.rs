//! Recordings that end in a store, which is a bucket in memory: uploaded while they are made, through bad weather, and by
//! a salvage run when the runner died.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde_json::json;
use spillway_bus::{Heartbeats, Phase, UploadStates};
use spillway_plan::destination::S3;
use spillway_plan::{Destination, Destinations, Limits, Provider, Secret, Store};
use spillway_protocol::livekit::EgressStatus::{EgressActive, EgressComplete, EgressFailed, EgressLimitReached};
use spillway_protocol::rpc::service;
use spillway_runner::config::Settings;
use spillway_runner::oneshot::{self, Access};
use spillway_runner::report::Delivered;
use spillway_runner::serve::{self, ServeOutcome};
use spillway_runner::upload::UploadSettings;
use spillway_runner::upload::stores::StoreFactory;
use spillway_storage::unreliable::FaultMode;
use spillway_storage::{PartRules, RamStorage, Storage, StorageError, StorageErrorKind, Unreliable};
use tokio::time::{sleep, timeout};

use crate::served::{RunnerHarness, done};

const TIMEOUT: Duration = Duration::from_secs(20);

/// Two buckets and the weather over each.
#[derive(Clone, Debug)]
struct Buckets {
    primary: RamStorage,
    backup: RamStorage,
    over_primary: Unreliable,
    over_backup: Unreliable,
}

impl Buckets {
    fn new(rules: PartRules) -> Self {
        let (primary, backup) = (RamStorage::with_rules(rules), RamStorage::with_rules(rules));
        let over_primary = Unreliable::new(Arc::new(primary.clone()));
        let over_backup = Unreliable::new(Arc::new(backup.clone()));
        Self { primary, backup, over_primary, over_backup }
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

async fn until(what: &str, mut look: impl FnMut() -> bool) {
    let wait = async {
        while !look() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(TIMEOUT, wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_is_in_the_bucket_while_it_is_made_and_complete_when_it_is_stopped() {
    for (rules, script) in [
        (s3(), "record-mp4-fast"),
        (s3(), "record-fast"),
        (s3(), "record-mp4"),
        (PartRules { uniform: true, ..s3() }, "record-mp4-fast"),
        (PartRules { min_part_bytes: 1, ..s3() }, "record-mp4-fast"),
    ] {
        let (harness, buckets) = harness(rules, false).await;
        let run = harness.run(script).await;
        harness.heard(EgressActive).await;
        until("parts in the bucket", || buckets.primary.counts().puts >= 4).await;
        let (_, beat) = Heartbeats::new(&harness.bus).last(&harness.id).await.unwrap().unwrap();
        assert_eq!(beat.attempt, 1);
        assert!(UploadStates::new(&harness.bus).get(&harness.id).await.unwrap().is_some());
        assert_eq!(harness.spooled().len(), 1);
        let asked = Instant::now();
        harness.call(service::STOP_EGRESS).await.unwrap();
        assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Acknowledged));
        assert!(asked.elapsed() < Duration::from_millis(1500), "{script}: {:?}", asked.elapsed());

        let last = harness.last();
        assert_eq!((last.status(), last.error.as_str()), (EgressComplete, ""), "{script} {rules:?}");
        let object = buckets.primary.object(name(script)).unwrap_or_else(|| panic!("{:?}", buckets.primary.keys()));
        assert!(plays(&object, script.contains("mp4")));
        let file = &last.file_results[0];
        assert_eq!((file.size as usize, file.location.clone()), (object.len(), format!("ram://{}", name(script))));
        assert_eq!((file.filename.as_str(), file.duration > 0), (name(script), true));
        assert_eq!(last.manifest_location, "ram://EG_1.json");
        let manifest = buckets.primary.object("EG_1.json").unwrap();
        assert!(String::from_utf8_lossy(&manifest).contains(&format!("ram://{}", name(script))));
        assert_eq!(buckets.open_uploads(), 0);
        assert!(harness.spooled().is_empty(), "the spool is given back");
        assert!(UploadStates::new(&harness.bus).get(&harness.id).await.unwrap().is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_media_process_costs_nothing_that_was_written() {
    let (harness, buckets) = harness(s3(), false).await;
    let run = harness.run("record-mp4-fast-die").await;
    assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Acknowledged));
    let last = harness.last();
    assert_eq!(last.status(), EgressFailed);
    assert!(last.error.contains("SIGABRT"), "{}", last.error);
    let object = buckets.primary.object("a.mp4").unwrap();
    assert!(!plays(&object, true), "its head is that of a recording that goes on");
    assert!(object.len() > 2_000_000, "everything counts: {}", object.len());
    assert_eq!(last.file_results[0].size as usize, object.len());
    assert!(last.file_results[0].duration > 200_000_000);
    assert!(last.manifest_location.is_empty());
    assert_eq!(buckets.open_uploads(), 0);
    assert!(harness.spooled().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_fails_before_the_room_is_joined_and_a_stop_leaves_nothing() {
    let (harness, buckets) = harness(s3(), false).await;
    buckets.over_primary.set_fault_mode(FaultMode::Refusing(StorageErrorKind::Denied));
    let begun = Instant::now();
    let run = harness.run("record").await;
    assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Acknowledged));
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    let last = harness.last();
    assert_eq!((last.status(), last.error_code), (EgressFailed, 400));
    assert!(
        last.error.starts_with("RAM upload failed: ") && last.error.contains("refused by the test"),
        "{}",
        last.error
    );
    assert!(last.room_name == "record" && !harness.statuses().contains(&EgressActive), "nobody joined");

    let (harness, buckets) = self::harness(s3(), false).await;
    let run = harness.run("wait").await;
    until("the upload begun", || buckets.open_uploads() == 1 || buckets.primary.counts().aborted == 1).await;
    harness.call(service::STOP_EGRESS).await.unwrap();
    assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Acknowledged));
    assert_eq!((buckets.open_uploads(), buckets.primary.keys().len()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_during_and_at_the_end_costs_nothing_and_blocks_nothing() {
    for fault_mode in [FaultMode::Down, FaultMode::Stalling(Duration::from_millis(300))] {
        let (harness, buckets) = harness(s3(), false).await;
        let run = harness.run("record-mp4-fast").await;
        until("parts in the bucket", || buckets.primary.counts().puts >= 2).await;
        buckets.over_primary.set_fault_mode(fault_mode);
        let spooled = harness.spooled().remove(0);
        let bytes = || std::fs::metadata(&spooled).map_or(0, |metadata| metadata.len());
        let before = bytes();
        until("the recording goes on", || bytes() > before + 4_000_000).await;
        let beats = Heartbeats::new(&harness.bus);
        let seen = timeout(TIMEOUT, async {
            while !beats.last(&harness.id).await.unwrap().unwrap().1.extra.contains_key("upload_error") {
                sleep(Duration::from_millis(50)).await;
            }
        });
        seen.await.unwrap();
        let asked = Instant::now();
        harness.call(service::STOP_EGRESS).await.unwrap();
        assert!(asked.elapsed() < Duration::from_millis(1300), "control answers: {:?}", asked.elapsed());
        sleep(Duration::from_millis(700)).await;
        buckets.over_primary.set_fault_mode(FaultMode::Fine);
        assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Acknowledged));
        let last = harness.last();
        assert_eq!((last.status(), last.error.as_str()), (EgressComplete, ""));
        assert!(plays(&buckets.primary.object("a.mp4").unwrap(), true));
        assert_eq!(buckets.open_uploads(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_without_end_fails_with_the_stores_message_and_the_spool_stays() {
    let (harness, buckets) = harness(s3(), false).await;
    let run = harness.run("record-fast").await;
    until("parts in the bucket", || buckets.primary.counts().puts >= 2).await;
    buckets.over_primary.set_fault_mode(FaultMode::Down);
    harness.call(service::STOP_EGRESS).await.unwrap();
    assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Acknowledged));
    let last = harness.last();
    assert_eq!((last.status(), last.error_code), (EgressFailed, 400));
    assert!(last.error.starts_with("RAM upload failed: ") && last.error.contains("503"), "{}", last.error);
    assert_eq!(harness.spooled().len(), 1);
    assert!(last.details.contains("what is not stored lies on the recorder's disk"), "{}", last.details);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_backup_takes_over_from_a_store_that_fails() {
    // From the first second, in the middle, and while only time is lost.
    for (early, fault_mode) in [
        (true, FaultMode::Refusing(StorageErrorKind::NotFound)),
        (false, FaultMode::Refusing(StorageErrorKind::Expired)),
        (false, FaultMode::Down),
    ] {
        let (harness, buckets) = harness(s3(), true).await;
        if early {
            buckets.over_primary.set_fault_mode(fault_mode);
        }
        let run = harness.run("record-mp4-fast").await;
        harness.heard(EgressActive).await;
        if !early {
            until("parts in the bucket", || buckets.primary.counts().puts >= 2).await;
            buckets.over_primary.set_fault_mode(fault_mode);
        }
        until("parts in the other bucket", || buckets.backup.counts().puts >= 2).await;
        harness.call(service::STOP_EGRESS).await.unwrap();
        assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Acknowledged));
        let last = harness.last();
        assert_eq!((last.status(), last.error.as_str()), (EgressComplete, ""), "{fault_mode:?}");
        assert!(last.backup_storage_used);
        assert!(plays(&buckets.backup.object("a.mp4").unwrap(), true));
        assert!(buckets.backup.object("EG_1.json").is_some(), "the manifest is beside it");
        assert!(buckets.primary.keys().is_empty());
        assert_eq!(buckets.backup.open_uploads(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_stores_that_fail_both_say_why() {
    let (harness, buckets) = harness(s3(), true).await;
    let run = harness.run("record-fast").await;
    until("parts in the bucket", || buckets.primary.counts().puts >= 2).await;
    buckets.over_primary.set_fault_mode(FaultMode::Refusing(StorageErrorKind::Expired));
    buckets.over_backup.set_fault_mode(FaultMode::Refusing(StorageErrorKind::Denied));
    harness.call(service::STOP_EGRESS).await.unwrap();
    assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Acknowledged));
    let last = harness.last();
    assert_eq!((last.status(), last.error_code), (EgressFailed, 400));
    let message: Vec<&str> = last.error.split('\n').collect();
    assert!(message.len() == 2 && message[0].starts_with("primary: RAM upload failed"), "{}", last.error);
    assert!(message[1].starts_with("backup: RAM upload failed"), "{}", last.error);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_spool_ends_the_recording_and_what_was_recorded_is_stored() {
    let (mut harness, buckets) = harness(s3(), false).await;
    harness.upload["spool_cap_bytes"] = json!(5_000_000);
    let run = harness.run("record-mp4-fast").await;
    until("parts in the bucket", || buckets.primary.counts().puts >= 2).await;
    buckets.over_primary.set_fault_mode(FaultMode::Down);
    harness.heard(spillway_protocol::livekit::EgressStatus::EgressEnding).await;
    buckets.over_primary.set_fault_mode(FaultMode::Fine);
    assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Acknowledged));
    let last = harness.last();
    assert_eq!((last.status(), last.error_code), (EgressFailed, 429));
    assert!(last.error.contains("the spool holds no more") && last.error.contains("503"), "{}", last.error);
    let object = buckets.primary.object("a.mp4").unwrap();
    assert!(plays(&object, true));
    assert_eq!(last.file_results[0].size as usize, object.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_spool_gives_back_what_is_stored() {
    let (harness, buckets) = harness(s3(), false).await;
    let run = harness.run("record-fast").await;
    harness.heard(EgressActive).await;
    let spooled = harness.spooled().remove(0);
    until("twelve megabytes", || std::fs::metadata(&spooled).is_ok_and(|file| file.len() > 12_000_000)).await;
    use std::os::unix::fs::MetadataExt;
    let used = std::fs::metadata(&spooled).unwrap().blocks() * 512;
    assert!(used < 8_000_000, "{used} bytes lie there");
    harness.call(service::STOP_EGRESS).await.unwrap();
    done(run).await;
    assert!(plays(&buckets.primary.object("a.ogg").unwrap(), false));
}

/// The whole task dies in the middle of it; with its disk, unless `same_disk`.
async fn killed(rules: PartRules, script: &str, millis: u64, same_disk: bool) {
    let (harness, buckets) = harness(rules, false).await;
    let run = harness.run(script).await;
    harness.heard(EgressActive).await;
    sleep(Duration::from_millis(millis)).await;
    run.abort();
    let _ = run.await;
    let spooled = harness.spooled();
    let written = spooled.first().and_then(|path| std::fs::metadata(path).ok()).map_or(0, |file| file.len());
    if !same_disk {
        std::fs::remove_dir_all(harness.folder.path().join("spool")).unwrap();
    }
    let told = Instant::now();
    let salvage = harness.salvage(script).await;
    assert_eq!(done(salvage).await, ServeOutcome::Served(Delivered::Acknowledged));
    assert!(told.elapsed() < Duration::from_secs(2), "{:?}", told.elapsed());
    let last = harness.last();
    assert_eq!(last.status(), EgressFailed);
    assert!(last.error.starts_with("runner was lost"), "{}", last.error);
    assert_eq!(harness.statuses().iter().filter(|status| **status == EgressFailed).count(), 1);
    let object = buckets.primary.object(name(script)).unwrap_or_else(|| panic!("{script} {millis}: {}", last.error));
    assert!(!plays(&object, script.contains("mp4")) || !script.contains("mp4"));
    let file = &last.file_results[0];
    assert_eq!((file.size as usize, file.location.clone()), (object.len(), format!("ram://{}", name(script))));
    assert!(file.duration > 0 && file.filename == name(script), "{file:?}");
    if same_disk {
        assert_eq!(object.len() as u64, written, "everything was on the disk");
    } else {
        // Ten megabytes a second, a checkpoint every 0.2 s: what was not sent within two seconds.
        assert!(written.saturating_sub(object.len() as u64) < 20_000_000, "{} of {written}", object.len());
    }
    assert_eq!(buckets.open_uploads(), 0, "nothing dangles");
    assert!(harness.spooled().is_empty());
    assert!(UploadStates::new(&harness.bus).get(&harness.id).await.unwrap().is_none());
    assert!(harness.registry().list_live().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_tasks_uploads_are_completed_by_another() {
    // More moments than a test can afford, by seed.
    if let Some(kills) = std::env::var("SPILLWAY_KILLS").ok().and_then(|text| text.parse::<u64>().ok()) {
        for seed in 0..kills {
            let dice = (seed + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20;
            let min_part_bytes = if dice % 3 == 0 { 1 } else { 64 << 10 };
            let rules = PartRules { min_part_bytes, uniform: dice % 3 == 1, ..s3() };
            let script = ["record-mp4-fast", "record-fast", "record-mp4"][(dice / 3 % 3) as usize];
            killed(rules, script, 150 + dice / 9 % 1500, dice / 9 % 2 == 0).await;
        }
        return;
    }
    for (at, rules) in
        [s3(), PartRules { uniform: true, ..s3() }, PartRules { min_part_bytes: 1, ..s3() }].into_iter().enumerate()
    {
        for (turn, script) in ["record-mp4-fast", "record-fast", "record-mp4"].into_iter().enumerate() {
            killed(rules, script, 400 + 170 * (3 * at + turn) as u64, (at + turn) % 2 == 0).await;
        }
    }
}

/// At any moment of its work, also between the store's last answer and the word about it.
#[tokio::test(flavor = "multi_thread")]
async fn a_salvage_that_dies_is_followed_by_another() {
    let mut interrupted = 0;
    let mut stored_before = 0;
    for millis in (0..240).step_by(7) {
        let (harness, buckets) = harness(s3(), false).await;
        let run = harness.run("record-mp4-fast").await;
        until("parts in the bucket", || buckets.primary.counts().puts >= 3).await;
        run.abort();
        let _ = run.await;
        std::fs::remove_dir_all(harness.folder.path().join("spool")).unwrap();
        buckets.over_primary.set_fault_mode(FaultMode::Far(Duration::from_millis(20)));
        let first = harness.salvage("record-mp4-fast").await;
        sleep(Duration::from_millis(millis)).await;
        first.abort();
        if let Ok(served) = first.await {
            assert_eq!(served, ServeOutcome::Served(Delivered::Acknowledged));
            continue;
        }
        if harness.record().await.phase == Phase::Over {
            continue;
        }
        interrupted += 1;
        stored_before += buckets.primary.counts().completed;
        let second = harness.salvage("record-mp4-fast").await;
        assert_eq!(done(second).await, ServeOutcome::Served(Delivered::Acknowledged));
        let last = harness.last();
        let object = buckets.primary.object("a.mp4").unwrap_or_else(|| panic!("{millis} ms: {}", last.error));
        assert_eq!(last.error, "runner was lost", "{millis} ms");
        assert_eq!((last.file_results[0].size as usize, buckets.open_uploads()), (object.len(), 0), "{millis} ms");
        assert_eq!(buckets.primary.counts().completed, 1);
    }
    assert!(
        interrupted > 3 && stored_before > 0,
        "{interrupted} were interrupted, {stored_before} after the store's last deed"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zombie_writes_nothing_and_reports_nothing() {
    let (harness, buckets) = harness(s3(), false).await;
    let zombie = harness.run("record-mp4-fast").await;
    until("parts in the bucket", || buckets.primary.counts().puts >= 5).await;
    // It was only away for a while, and goes on as soon as somebody else has settled it.
    let salvage = harness.salvage("record-mp4-fast").await;
    assert_eq!(done(salvage).await, ServeOutcome::Served(Delivered::Acknowledged));
    let (object, counts) = (buckets.primary.object("a.mp4").unwrap(), buckets.primary.counts());
    assert_eq!(done(zombie).await, ServeOutcome::Served(Delivered::NotOurs));
    plays(&object, true);
    assert_eq!(buckets.primary.object("a.mp4").unwrap(), object);
    assert_eq!(buckets.primary.keys(), ["a.mp4"]);
    assert_eq!((buckets.primary.counts().puts, buckets.primary.counts().completed), (counts.puts, 1));
    assert_eq!(buckets.open_uploads(), 0);
    let ended = harness.statuses().iter().filter(|status| **status as i32 >= EgressComplete as i32).count();
    assert_eq!(ended, 1, "{:?}", harness.statuses());
    assert!(UploadStates::new(&harness.bus).get(&harness.id).await.unwrap().is_none(), "it keeps nothing either");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_died_before_its_first_media_leaves_nothing() {
    let (harness, buckets) = harness(s3(), false).await;
    let run = harness.run("wait").await;
    until("the upload begun", || buckets.primary.counts().begun == 1).await;
    sleep(Duration::from_millis(100)).await;
    run.abort();
    let _ = run.await;
    let salvage = harness.salvage("wait").await;
    assert_eq!(done(salvage).await, ServeOutcome::Served(Delivered::Acknowledged));
    assert_eq!(harness.last().status(), EgressFailed);
    assert_eq!((buckets.open_uploads(), buckets.primary.keys().len()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_tasks_file_on_the_disk_is_told_with_its_real_size() {
    let harness = RunnerHarness::new().await;
    let run = harness.run("record-mp4-fast").await;
    harness.heard(EgressActive).await;
    sleep(Duration::from_millis(1200)).await;
    run.abort();
    let _ = run.await;
    let file = harness.folder.path().join("a.mp4");
    let salvage = harness.salvage("record-mp4-fast").await;
    assert_eq!(done(salvage).await, ServeOutcome::Served(Delivered::Acknowledged));
    let last = harness.last();
    assert_eq!(last.status(), EgressFailed);
    let result = &last.file_results[0];
    assert_eq!(result.size as u64, std::fs::metadata(&file).unwrap().len());
    assert_eq!(result.location, file.display().to_string());
    assert!(result.duration > 400_000_000, "{result:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_by_hand_goes_to_its_store_too() {
    let buckets = Buckets::new(s3());
    let folder = tempfile::tempdir().unwrap();
    let upload = json!({"bucket": "primary", "region": "r", "access_key": "k", "secret": "canary"});
    let request = json!({"track": {"room_name": "record-mp4-fast", "track_id": "TR_1",
        "file": {"filepath": "b/{track_id}", "s3": upload}}, "egress_id": "EG_1"});
    let access = Access {
        ws_url: Some("ws://127.0.0.1:1".into()),
        token: Some(Secret::new("room-token".into())),
        ..Access::default()
    };
    let limits = Limits { max_duration_ns: Some(1_000_000_000), ..Limits::default() };
    let shot = oneshot::prepare(request, &access, limits).unwrap();
    assert!(!format!("{shot:?}").contains("canary"));
    let spool_dir = Some(folder.path().join("spool"));
    let upload = UploadSettings { spool_dir, checkpoint_ms: 200, ..UploadSettings::default() };
    let settings = Settings { local_root: Some(folder.path().into()), upload, ..Settings::default() };
    let info = serve::serve_request(shot, &settings, crate::scripted_media(), Arc::new(buckets.clone())).await.unwrap();
    assert_eq!(info.status(), EgressLimitReached, "{}", info.error);
    let object = buckets.primary.object("b/TR_1.mp4").unwrap();
    assert!(plays(&object, true));
    assert_eq!(info.file_results[0].location, "ram://b/TR_1.mp4");
    assert_eq!(info.manifest_location, "ram://b/EG_1.json");
    assert_eq!(buckets.open_uploads(), 0);
}

/// The object is one that was begun in the middle: whole fragments, each with the place of its own data. `cut`: its writer
/// was killed, so the last one may lack its end.
fn plays_from_the_middle(object: &[u8], cut: bool) {
    assert!(object[4..8] == *b"ftyp" && object[36..40] == *b"moov");
    let mut at = 240;
    while at < object.len() {
        if cut && at + 16 > object.len() {
            return;
        }
        assert_eq!((&object[at + 4..at + 8], &object[at + 12..at + 16]), (&b"free"[..], &b"mdat"[..]), "at {at}");
        let moof = at + 8 + u32::from_be_bytes(object[at + 8..at + 12].try_into().unwrap()) as usize;
        if cut && moof + 40 > object.len() {
            return;
        }
        assert_eq!(&object[moof + 4..moof + 8], b"moof", "at {at}");
        let place = u64::from_be_bytes(object[moof + 32..moof + 40].try_into().unwrap());
        assert_eq!(place, at as u64 + 16);
        at = moof + 40;
    }
    assert_eq!(at, object.len());
}

const BOXES: &str = "record-mp4-boxes-fast";

/// Until so much is stored that the spool has given its beginning back, then a life-cycle rule takes the upload.
async fn swept(harness: &RunnerHarness, buckets: &Buckets) {
    until("a megabyte is stored", || buckets.primary.counts().bytes > 3_000_000).await;
    buckets.primary.sweep();
    until("another is begun", || buckets.primary.counts().begun == 2).await;
    let puts = buckets.primary.counts().puts;
    until("the recording goes on there", || buckets.primary.counts().puts > puts + 4).await;
    let said = harness.heard.all().iter().any(|info| info.status() == EgressActive && info.details.contains("a-2.mp4"));
    assert!(said, "the user knows while it goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_others_aborted_goes_on_in_another_object_and_the_result_says_so() {
    let (harness, buckets) = harness(s3(), false).await;
    let run = harness.run(BOXES).await;
    swept(&harness, &buckets).await;
    harness.call(service::STOP_EGRESS).await.unwrap();
    assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Acknowledged));
    let last = harness.last();
    assert_eq!((last.status(), last.error.as_str()), (EgressComplete, ""));
    assert!(last.details.contains("NoSuchUpload") && last.details.contains("are lost"), "{}", last.details);
    assert_eq!(buckets.primary.keys(), ["EG_1.json", "a-2.mp4"]);
    let object = buckets.primary.object("a-2.mp4").unwrap();
    plays_from_the_middle(&object, false);
    let file = &last.file_results[0];
    assert_eq!((file.filename.as_str(), file.location.as_str()), ("a-2.mp4", "ram://a-2.mp4"));
    assert_eq!(file.size as usize, object.len());
    // Two hundred kilobytes in each step of at least twenty milliseconds.
    assert!(file.duration as u128 >= object.len() as u128 / 200_040 * 15_000_000, "{file:?}");
    assert!(file.started_at > last.started_at, "its own beginning");
    let manifest = buckets.primary.object("EG_1.json").unwrap();
    assert!(String::from_utf8_lossy(&manifest).contains("ram://a-2.mp4"));
    assert!(buckets.open_uploads() == 0 && harness.spooled().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_dies_after_its_upload_was_taken_is_salvaged_like_any_other() {
    for same_disk in [true, false] {
        let (harness, buckets) = harness(s3(), false).await;
        let run = harness.run(BOXES).await;
        swept(&harness, &buckets).await;
        run.abort();
        let _ = run.await;
        if !same_disk {
            std::fs::remove_dir_all(harness.folder.path().join("spool")).unwrap();
        }
        assert_eq!(done(harness.salvage(BOXES).await).await, ServeOutcome::Served(Delivered::Acknowledged));
        let last = harness.last();
        assert!(last.error.starts_with("runner was lost"), "{}", last.error);
        let object = buckets.primary.object("a-2.mp4").unwrap_or_else(|| panic!("{}", last.error));
        if same_disk {
            plays_from_the_middle(&object, true);
        }
        let file = &last.file_results[0];
        assert_eq!((file.filename.as_str(), file.size as usize), ("a-2.mp4", object.len()));
        assert!(buckets.open_uploads() == 0 && harness.spooled().is_empty());
    }
}

/// Redis was away until the runner gave up: what it had stored says that it had finished.
#[tokio::test(flavor = "multi_thread")]
async fn a_recording_that_was_finished_and_never_reported_is_complete() {
    for backup in [false, true] {
        let (mut harness, buckets) = harness(s3(), backup).await;
        harness.last_report_timeout_ms = 200;
        if backup {
            buckets.over_primary.set_fault_mode(FaultMode::Refusing(StorageErrorKind::NotFound));
        }
        let run = harness.run("record-mp4-fast-closed").await;
        harness.heard(EgressActive).await;
        harness.broker.cut();
        assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Unwritten));
        harness.broker.mend();
        buckets.over_primary.set_fault_mode(FaultMode::Fine);
        assert!(!harness.statuses().contains(&EgressComplete) && harness.record().await.phase != Phase::Over);
        assert_eq!(
            done(harness.salvage("record-mp4-fast-closed").await).await,
            ServeOutcome::Served(Delivered::Acknowledged)
        );
        let last = harness.last();
        assert_eq!((last.status(), last.error.as_str()), (EgressComplete, ""));
        assert_eq!(last.backup_storage_used, backup);
        let bucket = if backup { &buckets.backup } else { &buckets.primary };
        let object = bucket.object("a.mp4").unwrap();
        assert!(plays(&object, true));
        let manifest: serde_json::Value = serde_json::from_slice(&bucket.object("EG_1.json").unwrap()).unwrap();
        let file = &last.file_results[0];
        assert_eq!((file.filename.as_str(), file.location.as_str()), ("a.mp4", "ram://a.mp4"));
        assert_eq!(file.size as usize, object.len());
        assert_eq!(
            Some(file.duration),
            manifest["ended_at"].as_i64().zip(manifest["started_at"].as_i64()).map(|(to, from)| to - from)
        );
        let ended = harness.statuses().iter().filter(|status| **status as i32 >= EgressComplete as i32).count();
        assert_eq!((ended, buckets.open_uploads(), harness.spooled().len()), (1, 0, 0));
    }
}
