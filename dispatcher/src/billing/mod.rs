//! What every task cost, and whether a record still wants it. One dispatcher at a time, the holder of the billing lease,
//! closes tasks that are gone with a line in the ledger, and ends tasks that belong to no egress.
//!
//! `entry` is the arithmetic of one line (pure), `close` closes tasks, `orphan_tracker` (pure) and `orphans` find lost
//! ones; `bill` adds up the ledger, `price_quote` says what a recording would cost (both for the command line).

pub mod entry;
pub mod bill;
pub mod price_quote;
mod lease;
mod close;
pub mod orphan_tracker;
pub(crate) mod orphans;

use std::sync::Arc;
use std::time::Duration;

use spillway_bus::BusError;
use spillway_process::chain;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{info, warn};

use self::close::TaskCloser;
pub use self::close::close_exited;
use self::entry::Entry;
use self::orphans::Orphans;
use crate::context::Context;

const ROUND: Duration = Duration::from_secs(2);
const ORPHAN_INTERVAL: Duration = Duration::from_secs(30);

/// Ledger lines that a new lease holder learns usual overheads from: of the last day, at most so many.
const LOOK_BACK_MS: i64 = 24 * 3_600_000;
const MAX_REMEMBERED: usize = 1000;

/// The billing loop. Returns when the dispatcher stops.
pub async fn run(context: Arc<Context>) {
    let mut ticks = interval(ROUND);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut closer = TaskCloser::new(Arc::clone(&context));
    let mut orphans = Orphans::new(Arc::clone(&context));
    let mut next_search = Instant::now() + ORPHAN_INTERVAL;
    let mut failing = false;
    let mut number = None;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = context.shutdown.triggered() => return,
        }
        let round = async {
            let held = lease::hold(&context).await?;
            if held.is_some() && held != number {
                info!(number = held, "holds the billing lease");
                remember(&context).await?;
            }
            number = held;
            if held.is_some() {
                closer.round().await?;
            }
            if Instant::now() >= next_search {
                next_search = Instant::now() + ORPHAN_INTERVAL;
                // Redis may have lost it, and the next launches carry it.
                context.learn_installation().await?;
                orphans.round(held).await?;
            }
            Ok::<_, BusError>(())
        };
        match round.await {
            Ok(()) => failing = false,
            Err(error) => {
                if !failing {
                    warn!(error = %chain(&error), "billing put off, the registry is not reachable");
                }
                failing = true;
            }
        }
    }
}

/// Usual overheads, from the latest lines of the ledger.
async fn remember(context: &Context) -> Result<(), BusError> {
    let now_ms = context.clock.unix_ms();
    let lines = context.tasks.lines(now_ms - LOOK_BACK_MS, i64::MAX / 2, None, MAX_REMEMBERED).await?;
    let entries = lines.iter().filter_map(|(_, text)| serde_json::from_str::<Entry>(text).ok());
    let mut overheads = context.overheads();
    for entry in entries {
        if let Some(extra_s) = entry.extra_s() {
            overheads.learn(&entry.target, extra_s);
        }
    }
    Ok(())
}
