//! Strangers, recorded in every way: libwebrtc from the Python wheel as p2, Chromium as p3. Their encoders run on this
//! machine while it records, so one at a time and without a neighbour (on two cores Chromium then leaves out pictures, the
//! flashes among them), and pictures are composed small.

use std::time::{Duration, SystemTime};

use anyhow::{Result, bail, ensure};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use spillway_tests::analyser::sound::heard_seconds;
use spillway_tests::analyser::sync::{Marks, offset, presence};
use spillway_tests::egress::{Egress, complete_all, nanos};
use spillway_tests::foreign::{BrowserOptions, ForeignPublisher};

use crate::edges::without_what_was_not_said;
use crate::harness::{E2eHarness, exclusive_case};
use crate::recording_probe::RecordingProbe;

pub fn cases() -> Vec<Trial> {
    vec![
        exclusive_case("foreign::the_wheel", |harness| async move { wheel(&harness).await }),
        exclusive_case("foreign::the_browser", |harness| async move { browser(&harness).await }),
        exclusive_case("foreign::a_browser_that_pauses_and_mutes", |harness| async move { pauses(&harness).await }),
    ]
}

/// Its source of sound is not fed for three seconds, in which its RTP time stands still.
async fn wheel(harness: &E2eHarness) -> Result<()> {
    let room = harness.room("wheel");
    let stranger = ForeignPublisher::wheel(harness.api(), &room, "p2", "h264", &[(8.0, 3.0)]).await?;
    let probes = record(
        harness,
        &room,
        vec![
            ("StartRoomCompositeEgress", composed(harness, "f_room_{time}.mp4")),
            ("StartParticipantEgress", json!({ "identity": "p2", "file_outputs": mp4(harness, "f_p2_{time}.mp4") })),
            ("StartTrackEgress", json!({ "track_id": stranger.video, "file": mp4(harness, "f_track_{time}.mp4")[0] })),
            ("StartTrackEgress", json!({ "track_id": stranger.audio, "file": file(harness, "f_sound_{time}.ogg") })),
        ],
        14,
    )
    .await?;
    let [room, participant, track, sound] = &probes[..] else { unreachable!("four were asked for") };
    for probe in [room, participant, sound] {
        let beeps: Vec<f64> = probe.beeps("p2")?.iter().map(|beep| beep.at).collect();
        without_what_was_not_said(probe, "p2", &beeps)?;
        if probe.pictures.is_some() {
            shows(probe, "p2")?;
            together(probe, "p2", &probe.flashes("p2")?, &beeps)?;
        }
    }
    shows(track, "p2")?;
    ensure!(track.video()?["codec_name"] == "h264", "{}", track.video()?);
    Ok(())
}

async fn browser(harness: &E2eHarness) -> Result<()> {
    let room = harness.room("browser");
    let stranger = ForeignPublisher::browser(harness.api(), &room, "p3", &BrowserOptions::plain("vp8")).await?;
    let both = json!({
        "video_track_id": stranger.video, "audio_track_id": stranger.audio,
        "advanced": { "width": 640, "height": 360 }, "file_outputs": mp4(harness, "f_p3_{time}.mp4"),
    });
    let probes = record(
        harness,
        &room,
        vec![
            ("StartTrackCompositeEgress", both),
            ("StartTrackEgress", json!({ "track_id": stranger.video, "file": file(harness, "f_track_{time}.webm") })),
        ],
        8,
    )
    .await?;
    let [track_composite, track] = &probes[..] else { unreachable!("two were asked for") };
    shows_and_sounds(track_composite, "p3")?;
    shows(track, "p3")?;
    ensure!(track.video()?["codec_name"] == "vp8", "{}", track.video()?);
    Ok(())
}

/// Silence between the beeps is hardly sent (DTX), and nothing in a mute of ten seconds: the file lasts as long as it took,
/// also for a decoder that counts samples.
async fn pauses(harness: &E2eHarness) -> Result<()> {
    let room = harness.room("pauses");
    let options = BrowserOptions { faint: 0.0, dtx: true, mute: Some((10, 20)), ..BrowserOptions::plain("vp8") };
    let stranger = ForeignPublisher::browser(harness.api(), &room, "p3", &options).await?;
    let track = json!({ "room_name": room, "track_id": stranger.audio, "file": file(harness, "f_pauses_{time}.ogg") });
    let egress = Egress::start(harness.api(), "StartTrackEgress", track).await?;
    egress.active().await?;
    tokio::time::sleep(Duration::from_secs(26)).await;
    let stopped = SystemTime::now();
    let probe = RecordingProbe::open(&egress.complete().await?)?;
    let (heard, took) = (heard_seconds(&probe.path)?, probe.at(stopped));
    let said = nanos(&probe.info["file_results"][0]["duration"]) as f64 / 1e9;
    println!("{} lasts {heard:.3} s, said {said:.3} s, took {took:.3} s", probe.name());
    ensure!((heard - said).abs() <= 0.02, "{heard:.3} s are heard, {said:.3} s said");
    // The stop is on its way for a moment.
    ensure!((-0.02..0.5).contains(&(heard - took)), "{heard:.3} s are heard of {took:.3} s");
    let beeps: Vec<f64> = probe.beeps("p3")?.iter().map(|beep| beep.at).collect();
    let mute = beeps.windows(2).find(|pair| (9.0..13.0).contains(&(pair[1] - pair[0])));
    let Some([before, after]) = mute else { bail!("no mute of ten seconds in {beeps:.2?}") };
    // All beeps stand on the seconds of one clock, those after the mute as well.
    let off = beeps
        .iter()
        .map(|at| (at - before + 0.5).rem_euclid(1.0) - 0.5)
        .fold(0.0, |most: f64, off| most.max(off.abs()));
    ensure!(off <= 0.06, "beeps are up to {off:.3} s off: {beeps:.2?}");
    let wanted = [(0.5, *before), (*after, probe.seconds() - 0.7)];
    let presence = presence(Marks { seen: &beeps, wanted: &wanted, forbidden: &[] });
    ensure!(presence.good_but(1), "{presence} of {wanted:.1?}: {beeps:.2?}");
    Ok(())
}

fn file(harness: &E2eHarness, name: &str) -> Value {
    json!({ "filepath": harness.file(name).to_string_lossy() })
}

fn mp4(harness: &E2eHarness, name: &str) -> Value {
    json!([file(harness, name)])
}

/// A grid of 640×360 of the room, which has to be named.
pub fn composed(harness: &E2eHarness, name: &str) -> Value {
    json!({ "layout": "grid", "advanced": { "width": 640, "height": 360 }, "file_outputs": mp4(harness, name) })
}

/// For so many seconds; one probe for each request.
async fn record(
    harness: &E2eHarness,
    room: &str,
    asked: Vec<(&str, Value)>,
    seconds: u64,
) -> Result<Vec<RecordingProbe>> {
    let mut running = Vec::new();
    for (method, mut request) in asked {
        request["room_name"] = json!(room);
        running.push(Egress::start(harness.api(), method, request).await?);
    }
    for egress in &running {
        egress.active().await?;
    }
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    complete_all(&running).await?.iter().map(RecordingProbe::open).collect()
}

pub fn shows(probe: &RecordingProbe, who: &str) -> Result<()> {
    is_there(who, "flashes", probe, &probe.flashes(who)?)
}

pub fn shows_and_sounds(probe: &RecordingProbe, who: &str) -> Result<()> {
    let flashes = probe.flashes(who)?;
    let beeps: Vec<f64> = probe.beeps(who)?.iter().map(|beep| beep.at).collect();
    is_there(who, "flashes", probe, &flashes)?;
    is_there(who, "beeps", probe, &beeps)?;
    together(probe, who, &flashes, &beeps)
}

fn together(probe: &RecordingProbe, who: &str, flashes: &[f64], beeps: &[f64]) -> Result<()> {
    let offset = offset(flashes, beeps);
    println!("{} {who} picture - sound {offset}", probe.name());
    // Their own way from canvas and sound card to RTP is in it.
    ensure!(offset.median_ms.abs() <= 100.0, "{who} in {}: {offset}", probe.name());
    Ok(())
}

/// A stranger whose encoder is starved leaves a picture out by itself: one miss is free, as in livekit/egress' own matrix.
pub fn is_there(who: &str, what: &str, probe: &RecordingProbe, seen: &[f64]) -> Result<()> {
    let presence = presence(Marks { seen, wanted: &[(1.0, probe.seconds() - 1.0)], forbidden: &[] });
    println!("{} {who} {what} {presence}", probe.name());
    ensure!(presence.good_but(1), "{who} in {}: {what} {presence}, at {seen:.2?}", probe.name());
    Ok(())
}
