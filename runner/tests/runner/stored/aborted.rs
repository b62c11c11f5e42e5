//! Uploads that another party aborts while they run (a life-cycle rule): the recording goes on in another object.
use spillway_ipc::SpoolReader;
use spillway_protocol::livekit::EgressStatus::{EgressActive, EgressComplete};
use spillway_protocol::rpc::service;
use spillway_runner::report::Delivered;
use spillway_runner::serve::ServeOutcome;

use super::{Buckets, harness, s3};
use crate::harness::{RunnerHarness, done, until};

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
    for (same_disk, given_back) in [(true, false), (true, true), (false, false)] {
        let (harness, buckets) = harness(s3(), false).await;
        let run = harness.run(BOXES).await;
        swept(&harness, &buckets).await;
        run.abort();
        let _ = run.await;
        if given_back {
            // It died between that and its next checkpoint.
            let spool = SpoolReader::open(&harness.spooled()[0]).unwrap();
            let first = (0..).map(|block| block * 4096).find(|at| spool.is_whole(*at..*at + 1).unwrap()).unwrap();
            spool.punch(first..first + 300_000).unwrap();
        }
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
