//! Image outputs while one media process takes the place of another: images count on, and nothing of the spool is written over.
//! Runs in the session's task.

use std::collections::BTreeMap;

use spillway_plan::ImageCodec;
use tokio::task::spawn_blocking;

use super::SessionImages;
use crate::upload::images::{clear_images, next_number};

impl SessionImages {
    /// The media process is gone, and another one goes on: what it has left in the spool is taken, and of outputs without an
    /// image nothing stays there. Answers the number of the next image by output. Waits for the disk.
    pub async fn interrupted(&mut self) -> BTreeMap<u32, u32> {
        self.offset_ns = None;
        let mut looks = vec![];
        for output in &mut self.outputs {
            // Their place in time is not known.
            output.early.clear();
            if output.upload.is_none() {
                output.next_n = 0;
            }
            looks.push((output.job.output, output.job.images.codec, output.upload.is_some()));
        }
        let folder = self.folder.clone();
        let looked = spawn_blocking(move || {
            let of = |(output, codec, is_kept): (u32, ImageCodec, bool)| {
                if !is_kept {
                    clear_images(&folder, output, codec);
                }
                next_number(&folder, output, codec)
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
