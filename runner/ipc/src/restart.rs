//! Where in a growing file another one could begin: the units of each container (fragment, cluster, page, frame), found
//! by walking the spool behind the media process, and the head that players need in front of them.
//!
//! Comes in: sealed ranges of a [`SpoolReader`], ascending. Goes out: restart points, the head, and the offsets of an MP4
//! that name positions in the file. Runs in the calling thread, blocks for a few small reads of pages that were just
//! written, and never reads media but for the flags of keyframes.

mod unit;
mod ebml;
mod mp4;
mod plain;

use std::collections::VecDeque;
use std::io;
use std::ops::Range;

use bytes::Bytes;
use spillway_plan::Container;

use crate::{BaseDataOffset, Origin, SpoolReader};
use unit::{Head, Step, Unit};

/// Between two restart points that are remembered; what lies between them is lost with the one before.
const SPACING: u64 = 16 << 10;
/// Behind the last unit stands at most an index: 2.9 MB of an MP4 for each hour (measured, mp4mux).
const MAX_INDEX_BYTES: u64 = 256 << 20;
/// A fragment or cluster of a second; what is longer is none of ours.
const MAX_UNIT_BYTES: u64 = 16 << 20;

/// Bytes of a `base_data_offset`.
const OFFSET_BYTES: u64 = 8;

/// Another file may begin here.
#[derive(Clone, Copy, Debug)]
struct Start {
    at: u64,
    key: bool,
}

/// Follows one file while it grows.
#[derive(Debug)]
pub struct RestartPoints {
    container: Container,
    head: Option<Bytes>,
    walked_to: u64,
    /// Nothing behind `walked_to` is understood.
    ended: bool,
    starts: VecDeque<Start>,
    /// Ascending; those of ranges that are stored and given back are gone.
    offsets: VecDeque<BaseDataOffset>,
}

impl RestartPoints {
    /// For a file of this container, from its first byte on.
    pub fn new(container: Container) -> Self {
        Self { container, head: None, walked_to: 0, ended: false, starts: VecDeque::new(), offsets: VecDeque::new() }
    }

    /// Continues at the restart point `origin.from`, in another process. Offsets before that point stay unknown.
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
            let Some(head) = &self.head else {
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
            };
            let at = self.walked_to;
            let step = match self.container {
                Container::Mp4 => mp4::unit(reader, at, sealed_to, head, &mut self.offsets)?,
                Container::Webm => ebml::unit(reader, at, sealed_to, head)?,
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

    /// The last point not behind `limit` at which another file can begin; with a keyframe if one is among the last
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

    /// Offsets of which at least one byte lies in `range` of the file, ascending.
    pub fn offsets_in(&self, range: Range<u64>) -> Vec<BaseDataOffset> {
        let first = self.offsets.partition_point(|offset| offset.at + OFFSET_BYTES <= range.start);
        self.offsets.iter().skip(first).take_while(|offset| offset.at < range.end).copied().collect()
    }

    /// From where on the file has to stay so that another can begin with it, when all before `stored_to` is in the store
    /// for good. `None`: no other can, because its units are not known.
    pub fn keep_from(&self, stored_to: u64, key_within: u64) -> Option<u64> {
        let lost_track = stored_to > self.walked_to + if self.ended { MAX_INDEX_BYTES } else { MAX_UNIT_BYTES };
        if lost_track || self.ended && self.head.is_none() {
            None
        } else {
            Some(self.before(stored_to, key_within).unwrap_or(0))
        }
    }

    /// No restart point before this byte will be asked for any more.
    pub fn forget_starts(&mut self, before: u64) {
        while self.starts.front().is_some_and(|start| start.at < before) {
            self.starts.pop_front();
        }
    }

    /// Bytes `range` of the file are never read again, and so no offset that lies wholly in it is needed. One that only
    /// begins there is: its last bytes belong to the next part.
    pub fn forget_offsets(&mut self, range: Range<u64>) {
        self.offsets.retain(|offset| offset.at < range.start || offset.at + OFFSET_BYTES > range.end);
    }
}

#[cfg(test)]
mod tests;
