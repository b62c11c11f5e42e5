//! A line of the log with the dispatcher's numbers, once a minute, where the log is JSON: in the clouds nothing can scrape
//! `/metrics`, and log-based metrics (`terraform/modules/*/watch.tf`) read these fields instead. Gauges are as they are now,
//! counters are what was added since the last line, so that the lines of several dispatchers can be summed.
//!
//! One task; it reads [`Metrics`] and changes nothing.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tracing::info;

use crate::instance::Instance;
use crate::metrics::Metrics;

const INTERVAL: Duration = Duration::from_secs(60);

/// Logs until the dispatcher stops.
pub async fn run(instance: Arc<Instance>) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    // The first is at once, when nothing has happened yet.
    ticks.tick().await;
    let mut before = Counters::of(&instance.metrics);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = instance.shutdown.triggered() => return,
        }
        let now = Counters::of(&instance.metrics);
        let added = now.since(&before);
        // Fields and message are what log-based metrics look for.
        let gauge = |name: &str| instance.metrics.total(name, |_| true);
        info!(
            queue_length = gauge("spillway_queue_length"),
            running = gauge("spillway_running"),
            launched = added.launched,
            launches_failed = added.launches_failed,
            refused = added.refused,
            given_up = added.given_up,
            failed = added.failed,
            orphans = added.orphans,
            dollars = added.dollars,
            "metrics"
        );
        before = now;
    }
}

/// Totals since the start of the process, or what was added to them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Counters {
    launched: f64,
    launches_failed: f64,
    refused: f64,
    given_up: f64,
    failed: f64,
    orphans: f64,
    /// US dollars of finished tasks.
    dollars: f64,
}

impl Counters {
    fn of(metrics: &Metrics) -> Self {
        let all = |name: &str| metrics.total(name, |_| true);
        let launched = metrics.total("spillway_launches_total", |labels| {
            labels.iter().any(|(name, value)| *name == "outcome" && value == "launched")
        });
        Self {
            launched,
            launches_failed: all("spillway_launches_total") - launched,
            refused: all("spillway_refusals_total"),
            given_up: all("spillway_given_up_total"),
            failed: all("spillway_failures_total"),
            orphans: all("spillway_orphans_total"),
            dollars: all("spillway_cost_dollars"),
        }
    }

    fn since(self, before: &Self) -> Self {
        Self {
            launched: self.launched - before.launched,
            launches_failed: self.launches_failed - before.launches_failed,
            refused: self.refused - before.refused,
            given_up: self.given_up - before.given_up,
            failed: self.failed - before.failed,
            orphans: self.orphans - before.orphans,
            dollars: self.dollars - before.dollars,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_was_added_since_the_last_one() {
        let metrics = Metrics::default();
        let launch = |outcome| metrics.count("spillway_launches_total", &[("target", "a"), ("outcome", outcome)], 1.0);
        launch("launched");
        let before = Counters::of(&metrics);
        launch("launched");
        launch("no_capacity");
        launch("failed");
        metrics.count("spillway_refusals_total", &[("reason", "the queue is full")], 1.0);
        metrics.observe("spillway_cost_dollars", &[("target", "a")], 0.5);
        let added = Counters::of(&metrics).since(&before);
        let expected =
            Counters { launched: 1.0, launches_failed: 2.0, refused: 1.0, dollars: 0.5, ..Counters::default() };
        assert_eq!(added, expected);
    }
}
