//! What a salvage needs of an image output: how many are stored, which are not, and how all are named. Values that travel as
//! JSON in the checkpoint. The images themselves are in the store or in the spool.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use spillway_plan::image_name::ImageNames;

/// An image whose file in the spool is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpooledImage {
    /// Its number.
    pub n: u32,
    /// When it was captured, nanoseconds of media.
    pub at_ns: u64,
    /// Its size.
    pub bytes: u64,
}

impl SpooledImage {
    /// Of a media process that began so much later than the recording, in the times of the recording.
    pub fn later_by(self, offset_ns: u64) -> Self {
        Self { at_ns: self.at_ns.saturating_add(offset_ns), ..self }
    }
}

/// Sums of an output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageTotals {
    /// Images that were stored; of those that replace each other, each counts.
    pub count: u64,
    /// Their sizes.
    pub bytes: u64,
    /// Images that will never be stored, except those that a newer one has replaced before.
    pub lost: u64,
}

/// State of one image output; it does not grow with the images that are stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImagesCheckpoint {
    /// Number of the output.
    pub output: u32,
    /// Its place among the image outputs, as in the EgressInfo.
    pub index: usize,
    /// Of every image.
    pub names: ImageNames,
    /// From one image to the next, nanoseconds.
    pub interval_ns: u64,
    /// Of the spool.
    pub folder: PathBuf,
    /// Unix nanoseconds at media time zero.
    pub started_at: i64,
    /// The backup store has taken over.
    #[serde(default)]
    pub on_backup: bool,
    /// Of the images that are stored or lost.
    #[serde(default)]
    pub totals: ImageTotals,
    /// When the first and the last of the stored images were captured, nanoseconds of media.
    #[serde(default)]
    pub span_ns: Option<(u64, u64)>,
    /// In the spool, ascending.
    #[serde(default)]
    pub unstored: Vec<SpooledImage>,
    /// Number of the next image.
    #[serde(default)]
    pub next_n: u32,
    /// When the newest image was captured, nanoseconds of media.
    #[serde(default)]
    pub newest_ns: Option<u64>,
}
