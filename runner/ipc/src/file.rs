//! A spool file as the media process writes it: a muxer's writes go in at any position, bytes of a regular file come out.
//! Runs in the muxer's thread and blocks for as long as the disk does. It never truncates, never follows a link, and never
//! writes to a file that has bytes already.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::io::Errno;
use spillway_plan::Container;

use crate::{FileId, SealTracker};

/// Symbolic links are not followed, and opening a pipe waits for no reader.
pub(crate) const NO_SURPRISES: i32 = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).bits().cast_signed();

/// Why a spool file was not made or not written.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The file was not opened, or what lies there is not an empty regular file.
    #[error("create {}", path.display())]
    Create {
        /// As it was asked for.
        path: PathBuf,
        /// The operating system's error, or the reason for the refusal.
        source: io::Error,
    },
    /// A write failed; some of its bytes may be in the file.
    #[error("write {} bytes at {at} of {}", bytes, path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Position of the first byte.
        at: u64,
        /// Length of the write.
        bytes: usize,
        /// The operating system's error.
        source: io::Error,
    },
}

impl SpoolError {
    /// No room: disk, quota or maximum file size. What was written before is kept and can be played.
    pub fn is_full(&self) -> bool {
        let (Self::Create { source, .. } | Self::Write { source, .. }) = self;
        [Errno::NOSPC, Errno::DQUOT, Errno::FBIG]
            .iter()
            .any(|errno| source.raw_os_error() == Some(errno.raw_os_error()))
    }
}

/// A file of muxed bytes. Every byte goes to the kernel at once (`pwrite`), so it outlives the media process; it is not
/// flushed to the disk.
#[derive(Debug)]
pub struct SpoolFile {
    path: PathBuf,
    file: File,
    seal: SealTracker,
}

impl SpoolFile {
    /// Opens the empty file `path`; creates it without `id`, and with `id` opens exactly that file.
    ///
    /// # Errors
    /// What lies there is no regular file, has bytes already (they are never truncated), or is not the file `id`; else
    /// the operating system's. A retry is right only after [`SpoolError::is_full`].
    pub fn claimed(path: &Path, id: Option<FileId>, container: Container) -> Result<Self, SpoolError> {
        let failed = |source| SpoolError::Create { path: path.to_owned(), source };
        let refused = |reason: &str| failed(io::Error::new(io::ErrorKind::AlreadyExists, reason));
        let file = File::options()
            .read(true)
            .write(true)
            .create(id.is_none())
            .custom_flags(NO_SURPRISES)
            .open(path)
            .map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Err(refused("not a regular file"));
        }
        if id.is_some_and(|id| id != FileId::of(&metadata)) {
            return Err(refused("another file has taken its place"));
        }
        if metadata.len() > 0 {
            return Err(refused("there is a file of that name"));
        }
        Ok(Self::over(file, path, container))
    }

    /// Opens `path`, a new file or an empty one that is there.
    ///
    /// # Errors
    /// As [`SpoolFile::claimed`].
    pub fn create(path: &Path, container: Container) -> Result<Self, SpoolError> {
        Self::claimed(path, None, container)
    }

    fn over(file: File, path: &Path, container: Container) -> Self {
        Self { path: path.to_owned(), file, seal: SealTracker::new(container) }
    }

    /// Writes behind everything written so far. Answers as [`SpoolFile::write_at`].
    ///
    /// # Errors
    /// As [`SpoolFile::write_at`].
    pub fn append(&mut self, bytes: &[u8]) -> Result<Range<u64>, SpoolError> {
        self.write_at(self.seal.end(), bytes)
    }

    /// Overwrites what was written before. Reaching beyond the end is allowed and appends.
    ///
    /// # Errors
    /// As [`SpoolFile::write_at`].
    pub fn rewrite(&mut self, at: u64, bytes: &[u8]) -> Result<Range<u64>, SpoolError> {
        self.write_at(at, bytes)
    }

    /// Writes `bytes` at position `at`. Answers the sealed bytes that were changed, see [`SealTracker::wrote`].
    ///
    /// # Errors
    /// The operating system's. Some of `bytes` may be in the file; the same write may be tried again, which is of use
    /// only after [`SpoolError::is_full`].
    pub fn write_at(&mut self, at: u64, bytes: &[u8]) -> Result<Range<u64>, SpoolError> {
        self.file.write_all_at(bytes, at).map_err(|source| SpoolError::Write {
            path: self.path.clone(),
            at,
            bytes: bytes.len(),
            source,
        })?;
        Ok(self.seal.wrote(at, bytes))
    }

    /// Where the file lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of the file, for `MediaEvent::Wrote`.
    pub fn end(&self) -> u64 {
        self.seal.end()
    }

    /// Bytes before this one are final, except those of the head; for `MediaEvent::Wrote`.
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
        let mut file = SpoolFile::create(&path, Container::Ogg).unwrap();
        file.append(b"hello ").unwrap();
        file.append(b"World").unwrap();
        file.rewrite(6, b"w").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"hello world");
        assert_eq!((file.end(), file.sealed_to()), (11, 11));
    }

    #[test]
    fn what_lies_there_is_never_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("older"), "an older recording").unwrap();
        std::fs::write(path("empty"), "").unwrap();
        std::os::unix::fs::symlink("older", path("link")).unwrap();
        std::os::unix::fs::symlink("empty", path("link-to-empty")).unwrap();
        std::os::unix::fs::symlink("nothing", path("dangling")).unwrap();
        let fifo = std::process::Command::new("mkfifo").arg(path("fifo")).status().unwrap();
        assert!(fifo.success());
        for name in ["older", "link", "link-to-empty", "dangling", "fifo"] {
            assert!(SpoolFile::create(&path(name), Container::Ogg).is_err(), "{name}");
        }
        let error = SpoolFile::create(Path::new("/dev/null"), Container::Ogg).unwrap_err();
        assert!(matches!(&error, SpoolError::Create { source, .. } if source.to_string() == "not a regular file"));
        assert_eq!(std::fs::read(path("older")).unwrap(), b"an older recording");
        assert!(!path("nothing").exists());

        let id = FileId::of(&std::fs::metadata(path("empty")).unwrap());
        assert!(SpoolFile::claimed(&path("new"), Some(id), Container::Ogg).is_err(), "not made");
        std::fs::write(path("other"), "").unwrap();
        assert!(SpoolFile::claimed(&path("other"), Some(id), Container::Ogg).is_err(), "another file");
        SpoolFile::claimed(&path("empty"), Some(id), Container::Ogg).unwrap().append(b"ours").unwrap();
        assert_eq!(std::fs::read(path("empty")).unwrap(), b"ours");
    }

    #[test]
    fn a_full_disk_is_a_value() {
        let path = Path::new("/dev/full");
        let mut file = SpoolFile::over(File::options().write(true).open(path).unwrap(), path, Container::Mp4);
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
