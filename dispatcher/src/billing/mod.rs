//! What every task cost, and whether somebody still wants it. One dispatcher at a time keeps the accounts: it closes the
//! tasks that are gone, with a line in the ledger, and looks for tasks that belong to no egress.
//!
//! `facts` is what is written down when a task is opened, `entry` the arithmetic, `close` the closing, `orphans` the look
//! for what was lost; `bill` prints bills, `price_quote` says beforehand.

pub mod facts;
pub mod entry;
mod close;
pub mod overhead;
pub mod orphans;
pub mod bill;
pub mod price_quote;

use std::sync::Arc;
use std::time::Duration;

use spillway_process::chain;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{info, warn};

use self::close::TaskCloser;
pub use self::close::gone;
use self::orphans::Orphans;
use crate::context::Context;

const ROUND: Duration = Duration::from_secs(2);
const ORPHAN_INTERVAL: Duration = Duration::from_secs(30);
const LEASE: &str = "accounts";
const LEASE_LASTS: Duration = Duration::from_secs(15);

const LOOK_BACK_MS: i64 = 24 * 3_600_000;
const MAX_REMEMBERED: usize = 1000;

/// Until the dispatcher stops.
pub async fn run(context: Arc<Context>) {
    let mut ticks = interval(ROUND);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut closer = TaskCloser::new(Arc::clone(&context));
    let mut orphans = Orphans::new(Arc::clone(&context));
    let mut statuses = Instant::now() + ORPHAN_INTERVAL;
    let mut failing = false;
    let mut number = None;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = context.shutdown.triggered() => return,
        }
        let round = async {
            let held = context.leases.hold(LEASE, context.name.as_str(), LEASE_LASTS).await?;
            if held.is_some() && held != number {
                info!(number = held, "keeps the accounts");
                remember(&context).await?;
            }
            number = held;
            if held.is_some() {
                closer.round().await?;
            }
            if Instant::now() >= statuses {
                statuses = Instant::now() + ORPHAN_INTERVAL;
                // For what is launched from now on, by whichever dispatcher.
                context.learn_installation().await?;
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
async fn remember(context: &Context) -> Result<(), spillway_bus::BusError> {
    let now_ms = context.clock.unix_ms();
    let lines = context.tasks.lines(now_ms - LOOK_BACK_MS, i64::MAX / 2, None, MAX_REMEMBERED).await?;
    let entries = lines.iter().filter_map(|(_, text)| serde_json::from_str(text).ok());
    let mut overheads = context.overheads();
    entries.for_each(|entry| overheads.learn(&entry));
    Ok(())
}

/// Whether this number is still the one that keeps the accounts.
async fn is_current(context: &Context, number: u64) -> bool {
    matches!(context.leases.is_current(LEASE, number).await, Ok(true))
}
