//! What a request may name: an installation that opens nothing, asked through livekit-server's own API. That what is opened
//! works is in every other case: all their stores and streams are on this machine.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use spillway_guard::forms::FORMS;
use spillway_guard::{AddressClass, class};
use spillway_tests::assets::clip;
use spillway_tests::egress::{Egress, streams_are, until};
use spillway_tests::publisher::{Publisher, PublisherOptions, SourceKind};
use spillway_tests::servers::{DispatcherProcess, TestServers};
use spillway_tests::twirp::TwirpError;
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::harness::{alone, block_on, tidy};
use crate::recording_probe::RecordingProbe;
use crate::rtmp::streams;

const ROOM: &str = "guarded";
/// Must not be told, whatever is refused.
const CANARY: &str = "canaryOfTheRequest";

pub fn cases() -> Vec<Trial> {
    vec![
        alone("guard::no_form_is_accepted", || block_on(forms())),
        alone("guard::a_name_that_leads_inside_is_not_connected_to", || block_on(names())),
    ]
}

async fn closed(servers: &TestServers) -> Result<DispatcherProcess> {
    servers.dispatcher_from("closed", &format!("{}cores: 100\n", servers.connections())).await
}

/// A file into a bucket there.
fn stored(path: &str, endpoint: &str, proxy: Option<&str>) -> Value {
    let mut upload = json!({ "access_key": "key", "secret": CANARY, "bucket": "b", "region": "us-east-1",
        "endpoint": endpoint, "force_path_style": true });
    if let Some(proxy) = proxy {
        upload["proxy"] = json!({ "url": proxy, "username": "me", "password": CANARY });
    }
    json!({ "file_outputs": [{ "filepath": path, "file_type": "MP4", "s3": upload }] })
}

fn composite(outputs: &Value) -> Value {
    let mut request = json!({ "room_name": ROOM, "layout": "grid" });
    for (key, value) in outputs.as_object().into_iter().flatten() {
        request[key] = value.clone();
    }
    request
}

/// The call itself is refused, soon and in words.
async fn refused(servers: &TestServers, outputs: &Value, what: &str) -> Result<()> {
    let error = match servers.api.egress("StartRoomCompositeEgress", composite(outputs)).await {
        Ok(info) => bail!("accepted: {info}"),
        Err(error) => error.downcast::<TwirpError>().context("not an answer")?,
    };
    ensure!(error.code == "permission_denied", "{what}: {error}");
    ensure!(error.message.contains(&format!("{what}: ")) && error.message.contains(" is refused: "), "{error}");
    ensure!(!error.message.contains(CANARY), "a secret is told: {error}");
    ensure!(error.took < Duration::from_secs(1), "answered after {:?}: {error}", error.took);
    Ok(())
}

async fn forms() -> Result<()> {
    let servers = TestServers::start("").await?;
    let _dispatcher = closed(&servers).await?;
    servers.api.create_room(ROOM, 60).await?;
    // Names of the table have no address here.
    for form in FORMS.iter().filter(|form| form.addresses.is_empty()) {
        let host = form.authority();
        let webhook = json!({ "url": format!("https://{host}/{CANARY}"), "signing_key": servers.api.key });
        let mut called = json!({ "file_outputs": [{ "filepath": "x.mp4", "file_type": "MP4" }] });
        called["webhooks"] = json!([webhook]);
        for (what, outputs) in [
            ("storage endpoint", stored("x.mp4", &format!("http://{host}:9000"), None)),
            ("storage proxy", stored("x.mp4", "", Some(&format!("http://{host}:3128")))),
            ("stream", json!({ "stream_outputs": streams(&[&format!("rtmp://{host}/app/{CANARY}")]) })),
            ("webhook", called),
        ] {
            refused(&servers, &outputs, what).await.with_context(|| format!("{} as {what}", form.host))?;
        }
    }
    for host in ["localhost", "metadata.google.internal"] {
        refused(&servers, &stored("x.mp4", &format!("http://{host}"), None), "storage endpoint").await?;
    }
    tidy(&servers, None).await
}

/// A name that this machine's resolver knows, and that leads to this machine or its network: every container and every
/// Debian has one.
async fn name_of_this_machine() -> Result<String> {
    let own = std::fs::read_to_string("/proc/sys/kernel/hostname").context("read the name of this machine")?;
    for name in [own.trim(), "ip6-localhost", "ip6-loopback"] {
        let found: Vec<IpAddr> = match tokio::net::lookup_host((name, 80)).await {
            Ok(found) => found.map(|address| address.ip()).collect(),
            Err(_) => continue,
        };
        if found.iter().any(|address| class(*address) != AddressClass::Public) {
            return Ok(name.to_owned());
        }
    }
    bail!("/etc/hosts has no name that leads to this machine")
}

/// Accepted, for a name says nothing; refused by whoever resolves it to connect.
async fn names() -> Result<()> {
    let servers = TestServers::start("").await?;
    let _dispatcher = closed(&servers).await?;
    let name = name_of_this_machine().await?;
    let leads = format!("{name} is refused: its name leads to ");
    // On all addresses, so that a connection to any of them is seen.
    let listener = match TcpListener::bind("[::]:0").await {
        Ok(listener) => listener,
        Err(_) => TcpListener::bind("0.0.0.0:0").await.context("listen")?,
    };
    let port = listener.local_addr().context("its address")?.port();
    let p0 = Publisher::join(&servers.api, ROOM, "p0", PublisherOptions::default()).await?;
    p0.publish(&clip("p0-360.h264")?, SourceKind::Camera).await?;
    p0.publish(&clip("p0.opus")?, SourceKind::Microphone).await?;

    let inside = format!("http://{name}:{port}");
    for outputs in [stored("x.mp4", &inside, None), stored("x.mp4", "", Some(&inside))] {
        let egress = Egress::start(&servers.api, "StartRoomCompositeEgress", composite(&outputs)).await?;
        let info = egress.over(Duration::from_secs(20)).await?;
        println!("{} {}", info["error_code"], info["error"]);
        let error = info["error"].as_str().unwrap_or_default();
        ensure!(info["status"] == "EGRESS_FAILED" && error.contains(&leads), "{info}");
        ensure!(!info.to_string().contains(CANARY), "a secret is told: {info}");
    }
    let webhook = json!({ "url": format!("{inside}/{CANARY}"), "signing_key": servers.api.key });
    let mut called = json!({ "file_outputs": [{ "filepath": "x.mp4", "file_type": "MP4" }] });
    called["webhooks"] = json!([webhook]);
    refused(&servers, &called, "webhook").await?;

    // The stream alone is refused: the file beside it is whole.
    let path = servers.folder().join("beside.mp4");
    let url = format!("rtmp://{name}:{port}/app/{CANARY}");
    let outputs = json!({
        "file_outputs": [{ "filepath": path.to_string_lossy(), "file_type": "MP4" }],
        "stream_outputs": streams(&[&url]),
    });
    let egress = Egress::start(&servers.api, "StartRoomCompositeEgress", composite(&outputs)).await?;
    egress.active().await?;
    let info = until(&egress, "the stream is refused", 15, |info| streams_are(info, &["FAILED"])).await?;
    let error = info["stream_results"][0]["error"].as_str().unwrap_or_default();
    ensure!(error.contains(&leads) && !info.to_string().contains(CANARY), "{info}");
    let Err(error) = egress.update_streams(&[&format!("rtmp://127.0.0.1:{port}/app/{CANARY}")], &[]).await else {
        bail!("a stream to this machine was added")
    };
    let error = error.downcast::<TwirpError>().context("not an answer")?;
    ensure!(error.code == "permission_denied" && !error.message.contains(CANARY), "{error}");
    tokio::time::sleep(Duration::from_secs(3)).await;
    let info = egress.complete().await?;
    ensure!(RecordingProbe::open(&info)?.seconds() > 2.0, "the file beside it is short: {info}");
    ensure!(timeout(Duration::from_millis(100), listener.accept()).await.is_err(), "something was connected to");
    tidy(&servers, None).await
}
