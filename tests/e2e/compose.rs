//! `dispatcher/compose.yaml` as it is used on a machine of one's own: three lines are changed, it is started, and a track is
//! recorded into a folder. On a Docker daemon of the test's own, which reaches no registry: the images of Redis, livekit-server
//! and the dispatcher are made of this machine's programs under the names that the file has.

use std::net::{IpAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use serde_json::json;
use spillway_tests::analyser::played;
use spillway_tests::assets::{clip, runner_image};
use spillway_tests::clouds::dockerd::Dockerd;
use spillway_tests::egress::Egress;
use spillway_tests::process::eventually;
use spillway_tests::publisher::{Publisher, PublisherOptions, SourceKind};
use spillway_tests::servers::ports::free_port;
use spillway_tests::servers::{built, livekit_binary};
use spillway_tests::twirp::{Api, get};
use tempfile::TempDir;

use crate::harness::{alone, block_on, unless};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../dispatcher/compose.yaml");
const KEY: &str = "composekey";
const SECRET: &str = "compose-secret-compose-secret-compose";
const ROOM: &str = "compose";
const READY_TIMEOUT: Duration = Duration::from_secs(90);

pub fn cases() -> Vec<Trial> {
    let left_out = Dockerd::left_out()
        .or_else(|| address().is_none().then(|| "this machine has no address but its own".to_owned()));
    vec![unless(left_out, alone("compose::records_a_track", || block_on(records_a_track())))]
}

async fn records_a_track() -> Result<()> {
    let installation = Installation::start()?;
    installation.ready().await.with_context(|| installation.logged())?;
    let api = &installation.api;
    let person = Publisher::join(api, ROOM, "p0", PublisherOptions::default()).await?;
    let track = person.publish(&clip("p0-720.h264")?, SourceKind::Camera).await?;
    let request = json!({ "room_name": ROOM, "track_id": track, "file": { "filepath": "calls/track.mp4" } });
    let egress = Egress::start(api, "StartTrackEgress", request).await?;
    egress.active().await.with_context(|| installation.logged())?;
    tokio::time::sleep(Duration::from_secs(6)).await;
    egress.complete().await?;
    let seconds = played(&installation.recordings().join("calls/track.mp4"))?;
    println!("{seconds:.2} s are in the folder of recordings");
    ensure!(seconds > 4.0, "only {seconds} s were recorded");
    installation.is_healthy().await
}

/// What the file starts.
struct Installation {
    // Dropped in this order: the daemon ends its containers.
    dockerd: Dockerd,
    folder: TempDir,
    api: Api,
    environment: Vec<(&'static str, String)>,
    health: String,
}

impl Installation {
    fn start() -> Result<Self> {
        let dockerd = Dockerd::start()?;
        images(&dockerd)?;
        let folder = tempfile::Builder::new().prefix("spillway-compose-").tempdir().context("make a folder")?;
        let address = address().context("an address of this machine")?.to_string();
        let lines = [("&key ", KEY), ("&secret ", SECRET), ("&address ", address.as_str())];
        let text = std::fs::read_to_string(FILE).with_context(|| format!("read {FILE}"))?;
        let text = lines.into_iter().try_fold(text, |text, (mark, value)| changed(&text, mark, value))?;
        std::fs::write(folder.path().join("compose.yaml"), text).context("write the changed file")?;

        let ports = [free_port()?, free_port()?, free_port()?, free_port()?, free_port()?];
        let [redis, livekit, tcp, udp, health] = ports.map(|port| port.to_string());
        let health_at = format!("127.0.0.1:{health}");
        let api = Api { address: format!("127.0.0.1:{livekit}"), key: KEY.into(), secret: SECRET.into() };
        let environment = vec![
            ("DOCKER_HOST", format!("unix://{}", dockerd.socket().display())),
            ("DOCKER_SOCKET", dockerd.socket().display().to_string()),
            ("RECORDINGS", folder.path().join("recordings").display().to_string()),
            ("REDIS_PORT", redis),
            ("LIVEKIT_PORT", livekit),
            ("LIVEKIT_TCP_PORT", tcp),
            ("LIVEKIT_UDP_PORT", udp),
            ("HEALTH_PORT", health),
        ];
        let installation = Self { dockerd, folder, api, environment, health: health_at };
        let up = installation.compose(&["up", "-d"])?;
        ensure!(up.status.success(), "{}\n{}", String::from_utf8_lossy(&up.stderr), installation.logged());
        Ok(installation)
    }

    fn compose(&self, arguments: &[&str]) -> Result<Output> {
        let (program, before) = compose().context("no docker compose: `cargo verify` installs docker-compose")?;
        let mut command = Command::new(program);
        command.args(before).args(["-p", "spillway", "-f", "compose.yaml"]).args(arguments);
        command.current_dir(self.folder.path()).envs(self.environment.iter().map(|(name, value)| (*name, value)));
        command.output().context("start docker compose")
    }

    fn recordings(&self) -> PathBuf {
        self.folder.path().join("recordings")
    }

    async fn ready(&self) -> Result<()> {
        for (what, address, path) in
            [("livekit-server answers", &self.api.address, "/"), ("the dispatcher is ready", &self.health, "/readyz")]
        {
            eventually(what, READY_TIMEOUT, || async {
                Ok(get(address, path).await.is_ok_and(|(status, _)| status == 200).then_some(()))
            })
            .await?;
        }
        Ok(())
    }

    /// As Docker sees it, by the program in the container.
    async fn is_healthy(&self) -> Result<()> {
        eventually("Docker calls the dispatcher healthy", READY_TIMEOUT, || async {
            let out = self.dockerd.docker().args(["ps", "-q", "--filter", "health=healthy"]).output()?;
            Ok((!out.stdout.is_empty()).then_some(()))
        })
        .await
    }

    fn logged(&self) -> String {
        let logs = self.compose(&["logs", "--no-color"]);
        logs.map(|out| String::from_utf8_lossy(&out.stdout).into_owned()).unwrap_or_default()
    }
}

/// The file with another value in the line that has this anchor.
fn changed(text: &str, mark: &str, value: &str) -> Result<String> {
    ensure!(text.matches(mark).count() == 1, "{FILE} does not have one line with {mark}");
    let line = |line: &str| match line.split_once(mark) {
        Some((before, _)) => format!("{before}{mark}{value}\n"),
        None => format!("{line}\n"),
    };
    Ok(text.lines().map(line).collect())
}

fn images(dockerd: &Dockerd) -> Result<()> {
    dockerd.load(&runner_image()?)?;
    // Where Debian has them, as the file starts them: by their names.
    dockerd.image("redis:7.2-alpine", &["/bin/sh", "/usr/bin/chown", "/usr/bin/redis-server"], &[], "redis-server")?;
    let starts = |program: &Path| format!("#!/bin/sh\nexec '{}' \"$@\"\n", program.display());
    let text = |program: &Path| program.to_str().map(str::to_owned).context("a path of text");
    let (livekit, dispatcher) = (livekit_binary()?, built("spillway-dispatcher")?);
    for (name, program, path) in [
        ("livekit/livekit-server:v1.13.5", &livekit, "/livekit-server"),
        ("spillway-dispatcher:latest", &dispatcher, "/usr/bin/spillway-dispatcher"),
    ] {
        let (own, script) = (text(program)?, starts(program));
        dockerd.image(name, &["/bin/sh", own.as_str()], &[(path, script.as_str())], path)?;
    }
    Ok(())
}

/// Program and first arguments: Docker's plugin, or the program that Debian has beside it.
fn compose() -> Option<(&'static str, &'static [&'static str])> {
    const WAYS: [(&str, &[&str]); 2] = [("docker", &["compose"]), ("docker-compose", &[])];
    WAYS.into_iter().find(|(program, before)| {
        let out = Command::new(program).args(*before).arg("version").output();
        out.is_ok_and(|out| out.status.success())
    })
}

/// The address by which this machine would leave for another one; nothing is sent.
fn address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
}
