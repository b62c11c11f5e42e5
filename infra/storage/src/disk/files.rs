//! File operations of the disk store: atomic replacement, copies with a checksum, names of parts. Blocking; called on
//! tokio's blocking threads only.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use md5::{Digest, Md5};

use crate::checksum::hex;
use crate::error::{StorageError, StorageErrorKind};
use crate::storage::{Part, PartTag};

/// The provider's name in errors.
pub const NAME: &str = "Local";
/// Copied at once when parts become a file, bytes.
const BLOCK: usize = 1 << 20;

/// An error without a cause.
pub fn failure(kind: StorageErrorKind, doing: &'static str, message: impl Into<String>) -> StorageError {
    StorageError::new(kind, NAME, doing, message)
}

/// The operating system's error as one of the store.
pub fn refused(doing: &'static str) -> impl Fn(io::Error) -> StorageError {
    move |source| {
        let kind = match source.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => StorageErrorKind::Denied,
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
                StorageErrorKind::NotFound
            }
            io::ErrorKind::InvalidFilename => StorageErrorKind::Invalid,
            // Space may be freed, and a network share may come back.
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::TimedOut
            | io::ErrorKind::StaleNetworkFileHandle
            | io::ErrorKind::Interrupted => StorageErrorKind::Busy,
            _ => StorageErrorKind::Other,
        };
        StorageError::new(kind, NAME, doing, source.to_string()).because(source)
    }
}

/// Writes a file under a temporary name in the same directory, then renames it to `path`.
///
/// # Errors
/// Those of the file system; then `path` is as it was before.
pub fn replace(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder)?;
    let beside = folder.join(format!(".{}.tmp", random_id()));
    let written = (|| {
        let mut file = File::create_new(&beside)?;
        write(&mut file)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written
}

/// Copies at most `max_bytes` bytes and returns their MD5 as hexadecimal text.
///
/// # Errors
/// Those of reading and writing.
pub fn copied(from: &mut impl Read, max_bytes: u64, to: &mut impl Write) -> io::Result<String> {
    let (mut digest, mut block, mut left) = (Md5::new(), vec![0; BLOCK], max_bytes);
    while left > 0 {
        let room = BLOCK.min(usize::try_from(left).unwrap_or(BLOCK));
        let read = from.read(&mut block[..room])?;
        if read == 0 {
            break;
        }
        digest.update(&block[..read]);
        to.write_all(&block[..read])?;
        left -= read as u64;
    }
    Ok(hex(&digest.finalize()))
}

/// 128 random bits, for uploads and temporary files.
pub fn random_id() -> String {
    hex(&rand::random::<[u8; 16]>())
}

/// Number, generation and checksum are in the name: what is listed after a crash is what was written.
pub fn part_name(number: u32, generation: u32, tag: &PartTag) -> String {
    format!("{number:05}-{generation:06}-{}", tag.etag)
}

/// Reverse of [`part_name`]; `None` for other files.
pub fn parse_part(name: &str, bytes: u64) -> Option<Part> {
    let mut fields = name.split('-');
    let (number, generation, etag) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?, fields.next()?);
    (etag.len() == 32).then(|| Part { number, generation, tag: PartTag { bytes, etag: etag.to_owned(), crc32c: None } })
}
