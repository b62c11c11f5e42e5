//! Storms: short simulations in which everything fails, each by its seed, in virtual time. Every egress ends exactly once.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use spillway_bus::{FaultyLink, LinkFaults, Tasks};
use spillway_cost::Capacity;
use spillway_dispatcher::billing::bill;
use spillway_dispatcher::config::tenants::{Tenant, TenantBy, Tenants};
use spillway_dispatcher::{Config, Dispatcher, Setup};
use spillway_launchers::Launcher;
use spillway_launchers::simulated::SimulatedOptions;
use spillway_protocol::code::Code;
use spillway_protocol::livekit::EgressStatus;
use tokio::time::{Instant, sleep};

use crate::figures::targets;
use crate::harness::{FOREIGN, FaultRates, FaultyPlatform, ForeignValues, Harness, Play, is_over, rewrite_as_before};

const SECOND: Duration = Duration::from_secs(1);
const EGRESSES: usize = 8;
/// Of virtual time; no faults after it.
const STORM: Duration = Duration::from_secs(50);

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// `SPILLWAY_SIM_SEEDS=1000` for many storms, `SPILLWAY_SIM_SEED=17` for one.
#[test]
fn whatever_happens_each_egress_is_recorded_once_at_most_and_ends_once_and_no_task_is_left() {
    let only = from_environment("SPILLWAY_SIM_SEED");
    let (first, end) = only.map_or((0, from_environment("SPILLWAY_SIM_SEEDS").unwrap_or(40)), |seed| (seed, seed + 1));
    let next = AtomicU64::new(first);
    let (stats, failures) = (Mutex::new(StormStats::default()), Mutex::new(Vec::new()));
    let play = || {
        while let Some(seed) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|seed| *seed < end) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
            let world = AssertUnwindSafe(|| runtime.unwrap().block_on(run(seed)));
            match catch_unwind(world) {
                Ok(one) => stats.lock().unwrap().add(&one),
                Err(panic) => failures.lock().unwrap().push(format!("seed {seed}: {}", panic_message(&*panic))),
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(play);
        }
    });
    let (stats, failures) = (stats.into_inner().unwrap(), failures.into_inner().unwrap());
    println!("{stats:?}");
    assert!(failures.is_empty(), "{} worlds went wrong:\n{}", failures.len(), failures.join("\n"));
    // A storm without faults proves nothing.
    let StormStats { recorded, replaced, deaths, frozen, away, cut_off, salvaged, .. } = stats;
    let StormStats { too_long, aborted, foreign, upgrades, resumed, told_to_leave, .. } = stats;
    let faults = [
        recorded,
        replaced,
        deaths,
        frozen,
        away,
        cut_off,
        salvaged,
        too_long,
        aborted,
        foreign,
        upgrades,
        resumed,
        told_to_leave,
    ];
    assert!(faults.iter().all(|n| *n > 0) || only.is_some(), "{stats:?}");
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic")
}

#[derive(Clone, Copy, Debug, Default)]
struct StormStats {
    worlds: u32,
    /// That livekit-server knows.
    egresses: u32,
    recorded: u32,
    /// Recorded by a task other than the first.
    replaced: u32,
    salvaged: u32,
    tasks: u32,
    /// Dispatchers killed at a random time, and between two given commands to Redis.
    deaths: u32,
    frozen: u32,
    /// Outages of Redis, for all or for one dispatcher.
    away: u32,
    /// Outages of Redis for the runners alone.
    cut_off: u32,
    /// Outages of Redis that are longer than a runner's last report waits.
    too_long: u32,
    /// Uploads that another program aborted.
    aborted: u32,
    /// Storms with values of a newer version, and with a dispatcher of an older one.
    foreign: u32,
    upgrades: u32,
    /// Recorded by more than one task, each after the death of the one before.
    resumed: u32,
    /// Tasks that their platform told to leave.
    told_to_leave: u32,
    told_again: u32,
}

impl StormStats {
    fn add(&mut self, other: &Self) {
        self.worlds += other.worlds;
        self.egresses += other.egresses;
        self.recorded += other.recorded;
        self.replaced += other.replaced;
        self.salvaged += other.salvaged;
        self.tasks += other.tasks;
        self.deaths += other.deaths;
        self.frozen += other.frozen;
        self.away += other.away;
        self.cut_off += other.cut_off;
        self.too_long += other.too_long;
        self.aborted += other.aborted;
        self.foreign += other.foreign;
        self.upgrades += other.upgrades;
        self.resumed += other.resumed;
        self.told_to_leave += other.told_to_leave;
        self.told_again += other.told_again;
    }
}

fn play(dice: &mut StdRng) -> Play {
    let some_time = Duration::from_millis(dice.random_range(3_000..100_000));
    let plays = [
        Play::Records,
        Play::Records,
        Play::Records,
        Play::DiesBeforeItsTicket,
        Play::DiesWithItsTicket,
        Play::DiesRecording,
        Play::DiesEnding,
        Play::DiesBeforeItsLastReport,
        Play::FallsSilent,
        Play::Freezes(some_time),
        Play::FreezesEnding(some_time),
        Play::Ends(some_time),
        Play::Sleeps,
        Play::Reclaimed,
        Play::NeverStarts,
    ];
    *plays.choose(dice).unwrap()
}

/// Of a task that is told to leave, or that goes on with a recording: dice of its own, so that seeds keep their storms.
fn resumed_plays(dice: &mut StdRng) -> Vec<Play> {
    let plays = [
        Play::DiesRecording,
        Play::DiesRecording,
        Play::Reclaimed,
        Play::ToldToLeave,
        Play::DiesWithItsTicket,
        Play::DiesBeforeItsTicket,
        Play::NeverStarts,
        Play::DiesEnding,
        Play::FallsSilent,
        Play::Freezes(Duration::from_millis(dice.random_range(3_000..100_000))),
    ];
    (0..dice.random_range(0..5)).filter_map(|_| plays.choose(&mut *dice).copied()).collect()
}

/// What every dispatcher of one storm is made with.
struct DispatcherPool<'a> {
    harness: &'a Harness,
    config: Config,
    launchers: Vec<Arc<dyn Launcher>>,
    stats: Mutex<StormStats>,
}

impl DispatcherPool<'_> {
    async fn open(&self, link: &FaultyLink) -> Dispatcher {
        loop {
            let bus = link.to(&self.harness.bus());
            let setup = Setup::with(self.config.clone(), bus, self.launchers.clone(), self.harness.clock.clone());
            match Dispatcher::start(setup).await {
                Ok(dispatcher) => return dispatcher,
                // Redis does not answer: started again, as a supervisor would.
                Err(_) => sleep(SECOND / 2).await,
            }
        }
    }

    /// One replica of the dispatcher: a new one follows each that dies, until the storm is over.
    async fn place(&self, mut dice: StdRng, until: Instant) -> Dispatcher {
        while Instant::now() < until {
            let faults = LinkFaults {
                seed: dice.random(),
                slow: Duration::from_millis(dice.random_range(0..40)),
                answer_lost: 0.01,
                freezes_at: dice.random_bool(0.6).then(|| dice.random_range(0..1200)),
            };
            let link = FaultyLink::new(faults);
            let dispatcher = tokio::select! {
                dispatcher = self.open(&link) => dispatcher,
                () = link.frozen() => {
                    self.stats.lock().unwrap().frozen += 1;
                    continue;
                }
            };
            let life = Duration::from_millis(dice.random_range(1_000..40_000));
            let away = dice.random_bool(0.3).then(|| Duration::from_millis(dice.random_range(500..20_000)));
            let death = async {
                sleep(life).await;
                if let Some(time) = away {
                    self.stats.lock().unwrap().away += 1;
                    link.cut();
                    sleep(time).await;
                    link.mend();
                    sleep(3 * SECOND).await;
                }
            };
            tokio::select! {
                () = death => self.stats.lock().unwrap().deaths += 1,
                () = link.frozen() => self.stats.lock().unwrap().frozen += 1,
            }
            dispatcher.vanish().await;
            sleep(Duration::from_millis(dice.random_range(0..4_000))).await;
        }
        self.open(&FaultyLink::new(LinkFaults::default())).await
    }
}

async fn run(seed: u64) -> StormStats {
    if std::env::var_os("SPILLWAY_LOG").is_some() {
        spillway_process::telemetry::init("debug", spillway_process::telemetry::LogFormat::Text);
    }
    let mut dice = StdRng::seed_from_u64(seed);
    let latency = Duration::from_millis(dice.random_range(0..1500));
    let slow = Duration::from_millis(dice.random_range(0..40));
    let runners_link = FaultyLink::new(LinkFaults { seed, slow, answer_lost: 0.005, freezes_at: None });
    let harness = Harness::set_with(SimulatedOptions { latency, ..SimulatedOptions::default() }, &runners_link).await;
    let rates = FaultRates {
        throttled: 0.1,
        no_capacity: 0.1,
        fails: 0.05,
        answer_lost: 0.1,
        hangs: 0.03,
        misconfigured: 0.02,
        tells_late: Duration::from_millis(dice.random_range(0..8000)),
    };
    let names = ["near/spot", "near", "far"];
    let launchers: Vec<Arc<dyn Launcher>> = names
        .iter()
        .zip(0u64..)
        .map(|(name, n)| Arc::new(FaultyPlatform::new(name, &harness.cloud, rates, seed * 7 + n)) as Arc<dyn Launcher>)
        .collect();
    let mut config = targets(&names);
    config.max_tasks = Some(6);
    config.targets[0].max_tasks = Some(3);
    // What it records goes on elsewhere or there; on the others an egress ends with its task.
    config.targets[0].capacity = Capacity::Spot;
    config.orphan_grace = 20 * SECOND;
    config.heartbeat_timeout = 150 * SECOND;
    let usual = Tenant { max_recordings: Some(4), ..Tenant::default() };
    config.tenants = Tenants { by: TenantBy::RoomPrefix("/".to_owned()), usual, ..Tenants::default() };

    // Faults that came later have dice of their own, so that a seed keeps the storm it had.
    let mut more = StdRng::seed_from_u64(seed.wrapping_add(0x5eed));
    let foreign = if more.random_bool(0.3) { Some(ForeignValues::plant(&harness.bus()).await) } else { None };

    let ids: Vec<String> = (0..EGRESSES).map(|n| format!("EG_s{seed}n{n}")).collect();
    for id in &ids {
        harness.runners.play(id, play(&mut dice));
        let salvages = [Play::DiesRecording, Play::DiesWithItsTicket, Play::DiesBeforeItsTicket, Play::NeverStarts];
        let dying: Vec<Play> =
            (0..dice.random_range(0..5)).filter_map(|_| salvages.choose(&mut dice).copied()).collect();
        harness.runners.play_salvages(id, &dying);
        if dice.random_bool(0.15) {
            harness.runners.start_twice(id);
        }
    }
    let mut leaving = 0;
    let mut newest = StdRng::seed_from_u64(seed.wrapping_add(0x1eaf));
    for id in &ids {
        if newest.random_bool(0.15) {
            harness.runners.play(id, Play::ToldToLeave);
            leaving += 1;
        }
        harness.runners.play_resumed(id, &resumed_plays(&mut newest));
    }
    let stored: Vec<bool> = ids.iter().map(|_| dice.random_bool(0.4)).collect();
    let lives = ids.iter().zip(&stored).map(|(id, stored)| {
        let (start, stop) = (dice.random_range(0..6000), dice.random_range(0..40_000));
        let livekit = &harness.livekit;
        async move {
            sleep(Duration::from_millis(start)).await;
            let _ = if *stored { livekit.start_stored(id).await } else { livekit.start_composite(id).await };
            sleep(Duration::from_millis(stop)).await;
            // A silent runner or an outage of Redis may cost the answer; callers ask again.
            for _ in 0..20 {
                match livekit.stop(id).await {
                    Ok(_) => break,
                    Err(error) if error.code == Code::FailedPrecondition => break,
                    Err(_) => sleep(3 * SECOND).await,
                }
            }
        }
    });
    let lives = futures_util::future::join_all(lives);
    let pool = DispatcherPool { harness: &harness, config, launchers, stats: Mutex::default() };
    pool.stats.lock().unwrap().foreign += u32::from(foreign.is_some());
    pool.stats.lock().unwrap().told_to_leave += leaving;
    let mut outages: Vec<(u64, u64)> =
        (0..2).map(|_| (dice.random_range(500..15_000), dice.random_range(300..8_000))).collect();
    if more.random_bool(0.2) {
        pool.stats.lock().unwrap().too_long += 1;
        outages[1].1 = more.random_range(930_000..1_200_000);
    }
    let outages = async {
        for (after, time) in outages {
            sleep(Duration::from_millis(after)).await;
            pool.stats.lock().unwrap().away += 1;
            harness.broker.cut();
            sleep(Duration::from_millis(time)).await;
            harness.broker.mend();
        }
    };
    // The runners' own connection, for minutes, in any phase.
    let cut = dice.random_bool(0.4).then(|| (dice.random_range(3_000..40_000), dice.random_range(5_000..200_000)));
    let cut = async {
        let Some((after, time)) = cut else { return };
        sleep(Duration::from_millis(after)).await;
        pool.stats.lock().unwrap().cut_off += 1;
        runners_link.cut();
        sleep(Duration::from_millis(time)).await;
        runners_link.mend();
    };
    let until = Instant::now() + STORM;
    // Lifecycle rules and clean-ups of the store.
    for id in ids.iter().zip(&stored).filter(|(_, stored)| **stored).map(|(id, _)| id) {
        if more.random_bool(0.2) {
            let (runners, id) = (Arc::clone(&harness.runners), id.clone());
            let after = Duration::from_millis(more.random_range(1_000..40_000));
            pool.stats.lock().unwrap().aborted += 1;
            tokio::spawn(async move {
                sleep(after).await;
                runners.abort_upload(&id);
            });
        }
    }
    // A dispatcher of the version before has a hand in every record.
    if more.random_bool(0.3) {
        pool.stats.lock().unwrap().upgrades += 1;
        let (bus, ids, mut dice) = (harness.bus(), ids.clone(), StdRng::seed_from_u64(more.random()));
        tokio::spawn(async move {
            while Instant::now() < until {
                sleep(Duration::from_millis(dice.random_range(50..1_500))).await;
                if let Some(id) = ids.choose(&mut dice) {
                    rewrite_as_before(&bus, id).await;
                }
            }
        });
    }
    let places = [dice.random(), dice.random()].map(|seed| pool.place(StdRng::seed_from_u64(seed), until));
    let (_, (), (), _dispatchers) = tokio::join!(lives, outages, cut, futures_util::future::join_all(places));
    runners_link.calm();
    // Stops that a long outage has swallowed.
    futures_util::future::join_all(ids.iter().map(|id| harness.livekit.stop(id))).await;

    let is_done = || {
        let book = harness.livekit.book();
        book.infos.values().all(is_over) && book.infos.keys().all(|id| book.ends.contains_key(id))
    };
    let begun = Instant::now();
    while !is_done() {
        assert!(begun.elapsed() < 400 * SECOND, "not every egress ended: {:?}", harness.livekit.book().infos);
        sleep(SECOND / 4).await;
    }
    // Late events, orphans, and a runner that was only cut off.
    sleep(240 * SECOND).await;
    let mut stats = *pool.stats.lock().unwrap();
    count(&ids, &harness, &mut stats);
    for (id, _) in ids.iter().zip(&stored).filter(|(_, stored)| **stored) {
        let book = harness.livekit.book();
        let Some(info) = book.infos.get(id).filter(|info| info.status() != EgressStatus::EgressComplete) else {
            continue;
        };
        let saved = info.file_results.iter().any(|file| file.size > 0);
        let tried = harness.runners.salvages(id);
        assert!(
            saved || harness.runners.recordings(id).is_empty() || tried >= 3 || harness.runners.lost_upload(id),
            "{id} was recorded into a store, and nobody saved it: {tried} tried, {}",
            info.error
        );
    }
    let left = harness.cloud.tasks().await.unwrap();
    assert!(left.is_empty(), "tasks left: {left:?}");
    let tasks = Tasks::new(&harness.bus());
    if let Some(foreign) = &foreign {
        foreign.assert_untouched().await;
    }
    let mut open = tasks.list().await.unwrap();
    open.retain(|open| !open.task.egress_id.as_str().starts_with(FOREIGN));
    assert!(open.is_empty(), "accounts left open: {open:?}");
    // Each task that was started has exactly one line.
    let entries = bill::read(&tasks, 0, i64::MAX / 2).await.unwrap();
    let mut keys: Vec<(&str, u32)> = entries.iter().map(|it| (it.egress_id.as_str(), it.attempt)).collect();
    keys.sort_unstable();
    let lines = keys.len();
    keys.dedup();
    assert_eq!(keys.len(), lines, "a task was billed twice");
    let started = harness.runners.started();
    let unbilled: Vec<_> = started.iter().filter(|(id, attempt)| !keys.contains(&(id.as_str(), *attempt))).collect();
    assert!(unbilled.is_empty(), "never billed: {unbilled:?}");
    stats.tasks = harness.cloud.started() as u32;
    stats.worlds = 1;
    stats
}

fn count(ids: &[String], harness: &Harness, stats: &mut StormStats) {
    let book = harness.livekit.book();
    let violations = harness.runners.violations();
    assert!(book.violations.is_empty() && violations.is_empty(), "{:?} {violations:?}", book.violations);
    for id in ids {
        let recordings = harness.runners.recordings(id);
        // Each after the one before it: the runners themselves see to that.
        assert!(recordings.is_sorted() && recordings.len() <= 4, "{id} was recorded by attempts {recordings:?}");
        stats.recorded += u32::from(!recordings.is_empty());
        stats.replaced += u32::from(recordings.first().is_some_and(|attempt| *attempt > 1));
        stats.resumed += u32::from(recordings.len() > 1);
    }
    let saved = |id: &&String| {
        let info = book.infos.get(*id).filter(|_| harness.runners.salvages(id) > 0);
        info.is_some_and(|info| info.file_results.iter().any(|file| file.size > 0))
    };
    stats.salvaged += ids.iter().filter(saved).count() as u32;
    stats.told_again += book.ends.values().filter(|times| **times > 1).count() as u32;
    stats.egresses += book.infos.len() as u32;
}
