//! The way of encoded sound into a muxer of GStreamer's: an `appsrc` with the caps of the stream, and the parser that the
//! muxer wants before it.

use gstreamer as gst;

use super::chain::{EncoderChain, copied, whole};
use crate::element::{PipelineError, build, make};
use crate::encoded::{EncodedFormat, opus_head};

/// For units of this format. It never makes who pushes wait.
pub(crate) fn muxer_input(format: &EncodedFormat) -> Result<EncoderChain, PipelineError> {
    let (caps, chain) = match format {
        // The parser makes the header.
        EncodedFormat::Opus { channels, pre_skip: 0 } => (opus_caps(*channels, None), vec![make("opusparse", |p| p)?]),
        EncodedFormat::Opus { channels, pre_skip } => (opus_caps(*channels, Some(*pre_skip)), vec![]),
        EncodedFormat::Mp3 { rate } => (mp3_caps(*rate), vec![]),
        EncodedFormat::Video { .. } | EncodedFormat::Aac { .. } | EncodedFormat::Pcm => {
            return Err(build(format_args!("{format} does not go into an Ogg or MP3")));
        }
    };
    Ok((copied(caps), chain))
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
