//! The two ways through the runner: for a dispatcher, and alone.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use spillway_bus::{
    Bus, ClaimToken, Heartbeats, IoClient, RedisConfig, Registry, Ticket, TicketKey, Tickets, UploadStates,
};
use spillway_plan::{Destinations, EgressPlan};
use spillway_process::Clock;
use spillway_process::retry::Schedule;
use spillway_process::stop::{Signal, Signals};
use spillway_protocol::Code;
use spillway_protocol::ledger::{Fact, Ledger, Outcome};
use spillway_protocol::livekit::EgressInfo;
use spillway_spool::moves::{Move, Moves};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::{Instrument, info, info_span, warn};

use crate::config::Settings;
use crate::control::Control;
use crate::life::Life;
use crate::oneshot::OneShot;
use crate::report::{Delivered, Desk, Reporter};
use crate::salvage::{Salvage, salvage};
use crate::session::machine::{Asker, Event};
use crate::session::{self, Ended, Job, drive, media};
use crate::ticket::{self, Names};
use crate::upload::Storing;
use crate::upload::checkpoint::{Keeper, Saved};
use crate::upload::stores::{self, Stores};

/// Stops and news for the session; a handful at most.
const INBOX: usize = 16;
const CONNECT_PATIENCE: Duration = Duration::from_secs(15);
const TIDY_PATIENCE: Duration = Duration::from_secs(3);

/// How it went for whoever started us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// Recorded or failed, and said so.
    Served(Delivered),
    /// Taken by somebody else, stopped or settled before it was ours.
    NotOurs,
}

/// What a dispatcher has started us for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Errand {
    Record,
    /// To finish the uploads of a task that died.
    Salvage,
}

/// One egress of a dispatcher.
pub async fn serve(names: Names, redis: &RedisConfig, key: TicketKey, errand: Errand) -> anyhow::Result<Done> {
    let span = info_span!("egress", egress_id = %names.egress_id);
    async {
        let bus = connect(redis).await.context("connect to redis")?;
        let tickets = Tickets::new(&bus, key);
        let Some(ticket) = ticket::take(&tickets, &names, errand).await.context("take the ticket")? else {
            info!("no ticket for us");
            return Ok(Done::NotOurs);
        };
        serve_ticket(&bus, &tickets, names, ticket, errand, Arc::new(stores::Real::default())).await
    }
    .instrument(span)
    .await
}

async fn connect(redis: &RedisConfig) -> Result<Bus, spillway_bus::BusError> {
    let give_up = tokio::time::Instant::now() + CONNECT_PATIENCE;
    let mut waits = Schedule::new(Duration::from_millis(100), Duration::from_secs(2));
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

/// The order of `spec/psrpc.md` 5.3: reachable first, then the owner, only then the room.
pub async fn serve_ticket(
    bus: &Bus,
    tickets: &Tickets,
    names: Names,
    ticket: Ticket,
    errand: Errand,
    stores: Arc<dyn Stores>,
) -> anyhow::Result<Done> {
    let signals = Signals::listen().context("listen for signals")?;
    let moves = Moves::listen().context("listen for signals")?;
    let registry = Registry::new(bus);
    let Some(before) = registry.get(&names.egress_id).await.context("read the record")? else {
        info!("no record of this egress");
        return Ok(Done::NotOurs);
    };
    let ledger: Ledger = serde_json::from_str(&before.ledger).context("read the ledger in the record")?;
    let reporter = Reporter::new(ledger, Duration::from_secs(60), bus.clock().clone());
    let (inbox, events) = mpsc::channel(INBOX);
    let control = Control::open(bus, &names.egress_id, inbox.clone(), reporter.reports())
        .await
        .context("subscribe to our topic")?;
    let io = IoClient::new(bus);
    io.listen().await.context("subscribe to answers")?;
    let life = Life {
        heartbeats: Heartbeats::new(bus),
        registry: registry.clone(),
        egress_id: names.egress_id.clone(),
        attempt: names.attempt,
    };
    life.beat(&reporter.beat()).await.context("first sign of life")?;
    let Some(record) = ticket::own(&registry, &names).await.context("become the owner")? else {
        info!("egress was stopped or replaced before we were there");
        control.close().await;
        return Ok(Done::NotOurs);
    };

    let settings = settings_of(&ticket);
    let states = UploadStates::new(bus);
    let (keeper, keeping) = Keeper::on(states.clone(), names.egress_id.clone(), names.attempt);
    let (spare, lost) = (record.spare.clone(), record.lost.clone());
    let desk = Desk {
        registry,
        io,
        egress_id: names.egress_id.clone(),
        attempt: names.attempt,
        record,
        redis_timeout: Duration::from_millis(settings.last_report_timeout_ms),
        patience: Duration::from_millis(settings.report_patience_ms),
        inbox: inbox.clone(),
    };
    // Subscribed before anything can be told.
    let reports = reporter.reports();
    let news = inbox.clone();
    let session = async {
        let destinations = match destinations_of(&ticket) {
            Ok(destinations) => destinations,
            Err(error) => return fail(&reporter, &error),
        };
        if errand == Errand::Salvage {
            let saved = take_over(&states, &names).await;
            let egress_id = names.egress_id.clone();
            let job = Salvage { egress_id, saved, destinations, stores, settings: settings.upload.clone(), lost };
            return tokio::select! {
                () = salvage(job, &reporter) => Ended::Told,
                () = session::disowned(events) => Ended::Disowned,
            };
        }
        let storing = Storing { destinations, stores, keeper, settings: settings.upload.clone() };
        match job_of(&ticket, &settings, storing, bus.clock()) {
            Ok(job) => drive(job, &reporter, events, news).await,
            Err(error) => fail(&reporter, &error),
        }
    };
    let recorded = async {
        tokio::pin!(session);
        let reporting = desk.run(reports);
        tokio::pin!(reporting);
        tokio::select! {
            ended = &mut session => match ended {
                Ended::Told => reporting.await,
                Ended::Disowned => Delivered::NotOurs,
            },
            // The media process may need a moment longer to leave.
            delivered = &mut reporting => {
                session.await;
                delivered
            }
        }
    };
    let delivered = tokio::select! {
        delivered = recorded => delivered,
        () = life.run(&reporter, inbox.clone()) => Delivered::Left,
        () = obey_signals(signals, inbox) => Delivered::Left,
        () = beside(keeping) => Delivered::Left,
        () = go_along(moves) => Delivered::Left,
    };
    if matches!(delivered, Delivered::Acknowledged | Delivered::Left) {
        tidy(&states, tickets, &names, &spare).await;
    }
    control.close().await;
    info!(?delivered, "done");
    Ok(Done::Served(delivered))
}

/// Until it is dropped, even when its own work is over.
async fn beside(work: impl Future<Output = ()>) {
    work.await;
    std::future::pending().await
}

fn fail(reporter: &Reporter, error: &anyhow::Error) -> Ended {
    reporter.tell(Fact::Over(Outcome::Failed { code: Code::Internal, words: format!("{error:#}") }));
    Ended::Told
}

/// What the dead run has kept; from here on it can keep nothing more.
async fn take_over(states: &UploadStates, names: &Names) -> Option<Saved> {
    let found = ticket::patiently(|| states.get(&names.egress_id)).await;
    let (_, text) = found
        .inspect_err(|error| warn!(error = %spillway_process::chain(error), "state of the uploads not read"))
        .ok()??;
    if let Err(error) = ticket::patiently(|| states.put(&names.egress_id, names.attempt, &text)).await {
        warn!(error = %spillway_process::chain(&error), "state of the uploads not taken over");
    }
    serde_json::from_slice(&text).inspect_err(|error| warn!(%error, "state of the uploads not understood")).ok()
}

/// The egress is over and said to be: nothing is left for others. All of it goes by itself in time.
async fn tidy(states: &UploadStates, tickets: &Tickets, names: &Names, spare: &str) {
    let removed = timeout(TIDY_PATIENCE, async {
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

fn destinations_of(ticket: &Ticket) -> anyhow::Result<Vec<Destinations>> {
    let Some(text) = &ticket.destinations else { return Ok(vec![]) };
    serde_json::from_str(text.reveal()).context("read the destinations in the ticket")
}

/// What a dispatcher of another version sends is no reason to lose a recording.
fn settings_of(ticket: &Ticket) -> Settings {
    if ticket.runner.is_null() {
        return Settings::default();
    }
    serde_json::from_value(ticket.runner.clone()).unwrap_or_else(|error| {
        warn!(%error, "runner settings in the ticket not understood, defaults taken");
        Settings::default()
    })
}

fn job_of(ticket: &Ticket, settings: &Settings, storing: Storing, clock: &Clock) -> anyhow::Result<Job> {
    let plan: EgressPlan = serde_json::from_str(ticket.plan_json.reveal()).context("read the plan in the ticket")?;
    Ok(Job {
        ws_url: ticket.ws_url.clone(),
        token: ticket.token.clone(),
        media: settings.media.clone(),
        program: settings.media_program.clone().map_or_else(media::program, Ok)?,
        root: settings.root().context("find the working directory")?,
        rules: settings.rules(&plan.limits),
        storing,
        plan,
        clock: clock.clone(),
    })
}

async fn obey_signals(mut signals: Signals, inbox: mpsc::Sender<Event>) {
    loop {
        let signal = signals.next().await;
        info!(
            signal = match signal {
                Signal::Term => "SIGTERM",
                Signal::Int => "SIGINT",
            },
            "asked to finish"
        );
        let _ = inbox.send(Event::StopAsked(Asker::Signal)).await;
    }
}

/// To another machine and on. Redis and the storages mend their connections by themselves when a call is not answered;
/// the media process sees to the room.
async fn go_along(mut moves: Moves) {
    loop {
        match moves.next().await {
            Move::Ahead => info!("the platform will move this task to another machine; it goes on"),
            Move::Over => info!("moved to another machine"),
        }
    }
}

/// One recording without a dispatcher; what became of it. Without Redis the host's clock is the one that counts.
pub async fn alone(
    shot: OneShot,
    settings: &Settings,
    program: PathBuf,
    stores: Arc<dyn Stores>,
) -> anyhow::Result<EgressInfo> {
    let signals = Signals::listen().context("listen for signals")?;
    let moves = Moves::listen().context("listen for signals")?;
    let span = info_span!("egress", egress_id = %shot.plan.egress_id, room = %shot.plan.room_name);
    let clock = Clock::host();
    let ledger = Ledger::accept(&shot.start, clock.unix_ns());
    let reporter = Reporter::new(ledger, Duration::from_secs(5), clock.clone());
    let (inbox, events) = mpsc::channel(INBOX);
    let job = Job {
        rules: settings.rules(&shot.plan.limits),
        root: settings.root().context("find the working directory")?,
        media: settings.media.clone(),
        plan: shot.plan,
        ws_url: shot.ws_url,
        token: shot.token,
        program,
        clock,
        storing: Storing {
            destinations: shot.destinations,
            stores,
            keeper: Keeper::nowhere(),
            settings: settings.upload.clone(),
        },
    };
    let news = inbox.clone();
    async {
        tokio::select! {
            _ = drive(job, &reporter, events, news) => {}
            () = obey_signals(signals, inbox) => {}
            () = go_along(moves) => {}
        }
    }
    .instrument(span)
    .await;
    Ok(reporter.info())
}
