//! AV1 over RTP (AOM specification 1.0): packets of one temporal unit → OBUs that carry their size. Pure.

use super::bits::{IncompleteFrame, put_leb128};
use super::bounds::is_too_large;
use crate::av1::{HAS_EXTENSION, HAS_SIZE, SEQUENCE_HEADER, SequenceHeader, TEMPORAL_DELIMITER, leb128};

const TILE_LIST: u8 = 8;

/// Only the start of a new coded video sequence can be recognised from one packet, and after a loss nothing else helps.
pub(super) fn starts(payload: &[u8]) -> bool {
    payload.first().is_some_and(|aggregation| aggregation & 0x88 == 0x08)
}

/// OBU fragments of one temporal unit → a temporal delimiter and OBUs that all carry their size
/// (the AV1 RTP specification 4.4, 5). Size and "key" when it begins a new coded video sequence.
pub(super) fn join<'a>(
    payloads: impl Iterator<Item = &'a [u8]>,
    out: &mut Vec<u8>,
) -> Result<Option<Option<(u32, u32)>>, IncompleteFrame> {
    out.extend_from_slice(&[TEMPORAL_DELIMITER << 3 | HAS_SIZE, 0]);
    let mut key = None;
    let mut new_sequence = false;
    // An OBU whose rest comes in the next packet.
    let mut open: Option<Vec<u8>> = None;
    for (place, payload) in payloads.enumerate() {
        let aggregation = *payload.first().ok_or(IncompleteFrame)?;
        let (continues, goes_on, count) = (aggregation & 0x80 != 0, aggregation & 0x40 != 0, aggregation >> 4 & 3);
        new_sequence |= place == 0 && aggregation & 0x08 != 0;
        if continues != open.is_some() {
            return Err(IncompleteFrame);
        }
        let mut rest = &payload[1..];
        let mut element = 0;
        while !rest.is_empty() {
            element += 1;
            let has_length = count == 0 || element < count;
            let data;
            (data, rest) = if has_length {
                let (length, took) = leb128(rest).ok_or(IncompleteFrame)?;
                (
                    rest.get(took..took.checked_add(length).ok_or(IncompleteFrame)?).ok_or(IncompleteFrame)?,
                    &rest[took + length..],
                )
            } else {
                (rest, &[][..])
            };
            let mut obu = if element == 1 { open.take().unwrap_or_default() } else { Vec::new() };
            obu.extend_from_slice(data);
            if rest.is_empty() && goes_on {
                open = Some(obu);
            } else {
                put(&obu, out, &mut key)?;
            }
        }
        if count != 0 && element != count {
            return Err(IncompleteFrame);
        }
    }
    if open.is_some() {
        return Err(IncompleteFrame);
    }
    // Without its sequence header a "new sequence" cannot be decoded from here.
    Ok(key.filter(|size| new_sequence || size.is_some_and(is_too_large)))
}

fn put(obu: &[u8], out: &mut Vec<u8>, key: &mut Option<Option<(u32, u32)>>) -> Result<(), IncompleteFrame> {
    let Some(&header) = obu.first() else { return Ok(()) };
    let mut head = 1;
    if header & HAS_EXTENSION != 0 {
        head = 2;
    }
    let mut body = obu.get(head..).ok_or(IncompleteFrame)?;
    if header & HAS_SIZE != 0 {
        let (length, took) = leb128(body).ok_or(IncompleteFrame)?;
        body = body.get(took..took.checked_add(length).ok_or(IncompleteFrame)?).ok_or(IncompleteFrame)?;
    }
    let kind = header >> 3 & 15;
    if kind == TEMPORAL_DELIMITER || kind == TILE_LIST {
        return Ok(());
    }
    if kind == SEQUENCE_HEADER {
        *key = Some(SequenceHeader::read(body).map(|header| header.size));
    }
    out.push(header | HAS_SIZE);
    out.extend_from_slice(&obu[1..head]);
    put_leb128(out, body.len());
    out.extend_from_slice(body);
    Ok(())
}
