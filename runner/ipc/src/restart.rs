//! Where in a growing file another one could begin: the units of each container (fragment, cluster, page, frame), found
//! by walking the spool behind the media process, and the head that players need in front of them.
//!
//! Comes in: sealed ranges of a [`SpoolReader`], ascending. Goes out: restart points, the head, and which bytes of an MP4 name
//! places in the file. Runs wherever its caller does, blocks for a few small reads of pages that were just written, and
//! never reads media but for the flags of key frames.

mod ebml;
mod mp4;
mod plain;

use std::collections::VecDeque;
use std::io;
use std::ops::Range;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use spillway_plan::Container;

use crate::SpoolReader;

/// Between two restart points that are remembered; what lies between them is lost with the one before.
const SPACING: u64 = 16 << 10;
/// Behind the last unit stands at most an index: 2.9 MB of an MP4 for each hour (measured, mp4mux).
const LONGEST_INDEX: u64 = 256 << 20;
/// A fragment or cluster of a second; what is longer is none of ours.
const LONGEST_UNIT: u64 = 16 << 20;
/// Descriptions of codecs and tags take some kilobytes; a `moof` of a second takes some more.
const LONGEST_HEAD: u64 = 1 << 20;

/// What an object is made of that does not begin where its file does: a head of its own, and the file from a restart point
/// on. The default is the file itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    #[serde(with = "base64_text")]
    pub head: Bytes,
    /// Bytes of the file before this one are not part of the object.
    pub from: u64,
}

impl Origin {
    pub fn is_whole(&self) -> bool {
        self.from == 0 && self.head.is_empty()
    }

    /// Where byte `at` of the file is in the object; the head's end for what lies before `from`.
    pub fn in_object(&self, at: u64) -> u64 {
        self.head.len() as u64 + at.saturating_sub(self.from)
    }

    /// Where byte `at` of the object is in the file; `from` for what lies in the head.
    pub fn in_file(&self, at: u64) -> u64 {
        self.from + at.saturating_sub(self.head.len() as u64)
    }

    /// Bytes `range` of the object. `places`: where in the file an MP4 names a place of it ([`RestartPoints::places_in`]);
    /// these are moved with it.
    ///
    /// # Errors
    /// The file was not read or is shorter; a retry is of use only where the disk's error passes.
    pub fn read(&self, reader: &SpoolReader, range: Range<u64>, places: &[u64]) -> io::Result<Bytes> {
        if self.is_whole() {
            return reader.read(range);
        }
        let head = self.head.len() as u64;
        let of_head = range.start.min(head) as usize..range.end.min(head) as usize;
        let file = self.in_file(range.start)..self.in_file(range.end);
        let mut bytes = self.head[of_head].to_vec();
        let before = bytes.len();
        bytes.extend_from_slice(&reader.read(file.clone())?);
        for place in places.iter().filter(|place| **place + 8 > file.start && **place < file.end) {
            let named = reader.read(*place..*place + 8)?;
            let Ok(named) = <[u8; 8]>::try_from(&named[..]) else { continue };
            let moved = self.in_object(u64::from_be_bytes(named)).to_be_bytes();
            for (at, byte) in (*place..).zip(moved).filter(|(at, _)| file.contains(at)) {
                bytes[before + (at - file.start) as usize] = byte;
            }
        }
        Ok(bytes.into())
    }
}

mod base64_text {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use bytes::Bytes;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(bytes: &Bytes, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&STANDARD.encode(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Bytes, D::Error> {
        let text = String::deserialize(from)?;
        STANDARD.decode(text).map(Bytes::from).map_err(serde::de::Error::custom)
    }
}

/// One unit of a container, whole.
struct Unit {
    end: u64,
    /// Begins with pictures that need none before them, or has none.
    key: bool,
    /// Another file may begin with it.
    start: bool,
}

enum Step {
    Unit(Unit),
    /// More of the file is needed.
    Wait,
    /// No media follows, or nothing that is known here.
    End,
}

#[derive(Clone, Copy, Debug)]
struct Start {
    at: u64,
    key: bool,
}

/// Follows one file.
#[derive(Debug)]
pub struct RestartPoints {
    container: Container,
    head: Option<Bytes>,
    walked_to: u64,
    ended: bool,
    starts: VecDeque<Start>,
    places: VecDeque<u64>,
}

impl RestartPoints {
    pub fn new(container: Container) -> Self {
        Self { container, head: None, walked_to: 0, ended: false, starts: VecDeque::new(), places: VecDeque::new() }
    }

    /// Goes on at a restart point of `origin`, in another process.
    pub fn resume(container: Container, origin: &Origin) -> Self {
        let start = Start { at: origin.from, key: true };
        Self { head: Some(origin.head.clone()), walked_to: origin.from, starts: [start].into(), ..Self::new(container) }
    }

    /// Walks all units that are whole before `sealed_to`.
    ///
    /// # Errors
    /// The file was not read; the next call goes on where this one stopped.
    pub fn advance(&mut self, reader: &SpoolReader, sealed_to: u64) -> io::Result<()> {
        while !self.ended && self.walked_to < sealed_to {
            if self.head.is_none() {
                let found = match self.container {
                    Container::Mp4 => mp4::head(reader, sealed_to)?,
                    Container::Webm => ebml::head(reader, sealed_to)?,
                    Container::Ogg => plain::ogg_head(reader, sealed_to)?,
                    Container::Ivf => plain::ivf_head(reader, sealed_to)?,
                    Container::Mp3 => plain::mp3_head(reader, sealed_to)?,
                };
                match found {
                    Head::Found { bytes, end } => (self.head, self.walked_to) = (Some(bytes), end),
                    Head::Wait => return Ok(()),
                    Head::Unknown => self.ended = true,
                }
                continue;
            }
            let at = self.walked_to;
            let step = match self.container {
                Container::Mp4 => mp4::unit(reader, at, sealed_to, &mut self.places)?,
                Container::Webm => ebml::unit(reader, at, sealed_to)?,
                Container::Ogg => plain::ogg_unit(reader, at, sealed_to)?,
                Container::Ivf => plain::ivf_unit(reader, at, sealed_to)?,
                Container::Mp3 => plain::mp3_unit(reader, at, sealed_to)?,
            };
            match step {
                Step::Unit(unit) if unit.end > at => {
                    self.remember(at, &unit);
                    self.walked_to = unit.end;
                }
                Step::Wait => return Ok(()),
                Step::Unit(_) | Step::End => self.ended = true,
            }
        }
        Ok(())
    }

    fn remember(&mut self, at: u64, unit: &Unit) {
        let wanted = self.starts.back().is_none_or(|last| at >= last.at + SPACING || unit.key && !last.key);
        if unit.start && wanted {
            self.starts.push_back(Start { at, key: unit.key });
        }
    }

    /// All units before this one are whole, and what follows is not media, is not whole yet, or is not known here.
    pub fn walked_to(&self) -> u64 {
        self.walked_to
    }

    /// The last point not behind `limit` at which another file can begin; with a key frame if one is among the last
    /// `key_within` bytes. `None`: there is none but the beginning.
    pub fn before(&self, limit: u64, key_within: u64) -> Option<u64> {
        self.head.as_ref()?;
        let mut any = None;
        let known = self.starts.partition_point(|start| start.at <= limit);
        for start in self.starts.iter().take(known).rev() {
            if start.key && limit - start.at <= key_within {
                return Some(start.at);
            }
            any = any.or(Some(start.at));
            if limit - start.at > key_within {
                break;
            }
        }
        any
    }

    /// A file that begins at a restart point.
    pub fn origin(&self, from: u64) -> Option<Origin> {
        Some(Origin { head: self.head.clone()?, from })
    }

    /// Where the file names places of itself, ascending; eight bytes each, big end first.
    pub fn places_in(&self, range: Range<u64>) -> Vec<u64> {
        let first = self.places.partition_point(|place| place + 8 <= range.start);
        self.places.iter().skip(first).take_while(|place| **place < range.end).copied().collect()
    }

    /// From where on the file has to stay so that another can begin with it, when all before `safe` is stored. `None`: that
    /// is in vain, its units are not known.
    pub fn keep_from(&self, safe: u64, key_within: u64) -> Option<u64> {
        let lost_track = safe > self.walked_to + if self.ended { LONGEST_INDEX } else { LONGEST_UNIT };
        if lost_track || self.ended && self.head.is_none() {
            None
        } else {
            Some(self.before(safe, key_within).unwrap_or(0))
        }
    }

    /// No restart point before the end of this range will be asked for any more, and no place in it.
    pub fn forget(&mut self, range: Range<u64>) {
        while self.starts.front().is_some_and(|start| start.at < range.end) {
            self.starts.pop_front();
        }
        self.places.retain(|place| !range.contains(place));
    }
}

enum Head {
    Found { bytes: Bytes, end: u64 },
    Wait,
    Unknown,
}

/// Exactly `N` bytes, if the file is sealed so far.
fn peek<const N: usize>(reader: &SpoolReader, at: u64, sealed_to: u64) -> io::Result<Option<[u8; N]>> {
    if at + N as u64 > sealed_to {
        return Ok(None);
    }
    Ok(<[u8; N]>::try_from(&reader.read(at..at + N as u64)?[..]).ok())
}

#[cfg(test)]
mod tests;
