//! What `/proc` says about a process, and how one is told from a later one with the same number.

use std::path::Path;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// A process, for ever: the number is recycled, the moment of its birth on this boot in this namespace is not.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct ProcessIdentity {
    /// Boot id and pid namespace: what makes `pid` mean something.
    pub namespace: String,
    pub pid: i32,
    /// Clock ticks since boot.
    pub start_ticks: u64,
}

impl ProcessIdentity {
    pub fn parse(text: &str) -> Option<Self> {
        let (rest, start_ticks) = text.rsplit_once('/')?;
        let (namespace, pid) = rest.rsplit_once('/')?;
        Some(Self {
            namespace: namespace.to_owned(),
            pid: pid.parse().ok().filter(|pid| *pid > 0)?,
            start_ticks: start_ticks.parse().ok()?,
        })
    }

    pub fn text(&self) -> String {
        format!("{}/{}/{}", self.namespace, self.pid, self.start_ticks)
    }

    pub fn is_alive(&self) -> bool {
        stat(self.pid).is_some_and(|stat| stat.start_ticks == self.start_ticks && !stat.is_dead())
    }

    /// False when it is gone. The signal goes through a descriptor that was opened before the identity was checked, so it
    /// can never reach a newcomer with the same number.
    pub fn signal(&self, signal: Signal) -> bool {
        let Some(pid) = Pid::from_raw(self.pid) else { return false };
        let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else { return false };
        self.is_alive() && pidfd_send_signal(handle, signal).is_ok()
    }
}

/// Empty where `/proc` does not say; then nothing is ever recognised as ours after a restart, which is the safe side.
pub(super) fn namespace() -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let namespace = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    format!("{}+{}", boot.trim(), namespace.display())
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    pub state: char,
    pub session: i32,
    pub start_ticks: u64,
}

impl Stat {
    /// A zombie only waits for its parent to read how it ended.
    pub fn is_dead(&self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x')
    }
}

pub(super) fn stat(pid: i32) -> Option<Stat> {
    parse_stat(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The program's name stands in parentheses and may hold any character, so fields are counted from the last one.
fn parse_stat(line: &str) -> Option<Stat> {
    let fields: Vec<&str> = line.rsplit_once(')')?.1.split_whitespace().collect();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        session: fields.get(3)?.parse().ok()?,
        start_ticks: fields.get(19)?.parse().ok()?,
    })
}

/// Living session leaders that we may look into, each with its environment.
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
    fn we_are_alive_and_our_number_with_another_birth_is_not() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let me = ProcessIdentity { namespace: namespace(), pid, start_ticks: stat(pid).unwrap().start_ticks };
        assert!(me.is_alive());
        assert_eq!(ProcessIdentity::parse(&me.text()), Some(me.clone()));
        let another = ProcessIdentity { start_ticks: me.start_ticks + 1, ..me };
        assert!(!another.is_alive());
        assert!(!another.signal(Signal::TERM));
    }
}
