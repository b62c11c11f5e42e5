//! A container without a container: the program, with the environment it was given and nothing else. When its first
//! process is gone, the others are killed, as a platform does.

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

/// Handed on by the runner to its child, like all that begins with XDG_.
const TASK_MARK: &str = "XDG_SPILLWAY_TASK";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Status(i32),
    Signal(i32),
}

impl Exit {
    fn of(status: ExitStatus) -> Self {
        match (status.signal(), status.code()) {
            (Some(signal), _) => Self::Signal(signal),
            (None, code) => Self::Status(code.unwrap_or(-1)),
        }
    }

    /// As a shell and a container runtime tell it.
    pub fn code(self) -> i32 {
        match self {
            Self::Status(code) => code,
            Self::Signal(signal) => 128 + signal,
        }
    }
}

/// One running program. Dropped: it goes on; the stage's mark ends it at last.
#[derive(Clone, Debug)]
pub struct TaskProcess {
    pid: i32,
    /// Of all that it starts, on this whole machine.
    name: String,
    exit: watch::Receiver<Option<Exit>>,
}

impl TaskProcess {
    /// `given` goes before what the definition says. `name` is unique in the place's folder.
    pub fn start(
        setup: &CloudSetup,
        name: &str,
        given: &BTreeMap<String, String>,
        arguments: &[String],
    ) -> Result<Self> {
        let log = setup.folder.join(format!("{name}.log"));
        let log =
            File::options().create(true).append(true).open(&log).with_context(|| format!("open {}", log.display()))?;
        // A disk of its own: what lies there is gone with it.
        let disk = setup.folder.join(format!("{name}.disk"));
        std::fs::create_dir_all(&disk).with_context(|| format!("make {}", disk.display()))?;
        // Other stages on this machine may have one of this name.
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

    pub fn over(&self) -> Option<Exit> {
        *self.exit.borrow()
    }

    pub async fn exit(&self) -> Exit {
        let mut exit = self.exit.clone();
        match exit.wait_for(Option::is_some).await.map(|exit| *exit) {
            Ok(Some(exit)) => exit,
            // Whoever waited for it is gone, with the runtime.
            _ => Exit::Status(-1),
        }
    }

    pub fn signal(&self, signal: Signal) {
        if self.over().is_none() {
            kill(self.pid, signal);
        }
    }

    /// SIGTERM, and SIGKILL for everything after the grace; without one, the kill alone.
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

    pub fn kill(&self) {
        self.signal(Signal::KILL);
        for (pid, _) in marked_as(TASK_MARK, &self.name) {
            kill(pid, Signal::KILL);
        }
    }

    /// Its first process, to look at it.
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
