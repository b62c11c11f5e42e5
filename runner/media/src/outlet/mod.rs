//! Encoded streams become the bytes of a file.

mod ivf;
mod sink;

use gstreamer as gst;
use spillway_plan::Container;

pub use ivf::Ivf;
pub use sink::{SpoolSink, Written};

use crate::pipeline::{PipelineError, make};

/// The muxer of a container, in the form that survives a `kill -9` where there is one (`spec/storage.md` 4).
pub(crate) fn muxer(container: Container, fragment_ms: u64) -> Result<gst::Element, PipelineError> {
    match container {
        // Fragmented while it is written, an ordinary MP4 after a clean end.
        Container::Mp4 => {
            let fragment = u32::try_from(fragment_ms.max(100)).unwrap_or(u32::MAX);
            make("mp4mux", |m| {
                m.property("fragment-duration", fragment).property_from_str("fragment-mode", "first-moov-then-finalise")
            })
        }
        Container::Webm => make("webmmux", |m| m),
        Container::Ogg => make("oggmux", |m| m),
        Container::Mp3 => make("xingmux", |m| m),
        // Written without a pipeline, see [`Ivf`].
        Container::Ivf => Err(PipelineError::Build { words: "IVF needs no pipeline".into() }),
    }
}
