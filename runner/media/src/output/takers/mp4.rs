//! Units into our own MP4 muxer. Runs in the threads that give units.

use spillway_ipc::SpoolFile;

use crate::element::{PipelineError, build};
use crate::encoded::{EncodedFormat, EncodedUnit, StreamNumber};
use crate::mux::{Mp4, Mp4TrackKind};
use crate::output::taker::{OutputTaker, TakerEnd, TakerError};
use crate::track::Codec;

/// An MP4 file that is being written.
pub(super) struct Mp4File {
    mp4: Mp4,
    /// In the order of its tracks.
    streams: Vec<StreamNumber>,
}

impl Mp4File {
    /// Nothing is written before the first fragment.
    pub(super) fn open(
        file: SpoolFile,
        inputs: &[(StreamNumber, EncodedFormat)],
        fragment_ms: u64,
    ) -> Result<Self, PipelineError> {
        let kinds = inputs.iter().map(|(_, format)| track_kind(format)).collect::<Result<Vec<_>, _>>()?;
        let mp4 = Mp4::open(file, &kinds, fragment_ms.max(100) * 1_000_000);
        Ok(Self { mp4, streams: inputs.iter().map(|(stream, _)| *stream).collect() })
    }
}

fn track_kind(format: &EncodedFormat) -> Result<Mp4TrackKind, PipelineError> {
    match format {
        EncodedFormat::Video { codec: codec @ (Codec::H264 | Codec::H265), size, .. } => {
            Ok(Mp4TrackKind::Video { codec: *codec, size: *size })
        }
        EncodedFormat::Aac { rate, .. } => Ok(Mp4TrackKind::Aac { rate: *rate }),
        EncodedFormat::Opus { .. } => Ok(Mp4TrackKind::Opus),
        EncodedFormat::Video { .. } | EncodedFormat::Mp3 { .. } | EncodedFormat::Pcm => {
            Err(build(format_args!("{format} does not go into an MP4")))
        }
    }
}

impl OutputTaker for Mp4File {
    fn take(&mut self, unit: &EncodedUnit) -> Result<(), TakerError> {
        let Some(track) = self.streams.iter().position(|stream| *stream == unit.stream) else { return Ok(()) };
        Ok(self.mp4.push_reordered(track, (unit.at_ns, unit.offset_ns), unit.key, &unit.data)?)
    }

    fn lasts(&mut self, stream: StreamNumber, end_ns: u64) {
        if let Some(track) = self.streams.iter().position(|known| *known == stream) {
            self.mp4.lasts(track, end_ns);
        }
    }

    fn end(&mut self, _: u64) -> Result<TakerEnd, TakerError> {
        self.mp4.finish()?;
        Ok(TakerEnd::Whole)
    }
}
