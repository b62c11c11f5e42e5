//! The last write of a task that leaves its recording to another one.

use std::time::Duration;

use prost::Message;
use spillway_bus::Updated;
use spillway_bus::lifecycle::LaunchEvent;
use spillway_process::chain;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::warn;

use super::{Delivered, EgressReport, Ownership, RETRY_INTERVAL, ReportPublisher};

/// How long Redis may keep a task waiting that has to leave.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(8);

impl ReportPublisher {
    /// This task leaves, for the reason `why` that users are told: its record says that another one is to go on. `at_ms`: Unix
    /// milliseconds of now. livekit-server is told by that one.
    pub async fn hand_over(&self, report: &EgressReport, why: String, at_ms: i64) -> Delivered {
        let handed_over = LaunchEvent::HandedOver {
            attempt: self.attempt,
            info: report.info().encode_to_vec(),
            ledger: serde_json::to_string(&report.ledger).unwrap_or_default(),
            why,
            at_ms,
        };
        let give_up = Instant::now() + HAND_OVER_TIMEOUT;
        loop {
            match timeout_at(give_up, self.registry.apply(&self.egress_id, &handed_over)).await {
                Ok(Ok(Updated::Written(_))) => return Delivered::HandedOver,
                // Written by us, but the answer was lost and the command repeated. An older record may be of the hand-over
                // to this task.
                Ok(Ok(Updated::Left(record))) if record.is_resuming() && !record.is_before(self.attempt) => {
                    return Delivered::HandedOver;
                }
                // It has to be written again first, or another writer has ended the egress.
                Ok(Ok(_)) => {
                    if self.write(report).await == Ownership::Theirs {
                        return Delivered::NotOurs;
                    }
                }
                Ok(Err(error)) => warn!(error = %chain(&error), "not handed over yet"),
                Err(_) => return Delivered::NotHandedOver,
            }
            sleep(RETRY_INTERVAL).await;
        }
    }
}
