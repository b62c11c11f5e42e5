//! Rooms whose media ports are not reached directly: through TURN servers that livekit-server names, over UDP and TLS (plain
//! TCP is the same frames in the same stream).

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use serde_json::json;
use spillway_tests::analyser::sound::BeepSide;
use spillway_tests::assets::clip;
use spillway_tests::egress::Egress;
use spillway_tests::publisher::{Publisher, PublisherOptions, SourceKind};
use spillway_tests::servers::policy_proxy::certificate;
use spillway_tests::servers::signal_proxy::SignalProxy;
use spillway_tests::servers::turn_server::{TurnServer, TurnTransport};
use spillway_tests::servers::{HIDDEN, TestServers};

use crate::harness::{alone, block_on, tidy, waiting};
use crate::recording_probe::RecordingProbe;

pub fn cases() -> Vec<Trial> {
    vec![
        alone("relays::turn_over_udp", || block_on(recorded_through("udp"))),
        alone("relays::turn_over_tls", || block_on(recorded_through("tls"))),
        alone("relays::the_built_in_turn_server", || block_on(built_in())),
        waiting("relays::a_relay_that_refuses_us", || block_on(refused())),
    ]
}

/// Camera and microphone of p0, who finds the media ports.
async fn person(servers: &TestServers, room: &str) -> Result<Publisher> {
    let finds = PublisherOptions { finds: Some(HIDDEN), ..PublisherOptions::default() };
    let p0 = Publisher::join(&servers.api, room, "p0", finds).await?;
    p0.publish(&clip("p0-360.h264")?, SourceKind::Camera).await?;
    p0.publish(&clip("p0.opus")?, SourceKind::Microphone).await?;
    Ok(p0)
}

async fn recorded_through(protocol: &str) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let ca = folder.path().join("ca.pem");
    let hidden: Ipv4Addr = HIDDEN.parse()?;
    let (transport, runner) = match protocol {
        "udp" => (TurnTransport::Udp, String::new()),
        _ => (TurnTransport::Tls(certificate(&ca)?), format!("runner: {{ stream_ca_file: {} }}\n", ca.display())),
    };
    let turn = TurnServer::start(transport, hidden).await?;
    let servers = TestServers::hidden_but_for(&turn.yaml()).await?;
    let _dispatcher = servers.dispatcher("relays", &runner).await?;
    let room = format!("turn-{protocol}");
    let _p0 = person(&servers, &room).await?;
    let path = servers.folder().join("relayed.mp4");
    let request = json!({
        "room_name": room, "layout": "speaker",
        "file_outputs": [{ "filepath": path.to_string_lossy(), "file_type": "MP4" }],
    });
    let egress = Egress::start(&servers.api, "StartRoomCompositeEgress", request).await?;
    egress.active().await?;
    // Real time is what is tested here: so long it is recorded.
    tokio::time::sleep(Duration::from_secs(6)).await;
    let info = egress.complete().await?;
    ensure!(turn.packets() > 200, "{} packets came through the relay", turn.packets());
    let probe = RecordingProbe::open(&info)?;
    let all = [(0.5, probe.seconds() - 0.7)];
    probe.shows("p0", &all, &[])?;
    probe.sounds("p0", BeepSide::Both, &all, &[])?;
    probe.in_sync("p0")?;
    let (made, released) = turn.allocations();
    ensure!(made == 1, "{made} allocations for one recording");
    // A connection that is closed gives it back as well.
    ensure!(protocol != "udp" || released == 1, "the allocation is left to run out");
    tidy(&servers, None).await
}

/// livekit-server (pion) relays; that it is forced is what shows that it does: everything else is reached here too.
async fn built_in() -> Result<()> {
    let servers = TestServers::with_turn().await?;
    let proxy = SignalProxy::start(&servers.api.address).await?;
    let connections = servers.connections().replace(&servers.api.ws_url(), &proxy.url());
    let _dispatcher = servers.dispatcher_from("relays", &format!("{connections}cores: 100\n")).await?;
    let p0 = Publisher::join(&servers.api, "built-in", "p0", PublisherOptions::default()).await?;
    p0.publish(&clip("p0-360.h264")?, SourceKind::Camera).await?;
    p0.publish(&clip("p0.opus")?, SourceKind::Microphone).await?;
    let path = servers.folder().join("relayed.mp4");
    let request = json!({
        "room_name": "built-in", "layout": "speaker",
        "file_outputs": [{ "filepath": path.to_string_lossy(), "file_type": "MP4" }],
    });
    let egress = Egress::start(&servers.api, "StartRoomCompositeEgress", request).await?;
    egress.active().await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let info = egress.complete().await?;
    let log = std::fs::read_to_string(servers.folder().join("relays.log")).context("read the runner's log")?;
    ensure!(log.contains("a relay is there"), "no relay was used");
    let probe = RecordingProbe::open(&info)?;
    let all = [(0.5, probe.seconds() - 0.7)];
    probe.shows("p0", &all, &[])?;
    probe.sounds("p0", BeepSide::Both, &all, &[])?;
    tidy(&servers, None).await
}

/// Its name and what it said stand in the reason.
async fn refused() -> Result<()> {
    let servers = TestServers::hidden_but_for(
        "    - { host: 127.0.0.1, port: 9, protocol: tcp, username: nobody, credential: nothing }\n",
    )
    .await?;
    let _dispatcher = servers.dispatcher("relays", "").await?;
    servers.api.create_room("no-turn", 60).await?;
    let path = servers.folder().join("x.mp4");
    let request = json!({
        "room_name": "no-turn", "layout": "grid",
        "file_outputs": [{ "filepath": path.to_string_lossy(), "file_type": "MP4" }],
    });
    let egress = Egress::start(&servers.api, "StartRoomCompositeEgress", request).await?;
    let info = egress.over(Duration::from_secs(45)).await?;
    ensure!(info["status"] == "EGRESS_FAILED" && info["error_code"] == 503, "{info}");
    let error = info["error"].as_str().unwrap_or_default();
    ensure!(error.contains("turn tcp 127.0.0.1:9 (Connection refused"), "{info}");
    tidy(&servers, None).await
}
