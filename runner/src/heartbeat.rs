//! Signs of life to Redis, and what they find there: a stop that a dispatcher answered for us, a record that is not
//! ours any more, or none at all.

use std::time::Duration;

use spillway_bus::{BusError, FencedWrite, Heartbeat, Heartbeats, Phase, Registry};
use spillway_process::chain;
use spillway_protocol::EgressId;
use tokio::sync::mpsc;
use tracing::{debug, warn};

use crate::report::Reporter;
use crate::session::machine::{SessionEvent, StopSource};

const INTERVAL: Duration = Duration::from_secs(1);
/// Some beats may be lost on a busy machine before we count as silent.
const TTL: Duration = Duration::from_secs(6);

pub struct HeartbeatTask {
    pub heartbeats: Heartbeats,
    pub registry: Registry,
    pub egress_id: EgressId,
    pub attempt: u32,
}

impl HeartbeatTask {
    pub async fn beat(&self, beat: &Heartbeat) -> Result<FencedWrite, BusError> {
        self.heartbeats.beat(&self.egress_id, self.attempt, beat, TTL).await
    }

    /// Until dropped.
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
                        warn!(error = %chain(&error), "no sign of life reaches redis, the recording goes on");
                    }
                    failing = true;
                }
            }
        }
    }

    async fn beat_and_check(&self, reporter: &Reporter) -> Result<Option<SessionEvent>, BusError> {
        let heard = self.beat(&reporter.beat()).await?;
        let record = self.registry.get(&self.egress_id).await?;
        // Asked after the record was read: an end in it may be our own.
        if reporter.is_over() {
            return Ok(None);
        }
        if heard == FencedWrite::Superseded {
            return Ok(Some(SessionEvent::OwnershipLost));
        }
        Ok(match record {
            Some(record) if record.attempt != self.attempt || record.phase == Phase::Over => {
                Some(SessionEvent::OwnershipLost)
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
