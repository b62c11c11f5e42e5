//! Units into our own WebM muxer, and its bytes into the spool. Runs in the threads that give units.

use spillway_ipc::SpoolFile;

use crate::element::{PipelineError, build};
use crate::encoded::{EncodedFormat, EncodedUnit, StreamNumber};
use crate::mux::{FileWrite, WebmMuxer, WebmTrackKind, WebmUnit};
use crate::output::taker::{OutputTaker, TakerEnd, TakerError};
use crate::track::Codec;

/// A WebM file that is being written.
pub(super) struct WebmFile {
    webm: WebmMuxer,
    file: SpoolFile,
    /// In the order of its tracks.
    streams: Vec<StreamNumber>,
}

impl WebmFile {
    /// Nothing is written before the first unit.
    pub(super) fn open(file: SpoolFile, inputs: &[(StreamNumber, EncodedFormat)]) -> Result<Self, PipelineError> {
        let kinds = inputs.iter().map(|(_, format)| track_kind(format)).collect::<Result<Vec<_>, _>>()?;
        let streams = inputs.iter().map(|(stream, _)| *stream).collect();
        Ok(Self { webm: WebmMuxer::new(&kinds), file, streams })
    }

    fn track(&self, stream: StreamNumber) -> Option<usize> {
        self.streams.iter().position(|known| *known == stream)
    }

    fn write(&mut self, writes: Vec<FileWrite>) -> Result<(), TakerError> {
        for write in writes {
            self.file.write_at(write.at, &write.bytes)?;
        }
        Ok(())
    }
}

fn track_kind(format: &EncodedFormat) -> Result<WebmTrackKind, PipelineError> {
    match format {
        EncodedFormat::Video { codec: Codec::Vp8, size, .. } => Ok(WebmTrackKind::Vp8 { size: *size }),
        EncodedFormat::Video { codec: Codec::Vp9, size, .. } => Ok(WebmTrackKind::Vp9 { size: *size }),
        EncodedFormat::Video { codec: Codec::Av1, size, .. } => Ok(WebmTrackKind::Av1 { size: *size }),
        EncodedFormat::Opus { channels, pre_skip } => {
            Ok(WebmTrackKind::Opus { channels: *channels, pre_skip: *pre_skip })
        }
        EncodedFormat::Video { .. } | EncodedFormat::Aac { .. } | EncodedFormat::Mp3 { .. } | EncodedFormat::Pcm => {
            Err(build(format_args!("{format} does not go into a WebM")))
        }
    }
}

impl OutputTaker for WebmFile {
    fn take(&mut self, unit: &EncodedUnit) -> Result<(), TakerError> {
        let Some(track) = self.track(unit.stream) else { return Ok(()) };
        let data = unit.data.clone();
        let taken = WebmUnit { at_ns: unit.at_ns, duration_ns: unit.duration_ns, key: unit.key, data };
        let writes = self.webm.push(track, taken);
        self.write(writes)
    }

    fn lasts(&mut self, stream: StreamNumber, end_ns: u64) {
        if let Some(track) = self.track(stream) {
            self.webm.lasts(track, end_ns);
        }
    }

    fn end(&mut self, _: u64) -> Result<TakerEnd, TakerError> {
        let writes = self.webm.finish();
        self.write(writes)?;
        Ok(TakerEnd::Whole)
    }
}
