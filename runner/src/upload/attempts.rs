//! Repeats a request to a store while its errors are transient, until a deadline. Uploads have a schedule of their own
//! (`outage::StoreOutage`): they must go on with other things between two attempts.

use std::time::Duration;

use bytes::Bytes;
use spillway_process::retry::RetrySchedule;
use spillway_storage::{Meta, Storage, StorageError, StorageErrorKind, Stored};
use tokio::time::{Instant, sleep, timeout_at};
use tracing::debug;

use super::settings::UploadSettings;

/// Waits between two attempts with a small object, which people wait for.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

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

/// Stores a small object, such as a manifest. Transient errors are retried for `limit`, and for `max_outage_ms` at most.
pub(super) async fn put_small(
    store: &dyn Storage,
    settings: &UploadSettings,
    (name, bytes, meta): (&str, Bytes, &Meta),
    limit: Duration,
) -> Result<Stored, StorageError> {
    let waits = RetrySchedule::new(FIRST_WAIT.min(Duration::from_millis(settings.first_wait_ms)), LONGEST_WAIT);
    let give_up = Instant::now() + limit.min(Duration::from_millis(settings.max_outage_ms));
    until(give_up, waits, store, "put", || store.put(name, bytes.clone(), meta)).await
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use spillway_storage::unreliable::FaultMode;
    use spillway_storage::{RamStorage, Unreliable};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_small_object_is_tried_often_and_not_for_longer_than_an_outage_may_last() {
        let ram = RamStorage::new();
        let link = Unreliable::new(Arc::new(ram.clone()));
        let (limit, meta) = (Duration::from_secs(30), Meta::of("application/json"));
        let put = |settings: UploadSettings| {
            let (link, meta) = (link.clone(), meta.clone());
            async move { put_small(&link, &settings, ("a.json", Bytes::from_static(b"{}"), &meta), limit).await }
        };
        // Uploads wait for longer between two attempts.
        let patient = UploadSettings { first_wait_ms: 20_000, ..UploadSettings::default() };
        link.set_fault_mode(FaultMode::Down);
        let back = async {
            sleep(Duration::from_secs(20)).await;
            link.set_fault_mode(FaultMode::Fine);
        };
        assert!(tokio::join!(put(patient.clone()), back).0.is_ok());
        link.set_fault_mode(FaultMode::Down);
        let begun = Instant::now();
        assert!(put(UploadSettings { max_outage_ms: 3000, ..patient }).await.is_err());
        assert!(begun.elapsed() <= Duration::from_secs(4), "{:?}", begun.elapsed());
        assert_eq!(ram.keys(), ["a.json"]);
    }
}
