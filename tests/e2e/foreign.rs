//! One room of strangers, recorded in every way: libwebrtc as p2, Chromium as p3. Their encoders run on this machine
//! while it records, so what they send is only as even as they are.

use std::time::Duration;

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use spillway_tests::analyser::sound::Side;
use spillway_tests::egress::Egress;
use spillway_tests::foreign::Foreign;

use crate::stage::{Stage, case};
use crate::tape::Tape;

pub fn cases() -> Vec<Trial> {
    vec![case("foreign::strangers_are_recorded_in_every_way", |stage| async move { strangers(&stage).await })]
}

async fn strangers(stage: &Stage) -> Result<()> {
    let room = stage.room("strangers");
    let wheel = Foreign::wheel(stage.api(), &room, "p2", "h264").await?;
    let browser = Foreign::browser(stage.api(), &room, "p3", "vp8").await?;
    let path = |name: &str| stage.file(name).to_string_lossy().into_owned();
    let outputs = |name: &str| json!([{ "filepath": path(name), "file_type": "MP4" }]);
    let asked: Vec<(&str, Value)> = vec![
        ("StartRoomCompositeEgress", json!({ "layout": "grid", "file_outputs": outputs("f_room_{time}.mp4") })),
        ("StartParticipantEgress", json!({ "identity": "p2", "file_outputs": outputs("f_p2_{time}.mp4") })),
        (
            "StartTrackCompositeEgress",
            json!({
                "video_track_id": browser.video, "audio_track_id": browser.audio, "file_outputs": outputs("f_p3_{time}.mp4"),
            }),
        ),
        ("StartTrackEgress", json!({ "track_id": wheel.video, "file": { "filepath": path("f_track_{time}.mp4") } })),
    ];
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
    let [room, participant, track_composite, track] = &tapes[..] else { unreachable!("four were asked for") };
    for (tape, who) in [(room, "p2"), (room, "p3"), (participant, "p2"), (track_composite, "p3")] {
        let whole = [(1.0, tape.seconds() - 1.0)];
        tape.shows(who, &whole, &[])?;
        tape.sounds(who, Side::Both, &whole, &[])?;
        let beeps: Vec<f64> = tape.beeps(who)?.iter().map(|beep| beep.at).collect();
        let offset = spillway_tests::analyser::sync::offset(&tape.flashes(who)?, &beeps);
        println!("{} {who} picture - sound {offset}", tape.name());
        ensure!(offset.median_ms.abs() <= 100.0, "{who} in {}: {offset}", tape.name());
    }
    track.shows("p2", &[(1.0, track.seconds() - 1.0)], &[])?;
    ensure!(track.video()?["codec_name"] == "h264", "{}", track.video()?);
    Ok(())
}
