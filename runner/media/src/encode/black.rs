//! A black key frame, for the time in which a copied picture is muted. Runs a small GStreamer pipeline in the caller's
//! thread and waits for it.

use bytes::Bytes;
use gst::prelude::*;
use gstreamer as gst;
use gstreamer_app as gst_app;

use crate::element::{PipelineError, build, make};

/// How long one black picture may take to encode on a starved machine.
const ENCODE_TIMEOUT: gst::ClockTime = gst::ClockTime::from_seconds(5);

/// One black H264 key frame with its parameter sets, Annex B: a picture that needs none before it and that none after
/// it needs. Takes some tens of milliseconds.
///
/// # Errors
///
/// When an element is missing or no picture came within five seconds.
pub fn black((width, height): (u32, u32)) -> Result<Bytes, PipelineError> {
    let caps = gst::Caps::builder("video/x-raw")
        .field("format", "I420")
        .field("width", width as i32)
        .field("height", height as i32)
        .field("framerate", gst::Fraction::new(1, 1))
        .field("colorimetry", "bt601")
        .build();
    let annex_b =
        gst::Caps::builder("video/x-h264").field("stream-format", "byte-stream").field("alignment", "au").build();
    let out = gst_app::AppSink::builder().caps(&annex_b).sync(false).build();
    let chain = [
        make("videotestsrc", |s| s.property_from_str("pattern", "black").property("num-buffers", 1))?,
        make("capsfilter", |f| f.property("caps", caps))?,
        make("x264enc", |e| {
            e.property_from_str("speed-preset", "ultrafast")
                .property_from_str("tune", "zerolatency")
                .property_from_str("pass", "quant")
                .property("quantizer", 30u32)
                .property("threads", 1u32)
        })?,
        out.clone().upcast(),
    ];
    let pipeline = gst::Pipeline::new();
    pipeline.add_many(&chain).map_err(build)?;
    gst::Element::link_many(&chain).map_err(build)?;
    pipeline.set_state(gst::State::Playing).map_err(build)?;
    let sample = out.try_pull_sample(ENCODE_TIMEOUT);
    // Going down cannot fail for these elements.
    let _ = pipeline.set_state(gst::State::Null);
    let sample = sample.ok_or_else(|| build("no black picture came"))?;
    let map = sample.buffer().and_then(|buffer| buffer.map_readable().ok());
    map.map(|map| Bytes::copy_from_slice(&map)).ok_or_else(|| build("an empty black picture"))
}
