//! More starts at once than the platform takes: they wait their turn, and nobody is lost or recorded twice.

use std::time::Duration;

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use spillway_tests::fleet::{Scene, play};

use crate::stage::{alone, block_on};

pub fn cases() -> Vec<Trial> {
    vec![alone("fleet::a_rush_beyond_the_quota_is_recorded_once_each", || block_on(rush()))]
}

async fn rush() -> Result<()> {
    let scene = Scene {
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
    let story = play(&scene).await?;
    println!("{story:?}");
    ensure!(story.recorded == 8 && story.doubles == 0 && story.failed.is_empty(), "{story:?}");
    // Four at once and two a second: the last has waited.
    ensure!(story.wait_p99_s >= 1.0, "{story:?}");
    ensure!(story.throttled + story.no_capacity > 0, "nothing went wrong, so nothing was shown: {story:?}");
    ensure!(story.launch_calls >= 8.0, "the dispatchers counted otherwise: {story:?}");
    Ok(())
}
