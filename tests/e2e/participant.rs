use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use serde_json::json;
use spillway_tests::analyser::sound::Side;
use spillway_tests::assets::clip;
use spillway_tests::publisher::{From, Manners, Publisher};

use crate::stage::{Stage, alone, case};
use crate::studio::studio;
use crate::tape::Tape;
use spillway_tests::egress::Egress;

pub fn cases() -> Vec<Trial> {
    vec![
        alone("participant::base", || {
            let tape = studio()?.tape("participant")?;
            ensure!(tape.name().starts_with("p_p1_"), "named {}", tape.name());
            ensure!(tape.info["source_type"] == "EGRESS_SOURCE_TYPE_SDK", "{}", tape.info["source_type"]);
            tape.is_audio("aac", "44100", 2)?;
            tape.shows("p1", &tape.whole(), &[])?;
            tape.sounds("p1", Side::Both, &tape.whole(), &[])?;
            tape.in_sync("p1")?;
            tape.moves("p1", 29.0)
        }),
        case("participant::vp8_with_sound_that_comes_and_goes", |stage| async move { vp8(stage).await }),
        case("participant::h264_that_goes_and_comes_back", |stage| async move { h264(stage).await }),
        case("participant::audio_only_has_a_black_picture", |stage| async move { audio_only(stage).await }),
    ]
}

async fn start(stage: &Stage, room: &str) -> Result<Egress> {
    let request = json!({
        "room_name": room, "identity": "p0",
        "file_outputs": [{ "filepath": stage.file("p_{room_name}_{time}.mp4").to_string_lossy(), "file_type": "MP4" }],
    });
    let egress = Egress::start(stage.api(), "StartParticipantEgress", request).await?;
    egress.active().await?;
    Ok(egress)
}

/// Waits for a place on a case's own timetable.
async fn at(begun: Instant, seconds: f64) -> SystemTime {
    tokio::time::sleep_until((begun + Duration::from_secs_f64(seconds)).into()).await;
    SystemTime::now()
}

async fn vp8(stage: Arc<Stage>) -> Result<()> {
    let room = stage.room("participant-vp8");
    let (picture, sound) = (clip("p0-360.vp8.ivf")?, clip("p0.opus")?);
    let p0 = Publisher::join(stage.api(), &room, "p0", Manners::default()).await?;
    p0.publish(&picture, From::Camera).await?;
    let egress = start(&stage, &room).await?;
    let begun = Instant::now();
    let on = at(begun, 3.0).await;
    let audio = p0.publish(&sound, From::Microphone).await?;
    let off = at(begun, 7.5).await;
    p0.unpublish(&audio);
    let on_again = at(begun, 10.0).await;
    p0.publish(&sound, From::Microphone).await?;
    at(begun, 13.0).await;
    let tape = Tape::open(&egress.complete().await?)?;
    tape.is_h264("Main", 1280, 720)?;
    tape.shows("p0", &tape.whole(), &[])?;
    tape.moves("p0", 29.0)?;
    let [on, off, on_again] = [on, off, on_again].map(|moment| tape.at(moment));
    let wanted = [(on + 1.0, off - 0.2), (on_again + 1.0, tape.seconds() - 0.7)];
    tape.sounds("p0", Side::Both, &wanted, &[(0.0, on - 0.2), (off + 1.0, on_again - 0.2)])?;
    tape.in_sync("p0")?;
    Ok(())
}

async fn h264(stage: Arc<Stage>) -> Result<()> {
    let room = stage.room("participant-h264");
    let (picture, sound) = (clip("p0-360.h264")?, clip("p0.opus")?);
    let p0 = Publisher::join(stage.api(), &room, "p0", Manners::default()).await?;
    let video = p0.publish(&picture, From::Camera).await?;
    p0.publish(&sound, From::Microphone).await?;
    let egress = start(&stage, &room).await?;
    let begun = Instant::now();
    let off = at(begun, 4.5).await;
    p0.unpublish(&video);
    let on = at(begun, 8.0).await;
    p0.publish(&picture, From::Camera).await?;
    at(begun, 12.0).await;
    let tape = Tape::open(&egress.complete().await?)?;
    tape.sounds("p0", Side::Both, &tape.whole(), &[])?;
    let (off, on) = (tape.at(off), tape.at(on));
    // Black a second after it went; a key frame may take a second when it comes back.
    tape.shows("p0", &[(0.5, off - 0.2), (on + 2.0, tape.seconds() - 0.7)], &[(off + 1.0, on - 0.2)])?;
    tape.in_sync("p0")?;
    Ok(())
}

async fn audio_only(stage: Arc<Stage>) -> Result<()> {
    let room = stage.room("participant-audio");
    let sound = clip("p0.opus")?;
    let p0 = Publisher::join(stage.api(), &room, "p0", Manners::default()).await?;
    let audio = p0.publish(&sound, From::Microphone).await?;
    let egress = start(&stage, &room).await?;
    let begun = Instant::now();
    let off = at(begun, 4.5).await;
    p0.mute(&audio, true);
    let on = at(begun, 7.0).await;
    p0.mute(&audio, false);
    at(begun, 10.0).await;
    let tape = Tape::open(&egress.complete().await?)?;
    tape.is_h264("Main", 1280, 720)?;
    let brightest = tape.pictures.as_ref().map_or(0.0, |all| all.all.iter().fold(0.0, |most: f64, p| most.max(p.luma)));
    ensure!(brightest < 20.0, "the picture is not black but {brightest}");
    let (off, on) = (tape.at(off), tape.at(on));
    tape.sounds("p0", Side::Both, &[(0.5, off - 0.2), (on + 1.0, tape.seconds() - 0.7)], &[(off + 1.0, on - 0.2)])
}
