use std::fmt;

use gstreamer as gst;
use gstreamer_app as gst_app;

/// Which of the two streams of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    Video,
    Audio,
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Video => "video",
            Self::Audio => "audio",
        })
    }
}

/// The pipeline takes nothing more: it ended, broke or was dropped. Not an accident of its own; whoever leads the
/// pipeline knows why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {0} lane of the pipeline is closed")]
pub struct FeedError(pub Lane);

/// One lane's way into the pipeline. A raw lane holds few buffers and makes its feeder wait; a copied lane holds what
/// it is given, for its feeder must not wait, and says how much that is.
#[derive(Clone, Debug)]
pub struct Feed {
    lane: Lane,
    appsrc: gst_app::AppSrc,
}

impl Feed {
    pub(super) fn new(lane: Lane, appsrc: gst_app::AppSrc) -> Self {
        Self { lane, appsrc }
    }

    /// `buffer` has its PTS: nanoseconds since the beginning of the file, already decided by the timeline. Blocks while
    /// a raw lane is full.
    pub fn push(&self, buffer: gst::Buffer) -> Result<(), FeedError> {
        self.appsrc.push_buffer(buffer).map(|_| ()).map_err(|_| FeedError(self.lane))
    }

    /// Nothing comes any more.
    pub fn end(&self) {
        // Refused only by a lane that is closed already.
        let _ = self.appsrc.end_of_stream();
    }

    /// Bytes given and not yet taken by the pipeline.
    pub fn waiting_bytes(&self) -> u64 {
        self.appsrc.current_level_bytes()
    }
}
