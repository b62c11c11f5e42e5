//! A StartEgress and the state of the dispatcher → a slot, a position in the queue, or a refusal. Pure, except for
//! `destination`, which tries the disk, and `hosts`, which resolves the hosts of webhooks.

pub mod destination;
pub mod hosts;

use spillway_protocol::code::{Code, RpcError};

use crate::config::Config;
use crate::config::targets::LauncherConfig;

/// How full the dispatcher is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct QueueLoad {
    /// Weight of what runs or is being started.
    pub running: f64,
    /// Tasks that run or are being started.
    pub tasks: usize,
    /// Launches that wait.
    pub queued: usize,
}

/// How full it may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    /// Cores for recordings; `None`: the platforms have their own bounds.
    pub cores: Option<f64>,
    /// Recordings at once, whatever their weight; `None`: no cap.
    pub tasks: Option<usize>,
    /// Launches that may wait.
    pub queue: usize,
}

impl Bounds {
    /// As configured; the cores of this host where nothing is configured and every recording runs on it.
    pub fn of(config: &Config) -> Self {
        let host = || {
            std::thread::available_parallelism().map_or(1.0, |cores| f64::from(u32::try_from(cores.get()).unwrap_or(1)))
        };
        // Beside a cloud, this machine is a target like others, bounded by its `max_tasks`.
        let all_here = config.targets.iter().all(|target| matches!(target.launcher, LauncherConfig::Process { .. }));
        let cores = if all_here { Some(config.cores.unwrap_or_else(host)) } else { config.cores };
        Self { cores, tasks: config.max_recordings, queue: config.queue }
    }
}

/// An accepted request.
#[derive(Clone, Debug, PartialEq)]
pub enum Admission {
    /// A slot is free.
    Now,
    /// It waits for one.
    Queued {
        /// For `details` of EgressInfo.
        message: String,
    },
}

/// A recording of this weight may be launched. One that is too heavy for an empty host is launched too: it lags, but
/// loses no frames.
pub fn fits(weight: f64, load: QueueLoad, bounds: Bounds) -> bool {
    load.tasks == 0
        || (bounds.cores.is_none_or(|cores| load.running + weight <= cores + 1e-9)
            && bounds.tasks.is_none_or(|tasks| load.tasks < tasks))
}

/// Nothing fits and the queue is at its bound.
pub fn is_full(load: QueueLoad, bounds: Bounds) -> bool {
    load.queued >= bounds.queue && !fits(0.0, load, bounds)
}

/// Slot or queue.
///
/// # Errors
/// RESOURCE_EXHAUSTED when the queue is at its bound; livekit-server may try again later.
pub fn admit(weight: f64, load: QueueLoad, bounds: Bounds) -> Result<Admission, RpcError> {
    if load.queued == 0 && fits(weight, load, bounds) {
        return Ok(Admission::Now);
    }
    let occupied = match (bounds.tasks, bounds.cores) {
        (Some(tasks), _) if load.tasks >= tasks => format!("{} of {tasks} recordings running", load.tasks),
        (_, Some(cores)) => format!("{} recordings take {:.1} of {cores:.1} cores", load.tasks, load.running),
        _ => format!("{} recordings are being started", load.tasks),
    };
    if load.queued >= bounds.queue {
        let message = format!("no slot for another recording: {occupied}, {} waiting", load.queued);
        return Err(RpcError::new(Code::ResourceExhausted, message));
    }
    Ok(Admission::Queued { message: format!("waiting for a slot: {occupied}, {} before this one", load.queued) })
}

/// The tenant's bound on waiting requests.
///
/// # Errors
/// RESOURCE_EXHAUSTED when the tenant is at its bound; a retry later is right.
pub fn tenant(tenant: &str, queued: usize, max: Option<usize>) -> Result<(), RpcError> {
    match max {
        Some(max) if queued >= max => {
            let message = format!("tenant {tenant} has {queued} recordings waiting, of at most {max}");
            Err(RpcError::new(Code::ResourceExhausted, message))
        }
        _ => Ok(()),
    }
}

/// The tenant's budget of the month, in dollars. Running tasks are not counted yet, so the budget is exceeded by what
/// was running when it was used up.
///
/// # Errors
/// RESOURCE_EXHAUSTED once the budget is used up; not worth a retry before the next month.
pub fn budget(tenant: &str, month: &str, spent: f64, budget: f64) -> Result<(), RpcError> {
    if spent < budget {
        return Ok(());
    }
    let whose = if tenant.is_empty() { String::new() } else { format!(" of tenant {tenant}") };
    let message = format!("budget{whose} for {month} is used up: {spent:.2} of {budget:.2} dollars");
    Err(RpcError::new(Code::ResourceExhausted, message))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOST: Bounds = Bounds { cores: Some(2.0), tasks: None, queue: 2 };

    #[test]
    fn what_fits_goes_at_once_what_does_not_waits_and_then_is_refused_with_the_reason() {
        let load = |running, tasks, queued| QueueLoad { running, tasks, queued };
        assert_eq!(admit(0.7, load(1.3, 2, 0), HOST), Ok(Admission::Now));
        let Ok(Admission::Queued { message }) = admit(0.8, load(1.3, 2, 0), HOST) else { panic!("queued") };
        assert_eq!(message, "waiting for a slot: 2 recordings take 1.3 of 2.0 cores, 0 before this one");
        let refusal = admit(0.8, load(1.3, 2, 2), HOST).unwrap_err();
        assert_eq!(refusal.code, Code::ResourceExhausted);
        assert_eq!(refusal.message, "no slot for another recording: 2 recordings take 1.3 of 2.0 cores, 2 waiting");
    }

    #[test]
    fn nobody_overtakes_the_queue() {
        assert!(matches!(
            admit(0.1, QueueLoad { running: 0.5, tasks: 1, queued: 1 }, HOST),
            Ok(Admission::Queued { .. })
        ));
    }

    #[test]
    fn an_empty_host_takes_what_is_too_heavy_for_it() {
        assert_eq!(admit(9.0, QueueLoad::default(), HOST), Ok(Admission::Now));
    }

    proptest! {
        #[test]
        fn a_full_dispatcher_refuses_and_one_that_is_not_full_does_not(
            running in 0.0..4.0f64, tasks in 0usize..8, queued in 0usize..8, max in 1usize..8, weight in 0.01..2.0f64,
        ) {
            let bounds = Bounds { cores: Some(2.0), tasks: Some(max), queue: 4 };
            let load = QueueLoad { running, tasks, queued };
            let answer = admit(weight, load, bounds);
            if is_full(load, bounds) {
                prop_assert!(answer.is_err());
            }
            if queued < bounds.queue {
                prop_assert!(answer.is_ok());
            }
        }
    }
}
