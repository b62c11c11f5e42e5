//! Which target, and when: caps, pacing, breakers and the operator's switches, in the order of the configuration. Opens the
//! slot in Redis, in one atomic step with the caps; launches nothing.

use std::sync::Arc;
use std::time::Duration;

use spillway_bus::{BusError, CapReached, Caps, OpenTask, Pace, SlotResult, TaskKey};
use spillway_launchers::RunMode;
use tokio::time::Instant;

use crate::context::Context;
use crate::queue::{NO_ROOM_PAUSE, PauseScope, QueuedLaunch};
use crate::targets::Target;
use crate::task_facts::TaskFacts;

/// Where to launch.
pub(super) enum Placement {
    /// A slot is open there; the task may be launched after `wait`. `slowed`: the pace there is
    /// reduced, and a successful launch raises it.
    At { target: Arc<Target>, wait: Duration, slowed: bool },
    /// Not now.
    None { pause: Duration, scope: PauseScope, message: String },
    /// The only target that may know of its launch is no longer configured.
    Lost(String),
}

/// Opens a slot at the first target that has one.
///
/// # Errors
/// When Redis does not answer; a retry is right.
pub(super) async fn find(context: &Context, queued: &mut QueuedLaunch) -> Result<Placement, BusError> {
    let dispatch = &queued.dispatch;
    let now = Instant::now();
    if dispatch.asked {
        let Some(target) = context.targets.named(&dispatch.target) else {
            return Ok(Placement::Lost(dispatch.target.clone()));
        };
        return Ok(Placement::At { target, wait: Duration::ZERO, slowed: false });
    }
    let mut choice = context.targets.choose(&dispatch.shapes, &dispatch.tried, now);
    if choice.open.is_empty() && !dispatch.tried.is_empty() {
        queued.dispatch.tried.clear();
        choice = context.targets.choose(&queued.dispatch.shapes, &queued.dispatch.tried, now);
    }
    let mut later: Option<(Duration, String)> = None;
    let mut sooner = |wait: Duration, message: String| {
        if later.as_ref().is_none_or(|(before, _)| wait < *before) {
            later = Some((wait, message));
        }
    };
    for target in choice.open {
        match open(context, queued, &target, caps(context, queued, &target), target.pace).await? {
            SlotResult::Granted { wait, slowed } => return Ok(Placement::At { target, wait, slowed }),
            SlotResult::Refused(CapReached::All) => {
                let message = format!("all {} places are taken", context.config().max_tasks.unwrap_or_default());
                return Ok(Placement::None { pause: NO_ROOM_PAUSE, scope: PauseScope::All, message });
            }
            SlotResult::Refused(CapReached::Tenant) => {
                let message = format!("tenant {} has all its places taken", queued.tenant);
                return Ok(Placement::None { pause: NO_ROOM_PAUSE, scope: PauseScope::Tenant, message });
            }
            SlotResult::Refused(CapReached::Target) => sooner(NO_ROOM_PAUSE, format!("{} is full", target.name())),
            SlotResult::Later(wait) => {
                sooner(wait / 2, format!("{} takes no more launches for {} s", target.name(), wait.as_secs()));
            }
        }
    }
    if let Some((until, message)) = choice.closed {
        let pause = until.map_or(Duration::from_secs(1), |until| until.saturating_duration_since(now));
        sooner(pause.max(NO_ROOM_PAUSE), message);
    }
    let (pause, message) = later.unwrap_or_else(|| (Duration::from_secs(1), "no target takes launches".to_owned()));
    Ok(Placement::None { pause, scope: PauseScope::Launch, message })
}

fn caps(context: &Context, queued: &QueuedLaunch, target: &Target) -> Caps {
    let config = context.config();
    match queued.run_mode {
        RunMode::Record => Caps {
            all: config.max_tasks,
            tenant: config.tenants.rules(&queued.tenant).max_recordings,
            target: target.config.max_tasks,
        },
        // Recorded media is saved, whatever the caps say.
        RunMode::Salvage => Caps::default(),
    }
}

/// Opens the slot again, without caps: another dispatcher may have closed it.
///
/// # Errors
/// When Redis does not answer; a retry is right.
pub(super) async fn keep_open(context: &Context, queued: &QueuedLaunch, target: &Target) -> Result<(), BusError> {
    open(context, queued, target, Caps::default(), None).await.map(drop)
}

async fn open(
    context: &Context,
    queued: &QueuedLaunch,
    target: &Target,
    caps: Caps,
    pace: Option<Pace>,
) -> Result<SlotResult, BusError> {
    let key = TaskKey { egress_id: queued.egress_id.clone(), attempt: queued.next_attempt(target.name()) };
    let extra_s = context.overheads().extra_s(target.name());
    let facts = TaskFacts::of(queued, target, &context.config().prices, extra_s, context.clock.unix_ms()).text();
    let open_task = OpenTask { task: &key, tenant: &queued.tenant, target: target.name(), facts: &facts, caps, pace };
    context.tasks.open(open_task).await
}
