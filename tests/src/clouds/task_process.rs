//! A task without a container: a program with the given environment and nothing else. When its first process has ended,
//! its other processes are killed and its disk is removed, as a platform does.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Command;
use tokio::sync::watch;

use super::CloudSetup;
use crate::process::{MARK, marked_as};

/// Variable with the mark of one task. The runner passes on what begins with `XDG_`.
const TASK_MARK: &str = "XDG_SPILLWAY_TASK";

/// How the first process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Exit code.
    Status(i32),
    /// Number of the signal.
    Signal(i32),
}

impl Exit {
    fn of(status: ExitStatus) -> Self {
        match (status.signal(), status.code()) {
            (Some(signal), _) => Self::Signal(signal),
            (None, code) => Self::Status(code.unwrap_or(-1)),
        }
    }

    /// As shells and container runtimes report it.
    pub fn code(self) -> i32 {
        match self {
            Self::Status(code) => code,
            Self::Signal(signal) => 128 + signal,
        }
    }
}

/// Handle of a running task. The task runs on when it is dropped, until the mark of the harness ends it.
#[derive(Clone, Debug)]
pub struct TaskProcess {
    pid: i32,
    /// Mark of all its processes, unique on this machine.
    name: String,
    exit: watch::Receiver<Option<Exit>>,
}

impl TaskProcess {
    /// Starts a task. `given` overrides the environment of the definition. `name` is unique in the folder of the setup.
    pub fn start(
        setup: &CloudSetup,
        name: &str,
        given: &BTreeMap<String, String>,
        arguments: &[String],
    ) -> Result<Self> {
        let log = setup.folder.join(format!("{name}.log"));
        let log =
            File::options().create(true).append(true).open(&log).with_context(|| format!("open {}", log.display()))?;
        // A disk of its own, removed with the task.
        let disk = setup.folder.join(format!("{name}.disk"));
        std::fs::create_dir_all(&disk).with_context(|| format!("make {}", disk.display()))?;
        // Another test program may have a task of this name.
        let mark = format!("{name}-{:016x}", rand::random::<u64>());
        let mut child = Command::new(&setup.program)
            .args(&setup.arguments)
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", &setup.folder)
            .env("TMPDIR", &disk)
            .env(MARK, &setup.mark)
            .env(TASK_MARK, &mark)
            .envs(&setup.environment)
            .envs(given)
            .current_dir(&setup.folder)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {}", setup.program.display()))?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).context("a child has a pid")?;
        let (sender, exit) = watch::channel(None);
        let marked = mark.clone();
        tokio::spawn(async move {
            let status = child.wait().await.map(Exit::of).unwrap_or(Exit::Status(-1));
            for (pid, _) in marked_as(TASK_MARK, &marked) {
                kill(pid, Signal::KILL);
            }
            if let Err(error) = std::fs::remove_dir_all(&disk) {
                tracing::warn!(%error, disk = %disk.display(), "disk of a task not removed");
            }
            sender.send_replace(Some(status));
        });
        Ok(Self { pid, name: mark, exit })
    }

    /// How it ended, if it has.
    pub fn over(&self) -> Option<Exit> {
        *self.exit.borrow()
    }

    /// Waits for its end.
    pub async fn exit(&self) -> Exit {
        let mut exit = self.exit.clone();
        match exit.wait_for(Option::is_some).await.map(|exit| *exit) {
            Ok(Some(exit)) => exit,
            // The waiting task has ended with its runtime.
            _ => Exit::Status(-1),
        }
    }

    /// Sends a signal to the first process.
    pub fn signal(&self, signal: Signal) {
        if self.over().is_none() {
            kill(self.pid, signal);
        }
    }

    /// SIGTERM, and SIGKILL for all its processes after the grace; SIGKILL at once without grace.
    pub async fn stop(&self, grace: Duration) -> Exit {
        if grace.is_zero() {
            self.kill();
            return self.exit().await;
        }
        self.signal(Signal::TERM);
        if let Ok(exit) = tokio::time::timeout(grace, self.exit()).await {
            return exit;
        }
        self.kill();
        self.exit().await
    }

    /// SIGKILL for all its processes.
    pub fn kill(&self) {
        self.signal(Signal::KILL);
        for (pid, _) in marked_as(TASK_MARK, &self.name) {
            kill(pid, Signal::KILL);
        }
    }

    /// Pid of the first process.
    pub fn pid(&self) -> i32 {
        self.pid
    }
}

fn kill(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        // It may be gone meanwhile.
        let _ = kill_process(pid, signal);
    }
}
