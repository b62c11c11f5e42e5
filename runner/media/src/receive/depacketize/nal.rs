//! H264 (RFC 6184) and H265 (RFC 7798): packets of one access unit → Annex B, and what its NAL units say. Pure.
//!
//! Both formats fragment and aggregate alike; [`NalFormat`] holds what differs. H265 is read without decoding order
//! numbers, which WebRTC does not use. Never decodes a slice: of one it reads the type and the first bit.

use super::bits::IncompleteFrame;
use super::bounds::is_too_large;
use crate::nal_unit::{Bits, h264_size, h265_size, unescaped};

pub(super) const START_CODE: [u8; 4] = [0, 0, 0, 1];

/// What the NAL units of an access unit say.
#[derive(Debug, Default)]
pub(super) struct NalSummary {
    /// A slice that needs nothing before it.
    pub(super) idr: bool,
    /// A message that decoders recover from here on.
    recovery: bool,
    /// It brings a sequence parameter set.
    sequence: bool,
    /// A slice that is not intra coded.
    inter: bool,
    /// Pixels, from the sequence parameter set.
    pub(super) size: Option<(u32, u32)>,
    /// It has slices, not only parameter sets.
    pub(super) picture: bool,
    /// What one of its parameter sets says, where that is too much.
    pub(super) too_large: Option<(u32, u32)>,
}

impl NalSummary {
    /// A decoder can begin here. Encoders with intra refresh, some cameras and hardware encoders never send an IDR picture; of
    /// theirs, what brings its parameter sets and either is intra coded or says that decoders recover (as h264parse takes it).
    /// After a recovery point the first pictures may be incomplete.
    pub(super) fn is_start(&self) -> bool {
        self.idr || self.sequence && (self.recovery || !self.inter)
    }
}

/// Where H264 and H265 differ.
pub(super) trait NalFormat {
    /// Bytes of a NAL unit's header, and of a packet's.
    const HEADER: usize;
    /// Packet types: several NAL units, and a piece of one.
    const AGGREGATION: u8;
    const FRAGMENT: u8;
    const SPS: u8;

    /// The type in the first byte of a header.
    fn kind(header: u8) -> u8;
    /// The type in the header of a fragment.
    fn fragmented_kind(fragment: u8) -> u8;
    /// Writes the header of the NAL unit whose first fragment has this packet header.
    fn put_header(packet: &[u8], fragment: u8, out: &mut Vec<u8>);
    /// A packet of this type is one NAL unit.
    fn is_unit(kind: u8) -> bool;
    /// A slice that may be an access unit's first (its first macroblock is the picture's).
    fn is_slice(kind: u8) -> bool;
    /// What may stand before the slices of an access unit: parameter sets, SEI, delimiter.
    fn is_prefix(kind: u8) -> bool;
    /// `body`: behind the header, as much of it as stands in this packet.
    fn note(kind: u8, body: &[u8], facts: &mut NalSummary);
    fn size(sps: &[u8]) -> Option<(u32, u32)>;
}

pub(super) struct H264;

impl NalFormat for H264 {
    const HEADER: usize = 1;
    /// STAP-A
    const AGGREGATION: u8 = 24;
    /// FU-A
    const FRAGMENT: u8 = 28;
    const SPS: u8 = 7;

    fn kind(header: u8) -> u8 {
        header & 31
    }

    fn fragmented_kind(fragment: u8) -> u8 {
        fragment & 31
    }

    fn put_header(packet: &[u8], fragment: u8, out: &mut Vec<u8>) {
        out.extend(packet.first().map(|header| header & 0xe0 | fragment & 31));
    }

    fn is_unit(kind: u8) -> bool {
        (1..=23).contains(&kind)
    }

    /// first_mb_in_slice is ue(v): 0 is a single 1 bit.
    fn is_slice(kind: u8) -> bool {
        matches!(kind, 1 | 2 | 5)
    }

    fn is_prefix(kind: u8) -> bool {
        (6..=9).contains(&kind)
    }

    fn note(kind: u8, body: &[u8], facts: &mut NalSummary) {
        facts.idr |= kind == 5;
        facts.picture |= (1..=5).contains(&kind);
        facts.inter |= (1..=4).contains(&kind) && !is_intra(body);
        facts.recovery |= kind == 6 && has_recovery_point(body);
    }

    fn size(sps: &[u8]) -> Option<(u32, u32)> {
        h264_size(sps)
    }
}

pub(super) struct H265;

impl NalFormat for H265 {
    const HEADER: usize = 2;
    const AGGREGATION: u8 = 48;
    const FRAGMENT: u8 = 49;
    const SPS: u8 = 33;

    fn kind(header: u8) -> u8 {
        header >> 1 & 63
    }

    fn fragmented_kind(fragment: u8) -> u8 {
        fragment & 63
    }

    fn put_header(packet: &[u8], fragment: u8, out: &mut Vec<u8>) {
        if let [header, second, ..] = packet {
            out.extend([header & 0x81 | (fragment & 63) << 1, *second]);
        }
    }

    fn is_unit(kind: u8) -> bool {
        kind < 48
    }

    /// first_slice_segment_in_pic_flag is the first bit behind the header.
    fn is_slice(kind: u8) -> bool {
        kind <= 31
    }

    fn is_prefix(kind: u8) -> bool {
        matches!(kind, 32..=35 | 39)
    }

    fn note(kind: u8, body: &[u8], facts: &mut NalSummary) {
        facts.idr |= (16..=23).contains(&kind);
        facts.picture |= kind <= 31;
        // Their types stand behind what only the parameter sets explain.
        facts.inter |= kind <= 15;
        facts.recovery |= kind == 39 && has_recovery_point(body);
    }

    fn size(sps: &[u8]) -> Option<(u32, u32)> {
        h265_size(sps)
    }
}

/// Of an H264 slice (7.3.3): first_mb_in_slice, then its type, of which each stands for itself and for all slices.
fn is_intra(slice: &[u8]) -> bool {
    let mut bits = Bits::new(slice);
    let kind = bits.golomb().and_then(|_| bits.golomb());
    kind.is_some_and(|kind| matches!(kind % 5, 2 | 4))
}

/// Supplemental enhancement information (H264 7.3.2.3.1, H265 7.3.5): messages with their type and length, both in steps of
/// 255. A recovery point has type 6.
fn has_recovery_point(messages: &[u8]) -> bool {
    let plain = unescaped(messages);
    let mut rest = &plain[..];
    // The last byte is the end of the unit.
    while rest.len() > 1
        && let (Some(kind), Some(length)) = (number(&mut rest), number(&mut rest))
    {
        if kind == 6 {
            return true;
        }
        rest = rest.get(length..).unwrap_or_default();
    }
    false
}

/// A number in steps of 255.
fn number(rest: &mut &[u8]) -> Option<usize> {
    let mut value = 0;
    loop {
        let (byte, behind) = rest.split_first()?;
        *rest = behind;
        value += usize::from(*byte);
        if *byte != 0xff {
            return Some(value);
        }
    }
}

/// Can the first slice of an access unit, or what stands before it, begin in this payload?
pub(super) fn starts<F: NalFormat>(payload: &[u8]) -> bool {
    let first_bit = |at: usize| payload.get(at).is_some_and(|byte| byte & 0x80 != 0);
    match payload.first().map(|header| F::kind(*header)) {
        // Behind the packet's header and the length of its first unit.
        Some(kind) if kind == F::AGGREGATION => payload.get(F::HEADER + 2..).is_some_and(starts_unit::<F>),
        Some(kind) if kind == F::FRAGMENT => first_bit(F::HEADER) && first_bit(F::HEADER + 1),
        _ => starts_unit::<F>(payload),
    }
}

fn starts_unit<F: NalFormat>(nal: &[u8]) -> bool {
    nal.first().map(|header| F::kind(*header)).is_some_and(|kind| {
        F::is_prefix(kind) || F::is_slice(kind) && nal.get(F::HEADER).is_some_and(|slice| slice & 0x80 != 0)
    })
}

/// Payloads of one access unit → Annex B.
pub(super) fn join<'a, F: NalFormat>(
    payloads: impl Iterator<Item = &'a [u8]>,
    out: &mut Vec<u8>,
) -> Result<NalSummary, IncompleteFrame> {
    let mut facts = NalSummary::default();
    let mut fragment_open = false;
    for payload in payloads {
        let (header, rest) = payload.split_at_checked(F::HEADER).ok_or(IncompleteFrame)?;
        let kind = F::kind(header[0]);
        if kind != F::FRAGMENT && fragment_open {
            return Err(IncompleteFrame);
        }
        if kind == F::AGGREGATION {
            aggregated(rest, |nal| put::<F>(nal, &mut facts, out))?;
        } else if kind == F::FRAGMENT {
            let (fragment, data) = rest.split_first().ok_or(IncompleteFrame)?;
            let (begin, end) = (fragment & 0x80 != 0, fragment & 0x40 != 0);
            if begin == fragment_open {
                return Err(IncompleteFrame);
            }
            if begin {
                out.extend_from_slice(&START_CODE);
                F::put_header(header, *fragment, out);
                F::note(F::fragmented_kind(*fragment), data, &mut facts);
            }
            out.extend_from_slice(data);
            fragment_open = !end;
        } else if F::is_unit(kind) {
            put::<F>(payload, &mut facts, out)?;
        } else {
            return Err(IncompleteFrame);
        }
    }
    if fragment_open { Err(IncompleteFrame) } else { Ok(facts) }
}

/// The NAL units of an aggregation packet behind its header: each with its length in two bytes (RFC 6184 5.7.1, RFC
/// 7798 4.4.2).
fn aggregated(
    mut rest: &[u8],
    mut put: impl FnMut(&[u8]) -> Result<(), IncompleteFrame>,
) -> Result<(), IncompleteFrame> {
    while !rest.is_empty() {
        let (length, units) = rest.split_first_chunk().ok_or(IncompleteFrame)?;
        let (unit, behind) = units.split_at_checked(u16::from_be_bytes(*length).into()).ok_or(IncompleteFrame)?;
        put(unit)?;
        rest = behind;
    }
    Ok(())
}

fn put<F: NalFormat>(nal: &[u8], facts: &mut NalSummary, out: &mut Vec<u8>) -> Result<(), IncompleteFrame> {
    let kind = F::kind(*nal.first().ok_or(IncompleteFrame)?);
    F::note(kind, nal.get(F::HEADER..).unwrap_or_default(), facts);
    if kind == F::SPS {
        facts.sequence = true;
        facts.size = F::size(nal);
        facts.too_large = facts.too_large.or(facts.size.filter(|size| is_too_large(*size)));
    }
    out.extend_from_slice(&START_CODE);
    out.extend_from_slice(nal);
    Ok(())
}
