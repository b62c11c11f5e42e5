//! A track's sound in the mix: decoded by the mixer's own thread, as far as it mixes. Encoded it waits in the track's inbox
//! until then. A thread for each track would be woken for each tenth of a second that the mixer is woken for too.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use spillway_plan::StereoSide;

use super::track_buffer::{AudioTrackBuffer, LOOK_AHEAD};
use crate::compositor::decoder_thread::{DecoderThread, RunningDecoder};
use crate::compositor::sync::decoded_queue::DecodedQueue;
use crate::units::SampleIndex;

/// One track that is heard.
pub struct AudioInput {
    buffer: Arc<AudioTrackBuffer>,
    /// `None`: nothing more comes.
    decoder: Option<RunningDecoder<AudioTrackBuffer>>,
}

impl AudioInput {
    /// Nothing is decoded yet.
    pub fn new(decoder: DecoderThread<AudioTrackBuffer>) -> Self {
        Self { buffer: decoder.queue.clone(), decoder: Some(decoder.start()) }
    }

    /// The recording begins at this sample.
    pub fn begins(&self, sample: SampleIndex) {
        self.buffer.begins(sample);
    }

    /// Decodes until what is heard in `[at, end)` can be mixed; waits until the track is known up to there.
    pub fn decode_to(&mut self, at: SampleIndex, end: SampleIndex) {
        self.buffer.forget_before(at);
        while !self.buffer.is_known(end + LOOK_AHEAD)
            && let Some(decoder) = &mut self.decoder
        {
            // A decoder that panics costs its own voice.
            let goes_on = catch_unwind(AssertUnwindSafe(|| decoder.step())).unwrap_or(false);
            if !goes_on {
                self.decoder = None;
            }
        }
    }

    /// See [`AudioTrackBuffer::mix`].
    pub fn mix(&self, at: SampleIndex, mix: &mut [f32], side: StereoSide) -> bool {
        self.buffer.mix(at, mix, side)
    }

    /// Nothing is mixed any more: what waits is forgotten.
    pub fn abandon(&self) {
        self.buffer.abandon();
        if let Some(decoder) = &self.decoder {
            decoder.abandon();
        }
    }
}
