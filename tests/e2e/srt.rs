//! Streams to an SRT listener: what a player sees, and what users are told.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use libtest_mimic::Trial;
use rustix::process::Signal;
use serde_json::{Value, json};
use spillway_tests::egress::{Egress, connected, nanos, streams_are, until};
use spillway_tests::process::eventually;
use spillway_tests::servers::TestServers;
use spillway_tests::servers::srt_server::SrtServer;
use spillway_tests::twirp::TwirpError;

use crate::harness::{E2eHarness, alone, block_on, case};
use crate::publishers::person;
use crate::recording_probe::RecordingProbe;
use crate::rtmp::{ended, is_good, nothing_is_told, publisher};

/// Looked for wherever it must not stand.
const SECRET: &str = "passphrase=canaryOfTheSrt-1&pbkeylen=16";
const STREAM: &str = "streamid=canaryOfTheStream&latency=300";

pub fn cases() -> Vec<Trial> {
    vec![
        case("srt::a_composite_plays", |harness| async move { plays(&harness).await }),
        case("srt::beside_a_file_and_updated", |harness| async move { beside_a_file(&harness).await }),
        case("srt::refused", |harness| async move { refused(&harness).await }),
        case("srt::a_listener_that_dies_and_hangs", |harness| async move { faults(&harness).await }),
        alone("srt::no_secret_is_told", || block_on(secrets())),
    ]
}

fn streams(urls: &[&str]) -> Value {
    json!([{ "protocol": "SRT", "urls": urls }])
}

/// What was received since the listener's last start, as a player has it.
async fn watched(server: &SrtServer, seconds: u32) -> Result<RecordingProbe> {
    let path = server.watch(seconds).await?;
    let duration = u64::from(seconds) * 1_000_000_000;
    let info = json!({ "file_results": [{ "duration": duration.to_string(), "started_at": "0" }] });
    RecordingProbe::fetched(&info, path)
}

async fn plays(harness: &E2eHarness) -> Result<()> {
    let server = SrtServer::start(SECRET)?;
    let room = harness.room("srt");
    let _p0 = person(harness, &room, "p0", "p0-360.h264").await?;
    let url = server.url(&format!("mode=caller&{SECRET}&{STREAM}"));
    let request = json!({ "room_name": room, "layout": "speaker", "stream_outputs": streams(&[&url]) });
    let egress = Egress::start(harness.api(), "StartRoomCompositeEgress", request).await?;
    egress.active().await?;
    let info = connected(&egress, 1).await?;
    let shown = info["stream_results"][0]["url"].as_str().unwrap_or_default();
    let expected = "?mode={...}&passphrase={...}&pbkeylen={...}&streamid={...}&latency={...}";
    ensure!(shown.ends_with(expected), "shown as {shown}");
    is_good(&watched(&server, 8).await?)?;
    let info = egress.complete().await?;
    ended(&info, &["FINISHED"])?;
    ensure!(info["file_results"].as_array().is_none_or(Vec::is_empty), "no file was asked for: {info}");
    let lasted = nanos(&info["stream_results"][0]["duration"]) as f64 / 1e9;
    ensure!(lasted > 7.0, "it lasted {lasted:.1} s: {info}");
    Ok(())
}

async fn beside_a_file(harness: &E2eHarness) -> Result<()> {
    let (server, second) = (SrtServer::start("")?, SrtServer::start("")?);
    let room = harness.room("srt-file");
    let _p0 = person(harness, &room, "p0", "p0-360.h264").await?;
    let (url, added) = (server.url(STREAM), second.url(STREAM));
    let path = harness.file("srt-{time}.mp4");
    let request = json!({
        "room_name": room, "layout": "speaker", "stream_outputs": streams(&[&url]),
        "file_outputs": [{ "filepath": path.to_string_lossy(), "file_type": "MP4" }],
    });
    let egress = Egress::start(harness.api(), "StartRoomCompositeEgress", request).await?;
    egress.active().await?;
    connected(&egress, 1).await?;
    // The second one comes in the middle: it begins with a key frame of its own.
    egress.update_streams(&[&added], &[]).await?;
    connected(&egress, 2).await?;
    is_good(&watched(&second, 5).await?)?;
    let info = egress.update_streams(&[], &[&url]).await?;
    ensure!(info["status"] == "EGRESS_ACTIVE" && streams_are(&info, &["FINISHED", "ACTIVE"]), "{info}");
    for add in ["rtmp://127.0.0.1:1/app/canaryOfTheOther", "srt://127.0.0.1:1?passphrase=canaryOf"] {
        let Err(error) = egress.update_streams(&[add], &[]).await else { bail!("{add} is taken") };
        let error = error.downcast::<TwirpError>().context("not an answer")?;
        ensure!(error.code == "invalid_argument" && !error.message.contains("canary"), "{error}");
    }
    let info = egress.complete().await?;
    ended(&info, &["FINISHED", "FINISHED"])?;
    is_good(&RecordingProbe::open(&info)?)
}

/// A wrong passphrase, none where one is needed, and a port where nothing listens.
async fn refused(harness: &E2eHarness) -> Result<()> {
    let server = SrtServer::start(SECRET)?;
    let room = harness.room("srt-refused");
    let _p0 = person(harness, &room, "p0", "p0-360.h264").await?;
    let nothing = {
        let mut gone = SrtServer::start("")?;
        gone.kill();
        gone.url(STREAM)
    };
    for (url, said) in [
        (server.url("passphrase=canaryOfTheOther"), "Incorrect passphrase"),
        (server.url(STREAM), "the server refused"),
        (nothing, "could not connect"),
    ] {
        let asked = Instant::now();
        let request = json!({ "room_name": room, "layout": "speaker", "stream_outputs": streams(&[&url]) });
        let egress = Egress::start(harness.api(), "StartRoomCompositeEgress", request).await?;
        let info = egress.over(Duration::from_secs(30)).await?;
        println!("FAILED after {:.1?}: {}", asked.elapsed(), info["error"]);
        ensure!(info["status"] == "EGRESS_FAILED" && info["error_code"] == 503, "{info}");
        ended(&info, &["FAILED"])?;
        let error = info["stream_results"][0]["error"].as_str().unwrap_or_default();
        ensure!(error.contains(said) && info["error"] == error, "not {said:?}: {info}");
    }
    Ok(())
}

/// Killed and started again, then stopped and continued: the stream goes on by itself.
async fn faults(harness: &E2eHarness) -> Result<()> {
    let mut server = SrtServer::start(SECRET)?;
    let room = harness.room("srt-faults");
    let _p0 = person(harness, &room, "p0", "p0-360.h264").await?;
    let url = server.url(&format!("{SECRET}&{STREAM}"));
    let request = json!({ "room_name": room, "layout": "speaker", "stream_outputs": streams(&[&url]) });
    let egress = Egress::start(harness.api(), "StartRoomCompositeEgress", request).await?;
    egress.active().await?;
    connected(&egress, 1).await?;
    // A connection counts after two seconds.
    tokio::time::sleep(Duration::from_secs(3)).await;
    server.kill();
    let killed = Instant::now();
    let retries = |info: &Value| info["stream_results"][0]["retries"].as_i64().unwrap_or(0);
    let info = until(&egress, "the loss is told", 6, |info| retries(info) > 0).await?;
    println!("the loss is told after {:.1?}", killed.elapsed());
    ensure!(info["status"] == "EGRESS_ACTIVE" && streams_are(&info, &["ACTIVE"]), "{info}");
    server.restart()?;
    let is_back = |info: &Value| streams_are(info, &["ACTIVE"]) && info["stream_results"][0]["error"] == "";
    until(&egress, "it is back", 12, is_back).await?;
    is_good(&watched(&server, 5).await?)?;

    // Updates about retries come once a minute: the listener is asked.
    server.signal(Signal::STOP)?;
    tokio::time::sleep(Duration::from_secs(7)).await;
    server.signal(Signal::CONT)?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = server.received();
    let again = || std::future::ready(Ok((server.received() > before + 500_000).then_some(())));
    eventually("it is received again", Duration::from_secs(20), again).await?;
    let info = egress.complete().await?;
    ended(&info, &["FINISHED"])
}

/// Secrets of every fate are looked for wherever anybody could read, with everything logged that can be: they are nowhere.
async fn secrets() -> Result<()> {
    let server = SrtServer::start(SECRET)?;
    let mut servers = TestServers::start("").await?;
    servers.set("SPILLWAY_LOG", "trace");
    // At this level GStreamer's SRT would print them.
    servers.set("GST_DEBUG", "srt*:7");
    let dispatcher = servers.dispatcher("dispatcher", "").await?;
    let _p0 = publisher(&servers, "srt-secrets").await?;
    let urls =
        [server.url(&format!("{SECRET}&{STREAM}")), server.url("passphrase=canaryOfTheOther&streamid=canaryOfTheId")];
    let request = json!({
        "room_name": "srt-secrets", "layout": "speaker", "stream_outputs": streams(&[&urls[0], &urls[1]]),
    });
    let egress = Egress::start(&servers.api, "StartRoomCompositeEgress", request).await?;
    egress.active().await?;
    until(&egress, "one has failed", 20, |info| streams_are(info, &["ACTIVE", "FAILED"])).await?;
    let refused = egress.update_streams(&["srt://h?streamid=canaryOfTheUnknown&passphrase=short"], &[]).await;
    ensure!(refused.is_err(), "{refused:?}");
    let is = |info: &Value| nanos(&info["stream_results"][0]["started_at"]) > 0;
    until(&egress, "the other one is connected", 20, is).await?;
    nothing_is_told(servers, dispatcher, &egress).await
}
