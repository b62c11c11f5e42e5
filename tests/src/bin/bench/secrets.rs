//! Keys of RTMP, passphrases and stream ids of SRT, users and tokens of websockets, of streams that work, fail, are added and
//! are refused, with everything logged that can be: in how many places they can be read.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde::Serialize;
use serde_json::{Value, json};
use spillway_tests::assets::clip;
use spillway_tests::egress::{Egress, nanos, streams_are, until};
use spillway_tests::publisher::{Publisher, PublisherOptions, SourceKind};
use spillway_tests::secret_search::{SecretSearch, holds};
use spillway_tests::servers::TestServers;
use spillway_tests::servers::rtmp_server::{CLOSED, LIVE, RtmpServer};
use spillway_tests::servers::srt_server::SrtServer;
use spillway_tests::servers::websocket_server::WebsocketServer;

use crate::live::{mp4, rtmp};

const ROOM: &str = "secrets";
/// What all secrets begin with.
const CANARY: &str = "canaryOfThe";
/// Streams go on for so long: what is logged now and then is logged.
const CALM: Duration = Duration::from_secs(5);

/// Figures of three recordings.
#[derive(Debug, Serialize)]
pub struct Secrets {
    streams: usize,
    /// Command lines, environments, Redis, EgressInfos, refusals and logs.
    places: usize,
    log_mb: f64,
    /// Where a secret stands.
    found: Vec<String>,
}

/// A composite with an MP4 and RTMP, one with SRT, and a track over a websocket.
pub async fn measure() -> Result<Secrets> {
    let (rtmp_server, websocket) = (RtmpServer::start()?, WebsocketServer::start(None).await?);
    let options = format!("passphrase={CANARY}Passphrase&pbkeylen=16");
    let srt_server = SrtServer::start(&options)?;
    let mut servers = TestServers::start("").await?;
    for variable in ["SPILLWAY_LOG", "RUST_LOG"] {
        servers.set(variable, "trace");
    }
    // At this level GStreamer's SRT prints passphrases.
    servers.set("GST_DEBUG", "*:4,srt*:7");
    let dispatcher = servers.dispatcher("dispatcher", "").await?;
    let p0 = Publisher::join(&servers.api, ROOM, "p0", PublisherOptions::default()).await?;
    p0.publish(&clip("p0-360.h264")?, SourceKind::Camera).await?;
    let track = p0.publish(&clip("p0.opus")?, SourceKind::Microphone).await?;
    let mut search = SecretSearch::of(CANARY);

    let keys = [rtmp_server.url(LIVE, &format!("{CANARY}Key")), rtmp_server.url(CLOSED, &format!("{CANARY}Refused"))];
    let passphrases = [
        srt_server.url(&format!("{options}&streamid={CANARY}Id&latency=300")),
        srt_server.url(&format!("passphrase={CANARY}Wrong-one&streamid={CANARY}Other")),
    ];
    let with_user = websocket.url_of(&format!("{CANARY}User:{CANARY}Password"), &format!("a?token={CANARY}Token"));
    let composite = |outputs: Value| {
        json!({
            "room_name": ROOM, "layout": "speaker",
            "stream_outputs": [outputs], "file_outputs": [mp4(servers.folder())],
        })
    };
    let requests = [
        ("StartRoomCompositeEgress", composite(rtmp(&[&keys[0], &keys[1]]))),
        ("StartRoomCompositeEgress", composite(json!({ "protocol": "SRT", "urls": passphrases }))),
        ("StartTrackEgress", json!({ "room_name": ROOM, "track_id": track, "websocket_url": with_user })),
    ];
    let mut running = vec![];
    for (method, request) in requests {
        let egress = Egress::start(&servers.api, method, request).await?;
        egress.active().await?;
        running.push(egress);
    }
    for composite in &running[..2] {
        let is = |info: &Value| {
            streams_are(info, &["ACTIVE", "FAILED"]) && nanos(&info["stream_results"][0]["started_at"]) > 0
        };
        until(composite, "one stream is connected and one has failed", 30, is).await?;
    }
    // One more, and two that are no streams.
    let added = rtmp_server.url(LIVE, &format!("{CANARY}Added?token={CANARY}Query"));
    running[0].update_streams(&[&added], &[]).await?;
    let refused = [format!("http://{CANARY}Host/{CANARY}Path"), format!("srt://h?passphrase={CANARY}")];
    for (egress, url) in running.iter().zip(&refused) {
        let answer = egress.update_streams(&[url.as_str()], &[&format!("{url}Unknown")]).await;
        search.bytes("a refusal", format!("{answer:?}").as_bytes());
        ensure!(answer.is_err(), "a URL of no stream is taken");
    }
    tokio::time::sleep(CALM).await;

    search.processes(&servers);
    search.bytes("Redis", &servers.redis_dump()?);
    let mut streams = 0;
    for egress in &running {
        let info = egress.complete().await?;
        streams += info["stream_results"].as_array().map_or(0, Vec::len);
        search.bytes("EgressInfo", info.to_string().as_bytes());
    }
    search.bytes("Redis after the end", &servers.redis_dump()?);
    drop(dispatcher);
    let signed = search.logs(servers.folder(), "published")?;
    ensure!(signed > 0, "no log says that a stream was published");
    // The search itself is tried where a key has to stand.
    ensure!(holds(&rtmp_server.log()?, CANARY), "nginx has not logged the key it was given");
    let log_mb = log_bytes(&servers) as f64 / 1e6;
    let figures = Secrets { streams, places: search.places(), log_mb, found: search.found().to_vec() };
    println!(
        "secrets of {} streams: found in {} of {} places, among them {:.1} MB of logs: {:?}",
        figures.streams,
        figures.found.len(),
        figures.places,
        figures.log_mb,
        figures.found,
    );
    Ok(figures)
}

fn log_bytes(servers: &TestServers) -> u64 {
    std::fs::metadata(servers.folder().join("dispatcher.log")).map_or(0, |log| log.len())
}
