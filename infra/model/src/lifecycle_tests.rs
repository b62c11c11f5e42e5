//! The table of transitions, state by state, and random lives of records.

use std::collections::BTreeSet;

use proptest::prelude::*;
use spillway_protocol::EgressId;
use spillway_protocol::ledger::{EgressEndReason, Fact, Outcome};
use spillway_protocol::rpc::StartEgressRequest;

use super::*;
use crate::launch_state::Phase;

fn task(id: u8) -> TaskRef {
    TaskRef { launcher: "near".to_owned(), id: format!("t{id}") }
}

fn ledger() -> EgressLedger {
    EgressLedger::accept(&StartEgressRequest { egress_id: "EG_1".to_owned(), ..Default::default() }, 1)
}

fn accepted() -> Record {
    let ledger = ledger();
    Record {
        attempt: 1,
        dispatcher: "A".to_owned(),
        info: ledger.info().encode_to_vec(),
        ledger: serde_json::to_string(&ledger).unwrap(),
        spare: "spare".to_owned(),
        resumable: true,
        ..Record::new(EgressId::parse("EG_1").unwrap(), 7)
    }
}

fn call(by: &str, seen: u32, attempt: u32, refused_ms: Option<i64>) -> LaunchEvent {
    LaunchEvent::Requested(LaunchCall {
        by: by.to_owned(),
        seen,
        attempt,
        target: "near".to_owned(),
        claim: format!("c{attempt}"),
        tried: BTreeSet::new(),
        resumes: false,
        resumable: true,
        at_ms: 10,
        refused_ms,
    })
}

/// Of a task that goes on with a recording.
fn call_to_go_on(by: &str, seen: u32, attempt: u32) -> LaunchEvent {
    match call(by, seen, attempt, None) {
        LaunchEvent::Requested(call) => LaunchEvent::Requested(LaunchCall { resumes: true, ..call }),
        other => other,
    }
}

fn order(by: &str, attempt: u32) -> LaunchEvent {
    let (spare, claim, message) = ("spare".to_owned(), "copy".to_owned(), "it died".to_owned());
    LaunchEvent::TaskLost(SalvageOrder { by: by.to_owned(), attempt, spare, claim, deadline_ms: 99, message })
}

fn interrupted(by: &str, attempt: u32) -> LaunchEvent {
    LaunchEvent::TaskInterrupted { by: by.to_owned(), attempt, why: "it died".to_owned(), at_ms: 20 }
}

fn handed_over(attempt: u32) -> LaunchEvent {
    let (info, ledger) = (vec![7], serde_json::to_string(&ledger()).unwrap());
    LaunchEvent::HandedOver { attempt, info, ledger, why: "it was told to leave".to_owned(), at_ms: 20 }
}

fn end(by: &str, when: EndCondition) -> LaunchEvent {
    let facts = vec![Fact::Over(Outcome::Aborted { message: String::new() })];
    LaunchEvent::Ended { by: by.to_owned(), when, facts, at_ns: 5 }
}

fn report(attempt: u32, stage: RunnerStage) -> LaunchEvent {
    let mut ledger = ledger();
    match stage {
        RunnerStage::Going => drop(ledger.on(Fact::Active { started_at: 2 }, 2)),
        RunnerStage::Ending => drop(ledger.on(Fact::Ending(EgressEndReason::StopAsked), 3)),
        RunnerStage::Over => drop(ledger.on(Fact::Over(Outcome::Complete), 4)),
    }
    let (info, ledger) = (ledger.info().encode_to_vec(), serde_json::to_string(&ledger).unwrap());
    LaunchEvent::Reported { attempt, info, ledger, stage }
}

fn start_lost(attempt: u32, task: Option<TaskRef>) -> LaunchEvent {
    LaunchEvent::StartLost { attempt, task, by: "A".to_owned(), deadline_ms: 50 }
}

fn noted(attempt: u32, id: u8) -> LaunchEvent {
    LaunchEvent::TaskNoted { attempt, task: task(id) }
}

fn at(state: LaunchState) -> Record {
    let lost = if matches!(state, LaunchState::Lost { .. } | LaunchState::Salvaging { .. }) { "it died" } else { "" };
    let resumption = (state == LaunchState::Interrupted).then(Resumption::default);
    let mut record = Record { state, lost: lost.to_owned(), resumption, ..accepted() };
    record.dispatch.launched_ms = 10;
    record
}

/// The state after the event, `None` where it does not apply.
fn after(state: LaunchState, event: &LaunchEvent) -> Option<LaunchState> {
    apply(&at(state), event).unwrap().map(|record| record.state)
}

#[test]
fn the_table() {
    use LaunchState as S;

    let waits = |renumber| S::Queued { renumber };
    let launched = || S::Launched { task: task(1) };
    let running = |ending| S::Running { task: Some(task(1)), ending };
    let saving = |ending| S::Salvaging { task: Some(task(1)), ending };
    let ended = |task, asked| Some(S::Ended { task, asked });
    let states = [
        waits(false),
        waits(true),
        S::Asking,
        S::Unknown,
        launched(),
        running(false),
        running(true),
        S::Interrupted,
        saving(false),
    ];
    type Column = [Option<LaunchState>; 9];
    let on_record = || [None, None, None, None, None, Some(S::Interrupted), None, None, None];
    let table: [(&str, LaunchEvent, Column); 15] = [
        (
            "asked",
            call("A", 1, 1, None),
            [Some(S::Asking), None, Some(S::Unknown), Some(S::Unknown), None, None, None, None, None],
        ),
        (
            "asked after a no",
            call("A", 1, 1, Some(10)),
            [Some(S::Asking), None, Some(S::Asking), Some(S::Asking), None, None, None, None, None],
        ),
        (
            "asked with a new number",
            call("A", 1, 2, None),
            [
                Some(S::Asking),
                Some(S::Asking),
                Some(S::Asking),
                Some(S::Asking),
                Some(S::Asking),
                None,
                None,
                None,
                None,
            ],
        ),
        ("asked to go on", call_to_go_on("A", 1, 2), [None, None, None, None, None, None, None, Some(S::Asking), None]),
        ("asked to go on with the old number", call_to_go_on("A", 1, 1), Column::default()),
        ("asked by another", call("B", 1, 1, None), Column::default()),
        (
            "task",
            noted(1, 1),
            [
                Some(launched()),
                Some(waits(true)),
                Some(launched()),
                Some(launched()),
                None,
                None,
                None,
                Some(S::Interrupted),
                None,
            ],
        ),
        (
            "taken over",
            LaunchEvent::TookOver { attempt: 1 },
            [
                Some(S::Running { task: None, ending: false }),
                None,
                Some(S::Running { task: None, ending: false }),
                Some(S::Running { task: None, ending: false }),
                Some(running(false)),
                None,
                None,
                None,
                None,
            ],
        ),
        (
            "reported",
            report(1, RunnerStage::Going),
            [None, None, None, None, None, Some(running(false)), Some(running(true)), None, Some(saving(false))],
        ),
        (
            "reported the end",
            report(1, RunnerStage::Over),
            [
                None,
                None,
                None,
                None,
                None,
                ended(Some(task(1)), true),
                ended(Some(task(1)), true),
                None,
                ended(Some(task(1)), true),
            ],
        ),
        (
            "never recorded",
            start_lost(1, Some(task(1))),
            [None, None, None, None, Some(waits(true)), None, None, None, None],
        ),
        ("interrupted", interrupted("A", 1), on_record()),
        ("handed over", handed_over(1), on_record()),
        (
            "lost",
            order("A", 1),
            [
                None,
                None,
                None,
                None,
                None,
                Some(S::Lost { renumber: false }),
                Some(S::Lost { renumber: false }),
                Some(S::Lost { renumber: false }),
                Some(S::Lost { renumber: false }),
            ],
        ),
        (
            "given up",
            end("A", EndCondition::NotStarted(1)),
            [
                ended(None, false),
                ended(None, true),
                ended(None, true),
                ended(None, true),
                ended(Some(task(1)), true),
                None,
                None,
                ended(None, true),
                None,
            ],
        ),
    ];
    for (name, event, column) in table {
        for (state, expected) in states.iter().zip(column) {
            assert_eq!(after(state.clone(), &event), expected, "{name}, {state}");
        }
        let over = S::Ended { task: None, asked: true };
        assert_eq!(after(over, &event), None, "{name}, ended");
    }
}

#[test]
fn an_adoption_changes_the_owner_alone_and_makes_a_call_unknown() {
    let adopted = LaunchEvent::Adopted { from: "A".to_owned(), by: "B".to_owned() };
    assert_eq!(after(LaunchState::Asking, &adopted), Some(LaunchState::Unknown));
    for state in [LaunchState::Queued { renumber: true }, LaunchState::Ended { task: None, asked: false }] {
        let record = at(state);
        let changed = apply(&record, &adopted).unwrap().unwrap();
        assert_eq!(changed, Record { dispatcher: "B".to_owned(), ..record });
        assert_eq!(apply(&changed, &adopted).unwrap(), None, "A is not its owner");
    }
}

#[test]
fn a_stop_is_left_for_a_runner_and_not_for_a_salvage_run() {
    let running = LaunchState::Running { task: None, ending: false };
    let stopped = apply(&at(running), &LaunchEvent::StopAsked).unwrap().unwrap();
    assert!(stopped.stop_asked && apply(&stopped, &LaunchEvent::StopAsked).unwrap().is_none());
    assert_eq!(after(LaunchState::Salvaging { task: None, ending: false }, &LaunchEvent::StopAsked), None);
    // A runner that would take over then records what was stopped.
    let stopped = Record { stop_asked: true, ..at(LaunchState::Asking) };
    assert!(apply(&stopped, &LaunchEvent::TookOver { attempt: 1 }).unwrap().is_none());
}

#[test]
fn a_salvage_has_the_next_number_its_own_ticket_and_knows_why() {
    let record = Record { stop_asked: true, ..at(LaunchState::Running { task: Some(task(1)), ending: true }) };
    let lost = apply(&record, &order("B", 1)).unwrap().unwrap();
    assert_eq!((lost.attempt, lost.dispatcher.as_str(), lost.lost.as_str()), (2, "B", "it died"));
    assert_eq!((lost.dispatch.claim.as_str(), lost.dispatch.salvages, lost.stop_asked), ("copy", 1, false));
    assert_eq!(lost.task_of(1), Some(&task(1)));
    // Its own task dies before it took over: another one follows, and the third is the last.
    let mut record = lost;
    for number in 2..=4 {
        assert!(!can_be_salvaged(&record), "nothing runs yet");
        record = apply(&record, &call("B", number, number, None)).unwrap().unwrap();
        record = apply(&record, &noted(number, 9)).unwrap().unwrap();
        assert_eq!(can_be_salvaged(&record), number < 4);
        if let Some(next) = apply(&record, &order("B", number)).unwrap() {
            assert_eq!((next.attempt, next.lost.as_str()), (number + 1, "it died"));
            record = next;
        }
    }
    let without = Record { spare: String::new(), ..at(LaunchState::Running { task: None, ending: false }) };
    assert!(!can_be_salvaged(&without));
}

#[test]
fn an_interrupted_recording_goes_on_with_the_next_number_and_is_stopped_by_whoever_goes_on() {
    let running = at(LaunchState::Running { task: Some(task(1)), ending: false });
    let record = apply(&running, &interrupted("B", 1)).unwrap().unwrap();
    assert!(record.is_resuming() && !record.is_salvage());
    assert_eq!(record.resumption, Some(Resumption { why: "it died".to_owned(), count: 1 }));
    assert_eq!((record.attempt, record.dispatcher.as_str(), record.task_of(1)), (1, "B", Some(&task(1))));
    assert_eq!((record.dispatch.deadline_ms, record.dispatch.launched_ms), (20 + RESUME_WAIT_MS, 0));
    assert_eq!([1, 2].map(|attempt| record.is_beat_of(attempt)), [false, true], "the last ones of the dead task");
    assert!(apply(&record, &end("B", EndCondition::NeverRecorded)).unwrap().is_none(), "something was recorded");

    let stopped = apply(&record, &LaunchEvent::StopAsked).unwrap().unwrap();
    let launched = apply(&stopped, &call_to_go_on("B", 1, 2)).unwrap().unwrap();
    // A task that never came is replaced, as another one that goes on.
    let again = apply(&launched, &start_lost(2, None)).unwrap().unwrap();
    assert_eq!((again.state.clone(), again.is_resuming()), (LaunchState::Interrupted, true));
    let launched = apply(&again, &call_to_go_on("A", 2, 3)).unwrap().unwrap();
    let owned = apply(&launched, &LaunchEvent::TookOver { attempt: 3 }).unwrap().unwrap();
    assert!(owned.stop_asked && owned.is_resumption() && !owned.is_resuming());
    assert_eq!(apply(&owned, &report(1, RunnerStage::Going)).unwrap(), None, "the dead one, after all");

    // It dies as well, until there were too many.
    let mut record = owned;
    for count in 2..=MAX_RESUMPTIONS {
        let attempt = record.attempt;
        record = apply(&record, &interrupted("A", attempt)).unwrap().unwrap();
        assert_eq!(record.resumption.as_ref().map(|resumption| resumption.count), Some(count));
        record = apply(&record, &call_to_go_on("A", attempt, attempt + 1)).unwrap().unwrap();
        record = apply(&record, &LaunchEvent::TookOver { attempt: attempt + 1 }).unwrap().unwrap();
    }
    assert!(!can_be_resumed(&record) && can_be_salvaged(&record));
}

#[test]
fn what_is_handed_over_is_reported_with_it() {
    let running = at(LaunchState::Running { task: Some(task(1)), ending: false });
    let running = Record { ledger: String::new(), ..running };
    let record = apply(&running, &handed_over(1)).unwrap().unwrap();
    assert_eq!((record.info.as_slice(), record.dispatcher.as_str()), (&[7][..], "A"));
    assert!(!record.ledger.is_empty());
    assert_eq!(record.resumption.map(|resumption| resumption.why).as_deref(), Some("it was told to leave"));
}

#[test]
fn a_recording_that_cannot_go_on_is_salvaged_if_there_is_something_to_save() {
    let interrupted = Record {
        resumption: Some(Resumption { why: "it died".to_owned(), count: 1 }),
        stop_asked: true,
        ..at(LaunchState::Interrupted)
    };
    let lost = apply(&interrupted, &order("A", 1)).unwrap().unwrap();
    assert_eq!(lost.lost, "it died; the recording could not go on: it died");
    assert_eq!((lost.attempt, lost.is_salvage(), lost.is_resumption(), lost.stop_asked), (2, true, false, false));
    let nothing = Record { nothing_to_salvage: true, ..interrupted.clone() };
    assert!(!can_be_salvaged(&nothing));
    assert!(apply(&nothing, &end("A", EndCondition::NotStarted(1))).unwrap().is_some());
    for no in [
        Record { resumable: false, ..at(LaunchState::Running { task: None, ending: false }) },
        Record { spare: String::new(), ..at(LaunchState::Running { task: None, ending: false }) },
    ] {
        assert!(!can_be_resumed(&no));
    }
}

#[test]
fn an_end_is_judged_by_what_is_stored() {
    let seen = SeenLaunch { attempt: 1, phase: Phase::Running };
    let running = LaunchState::Running { task: None, ending: false };
    assert!(after(running.clone(), &end("A", EndCondition::Stands(seen))).is_some());
    assert_eq!(after(LaunchState::Asking, &end("A", EndCondition::Stands(seen))), None);
    assert_eq!(after(running, &end("A", EndCondition::NeverRecorded)), None);
    assert_eq!(after(LaunchState::Lost { renumber: false }, &end("A", EndCondition::NeverRecorded)), None);
    let unreadable = Record { ledger: "{}".to_owned(), ..at(LaunchState::Asking) };
    assert!(apply(&unreadable, &end("A", EndCondition::NotStarted(1))).is_err(), "it is left alone");
}

/// A failover to a replica that has not got the last writes.
#[test]
fn a_record_that_lost_its_last_writes_is_restored_by_the_runner_that_owns_the_egress() {
    let owned = Record { attempt: 2, ..at(LaunchState::Running { task: Some(task(2)), ending: false }) };
    let restored = LaunchEvent::Restored(Box::new(owned.clone()));
    for state in [LaunchState::Queued { renumber: true }, LaunchState::Launched { task: task(1) }] {
        let older = Record { dispatcher: "B".to_owned(), stop_asked: true, version: 7, ..at(state) };
        let now = apply(&older, &restored).unwrap().unwrap();
        let expected = Record { dispatcher: "B".to_owned(), stop_asked: true, version: 7, ..owned.clone() };
        assert_eq!(now, expected, "adoptions and stops since then count");
        assert!(apply(&now, &restored).unwrap().is_none());
    }
    // Of the same number.
    let same = |state| apply(&Record { attempt: 2, ..at(state) }, &restored).unwrap().map(|record| record.state);
    for state in [LaunchState::Queued { renumber: false }, LaunchState::Asking, LaunchState::Launched { task: task(2) }]
    {
        assert_eq!(same(state), Some(owned.state.clone()));
    }
    for state in [
        LaunchState::Queued { renumber: true },
        LaunchState::Running { task: None, ending: true },
        LaunchState::Ended { task: None, asked: true },
    ] {
        assert_eq!(same(state), None, "given up, owned already, over");
    }
    // A later attempt took its place, or the egress was ended meanwhile.
    assert!(apply(&Record { attempt: 3, ..at(LaunchState::Asking) }, &restored).unwrap().is_none());
    assert!(apply(&at(LaunchState::Ended { task: None, asked: true }), &restored).unwrap().is_none());
}

/// Events as dispatchers A and B, runners and livekit-server might send them, right or wrong.
fn any_event() -> impl Strategy<Value = LaunchEvent> {
    let by = prop_oneof![Just("A"), Just("B")];
    let attempt = 1u32..6;
    let stage = prop_oneof![Just(RunnerStage::Going), Just(RunnerStage::Ending), Just(RunnerStage::Over)];
    let phase = prop_oneof![
        Just(Phase::Accepted),
        Just(Phase::Launching),
        Just(Phase::Running),
        Just(Phase::Ending),
        Just(Phase::Over)
    ];
    (by, attempt, 0u8..4, stage, phase, any::<bool>(), 0u8..13).prop_map(
        |(by, attempt, id, stage, phase, flag, kind)| match kind {
            0 | 1 => call(by, attempt, attempt + u32::from(flag), flag.then_some(10)),
            2 => noted(attempt, id),
            3 => LaunchEvent::TookOver { attempt },
            4 => report(attempt, stage),
            5 => LaunchEvent::StopAsked,
            6 => {
                let other = if by == "A" { "B" } else { "A" };
                LaunchEvent::Adopted { from: other.to_owned(), by: by.to_owned() }
            }
            7 => start_lost(attempt, flag.then(|| task(id))),
            8 => order(by, attempt),
            9 => {
                if flag {
                    interrupted(by, attempt)
                } else {
                    handed_over(attempt)
                }
            }
            10 => call_to_go_on(by, attempt, attempt + u32::from(flag)),
            11 => end(by, if flag { EndCondition::NotStarted(attempt) } else { EndCondition::NeverRecorded }),
            _ => end(by, EndCondition::Stands(SeenLaunch { attempt, phase })),
        },
    )
}

proptest! {
    #[test]
    fn a_record_lives_once(events in prop::collection::vec(any_event(), 0..120)) {
        let mut record = accepted();
        let mut recorded_by = vec![];
        for event in events {
            let Some(changed) = apply(&record, &event).unwrap() else { continue };
            let is_adopted = matches!(event, LaunchEvent::Adopted { .. });
            prop_assert!(!record.state.is_over() || is_adopted);
            prop_assert!((record.attempt..=record.attempt + 1).contains(&changed.attempt));
            prop_assert!(record.lost.is_empty() || record.lost == changed.lost);
            // A state says whether it is of a salvage run, and no other field contradicts it.
            match &changed.state {
                LaunchState::Queued { .. } => prop_assert!(!changed.is_salvage() && !changed.is_resumption()),
                LaunchState::Interrupted => prop_assert!(changed.is_resumption()),
                LaunchState::Running { .. } => prop_assert!(!changed.is_salvage()),
                LaunchState::Lost { .. } | LaunchState::Salvaging { .. } => prop_assert!(changed.is_salvage()),
                _ => {}
            }
            // One attempt records, and once it has, others only go on after an interruption of the one before.
            if matches!(changed.state, LaunchState::Running { .. }) && recorded_by.last() != Some(&changed.attempt) {
                prop_assert!(recorded_by.is_empty() || record.is_resuming());
                recorded_by.push(changed.attempt);
            }
            let count = changed.resumption.as_ref().map_or(0, |resumption| resumption.count);
            prop_assert!(recorded_by.len() <= 1 + count as usize && count <= MAX_RESUMPTIONS);
            let goes_on = changed.is_salvage() || changed.is_resumption();
            prop_assert!(recorded_by.is_empty() || goes_on || !changed.state.is_starting());
            // No task is forgotten: it is the current one, or an earlier one.
            if let Some(task) = record.task().filter(|_| !matches!(event, LaunchEvent::TaskNoted { .. })) {
                prop_assert_eq!(changed.task_of(record.attempt), Some(task));
            }
            // Numbers below the current one; the current one where its task is given up.
            let last = changed.dispatch.earlier.keys().last().copied().unwrap_or_default();
            prop_assert!(last < changed.attempt || (last == changed.attempt && changed.state.needs_new_number()
                || changed.state.is_over()));
            // The stored form says everything.
            let stored = serde_json::to_vec(&changed).unwrap();
            prop_assert_eq!(&serde_json::from_slice::<Record>(&stored).unwrap(), &changed);
            // The same news again changes nothing; a call may be made again.
            if !matches!(event, LaunchEvent::Requested(_) | LaunchEvent::Reported { .. }) {
                prop_assert!(apply(&changed, &event).unwrap().is_none(), "{:?} twice", event);
            }
            record = changed;
        }
    }
}
