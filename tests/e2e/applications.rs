//! Browsers as applications use them: livekit-client with everything that it does by itself (simulcast or SVC, dynacast,
//! adaptive stream, DTX, RED), once for each codec, and a screen that hardly changes. Each is recorded in every way, begun
//! before and after it publishes. Their encoders run on this machine: one at a time, and pictures are composed small. What was
//! recorded is looked at when the browser is gone.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use spillway_tests::analyser::frame_sizes;
use spillway_tests::browser::watch_to_the_end;
use spillway_tests::egress::{Egress, complete_all};
use spillway_tests::foreign::{BrowserOptions, ForeignPublisher};

use crate::foreign::{composed, is_there, shows, shows_and_sounds};
use crate::harness::{E2eHarness, case, exclusive_recording};
use crate::recording_probe::RecordingProbe;

pub fn cases() -> Vec<Trial> {
    vec![
        application("applications::h264", "h264", (960, 540)),
        application("applications::vp8", "vp8", (960, 540)),
        application("applications::vp9", "vp9", (640, 360)),
        application("applications::av1", "av1", (640, 360)),
        case("applications::a_screen_at_one_picture_a_second", slow_screen),
    ]
}

fn application(name: &str, codec: &'static str, size: (u32, u32)) -> Trial {
    let record = move |harness| recorded(harness, codec, size);
    exclusive_recording(name, record, move |infos| looked_at(infos, codec, size))
}

/// The picture is copied where the container takes its codec.
fn copied(harness: &E2eHarness, name: &str, codec: &str) -> Value {
    let ending = if codec == "h264" { "mp4" } else { "webm" };
    json!({ "filepath": harness.file(&format!("a_{name}_{codec}_{{time}}.{ending}")).to_string_lossy() })
}

/// Final infos of the recordings of the room, of the participant, of both tracks and of the video track.
async fn recorded(harness: Arc<E2eHarness>, codec: &'static str, size: (u32, u32)) -> Result<Vec<Value>> {
    let (api, room) = (harness.api(), harness.room(codec));
    let options = BrowserOptions { waits: 4, ..BrowserOptions::application(codec, size) };
    let page = ForeignPublisher::browser_before_it_publishes(api, &room, "p3", &options).await?;
    let start = |method: &'static str, mut request: Value| {
        request["room_name"] = json!(room);
        Egress::start(api, method, request)
    };
    let name = format!("a_room_{codec}_{{time}}.mp4");
    let composite = start("StartRoomCompositeEgress", composed(&harness, &name)).await?;
    let file_outputs = json!([copied(&harness, "p3", codec)]);
    let participant = json!({ "identity": "p3", "file_outputs": file_outputs });
    let participant = start("StartParticipantEgress", participant).await?;
    let page = page.published(api, &room).await?;
    composite.active().await?;
    participant.active().await?;
    page.sends_its_best().await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let track = json!({ "track_id": page.video, "file": copied(&harness, "track", codec) });
    let file_outputs = json!([copied(&harness, "tc", codec)]);
    let both = json!({ "video_track_id": page.video, "audio_track_id": page.audio, "file_outputs": file_outputs });
    let track = start("StartTrackEgress", track).await?;
    let both = start("StartTrackCompositeEgress", both).await?;
    track.active().await?;
    both.active().await?;
    tokio::time::sleep(Duration::from_secs(8)).await;
    complete_all(&[composite, participant, both, track]).await
}

async fn looked_at(infos: Vec<Value>, codec: &str, size: (u32, u32)) -> Result<()> {
    let probes = infos.iter().map(RecordingProbe::open).collect::<Result<Vec<_>>>()?;
    let [composite, participant, both, track] = &probes[..] else { unreachable!("four were asked for") };
    // A page draws as often as the machine lets it.
    composite.is_h264_with_pauses("Main", 640, 360)?;
    for probe in [composite, participant, both] {
        shows_and_sounds(probe, "p3")?;
    }
    shows(track, "p3")?;
    // One that was there from the first picture on has the small ones of the beginning.
    settled_on(participant, codec, size, participant.seconds() - 5.0)?;
    for probe in [both, track] {
        settled_on(probe, codec, size, 2.0)?;
    }
    for probe in [participant, both, track] {
        ensure!(probe.video()?["codec_name"] == codec, "{}", probe.video()?);
    }
    // What we encode looks the same whoever published it.
    let copies = &probes[1..];
    let files: Vec<&Path> = copies.iter().map(|probe| probe.path.as_path()).collect();
    for (probe, playback) in copies.iter().zip(watch_to_the_end(&files).await?) {
        playback.is_fine().with_context(|| format!("{} in Chromium", probe.name()))?;
    }
    Ok(())
}

/// From a time of the file on pictures have the size of the best layer, and the container says that size.
fn settled_on(probe: &RecordingProbe, codec: &str, size: (u32, u32), from: f64) -> Result<()> {
    let sizes = frame_sizes(&probe.path)?;
    let settled = sizes.iter().rev().take_while(|(_, seen)| *seen == size).last().map_or(f64::INFINITY, |(at, _)| *at);
    println!("{}: {size:?} from {settled:.2} s on, {:?} first", probe.name(), sizes.first());
    let after = sizes.iter().filter(|(at, _)| *at >= from);
    let (best, all) = after.fold((0, 0), |(best, all), (_, seen)| (best + usize::from(*seen == size), all + 1));
    // Where a layer joins, ffmpeg shows a picture of each layer of VP9.
    ensure!(all > 0 && best * 20 >= all * 19, "{best} of {all} pictures of {} are {size:?}", probe.name());
    // ffprobe takes the size of VP9 from the first picture that it decodes.
    if from <= 2.0 && codec != "vp9" {
        let video = probe.video()?;
        let says = (video["width"].as_u64(), video["height"].as_u64());
        ensure!(says == (Some(size.0.into()), Some(size.1.into())), "{} says {says:?}", probe.name());
    }
    Ok(())
}

/// A shared screen that is drawn once a second is no fault of anything.
async fn slow_screen(harness: Arc<E2eHarness>) -> Result<()> {
    let (api, room) = (harness.api(), harness.room("slow-screen"));
    let options = BrowserOptions { fps: 1, screen: true, ..BrowserOptions::application("vp8", (640, 360)) };
    let page = ForeignPublisher::browser(api, &room, "p3", &options).await?;
    let participant = json!({
        "room_name": room, "identity": "p3", "screen_share": true,
        "file_outputs": [{ "filepath": harness.file("a_slow_{time}.webm").to_string_lossy() }],
    });
    let mut room_composite = composed(&harness, "a_slow_room_{time}.mp4");
    room_composite["room_name"] = json!(room);
    let egresses = [
        Egress::start(api, "StartRoomCompositeEgress", room_composite).await?,
        Egress::start(api, "StartParticipantEgress", participant).await?,
    ];
    for egress in &egresses {
        egress.active().await?;
    }
    tokio::time::sleep(Duration::from_secs(12)).await;
    let infos = complete_all(&egresses).await?;
    drop(page);
    let probes = infos.iter().map(RecordingProbe::open).collect::<Result<Vec<_>>>()?;
    for probe in &probes {
        let identity = probe.pictures.as_ref().context("no picture")?.identity(spillway_tests::assets::person("p3"));
        println!("{} {identity:?}", probe.name());
        ensure!(identity.backwards == 0 && identity.different >= 8, "{}: {identity:?}", probe.name());
        // One of them may have come late.
        ensure!(identity.longest_freeze < 2.6, "{}: {identity:?}", probe.name());
        let details = probe.info["details"].as_str().unwrap_or_default();
        ensure!(!details.contains("missing") && !details.contains("stood still"), "{}: {details}", probe.name());
    }
    // A participant's screen is recorded without the microphone.
    let beeps: Vec<f64> = probes[0].beeps("p3")?.iter().map(|beep| beep.at).collect();
    is_there("p3", "beeps", &probes[0], &beeps)
}
