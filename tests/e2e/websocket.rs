//! A track's sound over a websocket: what a server gets, and what users are told.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use spillway_tests::analyser::sound::BeepSide;
use spillway_tests::assets::clip;
use spillway_tests::egress::{Egress, connected, nanos, streams_are, until};
use spillway_tests::process::eventually;
use spillway_tests::publisher::{Publisher, PublisherOptions, SourceKind};
use spillway_tests::servers::TestServers;
use spillway_tests::servers::policy_proxy::certificate;
use spillway_tests::servers::websocket_server::{WebsocketLog, WebsocketServer};
use spillway_tests::twirp::TwirpError;

use crate::harness::{E2eHarness, alone, block_on, case};
use crate::publishers::person;
use crate::recording_probe::RecordingProbe;
use crate::rtmp::{ended, nothing_is_told};

/// S16 at 48 kHz in stereo.
const BYTES_PER_SECOND: usize = 192_000;
const USER: &str = "user:canaryOfThePassword";
const PATH: &str = "audio?token=canaryOfTheToken";
const MUTED: &str = r#"{"muted":true}"#;
const UNMUTED: &str = r#"{"muted":false}"#;

pub fn cases() -> Vec<Trial> {
    vec![
        case("websocket::a_track_arrives_with_its_mutes", |harness| async move { arrives(&harness).await }),
        case("websocket::a_server_that_dies", |harness| async move { dies(&harness).await }),
        case("websocket::refused", |harness| async move { refused(&harness).await }),
        alone("websocket::no_secret_is_told_over_tls", || block_on(secrets())),
    ]
}

fn request(room: &str, track: &str, url: &str) -> Value {
    json!({ "room_name": room, "track_id": track, "websocket_url": url })
}

fn seconds(log: &WebsocketLog) -> f64 {
    log.sound.len() as f64 / BYTES_PER_SECOND as f64
}

/// Sound as it came, in a file that is listened to.
fn listened(harness: &E2eHarness, sound: &[u8], name: &str) -> Result<RecordingProbe> {
    let (raw, file) = (harness.file(&format!("{name}.raw")), harness.file(&format!("{name}.mkv")));
    let folder = file.parent().map(PathBuf::from).unwrap_or_default();
    std::fs::create_dir_all(folder).context("make a folder")?;
    std::fs::write(&raw, sound).context("keep the sound")?;
    let status = Command::new("ffmpeg")
        .args(["-v", "error", "-nostdin", "-y", "-f", "s16le", "-ar", "48000", "-ac", "2", "-i"])
        .arg(&raw)
        .args(["-c", "copy"])
        .arg(&file)
        .status()
        .context("start ffmpeg")?;
    ensure!(status.success(), "ffmpeg ended with {status}");
    let duration = (sound.len() as u64 * 1_000_000_000 / BYTES_PER_SECOND as u64).to_string();
    RecordingProbe::fetched(&json!({ "file_results": [{ "duration": duration, "started_at": "0" }] }), file)
}

async fn arrives(harness: &E2eHarness) -> Result<()> {
    let server = WebsocketServer::start(None).await?;
    let room = harness.room("websocket");
    let (p0, _, track) = person(harness, &room, "p0", "p0-360.h264").await?;
    let url = server.url_of(USER, PATH);
    let egress = Egress::start(harness.api(), "StartTrackEgress", request(&room, &track, &url)).await?;
    egress.active().await?;
    let info = connected(&egress, 1).await?;
    let shown = info["stream_results"][0]["url"].as_str().unwrap_or_default();
    ensure!(shown.starts_with("ws://{...}@127.0.0.1:") && shown.ends_with("/audio?token={...}"), "shown as {shown}");
    let refused = egress.update_streams(&[&server.url("other")], &[]).await;
    let Err(error) = refused else { bail!("it was updated") };
    let error = error.downcast::<TwirpError>().context("not an answer")?;
    ensure!(error.message.contains("non-streaming egress"), "{error}");
    tokio::time::sleep(Duration::from_secs(8)).await;

    let log = server.log();
    let [(path, headers)] = &log.requests[..] else { bail!("{:?}", log.requests) };
    ensure!(path.ends_with("/audio?token=canaryOfTheToken"), "{path}");
    ensure!(headers.get("content-type").is_some_and(|kind| kind == "audio/x-raw"), "{headers:?}");
    ensure!(headers.get("authorization").is_some_and(|basic| basic.starts_with("Basic ")), "{headers:?}");
    ensure!(log.texts.is_empty(), "{:?}", log.texts);
    let probe = listened(harness, &log.sound, "websocket")?;
    probe.sounds("p0", BeepSide::Both, &probe.whole(), &[])?;

    p0.mute(&track, true);
    let texts = |count: usize| {
        let log = server.log();
        std::future::ready(Ok((log.texts.len() >= count).then_some(log)))
    };
    let log = eventually("the mute is told", Duration::from_secs(10), || texts(1)).await?;
    let muted_at = seconds(&log);
    tokio::time::sleep(Duration::from_secs(2)).await;
    p0.mute(&track, false);
    let log = eventually("its end is told", Duration::from_secs(10), || texts(2)).await?;
    ensure!(seconds(&log) > muted_at + 1.5, "no silence while muted: {muted_at:.1} s, {:.1} s", seconds(&log));
    let texts: Vec<&str> = log.texts.iter().map(|(_, text)| text.as_str()).collect();
    ensure!(texts == [MUTED, UNMUTED], "{texts:?}");

    let info = egress.complete().await?;
    ended(&info, &["FINISHED"])?;
    let log = server.log();
    ensure!(log.closes == [None], "ended with {:?}", log.closes);
    let lasted = nanos(&info["stream_results"][0]["duration"]) as f64 / 1e9;
    ensure!((seconds(&log) - lasted).abs() < 4.1, "{:.1} s of sound, told are {lasted:.1} s", seconds(&log));
    Ok(())
}

/// Away for three seconds: dialled again, with the last two seconds of sound.
async fn dies(harness: &E2eHarness) -> Result<()> {
    let mut server = WebsocketServer::start(None).await?;
    let room = harness.room("websocket-dies");
    let (_p0, _, track) = person(harness, &room, "p0", "p0-360.h264").await?;
    let egress = Egress::start(harness.api(), "StartTrackEgress", request(&room, &track, &server.url(PATH))).await?;
    egress.active().await?;
    connected(&egress, 1).await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    server.kill();
    let before = seconds(&server.log());
    tokio::time::sleep(Duration::from_secs(3)).await;
    server.restart().await?;
    let again = || std::future::ready(Ok((server.log().requests.len() > 1).then_some(())));
    eventually("it is dialled again", Duration::from_secs(5), again).await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let after = seconds(&server.log());
    ensure!(after > before + 2.0, "{before:.1} s before, {after:.1} s now: two seconds were to be kept");
    let retries = |info: &Value| info["stream_results"][0]["retries"].as_i64().unwrap_or(0);
    let info = until(&egress, "the loss is told", 5, |info| retries(info) > 0).await?;
    ensure!(streams_are(&info, &["ACTIVE"]), "{info}");
    ended(&egress.complete().await?, &["FINISHED"])
}

/// Nothing listens, and a track of pictures.
async fn refused(harness: &E2eHarness) -> Result<()> {
    let mut server = WebsocketServer::start(None).await?;
    let room = harness.room("websocket-refused");
    let (_p0, video, audio) = person(harness, &room, "p0", "p0-360.h264").await?;
    let pictures = Egress::start(harness.api(), "StartTrackEgress", request(&room, &video, &server.url(PATH))).await?;
    let info = pictures.over(Duration::from_secs(30)).await?;
    ensure!(info["status"] == "EGRESS_FAILED" && info["error_code"] == 400, "{info}");
    ensure!(info["error"] == "format websocket incompatible with codec video/h264", "{info}");
    ensure!(server.log().requests.is_empty(), "it was dialled");
    server.kill();
    let egress = Egress::start(harness.api(), "StartTrackEgress", request(&room, &audio, &server.url(PATH))).await?;
    let info = egress.over(Duration::from_secs(30)).await?;
    ensure!(info["status"] == "EGRESS_FAILED" && info["error_code"] == 400, "{info}");
    ended(&info, &["FAILED"])?;
    let error = info["error"].as_str().unwrap_or_default();
    ensure!(error.contains("cannot connect"), "{info}");
    Ok(())
}

/// A server whose certificate only a private authority vouches for; its user, password and token are nowhere.
async fn secrets() -> Result<()> {
    let mut servers = TestServers::start("").await?;
    servers.set("SPILLWAY_LOG", "trace");
    let ca = servers.folder().join("ca.pem");
    let server = WebsocketServer::start(Some(certificate(&ca)?)).await?;
    let config = format!("runner: {{ stream_ca_file: {} }}\n", ca.display());
    let dispatcher = servers.dispatcher("dispatcher", &config).await?;
    let p0 = Publisher::join(&servers.api, "websocket-secrets", "p0", PublisherOptions::default()).await?;
    let track = p0.publish(&clip("p0.opus")?, SourceKind::Microphone).await?;
    let url = server.url_of(USER, PATH);
    let egress = Egress::start(&servers.api, "StartTrackEgress", request("websocket-secrets", &track, &url)).await?;
    egress.active().await?;
    connected(&egress, 1).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    ensure!(seconds(&server.log()) > 1.0, "{:.1} s", seconds(&server.log()));
    nothing_is_told(servers, dispatcher, &egress).await
}
