//! A stream and a file of one recording whose media process gets less CPU than it needs: how late it is, and what is missing.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::json;
use spillway_tests::analyser::sync::{Marks, presence};
use spillway_tests::analyser::{duration, percentile, picture, probe, sound};
use spillway_tests::assets::person;
use spillway_tests::egress::{Egress, connected, file_of, nanos};
use spillway_tests::servers::TestServers;
use spillway_tests::servers::rtmp_server::{LIVE, RtmpServer};

use crate::kills::pids_of;
use crate::live::{HeartbeatReader, mp4, people, rtmp, stream_lag_ms};
use crate::processes;
use crate::throttle::Throttle;

const ROOM: &str = "starved";
/// Of what the media process uses when nothing holds it.
const SHARE: f64 = 0.6;
/// What it uses is measured for so long.
const CALM: Duration = Duration::from_secs(6);
const LOOK: Duration = Duration::from_millis(500);

/// Figures of one recording.
#[derive(Debug, Serialize)]
pub struct Starved {
    /// How the process was held.
    held_by: &'static str,
    /// Cores that it used before, and that it had then.
    cores_needed: f64,
    cores_given: f64,
    /// Seconds that it was held.
    seconds: f64,
    /// Between the live edge and what is encoded, by the heartbeats while it was held.
    lag_p50_ms: f64,
    lag_max_ms: f64,
    /// From the newest frame to what the stream's server has, likewise.
    stream_lag_max_ms: f64,
    /// Of the file, and what its EgressInfo says from its first to its last instant.
    file_s: f64,
    told_s: f64,
    /// Seconds of the file that have their beep, of those that should.
    beeps: usize,
    beeps_wanted: usize,
    /// Pictures a second with a new number, and the longest time without one.
    different_fps: f64,
    longest_freeze_ms: f64,
    /// What users are told.
    details: String,
}

/// A room of four 360p at 720p30 with an MP4 and an RTMP stream, held to 60 % of what it needs for so long.
pub async fn measure(seconds: f64) -> Result<Starved> {
    let server = RtmpServer::start()?;
    let servers = TestServers::start("").await?;
    let _dispatcher = servers.dispatcher("dispatcher", "").await?;
    let _people = people(&servers, ROOM, 4, 360).await?;
    let url = server.url(LIVE, ROOM);
    let request = json!({
        "room_name": ROOM, "layout": "grid",
        "file_outputs": [mp4(servers.folder())], "stream_outputs": [rtmp(&[&url])],
    });
    let egress = Egress::start(&servers.api, "StartRoomCompositeEgress", request).await?;
    egress.active().await?;
    connected(&egress, 1).await?;
    let (_, media) = pids_of(&servers, &egress.id)?;
    let media = media.as_raw_nonzero().get();
    let cores_needed = processes::cores(&[media], CALM).await;
    let throttle = Throttle::start(media, cores_needed * SHARE)?;
    let heartbeats = HeartbeatReader::of(&servers, &egress).await?;
    let (begun, before) = (Instant::now(), processes::cpu_seconds(&[media]));
    let (mut lags, mut stream_lags) = (vec![], vec![]);
    while begun.elapsed().as_secs_f64() < seconds {
        tokio::time::sleep(LOOK).await;
        let Some(beat) = heartbeats.last().await? else { continue };
        lags.push(beat.lag_ms as f64);
        stream_lags.extend(stream_lag_ms(&beat, 0).map(|lag_ms| lag_ms as f64));
    }
    let held_s = begun.elapsed().as_secs_f64();
    let cores_given = (processes::cpu_seconds(&[media]) - before) / held_s;
    let held_by = throttle.how();
    // What waits is encoded before the end, with all the CPU there is.
    drop(throttle);
    let info = egress.complete().await?;
    let file = file_of(&info)?;
    let told = &info["file_results"][0];
    let told_s = (nanos(&told["ended_at"]) - nanos(&told["started_at"])) as f64 / 1e9;
    let looked = tokio::task::spawn_blocking(move || -> Result<_> {
        Ok((duration(&probe(&file)?), picture::analyse(&file)?, sound::analyse(&file)?))
    });
    let (file_s, pictures, sound) = looked.await.context("look at the file")??;
    let beeps: Vec<f64> = sound.beeps(person("p0")).iter().map(|beep| beep.at).collect();
    let heard = presence(Marks { seen: &beeps, wanted: &[(0.5, file_s - 0.7)], forbidden: &[] });
    let identity = pictures.identity(person("p0"));
    let figures = Starved {
        held_by,
        cores_needed,
        cores_given,
        seconds: held_s,
        lag_p50_ms: percentile(&lags, 0.5),
        lag_max_ms: percentile(&lags, 1.0),
        stream_lag_max_ms: percentile(&stream_lags, 1.0),
        file_s,
        told_s,
        beeps: heard.found,
        beeps_wanted: heard.wanted,
        different_fps: identity.different_per_second,
        longest_freeze_ms: identity.longest_freeze * 1e3,
        details: info["details"].as_str().unwrap_or_default().to_owned(),
    };
    println!(
        "{:.3} of {:.3} cores for {:.0} s ({}): lag p50 {:.0} ms, max {:.0} ms (stream {:.0} ms); file {:.1} s, told {:.1} s, \
         {} of {} beeps, {:.1} different pictures a second, longest freeze {:.0} ms: {}",
        figures.cores_given,
        figures.cores_needed,
        figures.seconds,
        figures.held_by,
        figures.lag_p50_ms,
        figures.lag_max_ms,
        figures.stream_lag_max_ms,
        figures.file_s,
        figures.told_s,
        figures.beeps,
        figures.beeps_wanted,
        figures.different_fps,
        figures.longest_freeze_ms,
        figures.details,
    );
    Ok(figures)
}
