//! The packets of one frame → the frame as decoders and muxers want it, and what its header says. Pure.
//!
//! Own depacketisers, because the frame must leave whole with its packets' one RTP time, and because GStreamer 1.22
//! has none for AV1.

mod av1;
mod bits;
mod nal;
mod vp8;
mod vp9;
mod bounds;

use bytes::Bytes;

pub use self::bits::IncompleteFrame;
use self::bounds::is_too_large;
use self::nal::{H264, H265, NalSummary};
use super::reorder::Packet;
use crate::track::Codec;

/// Anything smaller was not published: livekit-server closes a track with H264 frames of 2×2 and VP8 frames
/// of 8×8, which end a muxer that has already promised another size.
const SMALLEST: u32 = 16;

/// What the packets of one RTP time make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessUnit {
    /// As [`crate::track::Frame`] describes its data.
    pub data: Bytes,
    /// What it is good for.
    pub kind: UnitKind,
}

/// What may be done with an access unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnitKind {
    /// Decodable by itself.
    Key { size: Option<(u32, u32)> },
    /// Needs what came before. Sound is always `Key`.
    Delta,
    /// Put in by the server when a track ends or is muted: not published.
    Blank,
    /// Parameter sets only; they belong to the next unit.
    Prefix,
    /// It says that its pictures are larger than any that is recorded.
    TooLarge { size: (u32, u32) },
}

/// May a frame begin in this packet? Asked of each; the answer counts after a loss and at the beginning of a stream.
pub fn starts_frame(codec: Codec, payload: &[u8]) -> bool {
    match codec {
        Codec::H264 => nal::starts::<H264>(payload),
        Codec::H265 => nal::starts::<H265>(payload),
        Codec::Vp8 => vp8::starts(payload),
        Codec::Vp9 => vp9::starts(payload),
        Codec::Av1 => av1::starts(payload),
        Codec::Opus | Codec::Pcmu | Codec::Pcma => true,
    }
}

/// Packets of one frame in order, padding taken out.
///
/// # Errors
///
/// When they do not make a frame: pieces are missing or are not of this codec.
pub fn assemble(codec: Codec, packets: &[Packet]) -> Result<AccessUnit, IncompleteFrame> {
    let first = packets.first().ok_or(IncompleteFrame)?;
    if !codec.is_video() {
        let kind = if is_blank_sound(codec, &first.payload) { UnitKind::Blank } else { UnitKind::Key { size: None } };
        return Ok(AccessUnit { data: first.payload.clone(), kind });
    }
    let payloads = || packets.iter().map(|packet| packet.payload.as_ref());
    let mut data = Vec::with_capacity(payloads().map(|payload| payload.len() + 4).sum());
    let kind = match codec {
        Codec::H264 => kind_of(&nal::join::<H264>(payloads(), &mut data)?),
        Codec::H265 => kind_of(&nal::join::<H265>(payloads(), &mut data)?),
        Codec::Vp8 => {
            vp8::join(payloads(), &mut data)?;
            match vp8::key_size(&data) {
                Some(size) => key(Some(size)),
                None => UnitKind::Delta,
            }
        }
        Codec::Vp9 => match vp9::join(payloads(), &mut data)? {
            Some(size) => key(Some(size)),
            None => UnitKind::Delta,
        },
        Codec::Av1 => match av1::join(payloads(), &mut data)? {
            Some(size) => key(size),
            None => UnitKind::Delta,
        },
        Codec::Opus | Codec::Pcmu | Codec::Pcma => return Err(IncompleteFrame),
    };
    Ok(AccessUnit { data: data.into(), kind })
}

fn kind_of(facts: &NalSummary) -> UnitKind {
    match facts {
        NalSummary { too_large: Some(size), .. } => UnitKind::TooLarge { size: *size },
        it if !it.picture => UnitKind::Prefix,
        it if it.is_start() => key(it.size),
        _ => UnitKind::Delta,
    }
}

fn key(size: Option<(u32, u32)>) -> UnitKind {
    match size {
        Some(size) if is_too_large(size) => UnitKind::TooLarge { size },
        Some((width, height)) if width < SMALLEST || height < SMALLEST => UnitKind::Blank,
        size => UnitKind::Key { size },
    }
}

/// What livekit-server sends for a second after a mute and for 0.2 s at the end: an Opus packet of 80 bytes that is
/// nothing but a silent frame and zeros; no encoder makes such a thing. (G.711 has no such mark.)
fn is_blank_sound(codec: Codec, payload: &[u8]) -> bool {
    codec == Codec::Opus
        && payload.len() == 80
        && payload.starts_with(&[0xf8, 0xff, 0xfe])
        && payload[3..].iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests;
