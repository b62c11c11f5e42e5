//! Repeats a request to a store while its errors are transient, until a deadline. Uploads have a schedule of their own
//! (`outage::StoreOutage`): they must go on with other things between two attempts.

use spillway_process::retry::RetrySchedule;
use spillway_storage::{Storage, StorageError, StorageErrorKind};
use tokio::time::{Instant, sleep, timeout_at};
use tracing::debug;

/// Calls `act` until it succeeds, fails for good, or `give_up` is reached; the last error is answered.
pub(crate) async fn until<T, F>(
    give_up: Instant,
    mut waits: RetrySchedule,
    store: &dyn Storage,
    operation: &'static str,
    act: impl Fn() -> F,
) -> Result<T, StorageError>
where
    F: Future<Output = Result<T, StorageError>>,
{
    loop {
        let error = match timeout_at(give_up, act()).await {
            Ok(Err(error)) if error.is_transient() => error,
            Ok(result) => return result,
            Err(_) => StorageError::new(StorageErrorKind::Busy, store.name(), operation, "no answer"),
        };
        let wait = waits.wait();
        if Instant::now() + wait >= give_up {
            return Err(error);
        }
        debug!(%error, "tried again");
        sleep(wait).await;
    }
}
