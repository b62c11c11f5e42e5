//! What the kernel says of processes: `/proc/<pid>/stat` (proc_pid_stat(5)). Reads are short and block.

/// State of one process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessStat {
    /// Process id, in the namespace of the caller.
    pub pid: i32,
    /// `R`, `S`, `Z` …
    pub state: char,
    /// Process group.
    pub group: i32,
    /// Session id.
    pub session: i32,
    /// Start time, clock ticks since boot: pids are recycled, both together are not.
    pub start_ticks: u64,
}

impl ProcessStat {
    /// Of one process; `None`: there is none of this id.
    pub fn of(pid: i32) -> Option<Self> {
        parse(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// Of all processes that are seen from here.
    pub fn all() -> impl Iterator<Item = Self> {
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        entries.filter_map(|entry| Self::of(entry.file_name().to_str()?.parse().ok()?))
    }

    /// It does nothing any more. True also for a zombie, which only waits for its parent's wait(): in a container often nobody
    /// reaps the orphans.
    pub fn is_dead(&self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x')
    }
}

/// The program's name is in parentheses and may contain any character, so fields are counted from the last parenthesis.
fn parse(line: &str) -> Option<ProcessStat> {
    let (before, after) = line.rsplit_once(')')?;
    let fields: Vec<&str> = after.split_whitespace().collect();
    Some(ProcessStat {
        pid: before.split_once(' ')?.0.parse().ok()?,
        state: fields.first()?.chars().next()?,
        group: fields.get(2)?.parse().ok()?,
        session: fields.get(3)?.parse().ok()?,
        start_ticks: fields.get(19)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_and_spaces_does_not_shift_the_fields() {
        let line = "4242 (a) b (c) S 1 4241 4240 0 -1 4194304 95 0 0 0 0 0 0 0 20 0 1 0 987654 2654208 200 18446744073709551615";
        let stat = ProcessStat { pid: 4242, state: 'S', group: 4241, session: 4240, start_ticks: 987_654 };
        assert_eq!(parse(line), Some(stat));
        assert_eq!(parse("nonsense"), None);
    }

    #[test]
    fn we_are_among_all_and_alive() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let own = ProcessStat::all().find(|stat| stat.pid == pid).unwrap();
        assert!(!own.is_dead() && own.start_ticks > 0);
        assert_eq!(ProcessStat::of(pid).unwrap().start_ticks, own.start_ticks);
    }
}
