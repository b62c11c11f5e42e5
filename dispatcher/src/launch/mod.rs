//! From accepted to launched: waits for a place, asks the launcher, minds what it answers. One worker, in order.

mod line;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use spillway_bus::{ClaimToken, Decision, Phase, Record, Updated};
use spillway_cost::Shape;
use spillway_launchers::{EndHow, Errand, LaunchError, LaunchOrder, TaskRef};
use spillway_process::chain;
use spillway_protocol::code::Code;
use spillway_protocol::ids::EgressId;
use tokio::time::Instant;
use tracing::{Instrument, debug, error, info, info_span, warn};

pub use self::line::{Line, Waiting};
use self::line::{NO_ROOM_PAUSE, Step};
use crate::admit::Bounds;
use crate::config::{Config, LauncherConfig};
use crate::house::{Dispatch, House, task_of};
use crate::watch::settle;

/// A launcher's API that does not answer at all; the order may have been taken all the same, so it is asked again.
const LONGEST_LAUNCH: Duration = Duration::from_secs(30);
/// What the launcher said may pass: how long until it is asked again.
const PASSING_PAUSE: Duration = Duration::from_secs(1);
/// A ticket outlives the longest way to its runner by this.
const TICKET_MARGIN: Duration = Duration::from_secs(60);

pub fn bounds(house: &House) -> Bounds {
    bounds_of(&house.config)
}

pub fn bounds_of(config: &Config) -> Bounds {
    let host =
        || std::thread::available_parallelism().map_or(1.0, |cores| f64::from(u32::try_from(cores.get()).unwrap_or(1)));
    let cores = match config.launcher {
        LauncherConfig::Process { .. } => Some(config.cores.unwrap_or_else(host)),
        LauncherConfig::Paper { .. } => config.cores,
    };
    Bounds { cores, tasks: config.most_recordings, queue: config.queue }
}

pub fn ticket_life(house: &House) -> Duration {
    house.config.queue_deadline + house.config.start_deadline + TICKET_MARGIN
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
    let waiting = Waiting {
        egress_id: record.egress_id.clone(),
        attempt: record.attempt,
        errand: if record.lost.is_empty() { Errand::Record } else { Errand::Salvage },
        claim: dispatch.claim,
        weight: dispatch.weight,
        deadline: Instant::now() + Duration::from_millis(u64::try_from(left_ms).unwrap_or(0)),
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
                let launch = Launch { house: Arc::clone(&house), turn, waiting };
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
    let waited = house.config.queue_deadline.as_secs();
    let words = match waiting.words.as_str() {
        "" => format!("no place became free within {waited} s"),
        why => format!("not started within {waited} s: {why}"),
    };
    withdraw(house, waiting).await;
    settle::failed(house, &waiting.egress_id, Code::ResourceExhausted, words).await;
}

async fn withdraw(house: &House, waiting: &Waiting) {
    let claim = ClaimToken::from_text(&waiting.claim);
    if let Err(error) = house.tickets.withdraw(&waiting.egress_id, &claim).await {
        debug!(error = %chain(&error), "ticket not withdrawn; its time will run out");
    }
}

struct Launch {
    house: Arc<House>,
    turn: u64,
    waiting: Waiting,
}

impl Launch {
    async fn run(self) {
        match self.begin().await {
            Ok(true) => self.ask().await,
            Ok(false) => {
                // Stopped, settled or taken over meanwhile.
                self.house.line().landed(&self.waiting.egress_id);
                self.house.leave_line(&self.waiting.egress_id);
            }
            Err(error) => {
                warn!(error = %chain(&error), "registry not reached, launch put off");
                self.again_after(PASSING_PAUSE, "the registry is not reachable".to_owned());
            }
        }
    }

    /// The record says Launching before anything can be running.
    async fn begin(&self) -> Result<bool, spillway_bus::BusError> {
        let (house, id) = (&self.house, &self.waiting.egress_id);
        let now_ms = house.clock.unix_ms();
        let updated = house
            .registry
            .update(id, |record| {
                if !house.owns(record) || !matches!(record.phase, Phase::Accepted | Phase::Launching) {
                    return Decision::Leave;
                }
                record.phase = Phase::Launching;
                let mut dispatch = Dispatch::of(record);
                dispatch.launched_ms = now_ms;
                dispatch.write(record);
                Decision::Write
            })
            .await?;
        Ok(matches!(updated, Updated::Written(_)))
    }

    async fn ask(self) {
        let order = self.order();
        let answer = tokio::time::timeout(LONGEST_LAUNCH, self.house.launcher.launch(&order)).await;
        let answer = answer.unwrap_or_else(|_| {
            Err(LaunchError::Passing { words: "the launcher does not answer".to_owned(), source: None })
        });
        match answer {
            Ok(task) => self.launched(task).await,
            Err(LaunchError::Throttled { words, retry_after }) => {
                debug!(words, ?retry_after, "launcher asks for patience");
                self.again_after(retry_after.unwrap_or(NO_ROOM_PAUSE), words);
            }
            Err(LaunchError::Capacity { words } | LaunchError::Quota { words }) => {
                debug!(words, "launcher has no room");
                self.again_after(NO_ROOM_PAUSE, words);
            }
            Err(error @ LaunchError::Passing { .. }) => {
                warn!(error = %chain(&error), "launch failed, trying again");
                self.again_after(PASSING_PAUSE, error.to_string());
            }
            Err(error @ LaunchError::Misconfigured { .. }) => {
                error!(error = %chain(&error), "launch impossible");
                self.house.line().landed(&self.waiting.egress_id);
                withdraw(&self.house, &self.waiting).await;
                let words = chain(&error).to_string();
                settle::failed(&self.house, &self.waiting.egress_id, Code::Internal, words).await;
            }
        }
    }

    fn order(&self) -> LaunchOrder {
        let labels = BTreeMap::from([("egress_id".to_owned(), self.waiting.egress_id.to_string())]);
        LaunchOrder {
            egress_id: self.waiting.egress_id.clone(),
            attempt: self.waiting.attempt,
            errand: self.waiting.errand,
            claim: self.waiting.claim.clone(),
            handover: self.house.handover.clone(),
            labels,
            // Of a machine of one's own only this is taken into account.
            shape: Shape { cpu_milli: (self.waiting.weight * 1000.0).ceil() as u32, memory_mib: 0, disk_gib: 0 },
            longest: None,
        }
    }

    async fn launched(self, task: TaskRef) {
        self.house.line().landed(&self.waiting.egress_id);
        self.house.moved.notify_one();
        info!(%task, "launched");
        let (house, id) = (&self.house, &self.waiting.egress_id);
        match note_task(house, id, self.waiting.attempt, &task).await {
            Ok(true) => {}
            Ok(false) => {
                debug!(%task, "over before its task was noted");
                // A runner that beats ended it itself and is about to leave.
                if !matches!(house.beats.last(id).await, Ok(Some(_))) {
                    house.launcher.end(&task, EndHow::Now).await;
                }
                house.leave_line(id);
            }
            // The sweep asks the launcher again, which knows the task by egress id and attempt.
            Err(error) => warn!(error = %chain(&error), "task not noted in the registry"),
        }
    }

    fn again_after(self, pause: Duration, words: String) {
        let Self { house, turn, waiting } = self;
        house.line().put_back(turn, Waiting { words, ..waiting }, Instant::now() + pause);
        house.moved.notify_one();
    }
}

/// False when the egress is over already and nobody wants the task.
async fn note_task(house: &House, id: &EgressId, attempt: u32, task: &TaskRef) -> Result<bool, spillway_bus::BusError> {
    let text = serde_json::to_string(task).ok();
    let updated = house
        .registry
        .update(id, |record| {
            if record.attempt != attempt || record.phase == Phase::Over || task_of(record).as_ref() == Some(task) {
                return Decision::Leave;
            }
            record.task.clone_from(&text);
            Decision::Write
        })
        .await?;
    Ok(match updated {
        Updated::Written(_) => true,
        Updated::Left(record) => record.attempt == attempt && record.phase != Phase::Over,
        Updated::Missing => false,
    })
}
