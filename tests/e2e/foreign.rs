//! Strangers, recorded in every way: libwebrtc from the Python wheel as p2, Chromium as p3. Their encoders run on this
//! machine while it records, so one at a time, and pictures are composed small.

use std::time::Duration;

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use spillway_tests::analyser::sync::{Marks, offset, presence};
use spillway_tests::egress::Egress;
use spillway_tests::foreign::Foreign;

use crate::stage::{Stage, case};
use crate::tape::Tape;

pub fn cases() -> Vec<Trial> {
    vec![
        case("foreign::the_wheel", |stage| async move { wheel(&stage).await }),
        case("foreign::the_browser", |stage| async move { browser(&stage).await }),
    ]
}

async fn wheel(stage: &Stage) -> Result<()> {
    let room = stage.room("wheel");
    let stranger = Foreign::wheel(stage.api(), &room, "p2", "h264").await?;
    let tapes = record(
        stage,
        &room,
        vec![
            ("StartRoomCompositeEgress", composed(stage, "f_room_{time}.mp4")),
            ("StartParticipantEgress", json!({ "identity": "p2", "file_outputs": mp4(stage, "f_p2_{time}.mp4") })),
            ("StartTrackEgress", json!({ "track_id": stranger.video, "file": mp4(stage, "f_track_{time}.mp4")[0] })),
        ],
    )
    .await?;
    let [room, participant, track] = &tapes[..] else { unreachable!("three were asked for") };
    shows_and_sounds(room, "p2")?;
    shows_and_sounds(participant, "p2")?;
    is_there("p2", "flashes", track, &track.flashes("p2")?)?;
    ensure!(track.video()?["codec_name"] == "h264", "{}", track.video()?);
    Ok(())
}

async fn browser(stage: &Stage) -> Result<()> {
    let room = stage.room("browser");
    let stranger = Foreign::browser(stage.api(), &room, "p3", "vp8").await?;
    let both = json!({
        "video_track_id": stranger.video, "audio_track_id": stranger.audio,
        "advanced": { "width": 640, "height": 360 }, "file_outputs": mp4(stage, "f_p3_{time}.mp4"),
    });
    let tapes = record(
        stage,
        &room,
        vec![
            ("StartTrackCompositeEgress", both),
            ("StartTrackEgress", json!({ "track_id": stranger.video, "file": file(stage, "f_track_{time}.webm") })),
        ],
    )
    .await?;
    let [track_composite, track] = &tapes[..] else { unreachable!("two were asked for") };
    shows_and_sounds(track_composite, "p3")?;
    is_there("p3", "flashes", track, &track.flashes("p3")?)?;
    ensure!(track.video()?["codec_name"] == "vp8", "{}", track.video()?);
    Ok(())
}

fn file(stage: &Stage, name: &str) -> Value {
    json!({ "filepath": stage.file(name).to_string_lossy() })
}

fn mp4(stage: &Stage, name: &str) -> Value {
    json!([file(stage, name)])
}

fn composed(stage: &Stage, name: &str) -> Value {
    json!({ "layout": "grid", "advanced": { "width": 640, "height": 360 }, "file_outputs": mp4(stage, name) })
}

async fn record(stage: &Stage, room: &str, asked: Vec<(&str, Value)>) -> Result<Vec<Tape>> {
    let mut running = Vec::new();
    for (method, mut request) in asked {
        request["room_name"] = json!(room);
        running.push(Egress::start(stage.api(), method, request).await?);
    }
    for egress in &running {
        egress.active().await?;
    }
    tokio::time::sleep(Duration::from_secs(8)).await;
    let mut tapes = Vec::new();
    for egress in &running {
        tapes.push(Tape::open(&egress.complete().await?)?);
    }
    Ok(tapes)
}

fn shows_and_sounds(tape: &Tape, who: &str) -> Result<()> {
    let flashes = tape.flashes(who)?;
    let beeps: Vec<f64> = tape.beeps(who)?.iter().map(|beep| beep.at).collect();
    is_there(who, "flashes", tape, &flashes)?;
    is_there(who, "beeps", tape, &beeps)?;
    let offset = offset(&flashes, &beeps);
    println!("{} {who} picture - sound {offset}", tape.name());
    // Their own way from canvas and sound card to RTP is in it.
    ensure!(offset.median_ms.abs() <= 100.0, "{who} in {}: {offset}", tape.name());
    Ok(())
}

/// A stranger whose encoder is starved leaves a picture out by itself: one miss is free, as in livekit/egress' own matrix.
fn is_there(who: &str, what: &str, tape: &Tape, seen: &[f64]) -> Result<()> {
    let presence = presence(Marks { seen, wanted: &[(1.0, tape.seconds() - 1.0)], forbidden: &[] });
    println!("{} {who} {what} {presence}", tape.name());
    ensure!(presence.good_but(1), "{who} in {}: {what} {presence}, at {seen:.2?}", tape.name());
    Ok(())
}
