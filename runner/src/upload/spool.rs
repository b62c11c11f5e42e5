//! Spool files of uploads as entries of a folder: `SPOOL/EGRESS/NUMBER.EXTENSION`. Their content is the business of
//! `spillway_ipc`. Everything but [`path`] asks the disk.

use std::io;
use std::path::{Path, PathBuf};

use spillway_plan::{Container, EgressPlan};
use tokio::task::spawn_blocking;
use tracing::warn;

use super::settings::UploadSettings;

/// Where file `file` of an egress lies while it is uploaded.
pub(super) fn path(settings: &UploadSettings, plan: &EgressPlan, file: u32, container: Container) -> PathBuf {
    settings.spool().join(&plan.egress_id).join(format!("{file}{}", container.extension()))
}

/// Free bytes of the disk that `path` is on; all there are where it does not answer. Blocks.
pub(crate) fn free_bytes(path: &Path) -> u64 {
    rustix::fs::statvfs(path).map_or(u64::MAX, |disk| disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// Removes a spool file that is not needed any more, and its folder if that is empty then. A failure is logged.
pub(crate) async fn remove(path: &Path) {
    let spooled = path.to_owned();
    if let Ok(Err(error)) = spawn_blocking(move || remove_now(&spooled)).await {
        warn!(%error, path = %path.display(), "spool not removed");
    }
}

fn remove_now(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    if let Some(folder) = path.parent() {
        let _ = std::fs::remove_dir(folder);
    }
    Ok(())
}
