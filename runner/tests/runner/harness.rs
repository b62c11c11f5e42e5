//! Dispatcher and livekit-server around a runner, played on a bus in memory: what tests of a served egress need.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use prost::Message;
use serde_json::json;
use spillway_bus::{
    Bid, Bus, CallOptions, ClaimToken, Created, Decision, FaultyLink, Handler, Incoming, LaunchState, MemoryBroker,
    Record, Registry, Resumption, Routing, RpcClient, RpcServer, Ticket, TicketKey, Tickets,
};
use spillway_plan::segment_name::{SegmentNaming, SegmentSuffix};
use spillway_plan::{
    Container, Defaults, Destination, Destinations, FileOutput, ImageCodec, ImageSuffix, ImagesOutput, Output,
    SegmentsOutput,
};
use spillway_process::Clock;
use spillway_protocol::Secret;
use spillway_protocol::ledger::EgressLedger;
use spillway_protocol::livekit::{
    EgressInfo, EgressStatus, StopEgressRequest, TrackEgressRequest, track_egress_request,
};
use spillway_protocol::rpc::{StartEgressRequest, service, start_egress_request::EgressRequest};
use spillway_protocol::{Code, EgressId, RpcError, livekit};
use spillway_runner::serve::{ServeOutcome, serve_ticket};
use spillway_runner::ticket::{self, Names, RunnerTask};
use spillway_runner::upload::stores::{self, StoreFactory};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::scripted_media;

pub const TIMEOUT: Duration = Duration::from_secs(20);

/// Dispatcher and livekit-server around one runner, on a bus in memory.
pub struct RunnerHarness {
    pub broker: MemoryBroker,
    pub bus: Bus,
    /// The runner's own, of a host whose clock may be wrong.
    runners_bus: Bus,
    pub folder: tempfile::TempDir,
    pub id: EgressId,
    pub key: TicketKey,
    pub tickets: Tickets,
    pub heard: UpdateLog,
    /// livekit-server; `None` while it is away.
    pub server: Option<RpcServer>,
    pub stores: Arc<dyn StoreFactory>,
    /// Where the file goes; `None`: to the disk.
    pub destinations: Option<Destinations>,
    /// Paths and destinations of further files.
    pub more: Vec<(&'static str, Option<Destinations>)>,
    /// Destinations of HLS outputs behind the files: at most one.
    pub segments: Vec<Option<Destinations>>,
    /// Destinations of image outputs behind those, and what tells their images apart.
    pub images: Vec<(Option<Destinations>, ImageSuffix)>,
    /// URLs of streams, or the one of a websocket; `None`: there is no output of streams.
    pub streams: Option<Vec<&'static str>>,
    /// There are only HLS and image outputs and streams.
    pub no_files: bool,
    pub upload: serde_json::Value,
    /// How often another media process takes the place of one that died.
    pub media_restarts: u32,
    /// Another task may take the place of one that died.
    pub resumable: bool,
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
    pub async fn beside(broker: MemoryBroker, runners: Clock) -> Self {
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
            segments: vec![],
            images: vec![],
            streams: None,
            no_files: false,
            upload: json!({}),
            media_restarts: 0,
            resumable: false,
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
    pub async fn launch(&self, script: &str) -> (Names, Option<Ticket>) {
        let start = self.request(script);
        let ledger = EgressLedger::accept(&start, self.broker.clock().unix_ns());
        let mut record = Record {
            state: LaunchState::Asking,
            attempt: 1,
            info: ledger.info().encode_to_vec(),
            ledger: serde_json::to_string(&ledger).unwrap(),
            resumable: self.resumable,
            ..Record::new(self.id.clone(), 1)
        };
        if self.resumable {
            let spare = Ticket { attempt: 2, ..self.ticket(script) };
            record.spare = self.tickets.put(&spare, Duration::from_secs(60)).await.unwrap().reveal().to_owned();
        }
        assert_eq!(self.registry().create(&record).await.unwrap(), Created::Yes);
        let claim = self.tickets.put(&self.ticket(script), Duration::from_secs(60)).await.unwrap();
        let names = Names { egress_id: self.id.clone(), attempt: 1, claim };
        let ticket = ticket::take(&self.tickets, &names, RunnerTask::Record).await.unwrap();
        (names, ticket)
    }

    fn request(&self, script: &str) -> StartEgressRequest {
        let Some(urls) = &self.streams else { return start_request(script) };
        if let [url] = urls.as_slice()
            && url.starts_with("ws")
        {
            let output = Some(track_egress_request::Output::WebsocketUrl((*url).to_owned()));
            let (room_name, track_id) = (script.into(), "TR_1".into());
            let request = TrackEgressRequest { room_name, track_id, output, ..Default::default() };
            return StartEgressRequest { request: Some(EgressRequest::Track(request)), ..start_request(script) };
        }
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
                file_outputs: vec![file; usize::from(!self.no_files)],
                stream_outputs: vec![livekit::StreamOutput { protocol: livekit::StreamProtocol::Rtmp.into(), urls }],
                ..Default::default()
            })),
            ..start_request(script)
        }
    }

    pub fn ticket(&self, script: &str) -> Ticket {
        let start = self.request(script);
        let mut plan = spillway_plan::plan(&start, &Defaults::default()).unwrap();
        let mut destinations = vec![None; plan.outputs.len()];
        if self.streams.is_none() {
            let first = plan.file(0).unwrap().clone();
            destinations = vec![self.destinations.clone()];
            plan.outputs = vec![Output::File(FileOutput { stored: self.destinations.is_some(), ..first.clone() })];
            for (path, to) in &self.more {
                // Only where the request says the container, the name is known before the tracks are.
                let container = path.ends_with(".mp4").then_some(Container::Mp4);
                let file = FileOutput { container, path: (*path).to_owned(), stored: to.is_some(), ..first.clone() };
                plan.outputs.push(Output::File(file));
                destinations.push(to.clone());
            }
            if self.no_files {
                plan.outputs.clear();
                destinations.clear();
            }
        }
        for to in &self.segments {
            let naming = SegmentNaming::new("hls/part", "index", "live", SegmentSuffix::Index);
            let (segment_ns, stored) = (100_000_000, to.is_some());
            let segments = SegmentsOutput { naming, segment_ns, manifest: true, stored };
            let at = plan.files().count();
            plan.outputs.insert(at, Output::Segments(segments));
            destinations.insert(at, to.clone());
        }
        for (to, suffix) in &self.images {
            plan.outputs.push(Output::Images(ImagesOutput {
                prefix: "pics/{publisher_identity}".to_owned(),
                interval_ns: 100_000_000,
                size: None,
                suffix: *suffix,
                codec: ImageCodec::Jpeg,
                manifest: true,
                stored: to.is_some(),
            }));
            destinations.push(to.clone());
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
                "media_restarts": self.media_restarts,
                "media": { "fragment_ms": 50 },
                "hang_after_ms": 800,
                "drain_timeout_ms": 500,
                "report_timeout_ms": 1500,
                "last_report_timeout_ms": self.last_report_timeout_ms,
                "guard": { "allow": ["127.0.0.1"] },
                "upload": self.upload,
            }),
            probe: None,
            streams: None,
        }
    }

    pub async fn run(&self, script: &str) -> JoinHandle<ServeOutcome> {
        let (names, ticket) = self.launch(script).await;
        self.serve(names, ticket.unwrap(), RunnerTask::Record)
    }

    /// The runner's way to Redis from now on.
    pub fn reach_redis_over(&mut self, link: &FaultyLink) {
        self.runners_bus = link.to(&self.runners_bus);
    }

    pub fn serve(&self, names: Names, ticket: Ticket, task: RunnerTask) -> JoinHandle<ServeOutcome> {
        let (bus, tickets, stores) = (self.runners_bus.clone(), self.tickets.clone(), self.stores.clone());
        tokio::spawn(async move { serve_ticket(&bus, &tickets, names, ticket, task, stores).await.unwrap() })
    }

    /// What a dispatcher does when the task is gone.
    pub async fn salvage(&self, script: &str) -> JoinHandle<ServeOutcome> {
        self.registry()
            .update(&self.id, |record| {
                record.attempt += 1;
                record.state = LaunchState::Asking;
                record.lost = "runner was lost".into();
                Decision::Write
            })
            .await
            .unwrap();
        let attempt = self.record().await.attempt;
        let names = Names { egress_id: self.id.clone(), attempt, claim: ClaimToken::from_text("spare") };
        self.serve(names, self.ticket(script), RunnerTask::Salvage)
    }

    /// What a dispatcher does when the task is gone, or has handed its recording over, and another one is to go on.
    pub async fn resume(&self) -> JoinHandle<ServeOutcome> {
        self.registry()
            .update(&self.id, |record| {
                record.attempt += 1;
                record.state = LaunchState::Asking;
                let why = || Resumption { why: "runner was lost".to_owned(), count: 0 };
                record.resumption.get_or_insert_with(why).count += 1;
                Decision::Write
            })
            .await
            .unwrap();
        let record = self.record().await;
        let (spare, ttl) = (ClaimToken::from_text(&record.spare), Duration::from_secs(60));
        let claim = self.tickets.copy(&self.id, &spare, record.attempt, ttl).await.unwrap().expect("a spare ticket");
        let names = Names { egress_id: self.id.clone(), attempt: record.attempt, claim };
        let ticket = ticket::take(&self.tickets, &names, RunnerTask::Salvage).await.unwrap().unwrap();
        self.serve(names, ticket, RunnerTask::Salvage)
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

    pub async fn finished_by_another_writer(&self) {
        self.registry()
            .update(&self.id, |record| {
                record.state = LaunchState::Ended { task: None, asked: true };
                Decision::Write
            })
            .await
            .unwrap();
    }
}

pub async fn done(run: JoinHandle<ServeOutcome>) -> ServeOutcome {
    timeout(TIMEOUT, run).await.expect("the runner ends").expect("it does not panic")
}

/// Polls a state, with a bound.
pub async fn until(what: &str, mut look: impl FnMut() -> bool) {
    let wait = async {
        while !look() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(TIMEOUT, wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}
