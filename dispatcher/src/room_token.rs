//! Tokens for the rooms that are recorded. Pure but for the clock that `livekit_token` asks.

use std::time::Duration;

use livekit_token::{AccessToken, VideoGrants};
use spillway_bus::Ticket;
use spillway_plan::{EgressKind, EgressPlan};
use spillway_process::chain;
use spillway_protocol::Secret;
use spillway_protocol::code::{Code, RpcError};
use tracing::warn;

use crate::config::Config;

/// Lifetime without a duration limit in the plan; livekit's own egress uses the same.
const UNLIMITED: Duration = Duration::from_secs(24 * 3600);
/// Added to the lifetime for the end of the recording.
const MARGIN: Duration = Duration::from_secs(300);

/// The permission to join one room, hidden, and to subscribe; for as long as the recording may take.
///
/// # Errors
/// INTERNAL: it cannot be signed; no retry.
pub fn sign(plan: &EgressPlan, config: &Config) -> Result<Secret, RpcError> {
    let waiting = config.queue_deadline + config.start_deadline;
    let max = plan.limits.max_duration_ns;
    let ttl = max.map_or(UNLIMITED, |ns| Duration::from_nanos(ns) + MARGIN + waiting);
    let grants = VideoGrants {
        room_join: true,
        room: plan.room_name.clone(),
        can_publish: Some(false),
        can_subscribe: Some(true),
        can_publish_data: Some(false),
        hidden: true,
        recorder: true,
        ..VideoGrants::default()
    };
    AccessToken::with_api_key(&config.api_key, config.api_secret.reveal())
        .with_identity(&plan.egress_id)
        .with_kind("egress")
        .with_ttl(ttl)
        .with_grants(grants)
        .to_jwt()
        .map(Secret::new)
        .map_err(|error| RpcError::new(Code::Internal, format!("make a room token: {}", chain(&error))))
}

/// A ticket that was written when the recording was accepted, with a token of now: the old one may have expired. Without
/// an API key it keeps the one it has.
pub fn renew(ticket: &mut Ticket, config: &Config) {
    let Ok(plan) = serde_json::from_str::<EgressPlan>(ticket.plan_json.reveal()) else { return };
    // A web page joins no room.
    if config.api_key.is_empty() || plan.kind == EgressKind::Web {
        return;
    }
    match sign(&plan, config) {
        Ok(token) => ticket.token = token,
        Err(error) => warn!(%error, "the recording goes on with its old room token"),
    }
}
