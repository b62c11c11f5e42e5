//! Uploads of an image output. `machine` says what is sent and what has become of each image, `saved` is its state in the
//! checkpoint (both pure). `task` runs it, the session has its `handle`, and `settled` looks for what a dead attempt has left. Below `session`, because salvage sends what a task
//! that died has left.

mod handle;
mod task;
mod outcome;
mod settled;
mod machine;
mod saved;

pub use handle::ImagesUpload;
pub use machine::{ImagesMachine, ImagesPlan};
pub use outcome::{ImagesResult, ImagesStatus};
pub use saved::{ImageTotals, ImagesCheckpoint, SpooledImage};
pub(crate) use settled::settle_pending;
pub use task::ImagesUploader;
pub(crate) use task::{clear_images, next_number, remove_images};
