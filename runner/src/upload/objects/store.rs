//! Where objects go: a folder of this machine or a store. Names and contents come in, what was stored comes out; requests of
//! a store are not repeated here. What asks the disk runs on a thread for that.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::renameat;
use spillway_process::LocalRoot;
use spillway_storage::{Meta, Storage, StorageError, StorageErrorKind, Stored};
use tokio::task::spawn_blocking;
use tracing::debug;

use crate::results::claim::write_whole;

/// In messages, in place of a store's name.
pub(super) const LOCAL: &str = "Local";

/// Where objects go.
#[derive(Clone, Debug)]
pub enum ObjectStore {
    /// Below a folder of this machine. An object of the same name is replaced.
    Disk(LocalRoot),
    /// A store.
    Remote(Arc<dyn Storage>),
}

/// A whole file of the spool that becomes an object. It is removed when it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectFile {
    /// Files go in the order of their numbers.
    pub number: u32,
    /// The object's name.
    pub name: String,
    /// In the spool.
    pub path: PathBuf,
    /// Content type.
    pub meta: Meta,
}

#[derive(Debug)]
pub(super) enum PutError {
    /// The spool file cannot be read.
    Spool(io::Error),
    Store(StorageError),
}

impl ObjectStore {
    /// URL or path of an object for people; never a presigned link.
    pub fn location(&self, name: &str) -> String {
        match self {
            Self::Disk(root) => root.locate(name).display().to_string(),
            Self::Remote(store) => store.location(name),
        }
    }

    /// Bytes of an object; `None` where there is none, or the store does not tell.
    pub async fn bytes(&self, name: &str) -> Option<u64> {
        match self {
            Self::Disk(root) => {
                let path = root.locate(name);
                let metadata = spawn_blocking(move || fs::metadata(path)).await.ok()?.ok()?;
                metadata.is_file().then_some(metadata.len())
            }
            Self::Remote(store) => match store.head(name).await {
                Ok(object) => object.map(|object| object.bytes),
                Err(error) => {
                    debug!(%error, "object not seen");
                    None
                }
            },
        }
    }

    pub(super) async fn put_file(&self, file: &ObjectFile) -> Result<Stored, PutError> {
        let path = file.path.clone();
        match self {
            Self::Disk(root) => {
                let (root, name) = (root.clone(), file.name.clone());
                let made = spawn_blocking(move || match File::open(&path) {
                    Ok(spooled) => {
                        write_object(&root, &name, spooled).map_err(|error| PutError::Store(on_disk(&error)))
                    }
                    Err(error) => Err(PutError::Spool(error)),
                });
                made.await.unwrap_or_else(|panicked| Err(PutError::Spool(io::Error::other(panicked))))
            }
            Self::Remote(store) => {
                let read = spawn_blocking(move || fs::read(path)).await;
                let bytes = read.unwrap_or_else(|panicked| Err(io::Error::other(panicked))).map_err(PutError::Spool)?;
                store.put(&file.name, bytes.into(), &file.meta).await.map_err(PutError::Store)
            }
        }
    }

    pub(super) async fn put_text(&self, name: &str, text: Bytes, meta: &Meta) -> Result<Stored, StorageError> {
        match self {
            Self::Disk(root) => {
                let (root, name) = (root.clone(), name.to_owned());
                let made =
                    spawn_blocking(move || write_object(&root, &name, &text[..]).map_err(|error| on_disk(&error)));
                made.await.unwrap_or_else(|panicked| Err(on_disk(&io::Error::other(panicked))))
            }
            Self::Remote(store) => store.put(name, text, meta).await,
        }
    }
}

/// Makes a file below `root`, whole or not at all. A file of that name is replaced.
fn write_object(root: &LocalRoot, name: &str, mut content: impl Read) -> io::Result<Stored> {
    let path = root.locate(name);
    let (Some(folder), Some(file_name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidFilename.into());
    };
    let folder = root.make_folder(folder)?;
    let unfinished = format!(".{:016x}.part", rand::random::<u64>());
    let written = write_whole(
        &folder,
        &unfinished,
        |file| io::copy(&mut content, file),
        |bytes| {
            renameat(&folder, &unfinished, &folder, Path::new(file_name))?;
            Ok(bytes)
        },
    );
    Ok(Stored { bytes: written?, etag: String::new(), location: path.display().to_string() })
}

/// A disk that is full or away may be so for a while; anything else is a refusal.
fn on_disk(error: &io::Error) -> StorageError {
    let passes = matches!(
        error.kind(),
        io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::ResourceBusy
            | io::ErrorKind::TimedOut
            | io::ErrorKind::StaleNetworkFileHandle
    );
    let kind = if passes { StorageErrorKind::Busy } else { StorageErrorKind::Other };
    StorageError::new(kind, LOCAL, "put", error.to_string())
}
