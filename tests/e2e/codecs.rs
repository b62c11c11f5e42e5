//! One room with a person for every codec, each track recorded as it is, some also transcoded; one person loses packets.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use serde_json::json;
use spillway_tests::assets::clip;
use spillway_tests::publisher::{Publisher, PublisherOptions, SourceKind};

use crate::harness::{E2eHarness, SharedRun, block_on, harness};
use spillway_tests::egress::Egress;

const SECONDS: u64 = 8;

pub struct Codecs {
    infos: BTreeMap<&'static str, Result<serde_json::Value, String>>,
}

impl Codecs {
    pub fn info(&self, name: &str) -> Result<serde_json::Value> {
        self.infos.get(name).context("not recorded")?.clone().map_err(|error| anyhow!(error))
    }
}

pub fn codecs() -> Result<Arc<Codecs>> {
    static CODECS: SharedRun<Codecs> = SharedRun::new();
    CODECS.get(|| block_on(record(harness()?)))
}

async fn record(harness: Arc<E2eHarness>) -> Result<Codecs> {
    let room = harness.room("codecs");
    let api = harness.api();
    let mut people = Vec::new();
    let mut sids = BTreeMap::new();
    for (name, video, loss) in [
        ("vp8", "p0-360.vp8.ivf", 0.0),
        ("vp9", "p0-180.vp9.ivf", 0.0),
        ("av1", "p0-180.av1.ivf", 0.0),
        ("h265", "p0-180.h265", 0.0),
        ("lossy", "p1-360.h264", 0.02),
    ] {
        let (picture, options) = (clip(video)?, PublisherOptions { loss, seed: 7, ..PublisherOptions::default() });
        let person = Publisher::join(api, &room, name, options).await?;
        sids.insert(name, person.publish(&picture, SourceKind::Camera).await?);
        people.push(person);
    }
    for (name, sound) in [("opus", "p0.opus"), ("pcmu", "p0.pcmu"), ("pcma", "p0.pcma")] {
        let sound = clip(sound)?;
        let person = Publisher::join(api, &room, name, PublisherOptions::default()).await?;
        sids.insert(name, person.publish(&sound, SourceKind::Microphone).await?);
        people.push(person);
    }

    let path = |name: &str| harness.file(name).to_string_lossy().into_owned();
    let mut asked = Vec::new();
    for (name, codec, file) in [
        ("vp8", "vp8", "t_{track_type}_vp8_{time}.webm"),
        ("vp8_ivf", "vp8", "t_vp8_{time}.ivf"),
        ("vp9", "vp9", "t_vp9_{time}.webm"),
        ("av1", "av1", "t_av1_{time}.webm"),
        ("h265", "h265", "t_h265_{time}.mp4"),
        ("lossy", "lossy", "t_lossy_{time}.mp4"),
        ("pcmu", "pcmu", "t_pcmu_{track_source}_{time}.ogg"),
        ("pcma", "pcma", "t_pcma_{track_source}_{time}.ogg"),
    ] {
        let request = json!({ "track_id": sids[codec], "file": { "filepath": path(file) } });
        asked.push((name, "StartTrackEgress", request));
    }
    let composite = |video: Option<&str>, audio: &str, file: &str, kind: &str| {
        json!({
            "video_track_id": video.map(|name| sids[name].clone()).unwrap_or_default(),
            "audio_track_id": sids[audio],
            "file_outputs": [{ "filepath": path(file), "file_type": kind }],
        })
    };
    for (name, request) in [
        ("tc_vp8", composite(Some("vp8"), "opus", "tc_vp8_{time}.mp4", "MP4")),
        ("tc_webm", composite(Some("vp8"), "opus", "tc_webm_{time}.webm", "DEFAULT_FILETYPE")),
        ("tc_mp3", composite(None, "opus", "tc_{time}.mp3", "MP3")),
        ("tc_pcmu", composite(None, "pcmu", "tc_pcmu_{time}.mp4", "MP4")),
        ("tc_pcma", composite(None, "pcma", "tc_pcma_{time}.mp4", "MP4")),
    ] {
        asked.push((name, "StartTrackCompositeEgress", request));
    }
    let mut running = Vec::new();
    for (name, method, mut request) in asked {
        request["room_name"] = json!(room);
        running.push((name, Egress::start(api, method, request).await));
    }
    let mut infos = BTreeMap::new();
    let mut active = Vec::new();
    for (name, egress) in running {
        match egress {
            Ok(egress) => match egress.active().await {
                Ok(_) => active.push((name, egress)),
                Err(error) => drop(infos.insert(name, Err(format!("{error:#}")))),
            },
            Err(error) => drop(infos.insert(name, Err(format!("{error:#}")))),
        }
    }
    // The recording itself is real time.
    tokio::time::sleep(Duration::from_secs(SECONDS)).await;
    for (name, egress) in active {
        infos.insert(name, egress.complete().await.map_err(|error| format!("{error:#}")));
    }
    for person in &people {
        println!("{}: {:?}", person.identity, person.sent());
    }
    Ok(Codecs { infos })
}
