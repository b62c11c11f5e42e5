//! A name on this machine's disk becomes a file of this egress and of no other. A wanted name goes in, a new empty file
//! comes out: it is made with `O_EXCL`, so of two runners that want one name, on one machine or one share, each gets a
//! file of its own, and what lay there before is never written to. Blocks for as long as the disk does: call it where
//! that is allowed, with a bound ([`within`]).

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, openat, renameat, renameat_with, statat, unlinkat};
use rustix::io::Errno;
use spillway_ipc::FileId;
use spillway_process::LocalRoot;
use tokio::task::spawn_blocking;

use super::output::{OutputError, OutputPath, numbered};

/// More files of one name than this are a mistake of the request, and looking for a free one would take long.
const MAX_NAMES: u32 = 10_000;
/// A manifest of ours has a few kilobytes.
const MAX_MANIFEST: u64 = 1 << 20;

const NEW_FILE: OFlags = OFlags::CREATE
    .union(OFlags::EXCL)
    .union(OFlags::RDWR)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::CLOEXEC);

/// A file that this egress has made, named relative to its open folder. Until it is [kept](Claim::keep) it is removed with
/// this value.
#[derive(Debug)]
pub struct Claim {
    folder: OwnedFd,
    name: String,
    file: File,
    id: FileId,
    kept: bool,
}

/// Makes the folders and the file. `filename` is what the request asks for; where a file of that name is there,
/// `name-2.mp4` is tried, and so on. The place that is answered says what it has become.
///
/// # Errors
/// The name leads out of the root, is a device, a pipe or a socket, or the disk refuses. A retry helps only where the
/// disk was full or away.
pub fn claim(filename: &str, root: &LocalRoot) -> Result<(OutputPath, Claim), OutputError> {
    let location = root.locate(filename);
    let refused = |source: io::Error| OutputError::File { path: location.clone(), source };
    let (Some(folder_path), Some(name)) = (location.parent(), location.file_name().and_then(|name| name.to_str()))
    else {
        return Err(refused(io::ErrorKind::InvalidFilename.into()));
    };
    if location == root.path() {
        // No name at all: what is made beside the root is not below it.
        return Err(refused(io::ErrorKind::InvalidFilename.into()));
    }
    let folder =
        root.make_folder(folder_path).map_err(|source| OutputError::Folder { path: folder_path.to_owned(), source })?;
    for number in 1..=MAX_NAMES {
        let tried = numbered(name, number);
        match openat(&folder, &tried, NEW_FILE, Mode::from_raw_mode(0o666)) {
            Ok(file) => {
                let file = File::from(file);
                let id = FileId::of(&file.metadata().map_err(refused)?);
                let location = folder_path.join(&tried);
                let filename = match filename.rsplit_once('/') {
                    Some((folders, _)) => format!("{folders}/{tried}"),
                    None => tried.clone(),
                };
                let place = OutputPath { filename, display: location.display().to_string(), location };
                return Ok((place, Claim { folder, name: tried, file, id, kept: false }));
            }
            Err(Errno::EXIST) => {
                if let Some(what) = special(&folder, &tried) {
                    return Err(OutputError::Special { path: folder_path.join(tried), what });
                }
            }
            Err(error) => return Err(refused(error.into())),
        }
    }
    Err(OutputError::Taken { path: location, names: MAX_NAMES })
}

/// What else than a file lies there, where a recording is certainly not wanted.
fn special(folder: &OwnedFd, name: &str) -> Option<&'static str> {
    let stat = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Fifo => Some("a pipe"),
        FileType::Socket => Some("a socket"),
        FileType::CharacterDevice | FileType::BlockDevice => Some("a device"),
        _ => None,
    }
}

impl Claim {
    /// The file stays when this value goes.
    pub fn keep(&mut self) {
        self.kept = true;
    }

    /// Identity of the file, for the media process.
    pub fn id(&self) -> FileId {
        self.id
    }

    /// Bytes of the file, whatever its name means by now.
    ///
    /// # Errors
    /// The operating system's.
    pub fn bytes(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Takes the file away, unless another one has taken its place.
    ///
    /// # Errors
    /// The operating system's; `NotFound` where there is another file or none. No retry.
    pub fn remove(&self) -> io::Result<()> {
        let there = statat(&self.folder, &self.name, AtFlags::SYMLINK_NOFOLLOW)?;
        if (there.st_dev, there.st_ino) != (self.id.device, self.id.inode) {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(unlinkat(&self.folder, &self.name, AtFlags::empty())?)
    }

    /// Writes a small file beside this one, whole or not at all, and answers its name. A file of that name that
    /// `is_ours` (an earlier attempt's) is replaced; any other stays, and the new one gets a number.
    ///
    /// # Errors
    /// The operating system's.
    pub fn write_beside(&self, name: &str, content: &[u8], is_ours: impl Fn(&[u8]) -> bool) -> io::Result<String> {
        let unfinished = format!(".{name}.{:016x}.part", rand::random::<u64>());
        write_whole(
            &self.folder,
            &unfinished,
            |file| file.write_all(content),
            |()| self.put(&unfinished, name, is_ours),
        )
    }

    fn put(&self, unfinished: &str, name: &str, is_ours: impl Fn(&[u8]) -> bool) -> io::Result<String> {
        let folder = self.folder.as_fd();
        for number in 1..=MAX_NAMES {
            let tried = numbered(name, number);
            let mut moved = renameat_with(folder, unfinished, folder, &tried, RenameFlags::NOREPLACE);
            if matches!(moved, Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP)) {
                // A file system that cannot (NFS): the name is taken first, then replaced.
                moved = openat(folder, &tried, NEW_FILE, Mode::from_raw_mode(0o666))
                    .and_then(|_| renameat(folder, unfinished, folder, &tried));
            }
            match moved {
                Ok(()) => return Ok(tried),
                Err(Errno::EXIST) if self.read_beside(&tried).is_some_and(|content| is_ours(&content)) => {
                    renameat(folder, unfinished, folder, &tried)?;
                    return Ok(tried);
                }
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    fn read_beside(&self, name: &str) -> Option<Vec<u8>> {
        let there = statat(&self.folder, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        if FileType::from_raw_mode(there.st_mode) != FileType::RegularFile {
            return None;
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(openat(&self.folder, name, flags, Mode::empty()).ok()?);
        let mut content = Vec::new();
        file.take(MAX_MANIFEST).read_to_end(&mut content).ok()?;
        Some(content)
    }
}

impl Drop for Claim {
    /// The session was over before the file was used.
    fn drop(&mut self) {
        if !self.kept {
            let _ = self.remove();
        }
    }
}

/// Makes a file of `folder`, whole or not at all: `write` fills it under the name `unfinished`, `put` gives it its own.
///
/// # Errors
/// The operating system's, and those of `write` and `put`. Nothing is left behind.
pub(crate) fn write_whole<W, T>(
    folder: &OwnedFd,
    unfinished: &str,
    write: impl FnOnce(&mut File) -> io::Result<W>,
    put: impl FnOnce(W) -> io::Result<T>,
) -> io::Result<T> {
    let mut file = File::from(openat(folder, unfinished, NEW_FILE, Mode::from_raw_mode(0o666))?);
    let written = write(&mut file).and_then(put);
    if written.is_err() {
        let _ = unlinkat(folder, unfinished, AtFlags::empty());
    }
    written
}

/// `work`, which blocks, for at most `bound`; then it goes on by itself and what it makes goes away.
///
/// # Errors
/// Those of `work`, and `Slow` after the bound.
pub async fn within<T: Send + 'static>(
    bound: Duration,
    path: PathBuf,
    work: impl FnOnce() -> Result<T, OutputError> + Send + 'static,
) -> Result<T, OutputError> {
    match tokio::time::timeout(bound, spawn_blocking(work)).await {
        Ok(Ok(done)) => done,
        Ok(Err(panicked)) => Err(OutputError::File { path, source: io::Error::other(panicked) }),
        Err(_) => Err(OutputError::Slow { path, seconds: bound.as_secs() }),
    }
}

#[cfg(test)]
mod tests;
