//! What the walkers of all containers answer: the head of a file, one unit of media, or that more bytes are needed.
//! Holds no state; the reads block the calling thread.

use std::io;

use bytes::Bytes;

use crate::SpoolReader;

/// Descriptions of codecs and tags take some kilobytes; a `moof` of a second takes some more.
pub(super) const MAX_HEAD_BYTES: u64 = 1 << 20;

/// One unit of a container, whole.
pub(super) struct Unit {
    /// First byte behind it.
    pub(super) end: u64,
    /// Another file can be decoded from it: each track in it begins with a keyframe and, in an MP4, no video track is
    /// missing.
    pub(super) key: bool,
    /// Another file may begin with it.
    pub(super) start: bool,
}

/// Result of one step of a walk.
pub(super) enum Step {
    /// A unit that is whole.
    Unit(Unit),
    /// More of the file is needed.
    Wait,
    /// No media follows, or nothing that is known here.
    End,
}

/// What stands before the first unit.
pub(super) enum Head {
    /// What players need in front of any unit, and where the first unit of this file begins.
    Found { bytes: Bytes, end: u64 },
    /// More of the file is needed.
    Wait,
    /// Not a file of ours.
    Unknown,
}

/// Exactly `N` bytes, if the file is sealed so far.
pub(super) fn peek<const N: usize>(reader: &SpoolReader, at: u64, sealed_to: u64) -> io::Result<Option<[u8; N]>> {
    if at + N as u64 > sealed_to {
        return Ok(None);
    }
    Ok(<[u8; N]>::try_from(&reader.read(at..at + N as u64)?[..]).ok())
}
