use std::fs;

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
    let root = LocalRoot::confined(folder.join("out"));
    let (stores, settings) = (DefaultStoreFactory::default(), UploadSettings::default());
    let place = ObjectPlace::open(None, &root, &stores, &settings, "d/EG_1.json").await.unwrap();
    let naming = SegmentNaming::new("d/{publisher_identity}", "", "d/live", SegmentSuffix::Index);
    let job = SegmentsJob { output: 1, naming, segment_ns: 4 * SECOND_NS, place, spool_cap: 1 << 30 };
    fs::create_dir(folder.join("spool")).unwrap();
    SessionSegments::new(vec![job], folder.join("spool"), settings, CheckpointWriter::disabled())
}

fn open(n: u32, facts: Option<TrackFacts>) -> MediaEvent {
    MediaEvent::SegmentOpen { output: 1, n, at_ns: u64::from(n) * 4 * SECOND_NS, facts }
}

fn closed(n: u32, gap: bool) -> MediaEvent {
    let at_ns = u64::from(n) * 4 * SECOND_NS;
    MediaEvent::Segment { output: 1, n, at_ns, length_ns: 4 * SECOND_NS, bytes: 7, gap }
}

#[tokio::test]
async fn an_output_begins_when_its_time_and_its_names_are_known() {
    let folder = tempfile::tempdir().unwrap();
    let (mut segments, plan) = (segments(folder.path()).await, plan());
    let facts = TrackFacts { publisher_identity: "ann".into(), ..TrackFacts::default() };
    let on = |segments: &mut SessionSegments, event: &MediaEvent| segments.on_media_event(event, &plan, now);
    assert!(!on(&mut segments, &open(0, Some(facts))));
    assert_eq!((segments.opened_facts(), segments.changed_totals()), (vec![], vec![]));
    fs::write(folder.path().join("spool/1-0.ts"), "segment").unwrap();
    assert!(!on(&mut segments, &closed(0, false)));
    assert!(on(&mut segments, &MediaEvent::Started { at: ORIGIN }));
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

#[tokio::test]
async fn an_output_in_which_nothing_was_recorded_has_no_result() {
    let folder = tempfile::tempdir().unwrap();
    let (mut segments, plan) = (segments(folder.path()).await, plan());
    segments.on_media_event(&MediaEvent::Started { at: ORIGIN }, &plan, now);
    segments.finish().await;
    assert!(segments.results().next().is_none() && !folder.path().join("out").exists());
    segments.abandon().await;
}
