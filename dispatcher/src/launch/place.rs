//! Which target, and when: caps, turns, breakers and the operator's word, in the order of the configuration.

use std::sync::Arc;
use std::time::Duration;

use spillway_bus::{BusError, Caps, Full, Opening, Pace, Seated, TaskKey};
use spillway_launchers::Errand;
use tokio::time::Instant;

use super::line::{Holds, NO_ROOM_PAUSE, Waiting};
use crate::account::facts::Facts;
use crate::house::House;
use crate::targets::Target;

pub(super) enum Place {
    /// A task is open there; it may be launched after `wait`.
    At { target: Arc<Target>, wait: Duration, slowed: bool },
    /// Not now.
    None { pause: Duration, holds: Holds, words: String },
    /// The only target that may know of its launch is no longer configured.
    Lost(String),
}

/// The next launch needs a number of its own: a platform may remember the one before, and so may another dispatcher.
pub(super) fn is_fresh(waiting: &Waiting, target: &Target) -> bool {
    let dispatch = &waiting.dispatch;
    dispatch.fresh || (!dispatch.target.is_empty() && dispatch.target != target.name())
}

/// The attempt that the next launch of `waiting` has there.
pub(super) fn attempt(waiting: &Waiting, target: &Target) -> u32 {
    waiting.attempt + u32::from(is_fresh(waiting, target))
}

pub(super) async fn find(house: &House, waiting: &mut Waiting) -> Result<Place, BusError> {
    let dispatch = &waiting.dispatch;
    let now = Instant::now();
    if dispatch.asked {
        let Some(target) = house.targets.named(&dispatch.target) else {
            return Ok(Place::Lost(dispatch.target.clone()));
        };
        return Ok(Place::At { target, wait: Duration::ZERO, slowed: false });
    }
    let mut choice = house.targets.choose(&dispatch.shapes, &dispatch.tried, now);
    if choice.open.is_empty() && !dispatch.tried.is_empty() {
        waiting.dispatch.tried.clear();
        choice = house.targets.choose(&waiting.dispatch.shapes, &waiting.dispatch.tried, now);
    }
    let mut later: Option<(Duration, String)> = None;
    let mut sooner = |wait: Duration, words: String| {
        if later.as_ref().is_none_or(|(before, _)| wait < *before) {
            later = Some((wait, words));
        }
    };
    for target in choice.open {
        match open(house, waiting, &target, caps(house, waiting, &target), target.pace).await? {
            Seated::Yes { wait, slowed } => return Ok(Place::At { target, wait, slowed }),
            Seated::No(Full::All) => {
                let words = format!("all {} places are taken", house.config().most_tasks.unwrap_or_default());
                return Ok(Place::None { pause: NO_ROOM_PAUSE, holds: Holds::Everybody, words });
            }
            Seated::No(Full::Tenant) => {
                let words = format!("tenant {} has all its places taken", waiting.tenant);
                return Ok(Place::None { pause: NO_ROOM_PAUSE, holds: Holds::Tenant, words });
            }
            Seated::No(Full::Target) => sooner(NO_ROOM_PAUSE, format!("{} is full", target.name())),
            Seated::Later(wait) => {
                sooner(wait / 2, format!("{} takes no more launches for {} s", target.name(), wait.as_secs()));
            }
        }
    }
    if let Some((until, words)) = choice.closed {
        let pause = until.map_or(Duration::from_secs(1), |until| until.saturating_duration_since(now));
        sooner(pause.max(NO_ROOM_PAUSE), words);
    }
    let (pause, words) = later.unwrap_or_else(|| (Duration::from_secs(1), "no target takes launches".to_owned()));
    Ok(Place::None { pause, holds: Holds::Himself, words })
}

fn caps(house: &House, waiting: &Waiting, target: &Target) -> Caps {
    let config = house.config();
    match waiting.errand {
        Errand::Record => Caps {
            all: config.most_tasks,
            tenant: config.tenants.rules(&waiting.tenant).most_recordings,
            target: target.config.most_tasks,
        },
        // What is recorded is saved, whatever the caps say.
        Errand::Salvage => Caps::default(),
    }
}

/// A task that was asked for before has had its turn; but a dispatcher that died may have thought its place over already.
pub(super) async fn keep_open(house: &House, waiting: &Waiting, target: &Target) -> Result<(), BusError> {
    open(house, waiting, target, Caps::default(), None).await.map(drop)
}

async fn open(
    house: &House,
    waiting: &Waiting,
    target: &Target,
    caps: Caps,
    pace: Option<Pace>,
) -> Result<Seated, BusError> {
    let key = TaskKey { egress_id: waiting.egress_id.clone(), attempt: attempt(waiting, target) };
    let facts = Facts::of(house, waiting, target).text();
    let opening = Opening { task: &key, tenant: &waiting.tenant, target: target.name(), facts: &facts, caps, pace };
    house.tasks.open(opening).await
}
