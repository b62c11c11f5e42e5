//! Picture size from the sequence parameter sets of H264 and H265. Pure.
//!
//! In: one NAL unit with its header. Out: pixels after cropping, `None` for what cannot be read. Only key frames carry
//! these, so nothing here runs per frame.

use super::bits::Bits;
use super::unescape::unescaped;

/// Picture size from a sequence parameter set (ITU-T H.264 7.3.2.1.1).
pub(crate) fn h264_size(sps: &[u8]) -> Option<(u32, u32)> {
    let raw = unescaped(sps);
    let mut bits = Bits::new(&raw);
    bits.skip(8)?;
    let profile = bits.bits(8)?;
    bits.skip(16)?;
    bits.golomb()?;
    let mut chroma = 1;
    let mut separate = false;
    if [100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135].contains(&profile) {
        chroma = bits.golomb()?;
        if chroma == 3 {
            separate = bits.bit()?;
        }
        bits.golomb()?;
        bits.golomb()?;
        bits.skip(1)?;
        if bits.bit()? {
            for list in 0..if chroma == 3 { 12 } else { 8 } {
                if bits.bit()? {
                    skip_scaling_list(&mut bits, if list < 6 { 16 } else { 64 })?;
                }
            }
        }
    }
    bits.golomb()?;
    match bits.golomb()? {
        0 => {
            bits.golomb()?;
        }
        1 => {
            bits.skip(1)?;
            bits.signed_golomb()?;
            bits.signed_golomb()?;
            for _ in 0..bits.golomb()?.min(255) {
                bits.signed_golomb()?;
            }
        }
        _ => {}
    }
    bits.golomb()?;
    bits.skip(1)?;
    let width = bits.golomb()?.checked_add(1)?.checked_mul(16)?;
    let rows = bits.golomb()?.checked_add(1)?;
    let fields = if bits.bit()? { 1 } else { 2 };
    if fields == 2 {
        bits.skip(1)?;
    }
    let height = rows.checked_mul(16 * fields)?;
    bits.skip(1)?;
    let (mut across, mut down) = (0, 0);
    if bits.bit()? {
        let (left, right, top, bottom) = (bits.golomb()?, bits.golomb()?, bits.golomb()?, bits.golomb()?);
        let (unit_x, unit_y) = match (chroma, separate) {
            (1, _) => (2, 2),
            (2, _) => (2, 1),
            _ => (1, 1),
        };
        across = left.checked_add(right)?.checked_mul(unit_x)?;
        down = top.checked_add(bottom)?.checked_mul(unit_y * fields)?;
    }
    Some((width.checked_sub(across)?, height.checked_sub(down)?))
}

fn skip_scaling_list(bits: &mut Bits<'_>, length: usize) -> Option<()> {
    let (mut last, mut next) = (8i64, 8i64);
    for _ in 0..length {
        if next != 0 {
            next = (last + bits.signed_golomb()? + 256) % 256;
        }
        last = if next == 0 { last } else { next };
    }
    Some(())
}

/// Picture size from a sequence parameter set (ITU-T H.265 7.3.2.2).
pub(crate) fn h265_size(sps: &[u8]) -> Option<(u32, u32)> {
    let raw = unescaped(sps);
    let mut bits = Bits::new(&raw);
    bits.skip(16 + 4)?;
    let sub_layers = bits.bits(3)? as usize;
    bits.skip(1)?;
    skip_profile_tier_level(&mut bits, sub_layers)?;
    bits.golomb()?;
    let chroma = bits.golomb()?;
    if chroma == 3 {
        bits.skip(1)?;
    }
    let (width, height) = (bits.golomb()?, bits.golomb()?);
    let (mut across, mut down) = (0, 0);
    if bits.bit()? {
        let (left, right, top, bottom) = (bits.golomb()?, bits.golomb()?, bits.golomb()?, bits.golomb()?);
        let (unit_x, unit_y) = match chroma {
            1 => (2, 2),
            2 => (2, 1),
            _ => (1, 1),
        };
        across = left.checked_add(right)?.checked_mul(unit_x)?;
        down = top.checked_add(bottom)?.checked_mul(unit_y)?;
    }
    Some((width.checked_sub(across)?, height.checked_sub(down)?))
}

fn skip_profile_tier_level(bits: &mut Bits<'_>, sub_layers: usize) -> Option<()> {
    bits.skip(88 + 8)?;
    let mut present = Vec::new();
    for _ in 0..sub_layers {
        present.push((bits.bit()?, bits.bit()?));
    }
    if sub_layers > 0 {
        bits.skip(2 * (8 - sub_layers))?;
    }
    for (profile, level) in present {
        bits.skip(if profile { 88 } else { 0 } + if level { 8 } else { 0 })?;
    }
    Some(())
}
