//! WebM as GStreamer's muxer makes it for a sink that can seek: everything that describes before the first cluster, then
//! clusters with the time of the whole file in each, then the index (RFC 9559).
//! Reads element headers and the flags of the first block of each track.

use std::io;

use super::unit::{Head, MAX_HEAD_BYTES, Step, Unit, peek};
use crate::SpoolReader;

const EBML: [u8; 4] = [0x1A, 0x45, 0xDF, 0xA3];
const SEGMENT: [u8; 4] = [0x18, 0x53, 0x80, 0x67];
const CLUSTER: [u8; 4] = [0x1F, 0x43, 0xB6, 0x75];
/// An element that goes to the end of the file, whose size has eight bytes.
const UNKNOWN: [u8; 8] = [1, 255, 255, 255, 255, 255, 255, 255];
const BLOCK_GROUP: u32 = 0xA0;
const SIMPLE_BLOCK: u32 = 0xA3;
const KEY: u8 = 0x80;

/// A size of variable length (RFC 8794, 4.4) without its length marker: value and bytes; `None`: not there yet.
fn size(reader: &SpoolReader, at: u64, sealed_to: u64) -> io::Result<Option<(u64, u64)>> {
    let Some([first]) = peek::<1>(reader, at, sealed_to)? else { return Ok(None) };
    let length = u64::from(first.leading_zeros()) + 1;
    if length > 8 || at + length > sealed_to {
        return Ok(None);
    }
    let bytes = reader.read(at..at + length)?;
    let raw = bytes.iter().fold(0u64, |number, byte| number << 8 | u64::from(*byte));
    let mark = 1u64 << (7 * length);
    Ok(Some((raw & (mark - 1), length)))
}

pub(super) fn head(reader: &SpoolReader, sealed_to: u64) -> io::Result<Head> {
    let mut at = 0;
    let mut segment = None;
    loop {
        let Some(id) = peek::<4>(reader, at, sealed_to)? else { return Ok(Head::Wait) };
        if at == 0 && id != EBML || at > MAX_HEAD_BYTES {
            return Ok(Head::Unknown);
        }
        if id == CLUSTER {
            break;
        }
        let id_length = u64::from(id[0].leading_zeros()) + 1;
        if id_length > 4 {
            return Ok(Head::Unknown);
        }
        let Some((content, length)) = size(reader, at + id_length, sealed_to)? else { return Ok(Head::Wait) };
        at += id_length + length;
        if id == SEGMENT {
            segment = Some((at - length, length));
        } else {
            at += content;
        }
    }
    let mut bytes = reader.read(0..at)?.to_vec();
    let Some((from, 8)) = segment else { return Ok(Head::Unknown) };
    bytes[from as usize..from as usize + 8].copy_from_slice(&UNKNOWN);
    Ok(Head::Found { bytes: bytes.into(), end: at })
}

pub(super) fn unit(reader: &SpoolReader, at: u64, sealed_to: u64) -> io::Result<Step> {
    let Some(id) = peek::<4>(reader, at, sealed_to)? else { return Ok(Step::Wait) };
    if id != CLUSTER {
        return Ok(Step::End);
    }
    let Some((content, length)) = size(reader, at + 4, sealed_to)? else { return Ok(Step::Wait) };
    let begin = at + 4 + length;
    let Some(end) = begin.checked_add(content).filter(|end| *end <= sealed_to) else { return Ok(Step::Wait) };
    let key = begins_with_key_frames(reader, begin, end)?;
    Ok(Step::Unit(Unit { end, key, start: true }))
}

/// The first block of each track. The muxer puts no block but the last of a track into a group.
fn begins_with_key_frames(reader: &SpoolReader, mut at: u64, end: u64) -> io::Result<bool> {
    let mut tracks: Vec<u64> = vec![];
    while at < end && tracks.len() < 2 {
        let Some([first]) = peek::<1>(reader, at, end)? else { break };
        let id_length = u64::from(first.leading_zeros()) + 1;
        if id_length > 4 {
            break;
        }
        let id = reader.read(at..(at + id_length).min(end))?;
        let id = id.iter().fold(0u32, |id, byte| id << 8 | u32::from(*byte));
        let Some((content, length)) = size(reader, at + id_length, end)? else { break };
        at += id_length + length;
        if id == SIMPLE_BLOCK
            && let Some((track, length)) = size(reader, at, end)?
            && let Some([_, _, flags]) = peek::<3>(reader, at + length, end)?
            && !tracks.contains(&track)
        {
            if flags & KEY == 0 {
                return Ok(false);
            }
            tracks.push(track);
        }
        if id == BLOCK_GROUP {
            break;
        }
        at += content;
    }
    Ok(true)
}
