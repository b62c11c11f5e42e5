//! What GStreamer makes of an input: raw pictures and sound are encoded, PCMU and PCMA become Opus, all else goes on as
//! it came. Each function gives an `appsrc` and the elements behind it, not yet linked; `output` links and runs them. `image`
//! makes files of single pictures, and runs its elements itself; `sheet` puts small pictures side by side for it.

mod black;
mod sheet;
mod image;
mod muxer_input;
mod chain;

use std::time::Duration;

use gst::prelude::*;
use gstreamer as gst;
use spillway_plan::{AudioCodec, H264Profile, VideoEncoding};

pub use self::black::black;
pub(crate) use self::chain::EncoderChain;
use self::chain::{copied, filter, raw, whole};
pub use self::image::{ImageEncoder, ImageScaler};
pub(crate) use self::muxer_input::muxer_input;
pub use self::sheet::{SheetCanvas, contrast, jpeg};
use crate::element::{PipelineError, build, make};
use crate::encoded::EncodedFormat;
use crate::key_grid::KeyGrid;
use crate::track::Codec;

/// Pictures and blocks that may wait at a raw input. Enough to keep the encoder busy, few enough that lag is held as
/// encoded packets in the compositor's inbox and not as pictures here.
const PICTURES: u64 = 3;
const BLOCKS: u64 = 5;

/// Seconds between key frames unless asked otherwise.
const KEY_FRAME_INTERVAL: f64 = 2.0;

/// Buffering of the rate control, milliseconds; what livekit/egress allows it.
const VBV_MS: u32 = 2000;

/// From here on the encoder's cheap search (a third of the time) leaves less noise above what is masked than its
/// thorough one, at the same band width; below it leaves holes in the treble.
const FAST_AAC_KBPS: u32 = 128;

/// From here on libopus does not code each band of two channels twice to choose the better angle between them (`theta_rdo` in
/// celt/bands.c, its complexities 8 to 10): what lower rates gain by.
const FAST_OPUS_KBPS: u32 = 96;
const FAST_OPUS_COMPLEXITY: i32 = 7;

/// Samples at 48 kHz that a decoder drops at the beginning of what opusenc makes: libopus' look-ahead.
const OPUS_PRE_SKIP: u16 = 312;

/// With a bit for no more pixels than this (3 Mbit/s of 720p at 30 a second, 9.2) x264 codes without arithmetic (CAVLC), whose
/// cost grows with the bits: a tenth more of them say the same, and there are enough.
const PIXELS_A_BIT: u64 = 10;

/// Pixels a second up to which one x264 thread keeps up and its bytes are reproducible.
const ONE_THREAD_PIXELS: u64 = 1280 * 720 * 30;

/// What pictures go in.
#[derive(Clone, Debug)]
pub enum VideoInputFormat {
    /// I420 pictures of exactly this size, one per output time.
    Raw {
        /// Size, rate and bit rate of the encoded pictures.
        encoding: VideoEncoding,
        /// How they are labelled.
        colour: Colour,
    },
    /// Frames as [`crate::track::Frame`] defines them; `size` of the first key frame.
    Copied {
        /// Any video codec.
        codec: Codec,
        /// Pixels.
        size: (u32, u32),
    },
}

impl VideoInputFormat {
    /// What comes out.
    pub fn encoded(&self) -> EncodedFormat {
        match self {
            Self::Raw { encoding, .. } => EncodedFormat::Video {
                codec: Codec::H264,
                size: (encoding.width, encoding.height),
                framerate: Some(encoding.framerate),
                bitrate_kbps: Some(encoding.bitrate),
            },
            Self::Copied { codec, size } => {
                EncodedFormat::Video { codec: *codec, size: *size, framerate: None, bitrate_kbps: None }
            }
        }
    }
}

/// What sound goes in.
#[derive(Clone, Debug)]
pub enum AudioInputFormat {
    /// F32 interleaved stereo at 48 kHz.
    Raw {
        /// What it becomes.
        codec: AudioCodec,
        /// Kilobits per second.
        bitrate: u32,
        /// Hertz.
        frequency: u32,
        /// Its sides are different sounds, an agent and people, and stay apart.
        separate: bool,
    },
    /// Opus goes in untouched; PCMU and PCMA, which no container of ours carries, become Opus.
    Copied {
        /// Any audio codec.
        codec: Codec,
        /// One or two.
        channels: u8,
    },
    /// F32 interleaved stereo at 48 kHz, which is not encoded.
    Pcm,
}

impl AudioInputFormat {
    /// What comes out.
    pub fn encoded(&self) -> EncodedFormat {
        match self {
            Self::Raw { codec: AudioCodec::Aac, bitrate, frequency, .. } => {
                EncodedFormat::Aac { rate: encoder_rate(*frequency), bitrate_kbps: *bitrate }
            }
            Self::Raw { codec: AudioCodec::Mp3, frequency, .. } => {
                EncodedFormat::Mp3 { rate: encoder_rate(*frequency) }
            }
            Self::Raw { codec: AudioCodec::Opus, .. } => EncodedFormat::Opus { channels: 2, pre_skip: OPUS_PRE_SKIP },
            Self::Copied { codec: Codec::Pcmu | Codec::Pcma, .. } => {
                EncodedFormat::Opus { channels: 1, pre_skip: OPUS_PRE_SKIP }
            }
            Self::Copied { channels, .. } => EncodedFormat::Opus { channels: (*channels).clamp(1, 2), pre_skip: 0 },
            Self::Pcm => EncodedFormat::Pcm,
        }
    }
}

/// What the pictures' numbers mean. A label only: nothing is converted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Colour {
    /// What WebRTC sends.
    #[default]
    Bt601,
    /// What most encoders of HD video label it with.
    Bt709,
}

/// `None`: frames go on as they came.
/// The encoder is the first element; with a grid it is told where its key frames are.
pub(crate) fn video(input: &VideoInputFormat, grid: Option<KeyGrid>) -> Result<Option<EncoderChain>, PipelineError> {
    match input {
        VideoInputFormat::Raw { encoding, colour } => {
            Ok(Some((raw(picture_caps(encoding, *colour), PICTURES), h264(encoding, grid)?)))
        }
        VideoInputFormat::Copied { .. } => Ok(None),
    }
}

/// `None`: packets go on as they came, samples as S16.
pub(crate) fn audio(input: &AudioInputFormat) -> Result<Option<EncoderChain>, PipelineError> {
    match input {
        AudioInputFormat::Raw { codec, bitrate, frequency, separate } => {
            Ok(Some((raw(sound_caps(), BLOCKS), sound(*codec, (*bitrate, *frequency), *separate)?)))
        }
        AudioInputFormat::Copied { codec: codec @ (Codec::Pcmu | Codec::Pcma), .. } => Ok(Some(g711(*codec)?)),
        AudioInputFormat::Copied { codec: Codec::Opus, .. } | AudioInputFormat::Pcm => Ok(None),
        AudioInputFormat::Copied { codec, .. } => Err(build(format!("{codec:?} is not audio"))),
    }
}

fn picture_caps(encoding: &VideoEncoding, colour: Colour) -> gst::Caps {
    gst::Caps::builder("video/x-raw")
        .field("format", "I420")
        .field("width", whole(encoding.width))
        .field("height", whole(encoding.height))
        .field("framerate", gst::Fraction::new(whole(encoding.framerate.max(1)), 1))
        .field("pixel-aspect-ratio", gst::Fraction::new(1, 1))
        .field("interlace-mode", "progressive")
        .field(
            "colorimetry",
            match colour {
                Colour::Bt601 => "bt601",
                Colour::Bt709 => "bt709",
            },
        )
        .build()
}

fn sound_caps() -> gst::Caps {
    gst::Caps::builder("audio/x-raw")
        .field("format", "F32LE")
        .field("layout", "interleaved")
        .field("rate", 48_000)
        .field("channels", 2)
        .field("channel-mask", gst::Bitmask::new(0x3))
        .build()
}

fn h264(encoding: &VideoEncoding, grid: Option<KeyGrid>) -> Result<Vec<gst::Element>, PipelineError> {
    let interval = match grid {
        // Out of the way of the forced ones, which restart its count; it remains for a line that is missed.
        Some(grid) => 2.0 * grid.step_ns() as f64 / 1e9,
        None => key_frame_interval(encoding).as_secs_f64(),
    };
    let key_int = ((interval * f64::from(encoding.framerate)) as u32).max(1);
    let encoder = make("x264enc", |e| {
        let e = e
            .property_from_str("speed-preset", "superfast")
            .property("bitrate", encoding.bitrate.max(1))
            .property("vbv-buf-capacity", VBV_MS)
            .property("key-int-max", key_int)
            .property("threads", threads(encoding))
            // A sixth of the time at equal quality, and no reordering to wait for.
            .property("bframes", 0u32);
        let options = x264_options(encoding, grid);
        if options.is_empty() { e } else { e.property("option-string", options.join(":")) }
    })?;
    let profile = match encoding.profile {
        H264Profile::Baseline => "baseline",
        H264Profile::Main => "main",
        H264Profile::High => "high",
    };
    let caps = gst::Caps::builder("video/x-h264")
        .field("profile", profile)
        .field("stream-format", "byte-stream")
        .field("alignment", "au")
        .build();
    Ok(vec![encoder, filter(&caps)?])
}

/// What has no property of the element.
fn x264_options(encoding: &VideoEncoding, grid: Option<KeyGrid>) -> Vec<&'static str> {
    let mut options = vec![];
    // Asked for an interval: key frames exactly there, none between.
    if encoding.key_frame_interval.is_some() || grid.is_some() {
        options.push("scenecut=0");
    }
    let pixels = u64::from(encoding.width) * u64::from(encoding.height) * u64::from(encoding.framerate);
    if u64::from(encoding.bitrate) * 1000 * PIXELS_A_BIT >= pixels {
        options.push("cabac=0");
    }
    options
}

/// Most time between two key frames where no grid says where they are.
pub(crate) fn key_frame_interval(encoding: &VideoEncoding) -> Duration {
    let asked = encoding.key_frame_interval.filter(|seconds| *seconds > 0.0);
    Duration::try_from_secs_f64(asked.unwrap_or(KEY_FRAME_INTERVAL)).unwrap_or(Duration::MAX)
}

/// Of x264; 0: as many as there are cores, and half of that.
fn threads(encoding: &VideoEncoding) -> u32 {
    let pixels = u64::from(encoding.width) * u64::from(encoding.height) * u64::from(encoding.framerate);
    if pixels <= ONE_THREAD_PIXELS { 1 } else { 0 }
}

fn sound(
    codec: AudioCodec,
    (bitrate, frequency): (u32, u32),
    separate: bool,
) -> Result<Vec<gst::Element>, PipelineError> {
    let frequency = match codec {
        AudioCodec::Opus => 48_000,
        AudioCodec::Aac | AudioCodec::Mp3 => whole(encoder_rate(frequency)),
    };
    let caps = gst::Caps::builder("audio/x-raw").field("rate", frequency).field("channels", 2).build();
    let mut chain = vec![make("audioconvert", |c| c)?, make("audioresample", |r| r)?, filter(&caps)?];
    match codec {
        AudioCodec::Aac => {
            let bits = whole(bitrate.saturating_mul(1000));
            let coder = if bitrate >= FAST_AAC_KBPS { "fast" } else { "twoloop" };
            let encoder = make("avenc_aac", |e| e.property("bitrate", bits).property_from_str("aac-coder", coder))?;
            // In GStreamer 1.22 mid/side is a switch that is on: equal sides gain 4.5 dB by it; a tone of one side alone came
            // out on the other 1 to 3 dB lower, and 50 dB lower without it (128 kbit/s). Later versions let the encoder choose.
            let is_switch = |ms: gst::glib::ParamSpec| ms.value_type() == bool::static_type();
            if encoder.find_property("aac-ms").is_some_and(is_switch) {
                encoder.set_property("aac-ms", !separate);
            }
            chain.push(encoder);
            chain.push(make("aacparse", |p| p)?);
        }
        AudioCodec::Opus => chain.extend(opus(bitrate)?),
        AudioCodec::Mp3 => {
            chain.push(make("lamemp3enc", |e| {
                e.property_from_str("target", "bitrate").property("cbr", true).property("bitrate", whole(bitrate))
            })?);
            chain.push(make("mpegaudioparse", |p| p)?);
        }
    }
    Ok(chain)
}

fn opus(bitrate: u32) -> Result<Vec<gst::Element>, PipelineError> {
    let bits = whole(bitrate.clamp(6, 510) * 1000);
    let encoder = make("opusenc", |e| {
        let e = e.property("bitrate", bits);
        if bitrate >= FAST_OPUS_KBPS { e.property("complexity", FAST_OPUS_COMPLEXITY) } else { e }
    })?;
    Ok(vec![encoder, make("opusparse", |p| p)?])
}

/// PCMU or PCMA, 8 kHz, as Opus.
fn g711(codec: Codec) -> Result<EncoderChain, PipelineError> {
    let (format, decoder) =
        if codec == Codec::Pcmu { ("audio/x-mulaw", "mulawdec") } else { ("audio/x-alaw", "alawdec") };
    let caps = gst::Caps::builder(format).field("rate", 8000).field("channels", 1).build();
    let mut chain = vec![
        make(decoder, |d| d)?,
        make("audiorate", |r| r.property("skip-to-first", true))?,
        make("audioconvert", |c| c)?,
        make("audioresample", |r| r)?,
    ];
    chain.extend(opus(128)?);
    Ok((copied(caps), chain))
}

/// Samples a second that AAC and MP3 encoders are asked for.
fn encoder_rate(frequency: u32) -> u32 {
    frequency.max(8000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixty_pictures_a_second_have_more_than_one_thread() {
        let of = |width, height, framerate| {
            let profile = H264Profile::Main;
            threads(&VideoEncoding { width, height, framerate, bitrate: 3000, profile, key_frame_interval: None })
        };
        assert_eq!([of(1280, 720, 30), of(640, 360, 60), of(1280, 720, 60), of(1920, 1080, 30)], [1, 1, 0, 0]);
    }

    #[test]
    fn where_bits_are_few_they_are_coded_arithmetically() {
        let of = |(width, height), bitrate, key_frame_interval| {
            let profile = H264Profile::Main;
            let encoding = VideoEncoding { width, height, framerate: 30, bitrate, profile, key_frame_interval };
            x264_options(&encoding, None).join(":")
        };
        assert_eq!(of((1280, 720), 3000, None), "cabac=0");
        assert_eq!(of((1280, 720), 2000, None), "");
        assert_eq!(of((1920, 1080), 4500, Some(4.0)), "scenecut=0");
        assert_eq!(of((640, 360), 800, Some(4.0)), "scenecut=0:cabac=0");
    }
}
