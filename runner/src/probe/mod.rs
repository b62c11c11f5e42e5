//! `--probe`: instead of recording, checks what a recording would need from where it would run, and reports each check as a
//! line through Redis. What that takes comes first; where it fails, one line on standard error and the exit status say so.
//!
//! `names`, `server`, `store`, `identity` and `machine` are the checks: they run at once, each for a bounded time, and change
//! nothing but one object that is removed again. `report` is where their lines go.

mod names;
mod server;
mod store;
mod identity;
mod machine;
mod report;

use std::time::Duration;

use spillway_bus::{
    Bus, BusError, ProbeCause, ProbeLine, ProbeOrder, RedisConfig, RedisFacts, Ticket, TicketKey, Tickets,
};
use spillway_process::chain;
use spillway_process::retry::RetrySchedule;
use tokio::time::{Instant, sleep, timeout};

use self::report::ReportWriter;
pub use self::report::log_line;
use crate::serve::{destinations_of, guard_of, settings_of};
use crate::ticket::{self, Names, RunnerTask};
use crate::upload::stores::DefaultStoreFactory;

/// A name may not resolve yet while a container starts, and a network may need a moment.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Of one check. That of the media process is bounded by itself, and longer.
const CHECK_TIMEOUT: Duration = Duration::from_secs(20);
/// Of the media process' check: four attempts to join, and then a media connection.
const MEDIA_TIMEOUT: Duration = Duration::from_secs(45);

/// Checks everything; the lines are in Redis when it returns. `Some`: they are not, and this is why.
pub async fn run(names: &Names, redis: &RedisConfig, key: TicketKey) -> Option<ProbeLine> {
    let began = Instant::now();
    let bus = match connect(redis).await {
        Ok(bus) => bus,
        Err(error) => return Some(refused("redis", &error)),
    };
    let connected = began.elapsed();
    let taken = match ticket::take(&Tickets::new(&bus, key), names, RunnerTask::Probe).await {
        Ok(taken) => taken,
        Err(error) => return Some(refused("ticket", &error)),
    };
    let Some((ticket, order)) = taken.and_then(|ticket| ticket.probe.clone().map(|order| (ticket, order))) else {
        let message = "the ticket of this probe is not in this Redis, or it was taken before";
        return Some(ProbeLine::failed("ticket", ProbeCause::AnotherRedis, message));
    };
    let writer = ReportWriter::new(&bus, names.egress_id.clone());
    writer.add(redis_line(&bus, redis).await.took(connected)).await;
    writer.add(machine::clock(bus.clock().ahead_of_host_ns())).await;
    check_all(&writer, redis, &ticket, &order).await;
    match writer.finish().await {
        Ok(()) => None,
        Err(error) => Some(refused("report", &error)),
    }
}

async fn check_all(writer: &ReportWriter, redis: &RedisConfig, ticket: &Ticket, order: &ProbeOrder) {
    let settings = settings_of(ticket);
    let destinations = match destinations_of(ticket) {
        Ok(destinations) => destinations,
        Err(error) => {
            writer.add(ProbeLine::failed("store", ProbeCause::StoreRefuses, format!("{error:#}"))).await;
            Vec::new()
        }
    };
    let environment = |name: &str| std::env::var(name).ok();
    let stores = DefaultStoreFactory::new(&guard_of(&ticket.runner), environment);
    let hosts = names::hosts(redis, &ticket.ws_url, &destinations);
    let places = store::places(&destinations);
    let needs_identity = places.iter().any(|place| place.needs_identity());
    let dns = names::check(&hosts);
    let server = server::check(ticket, &settings);
    let storage = store::check(&places, &stores, &order.object);
    let identity = identity::check(order.platform, needs_identity);
    let machine = machine::check(&settings, order, places.is_empty());
    tokio::join!(
        writer.add_all("dns", ProbeCause::NameServerSilent, CHECK_TIMEOUT, dns),
        writer.add_all("livekit-server", ProbeCause::ServerUnreachable, MEDIA_TIMEOUT, server),
        writer.add_all("store", ProbeCause::StoreUnreachable, CHECK_TIMEOUT, storage),
        writer.add_all("identity", ProbeCause::IdentityMissing, CHECK_TIMEOUT, identity),
        writer.add_all("machine", ProbeCause::SpoolUnusable, CHECK_TIMEOUT, machine),
    );
}

/// Every error is tried again but those that are answers.
async fn connect(redis: &RedisConfig) -> Result<Bus, BusError> {
    let give_up = Instant::now() + CONNECT_TIMEOUT;
    let mut waits = RetrySchedule::new(Duration::from_millis(100), Duration::from_secs(1));
    loop {
        let error = match Bus::connect(redis).await {
            Ok(bus) => return Ok(bus),
            Err(error) => error,
        };
        let is_answer = matches!(error.probe_cause(), ProbeCause::RedisLogin | ProbeCause::RedisTls);
        if is_answer || !error.is_transient() || Instant::now() >= give_up {
            return Err(error);
        }
        sleep(waits.wait()).await;
    }
}

fn refused(check: &str, error: &BusError) -> ProbeLine {
    ProbeLine::failed(check, error.probe_cause(), chain(error).to_string())
}

/// The ticket was taken, so it takes writes.
async fn redis_line(bus: &Bus, redis: &RedisConfig) -> ProbeLine {
    let transport = if redis.tls_enabled() { "TLS" } else { "no TLS" };
    let user = match (redis.username.as_str(), redis.password.reveal().is_empty()) {
        ("", true) => "no login".to_owned(),
        ("", false) => "a password".to_owned(),
        (user, _) => format!("user {user}"),
    };
    let facts = match timeout(CHECK_TIMEOUT, RedisFacts::of(bus)).await {
        Ok(Ok(facts)) => facts,
        Ok(Err(error)) => {
            let message = format!("writable, {transport}, {user}; it does not tell its version: {}", chain(&error));
            return ProbeLine::noted("redis", message);
        }
        Err(_) => return ProbeLine::failed("redis", ProbeCause::RedisUnreachable, "it stopped answering"),
    };
    let (version, usage) = (format!("version {}", facts.version), format!("writable, {transport}, {user}"));
    let parts = [&version, &facts.role, &facts.eviction_policy, &usage];
    let message = parts.into_iter().filter(|part| !part.is_empty()).cloned().collect::<Vec<_>>().join(", ");
    match facts.cause() {
        None => ProbeLine::passed("redis", message),
        Some(cause @ ProbeCause::RedisEviction) => ProbeLine::warned("redis", cause, message),
        Some(cause) => ProbeLine::failed("redis", cause, message),
    }
}
