//! What every task cost, and whether somebody still wants it. One dispatcher at a time keeps the accounts: it closes the
//! tasks that are gone, with a line in the ledger, and looks for tasks that belong to no egress.
//!
//! `facts` is what is written down when a task is opened, `entry` the arithmetic, `close` the closing, `orphans` the look
//! for what was lost; `statement` prints bills, `quote` says beforehand.

pub mod facts;
pub mod entry;
mod close;
pub mod habit;
pub mod orphans;
pub mod statement;
pub mod quote;

use std::sync::Arc;
use std::time::Duration;

use spillway_process::chain;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{info, warn};

use self::close::Closing;
pub use self::close::gone;
use self::orphans::Orphans;
use crate::house::House;

const ROUND: Duration = Duration::from_secs(2);
const LOOK_FOR_ORPHANS: Duration = Duration::from_secs(30);
const LEASE: &str = "accounts";
const LEASE_LASTS: Duration = Duration::from_secs(15);

const LOOK_BACK_MS: i64 = 24 * 3_600_000;
const MOST_REMEMBERED: usize = 1000;

/// Until the house stops.
pub async fn run(house: Arc<House>) {
    let mut ticks = interval(ROUND);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut closing = Closing::new(Arc::clone(&house));
    let mut orphans = Orphans::new(Arc::clone(&house));
    let mut look_at = Instant::now() + LOOK_FOR_ORPHANS;
    let mut failing = false;
    let mut number = None;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = house.stop.asked() => return,
        }
        let round = async {
            let held = house.leases.hold(LEASE, house.name.as_str(), LEASE_LASTS).await?;
            if held.is_some() && held != number {
                info!(number = held, "keeps the accounts");
                remember(&house).await?;
            }
            number = held;
            if held.is_some() {
                closing.round().await?;
            }
            if Instant::now() >= look_at {
                look_at = Instant::now() + LOOK_FOR_ORPHANS;
                // For what is launched from now on, by whichever dispatcher.
                house.learn_installation().await?;
                orphans.round(held).await?;
            }
            Ok::<_, spillway_bus::BusError>(())
        };
        match round.await {
            Ok(()) => failing = false,
            Err(error) => {
                if !failing {
                    warn!(error = %chain(&error), "accounts not kept, the registry is not reachable");
                }
                failing = true;
            }
        }
    }
}

/// What is usual, from the last lines of the one who kept them before.
async fn remember(house: &House) -> Result<(), spillway_bus::BusError> {
    let now_ms = house.clock.unix_ms();
    let lines = house.tasks.lines(now_ms - LOOK_BACK_MS, i64::MAX / 2, None, MOST_REMEMBERED).await?;
    let entries = lines.iter().filter_map(|(_, text)| serde_json::from_str(text).ok());
    let mut habits = house.habits();
    entries.for_each(|entry| habits.learn(&entry));
    Ok(())
}

/// Whether this number is still the one that keeps the accounts.
async fn is_current(house: &House, number: u64) -> bool {
    matches!(house.leases.is_current(LEASE, number).await, Ok(true))
}
