use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use prost::Message;
use serde_json::json;
use spillway_bus::{
    Bid, Bus, CallOptions, ClaimToken, Created, Decision, FaultyLink, Handler, Heartbeats, Incoming, IoClient,
    LinkFaults, MemoryBroker, Phase, Record, Registry, Routing, RpcClient, RpcServer, Ticket, TicketKey, Tickets,
};
use spillway_plan::{Container, Defaults, Destination, Destinations, FileOutput, Output};
use spillway_process::Clock;
use spillway_protocol::Secret;
use spillway_protocol::ledger::{EgressLedger, Fact, Outcome};
use spillway_protocol::livekit::{
    EgressInfo, EgressStatus, StopEgressRequest, TrackEgressRequest, track_egress_request,
};
use spillway_protocol::rpc::{StartEgressRequest, service, start_egress_request::EgressRequest};
use spillway_protocol::{Code, EgressId, RpcError, livekit};
use spillway_runner::report::{Delivered, ReportPublisher, Reporter};
use spillway_runner::serve::{ServeOutcome, serve_ticket};
use spillway_runner::ticket::{self, Names, RunnerTask};
use spillway_runner::upload::stores::{self, StoreFactory};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::scripted_media;

const TIMEOUT: Duration = Duration::from_secs(20);

/// Dispatcher and livekit-server around one runner, on a bus in memory.
pub struct RunnerHarness {
    pub broker: MemoryBroker,
    pub bus: Bus,
    /// The runner's own, of a host whose clock may be wrong.
    runners_bus: Bus,
    pub folder: tempfile::TempDir,
    pub id: EgressId,
    key: TicketKey,
    tickets: Tickets,
    pub heard: UpdateLog,
    /// livekit-server; `None` while it is away.
    server: Option<RpcServer>,
    pub stores: Arc<dyn StoreFactory>,
    /// Where the file goes; `None`: to the disk.
    pub destinations: Option<Destinations>,
    /// Paths and destinations of further files.
    pub more: Vec<(&'static str, Option<Destinations>)>,
    /// URLs of streams; `None`: there is no output of streams.
    pub streams: Option<Vec<&'static str>>,
    /// Beside streams.
    pub has_file: bool,
    pub upload: serde_json::Value,
    /// How long the last report waits for Redis.
    pub last_report_timeout_ms: u64,
}

/// Every UpdateEgress, in the order of arrival.
#[derive(Clone, Default)]
pub struct UpdateLog(Arc<Mutex<Vec<EgressInfo>>>, Clock);

impl UpdateLog {
    pub fn all(&self) -> Vec<EgressInfo> {
        self.0.lock().unwrap().clone()
    }
}

#[async_trait]
impl Handler for UpdateLog {
    /// As livekit-server: what has expired by its own clock is not heard.
    async fn bid(&self, incoming: &Incoming) -> Bid {
        let expiry = incoming.sent_at.saturating_add(i64::try_from(incoming.time_allowed.as_nanos()).unwrap());
        if expiry < self.1.unix_ns() { Bid::Silent } else { Bid::Now(1.0) }
    }

    async fn answer(&self, incoming: Incoming) -> Result<Vec<u8>, RpcError> {
        let info =
            EgressInfo::decode(incoming.request).map_err(|e| RpcError::new(Code::MalformedRequest, e.to_string()))?;
        self.0.lock().unwrap().push(info);
        Ok(vec![])
    }
}

fn start_request(script: &str) -> StartEgressRequest {
    let file = livekit::DirectFileOutput { filepath: "a.ogg".into(), ..Default::default() };
    StartEgressRequest {
        egress_id: "EG_1".into(),
        room_id: "RM_scripted".into(),
        token: "room-token".into(),
        ws_url: "ws://127.0.0.1:1".into(),
        request: Some(EgressRequest::Track(TrackEgressRequest {
            room_name: script.into(),
            track_id: "TR_1".into(),
            output: Some(track_egress_request::Output::File(file)),
            ..Default::default()
        })),
        ..Default::default()
    }
}

impl RunnerHarness {
    pub async fn new() -> Self {
        Self::beside(MemoryBroker::new(), Clock::host()).await
    }

    /// With a Redis of this time, and a runner on a host with that clock.
    async fn beside(broker: MemoryBroker, runners: Clock) -> Self {
        let bus = broker.bus();
        let key = TicketKey::random();
        let tickets = Tickets::new(&bus, key.clone());
        let id = EgressId::parse("EG_1").unwrap();
        let heard = UpdateLog(Arc::default(), broker.clock().clone());
        let mut harness = Self {
            runners_bus: broker.bus_on(runners),
            broker,
            bus,
            folder: tempfile::tempdir().unwrap(),
            id,
            key,
            tickets,
            heard,
            server: None,
            stores: Arc::new(stores::DefaultStoreFactory::default()),
            destinations: None,
            more: vec![],
            streams: None,
            has_file: true,
            upload: json!({}),
            last_report_timeout_ms: 15 * 60_000,
        };
        harness.livekit_is_there().await;
        harness
    }

    async fn livekit_is_there(&mut self) {
        let server = RpcServer::new(&self.bus, service::IO_INFO);
        server.serve(service::UPDATE_EGRESS, "", Routing::Queue, Arc::new(self.heard.clone())).await.unwrap();
        self.server = Some(server);
    }

    pub fn registry(&self) -> Registry {
        Registry::new(&self.bus)
    }

    /// What a dispatcher does up to the launch.
    async fn launch(&self, script: &str) -> (Names, Option<Ticket>) {
        let start = self.request(script);
        let ledger = EgressLedger::accept(&start, self.broker.clock().unix_ns());
        let record = Record {
            phase: Phase::Launching,
            attempt: 1,
            info: ledger.info().encode_to_vec(),
            ledger: serde_json::to_string(&ledger).unwrap(),
            ..Record::new(self.id.clone(), 1)
        };
        assert_eq!(self.registry().create(&record).await.unwrap(), Created::Yes);
        let claim = self.tickets.put(&self.ticket(script), Duration::from_secs(60)).await.unwrap();
        let names = Names { egress_id: self.id.clone(), attempt: 1, claim };
        let ticket = ticket::take(&self.tickets, &names, RunnerTask::Record).await.unwrap();
        (names, ticket)
    }

    fn request(&self, script: &str) -> StartEgressRequest {
        let Some(urls) = &self.streams else { return start_request(script) };
        let urls = urls.iter().map(|url| (*url).to_owned()).collect();
        let file = livekit::EncodedFileOutput {
            filepath: "a.ogg".into(),
            file_type: livekit::EncodedFileType::Ogg.into(),
            ..Default::default()
        };
        StartEgressRequest {
            request: Some(EgressRequest::RoomComposite(livekit::RoomCompositeEgressRequest {
                room_name: script.into(),
                audio_only: true,
                file_outputs: vec![file; usize::from(self.has_file)],
                stream_outputs: vec![livekit::StreamOutput { protocol: livekit::StreamProtocol::Rtmp.into(), urls }],
                ..Default::default()
            })),
            ..start_request(script)
        }
    }

    fn ticket(&self, script: &str) -> Ticket {
        let start = self.request(script);
        let mut plan = spillway_plan::plan(&start, &Defaults::default()).unwrap();
        let mut destinations = vec![self.destinations.clone()];
        if self.streams.is_none() {
            let first = plan.file(0).unwrap().clone();
            plan.outputs = vec![Output::File(FileOutput { stored: self.destinations.is_some(), ..first.clone() })];
            for (path, to) in &self.more {
                // Only where the request says the container, the name is known before the tracks are.
                let container = path.ends_with(".mp4").then_some(Container::Mp4);
                let file = FileOutput { container, path: (*path).to_owned(), stored: to.is_some(), ..first.clone() };
                plan.outputs.push(Output::File(file));
                destinations.push(to.clone());
            }
        }
        let disk = || Destinations { primary: Destination::Disk, backup: None };
        let destinations = destinations.iter().any(Option::is_some).then(|| {
            let all: Vec<Destinations> = destinations.into_iter().map(|to| to.unwrap_or_else(disk)).collect();
            serde_json::to_string(&all).unwrap()
        });
        Ticket {
            egress_id: self.id.clone(),
            attempt: 1,
            request: Secret::new(start.encode_to_vec()),
            plan_json: Secret::new(serde_json::to_string(&plan).unwrap()),
            token: Secret::new(start.token.clone()),
            ws_url: start.ws_url.clone(),
            destinations: destinations.map(Secret::new),
            runner: json!({
                "local_root": self.folder.path(),
                "media_program": scripted_media(),
                "hang_after_ms": 800,
                "drain_timeout_ms": 500,
                "report_timeout_ms": 1500,
                "last_report_timeout_ms": self.last_report_timeout_ms,
                "upload": self.upload,
            }),
        }
    }

    pub async fn run(&self, script: &str) -> JoinHandle<ServeOutcome> {
        let (names, ticket) = self.launch(script).await;
        self.serve(names, ticket.unwrap(), RunnerTask::Record)
    }

    fn serve(&self, names: Names, ticket: Ticket, task: RunnerTask) -> JoinHandle<ServeOutcome> {
        let (bus, tickets, stores) = (self.runners_bus.clone(), self.tickets.clone(), self.stores.clone());
        tokio::spawn(async move { serve_ticket(&bus, &tickets, names, ticket, task, stores).await.unwrap() })
    }

    /// What a dispatcher does when the task is gone.
    pub async fn salvage(&self, script: &str) -> JoinHandle<ServeOutcome> {
        self.registry()
            .update(&self.id, |record| {
                record.attempt += 1;
                record.phase = Phase::Launching;
                record.lost = "runner was lost".into();
                Decision::Write
            })
            .await
            .unwrap();
        let attempt = self.record().await.attempt;
        let names = Names { egress_id: self.id.clone(), attempt, claim: ClaimToken::from_text("spare") };
        self.serve(names, self.ticket(script), RunnerTask::Salvage)
    }

    pub fn last(&self) -> EgressInfo {
        self.heard.0.lock().unwrap().last().unwrap().clone()
    }

    pub async fn call(&self, method: &'static str) -> Result<EgressInfo, RpcError> {
        let client = RpcClient::new(&self.bus, service::EGRESS_HANDLER);
        let request = StopEgressRequest { egress_id: self.id.to_string() }.encode_to_vec();
        let answer = client.call(method, self.id.as_str(), request, &CallOptions::queue().timeout(TIMEOUT)).await?;
        Ok(EgressInfo::decode(answer).unwrap())
    }

    pub async fn update_streams(&self, add: &[&str], remove: &[&str]) -> Result<EgressInfo, RpcError> {
        let client = RpcClient::new(&self.bus, service::EGRESS_HANDLER);
        let urls = |urls: &[&str]| urls.iter().map(|url| (*url).to_owned()).collect();
        let request = livekit::UpdateStreamRequest {
            egress_id: self.id.to_string(),
            add_output_urls: urls(add),
            remove_output_urls: urls(remove),
        };
        let (topic, options) = (self.id.as_str(), CallOptions::queue().timeout(TIMEOUT));
        let answer = client.call(service::UPDATE_STREAM, topic, request.encode_to_vec(), &options).await?;
        Ok(EgressInfo::decode(answer).unwrap())
    }

    pub fn statuses(&self) -> Vec<EgressStatus> {
        self.heard.0.lock().unwrap().iter().map(EgressInfo::status).collect()
    }

    pub async fn record(&self) -> Record {
        self.registry().get(&self.id).await.unwrap().unwrap()
    }

    /// Waits for a state that livekit-server has heard of.
    pub async fn heard(&self, status: EgressStatus) {
        let wait = async {
            while !self.statuses().contains(&status) {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(TIMEOUT, wait).await.unwrap_or_else(|_| panic!("{status:?} not in {:?}", self.statuses()));
    }

    async fn finished_by_another_writer(&self) {
        self.registry()
            .update(&self.id, |record| {
                record.phase = Phase::Over;
                Decision::Write
            })
            .await
            .unwrap();
    }
}

pub async fn done(run: JoinHandle<ServeOutcome>) -> ServeOutcome {
    timeout(TIMEOUT, run).await.expect("the runner ends").expect("it does not panic")
}

use EgressStatus::{EgressAborted, EgressActive, EgressComplete, EgressEnding, EgressFailed};

#[tokio::test(flavor = "multi_thread")]
async fn one_egress_from_launch_to_acknowledged_end() {
    let harness = RunnerHarness::new().await;
    let run = harness.run("record").await;
    harness.heard(EgressActive).await;
    let record = harness.record().await;
    assert_eq!(record.phase, Phase::Running);
    let (_, beat) = Heartbeats::new(&harness.bus).last(&harness.id).await.unwrap().unwrap();
    assert_eq!(beat.attempt, 1);

    let asked = Instant::now();
    let first = harness.call(service::STOP_EGRESS).await.unwrap();
    assert!(matches!(first.status(), EgressEnding | EgressComplete), "{:?}", first.status());
    assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Acknowledged));
    assert!(asked.elapsed() < Duration::from_millis(1500), "{:?}", asked.elapsed());

    let statuses = harness.statuses();
    assert!(statuses.is_sorted_by_key(|status| *status as i32), "{statuses:?}");
    assert_eq!(statuses.last(), Some(&EgressComplete));
    let last = harness.heard.0.lock().unwrap().last().unwrap().clone();
    assert_eq!(last.details, "End reason: StopEgress API");
    assert!(last.file_results[0].size > 0 && last.ended_at > 0);
    let record = harness.record().await;
    assert_eq!((record.phase, EgressInfo::decode(record.info.as_slice()).unwrap()), (Phase::Over, last));
    assert!(harness.registry().list_live().await.unwrap().is_empty(), "finished");
}

/// Redis' time is the one that counts, also for what the media process stamps: the host's wall clock, which that reads, is
/// behind or ahead of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_whose_clock_is_wrong_tells_everything_in_time_and_at_redis_time() {
    const SECOND: i64 = 1_000_000_000;
    for wrong_s in [-3, -600, 600] {
        let broker = MemoryBroker::at(Clock::host_ahead_by(-wrong_s * SECOND));
        let harness = RunnerHarness::beside(broker.clone(), Clock::host()).await;
        let before = broker.clock().unix_ns();
        let run = harness.run("record").await;
        harness.heard(EgressActive).await;
        let active = broker.clock().unix_ns();
        sleep(Duration::from_millis(300)).await;
        harness.call(service::STOP_EGRESS).await.unwrap();
        assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Acknowledged), "{wrong_s} s");
        let after = broker.clock().unix_ns();
        let last = harness.last();
        let file = &last.file_results[0];
        // A millisecond for the way from one process to the other.
        let within = |at: i64, from: i64, to: i64| (from - SECOND / 1000..=to + SECOND / 1000).contains(&at);
        assert!(within(last.started_at, before, active), "{wrong_s} s: {} {before} {active}", last.started_at);
        assert!(
            within(last.updated_at, active, after) && within(last.ended_at, active, after),
            "{wrong_s} s: {last:?}"
        );
        assert!(
            within(file.started_at, before, active) && within(file.ended_at, active, after),
            "{wrong_s} s: {file:?}"
        );
        assert!(last.ended_at - last.started_at >= 300_000_000 - SECOND / 1000, "{wrong_s} s: {last:?}");
        let statuses = harness.statuses();
        assert!(statuses.contains(&EgressActive) && statuses.last() == Some(&EgressComplete), "{statuses:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_is_idempotent_and_an_egress_without_streams_is_not_updated() {
    let harness = RunnerHarness::new().await;
    let run = harness.run("record-deaf").await;
    harness.heard(EgressActive).await;
    let error = harness.call(service::UPDATE_STREAM).await.unwrap_err();
    assert_eq!(error, RpcError::new(Code::InvalidArgument, "UpdateStream called on non-streaming egress"));
    for _ in 0..3 {
        assert_eq!(harness.call(service::STOP_EGRESS).await.unwrap().status(), EgressEnding);
    }
    // The media process ignores the stop and keeps recording: only a standstill has a timeout.
    harness.finished_by_another_writer().await;
    assert_eq!(done(run).await, ServeOutcome::Served(Delivered::NotOurs));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_while_waiting_aborts_at_once() {
    let harness = RunnerHarness::new().await;
    let run = harness.run("wait").await;
    let wait = async {
        while harness.record().await.phase != Phase::Running {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(TIMEOUT, wait).await.unwrap();
    let info = harness.call(service::STOP_EGRESS).await.unwrap();
    assert_eq!((info.status(), info.error_code), (EgressAborted, 412));
    assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Acknowledged));
    assert_eq!(harness.statuses().last(), Some(&EgressAborted));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_answered_by_a_dispatcher_reaches_the_session() {
    let harness = RunnerHarness::new().await;
    let run = harness.run("record").await;
    harness.heard(EgressActive).await;
    harness
        .registry()
        .update(&harness.id, |record| {
            record.stop_asked = true;
            Decision::Write
        })
        .await
        .unwrap();
    assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Acknowledged));
    assert_eq!(harness.statuses().last(), Some(&EgressComplete));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hanging_media_process_is_dead_and_its_file_kept() {
    let harness = RunnerHarness::new().await;
    let run = harness.run("record-mute").await;
    assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Acknowledged));
    let last = harness.heard.0.lock().unwrap().last().unwrap().clone();
    assert_eq!((last.status(), last.error_code), (EgressFailed, 500));
    assert!(last.error.contains("said nothing"), "{}", last.error);
    assert!(last.file_results[0].size > 0);
    assert!(harness.folder.path().join("a.ogg").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_stopped_or_replaced_before_the_start_reports_nothing() {
    for spoil in [
        |record: &mut Record| record.phase = Phase::Over,
        |record: &mut Record| record.stop_asked = true,
        |record: &mut Record| record.attempt = 2,
    ] {
        let harness = RunnerHarness::new().await;
        let (names, ticket) = harness.launch("record").await;
        harness
            .registry()
            .update(&harness.id, |record| {
                spoil(record);
                Decision::Write
            })
            .await
            .unwrap();
        assert_eq!(done(harness.serve(names, ticket.unwrap(), RunnerTask::Record)).await, ServeOutcome::NotOurs);
        assert_eq!(harness.statuses(), []);
        assert!(std::fs::read_dir(harness.folder.path()).unwrap().next().is_none(), "nothing was begun");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_is_taken_once() {
    let harness = RunnerHarness::new().await;
    let (names, ticket) = harness.launch("record").await;
    assert!(ticket.is_some());
    assert!(ticket::take(&harness.tickets, &names, RunnerTask::Record).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finished_egress_is_left_without_an_update() {
    let harness = RunnerHarness::new().await;
    let run = harness.run("record").await;
    harness.heard(EgressActive).await;
    harness.finished_by_another_writer().await;
    assert_eq!(done(run).await, ServeOutcome::Served(Delivered::NotOurs));
    assert_eq!(harness.statuses(), [EgressActive]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_livekit_server_the_end_is_left_for_a_dispatcher() {
    let mut harness = RunnerHarness::new().await;
    if let Some(server) = harness.server.take() {
        server.close().await;
    }
    let run = harness.run("record-closed").await;
    assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Left));
    let record = harness.record().await;
    assert_eq!(record.phase, Phase::Over);
    assert_eq!(EgressInfo::decode(record.info.as_slice()).unwrap().status(), EgressComplete);
    assert_eq!(harness.registry().list_live().await.unwrap().len(), 1, "still to be delivered");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_record_is_written_again() {
    let harness = RunnerHarness::new().await;
    let run = harness.run("record").await;
    harness.heard(EgressActive).await;
    harness.registry().forget(&harness.id).await.unwrap();
    let wait = async {
        while harness.registry().get(&harness.id).await.unwrap().is_none() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(TIMEOUT, wait).await.unwrap();
    assert_eq!(harness.record().await.phase, Phase::Running);
    harness.call(service::STOP_EGRESS).await.unwrap();
    assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Acknowledged));
    assert_eq!(harness.statuses().last(), Some(&EgressComplete));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_room_of_the_same_name_is_not_recorded() {
    let harness = RunnerHarness::new().await;
    let run = harness.run("record-other").await;
    assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Acknowledged));
    let last = harness.heard.0.lock().unwrap().last().unwrap().clone();
    assert_eq!(last.status(), EgressAborted);
    assert!(last.details.contains("the room had ended"), "{}", last.details);
}

/// The file is whole; only Redis was away when that was to be said.
#[tokio::test(flavor = "multi_thread")]
async fn a_recording_that_ends_without_redis_waits_and_is_complete_once() {
    let harness = RunnerHarness::new().await;
    let run = harness.run("record-closed").await;
    harness.heard(EgressActive).await;
    harness.broker.cut();
    // Longer than the last report is offered to livekit-server.
    sleep(Duration::from_secs(3)).await;
    assert!(!run.is_finished(), "no other process knows how it ended");
    harness.broker.mend();
    assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Acknowledged));
    assert_eq!(harness.statuses().iter().filter(|status| **status as i32 >= EgressComplete as i32).count(), 1);
    let last = harness.last();
    assert_eq!((last.status(), last.error.as_str()), (EgressComplete, ""));
    assert_eq!(harness.record().await.phase, Phase::Over);
    assert!(harness.registry().list_live().await.unwrap().is_empty());
}

/// The same for as long as the default allows, in virtual time.
#[tokio::test(start_paused = true)]
async fn a_last_report_waits_ten_minutes_for_redis_and_not_for_ever() {
    for (away, delivered) in [(10, Delivered::Acknowledged), (14, Delivered::Acknowledged), (20, Delivered::Unwritten)]
    {
        let harness = RunnerHarness::new().await;
        harness.launch("record").await;
        let registry = harness.registry();
        let run = |record: &mut Record| {
            record.phase = Phase::Running;
            Decision::Write
        };
        registry.update(&harness.id, run).await.unwrap();
        let ledger: EgressLedger = serde_json::from_str(&harness.record().await.ledger).unwrap();
        let reporter = Reporter::new(ledger, Duration::from_secs(60), Clock::host());
        let (inbox, _events) = tokio::sync::mpsc::channel(4);
        let io = IoClient::new(&harness.bus);
        io.listen().await.unwrap();
        let settings = spillway_runner::config::Settings::default();
        let publisher = ReportPublisher {
            registry,
            io,
            egress_id: harness.id.clone(),
            attempt: 1,
            record: harness.record().await,
            redis_timeout: Duration::from_millis(settings.last_report_timeout_ms),
            timeout: Duration::from_millis(settings.report_timeout_ms),
            inbox,
        };
        let reports = reporter.reports();
        reporter.report(Fact::Active { started_at: 5 });
        let reporting = tokio::spawn(publisher.run(reports));
        harness.heard(EgressActive).await;
        harness.broker.cut();
        reporter.report(Fact::Over(Outcome::Complete));
        sleep(Duration::from_secs(away * 60)).await;
        harness.broker.mend();
        assert_eq!(reporting.await.unwrap(), delivered, "{away} min");
        let over = harness.record().await.phase == Phase::Over;
        assert_eq!(over, delivered == Delivered::Acknowledged, "{away} min");
        let told = harness.statuses().iter().filter(|status| **status == EgressComplete).count();
        assert_eq!(told, usize::from(over), "{away} min");
    }
}

#[tokio::test(start_paused = true)]
async fn a_ticket_is_taken_although_the_answer_was_lost() {
    let harness = RunnerHarness::new().await;
    let claim = harness.tickets.put(&harness.ticket("record"), Duration::from_secs(60)).await.unwrap();
    let names = Names { egress_id: harness.id.clone(), attempt: 1, claim };
    let way = FaultyLink::new(LinkFaults { answer_lost: 1.0, ..LinkFaults::default() });
    let tickets = Tickets::new(&way.to(&harness.bus), harness.key.clone());
    let calm = async {
        sleep(Duration::from_millis(350)).await;
        way.calm();
    };
    let (taken, ()) = tokio::join!(ticket::take(&tickets, &names, RunnerTask::Record), calm);
    assert_eq!(taken.unwrap().map(|ticket| ticket.attempt), Some(1), "two answers were lost");
    assert!(
        ticket::take(&harness.tickets, &names, RunnerTask::Record).await.unwrap().is_none(),
        "it is taken for others"
    );
}

/// The publication came back in a codec that the first file cannot take.
#[tokio::test(flavor = "multi_thread")]
async fn a_recording_that_goes_on_in_another_file_has_two_results_and_is_complete() {
    let harness = RunnerHarness::new().await;
    let run = harness.run("record-again").await;
    harness.heard(EgressActive).await;
    let second = harness.folder.path().join("a-2.ogg");
    let wait = async {
        while !std::fs::metadata(&second).is_ok_and(|file| file.len() > 500) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(TIMEOUT, wait).await.unwrap();
    harness.call(service::STOP_EGRESS).await.unwrap();
    assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Acknowledged));
    let last = harness.last();
    assert_eq!((last.status(), last.error.as_str()), (EgressComplete, ""));
    let names: Vec<&str> = last.file_results.iter().map(|file| file.filename.as_str()).collect();
    assert_eq!(names, ["a.ogg", "a-2.ogg"]);
    for file in &last.file_results {
        let path = harness.folder.path().join(&file.filename);
        assert_eq!(file.location, path.display().to_string());
        assert_eq!(file.size as u64, std::fs::metadata(path).unwrap().len());
        assert!(file.size > 500 && file.duration > 0, "{file:?}");
    }
    assert_eq!(last.file_results[1].started_at, last.file_results[0].ended_at);
    let manifest = std::fs::read_to_string(harness.folder.path().join("EG_1.json")).unwrap();
    assert!(manifest.contains("a.ogg") && manifest.contains("a-2.ogg"), "{manifest}");
}

/// A recording of so many files, stopped after some bytes are in each that `paths` names.
async fn recorded_to(harness: &RunnerHarness, script: &str, paths: &[&str]) -> EgressInfo {
    let run = harness.run(script).await;
    harness.heard(EgressActive).await;
    let large = |path: &&str| std::fs::metadata(harness.folder.path().join(path)).is_ok_and(|file| file.len() > 500);
    let wait = async {
        while !paths.iter().all(large) {
            sleep(Duration::from_millis(5)).await;
        }
        // Beyond what the script waits for before it does anything.
        sleep(Duration::from_millis(500)).await;
    };
    timeout(TIMEOUT, wait).await.unwrap();
    harness.call(service::STOP_EGRESS).await.unwrap();
    assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Acknowledged));
    harness.last()
}

fn is_whole(harness: &RunnerHarness, file: &livekit::FileInfo) {
    let path = harness.folder.path().join(&file.filename);
    assert_eq!(file.location, path.display().to_string());
    assert_eq!(file.size as u64, std::fs::metadata(path).unwrap().len());
    assert!(file.size > 500 && file.duration > 300_000_000, "{file:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_files_are_two_results_in_the_order_of_the_request_with_a_manifest_beside_each() {
    let mut harness = RunnerHarness::new().await;
    harness.more = vec![("d/b.ogg", None)];
    let last = recorded_to(&harness, "record-two", &["a.ogg", "d/b.ogg"]).await;
    assert_eq!((last.status(), last.error.as_str()), (EgressComplete, ""));
    let names: Vec<&str> = last.file_results.iter().map(|file| file.filename.as_str()).collect();
    assert_eq!(names, ["a.ogg", "d/b.ogg"]);
    last.file_results.iter().for_each(|file| is_whole(&harness, file));
    let manifest =
        |folder: &str| std::fs::read_to_string(harness.folder.path().join(folder).join("EG_1.json")).unwrap();
    assert_eq!(manifest(""), manifest("d"));
    let read: serde_json::Value = serde_json::from_str(&manifest("")).unwrap();
    let listed: Vec<&str> = read["files"].as_array().unwrap().iter().filter_map(|f| f["filename"].as_str()).collect();
    assert_eq!(listed, names);
    assert_eq!(last.manifest_location, harness.folder.path().join("EG_1.json").display().to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_files_go_on_in_two_others() {
    let mut harness = RunnerHarness::new().await;
    harness.more = vec![("b.ogg", None)];
    let last = recorded_to(&harness, "record-two-again", &["a-2.ogg", "b-2.ogg"]).await;
    assert_eq!((last.status(), last.error.as_str()), (EgressComplete, ""));
    let mut names: Vec<&str> = last.file_results.iter().map(|file| file.filename.as_str()).collect();
    assert_eq!(names[..2], ["a.ogg", "b.ogg"]);
    names.sort_unstable();
    assert_eq!(names, ["a-2.ogg", "a.ogg", "b-2.ogg", "b.ogg"]);
    last.file_results.iter().for_each(|file| is_whole(&harness, file));
}

/// A path that is a pipe, and one below a file.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_made_costs_only_itself_and_is_told() {
    for (broken, kept, message) in [(0, "x/b.ogg", "a place that is a pipe"), (1, "a.ogg", "cannot create the folder")]
    {
        let mut harness = RunnerHarness::new().await;
        harness.more = vec![("x/b.ogg", None)];
        let root = harness.folder.path();
        if broken == 0 {
            assert!(std::process::Command::new("mkfifo").arg(root.join("a.ogg")).status().unwrap().success());
        } else {
            std::fs::write(root.join("x"), "no folder").unwrap();
        }
        let last = recorded_to(&harness, "record-two", &[kept]).await;
        assert_eq!((last.status(), last.error_code), (EgressFailed, 400));
        assert!(last.error.contains(message), "{}", last.error);
        assert!(last.details.contains(message) && last.details.contains("the other outputs go on"), "{}", last.details);
        let result = &last.file_results[1 - broken];
        assert_eq!(result.filename, kept);
        is_whole(&harness, result);
        assert_eq!(last.file_results.get(broken).map_or(0, |file| file.size), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_egress_of_which_no_file_can_be_made_fails_at_once() {
    let mut harness = RunnerHarness::new().await;
    harness.more = vec![("x/b.ogg", None)];
    let root = harness.folder.path();
    assert!(std::process::Command::new("mkfifo").arg(root.join("a.ogg")).status().unwrap().success());
    std::fs::write(root.join("x"), "no folder").unwrap();
    let run = harness.run("record-two").await;
    assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Acknowledged));
    let last = harness.last();
    assert_eq!((last.status(), last.error_code), (EgressFailed, 400));
    assert!(!harness.statuses().contains(&EgressActive), "{:?}", harness.statuses());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_output_that_fails_alone_ends_alone_and_the_egress_fails_with_its_reason() {
    let mut harness = RunnerHarness::new().await;
    harness.more = vec![("b.ogg", None)];
    let last = recorded_to(&harness, "record-two-lose1", &["a.ogg", "b.ogg"]).await;
    assert_eq!((last.status(), last.error_code), (EgressFailed, 429));
    assert_eq!(last.error, "b.ogg: no space left on the disk");
    assert!(last.details.contains("b.ogg: no space left on the disk; the other outputs go on"), "{}", last.details);
    last.file_results.iter().for_each(|file| is_whole(&harness, file));
    assert!(last.file_results[0].size > last.file_results[1].size, "{:?}", last.file_results);
    assert!(last.manifest_location.is_empty(), "it failed");
}
