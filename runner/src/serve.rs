//! Puts the runner together, for a dispatcher (`serve_task`) and alone (`serve_request`): connections, ownership, and the tasks
//! that run beside the session until its end is delivered. The steps of a recording are in `session`.

mod going_on;
mod job;
mod signals;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use spillway_bus::{
    Bus, ClaimToken, Heartbeats, IoClient, LiveStreams, RedisConfig, Registry, Ticket, TicketKey, Tickets,
    UploadStates, lifecycle,
};
use spillway_ipc::migration::MigrationSignals;
use spillway_process::Clock;
use spillway_process::retry::RetrySchedule;
use spillway_process::shutdown::Signals;
use spillway_protocol::Code;
use spillway_protocol::ledger::{EgressLedger, Fact, Outcome};
use spillway_protocol::livekit::EgressInfo;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tracing::{Instrument, info, info_span, warn};

use crate::config::Settings;
use crate::control::ControlServer;
use crate::events::{SessionEvent, StopSource};
use crate::heartbeat::HeartbeatTask;
use crate::oneshot::OneShot;
use crate::report::{Delivered, ReportPublisher, Reporter};
use crate::salvage::{SalvageJob, salvage};
use crate::session::machine::SessionRules;
use crate::session::{self, SessionEnd, SessionJob, drive};
use crate::ticket::{self, Names, RunnerTask};
use crate::upload::UploadResources;
use crate::upload::checkpoint::CheckpointWriter;
use crate::upload::stores::{self, StoreFactory};
use going_on::{go_on, keep_streams, take_over};
use job::{RequestedRecording, can_be_updated, job_of};
pub(crate) use job::{destinations_of, guard_of, settings_of};
use signals::{forward_signals, log_migrations};

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
/// Redis does not answer before the egress is owned, or its record is not readable; or it does not take the record with which
/// the recording is handed over to another task. Other errors are outcomes.
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
    let resumption = record.resumption.clone().filter(|_| record.is_resumption());
    let may_hand_over = lifecycle::can_be_resumed(&record);
    let is_stopped = record.stop_asked;
    let publisher = ReportPublisher {
        registry: registry.clone(),
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
    let (live_streams, streams_changed) = watch::channel(LiveStreams::default());
    let session = async {
        let destinations = match destinations_of(&ticket) {
            Ok(destinations) => destinations,
            Err(error) => return fail(&reporter, &error),
        };
        let root = match settings.root().context("find the working directory") {
            Ok(root) => root,
            Err(error) => return fail(&reporter, &error),
        };
        let mut left = SalvageJob {
            egress_id: names.egress_id.clone(),
            checkpoint: None,
            destinations: destinations.clone(),
            root,
            stores: stores.clone(),
            settings: settings.upload.clone(),
            lost,
            goes_on: resumption.is_some(),
        };
        if resumption.is_some() || task == RunnerTask::Salvage {
            left.checkpoint = take_over(&states, &names).await;
        }
        if resumption.is_none() && task == RunnerTask::Salvage {
            // Its streams have ended.
            drop(updates);
            return tokio::select! {
                () = salvage(left, &reporter) => SessionEnd::Reported,
                () = session::ownership_lost(events) => SessionEnd::OwnershipLost,
            };
        }
        let resources = UploadResources { destinations, stores, checkpoint_writer, settings: settings.upload.clone() };
        let job = match job_of(&ticket, &settings, resources, (bus.clock(), live_streams)) {
            Ok(job) => job,
            Err(error) => {
                let Some(resumption) = resumption else { return fail(&reporter, &error) };
                let lost = format!("{}; the recording could not go on: {error:#}", resumption.why);
                salvage(SalvageJob { lost, goes_on: false, ..left }, &reporter).await;
                return SessionEnd::Reported;
            }
        };
        let job = SessionJob { rules: SessionRules { hand_over: may_hand_over, ..job.rules }, ..job };
        if is_stopped {
            // Asked for while no task was there.
            let _ = session_tx.try_send(SessionEvent::StopAsked(StopSource::Api));
        }
        match resumption {
            None => drive(job, &reporter, events, updates, session_tx).await,
            Some(resumption) => go_on(job, left, resumption.why, &reporter, (events, updates, session_tx)).await,
        }
    };
    let recorded = async {
        tokio::pin!(session);
        let reporting = publisher.run(reports);
        tokio::pin!(reporting);
        tokio::select! {
            ended = &mut session => match ended {
                SessionEnd::Reported => reporting.await,
                SessionEnd::HandedOver(why) => {
                    publisher.hand_over(&reporter.newest(), why, bus.clock().unix_ms()).await
                }
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
        () = forward_signals(signals, inbox, Some((&registry, &names.egress_id))) => Delivered::Left,
        () = then_pending(checkpoint_loop) => Delivered::Left,
        () = then_pending(keep_streams(tickets, &names, &spare, streams_changed)) => Delivered::Left,
        () = log_migrations(migration) => Delivered::Left,
    };
    if matches!(delivered, Delivered::Acknowledged | Delivered::Left) {
        clean_up(&states, tickets, &names, &spare).await;
    }
    control.close().await;
    info!(?delivered, "done");
    // The dispatcher sees a task that has failed, and another one goes on.
    anyhow::ensure!(delivered != Delivered::NotHandedOver, "redis does not take what is handed over to another task");
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
    let OneShot { start, plan, destinations, ws_url, token } = shot;
    let resources = UploadResources {
        destinations,
        stores,
        checkpoint_writer: CheckpointWriter::disabled(),
        settings: settings.upload.clone(),
    };
    let request = RequestedRecording { start, plan, streams: None, ws_url, token };
    let live_streams = watch::Sender::new(LiveStreams::default());
    let job = request.job(settings, program, resources, (clock, live_streams))?;
    let session_tx = inbox.clone();
    // There is no bus for calls to come from.
    let (_, updates) = mpsc::channel(1);
    async {
        tokio::select! {
            _ = drive(job, &reporter, events, updates, session_tx) => {}
            () = forward_signals(signals, inbox, None) => {}
            () = log_migrations(migration) => {}
        }
    }
    .instrument(span)
    .await;
    Ok(reporter.info())
}
