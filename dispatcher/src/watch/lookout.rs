//! What platforms say about tasks, asked in the background: no platform that is slow or away holds up the sweep, and with it
//! our own sign of life. Many tasks are asked about at once, and none so often that a platform's quota for reads is touched.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use spillway_bus::{Phase, Record};
use spillway_launchers::{Sighting, TaskRef};
use spillway_protocol::ids::EgressId;
use tokio::time::Instant;
use tracing::debug;

use crate::house::{House, task_of};

/// How long a platform's word about a task is good.
const ASK_AGAIN: Duration = Duration::from_secs(3);
/// Launchers end their calls themselves, sooner.
const LONGEST_LOOK: Duration = Duration::from_secs(60);

pub struct Lookout {
    house: Arc<House>,
    board: Arc<Mutex<Board>>,
    wanted: BTreeMap<String, Vec<Wanted>>,
}

#[derive(Default)]
struct Board {
    seen: HashMap<EgressId, Seen>,
    /// Targets that are just being asked.
    busy: HashSet<String>,
}

struct Seen {
    task: TaskRef,
    at: Instant,
    sighting: Sighting,
}

struct Wanted {
    egress_id: EgressId,
    task: TaskRef,
    /// The silent ones go first, then those that were asked about longest ago.
    starting: bool,
    last: Option<Instant>,
}

impl Lookout {
    pub fn new(house: Arc<House>) -> Self {
        Self { house, board: Arc::default(), wanted: BTreeMap::new() }
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        locked(&self.board)
    }

    pub fn forget_all_but(&self, live: &HashSet<&EgressId>) {
        self.board().seen.retain(|id, _| live.contains(id));
    }

    /// The last word about this record's task; it is asked for again where it is old. A task nobody has told of yet is
    /// taken to be there. `None`: the record names no task.
    pub async fn about(&mut self, record: &Record) -> Option<Sighting> {
        let task = task_of(record)?;
        let Some(target) = self.house.targets.of(record) else {
            return Some(Sighting::Unknown(format!("{} is not configured here", task.launcher)));
        };
        if target.launcher.is_this_machine() {
            return Some(target.launcher.look(&task).await);
        }
        let now = Instant::now();
        let (last, sighting) = match self.board().seen.get(&record.egress_id).filter(|seen| seen.task == task) {
            Some(seen) => (Some(seen.at), seen.sighting.clone()),
            None => (None, Sighting::Alive),
        };
        // Gone is for good.
        if !matches!(sighting, Sighting::Gone(_)) && last.is_none_or(|at| now - at >= ASK_AGAIN) {
            let starting = record.phase == Phase::Launching;
            let wanted = Wanted { egress_id: record.egress_id.clone(), task, starting, last };
            self.wanted.entry(target.name().to_owned()).or_default().push(wanted);
        }
        Some(sighting)
    }

    /// Sends for everything that was wanted since the last time.
    pub fn ask(&mut self) {
        for (name, mut wanted) in std::mem::take(&mut self.wanted) {
            let Some(target) = self.house.targets.named(&name) else { continue };
            if !self.board().busy.insert(name.clone()) {
                continue;
            }
            wanted.sort_by_key(|wanted| (wanted.starting, wanted.last));
            wanted.truncate(target.launcher.most_looks());
            let board = Arc::clone(&self.board);
            self.house.spawn(async move {
                let tasks: Vec<TaskRef> = wanted.iter().map(|wanted| wanted.task.clone()).collect();
                let looked = tokio::time::timeout(LONGEST_LOOK, target.launcher.look_at(&tasks)).await;
                let mut board = locked(&board);
                board.busy.remove(&name);
                let Ok(sightings) = looked else {
                    return debug!(target = name, tasks = tasks.len(), "the platform does not answer");
                };
                let at = Instant::now();
                for (wanted, sighting) in wanted.into_iter().zip(sightings) {
                    board.seen.insert(wanted.egress_id, Seen { task: wanted.task, at, sighting });
                }
            });
        }
    }
}

fn locked(board: &Mutex<Board>) -> MutexGuard<'_, Board> {
    // Every change is one statement, so a panic elsewhere leaves nothing half done.
    board.lock().unwrap_or_else(PoisonError::into_inner)
}
