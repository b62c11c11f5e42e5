//! Images that the checkpoint of a dead attempt does not know as stored: the spool and the store are the truth.

use spillway_ipc::image_file;
use tokio::time::Instant;

use super::machine::ImagesMachine;
use crate::upload::objects::{ObjectUploads, joined_in_parts};

/// Decides about each that is pending: what lies in the spool is sent, if that is of this machine; what the store has is
/// stored, because its answer came after the last checkpoint; the others are lost. The store is not asked after `give_up`.
pub(crate) async fn settle_pending(machine: &mut ImagesMachine, objects: &ObjectUploads, here: bool, give_up: Instant) {
    let plan = machine.plan();
    let (folder, output, codec, is_one) = (plan.folder.clone(), plan.output, plan.names.codec, plan.names.is_one());
    let looks = machine.pending().into_iter().map(|(n, name, bytes)| {
        let path = folder.join(image_file::name(output, n, codec));
        async move {
            let spooled = here && tokio::fs::try_exists(&path).await.unwrap_or(false);
            let stored = if is_one {
                // The object may be a later image. A file leaves the spool when it is stored, or for a newer one.
                here
            } else {
                !spooled && objects.bytes_by(&name, give_up).await == Some(bytes)
            };
            (n, bytes, spooled, stored)
        }
    });
    let mut left = vec![];
    for (n, bytes, spooled, stored) in joined_in_parts(looks).await {
        match (spooled, stored) {
            (true, _) => left.push(n),
            (false, true) => machine.stored(n, bytes, objects.on_backup()),
            (false, false) => machine.lost(n),
        }
    }
    left.into_iter().for_each(|n| machine.send(n));
}
