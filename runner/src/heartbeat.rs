//! Heartbeats to Redis, once a second beside the session, each with a look at the record: it brings a stop that a
//! dispatcher answered for us, or the loss of ownership, and has the report written again when the record is missing.

use std::time::Duration;

use spillway_bus::{BusError, FencedWrite, Heartbeat, Heartbeats, Registry};
use spillway_process::chain;
use spillway_protocol::EgressId;
use tokio::sync::mpsc;
use tracing::{debug, warn};

use crate::events::{SessionEvent, StopSource};
use crate::report::Reporter;

const INTERVAL: Duration = Duration::from_secs(1);
/// Some heartbeats may be lost on a busy machine before a dispatcher assumes that the task is dead.
const TTL: Duration = Duration::from_secs(6);

/// The heartbeats of one attempt.
pub struct HeartbeatTask {
    /// Where they go.
    pub heartbeats: Heartbeats,
    /// Where the record is.
    pub registry: Registry,
    /// The egress.
    pub egress_id: EgressId,
    /// Heartbeats of an earlier attempt are refused.
    pub attempt: u32,
}

impl HeartbeatTask {
    /// Sends one heartbeat.
    ///
    /// # Errors
    /// Redis does not answer; a retry is right.
    pub async fn beat(&self, beat: &Heartbeat) -> Result<FencedWrite, BusError> {
        self.heartbeats.beat(&self.egress_id, self.attempt, beat, TTL).await
    }

    /// Sends heartbeats until it is dropped; a Redis that is away is logged and tried again.
    pub async fn run(self, reporter: &Reporter, inbox: mpsc::Sender<SessionEvent>) {
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut failing = false;
        loop {
            ticks.tick().await;
            match self.beat_and_check(reporter).await {
                Ok(Some(event)) => {
                    if inbox.send(event).await.is_err() {
                        debug!("session is over");
                    }
                    failing = false;
                }
                Ok(None) => failing = false,
                Err(error) => {
                    if !failing {
                        warn!(error = %chain(&error), "no heartbeat reaches redis, the recording goes on");
                    }
                    failing = true;
                }
            }
        }
    }

    async fn beat_and_check(&self, reporter: &Reporter) -> Result<Option<SessionEvent>, BusError> {
        let written = self.beat(&reporter.beat()).await?;
        let record = self.registry.get(&self.egress_id).await?;
        // Looked at after the record was read: an end in that may be our own.
        if reporter.is_over() {
            return Ok(None);
        }
        if written == FencedWrite::Superseded {
            return Ok(Some(SessionEvent::OwnershipLost));
        }
        Ok(match record {
            Some(record) if record.attempt > self.attempt || record.state.is_over() => {
                Some(SessionEvent::OwnershipLost)
            }
            // Redis has lost its last writes: it is written again.
            Some(record) if record.attempt < self.attempt || record.state.is_starting() => {
                reporter.republish();
                None
            }
            Some(record) if record.stop_asked => Some(SessionEvent::StopAsked(StopSource::Api)),
            Some(_) => None,
            None => {
                reporter.republish();
                None
            }
        })
    }
}
