//! What goes from encoders and copied tracks to the outputs: access units and what they are. Pure.
//!
//! A unit is made once and read by every output; its bytes are shared and never changed.

use std::fmt;

use bytes::Bytes;

use crate::track::Codec;

/// Which of the two kinds of a recording's streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MediaKind {
    /// Pictures.
    Video,
    /// Sound.
    Audio,
}

impl fmt::Display for MediaKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Video => "video",
            Self::Audio => "audio",
        })
    }
}

/// Number of an encoded stream in its fan-out, from 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StreamNumber(pub u8);

/// What an encoded stream is, known before its first unit.
#[derive(Clone, Debug, PartialEq)]
pub enum EncodedFormat {
    /// Pictures.
    Video {
        /// Any video codec.
        codec: Codec,
        /// Pixels; of the first key frame where the stream is copied.
        size: (u32, u32),
        /// Pictures a second; `None` where the stream is copied.
        framerate: Option<u32>,
        /// Kilobits per second; `None` where the stream is copied.
        bitrate_kbps: Option<u32>,
    },
    /// AAC-LC, stereo, without ADTS.
    Aac {
        /// Samples a second.
        rate: u32,
        /// Kilobits per second.
        bitrate_kbps: u32,
    },
    /// Opus.
    Opus {
        /// One or two.
        channels: u8,
        /// Samples at 48 kHz that a decoder drops at the beginning; 0 where the stream is copied.
        pre_skip: u16,
    },
    /// MPEG-1 or MPEG-2 Layer 3, stereo.
    Mp3 {
        /// Samples a second.
        rate: u32,
    },
    /// Not encoded: interleaved stereo of S16LE at 48 kHz, in blocks of 20 ms; the last one may be shorter.
    Pcm,
}

impl EncodedFormat {
    /// Pictures or sound.
    pub fn kind(&self) -> MediaKind {
        match self {
            Self::Video { .. } => MediaKind::Video,
            Self::Aac { .. } | Self::Opus { .. } | Self::Mp3 { .. } | Self::Pcm => MediaKind::Audio,
        }
    }
}

impl fmt::Display for EncodedFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Video { codec, .. } => write!(f, "{codec:?}"),
            Self::Aac { .. } => f.write_str("AAC"),
            Self::Opus { .. } => f.write_str("Opus"),
            Self::Mp3 { .. } => f.write_str("MP3"),
            Self::Pcm => f.write_str("PCM"),
        }
    }
}

/// One access unit. Only copied pictures with B frames are reordered: of all others its time is PTS and DTS.
#[derive(Clone, Debug)]
pub struct EncodedUnit {
    /// The stream it belongs to.
    pub stream: StreamNumber,
    /// Of the stream.
    pub kind: MediaKind,
    /// Decodable by itself; always true for sound.
    pub key: bool,
    /// Since output time 0 of the recording.
    pub at_ns: u64,
    /// It is shown so much later than `at_ns`, which is its place in the order of decoding; negative: earlier.
    pub offset_ns: i64,
    /// How long it is shown or heard; 0: not known. Of the last Opus packet without what a decoder drops at its end.
    pub duration_ns: u64,
    /// H264/H265: Annex B with the parameter sets in key frames. AAC without ADTS. An Opus packet, an MP3 frame, a frame
    /// of VP8 or VP9, a temporal unit of AV1, a block of samples.
    pub data: Bytes,
}

impl EncodedUnit {
    /// Where it ends.
    pub fn end_ns(&self) -> u64 {
        self.at_ns.saturating_add(self.duration_ns)
    }
}

/// How much sound an Opus packet holds, by its first bytes (RFC 6716, 3.1); 0 for what is no packet.
pub fn opus_duration_ns(packet: &[u8]) -> u64 {
    let Some(toc) = packet.first() else { return 0 };
    let (config, code) = (toc >> 3, toc & 3);
    // SILK and hybrid frames of 10 to 60 ms, CELT frames of 2.5 to 20 ms.
    let frame_us = match config {
        0..=11 => [10_000, 20_000, 40_000, 60_000][usize::from(config % 4)],
        12..=15 => [10_000, 20_000][usize::from(config % 2)],
        _ => [2500, 5000, 10_000, 20_000][usize::from(config % 4)],
    };
    let frames = match code {
        0 => 1,
        1 | 2 => 2,
        _ => packet.get(1).map_or(0, |count| u64::from(count & 0x3f)),
    };
    frame_us * frames * 1000
}

/// Header of an Opus stream (RFC 7845, 5.1) of one or two channels, of whose beginning so many samples are not heard.
pub fn opus_head(channels: u8, pre_skip: u16) -> Vec<u8> {
    let mut head = b"OpusHead".to_vec();
    head.extend([1, channels]);
    head.extend(pre_skip.to_le_bytes());
    head.extend(48_000u32.to_le_bytes());
    // No gain, mapping family 0.
    head.extend([0u8; 3]);
    head
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_of_an_opus_packet_is_read_from_its_first_bytes() {
        for (packet, ms) in [
            // What browsers send: 20 ms of hybrid or CELT.
            (&[0x78, 0][..], 20.0),
            (&[0xfc, 0xff][..], 20.0),
            // SILK, 60 ms.
            (&[0x18][..], 60.0),
            // CELT of 2.5 ms, two frames; three frames of 20 ms.
            (&[0x81][..], 5.0),
            (&[0xfb, 0x03][..], 60.0),
            (&[][..], 0.0),
        ] {
            assert_eq!(opus_duration_ns(packet) as f64 / 1e6, ms, "{packet:?}");
        }
    }
}
