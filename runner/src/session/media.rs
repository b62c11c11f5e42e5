//! The media process: started with an empty environment, sent commands, its events and its exit received, ended. Runs in the
//! session's task. It interprets no event.

use std::env;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use spillway_ipc::framing::{CommandWriter, EventReader, MessageError, runner_endpoint};
use spillway_ipc::{MediaCommand, MediaEvent};
use tokio::process::{Child, Command};
use tokio::time::timeout;
use tracing::{debug, warn};

/// Environment variable with the media program, when it does not lie beside this one.
pub const PROGRAM_VARIABLE: &str = "SPILLWAY_MEDIA";
const PROGRAM: &str = "spillway-media";

/// `PATH` of the media process, which starts programs by their full paths, and those only for a page. livekit-signaling would: it runs `lsb_release`, a shell script with a
/// dozen processes, which takes a tenth of the time to begin; where it finds none it reads /etc/os-release.
const NO_PROGRAMS: &str = "/nonexistent";

/// Out of memory, this process goes first: its recording survives it.
const OOM_SCORE: &str = "800";

/// Why the media process was not started.
#[derive(Debug, thiserror::Error)]
pub enum MediaError {
    /// There is no media program beside this one.
    #[error("find {PROGRAM} beside {}", beside.display())]
    Missing {
        /// This program.
        beside: PathBuf,
    },
    /// `/proc/self/exe` cannot be read.
    #[error("find our own executable")]
    Ourselves(#[source] io::Error),
    /// No file descriptor is left.
    #[error("make a socket pair")]
    Pair(#[source] io::Error),
    /// The program was not executed.
    #[error("start {}", program.display())]
    Start {
        /// The media program.
        program: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
}

/// Where the media program is: as the environment says, else beside our own executable.
///
/// # Errors
/// There is none; a retry changes nothing.
pub fn program() -> Result<PathBuf, MediaError> {
    if let Some(named) = env::var_os(PROGRAM_VARIABLE) {
        return Ok(PathBuf::from(named));
    }
    let beside = env::current_exe().map_err(MediaError::Ourselves)?;
    let program = beside.with_file_name(PROGRAM);
    if program.is_file() { Ok(program) } else { Err(MediaError::Missing { beside }) }
}

/// A running media process; it is killed with this value.
pub struct MediaProcess {
    child: Child,
    commands: CommandWriter,
    events: EventReader,
    /// It closed its end of the socket pair.
    closed: bool,
    kills_by_memory: Option<u64>,
}

impl MediaProcess {
    /// Starts `program`. To be called within a tokio runtime.
    ///
    /// # Errors
    /// It could not be executed, or resources ran out; only the latter may pass.
    pub fn start(program: &Path) -> Result<Self, MediaError> {
        let (ours, theirs) = UnixStream::pair().map_err(MediaError::Pair)?;
        let (events, commands) = runner_endpoint(ours).map_err(MediaError::Pair)?;
        let child = Command::new(program)
            .env_clear()
            .envs(spillway_process::environment::inherited(&[]))
            .env("PATH", NO_PROGRAMS)
            .envs(spillway_process::telemetry::handed_down())
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            // Ctrl-C on a terminal is for us: we ask it to finish.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| MediaError::Start { program: program.to_owned(), source })?;
        if let Some(pid) = child.id()
            && let Err(error) = std::fs::write(format!("/proc/{pid}/oom_score_adj"), OOM_SCORE)
        {
            debug!(%error, "oom score not raised");
        }
        Ok(Self { child, commands, events, closed: false, kills_by_memory: kills_by_memory() })
    }

    /// Sends a command. That the process is gone is seen by [`MediaProcess::next`].
    pub async fn send(&mut self, command: &MediaCommand) {
        if let Err(error) = self.commands.send(command).await {
            // `next` notices its exit, with a better reason.
            debug!(error = %spillway_process::chain(&error), "command not delivered");
        }
    }

    /// Waits for its next event, or its exit. Cancel-safe.
    pub async fn next(&mut self) -> MediaUpdate {
        loop {
            if self.closed {
                return self.exit_after_close().await;
            }
            // Its messages go before its exit: the last ones explain it.
            tokio::select! {
                biased;
                event = self.events.recv() => match event {
                    Ok(Some(media_event)) => return MediaUpdate::Received(media_event),
                    // A message of another version: it costs nothing but itself.
                    Err(MessageError::Malformed(error)) => warn!(%error, "media process sent an unknown message"),
                    Ok(None) => self.closed = true,
                    Err(error) => {
                        warn!(error = %spillway_process::chain(&error), "media process cannot be understood");
                        self.closed = true;
                    }
                },
                status = self.child.wait() => match timeout(Duration::from_millis(200), self.events.recv()).await {
                    // What was still on the way; the exit is seen again.
                    Ok(Ok(Some(media_event))) => return MediaUpdate::Received(media_event),
                    Ok(Err(MessageError::Malformed(_))) => {}
                    // A grandchild may hold the pair open: the exit itself is the end.
                    Ok(_) | Err(_) => return MediaUpdate::Exited(self.exit_message(status)),
                },
            }
        }
    }

    async fn exit_after_close(&mut self) -> MediaUpdate {
        match timeout(Duration::from_secs(1), self.child.wait()).await {
            Ok(status) => MediaUpdate::Exited(self.exit_message(status)),
            Err(_) => {
                self.signal(Signal::KILL);
                MediaUpdate::Exited("media process closed its pipe without leaving and was ended".to_owned())
            }
        }
    }

    fn exit_message(&self, status: io::Result<ExitStatus>) -> String {
        match status {
            Ok(status) => {
                let more_kills = kills_by_memory() > self.kills_by_memory;
                describe_exit(status, more_kills)
            }
            Err(error) => format!("media process was lost: {error}"),
        }
    }

    /// Waits `asked_before` for its exit, then sends SIGTERM, and SIGKILL after `grace`. It is gone when this returns, unless
    /// the kernel holds it (a network disk that hangs).
    pub async fn end(&mut self, asked_before: Duration, grace: Duration) {
        if timeout(asked_before, self.child.wait()).await.is_ok() {
            return;
        }
        self.signal(Signal::TERM);
        if timeout(grace, self.child.wait()).await.is_ok() {
            return;
        }
        self.signal(Signal::KILL);
        if timeout(Duration::from_secs(1), self.child.wait()).await.is_err() {
            warn!("media process does not die");
        }
    }

    /// It has exited.
    pub fn is_gone(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    fn signal(&self, signal: Signal) {
        // `id` is none once it was waited for, so no other process of that number is hit.
        if let Some(pid) = self.child.id().and_then(|pid| Pid::from_raw(pid as i32)) {
            let _ = kill_process(pid, signal);
        }
    }
}

/// What a media process did.
pub enum MediaUpdate {
    /// It sent this.
    Received(MediaEvent),
    /// It exited; a description for the user.
    Exited(String),
}

/// Processes the kernel killed in our control group because memory was short; `None` where there is no such count.
fn kills_by_memory() -> Option<u64> {
    let events = std::fs::read_to_string("/sys/fs/cgroup/memory.events").ok()?;
    events.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

fn describe_exit(status: ExitStatus, memory_was_short: bool) -> String {
    match (status.signal(), status.code()) {
        (Some(9), _) if memory_was_short => "media process was killed because memory ran out (signal 9)".to_owned(),
        (Some(signal), _) => format!("media process was killed by signal {signal}{}", name_of(signal)),
        (None, Some(0)) => "media process exited without an end event".to_owned(),
        (None, Some(code)) => format!("media process ended with exit code {code}"),
        (None, None) => "media process ended".to_owned(),
    }
}

fn name_of(signal: i32) -> &'static str {
    match signal {
        4 => " (SIGILL)",
        6 => " (SIGABRT)",
        7 => " (SIGBUS)",
        8 => " (SIGFPE)",
        9 => " (SIGKILL)",
        11 => " (SIGSEGV)",
        15 => " (SIGTERM)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_is_described() {
        let message = |raw| describe_exit(ExitStatus::from_raw(raw), false);
        assert_eq!(message(9), "media process was killed by signal 9 (SIGKILL)");
        assert_eq!(message(11), "media process was killed by signal 11 (SIGSEGV)");
        assert_eq!(message(101 << 8), "media process ended with exit code 101");
        assert_eq!(message(0), "media process exited without an end event");
    }
}
