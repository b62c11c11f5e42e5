//! nginx with its RTMP module, as the set-up unpacks it: on a free loopback port, in a folder of its own, one process.
//! ffmpeg watches a stream as a player does.

use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::on_path;
use super::ports::free_port;
use crate::assets;
use crate::framecrc::{ListedPicture, PictureContent, SLICES_ONLY, time_base};
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

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// Watches a stream of [`LIVE`] for so long as a player does that keeps nothing back, and notes when each picture came.
    /// A server that has no such stream yet is waited for, up to 15 s.
    pub async fn view(&self, key: &str, seconds: u32) -> Result<LiveView> {
        self.view_with(key, seconds, || ()).await
    }

    /// As [`view`](Self::view); calls `on_picture` whenever one has come.
    pub async fn view_with(&self, key: &str, seconds: u32, mut on_picture: impl FnMut()) -> Result<LiveView> {
        let file = self.folder.path().join(format!("viewed-{}.mkv", free_port()?));
        let log = File::create(file.with_extension("log")).context("make the player's log")?;
        let mut player = Command::new(ffmpeg()?)
            .args(["-v", "error", "-nostdin", "-y", "-copyts", "-rw_timeout", "15000000", "-t", &seconds.to_string()])
            .args(["-i", &self.url(LIVE, key)])
            // A line for each picture, when it is there.
            .args(["-map", "0:v", "-c", "copy"])
            .args(SLICES_ONLY)
            .args(["-flush_packets", "1", "-f", "framecrc", "pipe:1"])
            .args(["-map", "0:v", "-map", "0:a?", "-c", "copy"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .context("start ffmpeg")?;
        let mut lines = BufReader::new(player.stdout.take().context("ffmpeg's output")?).lines();
        let mut pictures = vec![];
        let limit = Duration::from_secs(u64::from(seconds) + 25);
        let read = async {
            while let Some(line) = lines.next_line().await.context("read from ffmpeg")? {
                let at = Instant::now();
                if let Some(time_base) = time_base(&line) {
                    ensure!(time_base == "1/1000", "times in {time_base}");
                } else if !line.starts_with('#') {
                    pictures.push(ViewedPicture::read(&line, at)?);
                    on_picture();
                }
            }
            player.wait().await.context("wait for ffmpeg")
        };
        let status =
            tokio::time::timeout(limit, read).await.with_context(|| format!("{key}: not after {limit:?}"))??;
        let said = std::fs::read_to_string(file.with_extension("log")).unwrap_or_default();
        ensure!(status.success(), "ffmpeg ended with {status}: {said}\n{}", self.tail());
        Ok(LiveView { file, pictures })
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

    /// All of its log, which has keys in it.
    pub fn log(&self) -> Result<Vec<u8>> {
        std::fs::read(self.folder.path().join("nginx.log")).context("read nginx' log")
    }

    /// How often this key was to be published.
    pub fn published(&self, key: &str) -> usize {
        let log = self.log().unwrap_or_default();
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

/// A picture of a stream, as a player has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ViewedPicture {
    /// When it had come whole.
    pub at: Instant,
    /// Its time in the stream.
    pub time_ms: i64,
    /// What is in it.
    pub content: PictureContent,
    /// It can be decoded alone.
    pub key: bool,
}

impl ViewedPicture {
    fn read(line: &str, at: Instant) -> Result<Self> {
        let ListedPicture { time, content, key } = ListedPicture::read(line)?;
        Ok(Self { at, time_ms: time, content, key })
    }
}

/// A stream as a player had it.
#[derive(Clone, Debug)]
pub struct LiveView {
    /// Matroska with what came, at the times of the stream.
    pub file: PathBuf,
    /// Every picture.
    pub pictures: Vec<ViewedPicture>,
}

impl LiveView {
    /// Pictures from two seconds after the first one on: a player looks at the first ones before it gives them on.
    pub fn settled(&self) -> impl Iterator<Item = &ViewedPicture> {
        let from = self.pictures.first().map(|first| first.at + Duration::from_secs(2));
        self.pictures.iter().filter(move |picture| from.is_some_and(|from| picture.at >= from))
    }

    /// How many pictures of a stream with so many a second are missing, by their times.
    pub fn missing(&self, per_second: f64) -> usize {
        let steps = self.pictures.windows(2).map(|pair| (pair[1].time_ms - pair[0].time_ms) as f64 * per_second / 1e3);
        steps.map(|step| (step.round() as usize).saturating_sub(1)).sum()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_read_from_what_ffmpeg_prints_and_missed_ones_counted() {
        let at = Instant::now();
        let read = |line| ViewedPicture::read(line, at).unwrap();
        let key = read("0,       1000,       1000,       33,    12345, 0x1c2f3a4b");
        let other = read("0,       1100,       1100,       33,     2345, 0x0c2f3a4b, F=0x0, S=1");
        assert_eq!((key.time_ms, key.key, other.time_ms, other.key), (1000, true, 1100, false));
        assert!(ViewedPicture::read("0, x", at).is_err());
        let view = LiveView { file: PathBuf::new(), pictures: vec![key, other] };
        assert_eq!((view.missing(30.0), view.settled().count()), (2, 0));
    }
}
