use super::bits::{Bits, unescaped};
use super::{IncompleteFrame, START_CODE, aggregated};

const SLICE: u8 = 1;
const IDR: u8 = 5;
const SPS: u8 = 7;
const STAP_A: u8 = 24;
const FU_A: u8 = 28;

#[derive(Debug, Default)]
pub(super) struct NalSummary {
    pub(super) idr: bool,
    pub(super) size: Option<(u32, u32)>,
    pub(super) has_sps: bool,
    /// It has picture data, not only parameter sets.
    pub(super) picture: bool,
}

/// Can the first slice of an access unit, or what stands before it, begin in this payload?
pub(super) fn starts(payload: &[u8]) -> bool {
    let Some(&header) = payload.first() else { return false };
    match header & 31 {
        STAP_A => payload.get(3..).is_some_and(starts_nal),
        FU_A => {
            payload.get(1).is_some_and(|fu| fu & 0x80 != 0) && payload.get(2).is_some_and(|slice| slice & 0x80 != 0)
        }
        _ => starts_nal(payload),
    }
}

fn starts_nal(nal: &[u8]) -> bool {
    match nal.first().map(|header| header & 31) {
        // first_mb_in_slice is ue(v): 0 is a single 1 bit.
        Some(SLICE | IDR | 2) => nal.get(1).is_some_and(|slice| slice & 0x80 != 0),
        Some(6..=9) => true,
        _ => false,
    }
}

/// Payloads of one access unit → Annex B.
pub(super) fn join<'a>(
    payloads: impl Iterator<Item = &'a [u8]>,
    out: &mut Vec<u8>,
) -> Result<NalSummary, IncompleteFrame> {
    let mut facts = NalSummary::default();
    let mut fragment_open = false;
    for payload in payloads {
        let header = *payload.first().ok_or(IncompleteFrame)?;
        if header & 31 != FU_A && fragment_open {
            return Err(IncompleteFrame);
        }
        match header & 31 {
            STAP_A => aggregated(&payload[1..], |nal| put(nal, &mut facts, out))?,
            FU_A => {
                let fu = *payload.get(1).ok_or(IncompleteFrame)?;
                let (begin, end) = (fu & 0x80 != 0, fu & 0x40 != 0);
                if begin == fragment_open {
                    return Err(IncompleteFrame);
                }
                if begin {
                    out.extend_from_slice(&START_CODE);
                    out.push(header & 0xe0 | fu & 31);
                    facts.idr |= fu & 31 == IDR;
                    facts.picture |= (SLICE..=IDR).contains(&(fu & 31));
                }
                out.extend_from_slice(payload.get(2..).ok_or(IncompleteFrame)?);
                fragment_open = !end;
            }
            1..=23 => put(payload, &mut facts, out)?,
            _ => return Err(IncompleteFrame),
        }
    }
    if fragment_open { Err(IncompleteFrame) } else { Ok(facts) }
}

fn put(nal: &[u8], facts: &mut NalSummary, out: &mut Vec<u8>) -> Result<(), IncompleteFrame> {
    match nal.first().ok_or(IncompleteFrame)? & 31 {
        IDR => (facts.idr, facts.picture) = (true, true),
        SLICE..IDR => facts.picture = true,
        SPS => {
            facts.has_sps = true;
            facts.size = size(nal);
        }
        _ => {}
    }
    out.extend_from_slice(&START_CODE);
    out.extend_from_slice(nal);
    Ok(())
}

/// Picture size from a sequence parameter set (ITU-T H.264 7.3.2.1.1).
pub(super) fn size(sps: &[u8]) -> Option<(u32, u32)> {
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
