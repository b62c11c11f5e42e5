//! VP9 over RTP (RFC 9628): packets of one picture → a frame or superframe, and its size when it is a key frame. Pure.

use super::bits::{Bits, IncompleteFrame};

struct Descriptor {
    length: usize,
    begins: bool,
    ends: bool,
    spatial: u8,
    /// Widths and heights of the spatial layers, when the packet says them.
    sizes: Vec<(u32, u32)>,
}

/// RFC 9628 4.2.
fn descriptor(payload: &[u8]) -> Option<Descriptor> {
    let first = *payload.first()?;
    let flag = |mask: u8| first & mask != 0;
    let (picture_id, inter, layers, flexible, begins, ends, structure) =
        (flag(0x80), flag(0x40), flag(0x20), flag(0x10), flag(0x08), flag(0x04), flag(0x02));
    let mut at = 1;
    if picture_id {
        at += if payload.get(at)? & 0x80 != 0 { 2 } else { 1 };
    }
    let mut spatial = 0;
    if layers {
        spatial = payload.get(at)? >> 1 & 7;
        at += if flexible { 1 } else { 2 };
    }
    if flexible && inter {
        for place in 0.. {
            let more = payload.get(at)? & 1 != 0;
            at += 1;
            if !more {
                break;
            }
            if place == 2 {
                return None;
            }
        }
    }
    let mut sizes = Vec::new();
    if structure {
        let header = *payload.get(at)?;
        at += 1;
        if header & 0x10 != 0 {
            for _ in 0..=header >> 5 {
                let side = |at: usize| Some(u32::from(u16::from_be_bytes([*payload.get(at)?, *payload.get(at + 1)?])));
                sizes.push((side(at)?, side(at + 2)?));
                at += 4;
            }
        }
        if header & 0x08 != 0 {
            let pictures = *payload.get(at)?;
            at += 1;
            for _ in 0..pictures {
                at += 1 + usize::from(payload.get(at)? >> 2 & 3);
            }
        }
    }
    Some(Descriptor { length: at, begins, ends, spatial, sizes })
}

pub(super) fn starts(payload: &[u8]) -> bool {
    descriptor(payload).is_some_and(|it| it.begins && it.spatial == 0)
}

/// Size of the picture when it is a key frame.
pub(super) fn join<'a>(
    payloads: impl Iterator<Item = &'a [u8]>,
    out: &mut Vec<u8>,
) -> Result<Option<(u32, u32)>, IncompleteFrame> {
    let mut open = false;
    let mut layers: Vec<usize> = Vec::new();
    let mut top = 0;
    let mut announced = Vec::new();
    for payload in payloads {
        let it = descriptor(payload).ok_or(IncompleteFrame)?;
        if it.begins == open {
            return Err(IncompleteFrame);
        }
        if it.begins {
            layers.push(0);
        }
        let data = payload.get(it.length..).ok_or(IncompleteFrame)?;
        out.extend_from_slice(data);
        *layers.last_mut().ok_or(IncompleteFrame)? += data.len();
        top = top.max(it.spatial);
        if !it.sizes.is_empty() {
            announced = it.sizes;
        }
        open = !it.ends;
    }
    if open || layers.is_empty() {
        return Err(IncompleteFrame);
    }
    let base = key_size(out);
    if layers.len() > 1 {
        put_superframe_index(&layers, out);
    }
    // Upper layers are never smaller than the one that is read here.
    let larger = |base: (u32, u32)| move |said: &(u32, u32)| said.0 >= base.0 && said.1 >= base.1;
    Ok(base.map(|base| announced.get(usize::from(top)).copied().filter(larger(base)).unwrap_or(base)))
}

/// Several spatial layers of one picture: files and decoders want them as a superframe (VP9 bitstream, annex B).
fn put_superframe_index(layers: &[usize], out: &mut Vec<u8>) {
    let longest = layers.iter().copied().max().unwrap_or(0);
    let width = (1..=4).find(|bytes| longest < 1 << (8 * bytes)).unwrap_or(4);
    let marker = 0xc0 | ((width - 1) << 3) as u8 | (layers.len() - 1).min(7) as u8;
    out.push(marker);
    for length in layers {
        out.extend_from_slice(&(*length as u32).to_le_bytes()[..width]);
    }
    out.push(marker);
}

/// Size when the frame is a key frame (VP9 bitstream 6.2).
fn key_size(frame: &[u8]) -> Option<(u32, u32)> {
    let mut bits = Bits::new(frame);
    if bits.bits(2)? != 2 {
        return None;
    }
    let profile = bits.bits(1)? | bits.bits(1)? << 1;
    if profile == 3 {
        bits.skip(1)?;
    }
    let shows_existing = bits.bit()?;
    let inter = !shows_existing && bits.bit()?;
    if shows_existing || inter {
        return None;
    }
    bits.skip(2)?;
    if bits.bits(24)? != 0x0049_8342 {
        return None;
    }
    if profile >= 2 {
        bits.skip(1)?;
    }
    let srgb = bits.bits(3)? == 7;
    if srgb {
        if profile & 1 == 1 {
            bits.skip(1)?;
        }
    } else {
        bits.skip(1)?;
        if profile & 1 == 1 {
            bits.skip(3)?;
        }
    }
    Some((bits.bits(16)? + 1, bits.bits(16)? + 1))
}
