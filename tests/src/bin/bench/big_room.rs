//! Fifty people with cameras of 720p in three layers in one room, in a grid and with a speaker: CPU of the recorder, and what
//! is missing of the one whom the analyser follows.
//!
//! The fifty run in this process, the server beside it, on the machine of the recorder. They are cheap: clips that are encoded
//! already, and of the layers only those that the server wants (dynacast, as applications use it). The CPU time of each is
//! read from its own process, so theirs is in no figure of the recorder's; `idle` says whether all of them had enough: with
//! less than a tenth of the machine left the figures are those of a starved recorder.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::{Value, json};
use spillway_tests::analyser::picture;
use spillway_tests::assets::{clip, person};
use spillway_tests::egress::{Egress, file_of};
use spillway_tests::process::marked;
use spillway_tests::publisher::{Publisher, PublisherOptions, RtpInPause, SourceKind, SpeechPattern};
use spillway_tests::servers::TestServers;

use crate::live::mp4;
use crate::processes::{self, MachineTime};
use crate::recorded::seconds;

const ROOM: &str = "big-room";
const PEOPLE: usize = 50;
const LAYOUTS: [&str; 2] = ["grid", "speaker"];
/// Layers are asked for by place, and who has no place is paused after 5 s.
const SETTLES_S: f64 = 10.0;
/// All but the first speak seldom: they stay where they are.
const SELDOM: SpeechPattern = SpeechPattern {
    speaks: Duration::from_millis(240),
    every: Duration::from_secs(10),
    rtp: RtpInPause::GoesOn,
    updates: true,
    burst: false,
};

/// Figures of one layout.
#[derive(Debug, Serialize)]
pub struct BigRoom {
    layout: &'static str,
    people: usize,
    /// CPU seconds per second of runner and media process; of the publishers; of livekit-server.
    cores: f64,
    publishers_cores: f64,
    server_cores: f64,
    /// Share of the machine that nobody used.
    idle: f64,
    /// Peaks of runner and media process, added.
    peak_mb: f64,
    /// Different pictures a second of the first person, and those of the clip that never appear.
    different_fps: f64,
    missing: usize,
    longest_freeze_ms: f64,
    /// By the manifest: packets that arrived and that were lost, pictures left out, lag.
    packets: u64,
    packets_lost: u64,
    frames_skipped: u64,
    max_lag_ms: u64,
    /// What users are told.
    details: String,
}

/// Both layouts one after the other, for so many seconds each.
pub async fn measure(length_s: f64) -> Result<Vec<BigRoom>> {
    let servers = TestServers::start("").await?;
    let _dispatcher = servers.dispatcher("dispatcher", "").await?;
    let mut people = vec![];
    for index in 0..PEOPLE {
        people.push(joined(&servers, index).await.with_context(|| format!("person {index}"))?);
    }
    seconds(2.0).await;
    let mut all = vec![];
    for layout in LAYOUTS {
        let figures = one(&servers, layout, length_s).await.context(layout)?;
        println!(
            "{PEOPLE} publishers, {layout}: {:.3} cores (publishers {:.2}, server {:.2}, {:.0} % of the machine idle), {:.0} MB, \
             {:.2} pictures a second, {} missing, longest freeze {:.0} ms, {} of {} packets lost, {} pictures left out, lag {} ms: {}",
            figures.cores,
            figures.publishers_cores,
            figures.server_cores,
            figures.idle * 100.0,
            figures.peak_mb,
            figures.different_fps,
            figures.missing,
            figures.longest_freeze_ms,
            figures.packets_lost,
            figures.packets,
            figures.frames_skipped,
            figures.max_lag_ms,
            figures.details,
        );
        all.push(figures);
    }
    Ok(all)
}

/// The first has a colour of its own and speaks all the time.
async fn joined(servers: &TestServers, index: usize) -> Result<Publisher> {
    let who = if index == 0 { "p0" } else { ["p1", "p2", "p3"][index % 3] };
    let options = PublisherOptions { dynacast: true, ..PublisherOptions::default() };
    let identity = format!("person-{index:02}");
    let publisher = Publisher::join(&servers.api, ROOM, &identity, options).await?;
    let layers = [180, 360, 720].map(|height| clip(&format!("{who}-{height}.h264")));
    let layers = layers.into_iter().collect::<Result<Vec<_>>>()?;
    publisher.publish_layers(&layers, SourceKind::Camera).await?;
    let sound = clip(&format!("{who}.opus"))?;
    match index {
        0 => publisher.publish(&sound, SourceKind::Microphone).await?,
        _ => publisher.publish_speech(&sound, SELDOM).await?,
    };
    Ok(publisher)
}

async fn one(servers: &TestServers, layout: &'static str, length_s: f64) -> Result<BigRoom> {
    let request = json!({ "room_name": ROOM, "layout": layout, "file_outputs": [mp4(servers.folder())] });
    let egress = Egress::start(&servers.api, "StartRoomCompositeEgress", request).await?;
    egress.active().await?;
    seconds(SETTLES_S).await;
    let recorder = processes::of_recordings(servers);
    let own = i32::try_from(std::process::id()).context("a pid")?;
    let server = marked(servers.mark()).into_iter().find(|(_, command)| command.contains("livekit.yaml"));
    let (server, _) = server.context("livekit-server is gone")?;
    let groups: [&[i32]; 3] = [&recorder, &[own], &[server]];
    let (before, machine) = (groups.map(processes::cpu_seconds), MachineTime::now()?);
    let begun = std::time::Instant::now();
    seconds(length_s).await;
    let passed_s = begun.elapsed().as_secs_f64();
    let after = groups.map(processes::cpu_seconds);
    let idle = MachineTime::now()?.idle_since(machine);
    let [cores, publishers_cores, server_cores] =
        std::array::from_fn(|group| (after[group] - before[group]) / passed_s);
    let peak_mb = recorder.iter().filter_map(|pid| processes::peak_mb(*pid)).sum();
    let info = egress.complete().await?;
    let file = file_of(&info)?;
    let manifest = manifest(&file, &egress.id)?;
    let count = |name: &str| manifest["quality"][name].as_u64().unwrap_or_default();
    let looked = tokio::task::spawn_blocking(move || picture::analyse(&file));
    let shown = looked.await.context("look at the file")??.identity(person("p0"));
    Ok(BigRoom {
        layout,
        people: PEOPLE,
        cores,
        publishers_cores,
        server_cores,
        idle,
        peak_mb,
        different_fps: shown.different_per_second,
        missing: shown.missing,
        longest_freeze_ms: shown.longest_freeze * 1e3,
        packets: count("packets"),
        packets_lost: count("packets_lost"),
        frames_skipped: count("frames_skipped"),
        max_lag_ms: count("max_lag_ms"),
        details: info["details"].as_str().unwrap_or_default().to_owned(),
    })
}

/// What lies beside the file.
fn manifest(file: &Path, id: &str) -> Result<Value> {
    let path = file.with_file_name(format!("{id}.json"));
    let text = std::fs::read_to_string(&path).with_context(|| format!("no manifest at {}", path.display()))?;
    serde_json::from_str(&text).context("read the manifest")
}
