//! The launch queue, launch by launch.

use std::sync::Arc;
use std::time::Duration;

use spillway_bus::Dispatch;
use spillway_launchers::RunMode;
use spillway_protocol::ids::EgressId;
use tokio::time::Instant;

use super::launch_queue::LaunchQueue;
use super::{PauseScope, QueueStep, QueuedLaunch, SharedQueue};
use crate::admission::{Admission, Bounds, QueueLoad};

const SECOND: Duration = Duration::from_secs(1);

fn of(tenant: &str, share: f64, name: &str, now: Instant) -> QueuedLaunch {
    QueuedLaunch {
        egress_id: EgressId::parse(name).unwrap(),
        attempt: 1,
        run_mode: RunMode::Record,
        weight: 1.0,
        tenant: tenant.into(),
        dispatch: Dispatch { share, ..Dispatch::default() },
        asked: false,
        fresh: false,
        enqueued_at: now,
        deadline: now + 10 * SECOND,
        not_before: None,
        message: String::new(),
    }
}

fn queued(name: &str, now: Instant) -> QueuedLaunch {
    of("", 1.0, name, now)
}

fn launched(queue: &mut LaunchQueue, now: Instant) -> Option<(u64, QueuedLaunch)> {
    match queue.next(now) {
        QueueStep::Launch(sequence, queued) => Some((sequence, *queued)),
        _ => None,
    }
}

fn launch_order(queue: &mut LaunchQueue, now: Instant) -> Vec<String> {
    std::iter::from_fn(|| launched(queue, now)).map(|(_, it)| it.egress_id.to_string()).collect()
}

fn unbounded() -> LaunchQueue {
    LaunchQueue::new(Bounds { cores: None, tasks: None, queue: 9 })
}

#[tokio::test(start_paused = true)]
async fn a_freed_place_goes_to_the_first() {
    let now = Instant::now();
    let mut queue = LaunchQueue::new(Bounds { cores: Some(1.0), tasks: None, queue: 9 });
    for name in ["EG_a", "EG_b", "EG_c"] {
        assert!(queue.enqueue(queued(name, now)));
    }
    assert!(!queue.enqueue(queued("EG_b", now)), "a retry does not wait twice");
    let (_, first) = launched(&mut queue, now).unwrap();
    queue.launch_ended(&first.egress_id);
    assert!(matches!(queue.next(now), QueueStep::Wait(Some(until)) if until == now + 10 * SECOND));
    queue.remove(&first.egress_id);
    assert_eq!(launched(&mut queue, now).unwrap().1.egress_id.as_str(), "EG_b");
}

#[tokio::test(start_paused = true)]
async fn what_a_task_before_has_left_goes_first_and_needs_no_place() {
    for run_mode in [RunMode::Salvage, RunMode::Resume] {
        let now = Instant::now();
        let mut queue = LaunchQueue::new(Bounds { cores: Some(1.0), tasks: Some(1), queue: 9 });
        queue.enqueue(queued("EG_a", now));
        let (_, first) = launched(&mut queue, now).unwrap();
        queue.launch_ended(&first.egress_id);
        queue.enqueue(queued("EG_b", now));
        queue.enqueue(QueuedLaunch { run_mode, ..queued("EG_c", now) });
        assert_eq!(queue.order().iter().map(EgressId::as_str).collect::<Vec<_>>(), ["EG_c", "EG_b"]);
        assert_eq!(launched(&mut queue, now).unwrap().1.egress_id.as_str(), "EG_c");
        assert!(launched(&mut queue, now).is_none(), "the dispatcher is full");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pause_holds_its_scope_and_keeps_the_order() {
    let now = Instant::now();
    let mut queue = unbounded();
    for name in ["EG_a", "EG_b", "EG_c"] {
        queue.enqueue(queued(name, now));
    }
    let (a_sequence, a) = launched(&mut queue, now).unwrap();
    let (b_sequence, b) = launched(&mut queue, now).unwrap();
    queue.requeue(b_sequence, b, now + 2 * SECOND, PauseScope::All);
    queue.requeue(a_sequence, a, now + SECOND, PauseScope::All);
    assert!(matches!(queue.next(now + SECOND), QueueStep::Wait(Some(until)) if until == now + 2 * SECOND));
    let later = now + 2 * SECOND;
    let (a_sequence, a) = launched(&mut queue, later).unwrap();
    assert_eq!(a.egress_id.as_str(), "EG_a");
    queue.requeue(a_sequence, a, later + SECOND, PauseScope::Launch);
    assert_eq!(launch_order(&mut queue, later), ["EG_b", "EG_c"]);
    assert_eq!(launch_order(&mut queue, later + SECOND), ["EG_a"]);
}

#[tokio::test(start_paused = true)]
async fn tenants_take_turns_by_weight_and_none_is_owed_the_past() {
    let now = Instant::now();
    let mut queue = unbounded();
    for n in 0..8 {
        queue.enqueue(of("many", 1.0, &format!("EG_m{n}"), now));
    }
    assert_eq!(launched(&mut queue, now).unwrap().1.egress_id.as_str(), "EG_m0");
    assert_eq!(launched(&mut queue, now).unwrap().1.egress_id.as_str(), "EG_m1");
    for n in 0..2 {
        queue.enqueue(of("few", 1.0, &format!("EG_f{n}"), now));
    }
    for n in 0..4 {
        queue.enqueue(of("heavy", 2.0, &format!("EG_h{n}"), now));
    }
    let told: Vec<String> = queue.order().iter().map(ToString::to_string).collect();
    let went = launch_order(&mut queue, now);
    assert_eq!(told, went, "as people are told");
    let before = |name: &str| went.iter().position(|it| it == name).unwrap();
    assert!(before("EG_f1") <= 6, "{went:?}");
    assert!(before("EG_h3") <= 9 && before("EG_h1") < before("EG_f1"), "{went:?}");
    assert!(before("EG_m3") < before("EG_m4") && went.len() == 12, "{went:?}");
}

#[tokio::test(start_paused = true)]
async fn a_tenant_whose_places_are_taken_holds_up_nobody_else() {
    let now = Instant::now();
    let mut queue = unbounded();
    for name in ["EG_a", "EG_b"] {
        queue.enqueue(of("full", 1.0, name, now));
    }
    queue.enqueue(of("free", 1.0, "EG_c", now));
    let (sequence, a) = launched(&mut queue, now).unwrap();
    queue.requeue(sequence, a, now + SECOND, PauseScope::Tenant);
    assert_eq!(launch_order(&mut queue, now), ["EG_c"]);
    queue.remove(&EgressId::parse("EG_elsewhere").unwrap());
    assert_eq!(launch_order(&mut queue, now), ["EG_a", "EG_b"], "a slot became free");
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_too_long_is_given_up_even_while_everybody_waits() {
    let now = Instant::now();
    let mut queue = unbounded();
    queue.enqueue(queued("EG_a", now));
    let (sequence, a) = launched(&mut queue, now).unwrap();
    queue.requeue(sequence, a, now + 60 * SECOND, PauseScope::All);
    assert!(matches!(queue.next(now), QueueStep::Wait(Some(until)) if until == now + 10 * SECOND));
    assert!(matches!(queue.next(now + 10 * SECOND), QueueStep::GiveUp(_)));
    assert!(queue.is_empty());
}

/// A burst of requests whose records are being written fills the queue as if they were in it.
#[tokio::test(start_paused = true)]
async fn what_was_admitted_is_counted_until_it_is_enqueued_or_given_up() {
    let now = Instant::now();
    let id = |name: &str| EgressId::parse(name).unwrap();
    let queue = Arc::new(SharedQueue::new(Bounds { cores: None, tasks: Some(1), queue: 2 }));
    let admit = |name: &str, max_waiting| queue.admit(&id(name), "t", 1.0, max_waiting);
    let (first, _slot) = admit("EG_a", None).unwrap();
    assert_eq!(first, Admission::Now);
    let (second, second_place) = admit("EG_b", None).unwrap();
    assert!(matches!(&second, Admission::Queued { message } if message.contains("0 before this one")), "{second:?}");
    assert!(admit("EG_c", Some(1)).is_err(), "the tenant's bound");
    let (_, third_place) = admit("EG_c", None).unwrap();
    assert!(admit("EG_d", None).is_err(), "two wait, though none is in the queue yet");
    drop(third_place);
    let (_, _third_place) = admit("EG_d", None).unwrap();
    // One that is enqueued is not counted twice, nor freed by what was reserved for it.
    queue.lock().enqueue(of("t", 1.0, "EG_b", now));
    drop(second_place);
    assert_eq!(queue.lock().load_and_bounds().0, QueueLoad { running: 1.0, tasks: 1, queued: 2 });
    assert_eq!(queue.lock().load().queued, 1);
}
