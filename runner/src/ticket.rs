//! From the names in the environment to the egress that is ours: ticket taken, record in phase Running.

use std::io::BufRead;
use std::time::Duration;

use spillway_bus::{
    BusError, ClaimToken, Decision, Phase, Record, Registry, Taker, Ticket, TicketKey, Tickets, Updated,
};
use spillway_protocol::EgressId;

use crate::config::Handover;
use crate::serve::RunnerTask;

/// The handover holds a key and how to reach Redis; certificates may be part of that.
const MAX_HANDOVER_BYTES: u64 = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub enum TicketError {
    #[error("{0} is not set: the runner is started by a dispatcher, or with --request FILE")]
    NoName(&'static str),
    #[error("{name} is not what a dispatcher sets")]
    BadName { name: &'static str, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("read the handover from standard input")]
    Handover(#[source] std::io::Error),
    #[error("the handover is no JSON of ours")]
    BadHandover(#[source] serde_json::Error),
    #[error("ticket key")]
    Key(#[source] BusError),
}

/// What a launch carries: names only.
#[derive(Clone, Debug)]
pub struct Names {
    pub egress_id: EgressId,
    pub attempt: u32,
    pub claim: ClaimToken,
}

impl Names {
    pub fn from_env(get: impl Fn(&str) -> Option<String>) -> Result<Self, TicketError> {
        let named = |name: &'static str| get(name).ok_or(TicketError::NoName(name));
        let bad = |name| move |source| TicketError::BadName { name, source };
        Ok(Self {
            egress_id: EgressId::parse(&named("SPILLWAY_EGRESS_ID")?)
                .map_err(|error| bad("SPILLWAY_EGRESS_ID")(error.into()))?,
            attempt: named("SPILLWAY_ATTEMPT")?
                .parse()
                .map_err(|error: std::num::ParseIntError| bad("SPILLWAY_ATTEMPT")(error.into()))?,
            claim: ClaimToken::from_text(&named("SPILLWAY_CLAIM")?),
        })
    }
}

/// One line of JSON.
pub fn handover(input: impl BufRead) -> Result<(Handover, TicketKey), TicketError> {
    let mut line = Vec::new();
    input.take(MAX_HANDOVER_BYTES).read_until(b'\n', &mut line).map_err(TicketError::Handover)?;
    let handover: Handover = serde_json::from_slice(&line).map_err(TicketError::BadHandover)?;
    let key = TicketKey::from_text(handover.ticket_key.reveal()).map_err(TicketError::Key)?;
    Ok((handover, key))
}

/// The ticket, once, even if Redis does not get its answer through at the first try. `None`: another has it, or it is too
/// old.
pub async fn take(tickets: &Tickets, names: &Names, task: RunnerTask) -> Result<Option<Ticket>, BusError> {
    let taker = Taker::random();
    let ticket = with_retries(|| tickets.take(&names.egress_id, &names.claim, &taker)).await?;
    // A spare ticket was laid down before it was known which attempt would need it.
    Ok(ticket.filter(|ticket| task == RunnerTask::Salvage || ticket.attempt == names.attempt))
}

/// From here on stops are ours. `None`: it was stopped, replaced or settled meanwhile; then nothing may be said about it.
pub async fn own(registry: &Registry, names: &Names) -> Result<Option<Record>, BusError> {
    let updated = with_retries(|| {
        registry.update(&names.egress_id, |record| {
            if record.attempt != names.attempt || record.phase != Phase::Launching || record.stop_asked {
                return Decision::Leave;
            }
            record.phase = Phase::Running;
            Decision::Write
        })
    });
    Ok(match updated.await? {
        Updated::Written(record) => Some(*record),
        // A repeated command finds what it wrote itself: only we hold this attempt's ticket.
        Updated::Left(record) if record.attempt == names.attempt && record.phase == Phase::Running => Some(*record),
        Updated::Left(_) | Updated::Missing => None,
    })
}

/// Redis may be restarting while we start.
pub(crate) async fn with_retries<T, F>(mut act: impl FnMut() -> F) -> Result<T, BusError>
where
    F: Future<Output = Result<T, BusError>>,
{
    for wait in [100, 300, 1000, 2000] {
        match act().await {
            Ok(value) => return Ok(value),
            Err(_) => tokio::time::sleep(Duration::from_millis(wait)).await,
        }
    }
    act().await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> Option<String> {
        match name {
            "SPILLWAY_EGRESS_ID" => Some("EG_1".to_owned()),
            "SPILLWAY_ATTEMPT" => Some("2".to_owned()),
            "SPILLWAY_CLAIM" => Some("canary".to_owned()),
            _ => None,
        }
    }

    #[test]
    fn names_come_from_the_environment_and_a_missing_one_is_named() {
        let names = Names::from_env(env).unwrap();
        assert_eq!((names.egress_id.as_str(), names.attempt), ("EG_1", 2));
        assert!(!format!("{names:?}").contains("canary"));
        let error = Names::from_env(|_| None).unwrap_err();
        assert!(error.to_string().starts_with("SPILLWAY_EGRESS_ID is not set"));
        let error = Names::from_env(|name| if name.ends_with("ID") { Some("../x".to_owned()) } else { env(name) });
        assert!(matches!(error, Err(TicketError::BadName { name: "SPILLWAY_EGRESS_ID", .. })));
    }

    #[test]
    fn the_handover_is_one_line_and_does_not_print_itself() {
        let key = TicketKey::random().reveal();
        let line = format!(
            "{}\nmore",
            serde_json::json!({"ticket_key": key, "redis": {"address": "r:1", "password": "canary"}, "new": 1})
        );
        let (handover, _) = handover(line.as_bytes()).unwrap();
        let printed = format!("{handover:?}");
        assert!(!printed.contains("canary") && !printed.contains(&key), "{printed}");
        assert!(matches!(super::handover(&b"{"[..]), Err(TicketError::BadHandover(_))));
    }
}
