//! The launch of a probe: without a queue, a breaker or a slot, so every refusal is seen at once.

use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::time::Duration;

use spillway_launchers::{LaunchError, LaunchOrder, Launcher, TaskRef};
use spillway_protocol::ids::EgressId;
use tokio::time::{Instant, sleep, timeout};
use tracing::debug;

use crate::config::targets::{LauncherConfig, TargetConfig};

/// For a launch that the platform refuses for a moment; the longest call of a launcher is shorter.
const LAUNCH_TIMEOUT: Duration = Duration::from_secs(40);

/// A process of this machine writes to our standard error unless it has a folder for its log; the probe reads it there.
pub fn with_log(target: &TargetConfig, id: &EgressId) -> (TargetConfig, Option<PathBuf>) {
    let mut target = target.clone();
    let LauncherConfig::Process { log_dir, .. } = &mut target.launcher else { return (target, None) };
    if log_dir.is_some() {
        return (target, None);
    }
    let folder = std::env::temp_dir().join(format!("spillway-probe-{id}"));
    match std::fs::DirBuilder::new().mode(0o700).create(&folder) {
        Ok(()) => {
            *log_dir = Some(folder.clone());
            (target, Some(folder))
        }
        Err(error) => {
            debug!(%error, folder = %folder.display(), "no folder for the log of the probe");
            (target, None)
        }
    }
}

/// Launches, again where the platform says that it may help; without a target's queue behind it.
///
/// # Errors
/// The platform's refusal, or that it does not answer: then a task may have been started, which ends by itself.
pub async fn launch(launcher: &dyn Launcher, order: &LaunchOrder) -> Result<TaskRef, LaunchError> {
    let give_up = Instant::now() + LAUNCH_TIMEOUT;
    loop {
        let error = match timeout(LAUNCH_TIMEOUT, launcher.launch(order)).await {
            Ok(Ok(task)) => return Ok(task),
            Ok(Err(error)) => error,
            Err(_) => LaunchError::Transient { message: "the launcher does not answer".to_owned(), source: None },
        };
        let wait = match &error {
            LaunchError::Transient { .. } | LaunchError::ZoneCapacity { .. } => Duration::from_secs(1),
            LaunchError::Throttled { retry_after, .. } => retry_after.unwrap_or(Duration::from_secs(2)),
            LaunchError::Capacity { .. } | LaunchError::Quota { .. } | LaunchError::Misconfigured { .. } => {
                return Err(error);
            }
        };
        if Instant::now() + wait >= give_up {
            return Err(error);
        }
        sleep(wait).await;
    }
}
