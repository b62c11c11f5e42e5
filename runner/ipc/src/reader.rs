//! A spool file as the runner reads it while the media process writes it, and the objects that are made of it: ranges go
//! in, bytes come out, and stored ranges are given back to the disk as holes. Every call blocks for as long as the disk
//! does; it never changes a byte of the file that was not given back.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rustix::fs::{FallocateFlags, SeekFrom, fallocate, seek};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::file::NO_SURPRISES;

/// Holes are made of whole blocks; the rest of a range keeps its bytes.
const BLOCK: u64 = 4096;

/// A spool file, opened for reading and for punching holes. Shared between threads.
#[derive(Debug)]
pub struct SpoolReader {
    path: PathBuf,
    file: File,
    punches: std::sync::atomic::AtomicBool,
}

impl SpoolReader {
    /// Opens the file; links are not followed.
    ///
    /// # Errors
    /// The operating system's, and `InvalidInput` for what is not a regular file. A retry is right only where the
    /// disk's error passes.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::options().read(true).write(true).custom_flags(NO_SURPRISES).open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        Ok(Self { path: path.to_owned(), file, punches: true.into() })
    }

    /// Where the file lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All bytes of `range`.
    ///
    /// # Errors
    /// The operating system's; `UnexpectedEof` where the file is shorter, which a retry changes only when it has grown.
    pub fn read(&self, range: Range<u64>) -> io::Result<Bytes> {
        let length = usize::try_from(range.end.saturating_sub(range.start)).map_err(io::Error::other)?;
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, range.start)?;
        Ok(bytes.into())
    }

    /// Bytes of the file, holes included.
    ///
    /// # Errors
    /// The operating system's.
    pub fn end(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Bytes the file takes from the disk, holes excluded.
    ///
    /// # Errors
    /// The operating system's.
    pub fn used(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.blocks() * 512)
    }

    /// Gives the blocks that lie wholly in `range` back to the disk; they read as zeros afterwards. False: this file
    /// system has no holes, and is not asked again.
    ///
    /// # Errors
    /// The operating system's; the bytes stay, and a retry does no harm.
    pub fn punch(&self, range: Range<u64>) -> io::Result<bool> {
        use std::sync::atomic::Ordering::Relaxed;
        let (from, to) = (range.start.next_multiple_of(BLOCK), range.end / BLOCK * BLOCK);
        if from >= to {
            return Ok(true);
        }
        if !self.punches.load(Relaxed) {
            return Ok(false);
        }
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match fallocate(&self.file, flags, from, to - from) {
            Ok(()) => Ok(true),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                self.punches.store(false, Relaxed);
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// All of `range` was written and nothing of it was given back: media files have no holes of their own.
    ///
    /// # Errors
    /// The operating system's.
    pub fn is_whole(&self, range: Range<u64>) -> io::Result<bool> {
        if range.is_empty() {
            return Ok(true);
        }
        if self.end()? < range.end {
            return Ok(false);
        }
        Ok(seek(&self.file, SeekFrom::Hole(range.start))? >= range.end)
    }
}

/// What an object consists of when it does not begin where its file does: a head of its own, then the file from a restart
/// point on, with the offsets of an MP4 changed. The default is the file itself. It is stored in the checkpoint, the head
/// as base64.
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
    /// ([`RestartPoints::offsets_in`](crate::restart::RestartPoints::offsets_in)); they are changed to name positions in the object.
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

/// A `base_data_offset` of a `tfhd` box (ISO 14496-12, 8.8.7): eight bytes, big-endian, that name a position in the same
/// file. In an object that begins elsewhere it is changed. The value is kept here because the bytes in front of it may be
/// given back to the disk before the last of them is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BaseDataOffset {
    /// Where in the file the eight bytes begin.
    pub at: u64,
    /// The position they name.
    pub value: u64,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn file(bytes: &[u8]) -> (tempfile::TempDir, SpoolReader) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.mp4");
        std::fs::write(&path, bytes).unwrap();
        let reader = SpoolReader::open(&path).unwrap();
        (folder, reader)
    }

    #[test]
    fn stored_ranges_are_given_back_and_the_others_stay() {
        let bytes: Vec<u8> = (0..1_000_000u32).map(|at| at as u8 | 1).collect();
        let (_folder, reader) = file(&bytes);
        let before = reader.used().unwrap();
        assert!(reader.punch(100_001..900_001).unwrap());
        assert!(reader.used().unwrap() <= before - 790_000, "{before} {}", reader.used().unwrap());
        assert_eq!(reader.end().unwrap(), 1_000_000);
        assert_eq!(reader.read(0..100_001).unwrap(), &bytes[..100_001]);
        assert_eq!(reader.read(900_001..1_000_000).unwrap(), &bytes[900_001..]);
        assert!(reader.is_whole(0..100_001).unwrap());
        assert!(reader.is_whole(900_001..1_000_000).unwrap());
        assert!(!reader.is_whole(50_000..150_000).unwrap());
        assert!(!reader.is_whole(500_000..500_001).unwrap());
        assert!(!reader.is_whole(900_001..1_000_001).unwrap(), "not written yet");
        assert!(reader.read(999_999..1_000_001).is_err());
    }

    #[test]
    fn a_file_grows_while_it_is_read() {
        let (_folder, reader) = file(b"abc");
        std::fs::File::options().append(true).open(reader.path()).unwrap().write_at(b"def", 3).unwrap();
        assert_eq!(reader.read(2..6).unwrap().as_ref(), b"cdef");
    }
}
