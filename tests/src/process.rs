//! Child processes that end with the test, also when it panics or is killed, and processes found by a mark in their
//! environment.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// Variable with the mark of a run, in the environment of everything that the harness starts, so that grandchildren can
/// be found and ended too. Launcher and runner pass on few variables; those that begin with `XDG_` are among them.
pub const MARK: &str = "XDG_SPILLWAY_TEST_RUN";

/// A mark that no other run on this machine has.
pub fn new_mark(what: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("{what}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// A child process. Killed when dropped, also when a test panics, and (where `setpriv` exists) when the test process is
/// killed.
pub struct Process {
    child: Child,
    name: String,
    /// Standard output and standard error.
    pub log: PathBuf,
}

impl Process {
    /// Starts a program; `prepare` adds arguments and environment. Its output is appended to `<folder>/<name>.log`.
    pub fn start(
        name: &str,
        program: &Path,
        folder: &Path,
        mark: &str,
        prepare: impl FnOnce(&mut Command),
    ) -> Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let out =
            File::options().create(true).append(true).open(&log).with_context(|| format!("open {}", log.display()))?;
        let mut command = if Path::new("/usr/bin/setpriv").exists() {
            let mut command = Command::new("/usr/bin/setpriv");
            command.args(["--pdeathsig", "KILL", "--"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        command.env(MARK, mark).stdin(Stdio::null()).stdout(out.try_clone().context("share the log")?).stderr(out);
        prepare(&mut command);
        let child = command.spawn().with_context(|| format!("start {} ({})", name, program.display()))?;
        Ok(Self { child, name: name.to_owned(), log })
    }

    /// Process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal; an error where the process has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(self.child.id() as i32).context("a pid is not zero")?;
        kill_process(pid, signal).with_context(|| format!("signal {}", self.name))
    }

    /// The exit status, if it has ended.
    pub fn over(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("look at {}", self.name))
    }

    /// Polls `ready` until it is true. An exit before that, or `limit`, is an error with the end of the log.
    pub fn wait_until(&mut self, limit: Duration, mut ready: impl FnMut() -> bool) -> Result<()> {
        let begun = Instant::now();
        loop {
            if ready() {
                return Ok(());
            }
            if let Some(status) = self.over()? {
                bail!("{} ended with {status} before it was ready:\n{}", self.name, self.tail());
            }
            if begun.elapsed() > limit {
                bail!("{} was not ready after {limit:?}:\n{}", self.name, self.tail());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sends SIGTERM and waits; kills the process after `limit` and gives `None` then.
    pub fn stop(&mut self, limit: Duration) -> Result<Option<ExitStatus>> {
        if self.over()?.is_none() {
            self.signal(Signal::TERM)?;
        }
        let begun = Instant::now();
        while begun.elapsed() < limit {
            if let Some(status) = self.over()? {
                return Ok(Some(status));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.kill()?;
        Ok(None)
    }

    /// Sends SIGKILL and waits.
    pub fn kill(&mut self) -> Result<()> {
        if self.over()?.is_none() {
            self.child.kill().with_context(|| format!("kill {}", self.name))?;
        }
        self.child.wait().with_context(|| format!("wait for {}", self.name))?;
        Ok(())
    }

    /// The last 3000 bytes of its output.
    pub fn tail(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&text[text.len().saturating_sub(3000)..]).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A drop cannot report an error.
        let _ = self.kill();
    }
}

/// Pid and command line of living processes with this mark, also of those in sessions of their own.
pub fn marked(mark: &str) -> Vec<(i32, String)> {
    marked_as(MARK, mark)
}

/// Pid and command line of living processes with this variable in their environment.
pub fn marked_as(name: &str, value: &str) -> Vec<(i32, String)> {
    let wanted = format!("{name}={value}");
    let has_it = |pid: i32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes())
    };
    running().into_iter().filter(|(pid, _)| has_it(*pid)).collect()
}

/// Pid and command line of this process and of every living one that it or its children have started.
pub fn below(root: i32) -> Vec<(i32, String)> {
    let parent = |pid: i32| -> Option<i32> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // After the name, which may have anything in it: state, parent.
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
    };
    let is_below = |pid: i32| std::iter::successors(Some(pid), |pid| parent(*pid)).any(|pid| pid == root);
    running().into_iter().filter(|(pid, _)| is_below(*pid)).collect()
}

/// Pid and command line of every living process.
pub fn running() -> Vec<(i32, String)> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let command = |pid: i32| {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        (pid, String::from_utf8_lossy(&command).replace('\0', " ").trim().to_owned())
    };
    // A zombie has no command line and does no harm.
    pids.map(command).filter(|(_, command)| !command.is_empty()).collect()
}

/// Kills every process with this mark.
pub fn kill_marked(mark: &str) {
    signal_marked(mark, Signal::KILL);
}

/// Sends a signal to every process with this mark.
pub fn signal_marked(mark: &str, signal: Signal) {
    for (pid, _) in marked(mark) {
        if let Some(pid) = Pid::from_raw(pid) {
            // It may have ended by itself meanwhile.
            let _ = kill_process(pid, signal);
        }
    }
}

/// Polls `look` every 25 ms until it gives something; an error after `limit`, or at once where `look` fails.
pub async fn eventually<T, F: Future<Output = Result<Option<T>>>>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> F,
) -> Result<T> {
    let begun = Instant::now();
    loop {
        if let Some(found) = look().await? {
            return Ok(found);
        }
        if begun.elapsed() > limit {
            bail!("{what}: not after {limit:?}");
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

/// CPU seconds of all children that have ended and were waited for, and of theirs.
pub fn children_core_s() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The second field may hold anything, in brackets; cutime and cstime are the sixteenth and seventeenth.
    let rest = stat.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
    let ticks: f64 = rest.split_whitespace().skip(13).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    ticks / 100.0
}
