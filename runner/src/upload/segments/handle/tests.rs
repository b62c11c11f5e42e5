//! HLS outputs in virtual time, with real files and a store in memory.

use std::fs;
use std::sync::Arc;

use spillway_plan::segment_name::{SegmentFormat, SegmentNames, SegmentSuffix};
use spillway_storage::unreliable::FaultMode;
use spillway_storage::{RamStorage, Storage, Unreliable};
use tokio::time::{Instant, sleep};

use super::super::machine::{SegmentsMachine, SegmentsPlan};
use super::super::task::PLAYLIST_MIME;
use super::*;
use crate::upload::checkpoint::CheckpointWriter;
use crate::upload::objects::{ObjectStore, ObjectUploads};
use crate::upload::settings::UploadSettings;

const SECOND_NS: u64 = 1_000_000_000;
const ORIGIN: i64 = 1_772_366_400_000_000_000;

struct SegmentsLab {
    folder: tempfile::TempDir,
    ram: RamStorage,
    link: Unreliable,
    upload: SegmentsUpload,
}

fn names(format: SegmentFormat) -> SegmentNames {
    SegmentNames {
        directory: "d/".into(),
        playlist: "a.m3u8".into(),
        live_playlist: Some("live.m3u8".into()),
        prefix: "a".into(),
        suffix: SegmentSuffix::Index,
        format,
    }
}

impl SegmentsLab {
    fn new(format: SegmentFormat, spool_cap: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let spool = folder.path().join("EG_1");
        fs::create_dir(&spool).unwrap();
        let ram = RamStorage::new();
        let link = Unreliable::new(Arc::new(ram.clone()));
        let store: Arc<dyn Storage> = Arc::new(link.clone());
        let plan = SegmentsPlan {
            output: 0,
            names: names(format),
            segment_ns: 4 * SECOND_NS,
            folder: spool,
            started_at: ORIGIN,
            locate: Arc::new(|name| name.to_owned()),
        };
        let upload = SegmentsUpload::start(SegmentsUploader {
            machine: SegmentsMachine::new(plan),
            objects: ObjectUploads::new(ObjectStore::Remote(store), None, String::new(), UploadSettings::default()),
            checkpoint_writer: CheckpointWriter::disabled(),
            spool_cap,
        });
        Self { folder, ram, link, upload }
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.folder.path().join("EG_1").join(name), bytes).unwrap();
    }

    /// Four seconds of recording.
    async fn record(&self, n: u32) {
        let at_ns = u64::from(n) * 4 * SECOND_NS;
        self.upload.opened(n, at_ns);
        sleep(Duration::from_secs(4)).await;
        self.write(&format!("0-{n}.ts"), &[7; 1000]);
        self.upload.closed(SpooledSegment { n, at_ns, length_ns: 4 * SECOND_NS, bytes: 1000 });
    }

    fn text(&self, key: &str) -> String {
        String::from_utf8(self.ram.object(key).unwrap().to_vec()).unwrap()
    }
}

/// A transport stream of so many pictures, 25 a second, of 1000 bytes each.
fn transport_stream(pictures: u64) -> Vec<u8> {
    let mut out = vec![];
    let mut table = |pid: u16, section: &[u8]| {
        let mut packet = vec![0x47, 0x40 | (pid >> 8) as u8, pid as u8, 0x10, 0];
        packet.extend_from_slice(section);
        packet.resize(188, 0xff);
        out.extend(packet);
    };
    table(0, &[0, 0xb0, 13, 0, 1, 0xc1, 0, 0, 0, 1, 0xf0, 0, 1, 2, 3, 4]);
    table(0x1000, &[2, 0xb0, 18, 0, 1, 0xc1, 0, 0, 0xe1, 0, 0xf0, 0, 0x1b, 0xe1, 0, 0xf0, 0, 1, 2, 3, 4]);
    for picture in 0..pictures {
        let pts = picture * 3600;
        let low = |shift: u32| ((pts >> shift) as u8) << 1 | 1;
        let mut pes = vec![0, 0, 1, 0xe0, 3, 0xf0, 0x84, 0x80, 5];
        pes.extend([0x21, (pts >> 22) as u8, low(15), (pts >> 7) as u8, low(0)]);
        // A length of 1008 behind the six bytes of head.
        pes.resize(1014, 0x55);
        for (number, piece) in pes.chunks(184).enumerate() {
            let stuffing = 184 - piece.len();
            out.extend([0x47, if number == 0 { 0x41 } else { 1 }, 0, if stuffing > 0 { 0x30 } else { 0x10 }]);
            if stuffing > 0 {
                out.push((stuffing - 1) as u8);
                out.extend(std::iter::repeat_n(0, stuffing.min(2) - 1));
                out.extend(std::iter::repeat_n(0xff, stuffing.saturating_sub(2)));
            }
            out.extend(piece);
        }
    }
    out
}

#[tokio::test(start_paused = true)]
async fn a_recording_becomes_segments_and_playlists() {
    let lab = SegmentsLab::new(SegmentFormat::MpegTs, 1 << 30);
    for n in 0..7 {
        lab.record(n).await;
    }
    sleep(Duration::from_secs(1)).await;
    assert!(!lab.text("d/live.m3u8").contains("ENDLIST"));
    assert_eq!(lab.upload.status().totals.count, 7);
    let result = lab.upload.finish().await;
    assert_eq!((result.totals.count, result.totals.bytes, &result.failure), (7, 7000, &None));
    assert_eq!((result.started_at, result.ended_at), (ORIGIN, ORIGIN + 28_000_000_000));
    assert_eq!(result.playlist_location, Some(lab.ram.location("d/a.m3u8")));
    assert_eq!(result.live_location, Some(lab.ram.location("d/live.m3u8")));
    assert_eq!(result.segments[6], ("d/a_00006.ts".to_owned(), lab.ram.location("d/a_00006.ts")));
    for (playlist, segments) in [("d/a.m3u8", 7), ("d/live.m3u8", 5)] {
        let text = lab.text(playlist);
        assert_eq!(text.matches("#EXTINF:4.000,").count(), segments);
        assert!(text.ends_with("a_00006.ts\n#EXT-X-ENDLIST\n"));
    }
    assert_eq!(lab.ram.meta("d/a.m3u8").unwrap().content_type, PLAYLIST_MIME);
    assert!(!lab.folder.path().join("EG_1").exists(), "the spool is empty and gone");
    let manifest = lab.upload.put_beside("d/EG_1.json".into(), "{}".into()).await;
    assert_eq!((manifest, lab.text("d/EG_1.json").as_str()), (Ok(lab.ram.location("d/EG_1.json")), "{}"));
}

/// The media process dies in the third segment, between two writes.
#[tokio::test(start_paused = true)]
async fn of_a_segment_without_an_end_the_whole_pictures_are_kept() {
    let lab = SegmentsLab::new(SegmentFormat::MpegTs, 1 << 30);
    lab.record(0).await;
    lab.record(1).await;
    lab.upload.opened(2, 8 * SECOND_NS);
    let whole = transport_stream(50);
    lab.write("0-2.ts", &whole[..whole.len() - 300]);
    let result = lab.upload.finish().await;
    assert_eq!((result.totals.count, result.totals.lost, result.failure), (3, 0, None));
    assert_eq!(lab.ram.object("d/a_00002.ts").unwrap().as_ref(), transport_stream(49));
    assert!(lab.text("d/a.m3u8").ends_with("#EXTINF:1.960,\na_00002.ts\n#EXT-X-ENDLIST\n"));
    assert_eq!(result.ended_at, ORIGIN + 9_960_000_000);
}

#[tokio::test(start_paused = true)]
async fn beyond_the_cap_the_oldest_segment_is_given_up_and_the_recording_goes_on() {
    let lab = SegmentsLab::new(SegmentFormat::MpegTs, 5500);
    lab.record(0).await;
    sleep(Duration::from_secs(1)).await;
    lab.link.set_fault_mode(FaultMode::Down);
    for n in 1..10 {
        lab.record(n).await;
    }
    lab.link.set_fault_mode(FaultMode::Fine);
    let result = lab.upload.finish().await;
    assert_eq!((result.totals.count, result.totals.lost, &result.failure), (6, 4, &None));
    assert_eq!(result.notes.len(), 1);
    assert!(result.notes[0].starts_with("4 segments are missing in d/a.m3u8: the spool holds no more: "));
    let text = lab.text("d/a.m3u8");
    assert_eq!(text.matches("#EXT-X-DISCONTINUITY\n").count(), 1);
    assert!(text.contains("a_00000.ts\n#EXT-X-DISCONTINUITY\n") && text.ends_with("a_00009.ts\n#EXT-X-ENDLIST\n"));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_stays_away_fails_the_output_in_time() {
    let lab = SegmentsLab::new(SegmentFormat::MpegTs, 1 << 30);
    lab.record(0).await;
    sleep(Duration::from_secs(1)).await;
    lab.link.set_fault_mode(FaultMode::Down);
    lab.record(1).await;
    let before = Instant::now();
    let result = lab.upload.finish().await;
    let outage = Duration::from_millis(UploadSettings::default().max_outage_ms);
    assert!(before.elapsed() < outage + Duration::from_secs(5));
    assert!(result.failure.unwrap().contains("RAM upload failed") && !result.ended);
    assert_eq!(result.spooled, Some(lab.folder.path().join("EG_1")));
    assert!(lab.folder.path().join("EG_1/0-1.ts").exists());
}

/// Files are given up before texts: the store is back in between.
#[tokio::test(start_paused = true)]
async fn playlists_end_without_the_segments_that_are_given_up() {
    let lab = SegmentsLab::new(SegmentFormat::MpegTs, 1 << 30);
    lab.record(0).await;
    sleep(Duration::from_secs(1)).await;
    lab.link.set_fault_mode(FaultMode::Down);
    lab.record(1).await;
    lab.record(2).await;
    let outage = Duration::from_millis(UploadSettings::default().max_outage_ms);
    let back = async {
        sleep(outage - Duration::from_secs(5)).await;
        lab.link.set_fault_mode(FaultMode::Fine);
    };
    let (result, ()) = tokio::join!(lab.upload.finish(), back);
    assert_eq!((result.totals.count, result.totals.lost, result.ended), (1, 2, true));
    assert!(result.failure.unwrap().contains("RAM upload failed"));
    assert!(result.notes[0].starts_with("2 segments are missing in d/a.m3u8: "));
    assert_eq!(result.playlist_location, Some(lab.ram.location("d/a.m3u8")));
    assert!(lab.text("d/a.m3u8").ends_with("a_00000.ts\n#EXT-X-ENDLIST\n"));
    assert!(lab.folder.path().join("EG_1/0-1.ts").exists(), "what is not stored stays");
}

#[tokio::test(start_paused = true)]
async fn fragments_have_an_init_segment_before_anything_else() {
    let lab = SegmentsLab::new(SegmentFormat::FragmentedMp4, 1 << 30);
    lab.write("0-init.mp4", b"init");
    lab.upload.opened(0, 0);
    lab.write("0-0.m4s", b"segment");
    lab.upload.closed(SpooledSegment { n: 0, at_ns: 0, length_ns: SECOND_NS, bytes: 7 });
    // It wrote a part of the next one and died.
    lab.upload.opened(1, SECOND_NS);
    lab.write("0-1.m4s", b"seg");
    let result = lab.upload.finish().await;
    assert_eq!((result.totals.count, result.totals.lost, result.failure), (1, 1, None));
    assert_eq!(lab.ram.object("d/a_init.mp4").unwrap().as_ref(), b"init");
    assert!(lab.text("d/a.m3u8").contains("#EXT-X-MAP:URI=\"a_init.mp4\"\n"));
}

#[tokio::test(start_paused = true)]
async fn nothing_recorded_leaves_nothing() {
    let lab = SegmentsLab::new(SegmentFormat::MpegTs, 1 << 30);
    lab.upload.opened(0, 0);
    lab.write("0-0.ts", &[0; 10]);
    lab.upload.abandon().await;
    assert!(lab.ram.keys().is_empty() && !lab.folder.path().join("EG_1").exists());
    assert!(lab.upload.finish().await.gone && lab.upload.put_beside("a".into(), Bytes::new()).await.is_err());
}
