//! From accepted to launched: waits for its turn and a place, asks a target, minds what it answers.

pub mod breaker;
mod line;
mod place;
mod steps;

use std::sync::Arc;
use std::time::Duration;

use spillway_bus::{ClaimToken, Phase, Record};
use spillway_launchers::Errand;
use spillway_process::chain;
use spillway_protocol::code::Code;
use tokio::time::Instant;
use tracing::{Instrument, debug, info_span, warn};

use self::line::Step;
pub use self::line::{Line, Waiting};
use self::steps::Launch;
pub(crate) use self::steps::note_task;
use crate::admit::Bounds;
use crate::config::{Config, LauncherConfig};
use crate::house::{Dispatch, House};
use crate::watch::settle;

/// A ticket outlives the longest way to its runner by this.
const TICKET_MARGIN: Duration = Duration::from_secs(60);

/// A place for one who saves what is recorded: no cloud is full, nor a mistake in its settings unseen, for much longer.
/// Until then its egress is not over.
pub(crate) const SAVED_WITHIN: Duration = Duration::from_secs(3600);

pub fn bounds_of(config: &Config) -> Bounds {
    let host =
        || std::thread::available_parallelism().map_or(1.0, |cores| f64::from(u32::try_from(cores.get()).unwrap_or(1)));
    // Where some go elsewhere, this machine is a target like others, with its `most_tasks`.
    let all_here = config.targets.iter().all(|target| matches!(target.launcher, LauncherConfig::Process { .. }));
    let cores = if all_here { Some(config.cores.unwrap_or_else(host)) } else { config.cores };
    Bounds { cores, tasks: config.most_recordings, queue: config.queue }
}

pub fn ticket_life(config: &Config) -> Duration {
    let slowest = config.targets.iter().filter_map(|target| target.start_deadline).max().unwrap_or_default();
    config.queue_deadline + config.start_deadline.max(slowest) + TICKET_MARGIN
}

/// Of a run that saves what another had recorded: it waits for its place as long as that is worth something.
pub fn salvage_ticket_life(config: &Config) -> Duration {
    ticket_life(config) + SAVED_WITHIN
}

/// The runner's settings, as the ticket carries them.
pub fn runner_settings(config: &Config) -> serde_json::Value {
    let mut settings = config.runner.clone();
    if let (Some(settings), Some(root)) = (settings.as_object_mut(), &config.local_root) {
        settings.insert("local_root".to_owned(), serde_json::json!(root));
    }
    settings
}

/// Into the line, from what the record says; for one we accepted and for one we took over.
pub fn join(house: &House, record: &Record) {
    let dispatch = Dispatch::of(record);
    let left_ms = dispatch.deadline_ms.saturating_sub(house.clock.unix_ms());
    let now = Instant::now();
    let waiting = Waiting {
        egress_id: record.egress_id.clone(),
        attempt: record.attempt,
        errand: if record.lost.is_empty() { Errand::Record } else { Errand::Salvage },
        weight: dispatch.weight,
        tenant: dispatch.tenant.as_str().into(),
        dispatch,
        since: now,
        deadline: now + Duration::from_millis(u64::try_from(left_ms).unwrap_or(0)),
        not_before: None,
        words: String::new(),
    };
    if house.line().join(waiting) {
        house.moved.notify_one();
    }
}

/// Until the house stops.
pub async fn run(house: Arc<House>) {
    loop {
        let step = house.line().next(Instant::now());
        match step {
            Step::Launch(turn, waiting) => {
                let span = info_span!("egress", egress_id = %waiting.egress_id);
                let launch = Launch { house: Arc::clone(&house), turn, waiting: *waiting };
                house.spawn(launch.run().instrument(span));
            }
            Step::GiveUp(waiting) => {
                let house = Arc::clone(&house);
                house.clone().spawn(async move { give_up(&house, &waiting).await });
            }
            Step::Rest(until) => {
                let rest = async {
                    match until {
                        Some(until) => tokio::time::sleep_until(until).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    () = rest => {}
                    () = house.moved.notified() => {}
                    () = house.stop.asked() => return,
                }
            }
        }
    }
}

async fn give_up(house: &Arc<House>, waiting: &Waiting) {
    let waited = match waiting.errand {
        Errand::Record => house.config().queue_deadline.as_secs(),
        Errand::Salvage => SAVED_WITHIN.as_secs(),
    };
    let words = match waiting.words.as_str() {
        "" => format!("no place became free within {waited} s"),
        why => format!("not started within {waited} s: {why}"),
    };
    withdraw(house, waiting).await;
    house.meter.count("spillway_given_up_total", &[], 1.0);
    fail(house, waiting, Code::ResourceExhausted, words).await;
}

/// Unless it has started after all, or somebody else has moved it on.
async fn fail(house: &Arc<House>, waiting: &Waiting, code: Code, words: String) {
    let attempt = waiting.attempt;
    let may = |record: &Record| record.attempt == attempt && matches!(record.phase, Phase::Accepted | Phase::Launching);
    if let Err(error) = settle::failed(house, &waiting.egress_id, code, words, may).await {
        // Whoever finds it in the registry comes to a verdict of his own.
        warn!(error = %chain(&error), "egress not settled");
    }
}

async fn withdraw(house: &House, waiting: &Waiting) {
    let claim = ClaimToken::from_text(&waiting.dispatch.claim);
    if let Err(error) = house.tickets.withdraw(&waiting.egress_id, &claim).await {
        debug!(error = %chain(&error), "ticket not withdrawn; its time will run out");
    }
}
