//! A recording that goes on in another task: what this one leaves for it, and what it finds of the one before. Calls Redis in
//! the caller's task.

use spillway_bus::{ClaimToken, LiveStreams, Tickets, UploadStates};
use spillway_protocol::ledger::{Fact, RecordingTotals};
use spillway_protocol::livekit::EgressStatus;
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use crate::events::{SessionEvent, StreamUpdate};
use crate::report::Reporter;
use crate::salvage::{SalvageJob, save_earlier};
use crate::session::earlier::EarlierRecording;
use crate::session::{SessionEnd, SessionJob, drive};
use crate::ticket::{self, Names};
use crate::upload::checkpoint::{Checkpoint, host};

/// Of a session: stops and the loss of ownership, changes of the streams, and the other end of the first.
type Channels = (mpsc::Receiver<SessionEvent>, mpsc::Receiver<StreamUpdate>, mpsc::Sender<SessionEvent>);

/// The checkpoint of the dead attempt; from here on that attempt can write none.
pub(super) async fn take_over(states: &UploadStates, names: &Names) -> Option<Checkpoint> {
    let found = ticket::with_retries(|| states.get(&names.egress_id)).await;
    let (_, text) = found
        .inspect_err(|error| warn!(error = %spillway_process::chain(error), "state of the uploads not read"))
        .ok()??;
    if let Err(error) = ticket::with_retries(|| states.put(&names.egress_id, names.attempt, &text)).await {
        warn!(error = %spillway_process::chain(&error), "state of the uploads not taken over");
    }
    serde_json::from_slice(&text).inspect_err(|error| warn!(%error, "state of the uploads not understood")).ok()
}

/// The ticket of a task that goes on should this one die has the streams as they are by then: their keys are in no record.
pub(super) async fn keep_streams(
    tickets: &Tickets,
    names: &Names,
    spare: &str,
    mut changed: watch::Receiver<LiveStreams>,
) {
    let spare = ClaimToken::from_text(spare);
    while changed.changed().await.is_ok() {
        let live = changed.borrow_and_update().clone();
        let kept = ticket::with_retries(|| {
            let live = live.clone();
            tickets.amend(&names.egress_id, &spare, move |ticket| ticket.streams = Some(live))
        });
        if let Err(error) = kept.await {
            warn!(error = %spillway_process::chain(&error), "streams not kept for a task that goes on");
        }
    }
}

/// Goes on with what another task has recorded, which is gone for the reason `why`: `left` is what it has left. Its files are
/// saved beside the recording.
pub(super) async fn go_on(
    mut job: SessionJob,
    left: SalvageJob,
    why: String,
    reporter: &Reporter,
    (events, updates, session_tx): Channels,
) -> SessionEnd {
    info!(reason = why, "goes on with what another task has recorded");
    let checkpoint_writer = job.resources.checkpoint_writer.clone();
    let checkpoint = left.checkpoint.clone().unwrap_or_default();
    checkpoint_writer.adopt(&checkpoint);
    let (saved_tx, saved) = watch::channel(None);
    let saving = async {
        saved_tx.send_replace(Some(save_earlier(left, reporter, &checkpoint_writer).await));
        std::future::pending::<()>().await;
    };
    let info = reporter.info();
    if job.plan.room_id.is_empty() {
        // Another room of this name is not what was recorded.
        job.plan.room_id.clone_from(&info.room_id);
    }
    let is_active = info.status() == EgressStatus::EgressActive;
    let first = checkpoint.started_at().or_else(|| is_active.then(|| RecordingTotals::of(&info).began));
    if let (Some(started_at), false) = (first, is_active) {
        // It died before it was able to report that.
        reporter.report(Fact::Active { started_at });
    }
    // Else that task was not able to record anything.
    job.earlier = first.map(|started_at| {
        let here = checkpoint.host == host();
        EarlierRecording { checkpoint, here, why, started_at, saved }
    });
    tokio::select! {
        ended = drive(job, reporter, events, updates, session_tx) => ended,
        () = saving => SessionEnd::OwnershipLost,
    }
}
