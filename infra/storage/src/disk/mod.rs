//! A directory as a store: objects are files below a root, the parts of unfinished uploads lie beside them.
//!
//! Calls come from the caller's task and run on tokio's blocking threads. A file is there whole or not at all; no name
//! leads out of the root.

mod files;

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use url::Url;

use self::files::{NAME, copied, failure, parse_part, part_name, random_id, refused, replace};
use crate::checksum::{etag_of_parts, hex, md5};
use crate::error::{StorageError, StorageErrorKind};
use crate::storage::*;

/// Below the root, so that parts and object share a file system. The dot keeps it out of most listings.
const UPLOADS: &str = ".spillway-uploads";

/// Objects as files below a directory.
#[derive(Clone, Debug)]
pub struct DiskStorage {
    root: PathBuf,
}

impl DiskStorage {
    /// Objects lie below `root`, which need not exist yet.
    pub fn new(root: impl AsRef<Path>) -> Self {
        Self { root: std::path::absolute(&root).unwrap_or_else(|_| root.as_ref().to_owned()) }
    }

    /// Unfinished uploads below the root.
    #[cfg(feature = "testing")]
    pub fn open_uploads(&self) -> usize {
        fs::read_dir(self.root.join(UPLOADS)).map_or(0, |entries| entries.count())
    }

    /// The file of an object. A name that would lead out of the root is invalid.
    fn path(&self, name: &str, doing: &'static str) -> Result<PathBuf, StorageError> {
        let mut path = self.root.clone();
        for component in Path::new(name).components() {
            match component {
                Component::Normal(part) if part != UPLOADS => path.push(part),
                Component::RootDir | Component::CurDir => {}
                _ => {
                    return Err(failure(StorageErrorKind::Invalid, doing, format!("impossible name {name:?}")));
                }
            }
        }
        if path == self.root {
            return Err(failure(StorageErrorKind::Invalid, doing, "empty name"));
        }
        Ok(path)
    }

    /// The directory with the parts of an upload.
    fn folder(&self, upload: &Upload, doing: &'static str) -> Result<PathBuf, StorageError> {
        let is_ours = upload.id.len() == 32 && upload.id.bytes().all(|byte| byte.is_ascii_hexdigit());
        let folder = self.root.join(UPLOADS).join(&upload.id);
        if is_ours && folder.is_dir() {
            return Ok(folder);
        }
        Err(failure(StorageErrorKind::Gone, doing, "no such upload"))
    }

    /// Runs file operations on a blocking thread.
    async fn work<T: Send + 'static>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&Self) -> Result<T, StorageError> + Send + 'static,
    ) -> Result<T, StorageError> {
        let own = self.clone();
        tokio::task::spawn_blocking(move || work(&own))
            .await
            .unwrap_or_else(|panic| Err(failure(StorageErrorKind::Other, doing, panic.to_string())))
    }

    /// The latest generation of each part that lies here.
    fn parts(&self, folder: &Path) -> io::Result<Vec<(Part, PathBuf)>> {
        let mut all = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if let Some(part) = parse_part(&entry.file_name().to_string_lossy(), entry.metadata()?.len()) {
                all.push((part, entry.path()));
            }
        }
        all.sort_by_key(|(part, _)| (part.number, std::cmp::Reverse(part.generation)));
        all.dedup_by_key(|(part, _)| part.number);
        Ok(all)
    }

    fn finish(&self, upload: &Upload, wanted: &[Part]) -> Result<Stored, StorageError> {
        let doing = "complete";
        let path = self.path(&upload.key, doing)?;
        let bytes = wanted.iter().map(|part| part.tag.bytes).sum();
        let etag = etag_of_parts(wanted.iter().map(|part| part.tag.etag.as_str()))
            .ok_or_else(|| failure(StorageErrorKind::Invalid, doing, "tags are not ours"))?;
        let stored = Stored { bytes, etag, location: path.display().to_string() };
        let folder = self.folder(upload, doing)?;
        let there = self.parts(&folder).map_err(refused(doing))?;
        let mut sources = Vec::new();
        for (index, part) in wanted.iter().enumerate() {
            let same = |(other, _): &&(Part, PathBuf)| {
                other.number == part.number && other.tag.etag == part.tag.etag && other.tag.bytes == part.tag.bytes
            };
            match there.iter().find(same) {
                Some((_, source)) if part.number as usize == index + 1 => sources.push((source, part)),
                _ => {
                    return Err(failure(StorageErrorKind::Invalid, doing, format!("no such part {}", part.number)));
                }
            }
        }
        if sources.is_empty() {
            return Err(failure(StorageErrorKind::Invalid, doing, "no parts"));
        }
        let mut damaged = None;
        replace(&path, |file| {
            for (source, part) in sources {
                if copied(&mut File::open(source)?, u64::MAX, file)? != part.tag.etag {
                    damaged = Some(part.number);
                    return Err(io::Error::from(io::ErrorKind::InvalidData));
                }
            }
            Ok(())
        })
        .map_err(|error| match damaged {
            Some(number) => {
                failure(StorageErrorKind::Invalid, doing, format!("checksum mismatch: part {number} was damaged here"))
            }
            None => refused(doing)(error),
        })?;
        // The object is complete; parts that cannot be removed only take space.
        let _ = fs::remove_dir_all(folder);
        Ok(stored)
    }

    /// The stored object, if it is made of exactly these parts: an earlier `complete` succeeded and its answer was lost.
    fn is_made_of(&self, upload: &Upload, wanted: &[Part]) -> Option<Stored> {
        let path = self.path(&upload.key, "complete").ok()?;
        let bytes: u64 = wanted.iter().map(|part| part.tag.bytes).sum();
        let mut content =
            File::open(&path).ok().filter(|file| file.metadata().is_ok_and(|meta| meta.len() == bytes))?;
        for part in wanted {
            if copied(&mut content, part.tag.bytes, &mut io::sink()).ok()? != part.tag.etag {
                return None;
            }
        }
        let etag = etag_of_parts(wanted.iter().map(|part| part.tag.etag.as_str()))?;
        Some(Stored { bytes, etag, location: path.display().to_string() })
    }
}

#[async_trait]
impl Storage for DiskStorage {
    fn name(&self) -> &'static str {
        NAME
    }

    fn location(&self, name: &str) -> String {
        self.path(name, "location").unwrap_or_else(|_| self.root.join(name)).display().to_string()
    }

    fn rules(&self) -> PartRules {
        PartRules { min_part_bytes: 1, max_part_bytes: 1 << 30, max_parts: 99_999, uniform: false }
    }

    async fn put(&self, name: &str, bytes: Bytes, _: &Meta) -> Result<Stored, StorageError> {
        let path = self.path(name, "put")?;
        self.work("put", move |_| {
            replace(&path, |file| file.write_all(&bytes)).map_err(refused("put"))?;
            let location = path.display().to_string();
            Ok(Stored { bytes: bytes.len() as u64, etag: hex(&md5(&bytes)), location })
        })
        .await
    }

    async fn begin(&self, name: &str, _: &Meta) -> Result<Upload, StorageError> {
        let path = self.path(name, "begin")?;
        let upload = Upload { id: random_id(), key: name.to_owned(), replaces: None };
        let id = upload.id.clone();
        self.work("begin", move |own| {
            // Both, so that a directory without write permission is an error now.
            let folder = path.parent().unwrap_or(&own.root).to_owned();
            fs::create_dir_all(folder).map_err(refused("begin"))?;
            fs::create_dir_all(own.root.join(UPLOADS).join(id)).map_err(refused("begin"))
        })
        .await?;
        Ok(upload)
    }

    async fn put_part(
        &self,
        upload: &Upload,
        number: u32,
        generation: u32,
        bytes: Bytes,
    ) -> Result<PartTag, StorageError> {
        let doing = "put part";
        let upload = upload.clone();
        self.work(doing, move |own| {
            let folder = own.folder(&upload, doing)?;
            let tag = PartTag { bytes: bytes.len() as u64, etag: hex(&md5(&bytes)), crc32c: None };
            let path = folder.join(part_name(number, generation, &tag));
            let beside = folder.join(format!(".{}.tmp", random_id()));
            let written = fs::write(&beside, &bytes).and_then(|()| fs::rename(&beside, &path));
            written.map_err(|error| match error.kind() {
                // The directory was removed meanwhile: aborted or completed.
                io::ErrorKind::NotFound => failure(StorageErrorKind::Gone, doing, "no such upload"),
                _ => refused(doing)(error),
            })?;
            // Earlier generations of this number only take space.
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                let other = parse_part(&entry.file_name().to_string_lossy(), 0);
                let replaced = other.is_some_and(|other| other.number == number && other.generation <= generation);
                if replaced && entry.path() != path {
                    let _ = fs::remove_file(entry.path());
                }
            }
            Ok(tag)
        })
        .await
    }

    fn expected_tag(&self, _: u32, _: u32, bytes: &Bytes) -> Option<PartTag> {
        Some(PartTag { bytes: bytes.len() as u64, etag: hex(&md5(bytes)), crc32c: None })
    }

    async fn complete(&self, upload: &Upload, parts: &[Part], _: &Meta) -> Result<Stored, StorageError> {
        let (upload, parts) = (upload.clone(), parts.to_vec());
        self.work("complete", move |own| match own.finish(&upload, &parts) {
            Err(error) if error.kind == StorageErrorKind::Gone => own.is_made_of(&upload, &parts).ok_or(error),
            done => done,
        })
        .await
    }

    async fn abort(&self, upload: &Upload) -> Result<(), StorageError> {
        let upload = upload.clone();
        self.work("abort", move |own| match own.folder(&upload, "abort") {
            Ok(folder) => fs::remove_dir_all(folder).map_err(refused("abort")),
            Err(_) => Ok(()),
        })
        .await
    }

    async fn list_parts(&self, upload: &Upload) -> Result<Option<Vec<Part>>, StorageError> {
        let upload = upload.clone();
        self.work("list parts", move |own| {
            let parts = own.parts(&own.folder(&upload, "list parts")?).map_err(refused("list parts"))?;
            Ok(Some(parts.into_iter().map(|(part, _)| part).collect()))
        })
        .await
    }

    async fn head(&self, name: &str) -> Result<Option<Object>, StorageError> {
        let path = self.path(name, "head")?;
        self.work("head", move |_| match fs::metadata(&path) {
            Ok(meta) => Ok(Some(Object { bytes: meta.len(), etag: String::new() })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(refused("head")(error)),
        })
        .await
    }

    async fn read_small(&self, name: &str) -> Result<Option<Bytes>, StorageError> {
        let path = self.path(name, "read")?;
        self.work("read", move |_| match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(refused("read")(error)),
        })
        .await
    }

    async fn delete(&self, name: &str) -> Result<(), StorageError> {
        let path = self.path(name, "delete")?;
        self.work("delete", move |_| match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(refused("delete")(error)),
            _ => Ok(()),
        })
        .await
    }

    async fn presign(&self, name: &str, _: Duration) -> Result<String, StorageError> {
        let path = self.path(name, "presign")?;
        Url::from_file_path(&path)
            .map(String::from)
            .map_err(|()| failure(StorageErrorKind::Invalid, "presign", "no absolute path"))
    }
}
