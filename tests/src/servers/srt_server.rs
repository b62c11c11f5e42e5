//! srt-live-transmit as a listener (package srt-tools), as the set-up installs it: on a free loopback port, in a folder of its
//! own. What it receives goes into a file, which ffmpeg reads as a player does.

use std::net::UdpSocket;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use tempfile::TempDir;

use super::on_path;
use super::ports::free_port;
use crate::process::{Process, eventually};

const START_TIMEOUT: Duration = Duration::from_secs(20);
/// Of a packet.
const PACKET_BYTES: usize = 188;

/// A listener; ends when dropped.
pub struct SrtServer {
    // Dropped in this order.
    listener: Option<Process>,
    folder: TempDir,
    port: u16,
    options: String,
    /// How often it was started.
    starts: u32,
}

impl SrtServer {
    /// Starts it. `options`: of its URL, such as `passphrase=…`.
    pub fn start(options: &str) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("spillway-srt-").tempdir().context("make a folder")?;
        let mut server = Self { listener: None, folder, port: free_port()?, options: options.to_owned(), starts: 0 };
        server.restart()?;
        Ok(server)
    }

    /// The same port again after [`kill`](Self::kill). What is received goes into another file.
    pub fn restart(&mut self) -> Result<()> {
        let program =
            on_path("srt-live-transmit").context("no srt-live-transmit on PATH: `cargo verify` installs it")?;
        self.starts += 1;
        let from = format!("srt://127.0.0.1:{}?mode=listener&{}", self.port, self.options);
        let file = self.file();
        // It writes to standard output only.
        let mut listener = Process::start("srt", &PathBuf::from("/bin/sh"), self.folder.path(), "srt", |command| {
            command.args(["-c", r#"exec "$0" "$1" file://con >"$2""#]).arg(&program).arg(&from).arg(&file);
        })?;
        let port = self.port;
        listener.wait_until(START_TIMEOUT, || UdpSocket::bind(("127.0.0.1", port)).is_err())?;
        self.listener = Some(listener);
        Ok(())
    }

    /// Kills it: nothing is said to what sends.
    pub fn kill(&mut self) {
        self.listener = None;
    }

    /// Sends its process a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.listener.as_ref().context("the listener does not run")?.signal(signal)
    }

    /// URL for a caller, with these options.
    pub fn url(&self, options: &str) -> String {
        format!("srt://127.0.0.1:{}?{options}", self.port)
    }

    /// Bytes received since the last start.
    pub fn received(&self) -> u64 {
        std::fs::metadata(self.file()).map_or(0, |file| file.len())
    }

    /// What was received since the last start, so many seconds from its beginning on; waits for it. Gives a file (Matroska)
    /// with what came, as it came, from time 0 on.
    pub async fn watch(&self, seconds: u32) -> Result<PathBuf> {
        let begun = || std::future::ready(Ok((self.received() > 0).then_some(())));
        eventually("something is received", Duration::from_secs(20), begun).await?;
        tokio::time::sleep(Duration::from_secs(u64::from(seconds) + 2)).await;
        let mut stream = std::fs::read(self.file()).context("read what was received")?;
        stream.truncate(stream.len() / PACKET_BYTES * PACKET_BYTES);
        let number = free_port()?;
        let name = |extension: &str| self.folder.path().join(format!("watched-{number}.{extension}"));
        let (received, file) = (name("ts"), name("mkv"));
        std::fs::write(&received, stream).context("keep what was received")?;
        let ffmpeg = on_path("ffmpeg").context("no ffmpeg on PATH")?;
        let mut player = Process::start("ffmpeg", &ffmpeg, self.folder.path(), "srt", |command| {
            command.args(["-v", "error", "-nostdin", "-y", "-i"]).arg(&received);
            command.args(["-c", "copy", "-t", &seconds.to_string()]).arg(&file);
        })?;
        let status =
            eventually("a player has seen enough", START_TIMEOUT, || std::future::ready(player.over())).await?;
        ensure!(status.success(), "ffmpeg ended with {status}: {}\n{}", player.tail(), self.tail());
        Ok(file)
    }

    /// End of its log.
    pub fn tail(&self) -> String {
        self.listener.as_ref().map(Process::tail).unwrap_or_default()
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join(format!("received-{}.ts", self.starts))
    }
}
