use std::fmt;
use std::sync::Arc;

use gstreamer as gst;
use gstreamer_app as gst_app;

use super::fragmented::Fragmented;

/// Which of the two streams of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MediaKind {
    Video,
    Audio,
}

impl fmt::Display for MediaKind {
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
pub struct FeedError(pub MediaKind);

/// One lane's way into the pipeline. A raw lane holds few buffers and makes its feeder wait; a copied lane holds what
/// it is given, for its feeder must not wait, and says how much that is.
#[derive(Clone, Debug)]
pub struct Feed {
    kind: MediaKind,
    way: FeedTarget,
}

#[derive(Clone)]
enum FeedTarget {
    Elements(gst_app::AppSrc),
    /// Nothing between us and the file.
    File {
        out: Arc<Fragmented>,
        index: usize,
    },
}

impl fmt::Debug for FeedTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Elements(_) => "elements",
            Self::File { .. } => "file",
        })
    }
}

impl Feed {
    pub(super) fn new(kind: MediaKind, appsrc: gst_app::AppSrc) -> Self {
        Self { kind, way: FeedTarget::Elements(appsrc) }
    }

    pub(super) fn straight(kind: MediaKind, index: usize, out: Arc<Fragmented>) -> Self {
        Self { kind, way: FeedTarget::File { out, index } }
    }

    /// `buffer` has its PTS: nanoseconds since the beginning of the file, already decided by the timeline. Blocks while
    /// a raw lane is full.
    pub fn push(&self, buffer: gst::Buffer) -> Result<(), FeedError> {
        let pushed = match &self.way {
            FeedTarget::Elements(appsrc) => appsrc.push_buffer(buffer).map(|_| ()),
            FeedTarget::File { out, index } => match buffer.pts() {
                Some(at) => out.push(self.kind, *index, &buffer, at.nseconds()),
                None => Ok(()),
            },
        };
        pushed.map_err(|_| FeedError(self.kind))
    }

    /// Nothing comes any more.
    pub fn end(&self) {
        match &self.way {
            // Refused only by a lane that is closed already.
            FeedTarget::Elements(appsrc) => drop(appsrc.end_of_stream()),
            FeedTarget::File { out, .. } => out.end(self.kind),
        }
    }

    /// Bytes given and not yet taken by the pipeline.
    pub fn waiting_bytes(&self) -> u64 {
        match &self.way {
            FeedTarget::Elements(appsrc) => appsrc.current_level_bytes(),
            FeedTarget::File { .. } => 0,
        }
    }
}
