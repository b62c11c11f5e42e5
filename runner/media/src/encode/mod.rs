//! What GStreamer makes of an input: raw pictures and sound are encoded, copied frames parsed. Each function gives an
//! `appsrc` and the elements behind it, not yet linked; `output` links them to a muxer and runs them.

mod black;

use gstreamer as gst;
use gstreamer_app as gst_app;
use spillway_plan::{AudioCodec, H264Profile, VideoEncoding};

pub use self::black::black;
use crate::element::{PipelineError, make};
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

/// Pixels of a picture up to which one x264 thread keeps up and its bytes are reproducible.
const ONE_THREAD_PIXELS: u32 = 1280 * 720;

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
    },
    /// Opus goes in untouched; PCMU and PCMA, which no container of ours carries, become Opus.
    Copied {
        /// Any audio codec.
        codec: Codec,
        /// One or two.
        channels: u8,
    },
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

/// The way in, and the elements behind it in order.
pub(crate) type EncoderChain = (gst_app::AppSrc, Vec<gst::Element>);

pub(crate) fn video(plan: &VideoInputFormat) -> Result<EncoderChain, PipelineError> {
    match plan {
        VideoInputFormat::Raw { encoding, colour } => {
            Ok((raw(picture_caps(encoding, *colour), PICTURES), h264(encoding)?))
        }
        VideoInputFormat::Copied { codec, size } => Ok((copied(video_caps(*codec, *size)?), video_parser(*codec)?)),
    }
}

pub(crate) fn audio(plan: &AudioInputFormat) -> Result<EncoderChain, PipelineError> {
    match plan {
        AudioInputFormat::Raw { codec, bitrate, frequency } => {
            Ok((raw(sound_caps(), BLOCKS), sound(*codec, *bitrate, *frequency)?))
        }
        AudioInputFormat::Copied { codec, channels } => {
            let channels = (*channels).clamp(1, 2);
            Ok((copied(audio_caps(*codec, channels)?), audio_parser(*codec)?))
        }
    }
}

fn raw(caps: gst::Caps, buffers: u64) -> gst_app::AppSrc {
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
fn copied(caps: gst::Caps) -> gst_app::AppSrc {
    gst_app::AppSrc::builder()
        .caps(&caps)
        .format(gst::Format::Time)
        .max_buffers(0)
        .max_bytes(0)
        .max_time(gst::ClockTime::ZERO)
        .build()
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

fn h264(encoding: &VideoEncoding) -> Result<Vec<gst::Element>, PipelineError> {
    let pixels = encoding.width * encoding.height;
    let interval = encoding.key_frame_interval.filter(|s| *s > 0.0).unwrap_or(KEY_FRAME_INTERVAL);
    let key_int = ((interval * f64::from(encoding.framerate)) as u32).max(1);
    let threads: u32 = if pixels <= ONE_THREAD_PIXELS { 1 } else { 0 };
    let encoder = make("x264enc", |e| {
        let e = e
            .property_from_str("speed-preset", "superfast")
            .property("bitrate", encoding.bitrate.max(1))
            .property("vbv-buf-capacity", VBV_MS)
            .property("key-int-max", key_int)
            .property("threads", threads)
            // A sixth of the time at equal quality, and no reordering to wait for.
            .property("bframes", 0u32);
        // Asked for an interval: key frames exactly there, none between.
        if encoding.key_frame_interval.is_some() { e.property("option-string", "scenecut=0") } else { e }
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

fn sound(codec: AudioCodec, bitrate: u32, frequency: u32) -> Result<Vec<gst::Element>, PipelineError> {
    let frequency = match codec {
        AudioCodec::Opus => 48_000,
        AudioCodec::Aac | AudioCodec::Mp3 => whole(frequency.max(8000)),
    };
    let caps = gst::Caps::builder("audio/x-raw").field("rate", frequency).field("channels", 2).build();
    let mut chain = vec![make("audioconvert", |c| c)?, make("audioresample", |r| r)?, filter(&caps)?];
    match codec {
        AudioCodec::Aac => {
            let bits = whole(bitrate.saturating_mul(1000));
            let coder = if bitrate >= FAST_AAC_KBPS { "fast" } else { "twoloop" };
            chain.push(make("avenc_aac", |e| e.property("bitrate", bits).property_from_str("aac-coder", coder))?);
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
    Ok(vec![make("opusenc", |e| e.property("bitrate", bits))?, make("opusparse", |p| p)?])
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
        Codec::Opus | Codec::Pcmu | Codec::Pcma => {
            return Err(PipelineError::Build { message: format!("{codec:?} is not video") });
        }
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
        Codec::Av1 => vec![
            make("av1parse", |p| p)?,
            filter(
                &gst::Caps::builder("video/x-av1")
                    .field("stream-format", "obu-stream")
                    .field("alignment", "tu")
                    .build(),
            )?,
        ],
        _ => vec![],
    })
}

fn audio_caps(codec: Codec, channels: u8) -> Result<gst::Caps, PipelineError> {
    Ok(match codec {
        Codec::Opus => gst::Caps::builder("audio/x-opus")
            .field("rate", 48_000)
            .field("channels", i32::from(channels))
            .field("channel-mapping-family", 0)
            .build(),
        Codec::Pcmu => gst::Caps::builder("audio/x-mulaw").field("rate", 8000).field("channels", 1).build(),
        Codec::Pcma => gst::Caps::builder("audio/x-alaw").field("rate", 8000).field("channels", 1).build(),
        _ => return Err(PipelineError::Build { message: format!("{codec:?} is not audio") }),
    })
}

fn audio_parser(codec: Codec) -> Result<Vec<gst::Element>, PipelineError> {
    Ok(match codec {
        Codec::Pcmu | Codec::Pcma => {
            let decoder = if codec == Codec::Pcmu { "mulawdec" } else { "alawdec" };
            let mut chain = vec![
                make(decoder, |d| d)?,
                make("audiorate", |r| r.property("skip-to-first", true))?,
                make("audioconvert", |c| c)?,
                make("audioresample", |r| r)?,
            ];
            chain.extend(opus(128)?);
            chain
        }
        _ => vec![make("opusparse", |p| p)?],
    })
}

fn filter(caps: &gst::Caps) -> Result<gst::Element, PipelineError> {
    let caps = caps.clone();
    make("capsfilter", |f| f.property("caps", caps))
}

/// Parts the encoder's thread from that of a muxer with two inputs. Unbounded: what waits here is encoded, and waits
/// only while the other input is behind.
pub(crate) fn queue() -> Result<gst::Element, PipelineError> {
    make("queue", |q| {
        q.property("max-size-buffers", 0u32).property("max-size-bytes", 0u32).property("max-size-time", 0u64)
    })
}

/// Numbers of requests are far below the bound.
fn whole(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
