//! Streams whose connection breaks or whose key is refused: how soon a player has media again, and how soon users are told.
//! A relay stands between the runner and nginx and breaks; the player stays connected to nginx all the time.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde_json::{Value, json};
use spillway_tests::analyser::percentile;
use spillway_tests::egress::{Egress, connected, until};
use spillway_tests::process::eventually;
use spillway_tests::servers::TestServers;
use spillway_tests::servers::relay::TcpRelay;
use spillway_tests::servers::rtmp_server::{CLOSED, LIVE, RtmpServer, ViewedPicture};

use crate::live::{mp4, people, rtmp};

const ROOM: &str = "rtmp-faults";
const KEY: &str = "watched";
const TAKEN: &str = "taken";
/// Of one view: the player's start, a reset and what follows, a half-open connection and what follows.
const VIEW_S: u32 = 24;
/// From the view's begin to the reset, and from there to the half-open connection.
const CALM: Duration = Duration::from_secs(5);
/// A fault is over by then, or not at all.
const LIMIT: Duration = Duration::from_secs(9);

/// Figures of all rounds.
#[derive(Debug, Serialize)]
pub struct RtmpFaults {
    rounds: usize,
    /// From the reset to the next picture at the player, seconds.
    reset_to_media_p50_s: f64,
    reset_to_media_max_s: f64,
    /// By how much the time stamps went on more or less than the clock over the resets, at most.
    reset_time_error_max_ms: f64,
    /// From the moment when nothing passes any more to the next connection, seconds.
    half_open_found_p50_s: f64,
    half_open_found_max_s: f64,
    /// From the same moment to the next picture at the player, seconds.
    half_open_to_media_max_s: f64,
    /// Pictures at the player with a time before that of the one before them.
    backwards: usize,
    /// Keys that a server refuses.
    refused: Vec<Refusal>,
}

/// A stream that a server does not take.
#[derive(Debug, Serialize)]
pub struct Refusal {
    why: &'static str,
    /// From the UpdateStream call to FAILED in ListEgress, seconds.
    told_s: f64,
    /// What users are told.
    message: String,
}

/// The end of one fault at the player.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Resumption {
    /// From the fault to the next picture.
    after_s: f64,
    /// Time of the stream that has passed more than the clock's.
    time_error_ms: f64,
}

#[derive(Debug)]
struct Round {
    reset: Resumption,
    found_s: f64,
    half_open: Resumption,
    backwards: usize,
}

/// A composite with an MP4 and a stream through the relay, both faults in each round, and two refused keys.
pub async fn measure(rounds: usize) -> Result<RtmpFaults> {
    let server = RtmpServer::start()?;
    let relay = TcpRelay::start(server.address(), None).await?;
    let servers = TestServers::start("").await?;
    let _dispatcher = servers.dispatcher("dispatcher", "").await?;
    let _people = people(&servers, ROOM, 1, 360).await?;
    let url = relay.in_front_of(&server.url(LIVE, KEY));
    let request = json!({
        "room_name": ROOM, "layout": "speaker",
        "file_outputs": [mp4(servers.folder())], "stream_outputs": [rtmp(&[&url])],
    });
    let egress = Egress::start(&servers.api, "StartRoomCompositeEgress", request).await?;
    egress.active().await?;
    connected(&egress, 1).await?;
    let mut all = vec![];
    for _ in 0..rounds.max(1) {
        let (view, faults) = tokio::join!(server.view(KEY, VIEW_S), break_twice(&relay));
        let ((reset_at, hung_at, found_s), pictures) = (faults?, view?.pictures);
        let backwards = pictures.windows(2).filter(|pair| pair[1].time_ms < pair[0].time_ms).count();
        all.push(Round {
            reset: resumed(&pictures, reset_at, hung_at).context("no picture after a reset")?,
            found_s,
            half_open: resumed(&pictures, hung_at, hung_at + LIMIT)
                .context("no picture after a half-open connection")?,
            backwards,
        });
    }
    let refused = refusals(&server, &egress).await?;
    egress.complete().await?;
    let figures = figures(&all, refused);
    println!(
        "RTMP reset: media again after p50 {:.2} s, max {:.2} s, time stamps off by {:.0} ms at most; half open: found \
         after p50 {:.2} s, max {:.2} s, media again after {:.2} s at most; {} pictures backwards",
        figures.reset_to_media_p50_s,
        figures.reset_to_media_max_s,
        figures.reset_time_error_max_ms,
        figures.half_open_found_p50_s,
        figures.half_open_found_max_s,
        figures.half_open_to_media_max_s,
        figures.backwards,
    );
    for refusal in &figures.refused {
        println!("  {}: told after {:.2} s: {}", refusal.why, refusal.told_s, refusal.message);
    }
    Ok(figures)
}

fn figures(all: &[Round], refused: Vec<Refusal>) -> RtmpFaults {
    let of = |value: fn(&Round) -> f64| all.iter().map(value).collect::<Vec<f64>>();
    let (resets, found) = (of(|round| round.reset.after_s), of(|round| round.found_s));
    RtmpFaults {
        rounds: all.len(),
        reset_to_media_p50_s: percentile(&resets, 0.5),
        reset_to_media_max_s: percentile(&resets, 1.0),
        reset_time_error_max_ms: percentile(&of(|round| round.reset.time_error_ms.abs()), 1.0),
        half_open_found_p50_s: percentile(&found, 0.5),
        half_open_found_max_s: percentile(&found, 1.0),
        half_open_to_media_max_s: percentile(&of(|round| round.half_open.after_s), 1.0),
        backwards: all.iter().map(|round| round.backwards).sum(),
        refused,
    }
}

/// When the connection was reset, when it was left half open, and seconds from there to the next connection.
async fn break_twice(relay: &TcpRelay) -> Result<(Instant, Instant, f64)> {
    tokio::time::sleep(CALM).await;
    let reset_at = Instant::now();
    relay.reset();
    tokio::time::sleep(CALM).await;
    let connections = relay.accepted().len();
    let hung_at = Instant::now();
    relay.hang();
    let next = || std::future::ready(Ok(relay.accepted().get(connections).copied()));
    let found = eventually("a half-open connection is found", LIMIT, next).await?;
    Ok((reset_at, hung_at, found.duration_since(hung_at).as_secs_f64()))
}

/// What was on its way passes after the fault too, so the fault is the longest time without a picture that follows it.
fn resumed(pictures: &[ViewedPicture], fault: Instant, until: Instant) -> Option<Resumption> {
    let near = pictures.windows(2).filter(|pair| pair[1].at > fault && pair[0].at < until);
    let pair = near.max_by_key(|pair| pair[1].at.duration_since(pair[0].at))?;
    let passed_ms = pair[1].at.duration_since(pair[0].at).as_secs_f64() * 1e3;
    Some(Resumption {
        after_s: pair[1].at.duration_since(fault).as_secs_f64(),
        time_error_ms: (pair[1].time_ms - pair[0].time_ms) as f64 - passed_ms,
    })
}

/// Two streams that nginx refuses, added to a recording that goes on: a key that another publisher has, of which it says so,
/// and an application that takes none, where it closes the connection.
async fn refusals(server: &RtmpServer, egress: &Egress) -> Result<Vec<Refusal>> {
    let _publisher = server.occupy(TAKEN)?;
    let mut all = vec![];
    for (number, why, app) in [(1usize, "key in use", LIVE), (2, "publishing denied", CLOSED)] {
        let asked = Instant::now();
        egress.update_streams(&[&server.url(app, TAKEN)], &[]).await?;
        let has_failed = |info: &Value| info["stream_results"][number]["status"] == "FAILED";
        let info = until(egress, "a refused stream is told", 20, has_failed).await?;
        let told_s = asked.elapsed().as_secs_f64();
        ensure!(info["status"] == "EGRESS_ACTIVE", "the others were to go on: {info}");
        let message = info["stream_results"][number]["error"].as_str().unwrap_or_default().to_owned();
        all.push(Refusal { why, told_s, message });
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_on_its_way_is_not_what_comes_again() {
        let begun = Instant::now();
        let picture =
            |at_ms: u64, time_ms| ViewedPicture { at: begun + Duration::from_millis(at_ms), time_ms, key: false };
        // The reset is at 1000; one picture was on its way, the next is 210 ms later and 10 ms old.
        let pictures = [picture(970, 900), picture(1003, 933), picture(1213, 1133), picture(1246, 1166)];
        let resumption = resumed(&pictures, begun + Duration::from_secs(1), begun + LIMIT).unwrap();
        assert!((resumption.after_s - 0.213).abs() < 1e-6 && (resumption.time_error_ms + 10.0).abs() < 1e-6);
        assert_eq!(resumed(&pictures, begun + Duration::from_secs(2), begun + LIMIT), None);
    }
}
