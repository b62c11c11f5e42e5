//! What every task cost, and whether a record still wants it. One dispatcher at a time, the holder of the billing lease,
//! closes tasks that are gone with a line in the ledger, and ends tasks that belong to no egress.
//!
//! `entry` is the arithmetic of one line (pure), `accounts` writes it, `close` closes tasks, `orphan_tracker` (pure) and
//! `orphans` find lost ones; `bill` adds up the ledger, `price_quote` says what a recording would cost (both for the
//! command line).

pub mod entry;
pub mod bill;
pub mod price_quote;
mod lease;
mod close;
mod accounts;
pub mod orphan_tracker;
pub(crate) mod orphans;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use spillway_bus::{BusError, Leases, TaskKey};
use spillway_process::chain;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{info, warn};

pub use self::accounts::{LedgerSink, TaskAccounts};
use self::close::TaskCloser;
use self::entry::Entry;
use self::lease::BillingLease;
use self::orphans::{OrphanSearch, Orphans};

const ROUND: Duration = Duration::from_secs(2);
const ORPHAN_INTERVAL: Duration = Duration::from_secs(30);

/// Ledger lines that a new lease holder learns usual overheads from: of the last day, at most so many.
const LOOK_BACK_MS: i64 = 24 * 3_600_000;
const MAX_REMEMBERED: usize = 1000;

/// The actor that closes tasks and ends orphans, while it holds the billing lease.
pub struct Accountant {
    accounts: Arc<TaskAccounts>,
    lease: BillingLease,
    closer: TaskCloser,
    search: OrphanSearch,
    orphans: Orphans,
}

impl Accountant {
    /// Holds no lease yet. `wanted`: launches that the records were at in the last sweep.
    pub fn new(
        accounts: Arc<TaskAccounts>,
        leases: Leases,
        search: OrphanSearch,
        wanted: watch::Receiver<HashSet<TaskKey>>,
    ) -> Self {
        let lease = BillingLease::new(leases, accounts.records.by());
        let closer = TaskCloser::new(Arc::clone(&accounts), Arc::clone(&search.targets), wanted);
        Self { orphans: Orphans::new(search.clone(), lease.clone()), accounts, lease, closer, search }
    }

    /// The billing loop. Returns when the dispatcher stops.
    pub async fn run(mut self) {
        let instance = Arc::clone(&self.accounts.instance);
        let mut ticks = interval(ROUND);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut next_search = Instant::now() + ORPHAN_INTERVAL;
        let mut failing = false;
        let mut number = None;
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = instance.shutdown.triggered() => return,
            }
            match self.round(&mut number, &mut next_search).await {
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

    /// `number`: of the lease in the last round. `next_search`: when orphans are looked for.
    async fn round(&mut self, number: &mut Option<u64>, next_search: &mut Instant) -> Result<(), BusError> {
        let held = self.lease.hold().await?;
        if held.is_some() && held != *number {
            info!(number = held, "holds the billing lease");
            self.remember().await?;
        }
        *number = held;
        if held.is_some() {
            self.closer.round().await?;
        }
        if Instant::now() >= *next_search {
            *next_search = Instant::now() + ORPHAN_INTERVAL;
            // Redis may have lost it, and the next launches carry it.
            self.search.installation.learn().await?;
            self.orphans.round(held).await?;
        }
        Ok(())
    }

    /// Usual overheads, from the latest lines of the ledger.
    async fn remember(&self) -> Result<(), BusError> {
        let TaskAccounts { instance, tasks, overheads, .. } = &*self.accounts;
        let now_ms = instance.clock.unix_ms();
        let lines = tasks.lines(now_ms - LOOK_BACK_MS, i64::MAX / 2, None, MAX_REMEMBERED).await?;
        // A line of another version says nothing about overheads.
        let entries = lines.iter().filter_map(|(_, text)| serde_json::from_str::<Entry>(text).ok());
        for entry in entries {
            if let Some(extra_s) = entry.extra_s() {
                overheads.learn(&entry.target, extra_s);
            }
        }
        Ok(())
    }
}
