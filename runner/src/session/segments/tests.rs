use std::fs;
use std::time::Duration;

use chrono::NaiveDate;
use spillway_plan::segment_name::SegmentSuffix;
use spillway_process::LocalRoot;
use spillway_protocol::ledger::Fact;

use super::*;
use crate::upload::stores::DefaultStoreFactory;

const SECOND_NS: u64 = 1_000_000_000;
const ORIGIN: i64 = 1_772_366_400_000_000_000;

fn plan() -> EgressPlan {
    let text = r#"{"egress_id":"EG_1","room_name":"r","room_id":"RM_1","kind":"track_composite",
        "source":{"tracks":{"audio":"TR_a","video":null}},"picture":null,"sound":null,"outputs":[],
        "limits":{"max_duration_ns":null,"max_file_bytes":null},"retry_count":0}"#;
    serde_json::from_str(text).unwrap()
}

fn now() -> NaiveDateTime {
    NaiveDate::from_ymd_opt(2026, 3, 1).unwrap().and_hms_opt(12, 0, 0).unwrap()
}

async fn segments(folder: &std::path::Path) -> SessionSegments {
    named(folder, "d/{publisher_identity}").await
}

async fn named(folder: &std::path::Path, prefix: &str) -> SessionSegments {
    let root = LocalRoot::confined(folder.join("out"));
    let (stores, settings) = (DefaultStoreFactory::default(), UploadSettings::default());
    let place = ObjectPlace::open(None, &root, &stores, &settings, "d/EG_1.json").await.unwrap();
    let naming = SegmentNaming::new(prefix, "", "d/live", SegmentSuffix::Index);
    let job = SegmentsJob { output: 1, naming, segment_ns: 4 * SECOND_NS, place, spool_cap: 1 << 30 };
    fs::create_dir(folder.join("spool")).unwrap();
    SessionSegments::new(vec![job], folder.join("spool"), settings, CheckpointWriter::disabled())
}

fn open(n: u32, facts: Option<TrackFacts>) -> MediaEvent {
    MediaEvent::SegmentOpen { output: 1, n, at_ns: u64::from(n) * 4 * SECOND_NS, facts }
}

fn started(facts: Option<TrackFacts>) -> MediaEvent {
    MediaEvent::Started { at: ORIGIN, facts }
}

fn of_ann() -> TrackFacts {
    TrackFacts { publisher_identity: "ann".into(), ..TrackFacts::default() }
}

fn closed(n: u32, gap: bool) -> MediaEvent {
    let at_ns = u64::from(n) * 4 * SECOND_NS;
    MediaEvent::Segment { output: 1, n, at_ns, length_ns: 4 * SECOND_NS, bytes: 7, gap }
}

#[tokio::test]
async fn an_output_begins_when_its_time_and_its_names_are_known() {
    let folder = tempfile::tempdir().unwrap();
    let (mut segments, plan) = (segments(folder.path()).await, plan());
    let on = |segments: &mut SessionSegments, event: &MediaEvent| segments.on_media_event(event, &plan, now);
    assert!(!on(&mut segments, &open(0, Some(of_ann()))));
    assert_eq!((segments.opened_facts(), segments.changed_totals()), (vec![], vec![]));
    fs::write(folder.path().join("spool/1-0.ts"), "segment").unwrap();
    assert!(!on(&mut segments, &closed(0, false)));
    assert!(on(&mut segments, &started(None)));
    let (playlist, live_playlist) = ("d/ann.m3u8".to_owned(), Some("d/live.m3u8".to_owned()));
    assert_eq!(segments.opened_facts(), [Fact::SegmentsOpened { index: 0, playlist, live_playlist }]);
    // The disk took no more of the second, and the third is whole.
    assert!(!on(&mut segments, &open(1, None)) && !on(&mut segments, &closed(1, true)));
    fs::write(folder.path().join("spool/1-2.ts"), "segment").unwrap();
    assert!(!on(&mut segments, &open(2, None)) && !on(&mut segments, &closed(2, false)));
    // Of another output.
    assert!(!on(&mut segments, &MediaEvent::SegmentWrote { output: 0, n: 0, bytes: 1 }));
    segments.finish().await;
    let totals = SegmentTotals { count: 2, bytes: 14, length_ns: 8 * SECOND_NS, lost: 1 };
    assert_eq!(segments.changed_totals(), [(0, totals)]);
    assert!(segments.changed_totals().is_empty());
    let (_, names, result) = segments.results().next().unwrap();
    assert_eq!((names.playlist.as_str(), &result.failure, result.notes.len()), ("ann.m3u8", &None, 1));
    let out = folder.path().join("out/d");
    assert_eq!(result.playlist_location, Some(out.join("ann.m3u8").display().to_string()));
    let text = fs::read_to_string(out.join("ann.m3u8")).unwrap();
    assert!(text.contains("ann_00000.ts\n#EXT-X-DISCONTINUITY\n") && text.ends_with("ann_00002.ts\n#EXT-X-ENDLIST\n"));
    assert_eq!(fs::read(out.join("ann_00002.ts")).unwrap(), b"segment");
    let mut progress = FilesProgress::default();
    segments.add_progress(&mut progress);
    assert_eq!(progress.bytes.into_keys().next().unwrap(), out.join("ann.m3u8").display().to_string());
    let manifest = segments.put_manifest(0, "EG_1", "{}".to_owned()).await.unwrap();
    assert_eq!((manifest, segments.has_backup(0)), (Some(out.join("EG_1.json").display().to_string()), false));
    assert_eq!(fs::read(out.join("EG_1.json")).unwrap(), b"{}");
}

/// A first sound makes the egress ACTIVE, and the key frame of the first segment comes later.
#[tokio::test]
async fn names_are_known_with_the_first_media_and_nothing_is_uploaded_before_a_segment() {
    let folder = tempfile::tempdir().unwrap();
    let (mut segments, plan) = (segments(folder.path()).await, plan());
    let on = |segments: &mut SessionSegments, event: &MediaEvent| segments.on_media_event(event, &plan, now);
    assert!(on(&mut segments, &started(Some(of_ann()))));
    let (playlist, live_playlist) = ("d/ann.m3u8".to_owned(), Some("d/live.m3u8".to_owned()));
    assert_eq!(segments.opened_facts(), [Fact::SegmentsOpened { index: 0, playlist, live_playlist }]);
    assert_eq!((segments.any(), segments.changed_totals()), (false, vec![]));
    // Names do not change any more.
    let other = TrackFacts { publisher_identity: "bob".into(), ..TrackFacts::default() };
    assert!(!on(&mut segments, &open(0, Some(other))));
    assert!(segments.any() && segments.opened_facts().is_empty());
    fs::write(folder.path().join("spool/1-0.ts"), "segment").unwrap();
    assert!(!on(&mut segments, &closed(0, false)));
    segments.finish().await;
    let (_, names, result) = segments.results().next().unwrap();
    assert_eq!((names.playlist.as_str(), result.totals.count), ("ann.m3u8", 1));
    assert!(folder.path().join("out/d/ann_00000.ts").exists());
}

#[tokio::test]
async fn an_output_that_has_failed_before_the_first_media_gets_no_names() {
    let folder = tempfile::tempdir().unwrap();
    let (mut segments, plan) = (segments(folder.path()).await, plan());
    let (code, message) = ("internal".to_owned(), "no folder".to_owned());
    let failed = MediaEvent::OutputFailed { output: 1, file: None, full: false, code, message };
    assert!(!segments.on_media_event(&failed, &plan, now));
    assert!(!segments.on_media_event(&started(Some(of_ann())), &plan, now));
    assert_eq!((segments.opened_facts(), segments.name_of(1)), (vec![], None));
}

#[tokio::test]
async fn a_playlist_that_is_there_is_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let (mut segments, plan) = (named(folder.path(), "d/x").await, plan());
    let out = folder.path().join("out/d");
    fs::create_dir_all(&out).unwrap();
    fs::write(out.join("x.m3u8"), "older").unwrap();
    let bound = Duration::from_secs(5);
    segments.claim_names(&plan, now(), bound, |_| ObjectNames::default()).await.unwrap();
    segments.on_media_event(&started(None), &plan, now);
    fs::write(folder.path().join("spool/1-0.ts"), "segment").unwrap();
    assert!(segments.on_media_event(&open(0, None), &plan, now));
    let (playlist, live_playlist) = ("d/x-2.m3u8".to_owned(), Some("d/live-2.m3u8".to_owned()));
    assert_eq!(segments.opened_facts(), [Fact::SegmentsOpened { index: 0, playlist, live_playlist }]);
    segments.on_media_event(&closed(0, false), &plan, now);
    segments.finish().await;
    drop(segments);
    assert_eq!(fs::read_to_string(out.join("x.m3u8")).unwrap(), "older");
    let mut names: Vec<_> = fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["live-2.m3u8", "x-2.m3u8", "x-2_00000.ts", "x.m3u8"]);
}

#[tokio::test]
async fn an_output_in_which_nothing_was_recorded_has_no_result() {
    let folder = tempfile::tempdir().unwrap();
    let (mut segments, plan) = (segments(folder.path()).await, plan());
    segments.on_media_event(&started(Some(of_ann())), &plan, now);
    segments.finish().await;
    assert!(segments.results().next().is_none() && !folder.path().join("out").exists());
    segments.abandon().await;
}
