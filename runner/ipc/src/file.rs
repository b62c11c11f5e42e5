//! A spool file as the media process writes it: a muxer's writes go in at any position, bytes of a regular file come out,
//! and how many of them are final. Runs in the muxer's thread and blocks for as long as the disk does. It never truncates,
//! never follows a link, and never writes to a file that has bytes already.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::OFlags;
use rustix::io::Errno;
use spillway_plan::Container;

use crate::FileId;

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
    written: Arc<WriteProgress>,
}

/// How far a spool file is; readable from any thread, also after the file is closed.
#[derive(Debug, Default)]
pub struct WriteProgress {
    end: AtomicU64,
    sealed_to: AtomicU64,
}

impl WriteProgress {
    /// Bytes of the file.
    pub fn end(&self) -> u64 {
        self.end.load(Ordering::Acquire)
    }

    /// Bytes before this one are final, except those of the head.
    pub fn sealed_to(&self) -> u64 {
        self.sealed_to.load(Ordering::Acquire)
    }
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

    /// Makes a new file of a format that only appends, such as MPEG-TS, which only this user can read.
    ///
    /// # Errors
    /// The operating system's; `AlreadyExists` where something lies there. A retry is right only after
    /// [`SpoolError::is_full`].
    pub fn create_append_only(path: &Path) -> Result<Self, SpoolError> {
        let file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .custom_flags(NO_SURPRISES)
            .open(path)
            .map_err(|source| SpoolError::Create { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), file, seal: SealTracker::append_only(), written: Arc::default() })
    }

    fn over(file: File, path: &Path, container: Container) -> Self {
        Self { path: path.to_owned(), file, seal: SealTracker::new(container), written: Arc::default() }
    }

    /// Writes behind everything written so far.
    ///
    /// # Errors
    /// As [`SpoolFile::write_at`].
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), SpoolError> {
        self.write_at(self.seal.end(), bytes)
    }

    /// Writes `bytes` at position `at`, over what was written before or beyond its end.
    ///
    /// # Errors
    /// The operating system's. Some of `bytes` may be in the file; the same write may be tried again, which is of use
    /// only after [`SpoolError::is_full`].
    pub fn write_at(&mut self, at: u64, bytes: &[u8]) -> Result<(), SpoolError> {
        self.file.write_all_at(bytes, at).map_err(|source| SpoolError::Write {
            path: self.path.clone(),
            at,
            bytes: bytes.len(),
            source,
        })?;
        self.seal.wrote(at, bytes);
        self.written.sealed_to.store(self.seal.sealed_to(), Ordering::Release);
        self.written.end.store(self.seal.end(), Ordering::Release);
        Ok(())
    }

    /// Bytes of the file.
    pub fn end(&self) -> u64 {
        self.seal.end()
    }

    /// How far it is, for `MediaEvent::Wrote`.
    pub fn written(&self) -> Arc<WriteProgress> {
        self.written.clone()
    }
}

/// Which bytes of a file that is still being written are final. Pure: a muxer's writes go in, a position comes out.
///
/// Bytes `head()..sealed_to()` will not change any more. The first `head()` bytes are rewritten once, when
/// the file ends.
///
/// Muxers append, and go back only to fill in a size they did not know: of the open fragment (MP4) or cluster (WebM).
/// So everything before the open one is final.
#[derive(Clone, Debug)]
pub struct SealTracker {
    /// `None`: everything is appended.
    container: Option<Container>,
    end: u64,
    /// Start of the fragment or cluster whose size is not known yet.
    open: Option<u64>,
    /// The largest answer ever given: it only grows.
    sealed_to: u64,
}

impl SealTracker {
    /// For an empty file of this container.
    pub fn new(container: Container) -> Self {
        Self { container: Some(container), end: 0, open: None, sealed_to: 0 }
    }

    /// For an empty file of which nothing is ever written twice.
    pub fn append_only() -> Self {
        Self { container: None, end: 0, open: None, sealed_to: 0 }
    }

    /// Bytes at the start that are written once more when the recording ends.
    pub fn head(&self) -> u64 {
        match self.container {
            // `ftyp`, then size and type of the box that covers all media.
            Some(Container::Mp4) => 48,
            // Segment size, seek head and duration: all in front of the first cluster.
            Some(Container::Webm) => 1024,
            // The frame count.
            Some(Container::Ivf) => 32,
            // The Xing frame.
            Some(Container::Mp3) => 256,
            Some(Container::Ogg) | None => 0,
        }
    }

    /// `bytes` were written at `at`.
    pub fn wrote(&mut self, at: u64, bytes: &[u8]) {
        let end = at + bytes.len() as u64;
        if at >= self.end {
            // Inside an open one nothing opens: media data may look like anything.
            if self.open.is_none() && self.opens(bytes) {
                self.open = Some(at);
            }
        } else if self.open.is_some_and(|open| at < open + 16 && end > open) {
            self.open = None;
        }
        self.end = self.end.max(end);
        self.sealed_to = self.sealed_to.max(self.open.unwrap_or(self.end));
    }

    /// Bytes of the file.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Bytes before this one are final, except those of the head.
    pub fn sealed_to(&self) -> u64 {
        self.sealed_to
    }

    fn opens(&self, bytes: &[u8]) -> bool {
        match self.container {
            // The muxer pushes such a head as a buffer of its own, 16 bytes: `mdat` with a long size, or `free` + `mdat`.
            Some(Container::Mp4) => {
                bytes.len() == 16 && (&bytes[4..8] == b"mdat" || (&bytes[4..8] == b"free" && &bytes[12..16] == b"mdat"))
            }
            Some(Container::Webm) => bytes.starts_with(&[0x1F, 0x43, 0xB6, 0x75]),
            Some(Container::Ogg | Container::Ivf | Container::Mp3) | None => false,
        }
    }
}

#[cfg(test)]
mod tests;
