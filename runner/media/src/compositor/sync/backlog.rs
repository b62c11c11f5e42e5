//! The memory bound of all inboxes of a compositor, and what lies beyond it: one sequential file without a name, so
//! that a killed process leaves nothing behind. Used from the recorder's thread (in) and the decoders' threads (out).

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use spillway_process::chain;

use super::lock::lock;

/// Bytes that wait: here, or in the spill file.
#[derive(Debug)]
pub enum BacklogEntry {
    Memory(Bytes),
    Spilled { offset: u64, len: u64 },
}

/// Counts the encoded bytes of every inbox of a compositor and decides where the next ones go.
pub struct Backlog {
    bound: u64,
    memory: AtomicU64,
    spilled: AtomicU64,
    peak: AtomicU64,
    refused: AtomicU64,
    spill: Mutex<SpillFile>,
    /// Asked for with every frame, so not under the lock that is held while the disk works.
    trouble: Mutex<Option<String>>,
}

/// What the backlog holds, in bytes, and how many frames found no place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BacklogStats {
    /// Bytes in memory.
    pub memory: u64,
    /// Bytes in the spill file.
    pub spilled: u64,
    /// The most both held together, bytes.
    pub peak: u64,
    /// Frames given up.
    pub refused_frames: u64,
}

/// What a frame is worth when there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retention {
    /// Kept whatever it costs: sound, and what is too small to matter.
    Keep,
    /// Given up when neither memory nor disk has room.
    IfRoom,
}

impl Backlog {
    /// `dir`: where the spill file goes; without one, frames beyond the bound have no place.
    pub fn new(bound: u64, dir: Option<PathBuf>) -> Self {
        Self {
            bound,
            memory: AtomicU64::new(0),
            spilled: AtomicU64::new(0),
            peak: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            spill: Mutex::new(SpillFile { dir, file: None, end: 0, outstanding: 0 }),
            trouble: Mutex::default(),
        }
    }

    /// `None`: no room in memory, and the disk refused.
    pub fn keep(&self, data: Bytes, worth: Retention) -> Option<BacklogEntry> {
        let len = data.len() as u64;
        let entry = if self.memory.load(Relaxed) + len <= self.bound {
            Some(self.in_memory(data))
        } else {
            let written = lock(&self.spill).write(&data);
            let written = self.done("the backlog could not be spilled to disk", written);
            match (written, worth) {
                (Some(offset), _) => {
                    self.spilled.fetch_add(len, Relaxed);
                    Some(BacklogEntry::Spilled { offset, len })
                }
                (None, Retention::Keep) => Some(self.in_memory(data)),
                (None, Retention::IfRoom) => {
                    self.refused.fetch_add(1, Relaxed);
                    None
                }
            }
        };
        self.peak.fetch_max(self.memory.load(Relaxed) + self.spilled.load(Relaxed), Relaxed);
        entry
    }

    /// `None`: the spill file could not be read back; the frame is lost and counted.
    pub fn give_back(&self, entry: BacklogEntry) -> Option<Bytes> {
        match entry {
            BacklogEntry::Memory(data) => {
                self.memory.fetch_sub(data.len() as u64, Relaxed);
                Some(data)
            }
            BacklogEntry::Spilled { offset, len } => {
                self.spilled.fetch_sub(len, Relaxed);
                let read = lock(&self.spill).read(offset, len);
                let data = self.done("the spilled backlog could not be read", read);
                if data.is_none() {
                    self.refused.fetch_add(1, Relaxed);
                }
                data.map(Bytes::from)
            }
        }
    }

    /// A frame its track had to give up because the frames before it found no place.
    pub fn count_refused(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    /// There is room in memory for another frame.
    pub fn has_room(&self) -> bool {
        self.memory.load(Relaxed) < self.bound
    }

    /// What went wrong with the disk since the last call.
    pub fn trouble(&self) -> Option<String> {
        lock(&self.trouble).take()
    }

    /// Counters at this moment.
    pub fn stats(&self) -> BacklogStats {
        BacklogStats {
            memory: self.memory.load(Relaxed),
            spilled: self.spilled.load(Relaxed),
            peak: self.peak.load(Relaxed),
            refused_frames: self.refused.load(Relaxed),
        }
    }

    /// Keeps a failure for [`Backlog::trouble`].
    fn done<T>(&self, failure: &str, result: io::Result<Option<T>>) -> Option<T> {
        result.unwrap_or_else(|error| {
            *lock(&self.trouble) = Some(format!("{failure}: {}", chain(&error)));
            None
        })
    }

    fn in_memory(&self, data: Bytes) -> BacklogEntry {
        self.memory.fetch_add(data.len() as u64, Relaxed);
        BacklogEntry::Memory(data)
    }
}

struct SpillFile {
    dir: Option<PathBuf>,
    file: Option<File>,
    end: u64,
    /// Bytes written and not yet read back; at zero the file starts anew.
    outstanding: u64,
}

impl SpillFile {
    /// Where it stands; `None` without a place to spill to.
    fn write(&mut self, data: &[u8]) -> io::Result<Option<u64>> {
        let Some(dir) = &self.dir else { return Ok(None) };
        let file = match &self.file {
            Some(file) => file,
            None => self.file.insert(nameless(dir)?),
        };
        file.write_all_at(data, self.end)?;
        let offset = self.end;
        self.end += data.len() as u64;
        self.outstanding += data.len() as u64;
        Ok(Some(offset))
    }

    /// `None`: nothing was written.
    fn read(&mut self, offset: u64, len: u64) -> io::Result<Option<Vec<u8>>> {
        let (Some(file), Ok(length)) = (&self.file, usize::try_from(len)) else { return Ok(None) };
        let mut data = vec![0; length];
        let read = file.read_exact_at(&mut data, offset);
        self.outstanding = self.outstanding.saturating_sub(len);
        if self.outstanding == 0 {
            self.end = 0;
            // The bytes are worth nothing any more; a file that stays long is only a waste.
            let _ = file.set_len(0);
        }
        read.map(|()| Some(data))
    }
}

fn nameless(dir: &Path) -> io::Result<File> {
    let path = dir.join(format!(".spillway-backlog-{}-{:08x}", std::process::id(), rand::random::<u32>()));
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
    fs::remove_file(&path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(fill: u8, len: usize) -> Bytes {
        Bytes::from(vec![fill; len])
    }

    #[test]
    fn beyond_the_bound_bytes_go_to_disk_and_come_back_whole() {
        let dir = tempfile::tempdir().unwrap();
        let backlog = Backlog::new(1000, Some(dir.path().to_owned()));
        let entry: Vec<_> = (0..10).map(|n| backlog.keep(frame(n, 300), Retention::IfRoom).unwrap()).collect();
        assert_eq!(backlog.stats().memory, 900);
        assert_eq!(backlog.stats().spilled, 2100);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "the file has no name");
        for (n, entry) in entry.into_iter().enumerate() {
            assert_eq!(backlog.give_back(entry).unwrap(), frame(n as u8, 300));
        }
        assert_eq!(backlog.stats(), BacklogStats { peak: 3000, ..Default::default() });
    }

    #[test]
    fn the_file_starts_anew_once_everything_was_read() {
        let dir = tempfile::tempdir().unwrap();
        let backlog = Backlog::new(0, Some(dir.path().to_owned()));
        for round in 0..3 {
            let entry = backlog.keep(frame(round, 64), Retention::IfRoom).unwrap();
            assert!(matches!(entry, BacklogEntry::Spilled { offset: 0, len: 64 }));
            assert_eq!(backlog.give_back(entry).unwrap(), frame(round, 64));
        }
    }

    #[test]
    fn without_disk_sound_is_kept_and_video_refused() {
        let backlog = Backlog::new(100, Some(PathBuf::from("/proc/nowhere")));
        assert!(backlog.keep(frame(1, 100), Retention::IfRoom).is_some());
        assert!(backlog.keep(frame(2, 1), Retention::IfRoom).is_none());
        assert!(backlog.keep(frame(3, 50), Retention::Keep).is_some());
        assert_eq!(backlog.stats().refused_frames, 1);
        assert!(backlog.trouble().unwrap().contains("could not be spilled"));
        assert_eq!(backlog.trouble(), None);
    }
}
