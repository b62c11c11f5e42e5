//! Fragmented MP4 as our own writer makes it: `ftyp`, a gap, a `moov` that only describes, then `mdat` and its `moof` in
//! turns (ISO 14496-12). At the end comes a `moov` that names positions in the whole file: no other file can use it.
//! Reads box headers and `moof` boxes, never media.

use std::collections::VecDeque;
use std::io;

use super::unit::{Head, MAX_HEAD_BYTES, Step, Unit, peek};
use crate::{BaseDataOffset, SpoolReader};

const BASE_DATA_OFFSET: u32 = 0x1;
const DATA_OFFSET: u32 = 0x1;
const FIRST_FLAGS: u32 = 0x4;
const DURATION: u32 = 0x100;
const SIZE: u32 = 0x200;
const FLAGS: u32 = 0x400;
/// `sample_is_non_sync_sample`
const NOT_SYNC: u32 = 0x1_0000;

struct BoxHeader {
    name: [u8; 4],
    /// Bytes of the whole box, this header included.
    size: u64,
    /// Bytes of this header: 8, or 16 with a long size.
    front: u64,
}

/// `None`: not there yet, or its end is not known.
fn box_header(reader: &SpoolReader, at: u64, sealed_to: u64) -> io::Result<Option<BoxHeader>> {
    let Some(front) = peek::<8>(reader, at, sealed_to)? else { return Ok(None) };
    let [a, b, c, d, name @ ..] = front;
    let size = u64::from(u32::from_be_bytes([a, b, c, d]));
    let (size, front) = match size {
        0 => return Ok(None),
        1 => match peek::<8>(reader, at + 8, sealed_to)? {
            Some(long) => (u64::from_be_bytes(long), 16),
            None => return Ok(None),
        },
        size => (size, 8),
    };
    Ok(Some(BoxHeader { name, size, front }))
}

pub(super) fn head(reader: &SpoolReader, sealed_to: u64) -> io::Result<Head> {
    let mut bytes = vec![];
    let mut at = 0;
    loop {
        let Some(found) = box_header(reader, at, sealed_to)? else { return Ok(Head::Wait) };
        if found.size < found.front || at + found.size > MAX_HEAD_BYTES {
            return Ok(Head::Unknown);
        }
        let end = at + found.size;
        if end > sealed_to {
            return Ok(Head::Wait);
        }
        match &found.name {
            b"ftyp" | b"moov" => bytes.extend_from_slice(&reader.read(at..end)?),
            b"free" => {}
            _ => return Ok(Head::Unknown),
        }
        at = end;
        if &found.name == b"moov" {
            return Ok(Head::Found { bytes: bytes.into(), end });
        }
    }
}

pub(super) fn unit(
    reader: &SpoolReader,
    at: u64,
    sealed_to: u64,
    head: &[u8],
    offsets: &mut VecDeque<BaseDataOffset>,
) -> io::Result<Step> {
    let mut next = at;
    loop {
        let Some(found) = box_header(reader, next, sealed_to)? else { return Ok(Step::Wait) };
        if found.size < found.front {
            return Ok(Step::End);
        }
        let end = next + found.size;
        match &found.name {
            b"free" | b"mdat" if end > sealed_to => return Ok(Step::Wait),
            b"free" | b"mdat" => next = end,
            b"moof" if end > sealed_to => return Ok(Step::Wait),
            b"moof" if found.size > MAX_HEAD_BYTES => return Ok(Step::End),
            b"moof" => {
                let moof = reader.read(next + found.front..end)?;
                let key = scan_moof(&moof, next + found.front, &video_tracks(head), offsets);
                return Ok(Step::Unit(Unit { end, key, start: true }));
            }
            _ => return Ok(Step::End),
        }
    }
}

/// Boxes in the content of a box: name, where the content begins in `bytes`, and the content.
fn inside(bytes: &[u8]) -> impl Iterator<Item = (&[u8], usize, &[u8])> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let front = bytes.get(at..at + 8)?;
        let size = u32::from_be_bytes(front[..4].try_into().ok()?) as usize;
        let content = bytes.get(at + 8..at + size)?;
        let found = (&front[4..], at + 8, content);
        at += size;
        Some(found)
    })
}

fn number(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).map_or(0, u32::from_be_bytes)
}

/// Ids of the tracks with pictures, from a head.
fn video_tracks(head: &[u8]) -> Vec<u32> {
    let moov = inside(head).find(|(name, ..)| *name == b"moov");
    let traks = moov.into_iter().flat_map(|(_, _, moov)| inside(moov)).filter(|(name, ..)| *name == b"trak");
    let video = traks.filter(|(_, _, trak)| {
        let mdia = inside(trak).find(|(name, ..)| *name == b"mdia");
        let handler = mdia.and_then(|(_, _, mdia)| inside(mdia).find(|(name, ..)| *name == b"hdlr"));
        // Version and flags, four bytes that are zero, then the type.
        handler.is_some_and(|(_, _, hdlr)| hdlr.get(8..12) == Some(&b"vide"[..]))
    });
    let tkhd = video.filter_map(|(_, _, trak)| inside(trak).find(|(name, ..)| *name == b"tkhd"));
    // Version and flags, two times (of eight bytes in version 1), then the id.
    tkhd.map(|(_, _, tkhd)| number(tkhd, if tkhd.first() == Some(&1) { 20 } else { 12 })).collect()
}

/// Notes the base data offsets of the tracks of a `moof` whose content begins at `at`. Answers whether each track begins
/// with a sync sample, and those in `video` are all there: pictures that come after sound alone need the ones before.
fn scan_moof(moof: &[u8], at: u64, video: &[u32], offsets: &mut VecDeque<BaseDataOffset>) -> bool {
    let mut key = true;
    let mut seen = vec![];
    for (_, traf_at, traf) in inside(moof).filter(|(name, ..)| *name == b"traf") {
        let mut first = true;
        for (name, box_at, content) in inside(traf) {
            let flags = number(content, 0) & 0xFF_FFFF;
            match name {
                // Version and flags, track id, then the offset.
                b"tfhd" => {
                    seen.push(number(content, 4));
                    if flags & BASE_DATA_OFFSET != 0
                        && let Some(value) = content.get(8..16).and_then(|eight| eight.try_into().ok())
                    {
                        let at = at + (traf_at + box_at + 8) as u64;
                        offsets.push_back(BaseDataOffset { at, value: u64::from_be_bytes(value) });
                    }
                }
                b"trun" if std::mem::take(&mut first) => {
                    let skipped = 8 + if flags & DATA_OFFSET != 0 { 4 } else { 0 };
                    let of_sample = [DURATION, SIZE].iter().filter(|flag| flags & **flag != 0).count() * 4;
                    let sample_flags = match (flags & FIRST_FLAGS != 0, flags & FLAGS != 0) {
                        (true, _) => number(content, skipped),
                        (false, true) => number(content, skipped + of_sample),
                        (false, false) => 0,
                    };
                    key &= sample_flags & NOT_SYNC == 0;
                }
                _ => {}
            }
        }
    }
    key && video.iter().all(|id| seen.contains(id))
}
