//! Takes an unfinished upload back, for every caller in this crate, and tries a store by beginning one. A failed abort is
//! logged and otherwise ignored: many keys lack the right, and the bucket's life-cycle rule removes the upload.

use std::time::Duration;

use spillway_storage::{Meta, Storage, StorageError, Upload};
use tokio::time::timeout;
use tracing::warn;

use super::settings::UploadSettings;

/// For an abort of what was begun before a recording and is not wanted.
pub(super) const ABORT_TIMEOUT: Duration = Duration::from_secs(5);

/// Aborts `upload`, or leaves it to the store's life-cycle rule after `limit`.
pub(crate) async fn abort(store: &dyn Storage, upload: &Upload, limit: Duration) {
    match timeout(limit, store.abort(upload)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => warn!(%error, "unfinished upload stays in the store"),
        Err(_) => warn!(store = store.name(), "unfinished upload stays in the store: no answer"),
    }
}

/// Proves that we may write: begins the upload of `name`, which is answered; without a name one of `probe`, which is aborted.
/// A store that does not answer is no error.
pub(super) async fn tried(
    store: &dyn Storage,
    settings: &UploadSettings,
    meta: &Meta,
    name: Option<&str>,
    probe: &str,
) -> Result<Option<Upload>, StorageError> {
    if !settings.write_check {
        return Ok(None);
    }
    let begin = async {
        match name {
            Some(name) => Ok(Some(store.begin(name, meta).await?)),
            None => {
                let upload = store.begin(probe, meta).await?;
                abort(store, &upload, ABORT_TIMEOUT).await;
                Ok(None)
            }
        }
    };
    match timeout(Duration::from_millis(settings.write_check_ms), begin).await {
        Ok(Ok(upload)) => Ok(upload),
        Ok(Err(error)) if !StorageError::is_transient(&error) => Err(error),
        Ok(Err(error)) => {
            warn!(%error, "store does not answer yet, the recording begins without it");
            Ok(None)
        }
        Err(_) => {
            warn!(store = store.name(), "store does not answer yet, the recording begins without it");
            Ok(None)
        }
    }
}
