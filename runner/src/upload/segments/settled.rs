//! Segments that the checkpoint of a dead attempt knows as whole, and not as stored: the spool and the store are the truth.

use spillway_ipc::segment_file;
use tokio::time::Instant;

use super::machine::SegmentsMachine;
use crate::upload::objects::{ObjectUploads, joined_in_parts};

/// Decides about each that is pending: what lies in the spool is sent, if that is of this machine; what the store has is
/// stored, because its answer came after the last checkpoint; the others are lost. The store is not asked after `give_up`.
pub(crate) async fn settle_pending(
    machine: &mut SegmentsMachine,
    objects: &ObjectUploads,
    here: bool,
    give_up: Instant,
) {
    let plan = machine.plan();
    let (folder, output, format) = (plan.folder.clone(), plan.output, plan.names.format);
    let looks = machine.pending().into_iter().map(|(n, name, bytes)| {
        let path = folder.join(segment_file::name(output, n, format));
        async move {
            let spooled = here && tokio::fs::try_exists(&path).await.unwrap_or(false);
            let stored = !spooled && objects.bytes_by(&name, give_up).await == Some(bytes);
            (n, bytes, spooled, stored)
        }
    });
    for (n, bytes, spooled, stored) in joined_in_parts(looks).await {
        match (spooled, stored) {
            (true, _) => machine.send(n),
            (false, true) => machine.stored(n, bytes, objects.on_backup()),
            (false, false) => machine.lost(n),
        }
    }
}
