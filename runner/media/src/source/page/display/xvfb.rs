//! An X server without a screen: started for one page, ended with it. Blocks its caller: milliseconds at the start (0.1 s on a
//! quiet machine), up to a second at the end.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};
use tracing::debug;

/// Where Debian's package `xvfb` puts it. The media process has no PATH.
const PROGRAM: &str = "/usr/bin/Xvfb";
/// A busy machine; then it hangs.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// After SIGTERM.
const EXIT_TIMEOUT: Duration = Duration::from_secs(1);
const LOG: &str = "xvfb.log";

/// Why there is no X server. A lack of memory or processes may pass; the rest does not.
#[derive(Debug, thiserror::Error)]
pub enum XvfbError {
    /// Its log cannot be written.
    #[error("create {}", path.display())]
    Log {
        /// In the page's folder.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// Not installed, or no process is left.
    #[error("start {PROGRAM}")]
    Start(#[source] io::Error),
    /// It ended or hung before it listened.
    #[error("Xvfb did not say its display: {0}")]
    NotReady(String),
    /// Its output cannot be read.
    #[error("read what Xvfb says")]
    Read(#[source] io::Error),
}

/// A running X server. It is ended with this value; and it ends by itself when its last client leaves, so that none is left
/// when this process is killed.
pub struct Xvfb {
    child: Child,
    number: u32,
    address: String,
    log: PathBuf,
}

impl Xvfb {
    /// Starts a server with one screen, and waits until it listens. It chooses a number that is free (`-displayfd`), writes no
    /// lock then and takes over the socket of a server that was killed; a start with a chosen number fails at either.
    ///
    /// # Errors
    ///
    /// When it is not installed or does not listen within ten seconds.
    pub fn start((width, height): (u32, u32), folder: &Path) -> Result<Self, XvfbError> {
        let log = folder.join(LOG);
        let failed = |source| XvfbError::Log { path: log.clone(), source };
        let out = File::create(&log).map_err(failed)?;
        let screen = format!("{width}x{height}x24");
        let mut child = Command::new(PROGRAM)
            // -ac: no access control, so no TCP; what is left is a socket that this machine's processes reach.
            .args(["-displayfd", "1", "-screen", "0", &screen, "-nolisten", "tcp", "-ac"])
            // No saver after ten minutes without a key. No reset when a client leaves (it would forget the mode) but the end.
            .args(["-s", "0", "-noreset", "-terminate"])
            .env_clear()
            .envs(spillway_process::environment::inherited(&[]))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(out)
            .spawn()
            .map_err(XvfbError::Start)?;
        let stdout = child.stdout.take();
        let mut server = Self { child, number: 0, address: String::new(), log };
        let number = match stdout {
            Some(stdout) => display_number(stdout, START_TIMEOUT).map_err(XvfbError::Read)?,
            None => None,
        };
        server.number = number.ok_or_else(|| XvfbError::NotReady(server.last_line()))?;
        server.address = format!(":{}", server.number);
        debug!(display = server.number, pid = server.child.id(), "X server listens");
        Ok(server)
    }

    /// As in `DISPLAY`: `:7`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Of its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// When it has ended: how, and what it said last.
    pub fn exit(&mut self) -> Option<String> {
        match self.child.try_wait() {
            Ok(None) => None,
            Ok(Some(status)) => Some(format!("Xvfb ended ({status}): {}", self.last_line())),
            Err(error) => Some(format!("Xvfb is lost: {error}")),
        }
    }

    fn last_line(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing").trim().to_owned()
    }

    fn ends_within(&mut self, time: Duration) -> bool {
        let until = Instant::now() + time;
        loop {
            match self.child.try_wait() {
                Ok(None) if Instant::now() < until => std::thread::sleep(Duration::from_millis(5)),
                state => return matches!(state, Ok(Some(_))),
            }
        }
    }
}

impl Drop for Xvfb {
    fn drop(&mut self) {
        // Its number is not given to another process before we have waited for it.
        if matches!(self.child.try_wait(), Ok(None)) {
            if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
                let _ = kill_process(pid, Signal::TERM);
            }
            if !self.ends_within(EXIT_TIMEOUT) {
                let _ = self.child.kill();
                let _ = self.child.wait();
            }
        }
    }
}

/// The number that the server writes once it listens. `None`: it did not within that time, or ended.
fn display_number(mut stdout: ChildStdout, within: Duration) -> io::Result<Option<u32>> {
    let until = Instant::now() + within;
    let mut text = Vec::new();
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        let mut socket = [PollFd::new(&stdout, PollFlags::IN)];
        match poll(&mut socket, Timespec::try_from(left).ok().as_ref()) {
            Ok(0) | Err(Errno::INTR) => continue,
            Ok(_) => {}
            Err(errno) => return Err(errno.into()),
        }
        let mut piece = [0; 16];
        let length = stdout.read(&mut piece)?;
        if length == 0 {
            return Ok(None);
        }
        text.extend_from_slice(&piece[..length]);
        if let Some(end) = text.iter().position(|byte| *byte == b'\n') {
            return Ok(String::from_utf8_lossy(&text[..end]).trim().parse().ok());
        }
    }
}
