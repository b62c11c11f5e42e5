//! What a bus stands on in a test: a broker in memory, or a redis-server of the test's own.

use std::future::Future;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use spillway_bus::{Bus, MemoryBroker, RedisConfig};
use spillway_process::Clock;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

pub trait Fixture {
    /// Another bus on the same broker or server.
    fn bus(&self) -> impl Future<Output = Bus>;

    /// As [`Fixture::bus`], of a host with this clock.
    fn bus_on(&self, clock: Clock) -> impl Future<Output = Bus>;
}

pub struct MemoryFixture(MemoryBroker);

impl MemoryFixture {
    pub fn start() -> Self {
        Self(MemoryBroker::new())
    }
}

impl Fixture for MemoryFixture {
    async fn bus(&self) -> Bus {
        self.0.bus()
    }

    async fn bus_on(&self, clock: Clock) -> Bus {
        self.0.bus_on(clock)
    }
}

pub struct RedisFixture(pub RedisServer);

impl RedisFixture {
    pub async fn start() -> Self {
        Self(RedisServer::start(&[]).await)
    }
}

impl Fixture for RedisFixture {
    async fn bus(&self) -> Bus {
        Bus::connect(&self.0.config()).await.unwrap()
    }

    async fn bus_on(&self, clock: Clock) -> Bus {
        Bus::connect_with(&self.0.config(), clock).await.unwrap()
    }
}

/// A redis-server on a free loopback port. It is killed when this is dropped.
pub struct RedisServer {
    pub port: u16,
    pub home: TempDir,
    args: Vec<String>,
    child: Option<Child>,
}

impl RedisServer {
    /// Returns when it answers.
    pub async fn start(args: &[&str]) -> Self {
        let server = Self::spawn(|port, _| {
            let port = ["--port".to_owned(), port.to_string()];
            port.into_iter().chain(args.iter().map(|arg| (*arg).to_owned())).collect()
        });
        eventually("redis answers", async || server.client().await.is_some()).await;
        server
    }

    /// With arguments made from its port and its folder.
    pub fn spawn(args: impl FnOnce(u16, &Path) -> Vec<String>) -> Self {
        let (port, home) = (free_port(), tempfile::tempdir().unwrap());
        let args = args(port, home.path());
        let mut server = Self { port, home, args, child: None };
        server.launch();
        server
    }

    /// Starts it again on the same port, empty.
    pub fn launch(&mut self) {
        let child = Command::new("redis-server")
            .args(&self.args)
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--daemonize", "no"])
            .args(["--dir", self.home.path().to_str().unwrap()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server is installed");
        self.child = Some(child);
    }

    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGSTOP or SIGCONT: while stopped its sockets stay open and nothing answers.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(self.child.as_ref().unwrap());
        kill_process(pid, signal).unwrap();
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// For [`Bus::connect`].
    pub fn config(&self) -> RedisConfig {
        RedisConfig { address: self.address(), ..RedisConfig::default() }
    }

    /// A connection apart from the bus, to inspect what is stored.
    pub async fn client(&self) -> Option<redis::aio::MultiplexedConnection> {
        let client = redis::Client::open(format!("redis://{}", self.address())).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.ok()?;
        redis::cmd("PING").query_async::<String>(&mut connection).await.ok()?;
        Some(connection)
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Polls until it is true. The timeout of half a minute is for an overloaded machine.
pub async fn eventually(what: &str, mut so: impl AsyncFnMut() -> bool) {
    let give_up = Instant::now() + Duration::from_secs(30);
    while !so().await {
        assert!(Instant::now() < give_up, "not within 30 s: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}
