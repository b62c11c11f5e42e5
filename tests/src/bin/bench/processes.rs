//! CPU and memory of the processes of recordings, from /proc.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use spillway_tests::servers::TestServers;

/// Clock ticks a second of /proc/<pid>/stat: 100 on every Linux that Debian runs on.
const TICKS: f64 = 100.0;

/// Every runner and media process that these servers' dispatcher has started.
pub fn of_recordings(servers: &TestServers) -> Vec<i32> {
    let is_of_one = |command: &str| command.contains("spillway-runner") || command.contains("spillway-media");
    servers.left_behind().into_iter().filter(|(_, command)| is_of_one(command)).map(|(pid, _)| pid).collect()
}

/// CPU seconds that they use per second, from now on for so long.
pub async fn cores(pids: &[i32], time: Duration) -> f64 {
    let (before, begun) = (cpu_seconds(pids), Instant::now());
    tokio::time::sleep(time).await;
    (cpu_seconds(pids) - before) / begun.elapsed().as_secs_f64()
}

/// CPU seconds that they have used so far.
pub fn cpu_seconds(pids: &[i32]) -> f64 {
    pids.iter().filter_map(|pid| stat(*pid)).map(|fields| (fields[11] + fields[12]) / TICKS).sum()
}

/// What all processors of this machine have done since it started, in ticks.
#[derive(Clone, Copy, Debug)]
pub struct MachineTime {
    all: f64,
    idle: f64,
}

impl MachineTime {
    /// Until now.
    pub fn now() -> Result<Self> {
        Self::read(&std::fs::read_to_string("/proc/stat").context("read /proc/stat")?)
            .context("no line of all processors")
    }

    /// The first line; idle and iowait are the fourth and fifth number, what guests use is counted twice (proc(5)).
    fn read(stat: &str) -> Option<Self> {
        let numbers = stat.lines().next()?.strip_prefix("cpu ")?;
        let numbers: Vec<f64> = numbers.split_whitespace().take(8).filter_map(|field| field.parse().ok()).collect();
        Some(Self { all: numbers.iter().sum(), idle: numbers.get(3)? + numbers.get(4)? })
    }

    /// Share of the machine that nobody has used since then, 0 to 1.
    pub fn idle_since(self, before: Self) -> f64 {
        (self.idle - before.idle) / (self.all - before.all).max(1.0)
    }
}

/// Unix time at which a process was started; `None` when it is gone.
pub fn started_ms(pid: i32) -> Option<f64> {
    let after_boot = stat(pid)?.get(19)? / TICKS;
    let uptime: f64 = std::fs::read_to_string("/proc/uptime").ok()?.split(' ').next()?.parse().ok()?;
    Some(unix_ms() - (uptime - after_boot) * 1000.0)
}

/// Most memory that a process has had; `None` when it is gone.
pub fn peak_mb(pid: i32) -> Option<f64> {
    status_mb(pid, "VmHWM:")
}

/// Memory that a process has now; `None` when it is gone.
pub fn resident_mb(pid: i32) -> Option<f64> {
    status_mb(pid, "VmRSS:")
}

/// Its share of memory: pages that several processes have are divided by their number. `None` when it is gone.
pub fn pss_mb(pid: i32) -> Option<f64> {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = rollup.lines().find(|line| line.starts_with("Pss:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<f64>().ok()? / 1024.0)
}

/// Now, as Unix time.
pub fn unix_ms() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64() * 1000.0)
}

/// The fields of /proc/<pid>/stat after the command's name; the third of the file is the first here.
fn stat(pid: i32) -> Option<Vec<f64>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    Some(rest.split_whitespace().map(|field| field.parse().unwrap_or(0.0)).collect())
}

fn status_mb(pid: i32, field: &str) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with(field))?;
    Some(line.split_whitespace().nth(1)?.parse::<f64>().ok()? / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_as_idle_as_its_processors() {
        let read = |stat| MachineTime::read(stat).unwrap();
        let before = read("cpu  100 0 50 800 50 0 0 0 0 0\ncpu0 50 0 25 400 25 0 0 0 0 0\n");
        let after = read("cpu  150 0 75 850 75 0 0 0 20 0\ncpu0 75 0 40 425 37 0 0 0 20 0\n");
        assert_eq!(after.idle_since(before), 0.5);
        assert!(MachineTime::read("intr 1").is_none());
    }
}
