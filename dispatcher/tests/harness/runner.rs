//! Runners: take tickets, send heartbeats and change records as the real one does, and fail where a test wants it.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use prost::Message;
use spillway_bus::lifecycle::{self, LaunchEvent, RunnerStage};
use spillway_bus::{
    Bid, Bus, ClaimToken, Created, Handler, Heartbeat, Heartbeats, Incoming, IoClient, Phase, Record, Registry,
    Routing, RpcServer, Taker, TicketKey, Tickets, Updated,
};
use spillway_dispatcher::Clock;
use spillway_launchers::{LaunchOrder, Launcher, RunMode, SimulatedLauncher, TaskExit, TaskRef, TaskStatus};
use spillway_protocol::code::{Code, RpcError};
use spillway_protocol::ids::EgressId;
use spillway_protocol::ledger::{EgressEndReason, EgressLedger, Fact, Outcome};
use spillway_protocol::rpc::service;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// How a task behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Play {
    /// Records until it is stopped.
    #[default]
    Records,
    /// Never takes its ticket, never exits.
    Sleeps,
    DiesBeforeItsTicket,
    DiesWithItsTicket,
    DiesRecording,
    /// Dies while it ends: `Ending` is written, `Over` is not.
    DiesEnding,
    /// Dies after `Over` was written, before livekit-server was told.
    DiesBeforeItsLastReport,
    /// Keeps running without any heartbeat.
    FallsSilent,
    /// Frozen for a while during its recording, then goes on.
    Freezes(Duration),
    /// The same, after it has written `Ending`.
    FreezesEnding(Duration),
    /// Its source ends after this long, and the recording with it.
    Ends(Duration),
    /// The platform reclaims its machine while it records.
    Reclaimed,
    /// The platform tells it to leave while it records.
    ToldToLeave,
    /// The platform never starts it.
    NeverStarts,
}

pub struct Runners {
    bus: Bus,
    cloud: SimulatedLauncher,
    clock: Clock,
    plays: Mutex<HashMap<String, Play>>,
    /// Of salvage runs.
    salvage_plays: Mutex<HashMap<String, Vec<Play>>>,
    salvages: Mutex<HashMap<String, usize>>,
    /// Of tasks that go on with a recording.
    resumed_plays: Mutex<HashMap<String, Vec<Play>>>,
    /// Attempts that record now.
    at_work: Mutex<HashMap<String, u32>>,
    /// Time from the start of a task to its first call.
    pub boot: Mutex<Duration>,
    /// The platform starts these twice.
    twice: Mutex<HashSet<String>>,
    /// Attempts that recorded each egress.
    recordings: Mutex<HashMap<String, Vec<u32>>>,
    /// Egresses whose uploads another program has aborted in the store.
    aborted_uploads: Mutex<HashSet<String>>,
    started_at: Mutex<HashMap<String, Instant>>,
    /// Receivers of exit events.
    listeners: Mutex<Vec<mpsc::UnboundedSender<(LaunchOrder, TaskRef)>>>,
    started: Mutex<Vec<(String, u32)>>,
    /// Violations; a panic in a runner's task would not fail the test.
    violations: Mutex<Vec<String>>,
}

impl Runners {
    pub fn start(bus: &Bus, cloud: &SimulatedLauncher, clock: Clock) -> Arc<Self> {
        let runners = Arc::new(Self {
            bus: bus.clone(),
            cloud: cloud.clone(),
            clock,
            plays: Mutex::default(),
            salvage_plays: Mutex::default(),
            salvages: Mutex::default(),
            resumed_plays: Mutex::default(),
            at_work: Mutex::default(),
            boot: Mutex::new(Duration::from_millis(300)),
            twice: Mutex::default(),
            recordings: Mutex::default(),
            aborted_uploads: Mutex::default(),
            started_at: Mutex::default(),
            listeners: Mutex::default(),
            started: Mutex::default(),
            violations: Mutex::default(),
        });
        let mut starts = cloud.starts();
        let harness = Arc::clone(&runners);
        tokio::spawn(async move {
            while let Some((order, task)) = starts.recv().await {
                harness.started.lock().unwrap().push((order.egress_id.to_string(), order.attempt));
                harness.started_at.lock().unwrap().entry(order.egress_id.to_string()).or_insert_with(Instant::now);
                if harness.twice.lock().unwrap().contains(order.egress_id.as_str()) {
                    tokio::spawn(Arc::clone(&harness).run(order.clone(), task.clone(), Twin::Second));
                }
                tokio::spawn(Arc::clone(&harness).run(order, task, Twin::First));
            }
        });
        runners
    }

    pub fn play(&self, id: &str, play: Play) {
        self.plays.lock().unwrap().insert(id.to_owned(), play);
    }

    /// Behaviour of the next tasks, in this order; later ones record normally.
    pub fn play_salvages(&self, id: &str, plays: &[Play]) {
        self.salvage_plays.lock().unwrap().insert(id.to_owned(), plays.to_vec());
    }

    /// The same of the tasks that go on with a recording.
    pub fn play_resumed(&self, id: &str, plays: &[Play]) {
        self.resumed_plays.lock().unwrap().insert(id.to_owned(), plays.to_vec());
    }

    /// Salvage runs.
    pub fn salvages(&self, id: &str) -> usize {
        self.salvages.lock().unwrap().get(id).copied().unwrap_or_default()
    }

    /// From now on the store knows nothing of its upload, as after a lifecycle rule or a clean-up.
    pub fn abort_upload(&self, id: &str) {
        self.aborted_uploads.lock().unwrap().insert(id.to_owned());
    }

    /// The upload was aborted before it was completed.
    pub fn lost_upload(&self, id: &str) -> bool {
        self.aborted_uploads.lock().unwrap().contains(id)
    }

    pub fn start_twice(&self, id: &str) {
        self.twice.lock().unwrap().insert(id.to_owned());
    }

    /// When its first task was started.
    pub fn started_at(&self, id: &str) -> Option<Instant> {
        self.started_at.lock().unwrap().get(id).copied()
    }

    /// Attempts that recorded this egress.
    pub fn recordings(&self, id: &str) -> Vec<u32> {
        self.recordings.lock().unwrap().get(id).cloned().unwrap_or_default()
    }

    /// Exit events from now on.
    pub fn exits(&self) -> mpsc::UnboundedReceiver<(LaunchOrder, TaskRef)> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.listeners.lock().unwrap().push(sender);
        receiver
    }

    /// Egress and attempt of every task.
    pub fn started(&self) -> Vec<(String, u32)> {
        self.started.lock().unwrap().clone()
    }

    pub fn violations(&self) -> Vec<String> {
        self.violations.lock().unwrap().clone()
    }

    fn must(&self, holds: bool, message: impl FnOnce() -> String) {
        if !holds {
            self.violations.lock().unwrap().push(message());
        }
    }

    async fn run(self: Arc<Self>, order: LaunchOrder, task: TaskRef, twin: Twin) {
        let id = order.egress_id.as_str();
        let play = match order.run_mode {
            RunMode::Record | RunMode::Probe => self.plays.lock().unwrap().get(id).copied(),
            RunMode::Resume => next_play(&self.resumed_plays, id),
            RunMode::Salvage => {
                *self.salvages.lock().unwrap().entry(id.to_owned()).or_default() += 1;
                next_play(&self.salvage_plays, id)
            }
        };
        let play = play.unwrap_or_default();
        let server = RpcServer::new(&self.bus, service::EGRESS_HANDLER);
        let scripted = ScriptedRunner {
            harness: &self,
            owned: Mutex::default(),
            server: &server,
            id: order.egress_id.clone(),
            attempt: order.attempt,
            play,
        };
        let exit = tokio::select! {
            exit = scripted.act(&order) => exit,
            () = self.ended(&task) => TaskExit::Exited(0),
        };
        if scripted.owned.lock().unwrap().is_some() {
            self.at_work.lock().unwrap().remove(id);
        }
        server.unsubscribe(service::STOP_EGRESS, order.egress_id.as_str()).await;
        server.unsubscribe(service::UPDATE_STREAM, order.egress_id.as_str()).await;
        // Of two starts that the platform has as one task, the first that exits without work is not the end of the task.
        if twin == Twin::First || exit != LEFT {
            self.cloud.leave(&task, Duration::ZERO, exit);
            self.listeners.lock().unwrap().retain(|to| to.send((order.clone(), task.clone())).is_ok());
        }
    }

    /// The task was ended through its platform.
    async fn ended(&self, task: &TaskRef) {
        while matches!(self.cloud.status(task).await, TaskStatus::Alive | TaskStatus::Starting(_)) {
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }
}

fn next_play(plays: &Mutex<HashMap<String, Vec<Play>>>, id: &str) -> Option<Play> {
    plays.lock().unwrap().get_mut(id).filter(|left| !left.is_empty()).map(|left| left.remove(0))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Twin {
    First,
    Second,
}

/// The runner's default (`last_report_timeout_ms`).
const LAST_REPORT: Duration = Duration::from_secs(15 * 60);

/// Repeats a call while Redis does not answer.
async fn until_ok<T, E: std::fmt::Debug, F: Future<Output = Result<T, E>>>(mut ask: impl FnMut() -> F) -> T {
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}

struct ScriptedRunner<'a> {
    harness: &'a Runners,
    owned: Mutex<Option<Owned>>,
    server: &'a RpcServer,
    id: EgressId,
    attempt: u32,
    play: Play,
}

/// What a runner knows of its egress.
#[derive(Clone)]
struct Owned {
    /// As it was taken over.
    record: Record,
    ledger: EgressLedger,
    stage: RunnerStage,
}

const KILLED: TaskExit = TaskExit::Signalled(9);
const LEFT: TaskExit = TaskExit::Exited(0);

impl ScriptedRunner<'_> {
    async fn act(&self, order: &LaunchOrder) -> TaskExit {
        let boot = *self.harness.boot.lock().unwrap();
        tokio::time::sleep(boot).await;
        match self.play {
            Play::Sleeps => std::future::pending().await,
            Play::DiesBeforeItsTicket => return KILLED,
            Play::NeverStarts => return TaskExit::NeverStarted("no address left".to_owned()),
            _ => {}
        }
        let key = TicketKey::from_text(&"11".repeat(32)).unwrap();
        let tickets = Tickets::new(&self.harness.bus, key);
        let claim = ClaimToken::from_text(&order.claim);
        let taker = Taker::random();
        let Some(ticket) = until_ok(|| tickets.take(&self.id, &claim, &taker)).await else { return LEFT };
        // A spare ticket is stored before it is known which attempt needs it.
        let fits = ticket.attempt == self.attempt || order.run_mode == RunMode::Salvage;
        self.harness.must(ticket.egress_id == self.id && fits, || {
            format!("{}/{} has the ticket of {}/{}", self.id, self.attempt, ticket.egress_id, ticket.attempt)
        });
        if self.play == Play::DiesWithItsTicket {
            return KILLED;
        }

        if order.run_mode == RunMode::Salvage {
            self.harness
                .must(ticket.destinations.is_some(), || format!("{}: a salvage knows not where to write", self.id));
            return self.salvage().await;
        }
        let (stop, stopped) = watch::channel(false);
        let handler = Arc::new(StopHandler { registry: Registry::new(&self.harness.bus), id: self.id.clone(), stop });
        until_ok(|| self.server.serve(service::STOP_EGRESS, self.id.as_str(), Routing::Queue, Arc::clone(&handler)))
            .await;
        if order.run_mode == RunMode::Resume {
            let update = Arc::new(UpdateHandler { registry: Registry::new(&self.harness.bus), id: self.id.clone() });
            until_ok(|| {
                self.server.serve(service::UPDATE_STREAM, self.id.as_str(), Routing::Queue, Arc::clone(&update))
            })
            .await;
        }
        self.beat().await;
        if !self.take_over().await {
            return LEFT;
        }
        self.begins(order.run_mode);
        let began = match order.run_mode {
            RunMode::Resume => Fact::Noted(format!("task {} goes on", self.attempt)),
            _ => Fact::Active { started_at: self.harness.clock.unix_ns() },
        };
        if self.report(RunnerStage::Going, vec![began]).await {
            self.send_update().await;
        }
        let mut outcome = Outcome::Complete;
        match self.play {
            Play::DiesRecording => {
                tokio::time::sleep(Duration::from_millis(2300)).await;
                return KILLED;
            }
            Play::Reclaimed => {
                tokio::time::sleep(Duration::from_millis(2300)).await;
                return TaskExit::CapacityReclaimed;
            }
            Play::ToldToLeave => {
                tokio::time::sleep(Duration::from_millis(2300)).await;
                if self.is_resumable() {
                    return if self.hand_over().await { LEFT } else { TaskExit::Exited(1) };
                }
                outcome = Outcome::Aborted { message: "told to leave".to_owned() };
            }
            Play::FallsSilent => std::future::pending().await,
            Play::Freezes(time) => {
                tokio::time::sleep(Duration::from_millis(1700)).await;
                self.server.unsubscribe(service::STOP_EGRESS, self.id.as_str()).await;
                tokio::time::sleep(time).await;
                let handler = Arc::clone(&handler);
                until_ok(|| {
                    self.server.serve(service::STOP_EGRESS, self.id.as_str(), Routing::Queue, Arc::clone(&handler))
                })
                .await;
            }
            _ => {}
        }
        let ended = match outcome {
            Outcome::Aborted { .. } => {
                self.report(RunnerStage::Ending, vec![Fact::Ending(EgressEndReason::Killed)]).await
            }
            _ => self.record(stopped).await,
        };
        if !ended {
            return LEFT;
        }
        if let Play::FreezesEnding(time) = self.play {
            tokio::time::sleep(time).await;
        }
        if self.play == Play::DiesEnding {
            return KILLED;
        }
        let kept = matches!(outcome, Outcome::Aborted { .. }).then(|| self.stored_fact());
        let over: Vec<Fact> = kept.into_iter().chain([Fact::Over(outcome)]).collect();
        // Waits for Redis as long as a real runner, then exits with status 0.
        let entered = tokio::time::timeout(LAST_REPORT, self.report(RunnerStage::Over, over)).await;
        if !entered.unwrap_or(false) {
            return LEFT;
        }
        if self.play == Play::DiesBeforeItsLastReport {
            return KILLED;
        }
        self.send_update().await;
        let registry = Registry::new(&self.harness.bus);
        until_ok(|| registry.finish(&self.id, Duration::from_secs(86_400))).await;
        LEFT
    }

    /// It records from here on. No other task does, and one that does not begin goes on with what another has left.
    fn begins(&self, run_mode: RunMode) {
        let owned = self.owned.lock().unwrap().clone();
        let resumption = owned.and_then(|owned| owned.record.resumption);
        let harness = self.harness;
        let mut recordings = harness.recordings.lock().unwrap();
        let before = recordings.entry(self.id.to_string()).or_default();
        harness.must((run_mode == RunMode::Resume) == resumption.is_some(), || {
            format!("{}/{} is to {run_mode:?} with {resumption:?}", self.id, self.attempt)
        });
        harness.must(before.is_empty() || resumption.is_some_and(|it| !it.why.is_empty()), || {
            format!("{}/{} records over what {before:?} have recorded", self.id, self.attempt)
        });
        before.push(self.attempt);
        let other = harness.at_work.lock().unwrap().insert(self.id.to_string(), self.attempt);
        harness.must(other.is_none(), || format!("{}/{} records beside {other:?}", self.id, self.attempt));
    }

    fn is_resumable(&self) -> bool {
        let owned = self.owned.lock().unwrap();
        owned.as_ref().is_some_and(|owned| lifecycle::can_be_resumed(&owned.record))
    }

    /// False: Redis does not take it, as where the egress was ended meanwhile.
    async fn hand_over(&self) -> bool {
        let Some(Owned { ledger, .. }) = self.owned.lock().unwrap().clone() else { return false };
        let handed_over = LaunchEvent::HandedOver {
            attempt: self.attempt,
            info: ledger.info().encode_to_vec(),
            ledger: serde_json::to_string(&ledger).unwrap(),
            why: "the platform takes its machine back".to_owned(),
            at_ms: self.harness.clock.unix_ms(),
        };
        let registry = Registry::new(&self.harness.bus);
        loop {
            match until_ok(|| registry.apply(&self.id, &handed_over)).await {
                Updated::Written(_) => return true,
                Updated::Left(record) if record.is_before(self.attempt) => {}
                Updated::Left(record) if record.is_resuming() || record.attempt > self.attempt => return true,
                Updated::Left(_) => return false,
                Updated::Missing => {}
            }
            if !self.write().await {
                return false;
            }
        }
    }

    fn stored_fact(&self) -> Fact {
        let at = self.harness.clock.unix_ns();
        let location = format!("https://b/{}.mp4", self.id);
        Fact::FileStored { index: 0, size: 1234, started_at: at - 1, ended_at: at, location }
    }

    async fn salvage(&self) -> TaskExit {
        self.beat().await;
        if !self.take_over().await {
            return LEFT;
        }
        tokio::time::sleep(Duration::from_millis(800)).await;
        if self.play == Play::DiesRecording {
            return KILLED;
        }
        let registry = Registry::new(&self.harness.bus);
        let owned = self.owned.lock().unwrap().clone();
        let message = owned.map(|owned| owned.record.lost).unwrap_or_default();
        self.harness.must(!message.is_empty(), || format!("{}: a salvage knows not what happened", self.id));
        let stored = self.stored_fact();
        let over = Fact::Over(Outcome::Failed { code: Code::Internal, message });
        let facts = if self.harness.lost_upload(self.id.as_str()) { vec![over] } else { vec![stored, over] };
        if !self.report(RunnerStage::Over, facts).await {
            return LEFT;
        }
        self.send_update().await;
        until_ok(|| registry.finish(&self.id, Duration::from_secs(86_400))).await;
        LEFT
    }

    /// Until a stop; false when a dispatcher ended the egress.
    async fn record(&self, mut stopped: watch::Receiver<bool>) -> bool {
        let ends = match self.play {
            Play::Ends(after) => Some(Instant::now() + after),
            _ => None,
        };
        loop {
            if ends.is_some_and(|ends| Instant::now() >= ends) {
                let facts = vec![Fact::Ending(EgressEndReason::SourceClosed)];
                return self.report(RunnerStage::Ending, facts).await;
            }
            let _ = tokio::time::timeout(Duration::from_secs(1), stopped.wait_for(|stopped| *stopped)).await;
            self.beat().await;
            let registry = Registry::new(&self.harness.bus);
            let record = match registry.get(&self.id).await {
                Ok(Some(record)) if !record.is_before(self.attempt) => record,
                // Redis has lost everything, or the last writes: the runner writes its record again.
                Ok(_) => {
                    self.write().await;
                    continue;
                }
                Err(_) => continue,
            };
            if record.state.is_over() || record.attempt != self.attempt {
                return false;
            }
            if *stopped.borrow() || record.stop_asked {
                let facts = vec![Fact::Ending(EgressEndReason::StopAsked)];
                let ending = self.report(RunnerStage::Ending, facts).await;
                if ending {
                    self.send_update().await;
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                return ending;
            }
        }
    }

    async fn beat(&self) {
        let beats = Heartbeats::new(&self.harness.bus);
        let _ = beats.beat(&self.id, self.attempt, &Heartbeat::default(), Duration::from_secs(6)).await;
    }

    /// As the real runner: a repeated command may find what it wrote itself.
    async fn take_over(&self) -> bool {
        let registry = Registry::new(&self.harness.bus);
        let took_over = LaunchEvent::TookOver { attempt: self.attempt };
        let record = match until_ok(|| registry.apply(&self.id, &took_over)).await {
            Updated::Written(record) => record,
            Updated::Left(record) if record.attempt == self.attempt && record.phase() == Phase::Running => record,
            Updated::Left(_) | Updated::Missing => return false,
        };
        let ledger = serde_json::from_str(&record.ledger).unwrap();
        *self.owned.lock().unwrap() = Some(Owned { record: *record, ledger, stage: RunnerStage::Going });
        true
    }

    /// False: another attempt took its place, or the egress is over.
    async fn report(&self, stage: RunnerStage, facts: Vec<Fact>) -> bool {
        let at = self.harness.clock.unix_ns();
        if let Some(owned) = self.owned.lock().unwrap().as_mut() {
            for fact in facts {
                owned.ledger.on(fact, at);
            }
            owned.stage = stage;
        }
        self.write().await
    }

    /// Writes the record as it should be by now; also one that Redis has lost, or whose last writes it has lost.
    async fn write(&self) -> bool {
        let Some(Owned { record: owned, ledger, stage }) = self.owned.lock().unwrap().clone() else { return false };
        let registry = Registry::new(&self.harness.bus);
        let (attempt, info) = (self.attempt, ledger.info().encode_to_vec());
        let ledger_text = serde_json::to_string(&ledger).unwrap();
        let reported = LaunchEvent::Reported { attempt, info: info.clone(), ledger: ledger_text, stage };
        let copy = lifecycle::apply(&owned, &reported).unwrap().unwrap_or_else(|| owned.clone());
        loop {
            match until_ok(|| registry.apply(&self.id, &reported)).await {
                Updated::Written(_) => return true,
                Updated::Left(record) if record.is_before(attempt) => {
                    let restored = LaunchEvent::Restored(Box::new(copy.clone()));
                    if let Updated::Written(_) = until_ok(|| registry.apply(&self.id, &restored)).await {
                        return true;
                    }
                }
                Updated::Left(record) if record.attempt == attempt && record.info == info => return true,
                Updated::Left(_) => return false,
                Updated::Missing => {
                    if until_ok(|| registry.create(&copy)).await == Created::Yes {
                        let io = IoClient::new(&self.harness.bus);
                        until_ok(|| io.create_egress(ledger.info(), Duration::from_secs(30))).await;
                        return true;
                    }
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// The report as it was written, unless the record is another's meanwhile.
    async fn send_update(&self) {
        let Some(Owned { ledger, stage, .. }) = self.owned.lock().unwrap().clone() else { return };
        let (registry, io) = (Registry::new(&self.harness.bus), IoClient::new(&self.harness.bus));
        let ours = ledger.info().encode_to_vec();
        loop {
            // The last report is sent as soon as it was written once.
            let stored = match stage {
                RunnerStage::Over => None,
                RunnerStage::Going | RunnerStage::Ending => Some(until_ok(|| registry.get(&self.id)).await),
            };
            match stored {
                None => {}
                Some(Some(record)) if record.attempt == self.attempt && record.info == ours => {}
                Some(Some(record)) if !record.is_before(self.attempt) => return,
                // Lost again.
                Some(_) if !self.write().await => return,
                Some(_) => {}
            }
            if io.update_egress(ledger.info(), Duration::from_secs(30)).await.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

struct StopHandler {
    registry: Registry,
    id: EgressId,
    stop: watch::Sender<bool>,
}

#[async_trait]
impl Handler for StopHandler {
    async fn bid(&self, _: &Incoming) -> Bid {
        Bid::Now(1.0)
    }

    async fn answer(&self, _: Incoming) -> Result<Vec<u8>, RpcError> {
        let record = self.registry.get(&self.id).await?.ok_or_else(|| RpcError::new(Code::NotFound, "no record"))?;
        self.stop.send_replace(true);
        let mut ledger: EgressLedger = serde_json::from_str(&record.ledger).unwrap();
        ledger.on(Fact::Ending(EgressEndReason::StopAsked), ledger.info().updated_at);
        Ok(ledger.info().encode_to_vec())
    }
}

/// Answers as if every update had been carried out.
struct UpdateHandler {
    registry: Registry,
    id: EgressId,
}

#[async_trait]
impl Handler for UpdateHandler {
    async fn bid(&self, _: &Incoming) -> Bid {
        Bid::Now(1.0)
    }

    async fn answer(&self, _: Incoming) -> Result<Vec<u8>, RpcError> {
        let record = self.registry.get(&self.id).await?.ok_or_else(|| RpcError::new(Code::NotFound, "no record"))?;
        Ok(record.info)
    }
}
