//! From the moment when a picture is due at its publisher to the moment when a player of the RTMP stream has it: the number
//! in the picture's bar code says when it was due, the player (ffmpeg, which keeps nothing back) when it came.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde_json::json;
use spillway_tests::analyser::{percentile, picture};
use spillway_tests::assets::{clip, person};
use spillway_tests::egress::{Egress, connected};
use spillway_tests::servers::TestServers;
use spillway_tests::servers::rtmp_server::{LIVE, LiveView, RtmpServer};

use crate::live::{mp4, people, rtmp};

const ROOM: &str = "glass";
const KEY: &str = "glass";
const PICTURES_PER_SECOND: f64 = 30.0;

/// Figures of one recording.
#[derive(Debug, Serialize)]
pub struct GlassToPlayer {
    beside: &'static str,
    /// Pictures with a number that could be read.
    pictures: usize,
    p50_ms: f64,
    p95_ms: f64,
    max_ms: f64,
    /// Pictures that the stream has not, by its times.
    missing: usize,
}

/// A composite of 720p of one camera of 720p: a stream alone, and beside an MP4.
pub async fn measure(seconds: f64) -> Result<Vec<GlassToPlayer>> {
    let server = RtmpServer::start()?;
    let servers = TestServers::start("").await?;
    let _dispatcher = servers.dispatcher("dispatcher", "").await?;
    let people = people(&servers, ROOM, 1, 720).await?;
    let begins = people[0].begins;
    let mut all = vec![];
    for (beside, files) in [("nothing", vec![]), ("an MP4", vec![mp4(servers.folder())])] {
        let url = server.url(LIVE, KEY);
        let request = json!({
            "room_name": ROOM, "layout": "speaker", "file_outputs": files, "stream_outputs": [rtmp(&[&url])],
        });
        let egress = Egress::start(&servers.api, "StartRoomCompositeEgress", request).await?;
        egress.active().await?;
        connected(&egress, 1).await?;
        let view = server.view(KEY, seconds.max(8.0) as u32).await?;
        egress.complete().await?;
        let glass = tokio::task::spawn_blocking(move || glass(beside, &view, begins)).await.context("look")??;
        println!(
            "glass to RTMP player beside {}: p50 {:.0} ms, p95 {:.0} ms, max {:.0} ms of {} pictures, {} missing",
            glass.beside, glass.p50_ms, glass.p95_ms, glass.max_ms, glass.pictures, glass.missing
        );
        all.push(glass);
    }
    Ok(all)
}

fn glass(beside: &'static str, view: &LiveView, begins: Instant) -> Result<GlassToPlayer> {
    let length = clip("p0-720.h264")?.length;
    let came: BTreeMap<i64, Instant> = view.settled().map(|picture| (picture.time_ms, picture.at)).collect();
    let pictures = picture::analyse(&view.file)?;
    let mut delays = vec![];
    for (at, reading) in pictures.of(person("p0")) {
        let Some(number) = reading.and_then(|reading| reading.number) else { continue };
        if let Some(came) = came.get(&((at * 1e3).round() as i64)) {
            delays.push(age_ms(came.duration_since(begins), number, length));
        }
    }
    ensure!(delays.len() * 2 > came.len(), "{} numbers of {} pictures were read", delays.len(), came.len());
    Ok(GlassToPlayer {
        beside,
        pictures: delays.len(),
        p50_ms: percentile(&delays, 0.5),
        p95_ms: percentile(&delays, 0.95),
        max_ms: percentile(&delays, 1.0),
        missing: view.missing(PICTURES_PER_SECOND),
    })
}

/// How old a picture of the clip is, so long after the clip's begin; less than a round of the clip.
fn age_ms(since: Duration, number: u16, length: Duration) -> f64 {
    let due_s = f64::from(number) / PICTURES_PER_SECOND;
    (since.as_secs_f64() - due_s).rem_euclid(length.as_secs_f64()) * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_age_of_a_picture_is_counted_over_the_end_of_the_clip() {
        let length = Duration::from_secs(20);
        let age = |since_ms, number| age_ms(Duration::from_millis(since_ms), number, length).round();
        assert_eq!((age(1200, 30), age(20_200, 585), age(61_000, 0)), (200.0, 700.0, 1000.0));
    }
}
