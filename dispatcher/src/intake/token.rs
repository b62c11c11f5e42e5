use std::time::Duration;

use livekit_token::{AccessToken, VideoGrants};
use spillway_plan::EgressPlan;
use spillway_process::chain;
use spillway_protocol::Secret;
use spillway_protocol::code::{Code, RpcError};

use crate::config::Config;

/// A recording without a limit may reconnect for this long; livekit's own egress has the same.
const WITHOUT_LIMIT: Duration = Duration::from_secs(24 * 3600);
/// For the end of a recording that used its whole time.
const MARGIN: Duration = Duration::from_secs(300);

/// The right to be in one room, unseen, and to listen; for as long as the recording may take.
pub fn mint(plan: &EgressPlan, config: &Config) -> Result<Secret, RpcError> {
    let waiting = config.queue_deadline + config.start_deadline;
    let ttl = plan.limits.max_duration_ns.map_or(WITHOUT_LIMIT, |ns| Duration::from_nanos(ns) + MARGIN + waiting);
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
