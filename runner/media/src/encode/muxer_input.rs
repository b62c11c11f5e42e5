//! The way of encoded units into a muxer of GStreamer's: an `appsrc` with the caps of their stream, and the parser that
//! the muxer wants before it.

use std::sync::{Arc, Mutex, PoisonError};

use gst::prelude::*;
use gstreamer as gst;

use super::chain::{EncoderChain, copied, filter, whole};
use crate::element::{PipelineError, build, make};
use crate::encoded::EncodedFormat;
use crate::track::Codec;

/// For units of this format. It never makes who pushes wait.
pub(crate) fn muxer_input(format: &EncodedFormat) -> Result<EncoderChain, PipelineError> {
    let (caps, chain) = match format {
        EncodedFormat::Video { codec, size, .. } => (video_caps(*codec, *size)?, video_parser(*codec)?),
        // The parser makes the header.
        EncodedFormat::Opus { channels, pre_skip: 0 } => (opus_caps(*channels, None), vec![make("opusparse", |p| p)?]),
        EncodedFormat::Opus { channels, pre_skip } => (opus_caps(*channels, Some(*pre_skip)), vec![]),
        EncodedFormat::Mp3 { rate } => (mp3_caps(*rate), vec![]),
        EncodedFormat::Aac { .. } => return Err(build("AAC goes into an MP4 only")),
        EncodedFormat::Pcm => return Err(build("PCM goes into no file")),
    };
    Ok((copied(caps), chain))
}

fn video_caps(codec: Codec, size: (u32, u32)) -> Result<gst::Caps, PipelineError> {
    let caps = match codec {
        Codec::H264 => {
            gst::Caps::builder("video/x-h264").field("stream-format", "byte-stream").field("alignment", "au")
        }
        Codec::H265 => {
            gst::Caps::builder("video/x-h265").field("stream-format", "byte-stream").field("alignment", "au")
        }
        Codec::Vp8 => gst::Caps::builder("video/x-vp8"),
        Codec::Vp9 => gst::Caps::builder("video/x-vp9"),
        Codec::Av1 => gst::Caps::builder("video/x-av1").field("stream-format", "obu-stream").field("alignment", "tu"),
        Codec::Opus | Codec::Pcmu | Codec::Pcma => return Err(build(format!("{codec:?} is not video"))),
    };
    Ok(match codec {
        // Their parsers read the size themselves.
        Codec::H264 | Codec::H265 => caps.build(),
        Codec::Av1 => caps.field("framerate", gst::Fraction::new(0, 1)).build(),
        _ => caps
            .field("width", whole(size.0))
            .field("height", whole(size.1))
            // Variable; webmmux insists on being told.
            .field("framerate", gst::Fraction::new(0, 1))
            .build(),
    })
}

fn video_parser(codec: Codec) -> Result<Vec<gst::Element>, PipelineError> {
    Ok(match codec {
        Codec::H264 => vec![
            make("h264parse", |p| p)?,
            filter(&gst::Caps::builder("video/x-h264").field("stream-format", "avc").field("alignment", "au").build())?,
        ],
        Codec::H265 => vec![
            make("h265parse", |p| p)?,
            filter(
                &gst::Caps::builder("video/x-h265").field("stream-format", "hvc1").field("alignment", "au").build(),
            )?,
        ],
        Codec::Av1 => {
            let parser = make("av1parse", |p| p)?;
            keep_durations(&parser)?;
            let caps = gst::Caps::builder("video/x-av1").field("stream-format", "obu-stream").field("alignment", "tu");
            vec![parser, filter(&caps.build())?]
        }
        _ => vec![],
    })
}

/// `av1parse` drops the duration of a buffer, which of the last one says how long it is shown (GStreamer 1.22).
fn keep_durations(parser: &gst::Element) -> Result<(), PipelineError> {
    let pad = |name| parser.static_pad(name).ok_or_else(|| build(format!("no {name} pad")));
    let latest = Arc::new(Mutex::new(None));
    let given = latest.clone();
    pad("sink")?.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if let Some(buffer) = info.buffer() {
            *given.lock().unwrap_or_else(PoisonError::into_inner) = buffer.pts().zip(buffer.duration());
        }
        gst::PadProbeReturn::Ok
    });
    pad("src")?.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        let known = *latest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((pts, duration)) = known
            && let Some(gst::PadProbeData::Buffer(buffer)) = &mut info.data
            && buffer.pts() == Some(pts)
        {
            buffer.make_mut().set_duration(duration);
        }
        gst::PadProbeReturn::Ok
    });
    Ok(())
}

/// With the header that says what is dropped at the beginning; without it oggmux writes that nothing is.
fn opus_caps(channels: u8, pre_skip: Option<u16>) -> gst::Caps {
    let headers = pre_skip.map(|pre_skip| {
        let headers = [opus_head(channels, pre_skip), opus_tags()];
        gst::Array::new(headers.map(gst::Buffer::from_slice))
    });
    gst::Caps::builder("audio/x-opus")
        .field("rate", 48_000)
        .field("channels", i32::from(channels))
        .field("channel-mapping-family", 0)
        .field_if_some("streamheader", headers)
        .build()
}

/// RFC 7845, 5.1.
fn opus_head(channels: u8, pre_skip: u16) -> Vec<u8> {
    let mut head = b"OpusHead".to_vec();
    head.extend([1, channels]);
    head.extend(pre_skip.to_le_bytes());
    head.extend(48_000u32.to_le_bytes());
    // No gain, mapping family 0.
    head.extend([0u8; 3]);
    head
}

/// RFC 7845, 5.2: the vendor, and no comments.
fn opus_tags() -> Vec<u8> {
    const VENDOR: &[u8] = b"Spillway";
    let mut tags = b"OpusTags".to_vec();
    tags.extend((VENDOR.len() as u32).to_le_bytes());
    tags.extend(VENDOR);
    tags.extend([0u8; 4]);
    tags
}

fn mp3_caps(rate: u32) -> gst::Caps {
    gst::Caps::builder("audio/mpeg")
        .field("mpegversion", 1)
        .field("layer", 3)
        .field("rate", whole(rate))
        .field("channels", 2)
        .field("parsed", true)
        .build()
}
