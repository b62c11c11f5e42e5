//! Outputs that make one file each: `mp4`, `webm` and `ivf` by our own muxers, `muxed` (Ogg, MP3) by one of GStreamer's.

mod mp4;
mod webm;
mod ivf;
mod muxed;

use std::sync::Arc;

use spillway_ipc::SpoolFile;
use spillway_plan::Container;

use super::fanout::Fanout;
use super::taker::{OutputTaker, TakerId, TakerProgress, TakerStart};
use crate::element::PipelineError;
use crate::encoded::{EncodedFormat, StreamNumber};
use ivf::IvfFile;
use mp4::Mp4File;
use muxed::MuxedFile;
use webm::WebmFile;

/// What a file is made of, and how.
#[derive(Clone, Debug)]
pub struct FileTakerOptions {
    /// The streams that go into it.
    pub streams: Vec<StreamNumber>,
    /// Its format.
    pub container: Container,
    /// Fragment length of MP4, milliseconds.
    pub fragment_ms: u64,
}

/// Adds an output that writes this file.
///
/// # Errors
///
/// When a stream does not go into the container, an element is missing, or the spool cannot be written. The file is closed
/// as it is.
pub fn add_file(
    fanout: &Arc<Fanout>,
    file: SpoolFile,
    options: &FileTakerOptions,
) -> Result<(TakerId, Arc<TakerProgress>), PipelineError> {
    let progress = Arc::new(TakerProgress::of_file(file.written()));
    let (id, reporter) = fanout.reserve();
    let formats = fanout.formats();
    let inputs: Vec<(StreamNumber, EncodedFormat)> = options
        .streams
        .iter()
        .filter_map(|stream| Some((*stream, formats.get(usize::from(stream.0))?.clone())))
        .collect();
    let taker: Box<dyn OutputTaker> = match options.container {
        Container::Mp4 => Box::new(Mp4File::open(file, &inputs, options.fragment_ms)?),
        Container::Webm => Box::new(WebmFile::open(file, &inputs)?),
        Container::Ivf => Box::new(IvfFile::open(file, &inputs)?),
        container @ (Container::Ogg | Container::Mp3) => {
            Box::new(MuxedFile::open(file, container, &inputs, reporter, progress.clone())?)
        }
    };
    fanout.add(TakerStart { id, streams: options.streams.clone(), taker, progress: progress.clone() });
    Ok((id, progress))
}
