//! Encoded streams become the bytes of a file. MP4, WebM, MPEG-TS and IVF are written by our own muxers; Ogg and MP3 by
//! GStreamer's, whose bytes `spool_sink` writes. `annexb` and `aac` are what the own ones know of H264, H265 and AAC,
//! and what FLV in `output/rtmp` needs of it.

mod ivf;
mod mp4;
mod webm;
mod ts;
mod aac;
mod annexb;
mod spool_sink;

use gstreamer as gst;
use spillway_plan::Container;

pub use ivf::Ivf;
pub use mp4::{FragmentMuxer, Mp4, Mp4TrackKind};
pub use spool_sink::SpoolSink;
pub use ts::TsMuxer;
pub use webm::{FileWrite, WebmMuxer, WebmTrackKind, WebmUnit};

pub(crate) use aac::{FRAME_SAMPLES as AAC_FRAME_SAMPLES, config as aac_config};
pub(crate) use annexb::{avc_config, h264_samples};

use crate::element::{PipelineError, build, make};

/// GStreamer's muxer of a container, in the form that survives a `kill -9`.
pub(crate) fn muxer(container: Container) -> Result<gst::Element, PipelineError> {
    match container {
        Container::Ogg => make("oggmux", |m| m),
        Container::Mp3 => make("xingmux", |m| m),
        // Written without GStreamer, see [`Mp4`], [`WebmMuxer`] and [`Ivf`].
        Container::Mp4 | Container::Webm | Container::Ivf => Err(build("this container has its own muxer")),
    }
}

/// A time in another unit, rounded: `from` and `to` are units a second.
fn scale(value: u64, from: u64, to: u32) -> u64 {
    ((u128::from(value) * u128::from(to) + u128::from(from / 2)) / u128::from(from)) as u64
}
