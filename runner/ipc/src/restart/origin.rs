//! What an object consists of when it does not begin where its file does, and its bytes: a head of its own, then the file
//! from a restart point on, with the offsets of an MP4 changed. Pure but for reads of the spool, which block.

use std::io;
use std::ops::Range;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::unit::BaseDataOffset;
use crate::SpoolReader;

/// Source of an object's bytes. The default is the file itself. It is stored in the checkpoint, the head as base64.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Bytes in front of the file's; empty when the object is the file itself, and for MP3, whose frames need no head.
    #[serde(with = "base64_text")]
    pub head: Bytes,
    /// Bytes of the file before this one are not part of the object.
    pub from: u64,
}

impl Origin {
    /// The object is the file itself.
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

    /// Bytes `range` of the object. `offsets`: at least those of that range
    /// ([`RestartPoints::offsets_in`](super::RestartPoints::offsets_in)); they are changed to name positions in the object.
    ///
    /// # Errors
    /// The file was not read or is shorter; a retry is right only where the disk's error passes.
    pub fn read(&self, reader: &SpoolReader, range: Range<u64>, offsets: &[BaseDataOffset]) -> io::Result<Bytes> {
        if self.is_whole() {
            return reader.read(range);
        }
        let head = self.head.len() as u64;
        let of_head = range.start.min(head) as usize..range.end.min(head) as usize;
        let file = self.in_file(range.start)..self.in_file(range.end);
        let mut bytes = self.head[of_head].to_vec();
        let before = bytes.len();
        bytes.extend_from_slice(&reader.read(file.clone())?);
        for offset in offsets {
            let changed = self.in_object(offset.value).to_be_bytes();
            for (at, byte) in (offset.at..).zip(changed).filter(|(at, _)| file.contains(at)) {
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

    pub(super) fn serialize<S: Serializer>(bytes: &Bytes, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Bytes, D::Error> {
        let text = String::deserialize(from)?;
        STANDARD.decode(text).map(Bytes::from).map_err(serde::de::Error::custom)
    }
}
