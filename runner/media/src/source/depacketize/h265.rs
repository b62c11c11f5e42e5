use super::bits::{Bits, unescaped};
use super::{IncompleteFrame, START_CODE, aggregated};

const SPS: u8 = 33;
const AGGREGATION: u8 = 48;
const FRAGMENT: u8 = 49;

pub(super) use super::h264::NalSummary;

fn kind(header: u8) -> u8 {
    header >> 1 & 63
}

pub(super) fn starts(payload: &[u8]) -> bool {
    match payload.first().map(|header| kind(*header)) {
        Some(AGGREGATION) => payload.get(4..).is_some_and(starts_nal),
        Some(FRAGMENT) => {
            payload.get(2).is_some_and(|fu| fu & 0x80 != 0) && payload.get(3).is_some_and(|slice| slice & 0x80 != 0)
        }
        _ => starts_nal(payload),
    }
}

fn starts_nal(nal: &[u8]) -> bool {
    match nal.first().map(|header| kind(*header)) {
        // first_slice_segment_in_pic_flag
        Some(0..=31) => nal.get(2).is_some_and(|slice| slice & 0x80 != 0),
        Some(32..=35 | 39) => true,
        _ => false,
    }
}

/// Payloads of one access unit → Annex B (RFC 7798 without decoding order numbers, which WebRTC does not use).
pub(super) fn join<'a>(
    payloads: impl Iterator<Item = &'a [u8]>,
    out: &mut Vec<u8>,
) -> Result<NalSummary, IncompleteFrame> {
    let mut facts = NalSummary::default();
    let mut fragment_open = false;
    for payload in payloads {
        let (header, second) = (*payload.first().ok_or(IncompleteFrame)?, *payload.get(1).ok_or(IncompleteFrame)?);
        if kind(header) != FRAGMENT && fragment_open {
            return Err(IncompleteFrame);
        }
        match kind(header) {
            AGGREGATION => aggregated(&payload[2..], |nal| put(nal, &mut facts, out))?,
            FRAGMENT => {
                let fu = *payload.get(2).ok_or(IncompleteFrame)?;
                let (begin, end) = (fu & 0x80 != 0, fu & 0x40 != 0);
                if begin == fragment_open {
                    return Err(IncompleteFrame);
                }
                if begin {
                    out.extend_from_slice(&START_CODE);
                    out.push(header & 0x81 | (fu & 63) << 1);
                    out.push(second);
                    note(fu & 63, &mut facts);
                }
                out.extend_from_slice(payload.get(3..).ok_or(IncompleteFrame)?);
                fragment_open = !end;
            }
            50.. => return Err(IncompleteFrame),
            _ => put(payload, &mut facts, out)?,
        }
    }
    if fragment_open { Err(IncompleteFrame) } else { Ok(facts) }
}

fn note(kind: u8, facts: &mut NalSummary) {
    facts.idr |= (16..=23).contains(&kind);
    facts.picture |= kind <= 31;
}

fn put(nal: &[u8], facts: &mut NalSummary, out: &mut Vec<u8>) -> Result<(), IncompleteFrame> {
    let kind = kind(*nal.first().ok_or(IncompleteFrame)?);
    note(kind, facts);
    if kind == SPS {
        facts.has_sps = true;
        facts.size = size(nal);
    }
    out.extend_from_slice(&START_CODE);
    out.extend_from_slice(nal);
    Ok(())
}

/// Picture size from a sequence parameter set (ITU-T H.265 7.3.2.2).
pub(super) fn size(sps: &[u8]) -> Option<(u32, u32)> {
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
