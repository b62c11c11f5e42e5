//! Processes in `/proc`: environment, and an identity that a recycled pid does not share. Reads are short and
//! block; called from the launcher's async methods.

use std::path::Path;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use spillway_process::ProcessStat;

/// Identity of a process: pids are recycled, the start time on this boot in this namespace is not.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct ProcessIdentity {
    /// Boot id and pid namespace: what makes `pid` mean something.
    pub namespace: String,
    /// Process id in that namespace.
    pub pid: i32,
    /// Start time, clock ticks since boot.
    pub start_ticks: u64,
}

impl ProcessIdentity {
    /// Reads what [`ProcessIdentity::text`] has written.
    pub fn parse(text: &str) -> Option<Self> {
        let (rest, start_ticks) = text.rsplit_once('/')?;
        let (namespace, pid) = rest.rsplit_once('/')?;
        Some(Self {
            namespace: namespace.to_owned(),
            pid: pid.parse().ok().filter(|pid| *pid > 0)?,
            start_ticks: start_ticks.parse().ok()?,
        })
    }

    /// As `TaskRef`s carry it.
    pub fn text(&self) -> String {
        format!("{}/{}/{}", self.namespace, self.pid, self.start_ticks)
    }

    /// Whether it runs; a zombie does not.
    pub fn is_alive(&self) -> bool {
        ProcessStat::of(self.pid).is_some_and(|stat| stat.start_ticks == self.start_ticks && !stat.is_dead())
    }

    /// False when it has exited. The signal goes through a pidfd that was opened before the identity was checked, so it cannot
    /// reach a later process with the same pid.
    pub fn signal(&self, signal: Signal) -> bool {
        let Some(pid) = Pid::from_raw(self.pid) else { return false };
        let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else { return false };
        self.is_alive() && pidfd_send_signal(handle, signal).is_ok()
    }
}

/// Boot id and pid namespace. Empty parts where `/proc` does not say; then no process is recognised after a restart, which is
/// the safe side.
pub(super) fn namespace() -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let namespace = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    format!("{}+{}", boot.trim(), namespace.display())
}

/// Running session leaders whose environment we may read, each with it.
pub(super) fn leaders(namespace: &str) -> impl Iterator<Item = (ProcessIdentity, Vec<u8>)> {
    ProcessStat::all().filter(|stat| stat.session == stat.pid && !stat.is_dead()).filter_map(move |stat| {
        let environment = std::fs::read(format!("/proc/{}/environ", stat.pid)).ok()?;
        let ProcessStat { pid, start_ticks, .. } = stat;
        Some((ProcessIdentity { namespace: namespace.to_owned(), pid, start_ticks }, environment))
    })
}

pub(super) fn is_executable(path: &Path) -> bool {
    rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok() && path.is_file()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn we_are_alive_and_our_pid_with_another_start_is_not() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let me =
            ProcessIdentity { namespace: namespace(), pid, start_ticks: ProcessStat::of(pid).unwrap().start_ticks };
        assert!(me.is_alive());
        assert_eq!(ProcessIdentity::parse(&me.text()), Some(me.clone()));
        let another = ProcessIdentity { start_ticks: me.start_ticks + 1, ..me };
        assert!(!another.is_alive());
        assert!(!another.signal(Signal::TERM));
    }
}
