//! What a target's tasks are usually billed beside their recordings: image pull, start, farewell. The price list has a guess
//! for each platform; the ledger knows better, from the first task in it. Pure.

use std::collections::{BTreeMap, VecDeque};

use super::entry::Entry;

/// Enough to not be moved by one slow pull, few enough to follow a new image.
const REMEMBERED: usize = 31;

#[derive(Debug, Default)]
pub struct Overheads {
    /// Seconds, the newest last, by target.
    extra_s: BTreeMap<String, VecDeque<f64>>,
}

impl Overheads {
    /// Of tasks whose window is the vendor's and that recorded to their end.
    pub fn learn(&mut self, entry: &Entry) {
        let usual = entry.window == "vendor" && !entry.salvage && entry.recorded_s > 0.0;
        if !usual || entry.outcome != "egress_complete" {
            return;
        }
        let window_s = entry.to_ms.saturating_sub(entry.from_ms) as f64 / 1000.0;
        let extra_s = self.extra_s.entry(entry.target.clone()).or_default();
        extra_s.push_back((window_s - entry.recorded_s).max(0.0));
        if extra_s.len() > REMEMBERED {
            extra_s.pop_front();
        }
    }

    /// Seconds billed beside the recording; `None` while nothing is known.
    pub fn extra_s(&self, target: &str) -> Option<f64> {
        let mut known: Vec<f64> = self.extra_s.get(target)?.iter().copied().collect();
        known.sort_by(f64::total_cmp);
        known.get(known.len() / 2).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(target: &str, window_s: i64, outcome: &str) -> Entry {
        Entry {
            target: target.to_owned(),
            to_ms: window_s * 1000,
            recorded_s: 100.0,
            window: "vendor".to_owned(),
            outcome: outcome.to_owned(),
            ..super::super::entry::tests::some()
        }
    }

    #[test]
    fn what_is_usual_is_the_middle_of_what_was_seen_there_lately() {
        let mut overheads = Overheads::default();
        overheads.learn(&entry("near", 104, "egress_complete"));
        assert_eq!(overheads.extra_s("near"), Some(4.0), "one here says more than a guess for everybody");
        for window_s in [500, 106] {
            overheads.learn(&entry("near", window_s, "egress_complete"));
        }
        overheads.learn(&entry("near", 9000, "the runner died"));
        assert_eq!((overheads.extra_s("near"), overheads.extra_s("far")), (Some(6.0), None));
        for _ in 0..REMEMBERED {
            overheads.learn(&entry("near", 120, "egress_complete"));
        }
        assert_eq!(overheads.extra_s("near"), Some(20.0), "an older image is forgotten");
    }
}
