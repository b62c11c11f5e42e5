//! The records as one dispatcher sees them: which are its own, which runner and which dispatcher is alive. Calls Redis in
//! the caller's task.

use std::sync::Arc;
use std::time::Duration;

use spillway_bus::lifecycle::LaunchEvent;
use spillway_bus::{Bus, BusError, Heartbeat, Heartbeats, Record, Registry, Updated};
use spillway_protocol::ids::EgressId;
use tokio::time::{MissedTickBehavior, interval};
use tracing::info;

use crate::instance::Instance;

/// An older heartbeat does not keep a task alive that its platform reports as gone. Runners send one per second.
pub const HEARTBEAT_FRESH: Duration = Duration::from_millis(2500);

/// Lifetime of a dispatcher's own heartbeat. Without it, other dispatchers adopt its records.
const OWNER_HEARTBEAT_TTL: Duration = Duration::from_secs(3);

/// Records and heartbeats of all egresses.
#[derive(Clone)]
pub struct Records {
    /// Reads, creates and finishes records.
    pub registry: Registry,
    /// Of runners and of dispatchers.
    pub heartbeats: Heartbeats,
    name: EgressId,
}

impl Records {
    /// Of the dispatcher called `name`.
    pub fn new(bus: &Bus, name: EgressId) -> Self {
        Self { registry: Registry::new(bus), heartbeats: Heartbeats::new(bus), name }
    }

    /// The dispatcher's name, for events.
    pub fn by(&self) -> String {
        self.name.to_string()
    }

    /// The record names this dispatcher.
    pub fn owns(&self, record: &Record) -> bool {
        record.dispatcher == self.name.as_str()
    }

    /// As [`Registry::apply`].
    ///
    /// # Errors
    /// As [`Registry::apply`].
    pub async fn apply(&self, id: &EgressId, event: &LaunchEvent) -> Result<Updated, BusError> {
        self.registry.apply(id, event).await
    }

    /// Age of the last heartbeat of the record's current attempt, or of a later one: then the record has lost its last
    /// writes.
    ///
    /// # Errors
    /// When Redis does not answer; a retry is right.
    pub async fn last_beat(&self, record: &Record) -> Result<Option<Duration>, BusError> {
        let last = self.heartbeats.last(&record.egress_id).await?;
        Ok(last.filter(|(_, beat)| record.is_beat_of(beat.attempt)).map(|(age, _)| age))
    }

    /// The runner of the record's current attempt has sent a heartbeat within [`HEARTBEAT_FRESH`].
    ///
    /// # Errors
    /// When Redis does not answer; a retry is right.
    pub async fn is_beating(&self, record: &Record) -> Result<bool, BusError> {
        Ok(self.last_beat(record).await?.is_some_and(|age| age < HEARTBEAT_FRESH))
    }

    /// The dispatcher that owns the record has no heartbeat. Always false for our own records.
    ///
    /// # Errors
    /// When Redis does not answer; a retry is right.
    pub async fn is_owner_silent(&self, record: &Record) -> Result<bool, BusError> {
        if self.owns(record) {
            return Ok(false);
        }
        match EgressId::parse(&record.dispatcher) {
            Ok(name) => Ok(self.heartbeats.last(&name).await?.is_none()),
            Err(_) => Ok(true),
        }
    }

    /// Makes this dispatcher the owner; `None` when another one was faster.
    ///
    /// # Errors
    /// When Redis does not answer; a retry is right.
    pub async fn adopt(&self, record: &Record) -> Result<Option<Record>, BusError> {
        let adopted = LaunchEvent::Adopted { from: record.dispatcher.clone(), by: self.by() };
        let Updated::Written(now) = self.apply(&record.egress_id, &adopted).await? else { return Ok(None) };
        info!(egress_id = %now.egress_id, from = record.dispatcher, state = %now.state, "taken over from a dispatcher that is gone");
        Ok(Some(*now))
    }

    /// Sends the heartbeat of this dispatcher.
    ///
    /// # Errors
    /// When Redis does not answer; a retry within [`OWNER_HEARTBEAT_TTL`] is right.
    pub async fn beat(&self) -> Result<(), BusError> {
        self.heartbeats.beat(&self.name, 1, &Heartbeat::default(), OWNER_HEARTBEAT_TTL).await.map(drop)
    }

    /// Sends heartbeats until the dispatcher stops. A task of its own: a sweep of many records takes longer than a
    /// heartbeat lives.
    pub async fn keep_beating(self, instance: Arc<Instance>) {
        let mut ticks = interval(OWNER_HEARTBEAT_TTL / 3);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = instance.shutdown.triggered() => return,
            }
            // Two more attempts follow before the last one expires.
            let _ = self.beat().await;
        }
    }
}
