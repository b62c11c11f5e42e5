//! Streams to an RTMP server: what a player sees, and what users are told.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use libtest_mimic::Trial;
use rustix::process::Signal;
use serde_json::{Value, json};
use spillway_tests::egress::{Egress, connected, nanos, streams_are, until};
use spillway_tests::process::eventually;
use spillway_tests::publisher::{Publisher, PublisherOptions, SourceKind};
use spillway_tests::secret_search::SecretSearch;
use spillway_tests::servers::policy_proxy::certificate;
use spillway_tests::servers::rtmp_server::{CLOSED, LIVE, RtmpServer};
use spillway_tests::servers::{DispatcherProcess, TestServers};
use spillway_tests::twirp::TwirpError;

use crate::harness::{E2eHarness, alone, block_on, case, waiting_case};
use crate::publishers::person;
use crate::recording_probe::RecordingProbe;

/// Looked for wherever it must not stand; shown as `{can...key}`.
pub const KEY: &str = "canaryOfTheStream-key";
pub const OTHER: &str = "canaryOfTheOtherStream-key";
/// What all secrets begin with.
const CANARY: &str = "canaryOfThe";

pub fn cases() -> Vec<Trial> {
    vec![
        case("rtmp::beside_a_file_and_updated", |harness| async move { beside_a_file(&harness).await }),
        case("rtmp::refused", |harness| async move { refused(&harness).await }),
        case("rtmp::the_last_one_is_removed", |harness| async move { last_removed(&harness).await }),
        case("rtmp::a_server_that_dies_and_hangs", |harness| async move { faults(&harness).await }),
        waiting_case("rtmp::servers_that_never_come_back", |harness| async move { given_up(&harness).await }),
        alone("rtmp::no_key_is_told", || block_on(secrets())),
        alone("rtmp::over_tls", || block_on(over_tls())),
    ]
}

/// The stream outputs of a request.
pub fn streams(urls: &[&str]) -> Value {
    json!([{ "protocol": "RTMP", "urls": urls }])
}

/// What is true of every stream that has ended, and of all that is told.
pub fn ended(info: &Value, wanted: &[&str]) -> Result<()> {
    ensure!(streams_are(info, wanted), "not {wanted:?}: {info}");
    for stream in info["stream_results"].as_array().into_iter().flatten() {
        let (from, to) = (nanos(&stream["started_at"]), nanos(&stream["ended_at"]));
        ensure!(from > 0 && to >= from, "without its times: {stream}");
        ensure!((stream["error"] == "") == (stream["status"] == "FINISHED"), "{stream}");
    }
    ensure!(!info.to_string().contains(CANARY), "a key is told: {info}");
    Ok(())
}

/// A stream as a player has it for some seconds.
async fn watched(server: &RtmpServer, key: &str, seconds: u32) -> Result<RecordingProbe> {
    seen(server.watch(key, seconds).await?, seconds)
}

/// What a player has kept of a stream, for so many seconds; the beginning of the stream is not known.
pub fn seen(path: PathBuf, seconds: u32) -> Result<RecordingProbe> {
    let duration = u64::from(seconds) * 1_000_000_000;
    let info = json!({ "file_results": [{ "duration": duration.to_string(), "started_at": "0" }] });
    RecordingProbe::fetched(&info, path)
}

/// H264 and AAC, whole and in sync.
pub fn is_good(probe: &RecordingProbe) -> Result<()> {
    probe.is_streamed_h264("Main", 1280, 720)?;
    probe.is_audio("aac", "44100", 2)?;
    probe.shows("p0", &probe.whole(), &[])?;
    probe.in_sync("p0")?;
    Ok(())
}

async fn beside_a_file(harness: &E2eHarness) -> Result<()> {
    let server = RtmpServer::start()?;
    let room = harness.room("rtmp-file");
    let _p0 = person(harness, &room, "p0", "p0-360.h264").await?;
    let (first, second) = (server.url(LIVE, KEY), server.url(LIVE, OTHER));
    let path = harness.file("rtmp-{time}.mp4");
    let request = json!({
        "room_name": room, "layout": "speaker", "stream_outputs": streams(&[&first]),
        "file_outputs": [{ "filepath": path.to_string_lossy(), "file_type": "MP4" }],
    });
    let egress = Egress::start(harness.api(), "StartRoomCompositeEgress", request).await?;
    egress.active().await?;
    connected(&egress, 1).await?;
    // The second one comes in the middle: it begins with a key frame of its own.
    let info = egress.update_streams(&[&second], &[]).await?;
    ensure!(streams_are(&info, &["ACTIVE", "ACTIVE"]), "{info}");
    connected(&egress, 2).await?;
    is_good(&watched(&server, OTHER, 6).await?)?;
    let info = egress.update_streams(&[], &[&first]).await?;
    ensure!(info["status"] == "EGRESS_ACTIVE" && streams_are(&info, &["FINISHED", "ACTIVE"]), "{info}");
    let unknown = server.url(LIVE, "canaryOfTheUnknown");
    let srt = "srt://127.0.0.1:1?streamid=canaryOfTheUnknown";
    for (add, remove, code) in [(None, Some(unknown.as_str()), "not_found"), (Some(srt), None, "invalid_argument")] {
        let told = egress.update_streams(add.as_slice(), remove.as_slice()).await;
        let Err(error) = told else { bail!("{code} was expected") };
        let error = error.downcast::<TwirpError>().context("not an answer")?;
        ensure!(error.code == code && !error.message.contains(CANARY), "{error}");
    }
    // Both gone: the file goes on.
    egress.update_streams(&[], &[&second]).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let info = egress.complete().await?;
    ended(&info, &["FINISHED", "FINISHED"])?;
    is_good(&RecordingProbe::open(&info)?)
}

async fn refused(harness: &E2eHarness) -> Result<()> {
    let server = RtmpServer::start()?;
    let room = harness.room("rtmp-refused");
    let _p0 = person(harness, &room, "p0", "p0-360.h264").await?;
    let _publisher = server.occupy(OTHER)?;
    for (app, key, said) in [(CLOSED, KEY, "closed the connection"), (LIVE, OTHER, "refused")] {
        let asked = Instant::now();
        let request = json!({
            "room_name": room, "layout": "speaker", "stream_outputs": streams(&[&server.url(app, key)]),
        });
        let egress = Egress::start(harness.api(), "StartRoomCompositeEgress", request).await?;
        let info = egress.over(Duration::from_secs(30)).await?;
        println!("{app}: FAILED after {:.1?}: {}", asked.elapsed(), info["error"]);
        ensure!(info["status"] == "EGRESS_FAILED" && info["error_code"] == 503, "{info}");
        ended(&info, &["FAILED"])?;
        let error = info["stream_results"][0]["error"].as_str().unwrap_or_default();
        ensure!(error.contains(said) && info["error"] == error, "not {said:?}: {info}");
    }
    Ok(())
}

async fn last_removed(harness: &E2eHarness) -> Result<()> {
    let server = RtmpServer::start()?;
    let room = harness.room("rtmp-removed");
    let _p0 = person(harness, &room, "p0", "p0-360.h264").await?;
    // One that is refused beside it fails alone.
    let (good, bad) = (server.url(LIVE, KEY), server.url(CLOSED, OTHER));
    let request = json!({ "room_name": room, "layout": "speaker", "stream_outputs": streams(&[&good, &bad]) });
    let egress = Egress::start(harness.api(), "StartRoomCompositeEgress", request).await?;
    egress.active().await?;
    let is =
        |info: &Value| streams_are(info, &["ACTIVE", "FAILED"]) && nanos(&info["stream_results"][0]["started_at"]) > 0;
    let info = until(&egress, "one is connected and one has failed", 20, is).await?;
    ensure!(info["status"] == "EGRESS_ACTIVE", "{info}");
    egress.update_streams(&[], &[&good]).await?;
    let info = egress.over(Duration::from_secs(20)).await?;
    ensure!(info["status"] == "EGRESS_COMPLETE" && info["error"] == "", "{info}");
    // A machine that is too busy leaves out pictures, and says so behind it.
    let details = info["details"].as_str().unwrap_or_default();
    ensure!(details.starts_with("End reason: All streams stopped"), "{info}");
    ended(&info, &["FINISHED", "FAILED"])
}

/// Killed and started again, then stopped and continued: the stream goes on by itself.
async fn faults(harness: &E2eHarness) -> Result<()> {
    let mut server = RtmpServer::start()?;
    let room = harness.room("rtmp-faults");
    let _p0 = person(harness, &room, "p0", "p0-360.h264").await?;
    let request =
        json!({ "room_name": room, "layout": "speaker", "stream_outputs": streams(&[&server.url(LIVE, KEY)]) });
    let egress = Egress::start(harness.api(), "StartRoomCompositeEgress", request).await?;
    egress.active().await?;
    connected(&egress, 1).await?;
    // A connection counts after two seconds.
    tokio::time::sleep(Duration::from_secs(3)).await;
    server.kill();
    let retries = |info: &Value| info["stream_results"][0]["retries"].as_i64().unwrap_or(0);
    let info = until(&egress, "the loss is told", 5, |info| retries(info) > 0).await?;
    ensure!(info["status"] == "EGRESS_ACTIVE" && streams_are(&info, &["ACTIVE"]), "{info}");
    ensure!(info["stream_results"][0]["error"] != "", "{info}");
    server.restart()?;
    let is_back = |info: &Value| streams_are(info, &["ACTIVE"]) && info["stream_results"][0]["error"] == "";
    until(&egress, "it is back", 10, is_back).await?;
    is_good(&watched(&server, KEY, 5).await?)?;

    // Updates about retries come once a minute: the server is asked.
    let published = server.published(KEY);
    server.signal(Signal::STOP)?;
    tokio::time::sleep(Duration::from_secs(7)).await;
    server.signal(Signal::CONT)?;
    let again = || std::future::ready(Ok((server.published(KEY) > published).then_some(())));
    eventually("it is published again", Duration::from_secs(15), again).await?;
    // The server may refuse it until it has seen the end of the connection before.
    tokio::time::sleep(Duration::from_secs(3)).await;
    is_good(&watched(&server, KEY, 5).await?)?;
    let info = egress.complete().await?;
    ended(&info, &["FINISHED"])
}

/// livekit/egress' RtmpSilentWedge and RtmpPublishReject: one server stops to answer, one drops a stream that it took and
/// refuses it from then on. Each egress fails with its only stream, 30 s later.
async fn given_up(harness: &E2eHarness) -> Result<()> {
    let servers = [RtmpServer::start()?, RtmpServer::start()?];
    let room = harness.room("rtmp-given-up");
    let _p0 = person(harness, &room, "p0", "p0-180.h264").await?;
    let mut egresses = vec![];
    for server in &servers {
        let request = json!({
            "room_name": room, "layout": "speaker", "stream_outputs": streams(&[&server.url(LIVE, KEY)]),
            "advanced": { "width": 320, "height": 180, "framerate": 15, "video_bitrate": 200 },
        });
        egresses.push(Egress::start(harness.api(), "StartRoomCompositeEgress", request).await?);
    }
    for egress in &egresses {
        egress.active().await?;
        connected(egress, 1).await?;
    }
    // A connection counts after two seconds.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let [wedged, mut refusing] = servers;
    wedged.signal(Signal::STOP)?;
    refusing.kill();
    refusing.restart_closed()?;
    let fault = Instant::now();
    for egress in &egresses {
        let info = egress.over(Duration::from_secs(50)).await?;
        println!("FAILED {:.1?} after the fault: {}", fault.elapsed(), info["error"]);
        ensure!(info["status"] == "EGRESS_FAILED" && info["error_code"] == 503, "{info}");
        ended(&info, &["FAILED"])?;
        ensure!(info["stream_results"][0]["error"] == info["error"], "{info}");
    }
    Ok(())
}

/// Joins a room of servers of our own.
pub async fn publisher(servers: &TestServers, room: &str) -> Result<Publisher> {
    let publisher = Publisher::join(&servers.api, room, "p0", PublisherOptions::default()).await?;
    for (name, kind) in [("p0-360.h264", SourceKind::Camera), ("p0.opus", SourceKind::Microphone)] {
        publisher.publish(&spillway_tests::assets::clip(name)?, kind).await?;
    }
    Ok(publisher)
}

/// Keys of every origin and fate are looked for wherever anybody could read, with everything logged: they are nowhere.
async fn secrets() -> Result<()> {
    let server = RtmpServer::start()?;
    let mut servers = TestServers::start("").await?;
    servers.set("SPILLWAY_LOG", "trace");
    let dispatcher = servers.dispatcher("dispatcher", "").await?;
    let _p0 = publisher(&servers, "rtmp-secrets").await?;
    let urls = [server.url(LIVE, KEY), server.url(CLOSED, OTHER)];
    let request = json!({
        "room_name": "rtmp-secrets", "layout": "speaker", "stream_outputs": streams(&[&urls[0], &urls[1]]),
    });
    let egress = Egress::start(&servers.api, "StartRoomCompositeEgress", request).await?;
    egress.active().await?;
    until(&egress, "one has failed", 20, |info| streams_are(info, &["ACTIVE", "FAILED"])).await?;
    egress.update_streams(&[&server.url(LIVE, "canaryOfTheAdded-key?token=canaryOfTheToken")], &[]).await?;
    let refused = egress.update_streams(&["http://canaryOfTheUnknown"], &["rtmp://h/a/canaryOfTheUnknown"]).await;
    ensure!(refused.is_err(), "{refused:?}");
    connected(&egress, 3).await?;
    nothing_is_told(servers, dispatcher, &egress).await
}

/// Ends an egress and its dispatcher and looks for [`CANARY`] on the way: in processes, in Redis, in the EgressInfo and in
/// every log of ours.
pub async fn nothing_is_told(servers: TestServers, dispatcher: DispatcherProcess, egress: &Egress) -> Result<()> {
    let mut search = SecretSearch::of(CANARY);
    search.processes(&servers);
    search.bytes("Redis", &servers.redis_dump()?);
    let (info, _) = egress.stop().await?;
    ensure!(info["status"] == "EGRESS_COMPLETE", "{info}");
    search.bytes("EgressInfo", info.to_string().as_bytes());
    drop(dispatcher);
    let looked = search.logs(servers.folder(), "published")?;
    ensure!(search.found().is_empty(), "a key stands in {:?}", search.found());
    ensure!(looked > 0, "no log of a stream was looked at");
    Ok(())
}

/// A server whose certificate only a private authority vouches for.
async fn over_tls() -> Result<()> {
    let server = RtmpServer::start()?;
    let servers = TestServers::start("").await?;
    let ca = servers.folder().join("ca.pem");
    let front = server.over_tls(certificate(&ca)?).await?;
    for (name, runner) in [("known", format!("stream_ca_file: {}", ca.display())), ("unknown", String::new())] {
        let dispatcher = servers.dispatcher(name, &format!("runner: {{ {runner} }}\n")).await?;
        let room = format!("rtmps-{name}");
        let _p0 = publisher(&servers, &room).await?;
        let request = json!({ "room_name": room, "layout": "speaker", "stream_outputs": streams(&[&front.url(KEY)]) });
        let egress = Egress::start(&servers.api, "StartRoomCompositeEgress", request).await?;
        if name == "unknown" {
            let info = egress.over(Duration::from_secs(30)).await?;
            ensure!(info["status"] == "EGRESS_FAILED" && info["error_code"] == 503, "{info}");
            let error = info["error"].as_str().unwrap_or_default();
            ensure!(error.contains("TLS"), "{info}");
            ended(&info, &["FAILED"])?;
        } else {
            egress.active().await?;
            connected(&egress, 1).await?;
            is_good(&watched(&server, KEY, 5).await?)?;
            ended(&egress.complete().await?, &["FINISHED"])?;
        }
        drop(dispatcher);
    }
    Ok(())
}
