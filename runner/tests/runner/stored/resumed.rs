//! Tasks that die while their files are uploaded, and the ones that go on: with the disk of the dead one or without.

use spillway_bus::UploadStates;
use spillway_protocol::livekit::EgressStatus::{EgressActive, EgressComplete, EgressFailed};
use spillway_protocol::rpc::service;
use spillway_runner::report::Delivered;
use spillway_runner::serve::ServeOutcome;

use super::{harness, plays, s3};
use crate::harness::{done, until};

#[tokio::test(flavor = "multi_thread")]
async fn what_the_dead_task_has_recorded_is_stored_while_another_records() {
    for same_disk in [true, false] {
        let (mut harness, buckets) = harness(s3(), false).await;
        harness.resumable = true;
        let run = harness.run("record-mp4-fast").await;
        harness.heard(EgressActive).await;
        until("parts", || buckets.primary.counts().puts >= 5).await;
        run.abort();
        let _ = run.await;
        let written = std::fs::metadata(&harness.spooled()[0]).unwrap().len();
        if !same_disk {
            std::fs::remove_dir_all(harness.folder.path().join("spool")).unwrap();
        }
        let run = harness.resume().await;
        until("the first object", || buckets.primary.object("a.mp4").is_some()).await;
        assert!(!run.is_finished());
        let told = || harness.last().details.contains("after a gap of");
        until("the gap is named", told).await;
        until("parts of the second", || buckets.primary.open_uploads() == 1).await;
        harness.call(service::STOP_EGRESS).await.unwrap();
        assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Acknowledged));
        let last = harness.last();
        assert_eq!((last.status(), last.error.as_str()), (EgressComplete, ""), "{last:?}");
        for (file, (name, is_whole)) in last.file_results.iter().zip([("a.mp4", false), ("a-2.mp4", true)]) {
            assert_eq!((file.filename.as_str(), file.location.as_str()), (name, format!("ram://{name}").as_str()));
            let object = buckets.primary.object(name).unwrap();
            assert_eq!((plays(&object, true), object.len()), (is_whole, file.size as usize), "{name}");
            assert!(file.duration > 0, "{file:?}");
        }
        let [first, second] = &last.file_results[..] else { panic!("{last:?}") };
        assert!(first.ended_at < second.started_at, "{last:?}");
        assert_eq!(first.size as u64 == written, same_disk, "{} of {written}", first.size);
        let mut keys = buckets.primary.keys();
        keys.sort();
        assert_eq!(keys, ["EG_1.json", "a-2.mp4", "a.mp4"]);
        assert!(buckets.open_uploads() == 0 && harness.spooled().is_empty(), "{:?}", harness.spooled());
        assert!(UploadStates::new(&harness.bus).get(&harness.id).await.unwrap().is_none());
    }
}

/// Also of a task that has gone on itself: the checkpoint names what is saved, and what is not.
#[tokio::test(flavor = "multi_thread")]
async fn three_tasks_make_three_objects_and_a_salvage_saves_what_the_last_has_left() {
    for salvaged in [false, true] {
        let (mut harness, buckets) = harness(s3(), false).await;
        harness.resumable = true;
        let mut run = harness.run("record-mp4-fast").await;
        harness.heard(EgressActive).await;
        for next in ["a-2.mp4", "a-3.mp4"] {
            let puts = buckets.primary.counts().puts;
            until("parts", || buckets.primary.counts().puts >= puts + 5).await;
            run.abort();
            let _ = run.await;
            run = harness.resume().await;
            until(next, || harness.last().file_results.iter().any(|file| file.filename == next)).await;
        }
        let puts = buckets.primary.counts().puts;
        until("parts", || buckets.primary.counts().puts >= puts + 5).await;
        if salvaged {
            run.abort();
            let _ = run.await;
            run = harness.salvage("record-mp4-fast").await;
        } else {
            harness.call(service::STOP_EGRESS).await.unwrap();
        }
        assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Acknowledged));
        let last = harness.last();
        assert_eq!(last.status(), if salvaged { EgressFailed } else { EgressComplete }, "{last:?}");
        let names: Vec<&str> = last.file_results.iter().map(|file| file.filename.as_str()).collect();
        assert_eq!(names, ["a.mp4", "a-2.mp4", "a-3.mp4"]);
        for file in &last.file_results {
            assert_eq!(buckets.primary.object(&file.filename).unwrap().len(), file.size as usize, "{file:?}");
        }
        assert_eq!(buckets.open_uploads(), 0);
    }
}

/// A store that refuses what the dead task has left: that is no complete recording.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_saved_fails_the_egress_in_the_end() {
    let (mut harness, buckets) = harness(s3(), false).await;
    harness.resumable = true;
    let run = harness.run("record-mp4-fast").await;
    harness.heard(EgressActive).await;
    until("parts", || buckets.primary.counts().puts >= 5).await;
    run.abort();
    let _ = run.await;
    // Its upload is unknown there: taken away by a lifecycle rule.
    buckets.primary.sweep();
    std::fs::remove_dir_all(harness.folder.path().join("spool")).unwrap();
    let run = harness.resume().await;
    until("parts of the second", || buckets.primary.open_uploads() == 1).await;
    harness.call(service::STOP_EGRESS).await.unwrap();
    assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Acknowledged));
    let last = harness.last();
    assert_eq!(last.status(), EgressFailed, "{last:?}");
    assert!(last.file_results.iter().any(|file| file.filename == "a-2.mp4" && file.size > 0), "{last:?}");
    assert!(buckets.primary.object("a-2.mp4").is_some());
}
