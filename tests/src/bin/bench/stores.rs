//! Destinations of measured recordings: this disk and three stores.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use serde_json::{Value, json};
use spillway_tests::egress::nanos;
use spillway_tests::servers::bucket::TestBucket;
use spillway_tests::servers::fault_proxy::FaultProxy;

/// Names of the playlists of a segment output.
pub const PLAYLIST: &str = "index.m3u8";
/// See [`PLAYLIST`].
pub const LIVE: &str = "live.m3u8";

/// A destination.
pub enum StoreTarget {
    /// A folder of this machine.
    Disk,
    /// Name and bucket.
    Store(&'static str, Box<TestBucket>),
}

impl StoreTarget {
    /// Every destination, with emulators of their own.
    pub async fn all() -> Result<Vec<Self>> {
        Ok(vec![
            Self::Disk,
            Self::Store("S3", Box::new(TestBucket::s3().await?)),
            Self::Store("Azure", Box::new(TestBucket::azure().await?)),
            Self::Store("Google", Box::new(TestBucket::google().await?)),
        ])
    }

    /// Name in figures.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::Store(name, _) => name,
        }
    }

    /// Puts a proxy that only counts in front of the store; `None` for the disk.
    pub async fn through_a_counter(&mut self) -> Result<Option<FaultProxy>> {
        let Self::Store(_, bucket) = self else { return Ok(None) };
        let proxy = FaultProxy::start(&bucket.address(), 0).await?;
        bucket.reached_through(&proxy);
        Ok(Some(proxy))
    }

    /// Part of the dispatcher's YAML.
    pub fn configuration(&self) -> String {
        match self {
            Self::Disk => String::new(),
            Self::Store(_, bucket) => bucket.configuration(),
        }
    }

    /// A file output that becomes `folder/name` on the disk, or an object with that name.
    pub fn output(&self, folder: &Path, name: &str) -> Value {
        let path = folder.join(name);
        match self {
            Self::Disk => json!({ "filepath": path.to_string_lossy() }),
            Self::Store(_, bucket) => {
                let mut output = json!({ "filepath": key(&path) });
                if let Some((provider, upload)) = bucket.upload() {
                    output[provider] = upload;
                }
                output
            }
        }
    }

    /// A segment output whose playlists and segments lie in `folder`, or are objects with its name before theirs.
    pub fn segments(&self, folder: &Path, seconds: u64) -> Value {
        let at = match self {
            Self::Disk => folder.to_string_lossy().into_owned(),
            Self::Store(..) => key(folder),
        };
        let mut output = json!({
            "filename_prefix": format!("{at}/part"), "playlist_name": PLAYLIST, "live_playlist_name": LIVE,
            "segment_duration": seconds,
        });
        if let Self::Store(_, bucket) = self
            && let Some((provider, upload)) = bucket.upload()
        {
            output[provider] = upload;
        }
        output
    }

    /// A file, or the object with its path as its name; `None` where there is none.
    pub async fn read(&self, path: &Path) -> Result<Option<Bytes>> {
        match self {
            Self::Disk => Ok(std::fs::read(path).ok().map(Bytes::from)),
            Self::Store(_, bucket) => bucket.read(&key(path)).await,
        }
    }

    /// Writes a stored output to `path`. An error where it is missing or its length differs from `file` (of
    /// EgressInfo).
    pub async fn fetch(&self, path: &Path, file: &Value) -> Result<()> {
        if let Self::Store(_, bucket) = self {
            let bytes = bucket.read(&key(path)).await?.context("no object")?;
            std::fs::create_dir_all(path.parent().unwrap_or(path)).context("make a folder")?;
            std::fs::write(path, &bytes).context("write what was fetched")?;
        }
        let length = std::fs::metadata(path).with_context(|| format!("no file at {}", path.display()))?.len();
        ensure!(nanos(&file["size"]) as u64 == length, "{} has {length} bytes, said was {file}", path.display());
        Ok(())
    }

    /// Names with uploaded parts and no object; none on the disk.
    pub async fn unfinished(&self) -> Result<Vec<String>> {
        match self {
            Self::Disk => Ok(vec![]),
            Self::Store(_, bucket) => bucket.unfinished().await,
        }
    }
}

/// The path of a file on this disk as the name of an object.
fn key(path: &Path) -> String {
    path.to_string_lossy().trim_start_matches('/').to_owned()
}
