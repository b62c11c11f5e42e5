use libtest_mimic::Trial;
use spillway_tests::analyser::sound::BeepSide;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use spillway_tests::assets::clip;
use spillway_tests::publisher::{Publisher, PublisherOptions, SourceKind};

use crate::harness::{E2eHarness, alone, case};
use crate::publishers::shared_recordings;
use crate::recording_probe::RecordingProbe;
use spillway_tests::egress::Egress;

pub fn cases() -> Vec<Trial> {
    vec![
        alone("room_composite::base", || {
            let shared_recordings = shared_recordings()?;
            let probe = shared_recordings.probe("speaker")?;
            probe.is_h264("Main", 1280, 720)?;
            probe.is_audio("aac", "44100", 2)?;
            probe.has_manifest()?;
            ensure!(probe.name().starts_with(&format!("r_{}_", shared_recordings.room)), "named {}", probe.name());
            ensure!(probe.info["source_type"] == "EGRESS_SOURCE_TYPE_WEB", "{}", probe.info["source_type"]);
            for who in ["p0", "p1", "p2"] {
                probe.shows(who, &probe.whole(), &[])?;
                probe.sounds(who, BeepSide::Both, &probe.whole(), &[])?;
                probe.moves(who, 29.0)?;
            }
            probe.all_in_sync(&["p0", "p1", "p2"])
        }),
        alone("room_composite::audio_only", || {
            let probe = shared_recordings()?.probe("ogg")?;
            probe.is_audio("opus", "48000", 2)?;
            ensure!(probe.pictures.is_none(), "a picture in an audio file");
            ensure!(probe.info["source_type"] == "EGRESS_SOURCE_TYPE_SDK", "{}", probe.info["source_type"]);
            ["p0", "p1", "p2"].iter().try_for_each(|who| probe.sounds(who, BeepSide::Both, &probe.whole(), &[]))
        }),
        alone("room_composite::audio_only_mp3", || {
            let probe = shared_recordings()?.probe("mp3")?;
            probe.is_audio("mp3", "44100", 2)?;
            ["p0", "p1", "p2"].iter().try_for_each(|who| probe.sounds(who, BeepSide::Both, &probe.whole(), &[]))
        }),
        case("room_composite::video_only", |harness| async move { video_only(&harness).await }),
        case("room_composite::two_clocks", |harness| async move { two_clocks(&harness).await }),
    ]
}

async fn video_only(harness: &E2eHarness) -> Result<()> {
    let (room, picture) = (harness.room("video-only"), clip("p0-360.h264")?);
    let p0 = Publisher::join(harness.api(), &room, "p0", PublisherOptions::default()).await?;
    p0.publish(&picture, SourceKind::Camera).await?;
    let path = harness.file("r_video_{time}.mp4");
    let request = json!({
        "room_name": room, "layout": "grid-light", "video_only": true,
        "advanced": { "width": 640, "height": 360, "framerate": 30, "video_codec": "H264_HIGH", "video_bitrate": 1500 },
        "file_outputs": [{ "filepath": path.to_string_lossy(), "file_type": "MP4" }],
    });
    let egress = Egress::start(harness.api(), "StartRoomCompositeEgress", request).await?;
    egress.active().await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let probe = RecordingProbe::open(&egress.complete().await?)?;
    probe.is_h264("High", 640, 360)?;
    ensure!(probe.sound.is_none(), "sound in a video file");
    probe.shows("p0", &probe.whole(), &[])?;
    probe.moves("p0", 29.0)
}

/// Two machines whose clocks are 3 s apart and drift by 200 ppm show one moment at one time.
async fn two_clocks(harness: &E2eHarness) -> Result<()> {
    let room = harness.room("clocks");
    let mut people = Vec::new();
    for (who, clock_ahead, clock_ppm) in [("p0", -1.5, -100.0), ("p1", 1.5, 100.0)] {
        let (picture, sound) = (clip(&format!("{who}-360.h264"))?, clip(&format!("{who}.opus"))?);
        let options = PublisherOptions { clock_ahead, clock_ppm, ..PublisherOptions::default() };
        let person = Publisher::join(harness.api(), &room, who, options).await?;
        person.publish(&picture, SourceKind::Camera).await?;
        person.publish(&sound, SourceKind::Microphone).await?;
        people.push(person);
    }
    let request = json!({
        "room_name": room, "layout": "grid",
        "file_outputs": [{ "filepath": harness.file("r_clocks_{time}.mp4").to_string_lossy(), "file_type": "MP4" }],
    });
    let egress = Egress::start(harness.api(), "StartRoomCompositeEgress", request).await?;
    egress.active().await?;
    tokio::time::sleep(Duration::from_secs(20)).await;
    let probe = RecordingProbe::open(&egress.complete().await?)?;
    for who in ["p0", "p1"] {
        probe.shows(who, &probe.whole(), &[])?;
    }
    probe.all_in_sync(&["p0", "p1"])?;
    let (first, second) = (probe.flashes("p0")?, probe.flashes("p1")?);
    let apart = spillway_tests::analyser::sync::offset(&first, &second);
    println!("{} p0 - p1: {apart}", probe.name());
    ensure!(apart.median_ms.abs() <= 40.0, "the two are {apart} apart");
    Ok(())
}
