//! Poster, contact sheet and sprite sheets of a recording: raw pictures come in, one each second, and a few small files of the
//! spool with an index of them (`spillway_ipc::sheet_file`) come out, again each minute and whole at the end. The mixer's
//! thread leaves pictures in a slot; all else is done on a thread of its own, whose every fault ends the sheets with a note and
//! nothing besides. `composer` puts them together, `tiles` says where each picture stands and `thinned` which ones are kept.
//!
//! Bounds, for a picture of 1280×720: about 1 ms of CPU a second for the scaling of one picture, and 10 ms for a JPEG of each
//! 100 thumbnails; 3 MB for the open sprite sheet, 3 MB for the candidates of the contact sheet (32 at most), three times a
//! sheet's size while it is encoded; on the disk 0.2 MB for 100 thumbnails, 30 MB for a day at 5 s. Reckoned from the figures of
//! single images, not measured.

mod composer;
mod thinned;
mod tiles;

use std::sync::Arc;

use spillway_process::chain;
use tracing::warn;

use self::composer::SheetComposer;
pub use self::composer::SheetOptions;
use super::slot::PictureSlot;
use super::taker::PictureTaker;
use crate::element::PipelineError;
use crate::output::fanout::TakerReporter;
use crate::output::raw::RawTaker;
use crate::output::taker::{TakerError, TakerProgress};

/// A picture is looked at this often, for whatever is made; thumbnails take one in so many of them.
const LOOK_EVERY_NS: u64 = 1_000_000_000;

/// Takes why there are no more sheets, for the user. Called from the sheets' own thread.
pub type SheetNoteFn = Box<dyn Fn(String) + Send>;

/// Starts the thread. Answers the taker for the fan-out, which is to be added with its raw pictures, and the way into it.
///
/// # Errors
///
/// When a size is impossible, or the system has no thread left. The recording needs none of it.
pub fn start(
    options: SheetOptions,
    reporter: TakerReporter,
    progress: Arc<TakerProgress>,
    note: SheetNoteFn,
) -> Result<(PictureTaker, Box<dyn RawTaker>), PipelineError> {
    let composer = SheetComposer::new(options)?;
    let length = progress.clone();
    PictureTaker::start("sheets", LOOK_EVERY_NS, progress, move |slot| {
        if let Err(error) = run(composer, slot, &length) {
            let reason = chain(&error).to_string();
            warn!(reason, "sheets end here");
            note(format!("poster and thumbnails end here: {reason}"));
        }
        // Never as a failure: the outputs beside it do not depend on it.
        reporter.ended();
    })
}

/// Until the last picture.
fn run(mut composer: SheetComposer, slot: &PictureSlot, length: &TakerProgress) -> Result<(), TakerError> {
    while let Some(picture) = slot.next() {
        composer.take(&picture)?;
    }
    composer.finish(length.media_ns())
}

#[cfg(test)]
mod tests;
