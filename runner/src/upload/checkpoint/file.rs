//! State of one file in the checkpoint: how much of it is stored, and how much media that is. Values.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use spillway_ipc::Origin;
use spillway_plan::Container;
use spillway_storage::Upload;

use crate::results::FileNumber;
use crate::upload::parts::PartState;
use crate::upload::plan::PartLayout;

/// State of one file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FileCheckpoint {
    /// Number of the file in the recording: that of its output, or a later one.
    pub file: u32,
    /// Which output of the plan; `None`, from an older attempt: the one with the file's number.
    #[serde(default)]
    pub output: Option<u32>,
    /// Its place in the EgressInfo's list of files; `None`, from an older attempt: its place in this list.
    #[serde(default)]
    pub index: Option<usize>,
    /// The object's name, or the file's on the disk.
    pub filename: String,
    /// Decides how the file is read.
    pub container: Container,
    /// Unix nanoseconds of the first recorded instant; `None`: nothing was recorded yet.
    #[serde(default)]
    pub started_at: Option<i64>,
    /// Samples: (bytes of the object, nanoseconds of media in them), ascending.
    #[serde(default)]
    pub media: Vec<(u64, u64)>,
    /// The file itself, or its spool file.
    pub path: PathBuf,
    /// `None`: it stays on the disk, or its upload has not begun.
    #[serde(default)]
    pub upload: Option<UploadCheckpoint>,
    /// What of the file the object is made of; its parts and samples count the object's bytes.
    #[serde(default)]
    pub origin: Origin,
    /// Nothing of the file from here on was given back to the disk: a restart point.
    #[serde(default)]
    pub kept_from: u64,
    /// It is where it was asked to be, and nothing is left to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saved: Option<SavedFile>,
}

/// A file of a recording that goes on in others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedFile {
    /// As users see it.
    pub filename: String,
    /// A path on a disk or a store's location.
    pub location: String,
    /// Its size.
    pub bytes: u64,
    /// Unix nanoseconds of the first recorded instant.
    pub started_at: i64,
    /// Unix nanoseconds of the last recorded instant.
    pub ended_at: i64,
    /// It is in its second destination.
    pub used_backup: bool,
}

/// State of an upload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UploadCheckpoint {
    /// It goes to the second of the file's destinations.
    #[serde(default)]
    pub backup: bool,
    /// As the store named it.
    pub upload: Upload,
    /// Every part was stored and the store was asked to complete the object.
    #[serde(default)]
    pub completing: bool,
    /// The object is made, and has so many bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored: Option<u64>,
    /// How the object is cut into parts.
    pub layout: PartLayout,
    /// Part `n` is `parts[n - 1]`.
    pub parts: Vec<PartState>,
    /// Uploads at the primary store that were given up for the backup and are to be aborted.
    #[serde(default)]
    pub left: Vec<Upload>,
}

impl FileCheckpoint {
    /// Of a file in which nothing is recorded yet, without an upload.
    pub fn new(number: FileNumber, filename: String, container: Container, path: PathBuf) -> Self {
        Self {
            file: number.file,
            output: Some(number.output),
            index: Some(number.index),
            filename,
            container,
            started_at: None,
            media: vec![],
            path,
            upload: None,
            origin: Origin::default(),
            kept_from: 0,
            saved: None,
        }
    }

    /// Its numbers; `place`: in the checkpoint's list.
    pub fn number(&self, place: usize) -> FileNumber {
        FileNumber { file: self.file, output: self.output(), index: self.index.unwrap_or(place) }
    }

    /// Which output of the plan it is of.
    pub fn output(&self) -> u32 {
        self.output.unwrap_or(self.file)
    }

    /// How much media is in the first `bytes`, nanoseconds.
    pub fn media_ns(&self, bytes: u64) -> u64 {
        media_at(&self.media, bytes)
    }
}

/// Nanoseconds of media in the first `bytes`: interpolated between `samples`, extrapolated beyond the last at the average so
/// far.
pub fn media_at(samples: &[(u64, u64)], bytes: u64) -> u64 {
    let after = samples.partition_point(|(at, _)| *at < bytes);
    let before = after.checked_sub(1).map_or((0, 0), |index| samples[index]);
    match samples.get(after) {
        None if before.0 == 0 => before.1,
        None => (bytes as f64 * (before.1 as f64 / before.0 as f64)) as u64,
        Some(next) if next.0 == before.0 => next.1,
        Some(next) => {
            let share = (bytes - before.0) as f64 / (next.0 - before.0) as f64;
            before.1 + (next.1.saturating_sub(before.1) as f64 * share) as u64
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_grows_evenly_between_samples() {
        let number = FileNumber { file: 0, output: 0, index: 0 };
        let file = FileCheckpoint {
            media: vec![(100, 1000), (200, 3000)],
            ..FileCheckpoint::new(number, "a.mp4".into(), Container::Mp4, "/tmp/a.mp4".into())
        };
        let at = |bytes| file.media_ns(bytes);
        assert_eq!((at(0), at(50), at(100), at(150), at(200)), (0, 500, 1000, 2000, 3000));
        assert_eq!(at(220), 3300, "beyond the last sample it goes on as before");
        assert_eq!(at(999), 14985);
        assert_eq!(media_at(&[], 7), 0);
    }
}
