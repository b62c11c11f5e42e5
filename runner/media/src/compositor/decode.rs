//! A decoder that works in the caller's thread: when `push` returns, everything the frame completes has been handed on.
//!
//! That is why "decoded up to" needs no markers and no clock: there is no queue, no sink and no bus between the two
//! pads.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_audio as gst_audio;
use gstreamer_video as gst_video;

use super::sync::lock::lock;
use crate::track::Codec;
use crate::units::MediaTime;

/// Not in every installation: no image has to have it.
const DAV1D: &str = "dav1ddec";

/// Why a decoder cannot be built or has stopped. Another decoder may be built at the next key frame.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    #[error("GStreamer element {element} is not installed")]
    Missing { element: &'static str, source: gst::glib::BoolError },
    #[error("build the decoder of {codec:?}")]
    Build { codec: Codec, source: gst::glib::BoolError },
    #[error("start the decoder of {codec:?}")]
    Start { codec: Codec, source: gst::StateChangeError },
    #[error("decoder of {codec:?} failed: {message}")]
    Broken { codec: Codec, message: String },
}

/// A decoded picture, in the decoder's own memory.
#[derive(Clone, Debug)]
pub struct VideoFrame {
    /// Its place in the recording, as its encoded frame had it.
    pub at: MediaTime,
    /// The picture, with the strides of its `VideoMeta`.
    pub buffer: gst::Buffer,
    /// Format, size and colour.
    pub info: Arc<gst_video::VideoInfo>,
}

/// Decoded sound: interleaved stereo, 48 kHz.
#[derive(Clone, Debug, PartialEq)]
pub struct AudioFrame {
    /// Place of the first sample.
    pub at: MediaTime,
    /// Left and right in turn, full scale at 1.
    pub stereo: Vec<f32>,
}

/// A chain of GStreamer elements between two pads of our own.
pub struct Decoder {
    codec: Codec,
    bin: gst::Bin,
    entry: gst::Pad,
    /// Kept alive: the last element pushes into it.
    _exit: gst::Pad,
    /// The first error an element posted.
    trouble: Arc<Mutex<Option<String>>>,
}

impl Decoder {
    /// `out` may block: that is the back-pressure.
    ///
    /// # Errors
    ///
    /// When an element is missing or does not start. A retry does not help.
    pub fn pictures(codec: Codec, mut out: impl FnMut(VideoFrame) + Send + 'static) -> Result<Self, DecodeError> {
        let mut info: Option<Arc<gst_video::VideoInfo>> = None;
        Self::new(codec, 0, move |output| match output {
            DecoderOutput::Caps(caps) => info = gst_video::VideoInfo::from_caps(caps).ok().map(Arc::new),
            DecoderOutput::Buffer(buffer, at) => {
                if let Some(info) = &info {
                    out(VideoFrame { at, buffer, info: info.clone() });
                }
            }
        })
    }

    /// `channels` counts for PCMU and PCMA only: an Opus packet says itself what it carries.
    ///
    /// # Errors
    ///
    /// When an element is missing or does not start. A retry does not help.
    pub fn samples(
        codec: Codec,
        channels: u8,
        mut out: impl FnMut(AudioFrame) + Send + 'static,
    ) -> Result<Self, DecodeError> {
        let mut info: Option<gst_audio::AudioInfo> = None;
        Self::new(codec, channels, move |output| match output {
            DecoderOutput::Caps(caps) => info = gst_audio::AudioInfo::from_caps(caps).ok(),
            DecoderOutput::Buffer(buffer, at) => {
                if let (Some(info), Ok(map)) = (&info, buffer.map_readable()) {
                    out(AudioFrame { at, stereo: stereo(info, &map) });
                }
            }
        })
    }

    fn new(
        codec: Codec,
        channels: u8,
        out: impl FnMut(DecoderOutput<'_>) + Send + 'static,
    ) -> Result<Self, DecodeError> {
        let build = |source| DecodeError::Build { codec, source };
        let bin = gst::Bin::new();
        let trouble = Arc::new(Mutex::new(None));
        let bus = gst::Bus::new();
        let heard = trouble.clone();
        bus.set_sync_handler(move |_, message| {
            if let gst::MessageView::Error(error) = message.view() {
                lock(&heard).get_or_insert_with(|| error.error().to_string());
            }
            gst::BusSyncReply::Drop
        });
        bin.set_bus(Some(&bus));

        let chain = elements(codec)?;
        bin.add_many(&chain).map_err(build)?;
        gst::Element::link_many(&chain).map_err(build)?;
        let ends = chain
            .first()
            .zip(chain.last())
            .and_then(|(first, last)| Some((first.static_pad("sink")?, last.static_pad("src")?)));
        let (first, last) = ends.ok_or_else(|| build(gst::glib::bool_error!("an element has no static pad")))?;

        let entry = gst::Pad::builder(gst::PadDirection::Src).name("entry").build();
        let exit = exit(out);
        let link = |from: &gst::Pad, to: &gst::Pad| {
            from.link(to).map(|_| ()).map_err(|error| build(gst::glib::bool_error!("pads do not link: {:?}", error)))
        };
        exit.set_active(true).map_err(build)?;
        entry.set_active(true).map_err(build)?;
        link(&last, &exit)?;
        link(&entry, &first)?;
        bin.set_state(gst::State::Playing).map_err(|source| DecodeError::Start { codec, source })?;

        entry.push_event(gst::event::StreamStart::new("track"));
        entry.push_event(gst::event::Caps::new(&caps(codec, channels)));
        entry.push_event(gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new()));
        Ok(Self { codec, bin, entry, _exit: exit, trouble })
    }

    /// Decodes one frame in the caller's thread; `out` was called for all it completes when this returns.
    ///
    /// # Errors
    ///
    /// When an element reported an error. The decoder is of no use any more.
    pub fn push(&self, at: MediaTime, key: bool, data: Bytes) -> Result<(), DecodeError> {
        let mut buffer = gst::Buffer::from_slice(data);
        let fresh = buffer.get_mut().expect("just made, not shared");
        fresh.set_pts(gst::ClockTime::from_nseconds(at.ns()));
        if self.codec.is_video() && !key {
            fresh.set_flags(gst::BufferFlags::DELTA_UNIT);
        }
        let pushed = self.entry.push(buffer);
        let message = lock(&self.trouble).take();
        match (pushed, message) {
            (Ok(_), None) => Ok(()),
            (_, Some(message)) => Err(DecodeError::Broken { codec: self.codec, message }),
            (Err(flow), None) => Err(DecodeError::Broken { codec: self.codec, message: flow.to_string() }),
        }
    }
}

impl Drop for Decoder {
    fn drop(&mut self) {
        let _ = self.bin.set_state(gst::State::Null);
        let _ = self.entry.set_active(false);
        let _ = self._exit.set_active(false);
    }
}

enum DecoderOutput<'a> {
    Caps(&'a gst::CapsRef),
    Buffer(gst::Buffer, MediaTime),
}

/// The end of the chain: a pad of our own instead of a sink.
fn exit(out: impl FnMut(DecoderOutput<'_>) + Send + 'static) -> gst::Pad {
    let out = Arc::new(Mutex::new(out));
    let events = out.clone();
    gst::Pad::builder(gst::PadDirection::Sink)
        .name("exit")
        .chain_function(move |_, _, buffer| {
            // Without a time it has no place; our frames all carry one, so this is a decoder's leftover.
            if let Some(at) = buffer.pts() {
                lock(&out)(DecoderOutput::Buffer(buffer, MediaTime::from_ns(at.nseconds())));
            }
            Ok(gst::FlowSuccess::Ok)
        })
        .event_function(move |_, _, event| {
            if let gst::EventView::Caps(caps) = event.view() {
                lock(&events)(DecoderOutput::Caps(caps.caps()));
            }
            true
        })
        .query_function(|pad, parent, query| match query.view_mut() {
            // With strides of its own a decoder hands out the picture it decoded into, uncopied.
            gst::QueryViewMut::Allocation(allocation) => {
                allocation.add_allocation_meta::<gst_video::VideoMeta>(None);
                true
            }
            // A pad without a template would take nothing but its first size.
            gst::QueryViewMut::AcceptCaps(accept) => {
                accept.set_result(true);
                true
            }
            gst::QueryViewMut::Caps(caps) => {
                let any = caps.filter_owned().unwrap_or_else(gst::Caps::new_any);
                caps.set_result(&any);
                true
            }
            _ => gst::Pad::query_default(pad, parent, query),
        })
        .build()
}

/// From parser to raw. One thread each: frame threads would add delay, and parallelism comes from many tracks.
fn elements(codec: Codec) -> Result<Vec<gst::Element>, DecodeError> {
    Ok(match codec {
        Codec::H264 => vec![make("h264parse", &[])?, make("avdec_h264", &[("max-threads", "1")])?],
        Codec::H265 => vec![make("h265parse", &[])?, make("avdec_h265", &[("max-threads", "1")])?],
        Codec::Vp8 => vec![make("vp8dec", &[("threads", "1")])?],
        Codec::Vp9 => vec![make("vp9dec", &[("threads", "1")])?],
        Codec::Av1 => vec![make("av1parse", &[])?, av1_decoder()?],
        // Concealment would invent sound in the gaps of discontinuous transmission.
        Codec::Opus => vec![make("opusdec", &[("plc", "false")])?],
        Codec::Pcmu | Codec::Pcma => {
            let decoder = if codec == Codec::Pcmu { "mulawdec" } else { "alawdec" };
            let rate = ("caps", "audio/x-raw,rate=48000");
            vec![make(decoder, &[])?, make("audioresample", &[])?, make("capsfilter", &[rate])?]
        }
    })
}

/// dav1d where its plugin is installed (gst-plugins-rs; Debian has no package of it), without threads and delays of its own.
/// Else libaom, which takes 2.4 times as long: 60 pictures of 720p in 0.25 s.
fn av1_decoder() -> Result<gst::Element, DecodeError> {
    match gst::ElementFactory::find(DAV1D) {
        Some(_) => make(DAV1D, &[("n-threads", "1"), ("max-frame-delay", "1")]),
        None => make("av1dec", &[]),
    }
}

fn make(element: &'static str, properties: &[(&str, &str)]) -> Result<gst::Element, DecodeError> {
    let mut factory = gst::ElementFactory::make(element);
    for (name, value) in properties {
        factory = factory.property_from_str(name, value);
    }
    factory.build().map_err(|source| DecodeError::Missing { element, source })
}

fn caps(codec: Codec, channels: u8) -> gst::Caps {
    let annex_b =
        |name: &str| gst::Caps::builder(name).field("stream-format", "byte-stream").field("alignment", "au").build();
    let law = |name: &str| {
        gst::Caps::builder(name).field("rate", 8000i32).field("channels", i32::from(channels.max(1))).build()
    };
    match codec {
        Codec::H264 => annex_b("video/x-h264"),
        Codec::H265 => annex_b("video/x-h265"),
        Codec::Vp8 => gst::Caps::new_empty_simple("video/x-vp8"),
        Codec::Vp9 => gst::Caps::builder("video/x-vp9").field("alignment", "super-frame").build(),
        Codec::Av1 => {
            gst::Caps::builder("video/x-av1").field("stream-format", "obu-stream").field("alignment", "tu").build()
        }
        Codec::Opus => gst::Caps::builder("audio/x-opus")
            .field("channel-mapping-family", 0i32)
            .field("channels", 2i32)
            .field("rate", 48_000i32)
            .build(),
        Codec::Pcmu => law("audio/x-mulaw"),
        Codec::Pcma => law("audio/x-alaw"),
    }
}

/// The first two channels; one channel goes to both sides.
fn stereo(info: &gst_audio::AudioInfo, data: &[u8]) -> Vec<f32> {
    let channels = info.channels().max(1) as usize;
    match info.format() {
        gst_audio::AudioFormat::F32le => two_channels(data, channels, f32::from_le_bytes),
        _ => two_channels(data, channels, |sample| f32::from(i16::from_le_bytes(sample)) / 32_768.0),
    }
}

/// Of whole frames; `sample` reads one.
fn two_channels<const BYTES: usize>(data: &[u8], channels: usize, sample: impl Fn([u8; BYTES]) -> f32) -> Vec<f32> {
    let (samples, _) = data.as_chunks::<BYTES>();
    let whole = &samples[..samples.len() / channels * channels];
    match channels {
        1 => whole.iter().flat_map(|mono| [sample(*mono); 2]).collect(),
        2 => whole.iter().map(|side| sample(*side)).collect(),
        _ => whole.chunks_exact(channels).flat_map(|frame| [sample(frame[0]), sample(frame[1])]).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_of_channels_becomes_two() {
        let s16 = |sample: [u8; 2]| f32::from(i16::from_le_bytes(sample)) / 32_768.0;
        let bytes: Vec<u8> = [8192i16, -8192, 16_384, -16_384, 4096].iter().flat_map(|s| s.to_le_bytes()).collect();
        assert_eq!(two_channels(&bytes, 1, s16)[..4], [0.25, 0.25, -0.25, -0.25]);
        assert_eq!(two_channels(&bytes, 2, s16), [0.25, -0.25, 0.5, -0.5], "no half of a frame");
        assert_eq!(two_channels(&bytes, 4, s16), [0.25, -0.25]);
        let float: Vec<u8> = [0.5f32, -1.0].iter().flat_map(|s| s.to_le_bytes()).collect();
        assert_eq!(two_channels(&float, 2, f32::from_le_bytes), [0.5, -1.0]);
    }
}
