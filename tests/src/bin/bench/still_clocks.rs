//! A publisher whose RTP time stands still while it is silent, as of every bot that counts samples, for ten minutes: which
//! of its beeps are in each kind of recording, and how far from their time.

use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use serde::Serialize;
use spillway_tests::analyser::sound;
use spillway_tests::assets::{clip, person};
use spillway_tests::publisher::{Publisher, PublisherOptions, RtpInPause, SourceKind};
use spillway_tests::servers::TestServers;

use crate::recorded::{Punctuality, Recordings, beeps, seconds};

const ROOM: &str = "still-clocks";
/// Nothing is captured for so long, one after the other.
const GAPS_S: [f64; 5] = [0.25, 1.0, 3.0, 5.0, 20.0];
/// Between two of them.
const SPEAKS_S: f64 = 8.0;

/// Figures of one room.
#[derive(Debug, Serialize)]
pub struct StillClocks {
    seconds: f64,
    /// How often it was silent.
    pauses: usize,
    kinds: Vec<StillClock>,
}

/// Of one recording: who was silent, and who never was.
#[derive(Debug, Serialize)]
pub struct StillClock {
    kind: &'static str,
    silent: Punctuality,
    /// `None` where it is not recorded.
    other: Option<Punctuality>,
}

/// All kinds, for so many seconds.
pub async fn measure(length_s: f64) -> Result<StillClocks> {
    let servers = TestServers::start("").await?;
    let _dispatcher = servers.dispatcher("dispatcher", "").await?;
    let (p0, video, audio) = joined(&servers, "p0").await?;
    let _p1 = joined(&servers, "p1").await?;
    seconds(1.0).await;
    let mut recordings = Recordings::of(&servers, ROOM);
    recordings.every_kind("p0", (&video, &audio)).await?;
    recordings.active().await?;
    let begun = Instant::now();
    let mut pauses = vec![];
    for gap_s in GAPS_S.into_iter().cycle() {
        if begun.elapsed() + Duration::from_secs_f64(SPEAKS_S + gap_s) > Duration::from_secs_f64(length_s) {
            break;
        }
        seconds(SPEAKS_S).await;
        let from = SystemTime::now();
        p0.pause(&audio, RtpInPause::StandsStill);
        seconds(gap_s).await;
        p0.resume(&audio);
        pauses.push((from, SystemTime::now()));
    }
    seconds(SPEAKS_S).await;
    let files = recordings.complete().await?;
    let silences = pauses.clone();
    let looked = tokio::task::spawn_blocking(move || -> Result<Vec<StillClock>> {
        let mut kinds = vec![];
        for file in &files {
            let sound = sound::analyse(&file.path)?;
            let silent = Punctuality::of(&beeps(&sound, person("p0")), &file.marks(&silences));
            let is_room = file.kind.starts_with("room");
            let other = is_room.then(|| Punctuality::of(&beeps(&sound, person("p1")), &file.marks(&[])));
            kinds.push(StillClock { kind: file.kind, silent, other });
        }
        Ok(kinds)
    });
    let kinds = looked.await.context("listen")??;
    println!("RTP time that stood still {} times in {length_s:.0} s (0.25 to 20 s):", pauses.len());
    for StillClock { kind, silent, other } in &kinds {
        println!("  {kind:<18} {}", silent.line());
        if let Some(other) = other {
            println!("  {:<18} {} (beside it)", "", other.line());
        }
    }
    Ok(StillClocks { seconds: length_s, pauses: pauses.len(), kinds })
}

/// With camera and microphone; their sids.
async fn joined(servers: &TestServers, who: &str) -> Result<(Publisher, String, String)> {
    let publisher = Publisher::join(&servers.api, ROOM, who, PublisherOptions::default()).await?;
    let video = publisher.publish(&clip(&format!("{who}-360.h264"))?, SourceKind::Camera).await?;
    let audio = publisher.publish(&clip(&format!("{who}.opus"))?, SourceKind::Microphone).await?;
    Ok((publisher, video, audio))
}
