use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use spillway_plan::Container;

use crate::SealTracker;

#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    #[error("create {}", path.display())]
    Create { path: PathBuf, source: io::Error },
    #[error("write {} bytes at {at} of {}", bytes, path.display())]
    Write { path: PathBuf, at: u64, bytes: usize, source: io::Error },
}

impl SpoolError {
    /// No room: disk, quota or the largest file size. What was written so far is kept and is a recording.
    pub fn is_full(&self) -> bool {
        let (Self::Create { source, .. } | Self::Write { source, .. }) = self;
        [Errno::NOSPC, Errno::DQUOT, Errno::FBIG]
            .iter()
            .any(|errno| source.raw_os_error() == Some(errno.raw_os_error()))
    }
}

/// A file of muxed bytes, for the media process' sink. Every byte goes to the kernel at once (`pwrite`), so it outlives
/// this process; it is not flushed to the disk.
#[derive(Debug)]
pub struct SpoolFile {
    path: PathBuf,
    file: File,
    seal: SealTracker,
}

impl SpoolFile {
    /// An existing file of that name is overwritten, as livekit/egress does.
    pub fn create(path: &Path, container: Container) -> Result<Self, SpoolError> {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)
            .map_err(|source| SpoolError::Create { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), file, seal: SealTracker::new(container) })
    }

    /// Behind everything written so far.
    pub fn append(&mut self, bytes: &[u8]) -> Result<Range<u64>, SpoolError> {
        self.write_at(self.seal.end(), bytes)
    }

    /// Over what was written before. Reaching beyond the end is allowed and appends.
    pub fn rewrite(&mut self, at: u64, bytes: &[u8]) -> Result<Range<u64>, SpoolError> {
        self.write_at(at, bytes)
    }

    /// Where a muxer's sink stands. Answers the already sealed bytes that were changed, see [`SealTracker::wrote`].
    /// After an error nothing is promised about `bytes`; everything before is untouched.
    pub fn write_at(&mut self, at: u64, bytes: &[u8]) -> Result<Range<u64>, SpoolError> {
        self.file.write_all_at(bytes, at).map_err(|source| SpoolError::Write {
            path: self.path.clone(),
            at,
            bytes: bytes.len(),
            source,
        })?;
        Ok(self.seal.wrote(at, bytes))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of the file, for `Happening::Wrote`.
    pub fn end(&self) -> u64 {
        self.seal.end()
    }

    /// Bytes before this one are final but for the head, for `Happening::Wrote`.
    pub fn sealed_to(&self) -> u64 {
        self.seal.sealed_to()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_in_the_file_as_soon_as_they_are_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.ogg");
        std::fs::write(&path, "an older and longer recording").unwrap();
        let mut file = SpoolFile::create(&path, Container::Ogg).unwrap();
        file.append(b"hello ").unwrap();
        file.append(b"World").unwrap();
        file.rewrite(6, b"w").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"hello world");
        assert_eq!((file.end(), file.sealed_to()), (11, 11));
    }

    #[test]
    fn a_full_disk_is_a_value() {
        let mut file = SpoolFile::create(Path::new("/dev/full"), Container::Mp4).unwrap();
        let error = file.append(&[0; 100]).unwrap_err();
        assert!(error.is_full(), "{error}");
        assert_eq!(file.end(), 0);
    }

    #[test]
    fn a_folder_that_is_not_there_is_not_a_full_disk() {
        let error = SpoolFile::create(Path::new("/proc/nowhere/a.mp4"), Container::Mp4).unwrap_err();
        assert!(!error.is_full());
        assert_eq!(error.to_string(), "create /proc/nowhere/a.mp4");
    }
}
