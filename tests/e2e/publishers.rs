//! One room with three people (H264 and Opus, p0 in 720p), recorded in every way at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use serde_json::{Value, json};
use spillway_tests::assets::clip;
use spillway_tests::publisher::{Publisher, PublisherOptions, SourceKind};

use crate::harness::{E2eHarness, SharedRun, block_on, harness};
use crate::recording_probe::RecordingProbe;
use spillway_tests::egress::Egress;

const SECONDS: u64 = 11;

pub struct SharedRecordings {
    probes: BTreeMap<&'static str, Result<Arc<RecordingProbe>, String>>,
    pub room: String,
    pub video: String,
}

impl SharedRecordings {
    pub fn probe(&self, name: &str) -> Result<Arc<RecordingProbe>> {
        self.probes.get(name).context("not recorded")?.clone().map_err(|error| anyhow!(error))
    }
}

/// The recorded room; the first who asks waits for it.
pub fn shared_recordings() -> Result<Arc<SharedRecordings>> {
    static RECORDINGS: SharedRun<SharedRecordings> = SharedRun::new();
    RECORDINGS.get(|| block_on(record(harness()?)))
}

/// Joins with camera and microphone; gives the two publications' sids.
pub async fn person(harness: &E2eHarness, room: &str, who: &str, video: &str) -> Result<(Publisher, String, String)> {
    let (picture, sound) = (clip(video)?, clip(&format!("{who}.opus"))?);
    let publisher = Publisher::join(harness.api(), room, who, PublisherOptions::default()).await?;
    let video = publisher.publish(&picture, SourceKind::Camera).await?;
    let audio = publisher.publish(&sound, SourceKind::Microphone).await?;
    Ok((publisher, video, audio))
}

async fn record(harness: Arc<E2eHarness>) -> Result<SharedRecordings> {
    let room = harness.room("studio");
    let api = harness.api();
    let (_p0, video, audio) = person(&harness, &room, "p0", "p0-720.h264").await?;
    let (_p1, ..) = person(&harness, &room, "p1", "p1-360.h264").await?;
    let (_p2, ..) = person(&harness, &room, "p2", "p2-360.h264").await?;

    let path = |name: &str| harness.file(name).to_string_lossy().into_owned();
    let file = |name: &str, kind: &str| json!([{ "filepath": path(name), "file_type": kind }]);
    let asked: Vec<(&'static str, &str, Value)> = vec![
        (
            "speaker",
            "StartRoomCompositeEgress",
            json!({
                "layout": "speaker", "file_outputs": file("r_{room_name}_{time}.mp4", "MP4"),
            }),
        ),
        (
            "ogg",
            "StartRoomCompositeEgress",
            json!({
                "audio_only": true, "file_outputs": file("r_audio_{time}.ogg", "OGG"), "advanced": { "audio_codec": "OPUS" },
            }),
        ),
        (
            "mp3",
            "StartRoomCompositeEgress",
            json!({
                "audio_only": true, "file_outputs": file("r_audio_{time}.mp3", "MP3"),
            }),
        ),
        (
            "participant",
            "StartParticipantEgress",
            json!({
                "identity": "p1", "file_outputs": file("p_{publisher_identity}_{time}.mp4", "MP4"),
            }),
        ),
        (
            "track_composite",
            "StartTrackCompositeEgress",
            json!({
                "video_track_id": video, "audio_track_id": audio, "file_outputs": file("tc_{publisher_identity}_{time}.mp4", "MP4"),
            }),
        ),
        (
            "video_only",
            "StartTrackCompositeEgress",
            json!({
                "video_track_id": video, "file_outputs": file("tc_video_{time}.mp4", "MP4"),
            }),
        ),
        (
            "track_h264",
            "StartTrackEgress",
            json!({ "track_id": video, "file": { "filepath": path("t_{track_id}_{time}.mp4") } }),
        ),
        (
            "track_opus",
            "StartTrackEgress",
            json!({ "track_id": audio, "file": { "filepath": path("t_{track_source}_{time}.ogg") } }),
        ),
    ];
    let mut started = Vec::new();
    for (name, method, mut request) in asked {
        request["room_name"] = json!(room);
        started.push((name, Egress::start(api, method, request).await));
    }
    let mut active = Vec::new();
    for (name, egress) in started {
        let egress = match egress {
            Ok(egress) => egress.active().await.map(|took| (egress, took)),
            Err(error) => Err(error),
        };
        if let Ok((egress, took)) = &egress {
            println!("{name}: Start answered in {:?}, ACTIVE after {took:.2?}", egress.answered_in);
        }
        active.push((name, egress));
    }
    // The recording itself is real time.
    tokio::time::sleep(Duration::from_secs(SECONDS)).await;
    // All are stopped before the first is decoded: that takes longer than stopping.
    let mut stopped = Vec::new();
    for (name, egress) in active {
        let info = match egress {
            Ok((egress, _)) => egress.complete().await,
            Err(error) => Err(error),
        };
        stopped.push((name, info));
    }
    let mut probes = BTreeMap::new();
    for (name, info) in stopped {
        let probe = info.and_then(|info| RecordingProbe::open(&info));
        probes.insert(name, probe.map(Arc::new).map_err(|error| format!("{error:#}")));
    }
    Ok(SharedRecordings { probes, room, video })
}
