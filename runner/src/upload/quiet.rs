//! Whether something still writes to files of a spool: a media process that has lost its runner writes what it has and
//! leaves. Asks the disk.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

/// One that encodes writes many times a second.
const QUIET: Duration = Duration::from_secs(1);
/// It has not left within this: it hangs.
const QUIET_TIMEOUT: Duration = Duration::from_secs(10);
const QUIET_INTERVAL: Duration = Duration::from_millis(100);

/// Waits until nothing was written for a second. `last_write` says when that was last; `None`: there is nothing.
pub(crate) async fn until_quiet(last_write: impl Fn() -> Option<SystemTime> + Clone + Send + 'static) {
    let give_up = Instant::now() + QUIET_TIMEOUT;
    while Instant::now() < give_up {
        let looked = spawn_blocking(last_write.clone()).await;
        if looked.ok().flatten().is_none_or(|at| at.elapsed().is_ok_and(|since| since >= QUIET)) {
            return;
        }
        sleep(QUIET_INTERVAL).await;
    }
}

/// The same of one file.
pub(crate) async fn until_file_is_quiet(path: PathBuf) {
    until_quiet(move || std::fs::metadata(&path).ok()?.modified().ok()).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_is_quiet_a_second_after_its_last_write_and_one_that_is_not_there_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let begun = Instant::now();
        until_file_is_quiet(path.clone()).await;
        assert!(begun.elapsed() < QUIET / 2);
        std::fs::write(&path, "a").unwrap();
        until_file_is_quiet(path).await;
        assert!(begun.elapsed() >= QUIET - Duration::from_millis(50));
    }
}
