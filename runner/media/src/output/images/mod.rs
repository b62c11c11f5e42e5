//! An image output: raw pictures come in, one each `interval_ns` goes to the spool as a file, and the recorder is told of each.
//! The mixer's thread leaves a picture in a slot and never waits; the thread of the output encodes and writes the newest one.
//! `grid` says which pictures those are.

mod grid;
mod slot;

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::Builder;

use gstreamer as gst;
use spillway_ipc::{SpoolError, SpoolFile, TrackFacts, image_file};
use spillway_plan::ImageCodec;
use tracing::warn;

use self::grid::CaptureGrid;
use self::slot::{PictureSlot, TakenPicture};
use super::fanout::TakerReporter;
use super::raw::RawTaker;
use super::taker::{OutputTaker, TakerEnd, TakerError, TakerProgress};
use crate::element::{PipelineError, build};
use crate::encode::ImageEncoder;
use crate::encoded::EncodedUnit;

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

/// An image output in the fan-out, which says when it is over. Dropping it stops its thread after the image that is being
/// made.
pub struct ImageTaker {
    slot: Arc<PictureSlot>,
}

/// The same output on the side of the mixer.
struct ImageWay {
    slot: Arc<PictureSlot>,
    progress: Arc<TakerProgress>,
}

/// The output's thread.
struct ImageWriter {
    options: ImageTakerOptions,
    encoder: ImageEncoder,
    slot: Arc<PictureSlot>,
    report: ImageReportFn,
}

impl ImageTaker {
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
    ) -> Result<(Self, Box<dyn RawTaker>), PipelineError> {
        let encoder = ImageEncoder::new(options.codec, options.from, options.to)?;
        let slot = Arc::new(PictureSlot::new(CaptureGrid::new(options.interval_ns)));
        let writer = ImageWriter { options, encoder, slot: slot.clone(), report };
        let span = tracing::Span::current();
        let thread = Builder::new().name("images".to_owned());
        thread.spawn(move || span.in_scope(|| writer.run(&reporter))).map_err(build)?;
        let way = ImageWay { slot: slot.clone(), progress };
        Ok((Self { slot }, Box::new(way)))
    }
}

impl OutputTaker for ImageTaker {
    fn take(&mut self, _: &EncodedUnit) -> Result<(), TakerError> {
        Ok(())
    }

    fn end(&mut self, _: u64) -> Result<TakerEnd, TakerError> {
        self.slot.end();
        Ok(TakerEnd::Later)
    }
}

impl Drop for ImageTaker {
    fn drop(&mut self) {
        self.slot.abandon();
    }
}

impl RawTaker for ImageWay {
    fn take(&self, picture: &gst::Buffer) {
        let Some(at) = picture.pts() else { return };
        // A copy shares the memory, which nothing writes to any more.
        self.slot.offer(at.nseconds(), || picture.copy());
        self.progress.advance(at.nseconds().saturating_add(picture.duration().map_or(0, gst::ClockTime::nseconds)));
    }
}

impl ImageWriter {
    /// Until the last picture is written, or the output takes no more.
    fn run(self, reporter: &TakerReporter) {
        let mut losses = 0;
        while let Some(picture) = self.slot.next() {
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
        // Under its own name an image is whole: what a dead process was writing has none.
        let unfinished = folder.join(image_file::unfinished_name(*output));
        let _ = fs::remove_file(&unfinished);
        SpoolFile::create_append_only(&unfinished)?.append(&bytes)?;
        let path = folder.join(image_file::name(*output, n, *codec));
        let renamed = fs::rename(&unfinished, &path);
        renamed.map_err(|source: io::Error| SpoolError::Create { path, source })?;
        next_n.store(n.saturating_add(1), Ordering::Relaxed);
        let facts = (n == 0).then(|| facts.clone());
        (self.report)(CapturedImage { output: *output, n, at_ns: picture.at_ns, bytes: bytes.len() as u64, facts });
        Ok(())
    }
}

#[cfg(test)]
mod tests;
