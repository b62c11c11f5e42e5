use libtest_mimic::Trial;
use spillway_tests::analyser::sound::Side;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use spillway_tests::assets::clip;
use spillway_tests::publisher::{From, Manners, Publisher};

use crate::stage::{Stage, alone, case};
use crate::studio::studio;
use crate::tape::Tape;
use spillway_tests::egress::Egress;

pub fn cases() -> Vec<Trial> {
    vec![
        alone("room_composite::base", || {
            let studio = studio()?;
            let tape = studio.tape("speaker")?;
            tape.is_h264("Main", 1280, 720)?;
            tape.is_audio("aac", "44100", 2)?;
            tape.has_manifest()?;
            ensure!(tape.name().starts_with(&format!("r_{}_", studio.room)), "named {}", tape.name());
            ensure!(tape.info["source_type"] == "EGRESS_SOURCE_TYPE_WEB", "{}", tape.info["source_type"]);
            for who in ["p0", "p1", "p2"] {
                tape.shows(who, &tape.whole(), &[])?;
                tape.sounds(who, Side::Both, &tape.whole(), &[])?;
                tape.moves(who, 29.0)?;
            }
            tape.all_in_sync(&["p0", "p1", "p2"])
        }),
        alone("room_composite::audio_only", || {
            let tape = studio()?.tape("ogg")?;
            tape.is_audio("opus", "48000", 2)?;
            ensure!(tape.pictures.is_none(), "a picture in an audio file");
            ensure!(tape.info["source_type"] == "EGRESS_SOURCE_TYPE_SDK", "{}", tape.info["source_type"]);
            ["p0", "p1", "p2"].iter().try_for_each(|who| tape.sounds(who, Side::Both, &tape.whole(), &[]))
        }),
        alone("room_composite::audio_only_mp3", || {
            let tape = studio()?.tape("mp3")?;
            tape.is_audio("mp3", "44100", 2)?;
            ["p0", "p1", "p2"].iter().try_for_each(|who| tape.sounds(who, Side::Both, &tape.whole(), &[]))
        }),
        case("room_composite::video_only", |stage| async move { video_only(&stage).await }),
        case("room_composite::two_clocks", |stage| async move { two_clocks(&stage).await }),
    ]
}

async fn video_only(stage: &Stage) -> Result<()> {
    let (room, picture) = (stage.room("video-only"), clip("p0-360.h264")?);
    let p0 = Publisher::join(stage.api(), &room, "p0", Manners::default()).await?;
    p0.publish(&picture, From::Camera).await?;
    let path = stage.file("r_video_{time}.mp4");
    let request = json!({
        "room_name": room, "layout": "grid-light", "video_only": true,
        "advanced": { "width": 640, "height": 360, "framerate": 30, "video_codec": "H264_HIGH", "video_bitrate": 1500 },
        "file_outputs": [{ "filepath": path.to_string_lossy(), "file_type": "MP4" }],
    });
    let egress = Egress::start(stage.api(), "StartRoomCompositeEgress", request).await?;
    egress.active().await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let tape = Tape::open(&egress.complete().await?)?;
    tape.is_h264("High", 640, 360)?;
    ensure!(tape.sound.is_none(), "sound in a video file");
    tape.shows("p0", &tape.whole(), &[])?;
    tape.moves("p0", 29.0)
}

/// Two machines whose clocks are 3 s apart and drift by 200 ppm show one moment at one time.
async fn two_clocks(stage: &Stage) -> Result<()> {
    let room = stage.room("clocks");
    let mut people = Vec::new();
    for (who, clock_ahead, clock_ppm) in [("p0", -1.5, -100.0), ("p1", 1.5, 100.0)] {
        let (picture, sound) = (clip(&format!("{who}-360.h264"))?, clip(&format!("{who}.opus"))?);
        let manners = Manners { clock_ahead, clock_ppm, ..Manners::default() };
        let person = Publisher::join(stage.api(), &room, who, manners).await?;
        person.publish(&picture, From::Camera).await?;
        person.publish(&sound, From::Microphone).await?;
        people.push(person);
    }
    let request = json!({
        "room_name": room, "layout": "grid",
        "file_outputs": [{ "filepath": stage.file("r_clocks_{time}.mp4").to_string_lossy(), "file_type": "MP4" }],
    });
    let egress = Egress::start(stage.api(), "StartRoomCompositeEgress", request).await?;
    egress.active().await?;
    tokio::time::sleep(Duration::from_secs(20)).await;
    let tape = Tape::open(&egress.complete().await?)?;
    for who in ["p0", "p1"] {
        tape.shows(who, &tape.whole(), &[])?;
    }
    tape.all_in_sync(&["p0", "p1"])?;
    let (first, second) = (tape.flashes("p0")?, tape.flashes("p1")?);
    let apart = spillway_tests::analyser::sync::offset(&first, &second);
    println!("{} p0 - p1: {apart}", tape.name());
    ensure!(apart.median_ms.abs() <= 40.0, "the two are {apart} apart");
    Ok(())
}
