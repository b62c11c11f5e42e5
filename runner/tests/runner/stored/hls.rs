//! HLS beside a file or alone: a playlist names what is stored, and has an end however the recording ends.
use serde_json::{Value, json};
use spillway_plan::{Destinations, ImageSuffix};
use spillway_protocol::livekit::EgressStatus::{EgressActive, EgressComplete, EgressFailed};
use spillway_protocol::livekit::{EgressInfo, SegmentsInfo};
use spillway_protocol::rpc::service;
use spillway_runner::report::Delivered;
use spillway_runner::serve::ServeOutcome;
use spillway_storage::StorageErrorKind;
use spillway_storage::unreliable::FaultMode;

use super::{Buckets, bucket, harness, plays, s3};
use crate::harness::{RunnerHarness, done, until};

const PLAYLIST: &str = "hls/index.m3u8";
const LIVE: &str = "hls/live.m3u8";
const END: &str = "#EXT-X-ENDLIST\n";

/// A file and an HLS output in one bucket.
async fn beside_a_file() -> (RunnerHarness, Buckets) {
    let (mut harness, buckets) = harness(s3(), false).await;
    harness.segments = vec![Some(Destinations { primary: bucket("primary"), backup: None })];
    (harness, buckets)
}

fn text(buckets: &Buckets, playlist: &str) -> String {
    buckets.primary.object(playlist).map(|object| String::from_utf8(object.to_vec()).unwrap()).unwrap_or_default()
}

fn listed(text: &str) -> Vec<&str> {
    text.lines().filter(|line| !line.starts_with('#')).collect()
}

/// Everything that is named is stored. Its bytes.
fn stored(buckets: &Buckets, text: &str) -> usize {
    let object =
        |name: &&str| buckets.primary.object(&format!("hls/{name}")).unwrap_or_else(|| panic!("{name}: {text}"));
    listed(text).iter().map(|name| object(name).len()).sum()
}

/// The playlist has its end, and the EgressInfo says what it names.
fn finished(buckets: &Buckets, last: &EgressInfo) -> SegmentsInfo {
    let text = text(buckets, PLAYLIST);
    assert!(text.ends_with(END) && self::text(buckets, LIVE).ends_with(END), "{text}");
    let told = last.segment_results[0].clone();
    assert_eq!((told.segment_count as usize, told.size as usize), (listed(&text).len(), stored(buckets, &text)));
    assert_eq!((told.playlist_name.as_str(), told.live_playlist_name.as_str()), (PLAYLIST, LIVE));
    assert_eq!(
        (told.playlist_location.as_str(), told.live_playlist_location.as_str()),
        ("ram://hls/index.m3u8", "ram://hls/live.m3u8")
    );
    assert!(told.duration > 0 && told.ended_at - told.started_at == told.duration, "{told:?}");
    told
}

fn nothing_is_spooled(harness: &RunnerHarness) {
    let left = std::fs::read_dir(harness.folder.path().join("spool")).map_or(0, Iterator::count);
    assert_eq!((left, harness.spooled()), (0, vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_playlist_grows_with_the_store_and_ends_with_the_recording() {
    let (harness, buckets) = beside_a_file().await;
    let run = harness.run("record-mp4-fast").await;
    harness.heard(EgressActive).await;
    let active = harness.heard.all().into_iter().find(|info| info.status() == EgressActive).unwrap();
    assert_eq!(active.segment_results[0].playlist_name, PLAYLIST);
    until("segments are listed", || listed(&text(&buckets, LIVE)).len() >= 3).await;
    let live = text(&buckets, LIVE);
    assert!(!live.contains(END) && stored(&buckets, &live) > 0);
    until("the other playlist follows", || !text(&buckets, PLAYLIST).is_empty()).await;
    harness.call(service::STOP_EGRESS).await.unwrap();
    assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Acknowledged));
    let last = harness.last();
    assert_eq!((last.status(), last.error.as_str()), (EgressComplete, ""));
    let told = finished(&buckets, &last);
    assert!(plays(&buckets.primary.object("a.mp4").unwrap(), true));
    assert_eq!(last.manifest_location, "ram://EG_1.json");
    let manifest = buckets.primary.object("hls/EG_1.json").unwrap();
    assert_eq!(buckets.primary.object("EG_1.json").unwrap(), manifest);
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    let playlist = &manifest["playlists"][0];
    assert_eq!(playlist["location"], "ram://hls/index.m3u8");
    assert_eq!(playlist["segments"].as_array().unwrap().len(), told.segment_count as usize);
    assert_eq!(
        playlist["segments"][0],
        json!({ "filename": "hls/part_00000.ts", "location": "ram://hls/part_00000.ts" })
    );
    assert_eq!(buckets.open_uploads(), 0);
    nothing_is_spooled(&harness);
}

/// Their own first segment and image come 300 ms after the first media.
#[tokio::test(flavor = "multi_thread")]
async fn every_output_has_its_names_when_it_is_active() {
    let (mut harness, buckets) = beside_a_file().await;
    harness.images = vec![(Some(Destinations { primary: bucket("primary"), backup: None }), ImageSuffix::Index)];
    let run = harness.run("record-mp4-late").await;
    harness.heard(EgressActive).await;
    until("segments are listed", || !listed(&text(&buckets, LIVE)).is_empty()).await;
    harness.call(service::STOP_EGRESS).await.unwrap();
    assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Acknowledged));
    let updates = harness.heard.all();
    let active = updates.iter().find(|info| info.status() == EgressActive).unwrap();
    let (segments, images) = (&active.segment_results[0], &active.image_results[0]);
    assert_eq!(active.file_results[0].filename, "a.mp4");
    assert_eq!((segments.playlist_name.as_str(), segments.live_playlist_name.as_str()), (PLAYLIST, LIVE));
    assert_eq!(images.filename_prefix, "pics/ann");
    assert_eq!((segments.segment_count, images.image_count), (0, 0), "not before the first segment and image");
    let last = harness.last();
    assert_eq!((last.status(), last.error.as_str()), (EgressComplete, ""));
    finished(&buckets, &last);
    assert!(last.image_results[0].image_count > 0, "{last:?}");
    nothing_is_spooled(&harness);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_media_process_leaves_a_playlist_that_ends() {
    let (mut harness, buckets) = beside_a_file().await;
    (harness.no_files, harness.destinations) = (true, None);
    let run = harness.run("record-nofile-die").await;
    assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Acknowledged));
    let last = harness.last();
    assert_eq!(last.status(), EgressFailed);
    assert!(last.error.contains("media process"), "{}", last.error);
    assert!(finished(&buckets, &last).segment_count >= 2);
    nothing_is_spooled(&harness);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_tasks_playlist_gets_its_end_from_another() {
    for same_disk in [true, false] {
        let (harness, buckets) = beside_a_file().await;
        let run = harness.run("record-mp4-fast").await;
        until("segments are listed", || listed(&text(&buckets, LIVE)).len() >= 3).await;
        run.abort();
        let _ = run.await;
        if !same_disk {
            std::fs::remove_dir_all(harness.folder.path().join("spool")).unwrap();
        }
        let salvage = harness.salvage("record-mp4-fast").await;
        assert_eq!(done(salvage).await, ServeOutcome::Served(Delivered::Acknowledged));
        let last = harness.last();
        assert_eq!((last.status(), last.error.as_str()), (EgressFailed, "runner was lost"));
        assert!(finished(&buckets, &last).segment_count >= 3);
        assert!(last.file_results[0].size > 0, "{last:?}");
        assert_eq!(buckets.open_uploads(), 0);
        nothing_is_spooled(&harness);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn alone_on_a_disk() {
    let mut harness = RunnerHarness::new().await;
    (harness.no_files, harness.segments) = (true, vec![None]);
    harness.upload = json!({ "spool_dir": harness.folder.path().join("spool") });
    let run = harness.run("record-nofile").await;
    harness.heard(EgressActive).await;
    let folder = harness.folder.path().join("hls");
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap_or_default();
    until("segments are listed", || listed(&read("live.m3u8")).len() >= 3).await;
    assert!(listed(&read("live.m3u8")).iter().all(|name| folder.join(name).is_file()));
    harness.call(service::STOP_EGRESS).await.unwrap();
    assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Acknowledged));
    let last = harness.last();
    assert_eq!((last.status(), last.error.as_str()), (EgressComplete, ""));
    let (told, text) = (&last.segment_results[0], read("index.m3u8"));
    assert!(text.ends_with(END), "{text}");
    assert_eq!(told.segment_count as usize, listed(&text).len());
    assert_eq!(told.playlist_location, folder.join("index.m3u8").display().to_string());
    let manifest: Value = serde_json::from_str(&read("EG_1.json")).unwrap();
    assert_eq!((manifest["started_at"].as_i64(), manifest["files"].is_null()), (Some(told.started_at), true));
    assert_eq!(last.manifest_location, folder.join("EG_1.json").display().to_string());
    assert!(manifest["quality"]["media_ms"].as_u64().is_some_and(|ms| ms > 200), "{manifest}");
    nothing_is_spooled(&harness);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_refuses_is_told_before_anything_is_recorded() {
    let (mut harness, buckets) = beside_a_file().await;
    harness.segments = vec![Some(Destinations { primary: bucket("backup"), backup: None })];
    buckets.over_backup.set_fault_mode(FaultMode::Refusing(StorageErrorKind::Denied));
    let run = harness.run("record-mp4-fast").await;
    assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Acknowledged));
    let last = harness.last();
    assert_eq!((last.status(), last.error_code), (EgressFailed, 400));
    assert!(last.error.contains("refused by the test") && !harness.statuses().contains(&EgressActive), "{last:?}");
    assert!(buckets.primary.keys().is_empty() && buckets.open_uploads() == 0);
}
