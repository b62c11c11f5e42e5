//! Counters, gauges and histograms of the dispatcher in Prometheus' text format. Names are written where values are set;
//! their help is here. Any task may write; `/metrics` reads.
//!
//! Our own because no metrics crate is in the tree: 100 lines against one more dependency, and series have a bound here,
//! which matters as labels come from requests.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::{Mutex, MutexGuard};

use crate::lock::locked;

/// Name, type, help. A name that is not here is not printed, so that none lacks its help.
const FAMILIES: &[(&str, &str, &str)] = &[
    ("spillway_queue_length", "gauge", "Accepted requests in the launch queue of this dispatcher"),
    ("spillway_running", "gauge", "Recordings this dispatcher watches"),
    ("spillway_queue_wait_seconds", "histogram", "From acceptance to the launch call"),
    ("spillway_launches_total", "counter", "Launch calls by target and outcome"),
    ("spillway_refusals_total", "counter", "Requests refused by reason"),
    ("spillway_given_up_total", "counter", "Requests that found no slot in time"),
    ("spillway_failures_total", "counter", "Recordings ended by the dispatcher by reason"),
    ("spillway_resumptions_total", "counter", "Tasks that died, and with whose recording another goes on"),
    ("spillway_relaunches_total", "counter", "Tasks that never recorded and were replaced"),
    ("spillway_orphans_total", "counter", "Tasks without an egress that were ended"),
    (
        "spillway_orphan_rounds_stopped_total",
        "counter",
        "Rounds in which most tasks seemed to belong to no egress, so that none was ended",
    ),
    (
        "spillway_tasks_foreign",
        "gauge",
        "Tasks with this stack's name that another installation has started, by target",
    ),
    (
        "spillway_tasks_open",
        "gauge",
        "Tasks of all dispatchers by target, at the dispatcher that holds the billing lease",
    ),
    ("spillway_target_open", "gauge", "1: the target is asked; 0: it is paused, draining or failing"),
    ("spillway_cost_dollars", "histogram", "Amount of each finished task"),
    ("spillway_billed_seconds_total", "counter", "Seconds billed for finished tasks"),
    ("spillway_page_billed_seconds_total", "counter", "Of them, those of tasks that recorded a web page"),
    ("spillway_budget_dollars", "gauge", "Budget of the month by tenant"),
    ("spillway_spent_this_month_dollars", "gauge", "Finished tasks of this month by tenant with a budget"),
];

/// Buckets of every histogram: seconds of waiting and dollars per task both lie between 0.001 and 60.
const BOUNDS: &[f64] = &[0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 6.0, 10.0, 30.0, 60.0];
/// Label values come from configuration and requests; further series of a name are dropped.
const MAX_SERIES: usize = 2000;

type Labels = Vec<(&'static str, String)>;

/// All series.
#[derive(Default)]
pub struct Metrics {
    numbers: Mutex<Numbers>,
}

#[derive(Default)]
struct Numbers {
    values: BTreeMap<&'static str, BTreeMap<Labels, f64>>,
    histograms: BTreeMap<&'static str, BTreeMap<Labels, Histogram>>,
}

#[derive(Clone, Debug, Default)]
struct Histogram {
    counts: Vec<u64>,
    sum: f64,
    count: u64,
}

impl Metrics {
    fn numbers(&self) -> MutexGuard<'_, Numbers> {
        locked(&self.numbers)
    }

    /// Adds to a counter.
    pub fn count(&self, name: &'static str, labels: &[(&'static str, &str)], by: f64) {
        if let Some(value) = series(self.numbers().values.entry(name).or_default(), labels) {
            *value += by;
        }
    }

    /// Sets a gauge.
    pub fn set(&self, name: &'static str, labels: &[(&'static str, &str)], to: f64) {
        if let Some(value) = series(self.numbers().values.entry(name).or_default(), labels) {
            *value = to;
        }
    }

    /// Sets a gauge per value of `label` to how often it occurs in `all`; values that no longer occur become 0.
    pub fn gauges<'a>(&self, name: &'static str, label: &'static str, all: impl Iterator<Item = &'a str>) {
        let mut numbers = self.numbers();
        let values = numbers.values.entry(name).or_default();
        values.values_mut().for_each(|value| *value = 0.0);
        for one in all {
            if let Some(value) = series(values, &[(label, one)]) {
                *value += 1.0;
            }
        }
    }

    /// Adds to a histogram.
    pub fn observe(&self, name: &'static str, labels: &[(&'static str, &str)], value: f64) {
        let mut numbers = self.numbers();
        let Some(histogram) = series(numbers.histograms.entry(name).or_default(), labels) else { return };
        histogram.counts.resize(BOUNDS.len(), 0);
        for (count, bound) in histogram.counts.iter_mut().zip(BOUNDS) {
            *count += u64::from(value <= *bound);
        }
        histogram.sum += value;
        histogram.count += 1;
    }

    /// Sum of the series of a counter, gauge or histogram (its sum of values) whose labels are wanted.
    pub fn total(&self, name: &str, wanted: impl Fn(&[(&'static str, String)]) -> bool) -> f64 {
        let numbers = self.numbers();
        let values = numbers.values.get(name).into_iter().flatten().filter(|(labels, _)| wanted(labels));
        let sums = numbers.histograms.get(name).into_iter().flatten().filter(|(labels, _)| wanted(labels));
        values.map(|(_, value)| value).sum::<f64>() + sums.map(|(_, histogram)| histogram.sum).sum::<f64>()
    }

    /// The exposition format.
    pub fn text(&self) -> String {
        let numbers = self.numbers();
        let mut text = String::new();
        for (name, kind, help) in FAMILIES {
            let values = numbers.values.get(name);
            let histograms = numbers.histograms.get(name);
            if values.is_none() && histograms.is_none() {
                continue;
            }
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for (labels, value) in values.into_iter().flatten() {
                let _ = writeln!(text, "{name}{} {value}", shown(labels, None));
            }
            for (labels, histogram) in histograms.into_iter().flatten() {
                for (count, bound) in histogram.counts.iter().zip(BOUNDS) {
                    let _ = writeln!(text, "{name}_bucket{} {count}", shown(labels, Some(&bound.to_string())));
                }
                let _ = writeln!(text, "{name}_bucket{} {}", shown(labels, Some("+Inf")), histogram.count);
                let _ = writeln!(text, "{name}_sum{} {}", shown(labels, None), histogram.sum);
                let _ = writeln!(text, "{name}_count{} {}", shown(labels, None), histogram.count);
            }
        }
        let known: BTreeSet<&str> = FAMILIES.iter().map(|(name, ..)| *name).collect();
        debug_assert!(numbers.values.keys().chain(numbers.histograms.keys()).all(|name| known.contains(name)));
        text
    }
}

fn series<'a, T: Default>(all: &'a mut BTreeMap<Labels, T>, labels: &[(&'static str, &str)]) -> Option<&'a mut T> {
    let labels: Labels = labels.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    if all.len() >= MAX_SERIES && !all.contains_key(&labels) {
        return None;
    }
    Some(all.entry(labels).or_default())
}

fn shown(labels: &Labels, bound: Option<&str>) -> String {
    let quoted = |name: &str, value: &str| {
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        format!("{name}=\"{value}\"")
    };
    let mut all: Vec<String> = labels.iter().map(|(name, value)| quoted(name, value)).collect();
    all.extend(bound.map(|bound| quoted("le", bound)));
    if all.is_empty() { String::new() } else { format!("{{{}}}", all.join(",")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_added_up_by_their_labels() {
        let metrics = Metrics::default();
        for (target, outcome) in [("a", "launched"), ("a", "failed"), ("b", "failed")] {
            metrics.count("spillway_launches_total", &[("target", target), ("outcome", outcome)], 1.0);
        }
        metrics.observe("spillway_cost_dollars", &[], 0.25);
        metrics.observe("spillway_cost_dollars", &[], 0.5);
        let failed =
            |labels: &[(&str, String)]| labels.iter().any(|(name, value)| *name == "outcome" && value == "failed");
        assert_eq!(metrics.total("spillway_launches_total", failed), 2.0);
        assert_eq!(metrics.total("spillway_launches_total", |_| true), 3.0);
        assert_eq!(metrics.total("spillway_cost_dollars", |_| true), 0.75);
        assert_eq!(metrics.total("spillway_orphans_total", |_| true), 0.0);
    }

    #[test]
    fn prometheus_can_read_it() {
        let metrics = Metrics::default();
        metrics.count("spillway_launches_total", &[("target", "a\"b"), ("outcome", "launched")], 1.0);
        metrics.count("spillway_launches_total", &[("target", "a\"b"), ("outcome", "launched")], 1.0);
        metrics.observe("spillway_queue_wait_seconds", &[], 0.02);
        metrics.observe("spillway_queue_wait_seconds", &[], 500.0);
        metrics.gauges("spillway_tasks_open", "target", ["x", "x", "y"].into_iter());
        metrics.gauges("spillway_tasks_open", "target", ["y"].into_iter());
        let text = metrics.text();
        for line in [
            "# TYPE spillway_launches_total counter",
            "spillway_launches_total{target=\"a\\\"b\",outcome=\"launched\"} 2",
            "spillway_queue_wait_seconds_bucket{le=\"0.01\"} 0",
            "spillway_queue_wait_seconds_bucket{le=\"0.03\"} 1",
            "spillway_queue_wait_seconds_bucket{le=\"+Inf\"} 2",
            "spillway_queue_wait_seconds_sum 500.02",
            "spillway_queue_wait_seconds_count 2",
            "spillway_tasks_open{target=\"x\"} 0",
            "spillway_tasks_open{target=\"y\"} 1",
        ] {
            assert!(text.lines().any(|it| it == line), "{line}\n{text}");
        }
    }
}
