//! WebM as our muxer makes it (GStreamer's made it in the same way): everything that describes before the first cluster,
//! then clusters with the time of the whole file in each, then the index (RFC 9559).
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
const TRACKS: u64 = 0x1654_AE6B;
const TRACK_ENTRY: u64 = 0xAE;
const TRACK_NUMBER: u64 = 0xD7;
const TRACK_TYPE: u64 = 0x83;
/// Type of a track with pictures.
const VIDEO: u64 = 1;

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

pub(super) fn unit(reader: &SpoolReader, at: u64, sealed_to: u64, head: &[u8]) -> io::Result<Step> {
    let Some(id) = peek::<4>(reader, at, sealed_to)? else { return Ok(Step::Wait) };
    if id != CLUSTER {
        return Ok(Step::End);
    }
    let Some((content, length)) = size(reader, at + 4, sealed_to)? else { return Ok(Step::Wait) };
    let begin = at + 4 + length;
    let Some(end) = begin.checked_add(content).filter(|end| *end <= sealed_to) else { return Ok(Step::Wait) };
    let key = begins_with_key_frames(reader, begin, end, &video_tracks(head))?;
    Ok(Step::Unit(Unit { end, key, start: true }))
}

/// Elements in the content of one: id and content. One of unknown size goes to the end.
fn inside(bytes: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (id, id_length) = number(rest)?;
        let (marked, size_length) = number(rest.get(id_length..)?)?;
        let content = rest.get(id_length + size_length..)?;
        let mark = 1u64 << (7 * size_length);
        let size = marked & (mark - 1);
        let end = if size == mark - 1 { content.len() } else { usize::try_from(size).ok()? };
        let found = content.get(..end)?;
        rest = &content[end..];
        Some((id, found))
    })
}

/// A number of variable length with its length marker, and its bytes.
fn number(bytes: &[u8]) -> Option<(u64, usize)> {
    let length = bytes.first()?.leading_zeros() as usize + 1;
    let all = bytes.get(..length).filter(|_| length <= 8)?;
    Some((unsigned(all), length))
}

fn unsigned(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// Content of the first element of this id.
fn first(bytes: &[u8], id: u64) -> Option<&[u8]> {
    inside(bytes).find(|(found, _)| *found == id).map(|(_, content)| content)
}

/// Numbers of the tracks with pictures, from a head.
fn video_tracks(head: &[u8]) -> Vec<u64> {
    let segment = first(head, unsigned(&SEGMENT));
    let Some(tracks) = segment.and_then(|segment| first(segment, TRACKS)) else { return vec![] };
    let entries = inside(tracks).filter(|(id, _)| *id == TRACK_ENTRY).map(|(_, entry)| entry);
    let video = entries.filter(|entry| first(entry, TRACK_TYPE).map(unsigned) == Some(VIDEO));
    video.filter_map(|entry| first(entry, TRACK_NUMBER).map(unsigned)).collect()
}

/// The first block of each track, and those in `video` are all there: pictures that come after sound alone need the ones
/// before. The muxer puts no block but the last of a track into a group.
fn begins_with_key_frames(reader: &SpoolReader, mut at: u64, end: u64, video: &[u64]) -> io::Result<bool> {
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
    Ok(video.iter().all(|track| tracks.contains(track)))
}
