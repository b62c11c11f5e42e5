//! Runners that die, and the salvage that completes their uploads: with their disk or without, and when it dies as well.
use std::time::{Duration, Instant};

use spillway_bus::UploadStates;
use spillway_protocol::livekit::EgressStatus::{EgressActive, EgressComplete, EgressFailed};
use spillway_runner::report::Delivered;
use spillway_runner::serve::ServeOutcome;
use spillway_storage::unreliable::FaultMode;
use spillway_storage::{PartRules, StorageErrorKind};
use tokio::time::sleep;

use super::{harness, name, plays, s3};
use crate::harness::{RunnerHarness, done, until};

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
        if harness.record().await.state.is_over() {
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
    // It was only away for a while, and goes on as soon as another process has ended it.
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
        assert!(!harness.statuses().contains(&EgressComplete) && !harness.record().await.state.is_over());
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
