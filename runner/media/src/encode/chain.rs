//! The beginning of every chain: an `appsrc` that makes its feeder wait, or one that never does.

use gstreamer as gst;
use gstreamer_app as gst_app;

use crate::element::{PipelineError, make};

/// The way in, and the elements behind it in order.
pub(crate) type EncoderChain = (gst_app::AppSrc, Vec<gst::Element>);

/// So many buffers may wait in it; then its feeder waits.
pub(super) fn raw(caps: gst::Caps, buffers: u64) -> gst_app::AppSrc {
    gst_app::AppSrc::builder()
        .caps(&caps)
        .format(gst::Format::Time)
        .block(true)
        .max_buffers(buffers)
        .max_bytes(0)
        .max_time(gst::ClockTime::ZERO)
        .build()
}

/// Its feeder must never wait: it holds up no room, only memory, and that is watched.
pub(super) fn copied(caps: gst::Caps) -> gst_app::AppSrc {
    gst_app::AppSrc::builder()
        .caps(&caps)
        .format(gst::Format::Time)
        .max_buffers(0)
        .max_bytes(0)
        .max_time(gst::ClockTime::ZERO)
        .build()
}

pub(super) fn filter(caps: &gst::Caps) -> Result<gst::Element, PipelineError> {
    let caps = caps.clone();
    make("capsfilter", |f| f.property("caps", caps))
}

/// Numbers of requests are far below the bound.
pub(super) fn whole(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
