//! A burst of StartEgress calls on a fake Fargate.

use std::time::Duration;

use anyhow::Result;
use spillway_tests::fleet::{FleetReport, FleetScenario, play};

/// Calls within 2 s, two dispatchers, Fargate with its usual quota and some faults, a real runner for each egress.
pub async fn measure(egresses: usize, seed: u64) -> Result<FleetReport> {
    let scenario = FleetScenario {
        egresses,
        within: Duration::from_secs(2),
        burst: 100,
        per_second: 20.0,
        throttled: 0.01,
        no_capacity: 0.01,
        seed,
        provisioning: Duration::from_millis(1500),
        pulling: Duration::from_millis(1500),
        pulls: 6,
        records: Duration::from_secs(5),
    };
    let report = play(&scenario).await?;
    println!(
        "fleet: {} of {} recorded, {} refused, {} failed, {} twice; from the call to the platform's task p50 {:.2} s, p99 \
         {:.2} s; to ACTIVE p50 {:.1} s, p99 {:.1} s; StartEgress p99 {:.0} ms",
        report.recorded,
        report.asked,
        report.refused.len(),
        report.failed.len(),
        report.doubles,
        report.wait_p50_s,
        report.wait_p99_s,
        report.active_p50_s,
        report.active_p99_s,
        report.start_answer_p99_ms,
    );
    Ok(report)
}
