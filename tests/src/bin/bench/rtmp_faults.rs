//! Streams whose connection breaks or whose key is refused: how soon a player has media again, and how soon users are told.
//! A relay stands between the runner and nginx and breaks; the player stays connected to nginx all the time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde_json::{Value, json};
use spillway_tests::analyser::percentile;
use spillway_tests::egress::{Egress, connected, file_of, until};
use spillway_tests::framecrc::{PictureContent, picture_times_ms};
use spillway_tests::process::eventually;
use spillway_tests::servers::TestServers;
use spillway_tests::servers::relay::TcpRelay;
use spillway_tests::servers::rtmp_server::{CLOSED, LIVE, RtmpServer, ViewedPicture};
use tokio::sync::Notify;

use crate::live::{mp4, people, rtmp};

const ROOM: &str = "rtmp-faults";
const KEY: &str = "watched";
const TAKEN: &str = "taken";
/// Of one view: a reset and what follows, a half-open connection and what follows.
const VIEW_S: u32 = 24;
/// From the player's first picture to the reset, and from the connection after it to the half-open one.
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
    /// By how much the times of two pictures at one player, before and after faults, are further apart than in the MP4, or less,
    /// at most. The stream counts whole milliseconds.
    time_error_max_ms: f64,
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

/// What the relay did to the connection.
#[derive(Clone, Copy, Debug)]
struct Fault {
    at: Instant,
    /// The next connection came.
    reconnected: Instant,
}

#[derive(Debug)]
struct Round {
    reset: Fault,
    hung: Fault,
    pictures: Vec<ViewedPicture>,
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
        let seen = Notify::new();
        let view = server.view_with(KEY, VIEW_S, || seen.notify_one());
        let (view, [reset, hung]) = tokio::try_join!(view, break_twice(&relay, &seen))?;
        all.push(Round { reset, hung, pictures: view.pictures });
    }
    let refused = refusals(&server, &egress).await?;
    let recorded_ms = picture_times_ms(&file_of(&egress.complete().await?)?)?;
    let figures = figures(&all, &recorded_ms, refused)?;
    println!(
        "RTMP reset: media again after p50 {:.2} s, max {:.2} s; half open: found after p50 {:.2} s, max {:.2} s, media \
         again after {:.2} s at most; time stamps off by {:.0} ms at most, {} pictures backwards",
        figures.reset_to_media_p50_s,
        figures.reset_to_media_max_s,
        figures.half_open_found_p50_s,
        figures.half_open_found_max_s,
        figures.half_open_to_media_max_s,
        figures.time_error_max_ms,
        figures.backwards,
    );
    for refusal in &figures.refused {
        println!("  {}: told after {:.2} s: {}", refusal.why, refusal.told_s, refusal.message);
    }
    Ok(figures)
}

fn figures(all: &[Round], recorded_ms: &BTreeMap<PictureContent, f64>, refused: Vec<Refusal>) -> Result<RtmpFaults> {
    let (mut resets, mut found, mut half_open, mut errors_ms) = (vec![], vec![], vec![], vec![]);
    let mut backwards = 0;
    for Round { reset, hung, pictures } in all {
        resets.push(resumed_after_s(pictures, *reset).context("no picture after a reset")?);
        found.push(hung.reconnected.duration_since(hung.at).as_secs_f64());
        half_open.push(resumed_after_s(pictures, *hung).context("no picture after a half-open connection")?);
        errors_ms.push(time_error_ms(pictures, recorded_ms)?);
        backwards += pictures.windows(2).filter(|pair| pair[1].time_ms < pair[0].time_ms).count();
    }
    Ok(RtmpFaults {
        rounds: all.len(),
        reset_to_media_p50_s: percentile(&resets, 0.5),
        reset_to_media_max_s: percentile(&resets, 1.0),
        time_error_max_ms: percentile(&errors_ms, 1.0),
        half_open_found_p50_s: percentile(&found, 0.5),
        half_open_found_max_s: percentile(&found, 1.0),
        half_open_to_media_max_s: percentile(&half_open, 1.0),
        backwards,
        refused,
    })
}

/// The reset, and the connection that is left half open; from when the player has pictures.
async fn break_twice(relay: &TcpRelay, seen: &Notify) -> Result<[Fault; 2]> {
    seen.notified().await;
    tokio::time::sleep(CALM).await;
    let reset = broken(relay, TcpRelay::reset).await?;
    tokio::time::sleep(CALM).await;
    Ok([reset, broken(relay, TcpRelay::hang).await?])
}

/// Breaks the connection and waits for the next one.
async fn broken(relay: &TcpRelay, fault: fn(&TcpRelay)) -> Result<Fault> {
    let connections = relay.accepted().len();
    let at = Instant::now();
    fault(relay);
    let next = || std::future::ready(Ok(relay.accepted().get(connections).copied()));
    Ok(Fault { at, reconnected: eventually("a broken connection is found", LIMIT, next).await? })
}

/// From a fault to the first picture of the next connection, which is a key frame: what was on its way passes after the fault
/// too.
fn resumed_after_s(pictures: &[ViewedPicture], fault: Fault) -> Option<f64> {
    let again = pictures.iter().find(|picture| picture.key && picture.at > fault.reconnected)?;
    Some(again.at.duration_since(fault.at).as_secs_f64())
}

/// By how much the times of a player's pictures are not those of the same pictures in the recording, up to one difference that
/// all have. When they came does not matter: a busy machine is late, and less late at other times.
fn time_error_ms(pictures: &[ViewedPicture], recorded_ms: &BTreeMap<PictureContent, f64>) -> Result<f64> {
    let behind = |picture: &ViewedPicture| Some(picture.time_ms as f64 - recorded_ms.get(&picture.content)?);
    let behind_ms: Vec<f64> = pictures.iter().filter_map(behind).collect();
    let (known, all) = (behind_ms.len(), pictures.len());
    ensure!(known * 10 >= all * 9 && known > 0, "only {known} of {all} pictures of a player are in the MP4");
    Ok(percentile(&behind_ms, 1.0) - behind_ms.into_iter().fold(f64::INFINITY, f64::min))
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

    /// A player of 25 pictures a second. The reset is at 1000, with a picture on its way; the next connection begins with one
    /// that is 25 ms late. From 8000 on nothing comes for 4 s, and then at once what has waited for 300 ms. The times of the
    /// stream behind each fault are moved by so much.
    fn viewed(begun: Instant, moved_ms: [i64; 2]) -> Vec<ViewedPicture> {
        let picture = |n: u32, at_ms: u32, moved_ms: i64, key| ViewedPicture {
            at: begun + Duration::from_millis(at_ms.into()),
            time_ms: i64::from(n) * 40 + 500 + moved_ms,
            content: (n, 7),
            key,
        };
        let [reset_ms, hung_ms] = moved_ms;
        let mut pictures: Vec<ViewedPicture> = (0..25).map(|n| picture(n, n * 40, 0, n == 0)).collect();
        pictures.push(picture(25, 1005, 0, false));
        pictures.push(picture(30, 1225, reset_ms, true));
        pictures.extend((31..200).map(|n| picture(n, n * 40, reset_ms, n == 100)));
        pictures.extend((293..400).map(|n| picture(n, (n * 40).max(12_000), hung_ms, n == 293)));
        pictures
    }

    fn recorded_ms(numbers: std::ops::Range<u32>) -> BTreeMap<PictureContent, f64> {
        numbers.map(|n| ((n, 7), f64::from(n) * 40.0)).collect()
    }

    #[test]
    fn each_fault_ends_with_the_first_picture_of_the_next_connection() {
        let begun = Instant::now();
        let at = |ms| begun + Duration::from_millis(ms);
        let pictures = viewed(begun, [0, 0]);
        let after = |at_ms, reconnected_ms| {
            resumed_after_s(&pictures, Fault { at: at(at_ms), reconnected: at(reconnected_ms) })
        };
        // A longer time without pictures follows, and is of the second fault.
        assert!((after(1000, 1060).unwrap() - 0.225).abs() < 1e-6);
        assert!((after(7970, 11_990).unwrap() - 4.03).abs() < 1e-6);
        assert_eq!(after(18_000, 18_000), None);
    }

    #[test]
    fn times_are_compared_with_those_of_the_recording() {
        let error = |moved_ms| time_error_ms(&viewed(Instant::now(), moved_ms), &recorded_ms(0..400)).unwrap();
        // Late pictures are no error.
        assert!(error([0, 0]).abs() < 1e-6);
        assert!((error([-40, 30]) - 70.0).abs() < 1e-6);
        assert!(time_error_ms(&viewed(Instant::now(), [0, 0]), &recorded_ms(0..100)).is_err(), "others were recorded");
    }
}
