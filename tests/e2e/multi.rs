//! Several outputs of one egress.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use spillway_tests::analyser::sound::BeepSide;
use spillway_tests::egress::Egress;

use crate::harness::{E2eHarness, case};
use crate::publishers::person;
use crate::recording_probe::{RecordingProbe, one_result};

pub fn cases() -> Vec<Trial> {
    vec![
        case("multi::mp4_ogg_and_mp4", |harness| async move { mp4_ogg_and_mp4(&harness).await }),
        case("multi::ogg_and_mp3", |harness| async move { ogg_and_mp3(&harness).await }),
    ]
}

/// Records p0 for some seconds into files of these types; one probe for each, in the order of the request.
async fn recorded(harness: &E2eHarness, kind: &str, types: &[&str], audio_only: bool) -> Result<Vec<RecordingProbe>> {
    let room = harness.room(kind);
    let _p0 = person(harness, &room, "p0", "p0-360.h264").await?;
    let path = |number: usize, of: &str| harness.file(&format!("{kind}-{number}-{{time}}.{}", of.to_lowercase()));
    let output = |(number, of): (usize, &&str)| json!({ "filepath": path(number, of), "file_type": of });
    let files: Vec<Value> = types.iter().enumerate().map(output).collect();
    let request = json!({ "room_name": room, "layout": "grid", "audio_only": audio_only, "file_outputs": files });
    let egress = Egress::start(harness.api(), "StartRoomCompositeEgress", request).await?;
    egress.active().await?;
    tokio::time::sleep(Duration::from_secs(8)).await;
    let info = egress.complete().await?;
    let results = info["file_results"].as_array().context("no file_results")?;
    ensure!(results.len() == types.len(), "{} files were asked for: {info}", types.len());
    results.iter().map(|result| RecordingProbe::open(&one_result(&info, result))).collect()
}

/// One sound stands at one time in all files.
fn together(probes: &[RecordingProbe]) -> Result<()> {
    let beeps =
        |probe: &RecordingProbe| anyhow::Ok(probe.beeps("p0")?.iter().map(|beep| beep.at).collect::<Vec<f64>>());
    // A beep at the beginning may be cut in one container and whole in another, whose first packet begins earlier.
    let first: Vec<f64> = beeps(&probes[0])?.into_iter().filter(|at| *at > 0.5).collect();
    ensure!(first.len() > 4, "{} beeps in {}", first.len(), probes[0].name());
    for probe in &probes[1..] {
        let others = beeps(probe)?;
        let nearest = |at: &f64| others.iter().map(|other| (other - at).abs()).fold(f64::MAX, f64::min);
        let apart = first.iter().map(nearest).fold(0.0, f64::max);
        println!("{} against {}: {:.1} ms apart", probe.name(), probes[0].name(), apart * 1000.0);
        ensure!(apart <= 0.01, "{first:.3?} in {}, {others:.3?} in {}", probes[0].name(), probe.name());
    }
    Ok(())
}

async fn mp4_ogg_and_mp4(harness: &E2eHarness) -> Result<()> {
    let probes = recorded(harness, "multi", &["MP4", "OGG", "MP4"], false).await?;
    for probe in [&probes[0], &probes[2]] {
        probe.is_h264("Main", 1280, 720)?;
        ensure!(probe.audio()?["codec_name"] == "aac", "{}", probe.audio()?);
        probe.shows("p0", &probe.whole(), &[])?;
        probe.in_sync("p0")?;
    }
    let bytes = |probe: &RecordingProbe| std::fs::read(&probe.path).context("read a file");
    ensure!(bytes(&probes[0])? == bytes(&probes[2])?, "one encoder, two files, two contents");
    probes[1].is_audio("opus", "48000", 2)?;
    ensure!(probes[1].pictures.is_none(), "a picture in an Ogg");
    probes[1].sounds("p0", BeepSide::Both, &probes[1].whole(), &[])?;
    together(&probes)
}

async fn ogg_and_mp3(harness: &E2eHarness) -> Result<()> {
    let probes = recorded(harness, "multi-audio", &["OGG", "MP3"], true).await?;
    probes[0].is_audio("opus", "48000", 2)?;
    ensure!(probes[1].audio()?["codec_name"] == "mp3", "{}", probes[1].audio()?);
    for probe in &probes {
        ensure!(probe.pictures.is_none(), "a picture in {}", probe.name());
        probe.sounds("p0", BeepSide::Both, &probe.whole(), &[])?;
    }
    Ok(())
}
