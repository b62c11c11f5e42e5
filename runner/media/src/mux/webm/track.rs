//! One track of a WebM: what players are told of it, and how long it is. Pure.

use bytes::Bytes;

use super::ebml::{binary, element, float, text, uint};
use super::ids::{
    AUDIO, CHANNELS, CODEC_DELAY, CODEC_ID, CODEC_PRIVATE, COLOUR, FLAG_LACING, LANGUAGE, MATRIX_COEFFICIENTS,
    PIXEL_HEIGHT, PIXEL_WIDTH, PRIMARIES, RANGE, SAMPLING_FREQUENCY, SEEK_PREROLL, TRACK_ENTRY, TRACK_NUMBER,
    TRACK_TYPE, TRACK_UID, TRANSFER_CHARACTERISTICS, VIDEO,
};
use super::unit::WebmUnit;
use crate::av1::{self, PixelFormat, SequenceHeader};
use crate::encoded::{opus_duration_ns, opus_head};
use crate::mux::scale;

const SECOND_NS: u64 = 1_000_000_000;
/// Opus is decoded from so far before a place that is looked for (RFC 7845, 4.6).
const OPUS_PREROLL_NS: u64 = 80_000_000;
const OPUS_RATE: u64 = 48_000;
/// Duration of a picture of which nothing is known.
const PICTURE_NS: u64 = SECOND_NS / 30;
/// Encoders make sequence headers of a dozen bytes. What is longer stays in the stream: the head of a file has 1 KB.
const MAX_SEQUENCE_HEADER_BYTES: usize = 256;
/// The smallest one; containers leave it out (AV1 in Matroska, 4.1).
const TEMPORAL_DELIMITER: [u8; 2] = [av1::TEMPORAL_DELIMITER << 3 | av1::HAS_SIZE, 0];

/// What goes into a track.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WebmTrackKind {
    /// Frames of VP8.
    Vp8 {
        /// Pixels, of the first key frame.
        size: (u32, u32),
    },
    /// Frames of VP9.
    Vp9 {
        /// Pixels, of the first key frame.
        size: (u32, u32),
    },
    /// Temporal units of AV1, whose OBUs carry their size.
    Av1 {
        /// Pixels, of the first key frame.
        size: (u32, u32),
    },
    /// Packets of Opus.
    Opus {
        /// One or two.
        channels: u8,
        /// Samples at 48 kHz that a decoder drops at the beginning.
        pre_skip: u16,
    },
}

/// A track and what was seen of it.
#[derive(Debug)]
pub struct WebmTrack {
    kind: WebmTrackKind,
    /// The first sequence header of AV1, and all of its OBU.
    sequence: Option<(SequenceHeader, Bytes)>,
    has_key: bool,
    newest_ns: Option<u64>,
    /// Where its newest unit ends, by its duration or the usual one.
    ends_ns: u64,
    /// The unit that was its newest then lasts at least until here.
    lasts_ns: u64,
}

impl WebmTrack {
    /// Nothing is seen yet.
    pub fn new(kind: WebmTrackKind) -> Self {
        Self { kind, sequence: None, has_key: false, newest_ns: None, ends_ns: 0, lasts_ns: 0 }
    }

    /// Pictures, not sound.
    pub fn is_video(&self) -> bool {
        !matches!(self.kind, WebmTrackKind::Opus { .. })
    }

    /// A unit as it stands in the file. `None` for a picture before the first key frame: nothing can show it.
    pub fn take(&mut self, mut unit: WebmUnit) -> Option<WebmUnit> {
        if !self.has_key && !unit.key {
            return None;
        }
        self.has_key = true;
        if matches!(self.kind, WebmTrackKind::Av1 { .. }) {
            if unit.key && self.sequence.is_none() {
                let found = av1::sequence_header(&unit.data);
                self.sequence = found
                    .and_then(|(obu, body)| Some((SequenceHeader::read(body)?, Bytes::copy_from_slice(obu))))
                    .filter(|(_, obu)| obu.len() <= MAX_SEQUENCE_HEADER_BYTES);
            }
            if unit.data.starts_with(&TEMPORAL_DELIMITER) {
                unit.data = unit.data.slice(TEMPORAL_DELIMITER.len()..);
            }
        }
        self.ends_ns = self.end_of(&unit);
        self.newest_ns = Some(unit.at_ns);
        Some(unit)
    }

    /// Its newest unit is shown at least until then.
    pub fn lasts(&mut self, end_ns: u64) {
        self.lasts_ns = end_ns;
    }

    /// Where it ends.
    pub fn end_ns(&self) -> u64 {
        match self.newest_ns {
            Some(newest_ns) if self.lasts_ns > newest_ns => self.lasts_ns,
            _ => self.ends_ns,
        }
    }

    /// How much of a packet at the end is not heard: what the encoder has filled it up with.
    pub fn padding_ns(&self, unit: &WebmUnit) -> u64 {
        match self.kind {
            WebmTrackKind::Opus { pre_skip: 1.., .. } if unit.duration_ns > 0 => {
                let silent_ns = opus_duration_ns(&unit.data).saturating_sub(unit.duration_ns);
                // In whole samples: times are rounded.
                samples_ns(scale(silent_ns, SECOND_NS, OPUS_RATE as u32))
            }
            _ => 0,
        }
    }

    /// A picture's duration is that of the one before, but no pause. Times of Opus count what a decoder drops.
    fn end_of(&self, unit: &WebmUnit) -> u64 {
        let duration_ns = match (self.kind, unit.duration_ns, self.newest_ns) {
            (WebmTrackKind::Opus { pre_skip, .. }, duration_ns, _) => {
                let heard_ns = unit.at_ns.saturating_add(duration_ns);
                return heard_ns.saturating_sub(samples_ns(pre_skip.into()));
            }
            (_, 0, Some(before_ns)) => unit.at_ns.saturating_sub(before_ns).clamp(1_000_000, SECOND_NS),
            (_, 0, None) => PICTURE_NS,
            (_, duration_ns, _) => duration_ns,
        };
        unit.at_ns.saturating_add(duration_ns)
    }

    /// Its TrackEntry.
    pub fn describe(&self, out: &mut Vec<u8>, number: u8) {
        element(out, TRACK_ENTRY, |out| {
            uint(out, TRACK_NUMBER, number.into());
            uint(out, TRACK_UID, number.into());
            uint(out, TRACK_TYPE, if self.is_video() { 1 } else { 2 });
            uint(out, FLAG_LACING, 0);
            text(out, LANGUAGE, "und");
            match self.kind {
                WebmTrackKind::Vp8 { size } => video(out, "V_VP8", size, None),
                WebmTrackKind::Vp9 { size } => video(out, "V_VP9", size, None),
                WebmTrackKind::Av1 { size } => {
                    let sequence = self.sequence.as_ref();
                    binary(out, CODEC_PRIVATE, &av1_config(sequence));
                    video(out, "V_AV1", size, sequence.and_then(|(header, _)| header.pixels));
                }
                WebmTrackKind::Opus { channels, pre_skip } => {
                    text(out, CODEC_ID, "A_OPUS");
                    binary(out, CODEC_PRIVATE, &opus_head(channels, pre_skip));
                    uint(out, CODEC_DELAY, samples_ns(pre_skip.into()));
                    uint(out, SEEK_PREROLL, OPUS_PREROLL_NS);
                    element(out, AUDIO, |out| {
                        float(out, SAMPLING_FREQUENCY, OPUS_RATE as f64);
                        uint(out, CHANNELS, channels.into());
                    });
                }
            }
        });
    }
}

/// Codec and pictures of a TrackEntry.
fn video(out: &mut Vec<u8>, codec: &str, (width, height): (u32, u32), pixels: Option<PixelFormat>) {
    text(out, CODEC_ID, codec);
    element(out, VIDEO, |out| {
        uint(out, PIXEL_WIDTH, width.into());
        uint(out, PIXEL_HEIGHT, height.into());
        if let Some(PixelFormat { colours: Some([primaries, transfer, matrix]), full_range, .. }) = pixels {
            element(out, COLOUR, |out| {
                uint(out, MATRIX_COEFFICIENTS, matrix.into());
                uint(out, RANGE, if full_range { 2 } else { 1 });
                uint(out, TRANSFER_CHARACTERISTICS, transfer.into());
                uint(out, PRIMARIES, primaries.into());
            });
        }
    });
}

/// `av1C` (AV1 in ISOBMFF, 2.3). Without a header: what rooms send, 4:2:0 of 8 bits, of no particular level.
fn av1_config(sequence: Option<&(SequenceHeader, Bytes)>) -> Vec<u8> {
    let Some((header, obu)) = sequence else { return vec![0x81, 31, 0x0C, 0] };
    let samples = header.pixels.map_or(0x0C, |pixels| {
        let (across, down) = pixels.subsampling;
        let flags = [pixels.high_bit_depth, pixels.twelve_bit, pixels.monochrome, across, down];
        flags.into_iter().fold(0, |all, flag| all << 1 | u8::from(flag)) << 2 | pixels.chroma_position
    });
    let mut config = vec![0x81, header.profile << 5 | header.level, u8::from(header.tier) << 7 | samples, 0];
    config.extend_from_slice(obu);
    config
}

/// Samples at 48 kHz in nanoseconds.
fn samples_ns(samples: u64) -> u64 {
    scale(samples, OPUS_RATE, SECOND_NS as u32)
}
