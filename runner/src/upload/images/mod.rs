//! Uploads of an image output. `machine` says what is sent and what has become of each image, `saved` is its state in the
//! checkpoint (both pure), and `task` runs it. Below `session`, because salvage sends what a task that died has left.

mod task;
mod machine;
mod saved;

pub use machine::{ImagesMachine, ImagesPlan};
pub use saved::{ImageTotals, ImagesCheckpoint, SpooledImage};
pub(crate) use task::remove_images;
pub use task::{ImagesResult, ImagesStatus, ImagesUpload, ImagesUploader};
