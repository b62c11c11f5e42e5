//! The life of an egress: the only place that changes a record. An event and the record as it is now go in, the record
//! as it is to be written comes out. Pure; `spillway_bus::Registry::apply` stores the result by compare-and-set, so an
//! event is judged by what is stored at that moment, whoever wrote last.
//!
//! `next` is the whole table of states. Each event also names what its sender has seen (a number, an owner, a claim):
//! where that has changed, the event is about something that is gone and is not applied.

mod event;

use prost::Message;
use spillway_protocol::ledger::EgressLedger;

pub use self::event::{EndCondition, LaunchCall, LaunchEvent, RunnerStage, SalvageOrder, SeenLaunch};
use crate::launch_state::LaunchState;
use crate::record::Record;
use crate::resumption::Resumption;
use crate::task::TaskRef;

/// What three salvage runs die of, the fourth would die of too.
pub const MAX_SALVAGES: u32 = 3;
/// So many tasks may go on with one recording, each after the death of the one before it.
pub const MAX_RESUMPTIONS: u32 = 3;
/// How long a launch may wait that goes on with a recording, milliseconds; then what there is is saved.
pub const RESUME_WAIT_MS: i64 = 5 * 60_000;

/// The record after the event; `None`: the event does not apply to it, and it is left as it is.
///
/// # Errors
/// The ledger in the record is needed and cannot be read; the record is left as it is.
pub fn apply(record: &Record, event: &LaunchEvent) -> Result<Option<Record>, serde_json::Error> {
    if !is_about(record, event) {
        return Ok(None);
    }
    let Some(state) = next(record, event) else { return Ok(None) };
    let mut changed = Record { state, ..record.clone() };
    let dispatch = &mut changed.dispatch;
    match event {
        LaunchEvent::Requested(call) => {
            if let (true, Some(task)) = (call.renumbers(), record.task()) {
                dispatch.earlier.insert(record.attempt, task.clone());
            }
            changed.attempt = call.attempt;
            changed.resumable = call.resumable;
            dispatch.launched_ms = call.at_ms;
            dispatch.claim.clone_from(&call.claim);
            dispatch.tried.clone_from(&call.tried);
            dispatch.target.clone_from(&call.target);
        }
        LaunchEvent::TaskNoted { attempt, task } if record.state.needs_new_number() => {
            if dispatch.earlier.insert(*attempt, task.clone()).as_ref() == Some(task) {
                return Ok(None);
            }
        }
        LaunchEvent::TaskNoted { .. } => {
            if record.state == changed.state {
                return Ok(None);
            }
        }
        LaunchEvent::TookOver { .. } => {}
        LaunchEvent::Reported { info, ledger, .. } => {
            changed.info.clone_from(info);
            changed.ledger.clone_from(ledger);
        }
        LaunchEvent::Restored(copy) => {
            changed = Record {
                version: record.version,
                dispatcher: record.dispatcher.clone(),
                stop_asked: record.stop_asked || copy.stop_asked,
                ..copy.as_ref().clone()
            };
        }
        LaunchEvent::StopAsked => changed.stop_asked = true,
        LaunchEvent::Adopted { by, .. } => changed.dispatcher.clone_from(by),
        LaunchEvent::StartLost { by, deadline_ms, .. } => {
            // A salvage run has a later deadline already.
            dispatch.deadline_ms = dispatch.deadline_ms.max(*deadline_ms);
            dispatch.launched_ms = 0;
            dispatch.lost_starts += 1;
            dispatch.tried.insert(dispatch.target.clone());
            dispatch.earlier.extend(record.task().map(|task| (record.attempt, task.clone())));
            changed.dispatcher.clone_from(by);
        }
        LaunchEvent::TaskInterrupted { why, at_ms, .. } | LaunchEvent::HandedOver { why, at_ms, .. } => {
            dispatch.deadline_ms = at_ms.saturating_add(RESUME_WAIT_MS);
            dispatch.launched_ms = 0;
            dispatch.target.clear();
            dispatch.tried.clear();
            dispatch.lost_starts = 0;
            dispatch.earlier.extend(record.task().map(|task| (record.attempt, task.clone())));
            let count = record.resumption.as_ref().map_or(0, |resumption| resumption.count) + 1;
            changed.resumption = Some(Resumption { why: why.clone(), count });
            match event {
                LaunchEvent::TaskInterrupted { by, .. } => changed.dispatcher.clone_from(by),
                LaunchEvent::HandedOver { info, ledger, .. } => {
                    changed.info.clone_from(info);
                    changed.ledger.clone_from(ledger);
                }
                _ => {}
            }
        }
        LaunchEvent::TaskLost(order) => {
            dispatch.claim.clone_from(&order.claim);
            dispatch.weight = 0.0;
            dispatch.deadline_ms = order.deadline_ms;
            dispatch.launched_ms = 0;
            dispatch.target.clear();
            dispatch.tried.clear();
            dispatch.lost_starts = 0;
            dispatch.salvages += 1;
            dispatch.earlier.extend(record.task().map(|task| (record.attempt, task.clone())));
            changed.attempt = order.attempt + 1;
            changed.stop_asked = false;
            if changed.lost.is_empty() {
                changed.lost = match &record.resumption {
                    Some(resumption) if record.is_resuming() => {
                        format!("{}; the recording could not go on: {}", resumption.why, order.message)
                    }
                    _ => order.message.clone(),
                };
            }
            changed.dispatcher.clone_from(&order.by);
        }
        LaunchEvent::Ended { by, facts, at_ns, .. } => {
            let mut ledger: EgressLedger = serde_json::from_str(&record.ledger)?;
            for fact in facts {
                ledger.on(fact.clone(), *at_ns);
            }
            changed.info = ledger.info().encode_to_vec();
            changed.ledger = serde_json::to_string(&ledger)?;
            changed.dispatcher.clone_from(by);
        }
        LaunchEvent::EndKnown { by, info, .. } => {
            changed.info.clone_from(info);
            changed.dispatcher.clone_from(by);
        }
    }
    Ok(Some(changed))
}

/// The task of the current launch left uploads that another salvage run may complete: it recorded, was itself a salvage
/// run, or was to go on with a recording; and there is a ticket for another one.
pub fn can_be_salvaged(record: &Record) -> bool {
    let died_saving = record.is_salvage() && record.state.is_asked();
    let died = record.state.has_runner() || died_saving || record.is_resuming();
    died && !record.spare.is_empty() && !record.nothing_to_salvage && record.dispatch.salvages < MAX_SALVAGES
}

/// Another task may go on with what the task of the current launch records, should it die.
pub fn can_be_resumed(record: &Record) -> bool {
    let count = record.resumption.as_ref().map_or(0, |resumption| resumption.count);
    let records = matches!(record.state, LaunchState::Running { ending: false, .. });
    records && record.resumable && !record.spare.is_empty() && count < MAX_RESUMPTIONS
}

/// The event's sender has seen this launch, this owner, this ticket.
fn is_about(record: &Record, event: &LaunchEvent) -> bool {
    match event {
        LaunchEvent::Requested(call) => {
            record.dispatcher == call.by && record.attempt == call.seen && record.is_resuming() == call.resumes
        }
        LaunchEvent::TaskNoted { attempt, .. } | LaunchEvent::Reported { attempt, .. } => record.attempt == *attempt,
        // A recording that was stopped in the meantime has to be finished all the same.
        LaunchEvent::TookOver { attempt } => {
            record.attempt == *attempt && (!record.stop_asked || record.is_resumption())
        }
        LaunchEvent::Restored(copy) => record.is_before(copy.attempt),
        // A salvage run completes the uploads, and then it ends by itself.
        LaunchEvent::StopAsked => !record.stop_asked && !record.is_salvage(),
        LaunchEvent::Adopted { from, .. } => record.dispatcher == *from,
        LaunchEvent::StartLost { attempt, task, .. } => record.attempt == *attempt && record.task() == task.as_ref(),
        LaunchEvent::TaskInterrupted { attempt, .. } | LaunchEvent::HandedOver { attempt, .. } => {
            record.attempt == *attempt && can_be_resumed(record)
        }
        LaunchEvent::TaskLost(order) => {
            record.attempt == order.attempt && record.spare == order.spare && can_be_salvaged(record)
        }
        LaunchEvent::Ended { when, .. } => match when {
            EndCondition::Stands(seen) => SeenLaunch::of(record) == *seen,
            EndCondition::NotStarted(attempt) => record.attempt == *attempt && record.state.is_starting(),
            EndCondition::NeverRecorded => {
                record.state.is_starting() && !record.is_salvage() && !record.is_resumption()
            }
        },
        LaunchEvent::EndKnown { seen, .. } => SeenLaunch::of(record) == *seen,
    }
}

/// The table: the state after the event; `None`: the event does not happen in this state.
fn next(record: &Record, event: &LaunchEvent) -> Option<LaunchState> {
    use LaunchEvent as E;
    use LaunchState as S;

    let taken = |task: Option<TaskRef>, ending| {
        if record.is_salvage() { S::Salvaging { task, ending } } else { S::Running { task, ending } }
    };
    let ended = || S::Ended { task: record.task().cloned(), asked: record.state.may_have_task() };
    Some(match (event, &record.state) {
        (_, S::Ended { .. }) => match event {
            E::Adopted { .. } => record.state.clone(),
            _ => return None,
        },

        // A number that had a task is not asked for again: a platform would answer with the dead task.
        (E::Requested(call), S::Queued { renumber: true } | S::Interrupted | S::Lost { renumber: true })
            if !call.renumbers() =>
        {
            return None;
        }
        (E::Requested(_), S::Queued { .. } | S::Interrupted | S::Lost { .. }) => S::Asking,
        (E::Requested(call), S::Asking | S::Unknown | S::Launched { .. }) if call.renumbers() => S::Asking,
        // The same number again: only a certain no to the last call says that there is no task.
        (E::Requested(call), S::Asking | S::Unknown) if call.refused_ms == Some(record.dispatch.launched_ms) => {
            S::Asking
        }
        (E::Requested(_), S::Asking | S::Unknown) => S::Unknown,
        (E::Requested(_), S::Launched { .. } | S::Running { .. } | S::Salvaging { .. }) => return None,

        // The late answer to a call for a number that was given up: for the bill.
        (E::TaskNoted { .. }, S::Queued { renumber: true } | S::Interrupted | S::Lost { renumber: true }) => {
            record.state.clone()
        }
        // A record that has lost its last writes, as after a failover, may not know of its call.
        (E::TaskNoted { task, .. }, S::Queued { .. } | S::Lost { .. }) => S::Launched { task: task.clone() },
        (E::TaskNoted { task, .. }, S::Asking | S::Unknown | S::Launched { .. }) => S::Launched { task: task.clone() },
        (E::TaskNoted { task, .. }, S::Running { ending, .. } | S::Salvaging { ending, .. }) => {
            taken(Some(task.clone()), *ending)
        }

        (E::TookOver { .. }, S::Queued { renumber: true } | S::Interrupted | S::Lost { renumber: true }) => {
            return None;
        }
        // In the queue: the record has lost its call, for only a task of this number has its ticket.
        (E::TookOver { .. }, S::Queued { .. } | S::Lost { .. } | S::Asking | S::Unknown | S::Launched { .. }) => {
            taken(record.task().cloned(), false)
        }
        (E::TookOver { .. }, S::Running { .. } | S::Salvaging { .. }) => return None,

        (E::Reported { stage, .. }, S::Running { ending, .. } | S::Salvaging { ending, .. }) => match stage {
            RunnerStage::Going => taken(record.task().cloned(), *ending),
            RunnerStage::Ending => taken(record.task().cloned(), true),
            RunnerStage::Over => ended(),
        },
        (
            E::Reported { .. },
            S::Queued { .. } | S::Interrupted | S::Lost { .. } | S::Asking | S::Unknown | S::Launched { .. },
        ) => return None,

        (E::Restored(copy), _) => copy.state.clone(),

        (E::StopAsked, state) => state.clone(),

        // The answer of the call, if there was one, is gone with the dispatcher that made it.
        (E::Adopted { .. }, S::Asking) => S::Unknown,
        (E::Adopted { .. }, state) => state.clone(),

        (E::StartLost { .. }, S::Asking | S::Unknown | S::Launched { .. }) if record.is_salvage() => {
            S::Lost { renumber: true }
        }
        (E::StartLost { .. }, S::Asking | S::Unknown | S::Launched { .. }) if record.is_resumption() => S::Interrupted,
        (E::StartLost { .. }, S::Asking | S::Unknown | S::Launched { .. }) => S::Queued { renumber: true },
        (
            E::StartLost { .. },
            S::Queued { .. } | S::Interrupted | S::Lost { .. } | S::Running { .. } | S::Salvaging { .. },
        ) => return None,

        // `can_be_resumed` has said which state this is.
        (E::TaskInterrupted { .. } | E::HandedOver { .. }, _) => S::Interrupted,

        // `can_be_salvaged` has said which states these are.
        (E::TaskLost(_), S::Queued { .. } | S::Lost { .. }) => return None,
        (E::TaskLost(_), _) => S::Lost { renumber: false },

        (E::Ended { .. } | E::EndKnown { .. }, _) => ended(),
    })
}

#[cfg(test)]
#[path = "lifecycle_tests.rs"]
mod tests;
