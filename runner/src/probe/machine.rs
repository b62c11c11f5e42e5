//! The machine as the runner finds it: CPU, memory, the disk of the spool, the clock. Against what was asked for.

use std::io;
use std::path::{Path, PathBuf};

use spillway_bus::{ProbeCause, ProbeLine, ProbeOrder};
use tokio::task::spawn_blocking;

use crate::config::Settings;
use crate::upload::free_bytes;

/// The kernel and the platform keep a part for themselves: of what was asked for, this much has to be seen.
const LEAST_SHARE: f64 = 0.8;
/// With less a recording can hardly begin.
const LEAST_SPOOL: u64 = 64 << 20;
/// Difference of clocks from which on a finding is a warning. Recordings use Redis' time; the log does not.
const SKEW_WARNED_NS: u64 = 2_000_000_000;
/// From here on requests are refused by stores (15 minutes at AWS, Google and Azure), which tolerate a part of it in either
/// direction, and certificates may count as not valid yet.
const SKEW_FAILED_NS: u64 = 300_000_000_000;

/// `redis_ahead_ns`: by how much Redis' time is ahead of the host's.
pub(super) fn clock(redis_ahead_ns: i64) -> ProbeLine {
    let (off, seconds) = (redis_ahead_ns.unsigned_abs(), redis_ahead_ns.unsigned_abs() as f64 / 1e9);
    let side = if redis_ahead_ns > 0 { "behind" } else { "ahead of" };
    match off {
        0..SKEW_WARNED_NS => ProbeLine::passed("clock", format!("{seconds:.3} s {side} Redis'")),
        SKEW_WARNED_NS..SKEW_FAILED_NS => {
            let message = format!("{seconds:.1} s {side} Redis'; recordings are stamped with Redis' time");
            ProbeLine::warned("clock", ProbeCause::ClockWrong, message)
        }
        _ => {
            let message =
                format!("{seconds:.0} s {side} Redis'; stores refuse requests that are signed with such a time");
            ProbeLine::failed("clock", ProbeCause::ClockWrong, message)
        }
    }
}

/// `stays_local`: files are recorded where they stay.
pub(super) async fn check(settings: &Settings, order: &ProbeOrder, stays_local: bool) -> Vec<ProbeLine> {
    let (settings, order) = (settings.clone(), order.clone());
    let found = spawn_blocking(move || {
        let mut lines = vec![size(&seen(), &order)];
        let (check, folder) = match stays_local {
            true => ("disk", settings.local_root.clone().unwrap_or_else(|| PathBuf::from("."))),
            false => ("spool", settings.upload.spool()),
        };
        lines.push(disk(check, &folder, order.shape.disk_gib));
        lines
    });
    found.await.unwrap_or_else(|error| {
        vec![ProbeLine::failed("machine", ProbeCause::SpoolUnusable, format!("the check broke off: {error}"))]
    })
}

/// CPU and memory that this task may use.
#[derive(Clone, Copy, Debug, PartialEq)]
struct SeenMachine {
    cpu_milli: u64,
    memory_mib: u64,
}

fn seen() -> SeenMachine {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    let cpu = cpu_limit(read).unwrap_or(u64::MAX).min(cores * 1000);
    let total = read("/proc/meminfo").and_then(|text| memory_total(&text)).unwrap_or(u64::MAX);
    SeenMachine { cpu_milli: cpu, memory_mib: memory_limit(read).unwrap_or(u64::MAX).min(total) >> 20 }
}

/// Thousandths of a core, from the control group of either version; `None`: no limit.
fn cpu_limit(read: impl Fn(&str) -> Option<String>) -> Option<u64> {
    let (quota, period) = match read("/sys/fs/cgroup/cpu.max") {
        Some(both) => {
            let (quota, period) = both.trim().split_once(' ')?;
            (quota.to_owned(), period.to_owned())
        }
        None => (read("/sys/fs/cgroup/cpu/cpu.cfs_quota_us")?, read("/sys/fs/cgroup/cpu/cpu.cfs_period_us")?),
    };
    // "max" and -1 are no limit.
    let (quota, period) = (quota.trim().parse::<u64>().ok()?, period.trim().parse::<u64>().ok()?);
    quota.checked_mul(1000)?.checked_div(period)
}

/// Bytes; `None`: no limit.
fn memory_limit(read: impl Fn(&str) -> Option<String>) -> Option<u64> {
    let files = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    files.into_iter().find_map(read)?.trim().parse().ok()
}

/// Bytes, from `MemTotal:  16318480 kB`.
fn memory_total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

fn size(seen: &SeenMachine, order: &ProbeOrder) -> ProbeLine {
    let asked = order.shape;
    let SeenMachine { cpu_milli, memory_mib } = *seen;
    let message = format!(
        "{} cores and {memory_mib} MiB, of {} cores and {} MiB asked for",
        cpu_milli as f64 / 1000.0,
        f64::from(asked.cpu_milli) / 1000.0,
        asked.memory_mib
    );
    let is_less = |seen: u64, asked: u32| (seen as f64) < f64::from(asked) * LEAST_SHARE;
    if is_less(cpu_milli, asked.cpu_milli) || is_less(memory_mib, asked.memory_mib) {
        ProbeLine::warned("machine", ProbeCause::MachineSmall, message)
    } else {
        ProbeLine::passed("machine", message)
    }
}

/// `asked_gib`: 0 where the disk is not asked for.
fn disk(check: &'static str, folder: &Path, asked_gib: u32) -> ProbeLine {
    let shown = folder.display();
    if let Err(error) = write(folder) {
        return ProbeLine::failed(check, ProbeCause::SpoolUnusable, format!("{shown} cannot be written: {error}"));
    }
    let free = free_bytes(folder);
    let message = format!("{shown}: {:.1} GiB free", free as f64 / f64::from(1 << 30));
    // A platform's own files and the image take their part of a disk.
    let least = u64::from(asked_gib) << 29;
    match free {
        _ if free < LEAST_SPOOL => ProbeLine::failed(check, ProbeCause::SpoolSmall, message),
        _ if free < least => {
            ProbeLine::warned(check, ProbeCause::SpoolSmall, format!("{message}, of {asked_gib} GiB asked for"))
        }
        _ => ProbeLine::passed(check, message),
    }
}

/// Writes a file in the folder and removes it again.
fn write(folder: &Path) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let path = folder.join(format!(".spillway-probe-{}", std::process::id()));
    let written = std::fs::write(&path, [0; 4096]);
    let removed = std::fs::remove_file(&path);
    written.and(removed)
}

#[cfg(test)]
mod tests {
    use spillway_bus::ProbeOutcome::{Failed, Passed, Warned};
    use spillway_bus::{Platform, Shape};

    use super::*;

    fn order(cpu_milli: u32, memory_mib: u32) -> ProbeOrder {
        let shape = Shape { cpu_milli, memory_mib, disk_gib: 20 };
        ProbeOrder { platform: Platform::Fargate, shape, object: String::new() }
    }

    #[test]
    fn a_clock_is_judged_by_what_it_breaks() {
        for (ahead, outcome, side) in [
            (3_000_000, Passed, "behind"),
            (-1_900_000_000, Passed, "ahead of"),
            (20_000_000_000, Warned, "20.0 s behind"),
            (-1_200_000_000_000, Failed, "1200 s ahead of"),
        ] {
            let line = clock(ahead);
            assert!(line.outcome == outcome && line.message.contains(side), "{line:?}");
            assert_eq!(line.cause.is_some(), outcome != Passed);
        }
    }

    #[test]
    fn limits_of_either_version_of_control_groups_are_read() {
        let files = |given: &'static [(&'static str, &'static str)]| {
            move |path: &str| given.iter().find(|(known, _)| *known == path).map(|(_, text)| (*text).to_owned())
        };
        let v2 = files(&[("/sys/fs/cgroup/cpu.max", "50000 100000\n"), ("/sys/fs/cgroup/memory.max", "536870912\n")]);
        assert_eq!((cpu_limit(v2), memory_limit(v2)), (Some(500), Some(512 << 20)));
        let free = files(&[("/sys/fs/cgroup/cpu.max", "max 100000\n"), ("/sys/fs/cgroup/memory.max", "max\n")]);
        assert_eq!((cpu_limit(free), memory_limit(free)), (None, None));
        let v1 = files(&[
            ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "200000\n"),
            ("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"),
        ]);
        assert_eq!((cpu_limit(v1), memory_limit(v1)), (Some(2000), None));
        assert_eq!(memory_total("MemFree: 1 kB\nMemTotal:       16318480 kB\n"), Some(16_318_480 * 1024));
    }

    #[test]
    fn a_machine_that_is_smaller_than_asked_for_is_a_warning() {
        let seen = SeenMachine { cpu_milli: 2000, memory_mib: 470 };
        assert_eq!(size(&seen, &order(250, 512)).outcome, Passed, "the kernel keeps a part");
        assert_eq!(size(&seen, &order(4000, 512)).outcome, Warned);
        assert_eq!(size(&seen, &order(250, 1024)).cause, Some(ProbeCause::MachineSmall));
    }

    #[test]
    fn a_folder_is_written_and_measured() {
        let folder = tempfile::tempdir().unwrap();
        let line = disk("spool", &folder.path().join("new/spool"), 0);
        assert!(line.outcome == Passed && line.message.contains("GiB free"), "{line:?}");
        assert_eq!(std::fs::read_dir(folder.path().join("new/spool")).unwrap().count(), 0);
        assert_eq!(disk("spool", &folder.path().join("new/spool"), 1 << 20).outcome, Warned);
        std::fs::write(folder.path().join("file"), "").unwrap();
        let line = disk("spool", &folder.path().join("file"), 0);
        assert_eq!((line.outcome, line.cause), (Failed, Some(ProbeCause::SpoolUnusable)));
    }
}
