//! A dispatcher for one exit event: what the Lambda function starts for an event and what is frozen after it. It serves
//! no RPC and runs no sweep; it launches and delivers with the same modules as a dispatcher.

use std::sync::Arc;
use std::time::Duration;

use spillway_bus::{BusError, Switches};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::context::Context;
use crate::launch;
use crate::liveness::{OWNER_HEARTBEAT_TTL, beat_as};
use crate::reconcile::task_exit::{self, EventOutcome, TaskExitEvent};
use crate::setup::{DispatcherError, Setup, idle_within};
use crate::targets::SWITCHES;

/// Kept back from the time of [`ExitHandler::finish`] for the shutdown.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// Handles one event after another until it is finished.
pub struct ExitHandler {
    context: Arc<Context>,
}

impl ExitHandler {
    /// Sends its first heartbeat, so that dispatchers leave its records to it, and starts the launch loop.
    ///
    /// # Errors
    /// When Redis does not answer or the configuration cannot be used; in the first case a retry is right.
    pub async fn start(setup: Setup) -> Result<Self, DispatcherError> {
        let context = setup.context("exit-handler")?;
        context.learn_installation().await?;
        context.io.listen().await?;
        beat_as(&context.name, &context.heartbeats).await?;
        context.targets.apply_switches(&Switches::new(&context.bus, SWITCHES).all().await?);
        context.spawn(keep_beating(Arc::clone(&context)));
        context.spawn(launch::run(Arc::clone(&context)));
        Ok(Self { context })
    }

    /// Takes up to ten seconds, because heartbeats have to expire.
    ///
    /// # Errors
    /// When Redis does not answer; the event has to be delivered again.
    pub async fn handle(&self, event: &TaskExitEvent) -> Result<EventOutcome, BusError> {
        task_exit::handle(&self.context, event).await
    }

    /// Waits until launches and deliveries are done. False: not by then; a repeated event, or a dispatcher, goes on from
    /// the records.
    pub async fn finish(self, by: Instant) -> bool {
        let left = by.saturating_duration_since(Instant::now()).saturating_sub(SHUTDOWN_TIMEOUT);
        let idle = idle_within(&self.context, left).await;
        self.context.shutdown.shut_down(SHUTDOWN_TIMEOUT).await && idle
    }
}

async fn keep_beating(context: Arc<Context>) {
    let mut ticks = interval(OWNER_HEARTBEAT_TTL / 3);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = context.shutdown.triggered() => return,
        }
        // Two more attempts follow before the last one expires.
        let _ = beat_as(&context.name, &context.heartbeats).await;
    }
}
