//! HLS outputs while one media process takes the place of another: segments count on, and nothing of the spool is written over.
//! Runs in the session's task.

use std::collections::BTreeMap;

use spillway_plan::segment_name::SegmentFormat;
use tokio::task::spawn_blocking;

use super::SessionSegments;
use crate::upload::segments::{clear_segments, next_number};

impl SessionSegments {
    /// The media process is gone, and another one goes on: what it has left in the spool is taken, and of outputs without a
    /// segment nothing stays there. Answers the number of the next segment by output. Waits for the disk.
    pub async fn interrupted(&mut self) -> BTreeMap<u32, u32> {
        self.offset_ns = None;
        let mut looks = vec![];
        for output in &mut self.outputs {
            // Their place in time is not known.
            output.early.clear();
            if output.upload.is_none() {
                output.next_n = 0;
            }
            looks.push((output.job.output, output.job.naming.format, output.upload.is_some()));
        }
        let folder = self.folder.clone();
        let looked = spawn_blocking(move || {
            let of = |(output, format, is_kept): (u32, SegmentFormat, bool)| {
                if !is_kept {
                    clear_segments(&folder, output, format);
                }
                next_number(&folder, output, format)
            };
            looks.into_iter().map(of).collect::<Vec<u32>>()
        });
        let looked = looked.await.unwrap_or_default();
        let on_disk = looked.into_iter().chain(std::iter::repeat(0));
        for (output, on_disk) in self.outputs.iter_mut().zip(on_disk) {
            output.next_n = output.next_n.max(on_disk);
            if let Some(upload) = &output.upload {
                upload.interrupted(output.next_n);
            }
        }
        self.outputs.iter().map(|output| (output.job.output, output.next_n)).collect()
    }
}
