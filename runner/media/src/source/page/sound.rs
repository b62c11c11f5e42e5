//! The sound of a page: a server of PulseAudio's native protocol whose clock is CLOCK_MONOTONIC, the clock of the frames. In:
//! what Chromium plays. Out: a socket for Chromium and a channel of samples with their times. A thread of its own; starting
//! and ending take milliseconds.
//!
//! PulseAudio's own null sink inserts a hole where a client is late, and costs 0.02 to 0.03 cores and a recorder beside it.
//! This one places samples by their count and costs 0.01 (measured): sound stayed within 12 to 18 ms of the picture, PulseAudio's within 61.

mod mix;
mod playback;
mod server;
mod session;

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rand::Rng;
use spillway_process::chain;
use tracing::{Span, warn};

pub use self::playback::SoundStats;
use self::server::PulseServer;
use super::units::PageSamples;
pub use super::units::SoundOptions;

/// Names within the page's folder.
const SOCKET: &str = "sound";
const COOKIE: &str = "sound-cookie";
/// PA_NATIVE_COOKIE_LENGTH: clients read exactly so many bytes.
const COOKIE_BYTES: usize = 256;
/// Blocks of 20 ms that wait for the receiver: 30 s, 12 MB.
const QUEUE_BLOCKS: usize = 1_500;

/// Why there is no sound server. A retry changes nothing, unless threads or file descriptors are short.
#[derive(Debug, thiserror::Error)]
pub enum SoundError {
    /// The folder cannot be written.
    #[error("write {}", path.display())]
    Cookie {
        /// The cookie's file.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// The address is too long, or the folder cannot be written.
    #[error("listen on {}", path.display())]
    Listen {
        /// The socket.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// No thread or file descriptor is left.
    #[error("start the sound server")]
    Start(#[source] io::Error),
}

/// A running sound server. Dropping it ends it and removes its files.
pub struct SoundServer {
    socket: PathBuf,
    cookie: PathBuf,
    /// Closing it ends the thread.
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
    stats: Arc<Mutex<SoundStats>>,
    failure: Arc<Mutex<Option<String>>>,
}

impl SoundServer {
    /// Begins to listen. Blocks of 20 ms come from now on without a hole, silent ones too, each 500 to 520 ms after it is
    /// heard. What the receiver does not take within 30 s is left out; a receiver that was dropped does not end the server.
    ///
    /// # Errors
    ///
    /// When the folder cannot be written or its path is too long for a socket.
    pub fn start(options: &SoundOptions) -> Result<(Self, Receiver<PageSamples>), SoundError> {
        let (socket, cookie) = (options.folder.join(SOCKET), options.folder.join(COOKIE));
        let secret = write_cookie(&cookie).map_err(|source| SoundError::Cookie { path: cookie.clone(), source })?;
        let listener =
            UnixListener::bind(&socket).map_err(|source| SoundError::Listen { path: socket.clone(), source })?;
        let (stop, stopped) = UnixStream::pair().map_err(SoundError::Start)?;
        let (sender, receiver) = sync_channel(QUEUE_BLOCKS);
        let stats = Arc::new(Mutex::new(SoundStats::default()));
        let failure = Arc::new(Mutex::new(None));
        let mut server =
            PulseServer::new(listener, stopped, secret, stats.clone(), sender).map_err(SoundError::Start)?;
        let (span, end) = (Span::current(), failure.clone());
        let run = move || {
            let _inside = span.enter();
            if let Err(error) = server.run() {
                warn!(error = %chain(&error), "the page's sound is recorded no longer");
                *end.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
            }
        };
        let thread = std::thread::Builder::new().name("page sound".to_owned()).spawn(run).map_err(SoundError::Start)?;
        Ok((Self { socket, cookie, stop: Some(stop), thread: Some(thread), stats, failure }, receiver))
    }

    /// The socket: `PULSE_SERVER` is `unix:` and this.
    pub fn address(&self) -> &Path {
        &self.socket
    }

    /// The file with the cookie: `PULSE_COOKIE`. A client of the same user is let in without.
    pub fn cookie(&self) -> &Path {
        &self.cookie
    }

    /// What became of the samples so far; renewed every 10 ms.
    pub fn stats(&self) -> SoundStats {
        *self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why no block comes any more. `None` while all is well.
    pub fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for SoundServer {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // It reports its failures itself.
            let _ = thread.join();
        }
        let _ = fs::remove_file(&self.socket);
        let _ = fs::remove_file(&self.cookie);
    }
}

/// A new cookie, in a file that only this user can read.
fn write_cookie(path: &Path) -> io::Result<Vec<u8>> {
    let mut secret = vec![0; COOKIE_BYTES];
    rand::rng().fill_bytes(&mut secret);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(&secret)?;
    Ok(secret)
}
