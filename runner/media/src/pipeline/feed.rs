use std::fmt;
use std::sync::Arc;

use gstreamer as gst;
use gstreamer_app as gst_app;

use super::fragmented::Fragmented;

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
    way: Way,
}

#[derive(Clone)]
enum Way {
    Elements(gst_app::AppSrc),
    /// Nothing between us and the file.
    File {
        out: Arc<Fragmented>,
        index: usize,
    },
}

impl fmt::Debug for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Elements(_) => "elements",
            Self::File { .. } => "file",
        })
    }
}

impl Feed {
    pub(super) fn new(lane: Lane, appsrc: gst_app::AppSrc) -> Self {
        Self { lane, way: Way::Elements(appsrc) }
    }

    pub(super) fn straight(lane: Lane, index: usize, out: Arc<Fragmented>) -> Self {
        Self { lane, way: Way::File { out, index } }
    }

    /// `buffer` has its PTS: nanoseconds since the beginning of the file, already decided by the timeline. Blocks while
    /// a raw lane is full.
    pub fn push(&self, buffer: gst::Buffer) -> Result<(), FeedError> {
        let pushed = match &self.way {
            Way::Elements(appsrc) => appsrc.push_buffer(buffer).map(|_| ()),
            Way::File { out, index } => match buffer.pts() {
                Some(at) => out.push(self.lane, *index, &buffer, at.nseconds()),
                None => Ok(()),
            },
        };
        pushed.map_err(|_| FeedError(self.lane))
    }

    /// Nothing comes any more.
    pub fn end(&self) {
        match &self.way {
            // Refused only by a lane that is closed already.
            Way::Elements(appsrc) => drop(appsrc.end_of_stream()),
            Way::File { out, .. } => out.end(self.lane),
        }
    }

    /// Bytes given and not yet taken by the pipeline.
    pub fn waiting_bytes(&self) -> u64 {
        match &self.way {
            Way::Elements(appsrc) => appsrc.current_level_bytes(),
            Way::File { .. } => 0,
        }
    }
}
