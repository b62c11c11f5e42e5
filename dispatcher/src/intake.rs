//! StartEgress: claims the call, and once it is granted accepts or refuses the request. Before the answer goes out,
//! ticket and record are in Redis and livekit-server has acknowledged its own record. Runs in the RPC server's tasks,
//! one per call; never waits for a launcher.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use prost::Message;
use spillway_bus::{Bid, Created, Dispatch, Handler, Incoming, Phase, Record, Tasks, Ticket, Tickets};
use spillway_cost::Shape;
use spillway_guard::Guard;
use spillway_launchers::RunMode;
use spillway_plan::{Destinations, EgressKind, EgressPlan, Output, OutputKind};
use spillway_process::chain;
use spillway_protocol::Secret;
use spillway_protocol::code::{Code, RpcError};
use spillway_protocol::ids::EgressId;
use spillway_protocol::ledger::{EgressLedger, Fact};
use spillway_protocol::livekit::EgressInfo;
use spillway_protocol::rpc::StartEgressRequest;
use tokio::time::Instant;
use tracing::{Instrument, error, info, info_span, warn};

use crate::admission::{self, Admission};
use crate::billing::entry;
use crate::config::Config;
use crate::config::settings::SPARE_TICKET_TTL;
use crate::config::tenants::OverBudget;
use crate::final_state::Finisher;
use crate::held::HeldIds;
use crate::instance::Instance;
use crate::launch::TaskLauncher;
use crate::records::Records;
use crate::report;
use crate::room_token;

/// Affinity of a full dispatcher. It wins only when no other one claims within half a second; then the caller at least
/// learns why it is refused.
const TO_REFUSE: f32 = 0.01;
/// A request is stored in two tickets, one of them for a week. 8 MiB cost 141 MB of Redis and 22 MB/s of reads.
const MAX_REQUEST_BYTES: usize = 256 << 10;
/// A dispatcher where the request would wait for a slot lets others claim first.
const HEAD_START: Duration = Duration::from_millis(50);
/// The caller may be gone before the time it allows us: auto egress has 10 s for everything.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(8);
/// For livekit-server's acknowledgement of an egress whose dispatcher died before it.
const ANNOUNCE_TIMEOUT: Duration = Duration::from_secs(10);
/// For a slow network disk.
const DISK_TIMEOUT: Duration = Duration::from_secs(2);

/// Between the end of the longest allowed recording and the end of its task by the platform: to close, upload and
/// report. A store may be down for 15 minutes of it (`outage`) and Redis for as long (`last_report_timeout`).
const FINISHING_S: u64 = 35 * 60;

/// The actor that accepts egresses. Handler of StartEgress.
pub struct Intake {
    /// Its configuration decides.
    pub instance: Arc<Instance>,
    /// Where an accepted egress is recorded.
    pub records: Records,
    /// What the runner will need, encrypted.
    pub tickets: Tickets,
    /// What a tenant has spent.
    pub tasks: Tasks,
    /// Where accepted egresses go.
    pub launcher: Arc<TaskLauncher>,
    /// Tells livekit-server.
    pub finisher: Arc<Finisher>,
    /// StartEgress calls granted to us and not answered yet, and announcements.
    pub in_flight: HeldIds,
}

#[async_trait]
impl Handler for Intake {
    async fn bid(&self, incoming: &Incoming) -> Bid {
        if self.instance.is_draining() || !self.instance.reaches_redis() {
            return Bid::Silent;
        }
        let start = match StartEgressRequest::decode(incoming.request.as_ref()) {
            Ok(start) => start,
            Err(error) => return Bid::Malformed(error.to_string()),
        };
        let bid = self.instance.config().bid;
        match EgressId::parse(&start.egress_id) {
            // It was granted to us before and we have not answered: another dispatcher may be faster.
            Ok(id) if self.in_flight.contains(&id) => Bid::Silent,
            Ok(id) if !self.launcher.queue.lock().contains(&id) => {
                let (load, bounds) = self.launcher.queue.lock().load_and_bounds();
                if admission::is_full(load, bounds) {
                    Bid::Now(TO_REFUSE)
                } else if admission::fits(0.0, load, bounds) {
                    Bid::Now(bid)
                } else {
                    Bid::After(HEAD_START, bid)
                }
            }
            _ => Bid::Now(bid),
        }
    }

    async fn answer(&self, incoming: Incoming) -> Result<Vec<u8>, RpcError> {
        let bytes = incoming.request.len();
        if bytes > MAX_REQUEST_BYTES {
            let message = format!("the request has {bytes} bytes, of at most {MAX_REQUEST_BYTES}");
            return Err(RpcError::new(Code::InvalidArgument, message));
        }
        let start = StartEgressRequest::decode(incoming.request.as_ref())
            .map_err(|error| RpcError::new(Code::MalformedRequest, error.to_string()))?;
        let id = EgressId::parse(&start.egress_id)
            .map_err(|error| RpcError::new(Code::InvalidArgument, error.to_string()))?;
        let span = info_span!("egress", egress_id = %id);
        let Some(_held) = self.in_flight.take(&id) else {
            return Err(RpcError::new(Code::Unavailable, "this egress is just being started"));
        };
        let timeout = incoming.time_allowed.mul_f32(0.8).min(ANSWER_TIMEOUT);
        let request = StartRequest { intake: self, id, bytes: &incoming.request, start, timeout };
        self.instance.answered(request.answer().instrument(span)).await.map(|info| info.encode_to_vec())
    }
}

impl Intake {
    /// Makes sure, in the background, that livekit-server knows an accepted egress; then it is enqueued. For one whose
    /// dispatcher died in between.
    pub fn resume(self: &Arc<Self>, record: Record) {
        let Some(held) = self.in_flight.take(&record.egress_id) else { return };
        let span = info_span!("egress", egress_id = %record.egress_id);
        let intake = Arc::clone(self);
        let announcement = async move {
            let _held = held;
            let info = match report::info_of(&record) {
                Ok(info) => info,
                Err(error) => return error!(%error, "record holds no EgressInfo, not launched"),
            };
            match intake.finisher.io.ensure_egress(&info, ANNOUNCE_TIMEOUT).await {
                Ok(()) => intake.launcher.enqueue(&record),
                // The next sweep tries again.
                Err(error) => {
                    warn!(code = %error.code, %error, "livekit-server did not take the egress, launch put off");
                }
            }
        };
        self.instance.spawn(announcement.instrument(span));
    }
}

struct StartRequest<'a> {
    intake: &'a Intake,
    id: EgressId,
    /// As received: fields unknown to us would be lost by re-encoding.
    bytes: &'a [u8],
    start: StartEgressRequest,
    timeout: Duration,
}

impl StartRequest<'_> {
    async fn answer(self) -> Result<EgressInfo, RpcError> {
        let outcome = match self.intake.records.registry.get(&self.id).await? {
            Some(record) => self.repeated(record).await,
            None => self.first().await,
        };
        match &outcome {
            Ok(_) => {}
            Err(error) => {
                let reason = error.code.to_string();
                self.intake.instance.metrics.count("spillway_refusals_total", &[("reason", &reason)], 1.0);
                info!(code = %error.code, reason = %error, "StartEgress refused");
            }
        }
        outcome
    }

    /// livekit-server repeats a call whose answer was lost or late, with the same egress id.
    async fn repeated(&self, record: Record) -> Result<EgressInfo, RpcError> {
        let info = report::info_of(&record)?;
        if record.phase() == Phase::Accepted {
            // The dispatcher that accepted it may have died before livekit-server knew; for a known id this does
            // nothing. Nothing is launched before livekit-server knows, so later states are answered whatever it says.
            self.intake.finisher.io.ensure_egress(&info, self.timeout).await?;
        }
        info!(state = %record.state, "StartEgress repeated; answered from the registry");
        Ok(info)
    }

    async fn first(&self) -> Result<EgressInfo, RpcError> {
        let Intake { instance, records, tickets, launcher, finisher, .. } = self.intake;
        let config = instance.config();
        let plan = spillway_plan::plan(&self.start, &config.defaults)?;
        let destinations = spillway_plan::destinations(&self.start, &config.defaults.storage)?;
        let guard = Guard::new(&config.guard);
        admission::hosts::check(&self.start, &destinations, &guard)?;
        admission::hosts::check_webhooks(&self.start, &guard).await?;
        self.check_destination(&plan).await?;
        let tenant = config.tenants.of(&plan.room_name);
        let load = spillway_cost::load(&plan);
        let shapes = launcher.targets.shapes(plan.kind, &load).map_err(|message| {
            RpcError::new(Code::ResourceExhausted, format!("no target takes this request: {message}"))
        })?;
        self.check_target(&shapes, &config)?;
        self.check_budget(&tenant, &config).await?;
        let weight = load.cores;
        let max_waiting = config.tenants.rules(&tenant).max_waiting;
        // Reserved until it is enqueued: a burst of requests must not pass the bound while their records are written.
        let (admission, _reserved) = launcher.queue.admit(&self.id, &tenant, weight, max_waiting)?;
        let message = match &admission {
            Admission::Now => None,
            Admission::Queued { message } => Some(message.as_str()),
        };
        let (ledger, info) = accepted_ledger(&self.start, message, instance.clock.unix_ns())?;

        let ticket = self.ticket(&plan, if load.stored { &destinations } else { &[] })?;
        let claim = tickets.put(&ticket, config.ticket_ttl(RunMode::Record)).await?;
        let now_ms = instance.clock.unix_ms();
        let mut record = Record::new(self.id.clone(), now_ms);
        record.attempt = 1;
        // A playlist without its end and images in a spool are for a salvage too, where its task can reach the disk.
        let objects = |output: &Output| matches!(output.kind(), OutputKind::Segments | OutputKind::Images);
        let spooled = plan.outputs.iter().any(objects);
        let can_be_salvaged = load.stored || (spooled && launcher.targets.all_are_here());
        if can_be_salvaged || (config.resume && launcher.targets.any_is_resumable(&shapes)) {
            record.nothing_to_salvage = !can_be_salvaged;
            let spare = Ticket { attempt: 2, ..ticket };
            record.spare = tickets.put(&spare, SPARE_TICKET_TTL).await?.reveal().to_owned();
        }
        record.dispatcher = records.by();
        record.info = info.encode_to_vec();
        record.ledger = ledger;
        record.dispatch = Dispatch {
            claim: claim.reveal().to_owned(),
            weight,
            deadline_ms: instance.deadline_ms(),
            room: plan.room_name.clone(),
            kind: plan.kind.name().to_owned(),
            share: config.tenants.rules(&tenant).weight,
            tenant,
            load,
            shapes,
            max_duration_s: plan.limits.max_duration_ns.map(|ns| ns / 1_000_000_000 + FINISHING_S),
            ..Dispatch::default()
        };
        if let Created::Exists(theirs) = records.registry.create(&record).await? {
            finisher.withdraw_tickets(&self.id, &[claim.reveal(), &record.spare]).await;
            return self.repeated(*theirs).await;
        }
        if let Err(error) = finisher.io.create_egress(&info, self.timeout).await {
            warn!(code = %error.code, %error, "livekit-server did not take the new egress; it is not started");
            finisher.withdraw_tickets(&self.id, &[claim.reveal(), &record.spare]).await;
            self.forget().await;
            return Err(error);
        }
        info!(kind = ?plan.kind, room = plan.room_name, queued = message.is_some(), "egress accepted");
        launcher.enqueue(&record);
        Ok(info)
    }

    /// Refuses now what no target would take before the deadline of the queue.
    fn check_target(&self, shapes: &BTreeMap<String, Shape>, config: &Config) -> Result<(), RpcError> {
        let now = Instant::now();
        let choice = self.intake.launcher.targets.choose(shapes, &BTreeSet::new(), now);
        if !choice.open.is_empty() {
            return Ok(());
        }
        let message = match choice.closed {
            None => "every target that could take it is being drained".to_owned(),
            Some((Some(until), message)) if until > now + config.queue_deadline => message,
            // It opens in time, or an operator may resume it.
            Some(_) => return Ok(()),
        };
        Err(RpcError::new(Code::ResourceExhausted, format!("no target takes launches: {message}")))
    }

    async fn check_budget(&self, tenant: &str, config: &Config) -> Result<(), RpcError> {
        let rules = config.tenants.rules(tenant);
        let (Some(budget), OverBudget::Refuse) = (rules.month_budget, rules.over_budget) else { return Ok(()) };
        let month = entry::month(self.intake.instance.clock.unix_ms());
        let spent = self.intake.tasks.spent(&month, tenant).await?;
        admission::budget(tenant, &month, spent, budget)
    }

    async fn check_destination(&self, plan: &EgressPlan) -> Result<(), RpcError> {
        let stays_local = plan.outputs.iter().any(Output::stays_local);
        if !self.intake.launcher.targets.all_are_here() || !stays_local {
            return Ok(());
        }
        let (plan, root) = (plan.clone(), self.intake.instance.config().local_root.clone());
        let check = tokio::task::spawn_blocking(move || admission::destination::check(&plan, root.as_deref()));
        match tokio::time::timeout(DISK_TIMEOUT, check).await {
            Ok(Ok(checked)) => checked,
            Ok(Err(_)) => Err(RpcError::new(Code::Internal, "the check of the output path failed")),
            Err(_) => Err(RpcError::new(Code::Unavailable, "the disk of the output path does not answer")),
        }
    }

    fn ticket(&self, plan: &EgressPlan, destinations: &[Destinations]) -> Result<Ticket, RpcError> {
        let internal = |error: serde_json::Error| RpcError::new(Code::Internal, error.to_string());
        let config = &*self.intake.instance.config();
        let given = |asked: &str, ours: &str| if asked.is_empty() { ours.to_owned() } else { asked.to_owned() };
        let token = match self.start.token.as_str() {
            // It joins no room.
            "" if plan.kind == EgressKind::Web => Secret::default(),
            "" => room_token::sign(plan, config)?,
            theirs => Secret::new(theirs.to_owned()),
        };
        Ok(Ticket {
            egress_id: self.id.clone(),
            attempt: 1,
            request: Secret::new(self.bytes.to_vec()),
            plan_json: Secret::new(serde_json::to_string(plan).map_err(internal)?),
            token,
            ws_url: given(&self.start.ws_url, &config.ws_url),
            destinations: match destinations {
                [] => None,
                some => Some(Secret::new(serde_json::to_string(some).map_err(internal)?)),
            },
            runner: config.runner.clone(),
            probe: None,
            streams: None,
        })
    }

    /// Takes back the record of a request that is not accepted; if this fails the sweep finds it.
    async fn forget(&self) {
        if let Err(error) = self.intake.records.registry.forget(&self.id).await {
            warn!(error = %chain(&error), "record of a refused egress not removed");
        }
    }
}

/// A new ledger with its first entry: the ledger as JSON for the record, and its EgressInfo. `waiting`: why there is no
/// slot yet. `at`: Unix nanoseconds.
fn accepted_ledger(
    start: &StartEgressRequest,
    waiting: Option<&str>,
    at: i64,
) -> Result<(String, EgressInfo), RpcError> {
    let mut ledger = EgressLedger::accept(start, at);
    if let Some(message) = waiting {
        ledger.on(Fact::Waiting(message.to_owned()), at);
    }
    let info = ledger.info().clone();
    let text = serde_json::to_string(&ledger).map_err(|error| RpcError::new(Code::Internal, error.to_string()))?;
    Ok((text, info))
}
