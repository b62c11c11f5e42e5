//! Takes an unfinished upload back, for every caller in this crate. A failure is logged and otherwise ignored: many keys
//! lack the right, and the bucket's life-cycle rule removes the upload.

use std::time::Duration;

use spillway_storage::{Storage, Upload};
use tokio::time::timeout;
use tracing::warn;

/// Aborts `upload`, or leaves it to the store's life-cycle rule after `limit`.
pub(crate) async fn abort(store: &dyn Storage, upload: &Upload, limit: Duration) {
    match timeout(limit, store.abort(upload)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => warn!(%error, "unfinished upload stays in the store"),
        Err(_) => warn!(store = store.name(), "unfinished upload stays in the store: no answer"),
    }
}
