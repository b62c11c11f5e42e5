//! The way of buffers to the outputs: into an encoder's `appsrc`, or, for what is copied or not encoded, straight into the
//! fan-out. Called from the recorder's thread (copied) and the mixers' threads (composed, which block here).

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use gstreamer as gst;
use gstreamer_app as gst_app;

use super::fanout::Fanout;
use super::pcm::{PcmBlock, pcm_blocks};
use crate::encoded::{EncodedUnit, MediaKind, StreamNumber, opus_duration_ns};

/// Where composed pictures and sound go: a [`Feed`]; in tests something that looks at them.
pub trait RawSink: Send {
    /// Blocks while enough waits there. A picture that repeats the one before, and that nothing needs for its time, is marked
    /// `DROPPABLE`.
    ///
    /// # Errors
    ///
    /// When nothing more is taken: it ended, broke, or was dropped.
    fn push(&self, buffer: gst::Buffer) -> Result<(), FeedError>;
    /// Nothing comes any more.
    fn end(&self);
}

impl RawSink for Feed {
    fn push(&self, buffer: gst::Buffer) -> Result<(), FeedError> {
        Feed::push(self, buffer)
    }

    fn end(&self) {
        Feed::end(self);
    }
}

/// The pipeline takes nothing more: it ended, broke or was dropped. Not a fault of its own: the reason is in a
/// [`PipelineEvent`](super::PipelineEvent).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {0} input of the pipeline is closed")]
pub struct FeedError(pub MediaKind);

/// One input of the pipeline. A raw one holds few buffers and makes its feeder wait; a copied one never does.
#[derive(Clone, Debug)]
pub struct Feed {
    kind: MediaKind,
    target: FeedTarget,
}

#[derive(Clone)]
enum FeedTarget {
    Elements(gst_app::AppSrc),
    /// Nothing between us and the outputs.
    Outputs {
        fanout: Arc<Fanout>,
        stream: StreamNumber,
    },
    /// As samples of S16.
    Samples {
        fanout: Arc<Fanout>,
        stream: StreamNumber,
    },
}

impl fmt::Debug for FeedTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Elements(_) => "elements",
            Self::Outputs { .. } => "outputs",
            Self::Samples { .. } => "samples",
        })
    }
}

impl Feed {
    pub(super) fn new(kind: MediaKind, appsrc: gst_app::AppSrc) -> Self {
        Self { kind, target: FeedTarget::Elements(appsrc) }
    }

    pub(super) fn direct(kind: MediaKind, fanout: Arc<Fanout>, stream: StreamNumber) -> Self {
        Self { kind, target: FeedTarget::Outputs { fanout, stream } }
    }

    /// Of sound that is not encoded.
    pub(super) fn samples(fanout: Arc<Fanout>, stream: StreamNumber) -> Self {
        Self { kind: MediaKind::Audio, target: FeedTarget::Samples { fanout, stream } }
    }

    /// Raw pictures or sound. `buffer` has its PTS: nanoseconds since the beginning of the recording, already decided by
    /// the timeline. Blocks while enough waits in an encoder.
    ///
    /// # Errors
    ///
    /// When nothing more is taken: the pipeline ended, broke, or was dropped; and on an input for encoded frames.
    pub fn push(&self, buffer: gst::Buffer) -> Result<(), FeedError> {
        match &self.target {
            FeedTarget::Elements(appsrc) => appsrc.push_buffer(buffer).map(drop).map_err(|_| FeedError(self.kind)),
            FeedTarget::Samples { fanout, stream } => self.push_samples(fanout, *stream, &buffer),
            FeedTarget::Outputs { .. } => Err(FeedError(self.kind)),
        }
    }

    fn push_samples(&self, fanout: &Fanout, stream: StreamNumber, buffer: &gst::Buffer) -> Result<(), FeedError> {
        let closed = FeedError(self.kind);
        let samples = buffer.map_readable().map_err(|_| closed)?;
        let first_ns = buffer.pts().map_or(0, gst::ClockTime::nseconds);
        for PcmBlock { at_ns, duration_ns, data } in pcm_blocks(&samples, first_ns) {
            let unit = EncodedUnit { stream, kind: self.kind, key: true, at_ns, offset_ns: 0, duration_ns, data };
            fanout.push(unit).map_err(|_| closed)?;
        }
        Ok(())
    }

    /// One encoded frame of a copied track, `at_ns` since the beginning of the recording; never waits for an encoder.
    /// `key`: decodable by itself.
    ///
    /// # Errors
    ///
    /// When nothing more is taken: the pipeline ended, broke, or was dropped; and on an input for samples.
    pub fn push_frame(&self, data: Bytes, at_ns: u64, key: bool) -> Result<(), FeedError> {
        self.push_reordered(data, (at_ns, 0), key)
    }

    /// The same for a frame that is decoded at the first of these times and shown by the second one later.
    ///
    /// # Errors
    ///
    /// As [`Feed::push_frame`].
    pub fn push_reordered(&self, data: Bytes, (at_ns, offset_ns): (u64, i64), key: bool) -> Result<(), FeedError> {
        let pushed = match &self.target {
            FeedTarget::Elements(appsrc) => appsrc.push_buffer(frame_buffer(data, at_ns, key)).map(drop),
            FeedTarget::Outputs { fanout, stream } => {
                let duration_ns = match self.kind {
                    MediaKind::Video => 0,
                    MediaKind::Audio => opus_duration_ns(&data),
                };
                fanout.push(EncodedUnit { stream: *stream, kind: self.kind, key, at_ns, offset_ns, duration_ns, data })
            }
            FeedTarget::Samples { .. } => return Err(FeedError(self.kind)),
        };
        pushed.map_err(|_| FeedError(self.kind))
    }

    /// The newest frame of a copied track is shown at least until `end_ns`.
    pub fn lasts(&self, end_ns: u64) {
        if let FeedTarget::Outputs { fanout, stream } = &self.target {
            fanout.lasts(*stream, self.kind, end_ns);
        }
    }

    /// Nothing comes any more.
    pub fn end(&self) {
        match &self.target {
            // Refused only by an input that is closed already.
            FeedTarget::Elements(appsrc) => drop(appsrc.end_of_stream()),
            FeedTarget::Outputs { fanout, stream } | FeedTarget::Samples { fanout, stream } => {
                fanout.end_stream(*stream);
            }
        }
    }

    /// Bytes given and not yet taken by an encoder.
    pub fn waiting_bytes(&self) -> u64 {
        match &self.target {
            FeedTarget::Elements(appsrc) => appsrc.current_level_bytes(),
            FeedTarget::Outputs { .. } | FeedTarget::Samples { .. } => 0,
        }
    }
}

/// Samples as an encoder takes them: interleaved, native floats.
pub(crate) fn sound_buffer(samples: &[f32], from_ns: u64, to_ns: u64) -> gst::Buffer {
    let mut bytes = vec![0; 4 * samples.len()];
    for (bytes, sample) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(samples) {
        *bytes = sample.to_le_bytes();
    }
    let mut buffer = gst::Buffer::from_mut_slice(bytes);
    let fresh = buffer.make_mut();
    fresh.set_pts(gst::ClockTime::from_nseconds(from_ns));
    fresh.set_duration(gst::ClockTime::from_nseconds(to_ns - from_ns));
    buffer
}

/// An encoded frame as GStreamer's elements take it.
pub(super) fn frame_buffer(data: Bytes, at_ns: u64, key: bool) -> gst::Buffer {
    let mut buffer = gst::Buffer::from_slice(data);
    if let Some(buffer) = buffer.get_mut() {
        let at = gst::ClockTime::from_nseconds(at_ns);
        buffer.set_pts(at);
        // Nothing from a room is reordered.
        buffer.set_dts(at);
        if !key {
            buffer.set_flags(gst::BufferFlags::DELTA_UNIT);
        }
    }
    buffer
}
