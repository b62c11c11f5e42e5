//! More starts at once than the platform takes: they wait their turn, and none is lost or recorded twice.

use std::time::Duration;

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use spillway_tests::fleet::{FleetScenario, play};

use crate::harness::{alone, block_on};

pub fn cases() -> Vec<Trial> {
    vec![alone("fleet::a_rush_beyond_the_quota_is_recorded_once_each", || block_on(rush()))]
}

async fn rush() -> Result<()> {
    let scenario = FleetScenario {
        egresses: 8,
        within: Duration::from_millis(200),
        burst: 4,
        per_second: 2.0,
        throttled: 0.1,
        no_capacity: 0.1,
        seed: 5,
        provisioning: Duration::from_millis(300),
        pulling: Duration::from_millis(700),
        pulls: 2,
        records: Duration::from_secs(3),
    };
    let report = play(&scenario).await?;
    println!("{report:?}");
    ensure!(report.recorded == 8 && report.doubles == 0 && report.failed.is_empty(), "{report:?}");
    // Four at once and two a second: the last has waited.
    ensure!(report.wait_p99_s >= 1.0, "{report:?}");
    ensure!(report.throttled + report.no_capacity > 0, "nothing went wrong, so nothing was shown: {report:?}");
    ensure!(report.launch_calls >= 8.0, "the dispatchers counted otherwise: {report:?}");
    Ok(())
}
