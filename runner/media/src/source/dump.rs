//! Everything that arrived, in a file: what a strange recording is examined with, and what tests replay.
//!
//! After a line that names the format: records of two little-endian `u32` lengths, a JSON line and a packet's payload.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::receive::event::{RoomEvent, SourceTime};

const MAGIC: &[u8] = b"spillway arrivals 1\n";
/// No JSON line and no payload of ours is longer; a broken file must not ask for gigabytes.
const LONGEST: u32 = 1 << 20;

/// One thing that arrived.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DumpRecord {
    /// Nanoseconds since the source began.
    at: u64,
    /// What it was.
    pub what: DumpItem,
}

/// What a receiver was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DumpItem {
    /// Something arrived.
    Event(RoomEvent),
    /// Time passed.
    Tick,
    /// Nothing more arrives.
    Finish,
}

impl DumpRecord {
    /// Arrived at `at`.
    pub fn new(at: SourceTime, what: DumpItem) -> Self {
        Self { at: at.as_nanos() as u64, what }
    }

    /// When it arrived.
    pub fn at(&self) -> SourceTime {
        Duration::from_nanos(self.at)
    }
}

/// A dump that is being written, through a buffer.
pub struct Dump {
    file: BufWriter<File>,
}

impl Dump {
    /// Overwrites a file that is there.
    ///
    /// # Errors
    ///
    /// On errors of the file system.
    pub fn create(path: &Path) -> io::Result<Self> {
        let mut file = BufWriter::with_capacity(1 << 18, File::create(path)?);
        file.write_all(MAGIC)?;
        Ok(Self { file })
    }

    /// Appends a record.
    ///
    /// # Errors
    ///
    /// On errors of the file system. The dump is of no use after it.
    pub fn keep(&mut self, record: &DumpRecord) -> io::Result<()> {
        let message = serde_json::to_vec(record).map_err(io::Error::other)?;
        let payload = match &record.what {
            DumpItem::Event(RoomEvent::Packet { payload, .. }) => payload.as_ref(),
            _ => &[],
        };
        for length in [message.len(), payload.len()] {
            let length = u32::try_from(length).map_err(io::Error::other)?;
            self.file.write_all(&length.to_le_bytes())?;
        }
        self.file.write_all(&message)?;
        self.file.write_all(payload)
    }

    /// Writes what is still buffered.
    ///
    /// # Errors
    ///
    /// On errors of the file system.
    pub fn finish(mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Reads a dump from its beginning.
pub struct DumpReader {
    file: BufReader<File>,
}

impl DumpReader {
    /// Reads the first line.
    ///
    /// # Errors
    ///
    /// On errors of the file system, or when the file is no dump (`InvalidData`).
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut file = BufReader::with_capacity(1 << 18, File::open(path)?);
        let mut magic = [0; MAGIC.len()];
        file.read_exact(&mut magic)?;
        if magic != MAGIC {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not a dump of arrivals"));
        }
        Ok(Self { file })
    }

    /// `None` at the end, also in the middle of a record whose writer died.
    ///
    /// # Errors
    ///
    /// On errors of the file system, or when a record is broken (`InvalidData`).
    pub fn record(&mut self) -> io::Result<Option<DumpRecord>> {
        let mut lengths = [[0u8; 4]; 2];
        for length in &mut lengths {
            match self.file.read_exact(length) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
                done => done?,
            }
        }
        let (Some(message), Some(data)) = (self.take(lengths[0])?, self.take(lengths[1])?) else { return Ok(None) };
        let mut record: DumpRecord = serde_json::from_slice(&message)?;
        if let DumpItem::Event(RoomEvent::Packet { payload, .. }) = &mut record.what {
            *payload = Bytes::from(data);
        }
        Ok(Some(record))
    }

    fn take(&mut self, length: [u8; 4]) -> io::Result<Option<Vec<u8>>> {
        let length = u32::from_le_bytes(length);
        if length > LONGEST {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a record of impossible length"));
        }
        let mut data = vec![0; length as usize];
        match self.file.read_exact(&mut data) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            done => done.map(|()| Some(data)),
        }
    }
}
