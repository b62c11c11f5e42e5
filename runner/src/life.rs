//! Signs of life to Redis, and what they find there: a stop that a dispatcher answered for us, a record that is not
//! ours any more, or none at all.

use std::time::Duration;

use spillway_bus::{Beat, BusError, Heard, Heartbeats, Phase, Registry};
use spillway_process::chain;
use spillway_protocol::EgressId;
use tokio::sync::mpsc;
use tracing::{debug, warn};

use crate::report::Reporter;
use crate::session::machine::{Asker, Event};

const EVERY: Duration = Duration::from_secs(1);
/// Some beats may be lost on a busy machine before we count as silent.
const LASTS: Duration = Duration::from_secs(6);

pub struct Life {
    pub heartbeats: Heartbeats,
    pub registry: Registry,
    pub egress_id: EgressId,
    pub attempt: u32,
}

impl Life {
    pub async fn beat(&self, beat: &Beat) -> Result<Heard, BusError> {
        self.heartbeats.beat(&self.egress_id, self.attempt, beat, LASTS).await
    }

    /// Until dropped.
    pub async fn run(self, reporter: &Reporter, inbox: mpsc::Sender<Event>) {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut trouble = false;
        loop {
            ticks.tick().await;
            match self.look(reporter).await {
                Ok(Some(event)) => {
                    if inbox.send(event).await.is_err() {
                        debug!("session is over");
                    }
                    trouble = false;
                }
                Ok(None) => trouble = false,
                Err(error) => {
                    if !trouble {
                        warn!(error = %chain(&error), "no sign of life reaches redis, the recording goes on");
                    }
                    trouble = true;
                }
            }
        }
    }

    async fn look(&self, reporter: &Reporter) -> Result<Option<Event>, BusError> {
        let heard = self.beat(&reporter.beat()).await?;
        let record = self.registry.get(&self.egress_id).await?;
        // Asked after the record was read: an end in it may be our own.
        if reporter.is_over() {
            return Ok(None);
        }
        if heard == Heard::Superseded {
            return Ok(Some(Event::Disowned));
        }
        Ok(match record {
            Some(record) if record.attempt != self.attempt || record.phase == Phase::Over => Some(Event::Disowned),
            Some(record) if record.stop_asked => Some(Event::StopAsked(Asker::Api)),
            Some(_) => None,
            None => {
                reporter.repeat();
                None
            }
        })
    }
}
