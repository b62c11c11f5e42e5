//! When a runner and a dispatcher count as alive. Reads heartbeats from Redis.

use std::time::Duration;

use spillway_bus::{BusError, Heartbeat, Heartbeats, Record};
use spillway_protocol::ids::EgressId;

/// An older heartbeat does not keep a task alive that its platform reports as gone. Runners send one per second.
pub const HEARTBEAT_FRESH: Duration = Duration::from_millis(2500);

/// Lifetime of a dispatcher's own heartbeat. Without it, other dispatchers adopt its records.
pub const OWNER_HEARTBEAT_TTL: Duration = Duration::from_secs(3);

/// The runner of the record's current attempt has sent a heartbeat within [`HEARTBEAT_FRESH`].
///
/// # Errors
/// When Redis does not answer; a retry is right.
pub async fn is_beating(heartbeats: &Heartbeats, record: &Record) -> Result<bool, BusError> {
    let last = heartbeats.last(&record.egress_id).await?;
    Ok(matches!(last, Some((age, beat)) if beat.attempt == record.attempt && age < HEARTBEAT_FRESH))
}

/// Sends the heartbeat of the dispatcher called `name`.
///
/// # Errors
/// When Redis does not answer; a retry within [`OWNER_HEARTBEAT_TTL`] is right.
pub async fn beat_as(name: &EgressId, heartbeats: &Heartbeats) -> Result<(), BusError> {
    heartbeats.beat(name, 1, &Heartbeat::default(), OWNER_HEARTBEAT_TTL).await.map(drop)
}
