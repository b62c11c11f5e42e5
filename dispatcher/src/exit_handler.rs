//! A dispatcher for one event: what a function does that is started for an event and frozen after it. It takes no
//! calls and watches nothing; what it finishes or launches is done by the same rooms as in a dispatcher.

use std::sync::Arc;
use std::time::Duration;

use spillway_bus::{Bus, BusError, Heartbeat, Switches};
use spillway_launchers::Launcher;
use spillway_process::Clock;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::config::Config;
use crate::context::{Context, LedgerSink};
use crate::dispatcher::{DispatcherError, context, launchers};
use crate::launch;
use crate::reconcile::OWNER_HEARTBEAT_TTL;
use crate::reconcile::task_exit::{self, EventOutcome, TaskExitEvent};
use crate::targets::SWITCHES;

const IDLE_POLL: Duration = Duration::from_millis(20);
/// Of the time that is left, for those who are told to leave.
const LEAVING: Duration = Duration::from_secs(2);

pub struct ExitHandler {
    context: Arc<Context>,
}

impl ExitHandler {
    /// With the targets the configuration names; each finished task is a line on standard output.
    pub async fn open(config: Config, bus: Bus) -> Result<Self, DispatcherError> {
        let clock = bus.clock().clone();
        let launchers = launchers(&config, &clock).await?;
        let ledger_sink: LedgerSink = Box::new(|entry| println!("{entry}"));
        Self::with(config, bus, launchers, clock, Some(ledger_sink)).await
    }

    /// With a launcher for each target, in their order.
    pub async fn on(
        config: Config,
        bus: Bus,
        launchers: Vec<Arc<dyn Launcher>>,
        clock: Clock,
    ) -> Result<Self, DispatcherError> {
        Self::with(config, bus, launchers, clock, None).await
    }

    async fn with(
        config: Config,
        bus: Bus,
        launchers: Vec<Arc<dyn Launcher>>,
        clock: Clock,
        ledger_sink: Option<LedgerSink>,
    ) -> Result<Self, DispatcherError> {
        let context = context("exit-handler", config, bus, launchers, clock, ledger_sink)?;
        context.learn_installation().await?;
        context.io.listen().await?;
        // While it beats no dispatcher takes over what it has in hand.
        beat(&context).await?;
        context.targets.apply_switches(&Switches::new(&context.bus, SWITCHES).all().await?);
        context.spawn(keep_beating(Arc::clone(&context)));
        context.spawn(launch::run(Arc::clone(&context)));
        Ok(Self { context })
    }

    /// Whose tasks are ours.
    pub fn stack(&self) -> String {
        self.context.config().stack.clone()
    }

    pub async fn handle(&self, event: &TaskExitEvent) -> Result<EventOutcome, BusError> {
        task_exit::handle(&self.context, event).await
    }

    /// Waits until launches have landed and last words are delivered. False: not by then; whoever hears the same news
    /// again, or a dispatcher, goes on from what stands in the registry.
    pub async fn finish(self, by: Instant) -> bool {
        let emptied = tokio::time::timeout_at(by - LEAVING, async {
            while !self.context.is_idle() {
                tokio::time::sleep(IDLE_POLL).await;
            }
        });
        let emptied = emptied.await.is_ok();
        self.context.shutdown.shut_down(LEAVING).await && emptied
    }
}

async fn beat(context: &Context) -> Result<(), BusError> {
    context.heartbeats.beat(&context.name, 1, &Heartbeat::default(), OWNER_HEARTBEAT_TTL).await.map(drop)
}

async fn keep_beating(context: Arc<Context>) {
    let mut ticks = interval(OWNER_HEARTBEAT_TTL / 3);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = context.shutdown.triggered() => return,
        }
        // One that is missed is one that is late.
        let _ = beat(&context).await;
    }
}
