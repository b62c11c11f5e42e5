//! VP8 over RTP (RFC 7741): packets of one frame → the frame, and its size when it is a key frame. Pure.

use super::bits::IncompleteFrame;

/// Payload descriptor (RFC 7741 4.2): begins a frame?, length.
fn descriptor(payload: &[u8]) -> Option<(bool, usize)> {
    let first = *payload.first()?;
    let mut length = 1;
    if first & 0x80 != 0 {
        let extension = *payload.get(1)?;
        length = 2;
        if extension & 0x80 != 0 {
            length += if payload.get(length)? & 0x80 != 0 { 2 } else { 1 };
        }
        if extension & 0x40 != 0 {
            length += 1;
        }
        if extension & 0x30 != 0 {
            length += 1;
        }
    }
    Some((first & 0x10 != 0 && first & 7 == 0, length))
}

pub(super) fn starts(payload: &[u8]) -> bool {
    descriptor(payload).is_some_and(|(begins, _)| begins)
}

pub(super) fn join<'a>(payloads: impl Iterator<Item = &'a [u8]>, out: &mut Vec<u8>) -> Result<(), IncompleteFrame> {
    for (place, payload) in payloads.enumerate() {
        let (begins, length) = descriptor(payload).ok_or(IncompleteFrame)?;
        if begins != (place == 0) {
            return Err(IncompleteFrame);
        }
        out.extend_from_slice(payload.get(length..).ok_or(IncompleteFrame)?);
    }
    Ok(())
}

/// Size when it is a key frame (RFC 6386 9.1).
pub(super) fn key_size(frame: &[u8]) -> Option<(u32, u32)> {
    if frame.first()? & 1 != 0 || frame.get(3..6)? != [0x9d, 0x01, 0x2a] {
        return None;
    }
    let side = |at: usize| Some(u32::from(u16::from_le_bytes([*frame.get(at)?, *frame.get(at + 1)?]) & 0x3fff));
    Some((side(6)?, side(8)?))
}
