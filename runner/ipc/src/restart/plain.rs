//! Containers that are a row of units with their own length in front: Ogg (RFC 3533), IVF, MP3 (ISO 11172-3, 13818-3).
//! Reads the headers of pages and frames only.

use std::io;

use bytes::Bytes;

use super::unit::{Head, MAX_HEAD_BYTES, Step, Unit, peek};
use crate::SpoolReader;

/// The first packet of this page began on the one before.
const CONTINUED: u8 = 1;

struct OggPage {
    end: u64,
    continued: bool,
    granule: u64,
}

enum Read<T> {
    Found(T),
    Wait,
    Unknown,
}

fn page(reader: &SpoolReader, at: u64, sealed_to: u64) -> io::Result<Read<OggPage>> {
    let Some(front) = peek::<27>(reader, at, sealed_to)? else { return Ok(Read::Wait) };
    if &front[..4] != b"OggS" {
        return Ok(Read::Unknown);
    }
    let table_end = at + 27 + u64::from(front[26]);
    if table_end > sealed_to {
        return Ok(Read::Wait);
    }
    let table = reader.read(at + 27..table_end)?;
    let end = table_end + table.iter().map(|length| u64::from(*length)).sum::<u64>();
    let granule = front[6..14].try_into().map_or(0, u64::from_le_bytes);
    let page = OggPage { end, continued: front[5] & CONTINUED != 0, granule };
    Ok(if end <= sealed_to { Read::Found(page) } else { Read::Wait })
}

/// Pages of headers end no sample.
pub(super) fn ogg_head(reader: &SpoolReader, sealed_to: u64) -> io::Result<Head> {
    let mut at = 0;
    loop {
        match page(reader, at, sealed_to)? {
            Read::Found(page) if page.granule != 0 && at > 0 => {
                return Ok(Head::Found { bytes: reader.read(0..at)?, end: at });
            }
            Read::Found(page) if page.granule == 0 && page.end <= MAX_HEAD_BYTES => at = page.end,
            Read::Wait => return Ok(Head::Wait),
            Read::Found(_) | Read::Unknown => return Ok(Head::Unknown),
        }
    }
}

pub(super) fn ogg_unit(reader: &SpoolReader, at: u64, sealed_to: u64) -> io::Result<Step> {
    Ok(match page(reader, at, sealed_to)? {
        Read::Found(page) => Step::Unit(Unit { end: page.end, key: true, start: !page.continued }),
        Read::Wait => Step::Wait,
        Read::Unknown => Step::End,
    })
}

pub(super) fn ivf_head(reader: &SpoolReader, sealed_to: u64) -> io::Result<Head> {
    let Some(head) = peek::<32>(reader, 0, sealed_to)? else { return Ok(Head::Wait) };
    if &head[..4] != b"DKIF" {
        return Ok(Head::Unknown);
    }
    Ok(Head::Found { bytes: Bytes::copy_from_slice(&head), end: 32 })
}

pub(super) fn ivf_unit(reader: &SpoolReader, at: u64, sealed_to: u64) -> io::Result<Step> {
    let Some(front) = peek::<12>(reader, at, sealed_to)? else { return Ok(Step::Wait) };
    let bytes = front[..4].try_into().map_or(0, u32::from_le_bytes);
    let end = at + 12 + u64::from(bytes);
    if end > sealed_to {
        return Ok(Step::Wait);
    }
    let data = reader.read(at + 12..(at + 16).min(end))?;
    let codec = reader.read(8..12)?;
    Ok(Step::Unit(Unit { end, key: is_key_frame(&codec, &data), start: true }))
}

/// RFC 6386 9.1; VP9 bitstream 6.2 for profiles 0 to 2; a sequence header behind AV1's temporal delimiter. Others: any.
fn is_key_frame(codec: &[u8], data: &[u8]) -> bool {
    match (codec, data) {
        (b"VP80", [first, ..]) => first & 1 == 0,
        (b"VP90", [first, ..]) => first & 0b1100_1100 == 0b1000_0000,
        (b"AV01", [_, _, third, ..]) => third >> 3 & 15 == 1,
        _ => true,
    }
}

/// The first frame may count the others (Xing): it belongs to the whole file. No frame needs a head.
pub(super) fn mp3_head(reader: &SpoolReader, sealed_to: u64) -> io::Result<Head> {
    Ok(match mp3_frame(reader, 0, sealed_to)? {
        Read::Found(end) => Head::Found { bytes: Bytes::new(), end },
        Read::Wait => Head::Wait,
        Read::Unknown => Head::Unknown,
    })
}

pub(super) fn mp3_unit(reader: &SpoolReader, at: u64, sealed_to: u64) -> io::Result<Step> {
    Ok(match mp3_frame(reader, at, sealed_to)? {
        Read::Found(end) => Step::Unit(Unit { end, key: true, start: true }),
        Read::Wait => Step::Wait,
        Read::Unknown => Step::End,
    })
}

/// kbit/s of layer III, by index, for MPEG 1 and for 2 and 2.5.
const RATES: [[u64; 15]; 2] = [
    [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320],
    [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
];

fn mp3_frame(reader: &SpoolReader, at: u64, sealed_to: u64) -> io::Result<Read<u64>> {
    let Some([first, second, third, _]) = peek::<4>(reader, at, sealed_to)? else { return Ok(Read::Wait) };
    let version = second >> 3 & 3;
    let (rate, frequency) = (usize::from(third >> 4), usize::from(third >> 2 & 3));
    let is_layer_three = second >> 1 & 3 == 1;
    if first != 0xFF || second < 0xE0 || version == 1 || !is_layer_three || !(1..15).contains(&rate) || frequency == 3 {
        return Ok(Read::Unknown);
    }
    let first_version = version == 3;
    let divided = match version {
        3 => 1,
        2 => 2,
        _ => 4,
    };
    let frequency = [44_100, 48_000, 32_000][frequency] / divided;
    let bits = RATES[usize::from(!first_version)][rate] * 1000;
    let samples = if first_version { 1152 } else { 576 };
    let end = at + samples / 8 * bits / frequency + u64::from(third >> 1 & 1);
    Ok(if end <= sealed_to { Read::Found(end) } else { Read::Wait })
}
