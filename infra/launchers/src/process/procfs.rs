//! Processes in `/proc`: state, session, environment, and an identity that a recycled pid does not share. Reads are short and
//! block; called from the launcher's async methods.

use std::path::Path;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

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
        stat(self.pid).is_some_and(|stat| stat.start_ticks == self.start_ticks && !stat.is_dead())
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

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    /// `R`, `S`, `Z` …
    pub state: char,
    /// Session id.
    pub session: i32,
    /// Start time, clock ticks since boot.
    pub start_ticks: u64,
}

impl Stat {
    /// True also for a zombie, which only waits for its parent's wait().
    pub fn is_dead(&self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x')
    }
}

pub(super) fn stat(pid: i32) -> Option<Stat> {
    parse_stat(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The program's name is in parentheses and may contain any character, so fields are counted from the last parenthesis.
fn parse_stat(line: &str) -> Option<Stat> {
    let fields: Vec<&str> = line.rsplit_once(')')?.1.split_whitespace().collect();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        session: fields.get(3)?.parse().ok()?,
        start_ticks: fields.get(19)?.parse().ok()?,
    })
}

/// Running session leaders whose environment we may read, each with it.
pub(super) fn leaders(namespace: &str) -> impl Iterator<Item = (ProcessIdentity, Vec<u8>)> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(move |entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let stat = stat(pid).filter(|stat| stat.session == pid && !stat.is_dead())?;
        let environment = std::fs::read(entry.path().join("environ")).ok()?;
        Some((ProcessIdentity { namespace: namespace.to_owned(), pid, start_ticks: stat.start_ticks }, environment))
    })
}

pub(super) fn is_executable(path: &Path) -> bool {
    rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok() && path.is_file()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_and_spaces_does_not_shift_the_fields() {
        let line = "4242 (a) b (c) S 1 4242 4242 0 -1 4194304 95 0 0 0 0 0 0 0 20 0 1 0 987654 2654208 200 18446744073709551615";
        assert_eq!(parse_stat(line), Some(Stat { state: 'S', session: 4242, start_ticks: 987_654 }));
        assert_eq!(parse_stat("nonsense"), None);
    }

    #[test]
    fn we_are_alive_and_our_pid_with_another_start_is_not() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let me = ProcessIdentity { namespace: namespace(), pid, start_ticks: stat(pid).unwrap().start_ticks };
        assert!(me.is_alive());
        assert_eq!(ProcessIdentity::parse(&me.text()), Some(me.clone()));
        let another = ProcessIdentity { start_ticks: me.start_ticks + 1, ..me };
        assert!(!another.is_alive());
        assert!(!another.signal(Signal::TERM));
    }
}
