//! HLS outputs of a recording that goes on after the death of the task before this one: the same playlists, and segments that
//! count on. Runs in the session's task, before anything is recorded.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use super::{HeldNames, SegmentedOutput, SessionSegments};
use crate::results::claim;
use crate::upload::segments::{
    SegmentsCheckpoint, SegmentsMachine, SegmentsUpload, SegmentsUploader, last_write, next_number, settle_pending,
};
use crate::upload::until_quiet;

impl SessionSegments {
    /// The outputs go on from what the task before this one has left. `here`: it was a task of this machine, and its segments
    /// may lie in the folder. What the store does not tell before `give_up` counts as not stored.
    pub(in crate::session) async fn go_on(
        &mut self,
        left: &[SegmentsCheckpoint],
        egress_id: &str,
        here: bool,
        give_up: Instant,
    ) {
        self.started_at = left.first().map(|left| left.started_at);
        for left in left {
            let Some(index) = self.outputs.iter().position(|output| output.job.output == left.output) else { continue };
            let (output, format, folder) = (left.output, left.names.format, self.folder.clone());
            let mut next_n = left.next_n();
            if here {
                let there = folder.clone();
                until_quiet(move || last_write(&there, output, format)).await;
                let there = folder.clone();
                let on_disk = spawn_blocking(move || next_number(&there, output, format)).await;
                next_n = next_n.max(on_disk.unwrap_or_default());
            }
            let job = &mut self.outputs[index].job;
            if left.on_backup {
                job.place = job.place.clone().given_up();
            }
            let left = SegmentsCheckpoint { folder, ..left.clone() };
            let mut machine = SegmentsMachine::resume(&left, job.place.locate());
            let objects = job.place.clone().uploads(self.settings.clone());
            settle_pending(&mut machine, &objects, here, give_up).await;
            let upload = SegmentsUpload::start(SegmentsUploader {
                machine,
                objects,
                checkpoint_writer: self.checkpoint_writer.clone(),
                spool_cap: job.spool_cap,
            });
            // What was being written is cut and kept, and the playlists say that something is missing.
            upload.interrupted(next_n);
            let held = job.place.root().map(|root| HeldNames {
                names: left.names.clone(),
                root: root.clone(),
                holder: claim::holder(egress_id, output),
            });
            let known = &mut self.outputs[index];
            (known.next_n, known.told, known.held) = (next_n, true, held);
            (known.names, known.upload) = (Some(left.names), Some(upload));
        }
    }

    /// By output: number of the next segment.
    pub(in crate::session) fn next_numbers(&self) -> BTreeMap<u32, u32> {
        self.outputs.iter().map(|output| (output.job.output, output.next_n)).collect()
    }

    /// This task leaves, and another one goes on: waits until everything that is recorded is stored.
    pub(in crate::session) async fn leave(&self) {
        join_all(self.outputs.iter().filter_map(|output| output.upload.as_ref()).map(SegmentsUpload::rest)).await;
    }

    /// The names of finished outputs are free.
    pub(super) async fn release_names(&mut self) {
        let held: Vec<HeldNames> = self.outputs.iter_mut().filter_map(|output| output.held.take()).collect();
        let released = spawn_blocking(move || {
            held.iter().for_each(|held| claim::release_segments(&held.names, &held.root, &held.holder));
        });
        let _ = released.await;
    }
}

impl SegmentedOutput {
    /// It goes on from what another task has left, whose names it has.
    pub(super) fn is_resumed(&self) -> bool {
        self.upload.is_some()
    }
}
