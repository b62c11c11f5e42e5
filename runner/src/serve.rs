//! Puts the runner together, for a dispatcher (`serve_task`) and alone (`serve_request`): connections, ownership, and the tasks
//! that run beside the session until its end is delivered. The steps of a recording are in `session`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use prost::Message;
use spillway_bus::{
    Bus, ClaimToken, Heartbeats, IoClient, RedisConfig, Registry, Ticket, TicketKey, Tickets, UploadStates,
};
use spillway_guard::GuardRules;
use spillway_ipc::migration::{MigrationSignal, MigrationSignals};
use spillway_plan::{Destinations, EgressPlan};
use spillway_process::Clock;
use spillway_process::retry::RetrySchedule;
use spillway_process::shutdown::{Signal, Signals};
use spillway_protocol::ledger::{EgressLedger, Fact, Outcome};
use spillway_protocol::livekit::EgressInfo;
use spillway_protocol::rpc::StartEgressRequest;
use spillway_protocol::{Code, Secret, hide_value};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::{Instrument, info, info_span, warn};

use crate::config::Settings;
use crate::control::ControlServer;
use crate::events::{SessionEvent, StopSource};
use crate::heartbeat::HeartbeatTask;
use crate::oneshot::OneShot;
use crate::report::{Delivered, ReportPublisher, Reporter};
use crate::salvage::{SalvageJob, salvage};
use crate::session::{self, SessionEnd, SessionJob, drive, media};
use crate::ticket::{self, Names, RunnerTask};
use crate::upload::UploadResources;
use crate::upload::checkpoint::{Checkpoint, CheckpointWriter};
use crate::upload::stores::{self, StoreFactory};

/// Events for the session besides those of the media process: a handful.
const INBOX_CAPACITY: usize = 16;
/// UpdateStream calls that may wait; their callers give up after 3 s.
const UPDATES_CAPACITY: usize = 4;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
const CLEAN_UP_TIMEOUT: Duration = Duration::from_secs(3);

/// What became of a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServeOutcome {
    /// It was recorded or failed, and this became of the last report.
    Served(Delivered),
    /// The egress was taken by another process, stopped or ended before this one owned it.
    NotOurs,
}

/// Serves one egress of a dispatcher: connects to Redis, takes the ticket, and does as [`serve_ticket`].
///
/// # Errors
/// Redis does not answer at the start, or what the dispatcher wrote is not usable. Nothing is reported then; the
/// dispatcher sees the task end.
pub async fn serve_task(
    names: Names,
    redis: &RedisConfig,
    key: TicketKey,
    task: RunnerTask,
) -> anyhow::Result<ServeOutcome> {
    let span = info_span!("egress", egress_id = %names.egress_id);
    async {
        let bus = connect(redis).await.context("connect to redis")?;
        let tickets = Tickets::new(&bus, key);
        let Some(ticket) = ticket::take(&tickets, &names, task).await.context("take the ticket")? else {
            info!("the ticket is taken or has expired");
            return Ok(ServeOutcome::NotOurs);
        };
        let environment = |name: &str| std::env::var(name).ok();
        let stores = stores::DefaultStoreFactory::new(&guard_of(&ticket.runner), environment);
        serve_ticket(&bus, &tickets, names, ticket, task, Arc::new(stores)).await
    }
    .instrument(span)
    .await
}

async fn connect(redis: &RedisConfig) -> Result<Bus, spillway_bus::BusError> {
    // Every error is tried again: a name may not resolve yet while a container starts.
    let give_up = tokio::time::Instant::now() + CONNECT_TIMEOUT;
    let mut waits = RetrySchedule::new(Duration::from_millis(100), Duration::from_secs(2));
    loop {
        match Bus::connect(redis).await {
            Ok(bus) => return Ok(bus),
            Err(error) if tokio::time::Instant::now() >= give_up => return Err(error),
            Err(error) => {
                warn!(error = %spillway_process::chain(&error), "redis does not answer, trying again");
                tokio::time::sleep(waits.wait()).await;
            }
        }
    }
}

/// Serves one egress with its ticket, from ownership to the delivery of the last report. The order matters: first the control
/// methods are subscribed, then the record is taken over, only then the room is joined; so a stop is never lost.
///
/// # Errors
/// Redis does not answer before the egress is owned, or its record is not readable. Later errors are outcomes.
pub async fn serve_ticket(
    bus: &Bus,
    tickets: &Tickets,
    names: Names,
    ticket: Ticket,
    task: RunnerTask,
    stores: Arc<dyn StoreFactory>,
) -> anyhow::Result<ServeOutcome> {
    let signals = Signals::listen().context("listen for signals")?;
    let migration = MigrationSignals::listen().context("listen for signals")?;
    let registry = Registry::new(bus);
    // A single lost answer must not cost the recording.
    let before = ticket::with_retries(|| registry.get(&names.egress_id)).await.context("read the record")?;
    let Some(before) = before else {
        info!("no record of this egress");
        return Ok(ServeOutcome::NotOurs);
    };
    let ledger: EgressLedger = serde_json::from_str(&before.ledger).context("read the ledger in the record")?;
    let reporter = Reporter::new(ledger, Duration::from_secs(60), bus.clock().clone());
    let (inbox, events) = mpsc::channel(INBOX_CAPACITY);
    let (updates_tx, updates) = mpsc::channel(UPDATES_CAPACITY);
    let updates_tx = can_be_updated(&ticket).then_some(updates_tx);
    let control = ControlServer::open(bus, &names.egress_id, inbox.clone(), updates_tx, reporter.reports())
        .await
        .context("subscribe to our topic")?;
    let io = IoClient::new(bus);
    io.listen().await.context("subscribe to answers")?;
    let heartbeat = HeartbeatTask {
        heartbeats: Heartbeats::new(bus),
        registry: registry.clone(),
        egress_id: names.egress_id.clone(),
        attempt: names.attempt,
    };
    let first = reporter.beat();
    ticket::with_retries(|| heartbeat.beat(&first)).await.context("first heartbeat")?;
    let Some(record) = ticket::own(&registry, &names).await.context("become the owner")? else {
        info!("the egress was stopped or replaced before this task owned it");
        control.close().await;
        return Ok(ServeOutcome::NotOurs);
    };

    let settings = settings_of(&ticket);
    let states = UploadStates::new(bus);
    let (checkpoint_writer, checkpoint_loop) =
        CheckpointWriter::start(states.clone(), names.egress_id.clone(), names.attempt);
    let (spare, lost) = (record.spare.clone(), record.lost.clone());
    let publisher = ReportPublisher {
        registry,
        io,
        egress_id: names.egress_id.clone(),
        attempt: names.attempt,
        record,
        redis_timeout: Duration::from_millis(settings.last_report_timeout_ms),
        timeout: Duration::from_millis(settings.report_timeout_ms),
        inbox: inbox.clone(),
    };
    // Subscribed before the first fact.
    let reports = reporter.reports();
    let session_tx = inbox.clone();
    let session = async {
        let destinations = match destinations_of(&ticket) {
            Ok(destinations) => destinations,
            Err(error) => return fail(&reporter, &error),
        };
        if task == RunnerTask::Salvage {
            // Its streams have ended.
            drop(updates);
            let root = match settings.root().context("find the working directory") {
                Ok(root) => root,
                Err(error) => return fail(&reporter, &error),
            };
            let checkpoint = take_over(&states, &names).await;
            let (egress_id, settings) = (names.egress_id.clone(), settings.upload.clone());
            let job = SalvageJob { egress_id, checkpoint, destinations, root, stores, settings, lost };
            return tokio::select! {
                () = salvage(job, &reporter) => SessionEnd::Reported,
                () = session::ownership_lost(events) => SessionEnd::OwnershipLost,
            };
        }
        let resources = UploadResources { destinations, stores, checkpoint_writer, settings: settings.upload.clone() };
        match job_of(&ticket, &settings, resources, bus.clock()) {
            Ok(job) => drive(job, &reporter, events, updates, session_tx).await,
            Err(error) => fail(&reporter, &error),
        }
    };
    let recorded = async {
        tokio::pin!(session);
        let reporting = publisher.run(reports);
        tokio::pin!(reporting);
        tokio::select! {
            ended = &mut session => match ended {
                SessionEnd::Reported => reporting.await,
                SessionEnd::OwnershipLost => Delivered::NotOurs,
            },
            // The media process may need a moment longer to exit.
            delivered = &mut reporting => {
                session.await;
                delivered
            }
        }
    };
    let delivered = tokio::select! {
        delivered = recorded => delivered,
        () = heartbeat.run(&reporter, inbox.clone()) => Delivered::Left,
        () = forward_signals(signals, inbox) => Delivered::Left,
        () = then_pending(checkpoint_loop) => Delivered::Left,
        () = log_migrations(migration) => Delivered::Left,
    };
    if matches!(delivered, Delivered::Acknowledged | Delivered::Left) {
        clean_up(&states, tickets, &names, &spare).await;
    }
    control.close().await;
    info!(?delivered, "done");
    Ok(ServeOutcome::Served(delivered))
}

/// Never returns, even when `work` has.
async fn then_pending(work: impl Future<Output = ()>) {
    work.await;
    std::future::pending().await
}

fn fail(reporter: &Reporter, error: &anyhow::Error) -> SessionEnd {
    reporter.report(Fact::Over(Outcome::Failed { code: Code::Internal, message: format!("{error:#}") }));
    SessionEnd::Reported
}

/// The checkpoint of the dead attempt; from here on that attempt can write none.
async fn take_over(states: &UploadStates, names: &Names) -> Option<Checkpoint> {
    let found = ticket::with_retries(|| states.get(&names.egress_id)).await;
    let (_, text) = found
        .inspect_err(|error| warn!(error = %spillway_process::chain(error), "state of the uploads not read"))
        .ok()??;
    if let Err(error) = ticket::with_retries(|| states.put(&names.egress_id, names.attempt, &text)).await {
        warn!(error = %spillway_process::chain(&error), "state of the uploads not taken over");
    }
    serde_json::from_slice(&text).inspect_err(|error| warn!(%error, "state of the uploads not understood")).ok()
}

/// The egress is over and reported: removes what a salvage would need. All of it has a TTL as well.
async fn clean_up(states: &UploadStates, tickets: &Tickets, names: &Names, spare: &str) {
    let removed = timeout(CLEAN_UP_TIMEOUT, async {
        states.close(&names.egress_id, names.attempt).await?;
        if !spare.is_empty() {
            tickets.withdraw(&names.egress_id, &ClaimToken::from_text(spare)).await?;
        }
        Ok::<_, spillway_bus::BusError>(())
    });
    if let Ok(Err(error)) = removed.await {
        warn!(error = %spillway_process::chain(&error), "state of the uploads not removed");
    }
}

pub(crate) fn destinations_of(ticket: &Ticket) -> anyhow::Result<Vec<Destinations>> {
    let Some(text) = &ticket.destinations else { return Ok(vec![]) };
    // The error goes into the EgressInfo.
    serde_json::from_str(text.reveal()).map_err(hide_value).context("read the destinations in the ticket")
}

/// Settings of a dispatcher of another version that cannot be read are no reason to lose a recording.
pub(crate) fn settings_of(ticket: &Ticket) -> Settings {
    let settings = match &ticket.runner {
        serde_json::Value::Null => Settings::default(),
        given => serde_json::from_value(given.clone()).unwrap_or_else(|error| {
            let error = hide_value(error);
            warn!(%error, "runner settings in the ticket not understood, defaults taken");
            Settings::default()
        }),
    };
    Settings { guard: guard_of(&ticket.runner), ..settings }
}

/// What the request may name, by the settings in a ticket. A dispatcher writes it always, if only that nothing is open; one
/// that does not is of a version without a guard, whose configured stores are not marked as such: while it is replaced its
/// recordings go on as they began.
pub(crate) fn guard_of(settings: &serde_json::Value) -> GuardRules {
    match settings.get("guard") {
        Some(given) => serde_json::from_value(given.clone()).unwrap_or_default(),
        None => GuardRules::unrestricted(),
    }
}

/// A plan that cannot be read has none; that is an error later, when the egress is ours.
fn can_be_updated(ticket: &Ticket) -> bool {
    let plan = serde_json::from_str::<EgressPlan>(ticket.plan_json.reveal());
    plan.is_ok_and(|plan| plan.streams().is_some_and(|(_, streams)| streams.can_be_updated()))
}

/// Their keys are in the request and not in the plan.
fn streams_of(ticket: &Ticket, plan: &EgressPlan) -> anyhow::Result<Vec<Secret>> {
    if plan.streams().is_none() {
        return Ok(vec![]);
    }
    let start =
        StartEgressRequest::decode(ticket.request.reveal().as_slice()).context("read the request in the ticket")?;
    Ok(spillway_plan::stream_urls(&start)?)
}

/// Its secrets are in the request and in the ticket, not in the plan.
fn page_url_of(ticket: &Ticket, plan: &EgressPlan, settings: &Settings) -> anyhow::Result<Option<Secret>> {
    let Some(page) = plan.page() else { return Ok(None) };
    let start =
        StartEgressRequest::decode(ticket.request.reveal().as_slice()).context("read the request in the ticket")?;
    let base = settings.template_base.as_deref();
    Ok(Some(spillway_plan::page_url(&start, page.kind, base, (&ticket.ws_url, &ticket.token))?))
}

fn job_of(
    ticket: &Ticket,
    settings: &Settings,
    resources: UploadResources,
    clock: &Clock,
) -> anyhow::Result<SessionJob> {
    let plan = serde_json::from_str::<EgressPlan>(ticket.plan_json.reveal()).map_err(hide_value);
    let plan = plan.context("read the plan in the ticket")?;
    let page_url = page_url_of(ticket, &plan, settings)?;
    Ok(SessionJob {
        streams: streams_of(ticket, &plan)?,
        ws_url: ticket.ws_url.clone(),
        token: ticket.token.clone(),
        media: settings.media_settings(page_url.as_ref()),
        page_url,
        program: settings.media_program.clone().map_or_else(media::program, Ok)?,
        root: settings.root().context("find the working directory")?,
        rules: settings.rules(&plan.limits),
        resources,
        plan,
        clock: clock.clone(),
    })
}

async fn forward_signals(mut signals: Signals, inbox: mpsc::Sender<SessionEvent>) {
    loop {
        let signal = signals.next().await;
        info!(
            signal = match signal {
                Signal::Term => "SIGTERM",
                Signal::Int => "SIGINT",
            },
            "asked to finish"
        );
        let _ = inbox.send(SessionEvent::StopAsked(StopSource::Signal)).await;
    }
}

/// Only logs: clients of Redis and of stores reconnect by themselves when a call is not answered, and the media process
/// rejoins the room.
async fn log_migrations(mut migration: MigrationSignals) {
    loop {
        match migration.next().await {
            MigrationSignal::Announced => info!("the platform will move this task to another machine; it goes on"),
            MigrationSignal::Completed => info!("moved to another machine"),
        }
    }
}

/// Makes one recording without a dispatcher and answers its final EgressInfo. Without Redis all times are those of the host.
///
/// # Errors
/// Signals cannot be listened to, or there is no working directory. Later errors are in the EgressInfo.
pub async fn serve_request(
    shot: OneShot,
    settings: &Settings,
    program: PathBuf,
    stores: Arc<dyn StoreFactory>,
) -> anyhow::Result<EgressInfo> {
    let signals = Signals::listen().context("listen for signals")?;
    let migration = MigrationSignals::listen().context("listen for signals")?;
    let span = info_span!("egress", egress_id = %shot.plan.egress_id, room = %shot.plan.room_name);
    let clock = Clock::host();
    let ledger = EgressLedger::accept(&shot.start, clock.unix_ns());
    let reporter = Reporter::new(ledger, Duration::from_secs(5), clock.clone());
    let (inbox, events) = mpsc::channel(INBOX_CAPACITY);
    let base = settings.template_base.as_deref();
    let page = shot.plan.page();
    let page_url = page
        .map(|page| spillway_plan::page_url(&shot.start, page.kind, base, (&shot.ws_url, &shot.token)))
        .transpose()?;
    let job = SessionJob {
        rules: settings.rules(&shot.plan.limits),
        root: settings.root().context("find the working directory")?,
        media: settings.media_settings(page_url.as_ref()),
        page_url,
        streams: spillway_plan::stream_urls(&shot.start)?,
        plan: shot.plan,
        ws_url: shot.ws_url,
        token: shot.token,
        program,
        clock,
        resources: UploadResources {
            destinations: shot.destinations,
            stores,
            checkpoint_writer: CheckpointWriter::disabled(),
            settings: settings.upload.clone(),
        },
    };
    let session_tx = inbox.clone();
    // There is no bus for calls to come from.
    let (_, updates) = mpsc::channel(1);
    async {
        tokio::select! {
            _ = drive(job, &reporter, events, updates, session_tx) => {}
            () = forward_signals(signals, inbox) => {}
            () = log_migrations(migration) => {}
        }
    }
    .instrument(span)
    .await;
    Ok(reporter.info())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn settings_without_a_guard_are_of_a_dispatcher_that_knows_none() {
        for older in [json!(null), json!({}), json!({ "media": {} })] {
            assert_eq!(guard_of(&older), GuardRules::unrestricted(), "{older}");
        }
        for closed in [json!({ "guard": {} }), json!({ "guard": { "allow": [] } }), json!({ "guard": "unreadable" })] {
            assert_eq!(guard_of(&closed), GuardRules::default(), "{closed}");
        }
        let open = json!({ "guard": { "allow": ["minio"] }, "of_a_newer_version": 1 });
        assert_eq!(guard_of(&open).allow, ["minio"]);
    }
}
