use std::fs;

use chrono::NaiveDate;
use spillway_plan::ImageSuffix;
use spillway_process::LocalRoot;
use spillway_protocol::ledger::Fact;

use super::*;
use crate::upload::stores::DefaultStoreFactory;

const SECOND_NS: u64 = 1_000_000_000;
const ORIGIN: i64 = 1_772_366_400_000_000_000;

fn plan() -> EgressPlan {
    let text = r#"{"egress_id":"EG_1","room_name":"r","room_id":"RM_1","kind":"track_composite",
        "source":{"tracks":{"audio":null,"video":"TR_v"}},"picture":null,"sound":null,"outputs":[],
        "limits":{"max_duration_ns":null,"max_file_bytes":null},"retry_count":0}"#;
    serde_json::from_str(text).unwrap()
}

fn now() -> NaiveDateTime {
    NaiveDate::from_ymd_opt(2026, 3, 1).unwrap().and_hms_opt(12, 0, 0).unwrap()
}

async fn images(folder: &Path) -> SessionImages {
    several(folder, 1).await
}

async fn several(folder: &Path, outputs: u32) -> SessionImages {
    let root = LocalRoot::confined(folder.join("out"));
    let (stores, settings) = (DefaultStoreFactory::default(), UploadSettings::default());
    let place = ObjectPlace::open(None, &root, &stores, &settings, "d/EG_1.json").await.unwrap();
    let job = |output| ImagesJob { output, images: asked(), place: place.clone(), spool_cap: 1 << 30 };
    fs::create_dir(folder.join("spool")).unwrap();
    let jobs = (1..=outputs).map(job).collect();
    SessionImages::new(jobs, folder.join("spool"), settings, CheckpointWriter::disabled())
}

fn asked() -> ImagesOutput {
    ImagesOutput {
        prefix: "d/{publisher_identity}".into(),
        interval_ns: SECOND_NS,
        size: None,
        suffix: ImageSuffix::Index,
        codec: ImageCodec::Jpeg,
        manifest: true,
        stored: false,
    }
}

fn started(facts: Option<TrackFacts>) -> MediaEvent {
    MediaEvent::Started { at: ORIGIN, facts }
}

fn of_ann() -> TrackFacts {
    TrackFacts { publisher_identity: "ann".into(), ..TrackFacts::default() }
}

fn captured(folder: &Path, n: u32, facts: Option<TrackFacts>) -> MediaEvent {
    fs::write(folder.join(format!("spool/1-{n}.jpeg")), "image").unwrap();
    MediaEvent::Image { output: 1, n, at_ns: u64::from(n) * SECOND_NS, bytes: 5, facts }
}

#[tokio::test]
async fn an_output_begins_when_its_time_and_its_names_are_known() {
    let folder = tempfile::tempdir().unwrap();
    let (mut images, plan) = (images(folder.path()).await, plan());
    let on = |images: &mut SessionImages, event: &MediaEvent| images.on_media_event(event, &plan, now);
    assert!(!on(&mut images, &captured(folder.path(), 0, Some(of_ann()))));
    assert_eq!((images.any(), images.opened_facts()), (false, vec![]));
    assert!(on(&mut images, &started(None)));
    assert_eq!(images.opened_facts(), [Fact::ImagesOpened { index: 0, prefix: "d/ann".into() }]);
    assert!(images.opened_facts().is_empty());
    assert!(!on(&mut images, &captured(folder.path(), 1, None)));
    // Of another output.
    let other = MediaEvent::Image { output: 0, n: 0, at_ns: 0, bytes: 1, facts: None };
    assert!(!on(&mut images, &other));
    images.finish().await;
    assert_eq!(images.progress_facts(), [Fact::ImagesProgress { index: 0, count: 2 }]);
    let ended_at = ORIGIN + SECOND_NS as i64;
    let expected =
        [Fact::ImagesProgress { index: 0, count: 2 }, Fact::ImagesStored { index: 0, started_at: ORIGIN, ended_at }];
    assert_eq!(images.result_facts().collect::<Vec<_>>(), expected);
    let out = folder.path().join("out/d");
    assert_eq!(fs::read(out.join("ann_00001.jpeg")).unwrap(), b"image");
    let results = images.image_results();
    let second = ("d/ann_00001.jpeg".to_owned(), out.join("ann_00001.jpeg").display().to_string(), ended_at);
    assert_eq!(results[0].images[1], second);
    let manifest = images.put_manifest(0, "EG_1", "{}".to_owned()).await.unwrap();
    assert_eq!((manifest, images.has_backup(0)), (Some(out.join("EG_1.json").display().to_string()), false));
    assert!(!folder.path().join("spool").exists());
}

/// The first image may come a whole interval after the first media, which makes the egress ACTIVE.
#[tokio::test]
async fn names_are_known_with_the_first_media_and_nothing_is_uploaded_before_an_image() {
    let folder = tempfile::tempdir().unwrap();
    let (mut images, plan) = (several(folder.path(), 2).await, plan());
    images.share_names(|_| ObjectNames::default());
    assert!(images.on_media_event(&started(Some(of_ann())), &plan, now));
    let opened = |index, prefix: &str| Fact::ImagesOpened { index, prefix: prefix.into() };
    assert_eq!(images.opened_facts(), [opened(0, "d/ann"), opened(1, "d/ann-2")]);
    assert_eq!((images.any(), images.progress_facts()), (false, vec![]));
    // Names do not change any more.
    let other = TrackFacts { publisher_identity: "bob".into(), ..TrackFacts::default() };
    assert!(!images.on_media_event(&captured(folder.path(), 0, Some(other)), &plan, now));
    assert!(images.any() && images.opened_facts().is_empty());
    images.finish().await;
    assert!(folder.path().join("out/d/ann_00000.jpeg").exists());
    let named: Vec<(usize, &str)> = images.results().map(|(index, names, _)| (index, names.prefix.as_str())).collect();
    assert_eq!(named, [(0, "d/ann")]);
}

#[tokio::test]
async fn an_output_that_has_failed_before_the_first_media_gets_no_names() {
    let folder = tempfile::tempdir().unwrap();
    let (mut images, plan) = (images(folder.path()).await, plan());
    let (code, message) = ("internal".to_owned(), "no folder".to_owned());
    let failed = MediaEvent::OutputFailed { output: 1, file: None, full: false, code, message };
    assert!(!images.on_media_event(&failed, &plan, now));
    assert!(!images.on_media_event(&started(Some(of_ann())), &plan, now));
    assert_eq!((images.opened_facts(), images.name_of(1)), (vec![], None));
}

#[tokio::test]
async fn two_outputs_of_one_prefix_have_a_name_each() {
    let folder = tempfile::tempdir().unwrap();
    let (mut images, plan) = (several(folder.path(), 2).await, plan());
    images.share_names(|_| ObjectNames::default());
    images.on_media_event(&started(None), &plan, now);
    for output in [1, 2] {
        fs::write(folder.path().join(format!("spool/{output}-0.jpeg")), "image").unwrap();
        let facts = Some(of_ann());
        images.on_media_event(&MediaEvent::Image { output, n: 0, at_ns: 0, bytes: 5, facts }, &plan, now);
    }
    let opened = |index, prefix: &str| Fact::ImagesOpened { index, prefix: prefix.into() };
    assert_eq!(images.opened_facts(), [opened(0, "d/ann"), opened(1, "d/ann-2")]);
    images.finish().await;
    let out = folder.path().join("out/d");
    assert!(out.join("ann_00000.jpeg").exists() && out.join("ann-2_00000.jpeg").exists());
}

#[tokio::test]
async fn an_output_of_which_nothing_was_recorded_has_no_result() {
    let folder = tempfile::tempdir().unwrap();
    let (mut images, plan) = (images(folder.path()).await, plan());
    images.on_media_event(&started(Some(of_ann())), &plan, now);
    images.finish().await;
    assert!(images.results().next().is_none() && !folder.path().join("out").exists());
    images.abandon().await;
}

#[test]
fn what_is_in_the_backup_and_what_is_lost_is_told() {
    let result = ImagesResult {
        totals: ImageTotals { count: 2, bytes: 10, lost: 1 },
        started_at: 5,
        ended_at: 9,
        used_backup: true,
        notes: vec!["1 image is missing of a: no room".into()],
        ..ImagesResult::default()
    };
    let expected = [
        Fact::BackupUsed,
        Fact::ImagesProgress { index: 3, count: 2 },
        Fact::ImagesStored { index: 3, started_at: 5, ended_at: 9 },
        Fact::Noted("1 image is missing of a: no room".into()),
    ];
    assert_eq!(image_facts(3, &result), expected);
    assert!(image_facts(0, &ImagesResult { gone: true, ..result }).is_empty());
}
