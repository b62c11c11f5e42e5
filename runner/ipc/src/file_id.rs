//! Identity of a file beyond its name: device and inode, sent from the runner to the media process.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

use serde::{Deserialize, Serialize};

/// The file that the runner created under a name. The media process opens the name a second time and refuses another file
/// that lies there by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileId {
    /// `st_dev`.
    pub device: u64,
    /// `st_ino`, unique on the device.
    pub inode: u64,
}

impl FileId {
    /// Identity of the file this metadata was read from.
    pub fn of(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }
}
