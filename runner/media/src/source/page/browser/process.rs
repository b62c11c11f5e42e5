//! The process of Chromium: started with an environment of its own, its DevTools address read from its standard error, ended
//! with all its children. Runs in the page's thread; knows nothing of pages.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use spillway_process::ProcessStat;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use crate::source::page::program;

/// From exec to the line with the address: 0.2 s warm; cold 350 MB are read first.
const START_TIMEOUT: Duration = Duration::from_secs(30);
const EXIT_TIMEOUT: Duration = Duration::from_secs(2);
/// Between two looks whether children are left.
const GROUP_INTERVAL: Duration = Duration::from_millis(5);
/// What stands before the address.
const ADDRESS: &str = "DevTools listening on ";
/// Characters of its last line that go into an error.
const MAX_REASON: usize = 300;

/// Why there is no browser.
#[derive(Debug, thiserror::Error)]
pub enum BrowserError {
    /// Not installed, or not executable.
    #[error("start {}", program.display())]
    Start {
        /// Chromium's program.
        program: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// Its folder or profile cannot be written.
    #[error("prepare the browser's profile")]
    Profile(#[source] io::Error),
    /// It exited or closed its output before it was ready.
    #[error("the browser ended at once: {reason}")]
    Ended {
        /// The last line that it wrote.
        reason: String,
    },
    /// It runs and does not become ready.
    #[error("the browser was not ready within {} s", START_TIMEOUT.as_secs())]
    Late,
    /// Its DevTools do not answer.
    #[error("talk to the browser: {0}")]
    DevTools(String),
}

/// A running Chromium; killed with all its children when it is dropped.
#[derive(Debug)]
pub struct BrowserProcess {
    child: Child,
    group: Option<Pid>,
    /// Of its DevTools: `ws://127.0.0.1:…`.
    pub address: String,
}

impl BrowserProcess {
    /// Starts it and waits until it can be talked to. `environment` is all that it gets.
    ///
    /// # Errors
    ///
    /// It cannot be started or does not become ready. A retry may help on a machine that is out of memory.
    pub async fn start(
        program: &Path,
        arguments: &[String],
        environment: &BTreeMap<&'static str, String>,
    ) -> Result<Self, BrowserError> {
        let mut command = program::command(program);
        command.args(arguments).envs(environment);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let start = |source| BrowserError::Start { program: program.to_owned(), source };
        let mut child = Command::from(command).kill_on_drop(true).spawn().map_err(start)?;
        let group = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        let Some(errors) = child.stderr.take() else { return Err(start(io::ErrorKind::BrokenPipe.into())) };
        let mut browser = Self { child, group, address: String::new() };
        let mut lines = BufReader::new(errors).lines();
        browser.address = match timeout(START_TIMEOUT, address(&mut lines)).await {
            Ok(Ok(address)) => address,
            Ok(Err(reason)) => return Err(BrowserError::Ended { reason }),
            Err(_) => return Err(BrowserError::Late),
        };
        // A full pipe would stop it. What it says may have URLs in it: it is not kept.
        let mut rest = lines.into_inner();
        tokio::spawn(async move { tokio::io::copy_buf(&mut rest, &mut tokio::io::sink()).await });
        Ok(browser)
    }

    /// Waits for its exit. Cancel-safe.
    ///
    /// # Errors
    ///
    /// The system's; it counts as gone then.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Kills it and its children, and waits for their exit: one of them may write to its profile to the last.
    pub async fn kill(mut self) {
        self.signal();
        let gone = async {
            let _ = self.child.wait().await;
            while self.group.is_some_and(has_living) {
                sleep(GROUP_INTERVAL).await;
            }
        };
        if timeout(EXIT_TIMEOUT, gone).await.is_err() {
            warn!("the browser or a child of it does not die");
        }
    }

    fn signal(&self) {
        // Its children are in its group.
        if let Some(group) = self.group
            && let Err(error) = kill_process_group(group, Signal::KILL)
        {
            debug!(%error, "the browser's group is gone already");
        }
    }
}

/// Whether a process of this group may still write something.
fn has_living(group: Pid) -> bool {
    let group = group.as_raw_nonzero().get();
    ProcessStat::all().any(|stat| stat.group == group && !stat.is_dead())
}

impl Drop for BrowserProcess {
    fn drop(&mut self) {
        self.signal();
    }
}

/// Its address, or the last line before it ended.
async fn address(lines: &mut Lines<BufReader<ChildStderr>>) -> Result<String, String> {
    let mut last = "it wrote nothing".to_owned();
    loop {
        match lines.next_line().await {
            Ok(Some(line)) => match line.split_once(ADDRESS) {
                Some((_, address)) => return Ok(address.trim().to_owned()),
                None if line.trim().is_empty() => {}
                None => last = line.chars().take(MAX_REASON).collect(),
            },
            Ok(None) => return Err(last),
            Err(error) => return Err(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const SHELL: &str = "/bin/sh";

    /// Arguments with which a shell does this instead of Chromium.
    fn script(body: &str) -> Vec<String> {
        vec!["-c".to_owned(), body.to_owned()]
    }

    #[tokio::test]
    async fn its_address_is_read_and_its_children_die_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let pids = folder.path().join("pids");
        let body = format!(
            "echo noise >&2\nsleep 1000 &\necho $! > {}\necho 'DevTools listening on ws://127.0.0.1:1/x' >&2\nwait",
            pids.display()
        );
        let environment = BTreeMap::from([("PATH", "/usr/bin:/bin".to_owned())]);
        let browser = BrowserProcess::start(Path::new(SHELL), &script(&body), &environment).await.unwrap();
        assert_eq!(browser.address, "ws://127.0.0.1:1/x");
        let child: i32 = fs::read_to_string(&pids).unwrap().trim().parse().unwrap();
        browser.kill().await;
        let child = format!("/proc/{child}/stat");
        // A zombie until its new parent has looked.
        let is_gone = fs::read_to_string(&child).map_or(true, |stat| stat.contains(") Z "));
        assert!(is_gone, "its child lives on");
    }

    #[tokio::test]
    async fn what_ends_at_once_says_why() {
        let start = async |program: &str, arguments: &[String]| {
            BrowserProcess::start(Path::new(program), arguments, &BTreeMap::new()).await.unwrap_err()
        };
        let error = start(SHELL, &script("echo 'no usable sandbox' >&2")).await;
        assert_eq!(error.to_string(), "the browser ended at once: no usable sandbox");
        let error = start("/nosuch/chromium", &[]).await;
        assert!(matches!(error, BrowserError::Start { .. }), "{error}");
    }
}
