//! From the names in the environment to an egress that this process owns: the ticket is taken, then the record moves to phase
//! Running. Each command to Redis is repeated a few times.

use std::io::BufRead;
use std::time::Duration;

use spillway_bus::lifecycle::LaunchEvent;
use spillway_bus::{BusError, ClaimToken, Phase, Record, Registry, Taker, Ticket, TicketKey, Tickets, Updated};
use spillway_protocol::{EgressId, hide_value};

use crate::config::Handover;

/// The handover holds a key and how to reach Redis; certificates may be part of that.
const MAX_HANDOVER_BYTES: u64 = 1 << 20;

/// What a dispatcher has started this program for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunnerTask {
    /// To record an egress.
    Record,
    /// After the death of a task: to go on with its recording, or to finish its uploads. The record says which.
    Salvage,
    /// To check what a recording would need.
    Probe,
}

/// Why the launch is not usable.
#[derive(Debug, thiserror::Error)]
pub enum TicketError {
    /// A variable is missing.
    #[error("{0} is not set: the runner is started by a dispatcher, or with --request FILE")]
    NoName(&'static str),
    /// A variable has no valid value.
    #[error("{name} is not what a dispatcher sets")]
    BadName {
        /// The variable.
        name: &'static str,
        /// What is wrong with its value.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Standard input was not read.
    #[error("read the handover from standard input")]
    Handover(#[source] std::io::Error),
    /// Nothing a launcher writes.
    #[error("the handover is no JSON of ours")]
    BadHandover(#[source] serde_json::Error),
    /// The key has no valid form.
    #[error("ticket key")]
    Key(#[source] BusError),
}

/// What a launch carries in the environment: names, and a claim that opens one ticket together with the key.
#[derive(Clone, Debug)]
pub struct Names {
    /// The egress.
    pub egress_id: EgressId,
    /// From 1; a salvage is the next attempt.
    pub attempt: u32,
    /// Names the ticket.
    pub claim: ClaimToken,
}

impl Names {
    /// Reads `SPILLWAY_EGRESS_ID`, `SPILLWAY_ATTEMPT` and `SPILLWAY_CLAIM`.
    ///
    /// # Errors
    /// One is missing or not valid; a retry changes nothing.
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

/// Reads the handover: one line of JSON.
///
/// # Errors
/// The line was not read or is not one of a launcher; a retry changes nothing.
pub fn handover(input: impl BufRead) -> Result<(Handover, TicketKey), TicketError> {
    let mut line = Vec::new();
    input.take(MAX_HANDOVER_BYTES).read_until(b'\n', &mut line).map_err(TicketError::Handover)?;
    let handover: Handover =
        serde_json::from_slice(&line).map_err(|error| TicketError::BadHandover(hide_value(error)))?;
    let key = TicketKey::from_text(handover.ticket_key.reveal()).map_err(TicketError::Key)?;
    Ok((handover, key))
}

/// Takes the ticket, exactly once, even if Redis' first answer is lost. `None`: another process has it, it has expired, or it
/// is for something else than this task: a probe records nothing, and a recording is no probe.
///
/// # Errors
/// Redis does not answer after five attempts, or this version or the key does not open the ticket, which stays then.
pub async fn take(tickets: &Tickets, names: &Names, task: RunnerTask) -> Result<Option<Ticket>, BusError> {
    let taker = Taker::random();
    let ticket = with_retries(|| async {
        match tickets.check(&names.egress_id, &names.claim).await {
            Err(error) if !error.is_transient() => Err(error),
            _ => tickets.take(&names.egress_id, &names.claim, &taker).await,
        }
    })
    .await?;
    let is_ours = |ticket: &Ticket| match task {
        RunnerTask::Record => ticket.attempt == names.attempt && ticket.probe.is_none(),
        // A spare ticket was written before it was known which attempt would need it.
        RunnerTask::Salvage => ticket.probe.is_none(),
        RunnerTask::Probe => ticket.attempt == names.attempt && ticket.probe.is_some(),
    };
    Ok(ticket.filter(is_ours))
}

/// Moves the record to Running: from here on this process answers stops. `None`: the egress was stopped, replaced or ended
/// meanwhile; then nothing may be reported about it.
///
/// # Errors
/// Redis does not answer after five attempts.
pub async fn own(registry: &Registry, names: &Names) -> Result<Option<Record>, BusError> {
    let took_over = LaunchEvent::TookOver { attempt: names.attempt };
    Ok(match with_retries(|| registry.apply(&names.egress_id, &took_over)).await? {
        Updated::Written(record) => Some(*record),
        // A repeated command finds what it wrote itself: only we hold this attempt's ticket.
        Updated::Left(record) if record.attempt == names.attempt && record.phase() == Phase::Running => Some(*record),
        Updated::Left(_) | Updated::Missing => None,
    })
}

/// Repeats a command up to four times within 3.4 s: Redis may be restarting just now. Redis' errors are all tried again,
/// which is why this is not the retry of `upload::attempts`.
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
        let misplaced = super::handover(&br#"{"ticket_key":"k","redis":"redis://:canary@r:1"}"#[..]);
        assert!(matches!(misplaced, Err(TicketError::BadHandover(error)) if !error.to_string().contains("canary")));
    }
}
