//! The media process as a thing: started, spoken with, watched, ended.

use std::env;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use spillway_spool::framing::{HappeningReader, OrderWriter, WordError, runner_end};
use spillway_spool::{Happening, Order};
use tokio::process::{Child, Command};
use tokio::time::timeout;
use tracing::{debug, warn};

/// Names the program when it does not lie beside ours.
pub const PROGRAM_VARIABLE: &str = "SPILLWAY_MEDIA";
const PROGRAM: &str = "spillway-media";

/// What a child may inherit: nothing that is secret.
const HARMLESS: &[&str] = &["HOME", "LANG", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "RUST_BACKTRACE"];
const HARMLESS_PREFIXES: &[&str] = &["LC_", "XDG_", "GST_"];

/// It starts no program. livekit-signaling would: it asks `lsb_release`, a shell script with a dozen processes, what
/// system this is, which takes a tenth of the time we have to begin; where it finds none it reads /etc/os-release.
const NO_PROGRAMS: &str = "/nonexistent";

/// Out of memory, this process goes first: its recording survives it.
const OOM_SCORE: &str = "800";

#[derive(Debug, thiserror::Error)]
pub enum MediaError {
    #[error("find {PROGRAM} beside {}", beside.display())]
    Missing { beside: PathBuf },
    #[error("find our own executable")]
    Ourselves(#[source] io::Error),
    #[error("make a socket pair")]
    Pair(#[source] io::Error),
    #[error("start {}", program.display())]
    Start { program: PathBuf, source: io::Error },
}

/// Where the media program is: as the environment says, else beside our own executable.
pub fn program() -> Result<PathBuf, MediaError> {
    if let Some(named) = env::var_os(PROGRAM_VARIABLE) {
        return Ok(PathBuf::from(named));
    }
    let beside = env::current_exe().map_err(MediaError::Ourselves)?;
    let program = beside.with_file_name(PROGRAM);
    if program.is_file() { Ok(program) } else { Err(MediaError::Missing { beside }) }
}

pub struct MediaProcess {
    child: Child,
    orders: OrderWriter,
    happenings: HappeningReader,
    /// It closed its end of the pair.
    mute: bool,
    kills_by_memory: Option<u64>,
}

impl MediaProcess {
    pub fn start(program: &Path) -> Result<Self, MediaError> {
        let (ours, theirs) = UnixStream::pair().map_err(MediaError::Pair)?;
        let (happenings, orders) = runner_end(ours).map_err(MediaError::Pair)?;
        let harmless = env::vars_os().filter(|(name, _)| {
            name.to_str().is_some_and(|name| {
                HARMLESS.contains(&name) || HARMLESS_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
            })
        });
        let child = Command::new(program)
            .env_clear()
            .envs(harmless)
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
        Ok(Self { child, orders, happenings, mute: false, kills_by_memory: kills_by_memory() })
    }

    pub async fn order(&mut self, order: &Order) {
        if let Err(error) = self.orders.say(order).await {
            // Its death is noticed by `next`, with a better reason.
            debug!(error = %spillway_process::chain(&error), "order not delivered");
        }
    }

    /// What it says, or why it is gone. Cancel-safe.
    pub async fn next(&mut self) -> Next {
        loop {
            if self.mute {
                return self.gone_after_mute().await;
            }
            // Its words go before its exit: the last ones explain it.
            tokio::select! {
                biased;
                word = self.happenings.hear() => match word {
                    Ok(Some(happening)) => return Next::Said(happening),
                    // A word of another version: it costs nothing but itself.
                    Err(WordError::Malformed(error)) => warn!(%error, "media process said something we do not know"),
                    Ok(None) => self.mute = true,
                    Err(error) => {
                        warn!(error = %spillway_process::chain(&error), "media process cannot be understood");
                        self.mute = true;
                    }
                },
                status = self.child.wait() => match timeout(Duration::from_millis(200), self.happenings.hear()).await {
                    // What was still on the way; the exit is seen again.
                    Ok(Ok(Some(happening))) => return Next::Said(happening),
                    Ok(Err(WordError::Malformed(_))) => {}
                    // A grandchild may hold the pair open: the exit itself is the end.
                    Ok(_) | Err(_) => return Next::Gone(self.last_words(status)),
                },
            }
        }
    }

    async fn gone_after_mute(&mut self) -> Next {
        match timeout(Duration::from_secs(1), self.child.wait()).await {
            Ok(status) => Next::Gone(self.last_words(status)),
            Err(_) => {
                self.signal(Signal::KILL);
                Next::Gone("media process closed its pipe without leaving and was ended".to_owned())
            }
        }
    }

    fn last_words(&self, status: io::Result<ExitStatus>) -> String {
        match status {
            Ok(status) => {
                let more_kills = kills_by_memory() > self.kills_by_memory;
                in_words(status, more_kills)
            }
            Err(error) => format!("media process was lost: {error}"),
        }
    }

    /// Asks, then insists; it is gone when this returns, unless the kernel holds it (a dead network disk).
    pub async fn end(&mut self, asked_before: Duration, patience: Duration) {
        if timeout(asked_before, self.child.wait()).await.is_ok() {
            return;
        }
        self.signal(Signal::TERM);
        if timeout(patience, self.child.wait()).await.is_ok() {
            return;
        }
        self.signal(Signal::KILL);
        if timeout(Duration::from_secs(1), self.child.wait()).await.is_err() {
            warn!("media process does not die");
        }
    }

    fn signal(&self, signal: Signal) {
        // `id` is none once it was waited for, so nobody else's process is hit.
        if let Some(pid) = self.child.id().and_then(|pid| Pid::from_raw(pid as i32)) {
            let _ = kill_process(pid, signal);
        }
    }
}

pub enum Next {
    Said(Happening),
    /// Why it is over, in words.
    Gone(String),
}

/// Processes the kernel killed in our control group because memory was short; `None` where there is no such count.
fn kills_by_memory() -> Option<u64> {
    let events = std::fs::read_to_string("/sys/fs/cgroup/memory.events").ok()?;
    events.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

fn in_words(status: ExitStatus, memory_was_short: bool) -> String {
    match (status.signal(), status.code()) {
        (Some(9), _) if memory_was_short => "media process was killed because memory ran out (signal 9)".to_owned(),
        (Some(signal), _) => format!("media process was killed by signal {signal}{}", name_of(signal)),
        (None, Some(0)) => "media process left without a last word".to_owned(),
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
    fn an_exit_is_told_in_words() {
        let words = |raw| in_words(ExitStatus::from_raw(raw), false);
        assert_eq!(words(9), "media process was killed by signal 9 (SIGKILL)");
        assert_eq!(words(11), "media process was killed by signal 11 (SIGSEGV)");
        assert_eq!(words(101 << 8), "media process ended with exit code 101");
        assert_eq!(words(0), "media process left without a last word");
    }
}
