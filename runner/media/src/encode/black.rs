//! A black key frame, for the time in which a copied picture is muted. Runs a small GStreamer pipeline in the caller's
//! thread and waits for it.

use bytes::Bytes;
use gst::prelude::*;
use gstreamer as gst;
use gstreamer_app as gst_app;

use crate::element::{PipelineError, build, make};
use crate::track::Codec;

/// How long one black picture may take to encode on a starved machine.
const ENCODE_TIMEOUT: gst::ClockTime = gst::ClockTime::from_seconds(5);

/// One black key frame, as [`Frame`](crate::track::Frame) defines it: a picture that needs none before it and that none after
/// it needs. Takes some tens of milliseconds.
///
/// # Errors
///
/// When an element is missing, no picture came within five seconds, or the codec is none that is copied beside sound.
pub fn black(codec: Codec, (width, height): (u32, u32)) -> Result<Bytes, PipelineError> {
    let caps = gst::Caps::builder("video/x-raw")
        .field("format", "I420")
        .field("width", width as i32)
        .field("height", height as i32)
        .field("framerate", gst::Fraction::new(1, 1))
        .field("colorimetry", "bt601")
        .build();
    let (encoder, encoded) = encoder(codec)?;
    let out = gst_app::AppSink::builder().caps(&encoded).sync(false).build();
    let mut chain = vec![
        make("videotestsrc", |s| s.property_from_str("pattern", "black").property("num-buffers", 1))?,
        make("capsfilter", |f| f.property("caps", caps))?,
    ];
    chain.extend(encoder);
    chain.push(out.clone().upcast());
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

/// The cheapest way to one key frame, and what comes out.
fn encoder(codec: Codec) -> Result<(Vec<gst::Element>, gst::Caps), PipelineError> {
    let vpx = |name| make(name, |e| e.property_from_str("deadline", "1").property_from_str("cpu-used", "8"));
    match codec {
        Codec::H264 => {
            let encoder = make("x264enc", |e| {
                e.property_from_str("speed-preset", "ultrafast")
                    .property_from_str("tune", "zerolatency")
                    .property_from_str("pass", "quant")
                    .property("quantizer", 30u32)
                    .property("threads", 1u32)
            })?;
            let annex_b = gst::Caps::builder("video/x-h264")
                .field("stream-format", "byte-stream")
                .field("alignment", "au")
                .build();
            Ok((vec![encoder], annex_b))
        }
        Codec::Vp8 => Ok((vec![vpx("vp8enc")?], gst::Caps::builder("video/x-vp8").build())),
        Codec::Vp9 => Ok((vec![vpx("vp9enc")?], gst::Caps::builder("video/x-vp9").build())),
        Codec::Av1 => {
            let encoder = make("av1enc", |e| e.property_from_str("cpu-used", "8"))?;
            let units =
                gst::Caps::builder("video/x-av1").field("stream-format", "obu-stream").field("alignment", "tu").build();
            Ok((vec![encoder, make("av1parse", |p| p)?], units))
        }
        Codec::H265 | Codec::Opus | Codec::Pcmu | Codec::Pcma => {
            Err(build(format_args!("{codec:?} has no black picture")))
        }
    }
}
