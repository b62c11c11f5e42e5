//! Less CPU for one process: by a cgroup (version 2 or 1) where this user may make one, else by stopping and continuing the
//! process, so that it gets its share over some tens of milliseconds.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

use crate::processes::cpu_seconds;

/// Of a quota; as short as the kernel allows with a quota of a few percent.
const PERIOD_US: u64 = 20_000;
/// Between two looks at what the process has used, which the kernel counts in steps of 10 ms.
const STEP: Duration = Duration::from_millis(10);

/// Holds a process to a number of cores until it is dropped.
pub struct Throttle {
    how: &'static str,
    kind: ThrottleKind,
}

enum ThrottleKind {
    Group { group: QuotaGroup, pid: i32 },
    DutyCycle { over: Arc<AtomicBool>, thread: Option<JoinHandle<()>> },
}

/// Makes a group of this name with a quota of so many microseconds each [`PERIOD_US`].
type MakeGroup = fn(&str, u64) -> std::io::Result<QuotaGroup>;

/// A cgroup of one process.
struct QuotaGroup {
    folder: PathBuf,
    /// File and text that end the quota.
    unlimited: (&'static str, String),
}

impl Throttle {
    /// From now on.
    pub fn start(pid: i32, cores: f64) -> Result<Self> {
        let ways: [(&'static str, MakeGroup); 2] = [("cgroup v2", second_version), ("cgroup v1", first_version)];
        for (how, make) in ways {
            let name = format!("spillway-bench-{pid}");
            // What this user may not do is not done; the next way is tried.
            if let Ok(group) = make(&name, (cores * PERIOD_US as f64) as u64)
                && put(&group.folder.join("cgroup.procs"), &pid.to_string()).is_ok()
            {
                return Ok(Self { how, kind: ThrottleKind::Group { group, pid } });
            }
        }
        let over = Arc::new(AtomicBool::new(false));
        let process = Pid::from_raw(pid).context("a pid is not zero")?;
        let until = over.clone();
        let thread = std::thread::spawn(move || duty_cycle(process, cores, &until));
        Ok(Self { how: "stopped and continued", kind: ThrottleKind::DutyCycle { over, thread: Some(thread) } })
    }

    /// How it is held, for the figures.
    pub fn how(&self) -> &'static str {
        self.how
    }
}

impl Drop for Throttle {
    fn drop(&mut self) {
        // What cannot be undone ends with the process.
        match &mut self.kind {
            ThrottleKind::Group { group, pid } => {
                let (file, text) = &group.unlimited;
                let _ = put(&group.folder.join(file), text);
                // An empty group can be removed.
                let _ = put(&group.folder.with_file_name("cgroup.procs"), &pid.to_string());
            }
            ThrottleKind::DutyCycle { over, thread } => {
                over.store(true, Ordering::Relaxed);
                if let Some(thread) = thread.take() {
                    let _ = thread.join();
                }
            }
        }
    }
}

impl Drop for QuotaGroup {
    fn drop(&mut self) {
        // Refused while a process is in it, which costs nothing.
        let _ = std::fs::remove_dir(&self.folder);
    }
}

fn second_version(name: &str, quota_us: u64) -> std::io::Result<QuotaGroup> {
    let folder = Path::new("/sys/fs/cgroup").join(name);
    let group = made(folder, ("cpu.max", format!("max {PERIOD_US}")))?;
    put(&group.folder.join("cpu.max"), &format!("{quota_us} {PERIOD_US}"))?;
    Ok(group)
}

fn first_version(name: &str, quota_us: u64) -> std::io::Result<QuotaGroup> {
    let folder = Path::new("/sys/fs/cgroup/cpu").join(name);
    let group = made(folder, ("cpu.cfs_quota_us", "-1".to_owned()))?;
    put(&group.folder.join("cpu.cfs_period_us"), &PERIOD_US.to_string())?;
    put(&group.folder.join("cpu.cfs_quota_us"), &quota_us.to_string())?;
    Ok(group)
}

/// Into a file that the kernel made with the group: where no controller is mounted the folder is an ordinary one.
fn put(file: &Path, text: &str) -> std::io::Result<()> {
    File::options().write(true).open(file)?.write_all(text.as_bytes())
}

fn made(folder: PathBuf, unlimited: (&'static str, String)) -> std::io::Result<QuotaGroup> {
    std::fs::create_dir(&folder)?;
    Ok(QuotaGroup { folder, unlimited })
}

/// Stops the process while it has used more than its share since the beginning.
fn duty_cycle(process: Pid, cores: f64, over: &AtomicBool) {
    let pids = [process.as_raw_nonzero().get()];
    let (begun, before) = (Instant::now(), cpu_seconds(&pids));
    while !over.load(Ordering::Relaxed) {
        let is_over_its_share = cpu_seconds(&pids) - before > begun.elapsed().as_secs_f64() * cores;
        let signal = if is_over_its_share { Signal::STOP } else { Signal::CONT };
        if kill_process(process, signal).is_err() {
            return;
        }
        std::thread::sleep(STEP);
    }
    // It may have ended meanwhile.
    let _ = kill_process(process, Signal::CONT);
}
