//! A real Redis, a folder, and dispatcher processes for the tests of the program.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::{Pid, Signal, kill_process};
use spillway_bus::{Bus, Caps, LedgerLine, OpenTask, RedisConfig, TaskKey, Tasks};
use spillway_protocol::ids::EgressId;
use tempfile::TempDir;

#[path = "../harness/livekit.rs"]
#[allow(dead_code, reason = "the other harness uses the rest")]
mod livekit;

pub use livekit::LiveKit;

const TIMEOUT: Duration = Duration::from_secs(20);

pub fn id(text: &str) -> EgressId {
    EgressId::parse(text).unwrap()
}

/// A line of the ledger as a dispatcher writes it.
pub async fn bill(tasks: &Tasks, egress: &str, room: &str, tenant: &str, target: &str, amount: f64) {
    let key = TaskKey { egress_id: id(egress), attempt: 1 };
    let open_task = OpenTask { task: &key, tenant, target, facts: "{}", caps: Caps::default(), pace: None };
    tasks.open(open_task).await.unwrap();
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
    let text = serde_json::json!({
        "egress_id": egress, "attempt": 1, "room": room, "type": "room_composite", "tenant": tenant, "target": target,
        "platform": "fargate", "region": "us-east-1", "arch": "x86_64", "capacity": "spot", "cpu_milli": 1000,
        "memory_mib": 2048, "disk_gib": 20, "from_ms": now_ms - 120_000, "to_ms": now_ms, "seconds": 120.0,
        "recorded_s": 90.0, "window": "vendor", "bytes": 1_500_000, "puts": 3.0, "amount": amount,
        "parts": { "compute": amount, "memory": 0.0, "disk": 0.0, "address": 0.0, "nat": 0.0, "requests": 0.0,
            "launches": 0.0, "total": amount, "seconds": 120.0 },
        "estimate": amount, "currency": "USD", "price_version": "2026-08-27", "outcome": "egress_complete",
    })
    .to_string();
    let line = LedgerLine { text: &text, month: "2026-11", tenant, amount };
    assert!(tasks.close(&key, line).await.unwrap());
}

/// A Redis and a folder of its own, removed with it.
pub struct Ground {
    server: Child,
    pub redis: String,
    folder: TempDir,
}

#[derive(Debug)]
pub struct Ran {
    pub ok: bool,
    pub out: String,
    pub error: String,
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn program(config: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_spillway-dispatcher"));
    command.env_clear().env("PATH", "/usr/bin:/bin").stdin(Stdio::null());
    if !config.is_empty() {
        command.env("EGRESS_CONFIG_BODY", config);
    }
    command
}

pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < TIMEOUT, "never: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

impl Ground {
    pub async fn start() -> Self {
        loop {
            let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
            let server = Command::new("redis-server")
                .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir"])
                .arg(folder.path())
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            let mut ground = Self { server, redis: format!("127.0.0.1:{port}"), folder };
            if ground.has_its_port().await {
                return ground;
            }
        }
    }

    /// Another program may have been given the port meanwhile.
    async fn has_its_port(&mut self) -> bool {
        let ours = format!("process_id:{}\r", self.server.id());
        let begun = Instant::now();
        while self.server.try_wait().unwrap().is_none() {
            assert!(begun.elapsed() < TIMEOUT, "never: redis answers");
            let asked = TcpStream::connect(&self.redis).and_then(|mut redis| {
                redis.write_all(b"INFO server\r\nQUIT\r\n")?;
                let mut answer = String::new();
                redis.read_to_string(&mut answer).map(|_| answer)
            });
            if asked.is_ok_and(|answer| answer.contains(&ours)) {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        false
    }

    pub async fn bus(&self) -> Bus {
        let config = RedisConfig { address: self.redis.clone(), ..RedisConfig::default() };
        Bus::connect(&config).await.unwrap()
    }

    pub async fn livekit(&self) -> LiveKit {
        LiveKit::open(&self.bus().await).await
    }

    /// YAML with what every dispatcher needs.
    pub fn config(&self, more: &str) -> String {
        format!(
            "redis: {{ address: \"{}\" }}\napi_key: key\napi_secret: secret-secret-secret-secret-secret\n\
             ws_url: ws://127.0.0.1:1\n{more}",
            self.redis
        )
    }

    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// A program in the place of a runner.
    pub fn script(&self, name: &str, text: &str) -> String {
        let path = self.file(name, &format!("#!/bin/sh\n{text}\n"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// Keys in Redis that match a pattern.
    pub fn keys(&self, pattern: &str) -> Vec<String> {
        let mut stream = TcpStream::connect(&self.redis).unwrap();
        write!(stream, "KEYS {pattern}\r\nQUIT\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text.lines().filter(|line| line.starts_with("spillway:")).map(str::to_owned).collect()
    }

    pub fn run(&self, config: &str, arguments: &[&str]) -> Ran {
        self.run_with(config, arguments, b"")
    }

    pub fn run_with(&self, config: &str, arguments: &[&str], input: &[u8]) -> Ran {
        let pipe = Stdio::piped;
        let mut child = program(config).args(arguments).stdin(pipe()).stdout(pipe()).stderr(pipe()).spawn().unwrap();
        // The program may exit before it has read all of its input.
        let _ = child.stdin.take().unwrap().write_all(input);
        let output = child.wait_with_output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Ran { ok: output.status.success(), out: text(output.stdout), error: text(output.stderr) }
    }

    pub async fn dispatcher(&self, config: &str) -> Running {
        let health = format!("127.0.0.1:{}", free_port());
        let path = self.folder.path().join("dispatcher.yaml");
        let mut running = Running { child: None, path: path.clone(), health };
        running.write(config);
        let child = program("").arg("--config").arg(&path).stderr(Stdio::inherit()).stdout(Stdio::null()).spawn();
        running.child = Some(child.unwrap());
        eventually("it is ready", async || running.get("/readyz").is_some_and(|text| text.contains("ready"))).await;
        running
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// A running dispatcher.
pub struct Running {
    child: Option<Child>,
    path: PathBuf,
    health: String,
}

impl Running {
    fn write(&self, config: &str) {
        std::fs::write(&self.path, format!("{config}health: \"{}\"\n", self.health)).unwrap();
    }

    fn get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(&self.health).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        Some(text)
    }

    pub async fn metric(&self, series: &str) -> Option<f64> {
        let text = self.get("/metrics")?;
        text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
    }

    /// Where its health is served.
    pub fn port(&self) -> &str {
        self.health.rsplit(':').next().unwrap()
    }

    /// Another configuration, and SIGHUP.
    pub fn reload(&self, config: &str) {
        self.write(config);
        let pid = Pid::from_raw(self.child.as_ref().unwrap().id() as i32).unwrap();
        kill_process(pid, Signal::HUP).unwrap();
    }

    pub fn is_alive(&mut self) -> bool {
        self.child.as_mut().unwrap().try_wait().unwrap().is_none()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
