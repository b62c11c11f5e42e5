use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use prost::Message;
use spillway_bus::{
    Beat, Bid, Bus, ClaimToken, Decision, Handler, Heartbeats, Incoming, IoClient, Phase, Record, Registry, Routing,
    RpcServer, Taker, TicketKey, Tickets, Updated,
};
use spillway_dispatcher::Clock;
use spillway_launchers::{Departure, Errand, LaunchOrder, Launcher, PaperLauncher, Sighting, TaskRef};
use spillway_protocol::code::{Code, RpcError};
use spillway_protocol::ids::EgressId;
use spillway_protocol::ledger::{EndReason, Fact, Ledger, Outcome};
use spillway_protocol::livekit::EgressInfo;
use spillway_protocol::rpc::service;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// What becomes of a task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Play {
    /// Records until it is stopped.
    #[default]
    Records,
    /// Never takes its ticket, never leaves.
    Sleeps,
    DiesBeforeItsTicket,
    DiesWithItsTicket,
    DiesRecording,
    /// Between the first and the last word of its end.
    DiesEnding,
    /// The record says how it ended, livekit-server does not know yet.
    DiesBeforeItsLastWord,
    /// Stays, and is never heard again.
    FallsSilent,
    /// Stopped in the middle of its recording for a while, and goes on as if nothing had been.
    Freezes(Duration),
    /// The same, after it has said that it ends.
    FreezesEnding(Duration),
    /// Its source ends after so long, and the recording with it.
    Ends(Duration),
    /// The platform takes its machine away while it records.
    Reclaimed,
    /// The platform never gets as far as running it.
    NeverStarts,
}

pub struct Runners {
    bus: Bus,
    cloud: PaperLauncher,
    clock: Clock,
    plays: Mutex<HashMap<String, Play>>,
    /// Of salvage runs.
    salvage_plays: Mutex<HashMap<String, Vec<Play>>>,
    salvages: Mutex<HashMap<String, usize>>,
    /// Time from the start of a task to its first act.
    pub boot: Mutex<Duration>,
    /// The platform starts these twice.
    twice: Mutex<HashSet<String>>,
    /// How often each egress was recorded by whom.
    recordings: Mutex<HashMap<String, Vec<u32>>>,
    born: Mutex<HashMap<String, Instant>>,
    /// Who hears of tasks that are gone.
    listeners: Mutex<Vec<mpsc::UnboundedSender<(LaunchOrder, TaskRef)>>>,
    started: Mutex<Vec<(String, u32)>>,
    /// What must never happen; a panic in a runner would end nothing but the runner.
    wrongs: Mutex<Vec<String>>,
}

impl Runners {
    pub fn start(bus: &Bus, cloud: &PaperLauncher, clock: Clock) -> Arc<Self> {
        let runners = Arc::new(Self {
            bus: bus.clone(),
            cloud: cloud.clone(),
            clock,
            plays: Mutex::default(),
            salvage_plays: Mutex::default(),
            salvages: Mutex::default(),
            boot: Mutex::new(Duration::from_millis(300)),
            twice: Mutex::default(),
            recordings: Mutex::default(),
            born: Mutex::default(),
            listeners: Mutex::default(),
            started: Mutex::default(),
            wrongs: Mutex::default(),
        });
        let mut starts = cloud.starts();
        let stage = Arc::clone(&runners);
        tokio::spawn(async move {
            while let Some((order, task)) = starts.recv().await {
                stage.started.lock().unwrap().push((order.egress_id.to_string(), order.attempt));
                stage.born.lock().unwrap().entry(order.egress_id.to_string()).or_insert_with(Instant::now);
                if stage.twice.lock().unwrap().contains(order.egress_id.as_str()) {
                    tokio::spawn(Arc::clone(&stage).run(order.clone(), task.clone(), Twin::Second));
                }
                tokio::spawn(Arc::clone(&stage).run(order, task, Twin::First));
            }
        });
        runners
    }

    pub fn play(&self, id: &str, play: Play) {
        self.plays.lock().unwrap().insert(id.to_owned(), play);
    }

    /// One after the other; those that come later do what they should.
    pub fn play_salvages(&self, id: &str, plays: &[Play]) {
        self.salvage_plays.lock().unwrap().insert(id.to_owned(), plays.to_vec());
    }

    /// Programs that were to save what another had recorded.
    pub fn salvages(&self, id: &str) -> usize {
        self.salvages.lock().unwrap().get(id).copied().unwrap_or_default()
    }

    pub fn start_twice(&self, id: &str) {
        self.twice.lock().unwrap().insert(id.to_owned());
    }

    /// When its first task was started.
    pub fn born(&self, id: &str) -> Option<Instant> {
        self.born.lock().unwrap().get(id).copied()
    }

    /// Attempts that recorded this egress.
    pub fn recordings(&self, id: &str) -> Vec<u32> {
        self.recordings.lock().unwrap().get(id).cloned().unwrap_or_default()
    }

    /// Every task that is gone from now on.
    pub fn departures(&self) -> mpsc::UnboundedReceiver<(LaunchOrder, TaskRef)> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.listeners.lock().unwrap().push(sender);
        receiver
    }

    /// Egress and attempt of every task.
    pub fn started(&self) -> Vec<(String, u32)> {
        self.started.lock().unwrap().clone()
    }

    pub fn wrongs(&self) -> Vec<String> {
        self.wrongs.lock().unwrap().clone()
    }

    fn must(&self, holds: bool, words: impl FnOnce() -> String) {
        if !holds {
            self.wrongs.lock().unwrap().push(words());
        }
    }

    async fn run(self: Arc<Self>, order: LaunchOrder, task: TaskRef, twin: Twin) {
        let id = order.egress_id.as_str();
        let play = match order.errand {
            Errand::Record => self.plays.lock().unwrap().get(id).copied(),
            Errand::Salvage => {
                *self.salvages.lock().unwrap().entry(id.to_owned()).or_default() += 1;
                let mut plays = self.salvage_plays.lock().unwrap();
                plays.get_mut(id).filter(|left| !left.is_empty()).map(|left| left.remove(0))
            }
        };
        let play = play.unwrap_or_default();
        let server = RpcServer::new(&self.bus, service::EGRESS_HANDLER);
        let part = Part { stage: &self, server: &server, id: order.egress_id.clone(), attempt: order.attempt, play };
        let departure = tokio::select! {
            departure = part.act(&order) => departure,
            () = self.ended(&task) => Departure::Exited(0),
        };
        server.unsubscribe(service::STOP_EGRESS, order.egress_id.as_str()).await;
        // Of two the platform knows as one, the first that leaves with nothing done is not the end of the task.
        if twin == Twin::First || departure != LEFT {
            self.cloud.leave(&task, Duration::ZERO, departure);
            self.listeners.lock().unwrap().retain(|to| to.send((order.clone(), task.clone())).is_ok());
        }
    }

    /// Somebody ended the task.
    async fn ended(&self, task: &TaskRef) {
        while matches!(self.cloud.look(task).await, Sighting::Alive | Sighting::Starting(_)) {
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Twin {
    First,
    Second,
}

/// The runner's default (`last_report_timeout_ms`).
const LAST_REPORT: Duration = Duration::from_secs(15 * 60);

/// Redis may be away for a while.
async fn patiently<T, E: std::fmt::Debug, F: Future<Output = Result<T, E>>>(mut ask: impl FnMut() -> F) -> T {
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}

struct Part<'a> {
    stage: &'a Runners,
    server: &'a RpcServer,
    id: EgressId,
    attempt: u32,
    play: Play,
}

const KILLED: Departure = Departure::Signalled(9);
const LEFT: Departure = Departure::Exited(0);

impl Part<'_> {
    async fn act(&self, order: &LaunchOrder) -> Departure {
        let boot = *self.stage.boot.lock().unwrap();
        tokio::time::sleep(boot).await;
        match self.play {
            Play::Sleeps => std::future::pending().await,
            Play::DiesBeforeItsTicket => return KILLED,
            Play::NeverStarts => return Departure::NeverStarted("no address left".to_owned()),
            _ => {}
        }
        let key = TicketKey::from_text(&"11".repeat(32)).unwrap();
        let tickets = Tickets::new(&self.stage.bus, key);
        let claim = ClaimToken::from_text(&order.claim);
        let taker = Taker::random();
        let Some(ticket) = patiently(|| tickets.take(&self.id, &claim, &taker)).await else { return LEFT };
        // A spare ticket was laid down before it was known which attempt would need it.
        let fits = ticket.attempt == self.attempt || order.errand == Errand::Salvage;
        self.stage.must(ticket.egress_id == self.id && fits, || {
            format!("{}/{} has the ticket of {}/{}", self.id, self.attempt, ticket.egress_id, ticket.attempt)
        });
        if self.play == Play::DiesWithItsTicket {
            return KILLED;
        }

        if order.errand == Errand::Salvage {
            self.stage
                .must(ticket.destinations.is_some(), || format!("{}: a salvage knows not where to write", self.id));
            return self.salvage().await;
        }
        let (stop, stopped) = watch::channel(false);
        let desk = Arc::new(StopDesk { registry: Registry::new(&self.stage.bus), id: self.id.clone(), stop });
        patiently(|| self.server.serve(service::STOP_EGRESS, self.id.as_str(), Routing::Queue, Arc::clone(&desk)))
            .await;
        self.beat().await;
        if !self.enter(Phase::Launching, Phase::Running, vec![]).await {
            return LEFT;
        }
        self.stage.recordings.lock().unwrap().entry(self.id.to_string()).or_default().push(self.attempt);
        let began = self.stage.clock.unix_ns();
        self.enter(Phase::Running, Phase::Running, vec![Fact::Active { started_at: began }]).await;
        self.tell().await;
        match self.play {
            Play::DiesRecording => {
                tokio::time::sleep(Duration::from_millis(2300)).await;
                return KILLED;
            }
            Play::Reclaimed => {
                tokio::time::sleep(Duration::from_millis(2300)).await;
                return Departure::CapacityReclaimed;
            }
            Play::FallsSilent => std::future::pending().await,
            Play::Freezes(time) => {
                tokio::time::sleep(Duration::from_millis(1700)).await;
                self.server.unsubscribe(service::STOP_EGRESS, self.id.as_str()).await;
                tokio::time::sleep(time).await;
                let desk = Arc::clone(&desk);
                patiently(|| {
                    self.server.serve(service::STOP_EGRESS, self.id.as_str(), Routing::Queue, Arc::clone(&desk))
                })
                .await;
            }
            _ => {}
        }
        if !self.record(stopped).await {
            return LEFT;
        }
        if let Play::FreezesEnding(time) = self.play {
            tokio::time::sleep(time).await;
        }
        if self.play == Play::DiesEnding {
            return KILLED;
        }
        let over = vec![Fact::Over(Outcome::Complete)];
        // It waits for Redis as long as a real one, then leaves as if all were well.
        let entered = tokio::time::timeout(LAST_REPORT, self.enter(Phase::Ending, Phase::Over, over)).await;
        if !entered.unwrap_or(false) {
            return LEFT;
        }
        if self.play == Play::DiesBeforeItsLastWord {
            return KILLED;
        }
        self.tell().await;
        let registry = Registry::new(&self.stage.bus);
        patiently(|| registry.finish(&self.id, Duration::from_secs(86_400))).await;
        LEFT
    }

    async fn salvage(&self) -> Departure {
        self.beat().await;
        if !self.enter(Phase::Launching, Phase::Running, vec![]).await {
            return LEFT;
        }
        tokio::time::sleep(Duration::from_millis(800)).await;
        if self.play == Play::DiesRecording {
            return KILLED;
        }
        let registry = Registry::new(&self.stage.bus);
        let words = patiently(|| registry.get(&self.id)).await.unwrap().lost;
        self.stage.must(!words.is_empty(), || format!("{}: a salvage knows not what happened", self.id));
        let at = self.stage.clock.unix_ns();
        let stored = Fact::FileStored {
            index: 0,
            size: 1234,
            started_at: at - 1,
            ended_at: at,
            location: format!("https://b/{}.mp4", self.id),
        };
        if !self
            .enter(
                Phase::Running,
                Phase::Over,
                vec![stored, Fact::Over(Outcome::Failed { code: Code::Internal, words })],
            )
            .await
        {
            return LEFT;
        }
        self.tell().await;
        patiently(|| registry.finish(&self.id, Duration::from_secs(86_400))).await;
        LEFT
    }

    /// Until a stop; false when the egress was settled by somebody else.
    async fn record(&self, mut stopped: watch::Receiver<bool>) -> bool {
        let mut known = None;
        let ends = match self.play {
            Play::Ends(after) => Some(Instant::now() + after),
            _ => None,
        };
        loop {
            if ends.is_some_and(|ends| Instant::now() >= ends) {
                let facts = vec![Fact::Ending(EndReason::SourceClosed)];
                return self.enter(Phase::Running, Phase::Ending, facts).await;
            }
            let _ = tokio::time::timeout(Duration::from_secs(1), stopped.wait_for(|stopped| *stopped)).await;
            self.beat().await;
            let registry = Registry::new(&self.stage.bus);
            let record = match (registry.get(&self.id).await, &known) {
                (Ok(Some(record)), _) => record,
                // Redis has lost everything: as our runner does, it is written again.
                (Ok(None), Some(known)) => {
                    let _ = registry.create(known).await;
                    continue;
                }
                (Ok(None), None) | (Err(_), _) => continue,
            };
            known = Some(record.clone());
            if record.phase == Phase::Over || record.attempt != self.attempt {
                return false;
            }
            if *stopped.borrow() || record.stop_asked {
                let facts = vec![Fact::Ending(EndReason::StopAsked)];
                let ending = self.enter(Phase::Running, Phase::Ending, facts).await;
                if ending {
                    self.tell().await;
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                return ending;
            }
        }
    }

    async fn beat(&self) {
        let beats = Heartbeats::new(&self.stage.bus);
        let _ = beats.beat(&self.id, self.attempt, &Beat::default(), Duration::from_secs(6)).await;
    }

    async fn enter(&self, from: Phase, to: Phase, facts: Vec<Fact>) -> bool {
        let at = self.stage.clock.unix_ns();
        let registry = Registry::new(&self.stage.bus);
        let decide = |record: &mut Record| {
            if record.phase != from || record.attempt != self.attempt {
                return Decision::Leave;
            }
            let mut ledger: Ledger = serde_json::from_str(&record.ledger).unwrap();
            for fact in facts.clone() {
                ledger.on(fact, at);
            }
            record.info = ledger.info().encode_to_vec();
            record.ledger = serde_json::to_string(&ledger).unwrap();
            record.phase = to;
            Decision::Write
        };
        let updated = patiently(|| registry.update(&self.id, decide)).await;
        matches!(updated, Updated::Written(_))
    }

    async fn tell(&self) {
        let registry = Registry::new(&self.stage.bus);
        let record = patiently(|| registry.get(&self.id)).await.unwrap();
        let info = EgressInfo::decode(record.info.as_slice()).unwrap();
        let io = IoClient::new(&self.stage.bus);
        patiently(|| io.update_egress(&info, Duration::from_secs(30))).await;
    }
}

struct StopDesk {
    registry: Registry,
    id: EgressId,
    stop: watch::Sender<bool>,
}

#[async_trait]
impl Handler for StopDesk {
    async fn bid(&self, _: &Incoming) -> Bid {
        Bid::Now(1.0)
    }

    async fn answer(&self, _: Incoming) -> Result<Vec<u8>, RpcError> {
        let record = self.registry.get(&self.id).await?.ok_or_else(|| RpcError::new(Code::NotFound, "no record"))?;
        self.stop.send_replace(true);
        let mut ledger: Ledger = serde_json::from_str(&record.ledger).unwrap();
        ledger.on(Fact::Ending(EndReason::StopAsked), ledger.info().updated_at);
        Ok(ledger.info().encode_to_vec())
    }
}
