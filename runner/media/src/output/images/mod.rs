//! An image output: raw pictures come in, one each `interval_ns` goes to the spool as a file, and the recorder is told of each.
//! The mixer's thread leaves a picture in a slot and never waits; the thread of the output encodes and writes the newest one.
//! `grid` says which pictures those are. `sheets` takes pictures in the same way (`taker`) and makes a few small ones of many.

pub mod sheets;
mod taker;
mod spooled;
mod grid;
mod slot;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use spillway_ipc::{TrackFacts, image_file};
use spillway_plan::ImageCodec;
use tracing::warn;

use self::slot::{PictureSlot, TakenPicture};
pub use self::taker::PictureTaker;
use super::fanout::TakerReporter;
use super::raw::RawTaker;
use super::taker::{TakerError, TakerProgress};
use crate::element::PipelineError;
use crate::encode::ImageEncoder;

/// So many images in a row that the disk does not take are the end of the output.
const MAX_LOSSES: u32 = 3;

/// Takes what is made. Called from the output's own thread.
pub type ImageReportFn = Arc<dyn Fn(CapturedImage) + Send + Sync>;

/// An image in the spool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CapturedImage {
    /// Number of the output in the plan.
    pub output: u32,
    /// Of the image, from 0 without a gap, over all recorders.
    pub n: u32,
    /// When it was captured, nanoseconds of output time.
    pub at_ns: u64,
    /// Bytes of its file.
    pub bytes: u64,
    /// With the first one: for names.
    pub facts: Option<TrackFacts>,
}

/// What an image output makes, and where.
#[derive(Clone, Debug)]
pub struct ImageTakerOptions {
    /// Number of the output in the plan.
    pub output: u32,
    /// An existing folder of the spool.
    pub folder: PathBuf,
    /// Format of the files.
    pub codec: ImageCodec,
    /// From one image to the next, nanoseconds.
    pub interval_ns: u64,
    /// Pixels of the pictures that come.
    pub from: (u32, u32),
    /// Pixels of the images.
    pub to: (u32, u32),
    /// Number of the next image; lives longer than a recorder.
    pub next_n: Arc<AtomicU32>,
    /// For names.
    pub facts: TrackFacts,
}

/// The output's thread.
struct ImageWriter {
    options: ImageTakerOptions,
    encoder: ImageEncoder,
    report: ImageReportFn,
}

/// Starts the thread. Answers the taker for the fan-out, which is to be added with its raw pictures, and the way into it.
///
/// # Errors
///
/// When an element is missing, a size is impossible, or the system has no thread left.
pub fn start(
    options: ImageTakerOptions,
    reporter: TakerReporter,
    progress: Arc<TakerProgress>,
    report: ImageReportFn,
) -> Result<(PictureTaker, Box<dyn RawTaker>), PipelineError> {
    let encoder = ImageEncoder::new(options.codec, options.from, options.to)?;
    let interval_ns = options.interval_ns;
    let writer = ImageWriter { options, encoder, report };
    PictureTaker::start("images", interval_ns, progress, move |slot| writer.run(slot, &reporter))
}

impl ImageWriter {
    /// Until the last picture is written, or the output takes no more.
    fn run(self, slot: &PictureSlot, reporter: &TakerReporter) {
        let mut losses = 0;
        while let Some(picture) = slot.next() {
            match self.write(&picture) {
                Ok(()) => losses = 0,
                Err(TakerError::Write(error)) if losses + 1 < MAX_LOSSES => {
                    losses += 1;
                    warn!(output = self.options.output, %error, full = error.is_full(), "image lost");
                }
                Err(error) => return reporter.failed(error),
            }
        }
        reporter.ended();
    }

    fn write(&self, picture: &TakenPicture) -> Result<(), TakerError> {
        let bytes = self.encoder.encode(&picture.buffer, picture.at_ns)?;
        let ImageTakerOptions { output, folder, codec, next_n, facts, .. } = &self.options;
        let n = next_n.load(Ordering::Relaxed);
        let (unfinished, name) = (image_file::unfinished_name(*output), image_file::name(*output, n, *codec));
        spooled::write(folder, &unfinished, &name, &bytes)?;
        next_n.store(n.saturating_add(1), Ordering::Relaxed);
        let facts = (n == 0).then(|| facts.clone());
        (self.report)(CapturedImage { output: *output, n, at_ns: picture.at_ns, bytes: bytes.len() as u64, facts });
        Ok(())
    }
}

#[cfg(test)]
mod tests;
