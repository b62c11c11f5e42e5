//! Open tasks, pace, ledger, leases and switches.

use std::time::Duration;

use spillway_bus::{CapReached, Caps, Leases, LedgerLine, OpenTask, Pace, SlotResult, Switches, TaskKey, Tasks};

use super::keys::id;
use crate::fixture::{Fixture, eventually};

const SECOND: Duration = Duration::from_secs(1);
const AT_ONCE: SlotResult = SlotResult::Granted { wait: Duration::ZERO, slowed: false };

fn task(name: &str, attempt: u32) -> TaskKey {
    TaskKey { egress_id: id(name), attempt }
}

fn open_task<'a>(task: &'a TaskKey, tenant: &'a str, target: &'a str) -> OpenTask<'a> {
    OpenTask { task, tenant, target, facts: "{\"a\":\n1}", caps: Caps::default(), pace: None }
}

pub async fn caps_hold_whoever_asks_and_a_closed_task_makes_room(fixture: &impl Fixture) {
    let caps = Caps { all: Some(6), tenant: Some(4), target: Some(3) };
    let mut askers = Vec::new();
    for n in 0..8 {
        let tasks = Tasks::new(&fixture.bus().await);
        askers.push(tokio::spawn(async move {
            let key = task(&format!("EG_{n}"), 1);
            tasks.open(OpenTask { caps, ..open_task(&key, "blue\nsky", "near") }).await.unwrap()
        }));
    }
    let mut answers = Vec::new();
    for asker in askers {
        answers.push(asker.await.unwrap());
    }
    let count = |answer| answers.iter().filter(|it| **it == answer).count();
    assert_eq!((count(AT_ONCE), count(SlotResult::Refused(CapReached::Target))), (3, 5), "{answers:?}");

    let tasks = Tasks::new(&fixture.bus().await);
    let ask = async |name: &str, tenant: &str, target: &str| {
        tasks.open(OpenTask { caps, ..open_task(&task(name, 1), tenant, target) }).await.unwrap()
    };
    assert_eq!(ask("EG_a", "blue\nsky", "far").await, AT_ONCE);
    assert_eq!(ask("EG_b", "blue\nsky", "far").await, SlotResult::Refused(CapReached::Tenant));
    assert_eq!(ask("EG_b", "red", "far").await, AT_ONCE);
    assert_eq!(ask("EG_b", "red", "far").await, AT_ONCE, "it is open already");
    assert_eq!(ask("EG_c", "", "far").await, AT_ONCE);
    assert_eq!(ask("EG_d", "red", "other").await, SlotResult::Refused(CapReached::All));

    let open = tasks.list().await.unwrap();
    assert_eq!(open.len(), 6);
    let first = open.iter().find(|it| it.target == "near").unwrap();
    assert_eq!((first.tenant.as_str(), first.facts.as_str()), ("blue_sky", "{\"a\":\n1}"));
    assert!(tasks.drop(&first.task).await.unwrap());
    assert!(!tasks.drop(&first.task).await.unwrap());
    assert_eq!(ask("EG_e", "blue\nsky", "near").await, AT_ONCE);

    // One with a line stays closed for late openers; one that was only dropped may be opened again.
    let line = LedgerLine { text: "{}", month: "2026-11", tenant: "red", amount: 0.5 };
    assert!(tasks.close(&task("EG_b", 1), line).await.unwrap());
    assert_eq!(ask("EG_b", "red", "far").await, AT_ONCE);
    assert!(!tasks.close(&task("EG_b", 1), line).await.unwrap());
    assert!(tasks.drop(&task("EG_e", 1)).await.unwrap());
    assert_eq!(ask("EG_e", "blue\nsky", "near").await, AT_ONCE);
    assert_eq!(tasks.list().await.unwrap().len(), 5);
}

pub async fn launches_keep_their_pace_and_slow_down_when_told(fixture: &impl Fixture) {
    let tasks = Tasks::new(&fixture.bus().await);
    let pace = Pace { burst: 5, per_second: 1.0, max_wait: 3 * SECOND };
    let ask = async |n: u32, target: &str| {
        tasks.open(OpenTask { pace: Some(pace), ..open_task(&task("EG_1", n), "", target) }).await.unwrap()
    };
    for n in 1..=5 {
        assert_eq!(ask(n, "near").await, AT_ONCE);
    }
    let mut last = Duration::ZERO;
    for n in 6..=8 {
        let SlotResult::Granted { wait, slowed: false } = ask(n, "near").await else { panic!("a turn of its own") };
        assert!(wait > last && wait <= (n - 5) * SECOND, "{wait:?}");
        last = wait;
    }
    assert!(matches!(ask(9, "near").await, SlotResult::Later(wait) if wait > 3 * SECOND && wait <= 4 * SECOND));
    assert_eq!(ask(10, "far").await, AT_ONCE, "another target has its own pace");

    let states = async || {
        let targets = ["near", "moon", "far"].map(str::to_owned);
        let states = tasks.pace_states(&targets).await.unwrap();
        let [near, None, far] = states[..] else { panic!("{states:?}") };
        (near.unwrap(), far.unwrap())
    };
    assert_eq!((states().await.0.factor, states().await.1.factor), (1.0, 1.0));
    let before = states().await.1.closed_until_ms;
    assert_eq!(tasks.pace_states(&[]).await.unwrap(), []);
    tasks.slow_down("far", pace, SECOND).await.unwrap();
    let (near, far) = states().await;
    assert_eq!((near.factor, far.factor), (1.0, 0.5));
    assert!((before + 900..before + 60_000).contains(&far.closed_until_ms), "{before} {far:?}");
    let SlotResult::Granted { wait, slowed: true } = ask(11, "far").await else { panic!("a slow turn") };
    assert!(wait > SECOND / 2 && wait <= SECOND, "{wait:?}");
    // Half as fast as before.
    let SlotResult::Granted { wait: next, .. } = ask(12, "far").await else { panic!("a turn after it") };
    assert!(next > wait + SECOND && next <= 3 * SECOND, "{next:?}");
    for _ in 0..10 {
        tasks.speed_up("far", pace).await.unwrap();
    }
    assert!(matches!(ask(13, "far").await, SlotResult::Later(_) | SlotResult::Granted { slowed: false, .. }));
}

pub async fn a_task_is_closed_once_and_its_line_is_kept(fixture: &impl Fixture) {
    let tasks = Tasks::new(&fixture.bus().await);
    for n in 1..=3 {
        assert_eq!(tasks.open(open_task(&task("EG_1", n), "red", "near")).await.unwrap(), AT_ONCE);
    }
    let mut closers = Vec::new();
    for _ in 0..4 {
        let tasks = Tasks::new(&fixture.bus().await);
        closers.push(tokio::spawn(async move {
            let line = LedgerLine { text: "one", month: "2026-11", tenant: "red", amount: 0.25 };
            tasks.close(&task("EG_1", 1), line).await.unwrap()
        }));
    }
    let mut heard = 0;
    for closer in closers {
        heard += usize::from(closer.await.unwrap());
    }
    assert_eq!(heard, 1);
    let line = LedgerLine { text: "two", month: "2026-11", tenant: "red", amount: 0.5 };
    assert!(tasks.close(&task("EG_1", 2), line).await.unwrap());
    assert_eq!(tasks.spent("2026-11", "red").await.unwrap(), 0.75);
    assert_eq!(tasks.spent("2026-12", "red").await.unwrap(), 0.0);
    assert_eq!(tasks.list().await.unwrap().len(), 1);

    let all = tasks.lines(0, i64::MAX / 2, None, 10).await.unwrap();
    assert_eq!(all.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>(), ["one", "two"]);
    let rest = tasks.lines(0, i64::MAX / 2, Some(&all[0].0), 10).await.unwrap();
    assert_eq!(rest, all[1..]);
    assert_eq!(tasks.lines(0, i64::MAX / 2, None, 1).await.unwrap(), all[..1]);
    assert_eq!(tasks.lines(0, 1, None, 10).await.unwrap(), []);

    let backwards: Vec<_> = all.iter().rev().cloned().collect();
    assert_eq!(tasks.newest_lines(0, i64::MAX / 2, None, 10).await.unwrap(), backwards);
    assert_eq!(tasks.newest_lines(0, i64::MAX / 2, None, 1).await.unwrap(), backwards[..1]);
    assert_eq!(tasks.newest_lines(0, i64::MAX / 2, Some(&backwards[0].0), 10).await.unwrap(), backwards[1..]);
    assert_eq!(tasks.newest_lines(0, 1, None, 10).await.unwrap(), []);
    assert_eq!(tasks.newest_lines(i64::MAX / 2, i64::MAX / 2, None, 10).await.unwrap(), []);
}

pub async fn a_lease_has_one_holder_and_a_number_that_grows(fixture: &impl Fixture) {
    let leases = Leases::new(&fixture.bus().await);
    let hold = async |holder: &str, ttl| leases.hold("sweep", holder, ttl).await.unwrap();
    let long = 60 * SECOND;
    let first = hold("a", Duration::from_millis(300)).await.unwrap();
    assert_eq!(hold("b", long).await, None);
    assert_eq!(hold("a", Duration::from_millis(300)).await, Some(first), "renewed");
    eventually("b gets it", async || hold("b", long).await.is_some()).await;
    let second = hold("b", long).await.unwrap();
    assert!(second > first);
    assert_eq!(hold("a", long).await, None);
    assert!(leases.is_current("sweep", second).await.unwrap() && !leases.is_current("sweep", first).await.unwrap());
    assert!(leases.hold("another", "a", long).await.unwrap().is_some());
}

pub async fn an_operators_switch_is_read_by_all(fixture: &impl Fixture) {
    let one = Switches::new(&fixture.bus().await, "targets");
    assert!(one.all().await.unwrap().is_empty());
    one.set("near", Some("paused")).await.unwrap();
    let other = Switches::new(&fixture.bus().await, "targets");
    other.set("far", Some("draining")).await.unwrap();
    other.set("near", None).await.unwrap();
    assert_eq!(one.all().await.unwrap(), [("far".to_owned(), "draining".to_owned())].into());
}
