//! Redis, livekit-server and our dispatcher on free loopback ports, in a temporary folder. The folder with logs and
//! configurations is kept when a test panics or `SPILLWAY_KEEP` is set.

pub mod bucket;
pub mod canaries;
pub mod clock_proxy;
pub mod dns_server;
pub mod fault_proxy;
pub mod file_server;
pub mod emulators;
pub mod page_server;
pub mod policy_proxy;
pub mod ports;
pub mod proxy;
pub mod relay;
pub mod rtmp_server;
pub mod signal_proxy;
pub mod srt_server;
pub mod turn_server;
pub mod websocket_server;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use crate::assets::cache;
use crate::guard::loopback_yaml;
use crate::process::{MARK, Process, kill_marked, marked, new_mark};
use crate::twirp::{Api, get};

use ports::free_port;

/// An address of TEST-NET-1 (RFC 5737): nothing answers there.
pub const HIDDEN: &str = "192.0.2.1";

const START_TIMEOUT: Duration = Duration::from_secs(20);
const COMMAND_TIMEOUT: Duration = Duration::from_secs(180);

fn on_path(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// livekit-server: `LIVEKIT_SERVER`, else on PATH, else in the cache of the set-up.
///
/// # Errors
///
/// There is none.
pub fn livekit_binary() -> Result<PathBuf> {
    let named = std::env::var_os("LIVEKIT_SERVER").map(PathBuf::from);
    let cached = ["livekit-server", "server"].map(|name| cache().join("bin").join(name));
    let found =
        named.or_else(|| on_path("livekit-server")).or_else(|| cached.iter().find(|file| file.is_file()).cloned());
    let found = found.unwrap_or_else(|| cached[0].clone());
    if !found.is_file() {
        bail!("no livekit-server at {}: `cargo verify` installs it, or set LIVEKIT_SERVER", found.display());
    }
    Ok(found)
}

/// A program of this workspace, in the target folder of the running executable.
pub fn built(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("where am I")?;
    let found = own.ancestors().map(|folder| folder.join(name)).find(|file| file.is_file());
    found.with_context(|| format!("no {name} beside {}: build with --workspace", own.display()))
}

/// Redis and livekit-server. When dropped, they and everything started through them are killed.
pub struct TestServers {
    // Dropped in this order.
    livekit: Option<Process>,
    redis: Option<Process>,
    folder: TempDir,
    mark: String,
    /// `127.0.0.1:port`
    pub redis_address: String,
    /// API of livekit-server.
    pub api: Api,
    livekit_ports: [u16; 3],
    /// The address that livekit-server names for media.
    node_ip: &'static str,
    extra: String,
    environment: Vec<(&'static str, OsString)>,
}

impl TestServers {
    /// Starts both. `extra` is appended to the YAML of livekit-server, whose last section is `rtc`: indented lines
    /// belong to it.
    pub async fn start(extra: &str) -> Result<Self> {
        Self::start_on("127.0.0.1", extra).await
    }

    /// Starts both; no media gets through: livekit-server names [`HIDDEN`] for it and, as ICE lite, sends no checks of its
    /// own.
    pub async fn without_media() -> Result<Self> {
        Self::start_on(HIDDEN, "  use_ice_lite: true").await
    }

    /// As [`without_media`](Self::without_media), and with these TURN servers: items of a list in YAML.
    pub async fn hidden_but_for(turn_servers: &str) -> Result<Self> {
        Self::start_on(HIDDEN, &format!("  use_ice_lite: true\n  turn_servers:\n{turn_servers}")).await
    }

    /// Starts both, with the TURN server that livekit-server has built in: over UDP, and for peers on this machine.
    pub async fn with_turn() -> Result<Self> {
        let port = free_port()?;
        Self::start(&format!(
            "turn:\n  enabled: true\n  udp_port: {port}\n  bind_addresses: [\"127.0.0.1\"]\n  \
             allow_restricted_peer_cidrs: [\"127.0.0.0/8\"]\n"
        ))
        .await
    }

    async fn start_on(node_ip: &'static str, extra: &str) -> Result<Self> {
        let mark = new_mark("servers");
        let folder = tempfile::Builder::new().prefix("spillway-stage-").tempdir().context("make a folder")?;
        let livekit_ports = [free_port()?, free_port()?, free_port()?];
        let mut servers = Self {
            livekit: None,
            redis: None,
            folder,
            mark,
            redis_address: format!("127.0.0.1:{}", free_port()?),
            api: Api {
                address: format!("127.0.0.1:{}", livekit_ports[0]),
                key: "stagekey".into(),
                secret: "stage-secret-stage-secret-stage-secret".into(),
            },
            livekit_ports,
            node_ip,
            extra: extra.to_owned(),
            environment: vec![],
        };
        servers.start_redis()?;
        servers.start_livekit().await?;
        Ok(servers)
    }

    /// Sets an environment variable of dispatchers started from now on; they pass some on to their runners.
    pub fn set(&mut self, name: &'static str, value: impl Into<OsString>) {
        self.environment.push((name, value.into()));
    }

    /// The temporary folder: logs, configurations, recordings of cases.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The [mark](crate::process::MARK) of everything started here.
    pub fn mark(&self) -> &str {
        &self.mark
    }

    /// Pid and command line of living processes started here, but for Redis and livekit-server.
    pub fn left_behind(&self) -> Vec<(i32, String)> {
        let own: Vec<i32> =
            [&self.livekit, &self.redis].into_iter().flatten().map(|process| process.id() as i32).collect();
        marked(&self.mark).into_iter().filter(|(pid, _)| !own.contains(pid)).collect()
    }

    /// Pids of those [left behind](Self::left_behind) with `name` in their command line.
    pub fn pids(&self, name: &str) -> Vec<i32> {
        self.left_behind().into_iter().filter(|(_, command)| command.contains(name)).map(|(pid, _)| pid).collect()
    }

    /// Starts Redis again after [`kill_redis`](Self::kill_redis); it is empty.
    pub fn start_redis(&mut self) -> Result<()> {
        let program = on_path("redis-server").context("no redis-server on PATH")?;
        let port = self.redis_address.rsplit(':').next().unwrap_or_default().to_owned();
        let mut redis = Process::start("redis", &program, self.folder.path(), &self.mark, |command| {
            command.args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir"]);
            command.arg(self.folder.path());
        })?;
        let address = self.redis_address.clone();
        redis.wait_until(START_TIMEOUT, || std::net::TcpStream::connect(&address).is_ok())?;
        self.redis = Some(redis);
        Ok(())
    }

    /// Pid of Redis, if it runs.
    pub fn redis_pid(&self) -> Option<u32> {
        self.redis.as_ref().map(Process::id)
    }

    /// Kills Redis; its data is gone.
    pub fn kill_redis(&mut self) {
        self.redis = None;
    }

    /// All data of Redis as it saves it, uncompressed: a test searches secrets in it.
    pub fn redis_dump(&self) -> Result<Vec<u8>> {
        use std::io::{BufRead, BufReader, Write};
        let mut redis = std::net::TcpStream::connect(&self.redis_address).context("reach Redis")?;
        redis.write_all(b"CONFIG SET rdbcompression no\r\nSAVE\r\n").context("ask Redis")?;
        let mut answers = BufReader::new(redis).lines();
        for _ in 0..2 {
            let answer = answers.next().context("Redis left")?.context("hear Redis")?;
            ensure!(answer == "+OK", "Redis answered {answer}");
        }
        std::fs::read(self.folder.path().join("dump.rdb")).context("read what Redis saved")
    }

    /// Starts livekit-server again after [`kill_livekit`](Self::kill_livekit).
    pub async fn start_livekit(&mut self) -> Result<()> {
        let [port, tcp, udp] = self.livekit_ports;
        let config = format!(
            r#"port: {port}
bind_addresses: ["127.0.0.1"]
redis: {{ address: "{redis}" }}
keys: {{ {key}: {secret} }}
logging: {{ json: true, level: info }}
rtc:
  tcp_port: {tcp}
  udp_port: {udp}
  node_ip: {node_ip}
  use_external_ip: false
  enable_loopback_candidate: true
  interfaces: {{ includes: [lo] }}
{extra}
"#,
            redis = self.redis_address,
            key = self.api.key,
            secret = self.api.secret,
            node_ip = self.node_ip,
            extra = self.extra,
        );
        let path = self.folder.path().join("livekit.yaml");
        std::fs::write(&path, config).context("write livekit-server's configuration")?;
        let mut livekit = Process::start("livekit", &livekit_binary()?, self.folder.path(), &self.mark, |command| {
            command.arg("--config").arg(&path).args(["--node-ip", self.node_ip]);
        })?;
        let begun = std::time::Instant::now();
        loop {
            if let Ok((200, _)) = get(&self.api.address, "/").await {
                break;
            }
            if let Some(status) = livekit.over()? {
                bail!("livekit-server ended with {status}:\n{}", livekit.tail());
            }
            if begun.elapsed() > START_TIMEOUT {
                bail!("livekit-server is not there after {START_TIMEOUT:?}:\n{}", livekit.tail());
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        self.livekit = Some(livekit);
        Ok(())
    }

    /// Kills livekit-server; rooms and participants are gone.
    pub fn kill_livekit(&mut self) {
        self.livekit = None;
    }

    /// Starts a dispatcher of this build and waits until it is ready. `extra` is appended to its YAML. It counts on a
    /// hundred cores, so that many short recordings share this machine, and lets requests name this machine's servers.
    pub async fn dispatcher(&self, name: &str, extra: &str) -> Result<DispatcherProcess> {
        let port = free_port()?;
        self.dispatcher_with(name, &self.dispatcher_config(port, extra), port).await
    }

    /// As [`dispatcher`](Self::dispatcher), in PID and UTS namespaces of its own: it sees none of the other processes
    /// and has another host name. Disk and network are shared.
    pub async fn dispatcher_elsewhere(&self, name: &str, extra: &str) -> Result<DispatcherProcess> {
        let port = free_port()?;
        let path = self.write_config(name, &self.dispatcher_config(port, extra))?;
        let program = built("spillway-dispatcher")?;
        let process = Process::start(name, Path::new("/usr/bin/unshare"), self.folder.path(), &self.mark, |command| {
            if !rustix::process::geteuid().is_root() {
                command.arg("--map-root-user");
            }
            let named = "echo elsewhere >/proc/sys/kernel/hostname; exec \"$0\" \"$@\"";
            command.args(["--pid", "--fork", "--mount-proc", "--kill-child", "--uts", "sh", "-c", named]);
            command.arg(program).arg("--config").arg(&path);
        })?;
        self.ready(process, port).await
    }

    /// Lines of a dispatcher's YAML that connect it to these servers: `redis`, `api_key`, `api_secret`, `ws_url`.
    pub fn connections(&self) -> String {
        let Api { key, secret, .. } = &self.api;
        let (redis, ws_url) = (&self.redis_address, self.api.ws_url());
        format!("redis: {{ address: \"{redis}\" }}\napi_key: {key}\napi_secret: {secret}\nws_url: {ws_url}\n")
    }

    fn dispatcher_config(&self, port: u16, extra: &str) -> String {
        format!("{}{}health: \"127.0.0.1:{port}\"\ncores: 100\n{extra}\n", self.connections(), loopback_yaml())
    }

    async fn dispatcher_with(&self, name: &str, config: &str, health_port: u16) -> Result<DispatcherProcess> {
        let process = self.spawn_dispatcher(name, config)?;
        self.ready(process, health_port).await
    }

    async fn ready(&self, mut process: Process, health_port: u16) -> Result<DispatcherProcess> {
        let health = format!("127.0.0.1:{health_port}");
        let begun = std::time::Instant::now();
        loop {
            if let Ok((200, _)) = get(&health, "/readyz").await {
                return Ok(DispatcherProcess { process, health });
            }
            if let Some(status) = process.over()? {
                bail!("the dispatcher ended with {status}:\n{}", process.tail());
            }
            if begun.elapsed() > START_TIMEOUT {
                bail!("the dispatcher is not ready after {START_TIMEOUT:?}:\n{}", process.tail());
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    }

    /// Starts a dispatcher with exactly this YAML and a free health port appended, and waits until it is ready.
    pub async fn dispatcher_from(&self, name: &str, config: &str) -> Result<DispatcherProcess> {
        let port = free_port()?;
        self.dispatcher_with(name, &format!("{config}health: \"127.0.0.1:{port}\"\n"), port).await
    }

    /// Waits until no process is [left behind](Self::left_behind) but those with `except` in their command line; an
    /// error after `limit`.
    pub async fn nothing_runs_but(&self, except: &str, limit: Duration) -> Result<()> {
        let begun = std::time::Instant::now();
        loop {
            let left: Vec<_> =
                self.left_behind().into_iter().filter(|(_, command)| !command.contains(except)).collect();
            if left.is_empty() {
                return Ok(());
            }
            if begun.elapsed() > limit {
                bail!("left behind: {left:?}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// [`nothing_runs_but`](Self::nothing_runs_but) dispatchers.
    pub async fn nothing_runs(&self, limit: Duration) -> Result<()> {
        self.nothing_runs_but("spillway-dispatcher", limit).await
    }

    fn write_config(&self, name: &str, config: &str) -> Result<PathBuf> {
        let path = self.folder.path().join(format!("{name}.yaml"));
        std::fs::write(&path, config).context("write the dispatcher's configuration")?;
        Ok(path)
    }

    /// Runs a command of the dispatcher's program with this YAML to its end.
    pub async fn dispatcher_command(&self, name: &str, config: &str, arguments: &[&str]) -> Result<CommandRun> {
        let path = self.write_config(name, config)?;
        let mut command = tokio::process::Command::new(built("spillway-dispatcher")?);
        command.arg("--config").arg(&path).args(arguments).stdin(std::process::Stdio::null()).kill_on_drop(true);
        command.env(MARK, &self.mark).envs(self.environment.iter().cloned());
        let output =
            tokio::time::timeout(COMMAND_TIMEOUT, command.output()).await.context("the command does not end")?;
        let output = output.context("run the dispatcher's program")?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok(CommandRun { ok: output.status.success(), out: text(output.stdout), error: text(output.stderr) })
    }

    /// Starts a dispatcher and does not wait: for a configuration that cannot work.
    pub fn spawn_dispatcher(&self, name: &str, config: &str) -> Result<Process> {
        let path = self.write_config(name, config)?;
        Process::start(name, &built("spillway-dispatcher")?, self.folder.path(), &self.mark, |command| {
            command.arg("--config").arg(&path).envs(self.environment.iter().cloned());
        })
    }
}

impl Drop for TestServers {
    fn drop(&mut self) {
        kill_marked(&self.mark);
        if std::thread::panicking() || std::env::var_os("SPILLWAY_KEEP").is_some() {
            let kept = std::mem::replace(&mut self.folder, TempDir::new().expect("a folder to drop instead")).keep();
            eprintln!("logs are kept in {}", kept.display());
        }
    }
}

/// A command that has ended.
#[derive(Debug)]
pub struct CommandRun {
    /// Its exit status is 0.
    pub ok: bool,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub error: String,
}

/// A running dispatcher; killed when dropped.
pub struct DispatcherProcess {
    /// The process.
    pub process: Process,
    /// Address of its health port: `/readyz`, `/metrics`.
    pub health: String,
}
