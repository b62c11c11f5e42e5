//! A dispatcher for one exit event: what the Lambda function starts for an event and what is frozen after it. It serves
//! no RPC and runs no sweep; it launches and delivers with the same modules as a dispatcher.

use std::sync::Arc;
use std::time::Duration;

use spillway_bus::{BusError, Switches};
use spillway_process::chain;
use tokio::time::Instant;
use tracing::error;

use crate::launch;
use crate::reconcile::task_exit::{EventOutcome, TaskExitEvent};
use crate::setup::{Actors, DispatcherError, Setup};
use crate::targets::SWITCHES;

/// Kept back from the time of [`ExitHandler::finish`] for the shutdown.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// Handles one event after another until it is finished.
pub struct ExitHandler {
    actors: Actors,
}

impl ExitHandler {
    /// Sends its first heartbeat, so that dispatchers leave its records to it, and starts the launch loop.
    ///
    /// # Errors
    /// When Redis does not answer or the configuration cannot be used; in the first case a retry is right.
    pub async fn start(setup: Setup) -> Result<Self, DispatcherError> {
        let actors = setup.actors("exit-handler")?;
        let Actors { bus, io, instance, records, launcher, orphans, .. } = &actors;
        orphans.installation.learn().await?;
        io.listen().await?;
        records.beat().await?;
        match Switches::new(bus, SWITCHES).all().await {
            Ok(switches) => launcher.targets.apply_switches(&switches),
            Err(error) if error.is_transient() => return Err(error.into()),
            Err(error) => error!(error = %chain(&error), "the targets' switches cannot be read"),
        }
        instance.spawn(records.clone().keep_beating(Arc::clone(instance)));
        instance.spawn(launch::run(Arc::clone(launcher)));
        Ok(Self { actors })
    }

    /// Takes up to ten seconds, because heartbeats have to expire.
    ///
    /// # Errors
    /// When Redis does not answer; the event has to be delivered again.
    pub async fn handle(&self, event: &TaskExitEvent) -> Result<EventOutcome, BusError> {
        self.actors.exits.handle(event).await
    }

    /// Waits until launches and deliveries are done. False: not by then; a repeated event, or a dispatcher, goes on from
    /// the records.
    pub async fn finish(self, by: Instant) -> bool {
        let left = by.saturating_duration_since(Instant::now()).saturating_sub(SHUTDOWN_TIMEOUT);
        let idle = self.actors.idle_within(left).await;
        self.actors.instance.shutdown.shut_down(SHUTDOWN_TIMEOUT).await && idle
    }
}
