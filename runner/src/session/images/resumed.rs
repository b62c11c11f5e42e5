//! Image outputs of a recording that goes on after the death of the task before this one: images count on. Runs in the
//! session's task, before anything is recorded.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use super::SessionImages;
use crate::upload::images::{
    ImagesCheckpoint, ImagesMachine, ImagesUpload, ImagesUploader, next_number, settle_pending,
};
use crate::upload::until_quiet;

impl SessionImages {
    /// The outputs go on from what the task before this one has left. `here`: it was a task of this machine, and its images
    /// may lie in the folder. What the store does not tell before `give_up` counts as not stored.
    pub(in crate::session) async fn go_on(&mut self, left: &[ImagesCheckpoint], here: bool, give_up: Instant) {
        self.started_at = left.first().map(|left| left.started_at);
        for left in left {
            let Some(index) = self.outputs.iter().position(|output| output.job.output == left.output) else { continue };
            let (output, codec, folder) = (left.output, left.names.codec, self.folder.clone());
            let mut next_n = left.next_n;
            if here {
                let there = folder.clone();
                // Images are made in it.
                until_quiet(move || std::fs::metadata(&there).ok()?.modified().ok()).await;
                let there = folder.clone();
                let on_disk = spawn_blocking(move || next_number(&there, output, codec)).await;
                next_n = next_n.max(on_disk.unwrap_or_default());
            }
            let job = &mut self.outputs[index].job;
            if left.on_backup {
                job.place = job.place.clone().given_up();
            }
            let left = ImagesCheckpoint { folder, ..left.clone() };
            let mut machine = ImagesMachine::resume(&left);
            let objects = job.place.clone().uploads(self.settings.clone());
            settle_pending(&mut machine, &objects, here, give_up).await;
            let upload = ImagesUpload::start(ImagesUploader {
                machine,
                objects,
                locate: job.place.locate(),
                checkpoint_writer: self.checkpoint_writer.clone(),
                spool_cap: job.spool_cap,
            });
            upload.interrupted(next_n);
            let known = &mut self.outputs[index];
            (known.next_n, known.told) = (next_n, true);
            (known.names, known.upload) = (Some(left.names), Some(upload));
        }
    }

    /// By output: number of the next image.
    pub(in crate::session) fn next_numbers(&self) -> BTreeMap<u32, u32> {
        self.outputs.iter().map(|output| (output.job.output, output.next_n)).collect()
    }

    /// This task leaves, and another one goes on: waits until everything that is recorded is stored.
    pub(in crate::session) async fn leave(&self) {
        join_all(self.outputs.iter().filter_map(|output| output.upload.as_ref()).map(ImagesUpload::rest)).await;
    }
}
