//! What a verdict leads to: the same for a sweep, for a platform's event, and in the Lambda.

use std::sync::Arc;

use spillway_bus::{BusError, Decision, Phase, Record, Updated};
use spillway_launchers::EndHow;
use spillway_protocol::code::Code;
use spillway_protocol::ids::EgressId;
use tracing::{Instrument, debug, info};

use super::judge::Verdict;
use super::{relaunch, salvage, settle};
use crate::house::House;
use crate::launch;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Done {
    Nothing,
    Joined,
    Delivering,
    Reminded,
    /// Another task is wanted in the place of this one.
    Again,
    Salvage,
    Settled,
    /// Somebody else has changed the record: it is to be looked at again.
    Beaten,
}

pub(super) async fn act(house: &Arc<House>, record: &Record, verdict: Verdict) -> Result<Done, BusError> {
    Ok(match verdict {
        Verdict::Leave => Done::Nothing,
        // Its caller may never have had an answer: livekit-server is told before it is launched.
        Verdict::Launch if record.phase == Phase::Accepted => {
            settle::announce(house, record.clone());
            Done::Joined
        }
        Verdict::Launch => {
            launch::join(house, record);
            Done::Joined
        }
        Verdict::Deliver => {
            settle::deliver(house, record);
            Done::Delivering
        }
        Verdict::Remind => {
            info!("stopped through Redis and still recording; the platform is asked to end its task");
            end(house, record, EndHow::Ask);
            Done::Reminded
        }
        Verdict::Again(words) => {
            if !relaunch::begin(house, record, &words).await? {
                return Ok(Done::Beaten);
            }
            end(house, record, EndHow::Now);
            Done::Again
        }
        Verdict::Ask(words) if settle::as_livekit_knows_it(house, record).await? => {
            debug!(words, "its end was told before");
            Done::Settled
        }
        Verdict::Ask(words) => finish(house, record, words, false).await?,
        Verdict::Settle { words, aborted } => finish(house, record, words, aborted).await?,
    })
}

/// By another task if there is something to save, else at once.
async fn finish(house: &Arc<House>, record: &Record, words: String, aborted: bool) -> Result<Done, BusError> {
    let done = if salvage::begin(house, record, &words).await? {
        Done::Salvage
    } else if settled(house, record, words, aborted).await? {
        Done::Settled
    } else {
        return Ok(Done::Beaten);
    };
    let reason = if aborted { "reclaimed" } else { "died" };
    house.meter.count("spillway_failures_total", &[("reason", reason)], 1.0);
    end(house, record, EndHow::Now);
    Ok(done)
}

/// A platform that is slow to answer holds up nobody.
fn end(house: &Arc<House>, record: &Record, how: EndHow) {
    let (home, record) = (Arc::clone(house), record.clone());
    house.spawn(async move { home.targets.end(&record, how).await }.in_current_span());
}

async fn settled(house: &Arc<House>, record: &Record, words: String, aborted: bool) -> Result<bool, BusError> {
    let (id, may) = (&record.egress_id, settle::stands_as(record));
    if aborted {
        settle::aborted(house, id, words, may).await
    } else {
        settle::failed(house, id, Code::Internal, words, may).await
    }
}

/// Whoever owns the record shows no sign of life; ours is never gone.
pub(super) async fn is_owner_silent(house: &House, record: &Record) -> Result<bool, BusError> {
    if house.owns(record) {
        return Ok(false);
    }
    match EgressId::parse(&record.dispatcher) {
        Ok(name) => Ok(house.beats.last(&name).await?.is_none()),
        Err(_) => Ok(true),
    }
}

/// `None` when somebody else was faster.
pub(super) async fn adopt(house: &Arc<House>, record: Record) -> Result<Option<Record>, BusError> {
    let before = record.dispatcher;
    let updated = house
        .registry
        .update(&record.egress_id, |record| {
            if record.dispatcher != before {
                return Decision::Leave;
            }
            record.dispatcher = house.name.to_string();
            Decision::Write
        })
        .await?;
    let Updated::Written(record) = updated else { return Ok(None) };
    info!(from = before, phase = ?record.phase, "taken over from a dispatcher that is gone");
    Ok(Some(*record))
}
