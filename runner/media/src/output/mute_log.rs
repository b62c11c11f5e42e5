//! When the sound of a recording was muted, by output time: a websocket tells it between the samples. The controller writes,
//! the tasks of streams read; events come before the samples of their time, because a mixer waits for them.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Changes that are kept; samples wait for 2 s, so older ones are not asked for.
const MAX_CHANGES: usize = 1024;

/// Mutes of one recording.
#[derive(Debug, Default)]
pub struct MuteLog {
    /// Since when (nanoseconds since output time 0), and whether it is muted from then on. In order of time.
    changes: Mutex<VecDeque<(u64, bool)>>,
}

impl MuteLog {
    /// From this moment on it is muted, or not.
    pub fn set(&self, at_ns: u64, muted: bool) {
        let mut changes = self.changes();
        let latest = changes.back().copied();
        if latest.is_some_and(|(_, was)| was) == muted {
            return;
        }
        if changes.len() >= MAX_CHANGES {
            changes.pop_front();
        }
        changes.push_back((latest.map_or(at_ns, |(latest_ns, _)| at_ns.max(latest_ns)), muted));
    }

    /// Whether samples of this moment are silence because the track is muted.
    pub fn is_muted_at(&self, at_ns: u64) -> bool {
        let changes = self.changes();
        let known = changes.partition_point(|(since_ns, _)| *since_ns <= at_ns);
        match known.checked_sub(1) {
            Some(last) => changes.get(last).is_some_and(|(_, muted)| *muted),
            // Before the oldest that is kept it was the other way round.
            None => changes.len() >= MAX_CHANGES && changes.front().is_some_and(|(_, muted)| !muted),
        }
    }

    fn changes(&self) -> MutexGuard<'_, VecDeque<(u64, bool)>> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_as_the_last_change_before_it() {
        let log = MuteLog::default();
        assert!(!log.is_muted_at(0));
        log.set(5, false);
        log.set(10, true);
        log.set(12, true);
        log.set(20, false);
        // Told late: it is not before what was told already.
        log.set(15, true);
        let muted: Vec<u64> = (0..30).filter(|at| log.is_muted_at(*at)).collect();
        assert_eq!(muted, (10..30).collect::<Vec<_>>());
        log.set(40, false);
        assert!(log.is_muted_at(39) && !log.is_muted_at(40));
    }

    #[test]
    fn old_changes_are_forgotten() {
        let log = MuteLog::default();
        for n in 0..5000u64 {
            log.set(n, n % 2 == 0);
        }
        assert_eq!(log.changes().len(), MAX_CHANGES);
        assert!(log.is_muted_at(4998) && !log.is_muted_at(4999));
    }
}
