//! nginx with its RTMP module, as the set-up unpacks it: on a free loopback port, in a folder of its own, one process.
//! ffmpeg watches a stream as a player does.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::on_path;
use super::ports::free_port;
use crate::assets;
use crate::process::{Process, eventually};

const START_TIMEOUT: Duration = Duration::from_secs(20);
/// In the cache.
const NGINX: &str = "nginx/usr/sbin/nginx";
const MODULE: &str = "nginx/usr/lib/nginx/modules/ngx_rtmp_module.so";
/// Takes streams; each key one at a time.
pub const LIVE: &str = "live";
/// Closes the connection of whatever wants to publish.
pub const CLOSED: &str = "closed";
/// A player gets a stream from a key frame on.
const OPEN_RULES: &str = "wait_key on; wait_video on;";
const CLOSED_RULES: &str = "deny publish all;";

/// A server of RTMP streams; ends when dropped.
pub struct RtmpServer {
    // Dropped in this order.
    nginx: Option<Process>,
    folder: TempDir,
    port: u16,
}

impl RtmpServer {
    /// Starts it.
    pub fn start() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("spillway-rtmp-").tempdir().context("make a folder")?;
        let mut server = Self { nginx: None, folder, port: free_port()? };
        server.restart()?;
        Ok(server)
    }

    /// The same port again after [`kill`](Self::kill); no stream is known there.
    pub fn restart(&mut self) -> Result<()> {
        self.start_with(OPEN_RULES)
    }

    /// As [`restart`](Self::restart), and [`LIVE`] refuses every stream from now on.
    pub fn restart_closed(&mut self) -> Result<()> {
        self.start_with(CLOSED_RULES)
    }

    fn start_with(&mut self, live_rules: &str) -> Result<()> {
        let (program, module) = (assets::cache().join(NGINX), assets::cache().join(MODULE));
        ensure!(module.is_file(), "no {}: `cargo verify` unpacks it", module.display());
        let folder = self.folder.path();
        let (path, port) = (folder.join("nginx.conf"), self.port);
        // One process: one that is killed leaves no worker.
        let config = format!(
            "load_module {module};\ndaemon off;\nmaster_process off;\npid {folder}/nginx.pid;\nerror_log stderr info;\n\
             events {{ worker_connections 64; }}\n\
             rtmp {{\n  access_log off;\n  server {{\n    listen 127.0.0.1:{port};\n    chunk_size 4096;\n    \
             application {LIVE} {{ live on; {live_rules} }}\n    \
             application {CLOSED} {{ live on; {CLOSED_RULES} }}\n  }}\n}}\n",
            folder = folder.display(),
            module = module.display(),
        );
        std::fs::write(&path, config).context("write nginx' configuration")?;
        let mut nginx = Process::start("nginx", &program, folder, "rtmp", |command| {
            command.args(["-e", "stderr", "-p"]).arg(folder).arg("-c").arg(&path);
        })?;
        nginx.wait_until(START_TIMEOUT, || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok())?;
        self.nginx = Some(nginx);
        Ok(())
    }

    /// Kills it: every connection is reset.
    pub fn kill(&mut self) {
        self.nginx = None;
    }

    /// Sends its process a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.nginx.as_ref().context("nginx does not run")?.signal(signal)
    }

    /// URL of a stream.
    pub fn url(&self, app: &str, key: &str) -> String {
        format!("rtmp://127.0.0.1:{}/{app}/{key}", self.port)
    }

    /// End of its log, which has keys in it.
    pub fn tail(&self) -> String {
        self.nginx.as_ref().map(Process::tail).unwrap_or_default()
    }

    /// Watches a stream of [`LIVE`] for so long; gives a file (Matroska) with what came, as it came, from time 0 on.
    pub async fn watch(&self, key: &str, seconds: u32) -> Result<PathBuf> {
        let file = self.folder.path().join(format!("watched-{}.mkv", free_port()?));
        let mut player = Process::start("ffmpeg", &ffmpeg()?, self.folder.path(), "rtmp", |command| {
            command.args(["-v", "error", "-nostdin", "-y", "-rw_timeout", "15000000", "-i", &self.url(LIVE, key)]);
            command.args(["-c", "copy", "-t", &seconds.to_string()]).arg(&file);
        })?;
        let limit = Duration::from_secs(u64::from(seconds) + 25);
        let status = eventually("a player has seen enough", limit, || std::future::ready(player.over())).await?;
        ensure!(status.success(), "ffmpeg ended with {status}: {}\n{}", player.tail(), self.tail());
        Ok(file)
    }

    /// Publishes silence under a key of [`LIVE`], which is in use as long as this lives.
    pub fn occupy(&self, key: &str) -> Result<Process> {
        let mut publisher = Process::start("publisher", &ffmpeg()?, self.folder.path(), "rtmp", |command| {
            command.args(["-v", "error", "-nostdin", "-re", "-f", "lavfi", "-i", "anullsrc=r=44100:cl=stereo"]);
            command.args(["-c:a", "aac", "-f", "flv", &self.url(LIVE, key)]);
        })?;
        publisher.wait_until(START_TIMEOUT, || self.published(key) > 0)?;
        Ok(publisher)
    }

    /// How often this key was to be published.
    pub fn published(&self, key: &str) -> usize {
        let log = std::fs::read(self.folder.path().join("nginx.log")).unwrap_or_default();
        String::from_utf8_lossy(&log).matches(&format!("publish: name='{key}'")).count()
    }

    /// The same server over TLS, with the certificate of `tls`.
    pub async fn over_tls(&self, tls: TlsAcceptor) -> Result<TlsFront> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("bind the TLS server")?;
        let (address, to) = (listener.local_addr()?, ("127.0.0.1", self.port));
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let tls = tls.clone();
                // Either side may hang up.
                tokio::spawn(async move {
                    let mut client = tls.accept(client).await?;
                    copy_bidirectional(&mut client, &mut TcpStream::connect(to).await?).await
                });
            }
        });
        Ok(TlsFront { port: address.port(), task })
    }
}

/// TLS in front of a server; ends when dropped.
pub struct TlsFront {
    port: u16,
    task: JoinHandle<()>,
}

impl TlsFront {
    /// URL of a stream of [`LIVE`].
    pub fn url(&self, key: &str) -> String {
        format!("rtmps://127.0.0.1:{}/{LIVE}/{key}", self.port)
    }
}

impl Drop for TlsFront {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn ffmpeg() -> Result<PathBuf> {
    on_path("ffmpeg").context("no ffmpeg on PATH")
}
