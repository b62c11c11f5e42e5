//! What all rooms share.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use spillway_bus::{Bus, Heartbeats, IoClient, Record, Registry, Tickets};
use spillway_launchers::{Launcher, TaskRef};
use spillway_process::Stop;
use spillway_protocol::Secret;
use spillway_protocol::ids::EgressId;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config::Config;
use crate::launch::Line;

pub struct House {
    /// This dispatcher among others; new at each start.
    pub name: EgressId,
    pub config: Config,
    pub clock: Clock,
    pub bus: Bus,
    pub registry: Registry,
    pub tickets: Tickets,
    pub beats: Heartbeats,
    pub io: IoClient,
    pub launcher: Arc<dyn Launcher>,
    /// One line of JSON for the runner's standard input.
    pub handover: Secret,
    pub stop: Stop,
    line: Mutex<Line>,
    /// The line has moved: somebody came, left or was put back.
    pub moved: Notify,
    /// Granted to us and not answered yet.
    in_hand: Mutex<HashSet<EgressId>>,
    /// Whose last word is on its way.
    delivering: Mutex<HashSet<EgressId>>,
    draining: AtomicBool,
    /// The process is to be thought gone: nothing more is done or said. Only tests do that to a house.
    abandoned: CancellationToken,
}

/// The dispatcher's own facts in a record, under the name `dispatch`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dispatch {
    /// Opens the ticket for one who also has the ticket key; so that another dispatcher can launch in our place.
    pub claim: String,
    pub weight: f64,
    /// Unix milliseconds: launched by then, or given up.
    pub deadline_ms: i64,
    /// Unix milliseconds; 0 before.
    pub launched_ms: i64,
}

const DISPATCH: &str = "dispatch";

impl Dispatch {
    pub fn of(record: &Record) -> Self {
        record.extra.get(DISPATCH).and_then(|value| serde_json::from_value(value.clone()).ok()).unwrap_or_default()
    }

    pub fn write(&self, record: &mut Record) {
        if let Ok(value) = serde_json::to_value(self) {
            record.extra.insert(DISPATCH.to_owned(), value);
        }
    }
}

/// The task a record names, if it names one.
pub fn task_of(record: &Record) -> Option<TaskRef> {
    record.task.as_deref().and_then(|text| serde_json::from_str(text).ok())
}

pub struct Tools {
    pub config: Config,
    pub clock: Clock,
    pub bus: Bus,
    pub tickets: Tickets,
    pub launcher: Arc<dyn Launcher>,
    pub handover: Secret,
    pub line: Line,
}

impl House {
    pub fn new(name: EgressId, tools: Tools) -> Self {
        Self {
            name,
            registry: Registry::new(&tools.bus),
            beats: Heartbeats::new(&tools.bus),
            io: IoClient::new(&tools.bus),
            config: tools.config,
            clock: tools.clock,
            bus: tools.bus,
            tickets: tools.tickets,
            launcher: tools.launcher,
            handover: tools.handover,
            stop: Stop::new(),
            line: Mutex::new(tools.line),
            moved: Notify::new(),
            in_hand: Mutex::default(),
            delivering: Mutex::default(),
            draining: AtomicBool::new(false),
            abandoned: CancellationToken::new(),
        }
    }

    /// A task of this house; leaving waits for it.
    pub fn spawn(self: &Arc<Self>, task: impl Future<Output = ()> + Send + 'static) {
        let abandoned = self.abandoned.clone();
        self.stop.spawn(async move {
            abandoned.run_until_cancelled(task).await;
        });
    }

    /// As [`House::spawn`], but leaving does not wait.
    pub fn spawn_untracked(self: &Arc<Self>, task: impl Future<Output = ()> + Send + 'static) {
        let abandoned = self.abandoned.clone();
        tokio::spawn(async move {
            abandoned.run_until_cancelled(task).await;
        });
    }

    /// What a call in hand waits for; never, once the house is abandoned.
    pub async fn unless_abandoned<T>(&self, work: impl Future<Output = T>) -> T {
        match self.abandoned.run_until_cancelled(work).await {
            Some(done) => done,
            None => std::future::pending().await,
        }
    }

    pub fn abandon(&self) {
        self.drain();
        self.abandoned.cancel();
        self.stop.ask();
    }

    pub fn line(&self) -> MutexGuard<'_, Line> {
        locked(&self.line)
    }

    /// Its place is free for the next.
    pub fn leave_line(&self, egress_id: &EgressId) {
        self.line().leave(egress_id);
        self.moved.notify_one();
    }

    pub fn owns(&self, record: &Record) -> bool {
        record.dispatcher == self.name.as_str()
    }

    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    pub fn take_in_hand(self: &Arc<Self>, egress_id: &EgressId) -> Option<Held> {
        locked(&self.in_hand).insert(egress_id.clone()).then(|| Held {
            house: Arc::clone(self),
            egress_id: egress_id.clone(),
            what: |house| &house.in_hand,
        })
    }

    pub fn is_in_hand(&self, egress_id: &EgressId) -> bool {
        locked(&self.in_hand).contains(egress_id)
    }

    pub fn take_for_delivery(self: &Arc<Self>, egress_id: &EgressId) -> Option<Held> {
        locked(&self.delivering).insert(egress_id.clone()).then(|| Held {
            house: Arc::clone(self),
            egress_id: egress_id.clone(),
            what: |house| &house.delivering,
        })
    }

    /// Nothing was granted, waits or is on its way.
    pub fn hands_are_empty(&self) -> bool {
        locked(&self.in_hand).is_empty() && locked(&self.delivering).is_empty() && self.line().is_empty()
    }
}

/// An id in one of the house's sets, until it is dropped.
pub struct Held {
    house: Arc<House>,
    egress_id: EgressId,
    what: fn(&House) -> &Mutex<HashSet<EgressId>>,
}

impl Drop for Held {
    fn drop(&mut self) {
        locked((self.what)(&self.house)).remove(&self.egress_id);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change is one statement, so a panic elsewhere leaves nothing half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
