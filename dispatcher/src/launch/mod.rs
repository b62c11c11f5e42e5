//! From accepted to launched: waits for its turn and a place, asks a target, minds what it answers.

mod placement;
mod steps;

use std::sync::Arc;
use std::time::Duration;

use spillway_bus::{ClaimToken, Phase, Record};
use spillway_launchers::RunMode;
use spillway_process::chain;
use spillway_protocol::code::Code;
use tokio::time::Instant;
use tracing::{Instrument, debug, info_span, warn};

use self::steps::Launch;
pub(crate) use self::steps::note_task;
use crate::admission::Bounds;
use crate::config::{Config, LauncherConfig};
use crate::context::{Context, Dispatch};
use crate::queue::{QueueStep, QueuedLaunch};
use crate::reconcile::final_state;

/// A ticket outlives the longest way to its runner by this.
const TICKET_MARGIN: Duration = Duration::from_secs(60);

/// A place for one who saves what is recorded: no cloud is full, nor a mistake in its settings unseen, for much longer.
/// Until then its egress is not over.
pub(crate) const SALVAGE_TIMEOUT: Duration = Duration::from_secs(3600);

pub fn bounds_of(config: &Config) -> Bounds {
    let host =
        || std::thread::available_parallelism().map_or(1.0, |cores| f64::from(u32::try_from(cores.get()).unwrap_or(1)));
    // Where some go elsewhere, this machine is a target like others, with its `max_tasks`.
    let all_here = config.targets.iter().all(|target| matches!(target.launcher, LauncherConfig::Process { .. }));
    let cores = if all_here { Some(config.cores.unwrap_or_else(host)) } else { config.cores };
    Bounds { cores, tasks: config.max_recordings, queue: config.queue }
}

pub fn ticket_ttl(config: &Config) -> Duration {
    let slowest = config.targets.iter().filter_map(|target| target.start_deadline).max().unwrap_or_default();
    config.queue_deadline + config.start_deadline.max(slowest) + TICKET_MARGIN
}

/// Of a run that saves what another had recorded: it waits for its place as long as that is worth something.
pub fn salvage_ticket_ttl(config: &Config) -> Duration {
    ticket_ttl(config) + SALVAGE_TIMEOUT
}

/// The runner's settings, as the ticket carries them.
pub fn runner_settings(config: &Config) -> serde_json::Value {
    let mut settings = config.runner.clone();
    if let (Some(settings), Some(root)) = (settings.as_object_mut(), &config.local_root) {
        settings.insert("local_root".to_owned(), serde_json::json!(root));
    }
    settings
}

/// Into the line, from what the record says; for one we accepted and for one we took over.
pub fn enqueue(context: &Context, record: &Record) {
    let dispatch = Dispatch::of(record);
    let left_ms = dispatch.deadline_ms.saturating_sub(context.clock.unix_ms());
    let now = Instant::now();
    let queued = QueuedLaunch {
        egress_id: record.egress_id.clone(),
        attempt: record.attempt,
        run_mode: if record.lost.is_empty() { RunMode::Record } else { RunMode::Salvage },
        weight: dispatch.weight,
        tenant: dispatch.tenant.as_str().into(),
        dispatch,
        enqueued_at: now,
        deadline: now + Duration::from_millis(u64::try_from(left_ms).unwrap_or(0)),
        not_before: None,
        message: String::new(),
    };
    if context.queue().enqueue(queued) {
        context.queue_changed.notify_one();
    }
}

/// Until the dispatcher stops.
pub async fn run(context: Arc<Context>) {
    loop {
        let step = context.queue().next(Instant::now());
        match step {
            QueueStep::Launch(sequence, queued) => {
                let span = info_span!("egress", egress_id = %queued.egress_id);
                let launch = Launch { context: Arc::clone(&context), sequence, queued: *queued };
                context.spawn(launch.run().instrument(span));
            }
            QueueStep::GiveUp(queued) => {
                let context = Arc::clone(&context);
                context.clone().spawn(async move { give_up(&context, &queued).await });
            }
            QueueStep::Wait(until) => {
                let rest = async {
                    match until {
                        Some(until) => tokio::time::sleep_until(until).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    () = rest => {}
                    () = context.queue_changed.notified() => {}
                    () = context.shutdown.triggered() => return,
                }
            }
        }
    }
}

async fn give_up(context: &Arc<Context>, queued: &QueuedLaunch) {
    let waited = match queued.run_mode {
        RunMode::Record => context.config().queue_deadline.as_secs(),
        RunMode::Salvage => SALVAGE_TIMEOUT.as_secs(),
    };
    let message = match queued.message.as_str() {
        "" => format!("no place became free within {waited} s"),
        why => format!("not started within {waited} s: {why}"),
    };
    withdraw(context, queued).await;
    context.metrics.count("spillway_given_up_total", &[], 1.0);
    fail(context, queued, Code::ResourceExhausted, message).await;
}

/// Unless it has started after all, or somebody else has moved it on.
async fn fail(context: &Arc<Context>, queued: &QueuedLaunch, code: Code, message: String) {
    let attempt = queued.attempt;
    let may = |record: &Record| record.attempt == attempt && matches!(record.phase, Phase::Accepted | Phase::Launching);
    if let Err(error) = final_state::failed(context, &queued.egress_id, code, message, may).await {
        // Whoever finds it in the registry comes to a verdict of his own.
        warn!(error = %chain(&error), "egress not settled");
    }
}

async fn withdraw(context: &Context, queued: &QueuedLaunch) {
    let claim = ClaimToken::from_text(&queued.dispatch.claim);
    if let Err(error) = context.tickets.withdraw(&queued.egress_id, &claim).await {
        debug!(error = %chain(&error), "ticket not withdrawn; its time will run out");
    }
}
