//! How a request is encoded: options and presets with livekit/egress' defaults (1280×720, 30 fps, 3000 kbps, H264 main, audio
//! 128 kbps at 44100 Hz; `advanced` options override only what they name) and the names of layouts. Codecs and containers
//! are chosen in `outputs`.

use livekit_protocol as livekit;

use crate::error::{PlanError, at_most};
use crate::output_types::AudioCodec;
use crate::types::{H264Profile, LayoutName, LayoutShape, VideoEncoding};

// A request beyond these is a mistake, and its first effect would be a runner out of memory.
pub(crate) const MAX_PIXELS_PER_SIDE: i32 = 4096;
const MAX_FRAMES_PER_SECOND: i32 = 120;
const MAX_VIDEO_KBPS: i32 = 100_000;
const MAX_KEY_FRAME_SECONDS: i64 = 600;
const MAX_MP3_KBPS: u32 = 320;
const MAX_AUDIO_KBPS: i32 = 510;

/// The request's `options`.
pub(crate) enum RequestedEncoding<'a> {
    Nothing,
    /// Number of the enumeration.
    Preset(i32),
    Advanced(&'a livekit::EncodingOptions),
}

impl RequestedEncoding<'_> {
    /// The preset that asks for no encoding at all, of livekit/protocol 1.51.
    pub(crate) fn is_passthrough(&self) -> bool {
        matches!(self, Self::Preset(number) if *number == i32::from(livekit::EncodingOptionsPreset::Passthrough))
    }
}

/// Options with the defaults filled in.
pub(crate) struct Encoding {
    pub(crate) video: VideoEncoding,
    /// The request names a property of the video, so a copy of the published stream does not do.
    pub(crate) video_asked: bool,
    /// `None`: the container decides.
    pub(crate) audio_codec: Option<AudioCodec>,
    /// Kilobits per second.
    audio_bitrate: u32,
    /// Hertz.
    audio_frequency: u32,
}

impl Default for Encoding {
    fn default() -> Self {
        Self {
            video: VideoEncoding {
                width: 1280,
                height: 720,
                framerate: 30,
                bitrate: 3000,
                profile: H264Profile::Main,
                key_frame_interval: None,
            },
            video_asked: false,
            audio_codec: None,
            audio_bitrate: 128,
            audio_frequency: 44_100,
        }
    }
}

impl Encoding {
    /// Fills in the defaults. Fails on values that cannot be encoded.
    pub(crate) fn read(asked: &RequestedEncoding) -> Result<Self, PlanError> {
        match asked {
            RequestedEncoding::Nothing => Ok(Self::default()),
            RequestedEncoding::Preset(number) => Self::preset(*number),
            RequestedEncoding::Advanced(options) => Self::advanced(options),
        }
    }

    fn preset(number: i32) -> Result<Self, PlanError> {
        let (width, height, framerate, bitrate) = match number {
            0 => (1280, 720, 30, 3000),
            1 => (1280, 720, 60, 4500),
            2 => (1920, 1080, 30, 4500),
            3 => (1920, 1080, 60, 6000),
            4 => (720, 1280, 30, 3000),
            5 => (720, 1280, 60, 4500),
            6 => (1080, 1920, 30, 4500),
            7 => (1080, 1920, 60, 6000),
            // PASSTHROUGH is for one track of a media source, where nothing is encoded.
            _ => return Err(PlanError::Field("preset")),
        };
        let mut encoding = Self::default();
        encoding.video = VideoEncoding { width, height, framerate, bitrate, ..encoding.video };
        // The oneof tells a preset of 0 from no preset.
        encoding.video_asked = true;
        Ok(encoding)
    }

    fn advanced(options: &livekit::EncodingOptions) -> Result<Self, PlanError> {
        let mut encoding = Self::default();
        let side = |field, value: i32| match positive(value) {
            Some(value) if value < 16 || value % 2 != 0 => Err(PlanError::Field(field)),
            _ => bounded(field, value, MAX_PIXELS_PER_SIDE),
        };
        let (width, height) = (side("width", options.width)?, side("height", options.height)?);
        // Depth of the captured screen. Only a web page has one, but livekit/egress refuses a wrong one everywhere.
        if !matches!(options.depth, 0 | 8 | 16 | 24) {
            return Err(PlanError::Field("depth"));
        }
        let framerate = bounded("framerate", options.framerate, MAX_FRAMES_PER_SECOND)?;
        let bitrate = bounded("video_bitrate", options.video_bitrate, MAX_VIDEO_KBPS)?;
        let profile = match livekit::VideoCodec::try_from(options.video_codec) {
            Ok(livekit::VideoCodec::DefaultVc) => None,
            Ok(livekit::VideoCodec::H264Baseline) => Some(H264Profile::Baseline),
            Ok(livekit::VideoCodec::H264Main) => Some(H264Profile::Main),
            Ok(livekit::VideoCodec::H264High) => Some(H264Profile::High),
            Ok(livekit::VideoCodec::Vp8) => return Err(PlanError::Encoding { codec: "video/vp8" }),
            Err(_) => return Err(PlanError::Field("video_codec")),
        };
        let key_frame_interval = key_frames(options.key_frame_interval)?;
        encoding.video_asked = width.is_some()
            || height.is_some()
            || framerate.is_some()
            || bitrate.is_some()
            || profile.is_some()
            || key_frame_interval.is_some();
        let usual = encoding.video;
        encoding.video = VideoEncoding {
            width: width.unwrap_or(usual.width),
            height: height.unwrap_or(usual.height),
            framerate: framerate.unwrap_or(usual.framerate),
            bitrate: bitrate.unwrap_or(usual.bitrate),
            profile: profile.unwrap_or(usual.profile),
            key_frame_interval,
        };

        encoding.audio_codec = match livekit::AudioCodec::try_from(options.audio_codec) {
            Ok(livekit::AudioCodec::DefaultAc) => None,
            Ok(livekit::AudioCodec::Opus) => Some(AudioCodec::Opus),
            Ok(livekit::AudioCodec::Aac) => Some(AudioCodec::Aac),
            Ok(livekit::AudioCodec::AcMp3) => Some(AudioCodec::Mp3),
            Err(_) => return Err(PlanError::Field("audio_codec")),
        };
        if let Some(bitrate) = bounded("audio_bitrate", options.audio_bitrate, MAX_AUDIO_KBPS)? {
            encoding.audio_bitrate = bitrate;
        }
        if let Some(frequency) = positive(options.audio_frequency) {
            encoding.audio_frequency = frequency.unsigned_abs();
        }
        Ok(encoding)
    }

    /// Bit rate (kbps) and sample rate (Hz) for a codec. Fails where the codec does not have them.
    pub(crate) fn audio_rates(&self, codec: AudioCodec) -> Result<(u32, u32), PlanError> {
        const AAC: &[u32] =
            &[8000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 64_000, 88_200, 96_000];
        const MP3: &[u32] = &[8000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000];
        let frequency = match codec {
            AudioCodec::Opus => 48_000,
            AudioCodec::Aac if AAC.contains(&self.audio_frequency) => self.audio_frequency,
            AudioCodec::Mp3 if MP3.contains(&self.audio_frequency) => self.audio_frequency,
            AudioCodec::Aac | AudioCodec::Mp3 => {
                return Err(PlanError::Impossible {
                    field: "audio_frequency",
                    asked: self.audio_frequency.to_string(),
                    possible: "8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, with AAC up to 96000",
                });
            }
        };
        if codec == AudioCodec::Mp3 {
            at_most("audio_bitrate", self.audio_bitrate, MAX_MP3_KBPS)?;
        }
        Ok((self.audio_bitrate, frequency))
    }
}

/// Zero and negative values mean "not set", as in livekit/egress.
fn positive(value: i32) -> Option<i32> {
    (value > 0).then_some(value)
}

fn bounded(field: &'static str, value: i32, max: i32) -> Result<Option<u32>, PlanError> {
    at_most(field, value, max)?;
    Ok(positive(value).map(i32::unsigned_abs))
}

fn key_frames(seconds: f64) -> Result<Option<f64>, PlanError> {
    if seconds == 0.0 {
        return Ok(None);
    }
    if !seconds.is_finite() || seconds < 0.0 {
        return Err(PlanError::Field("key_frame_interval"));
    }
    if seconds > MAX_KEY_FRAME_SECONDS as f64 {
        let asked = seconds.min(i64::MAX as f64) as i64;
        return Err(PlanError::TooMuch { field: "key_frame_interval", asked, max: MAX_KEY_FRAME_SECONDS });
    }
    Ok(Some(seconds))
}

/// Names of the built-in layouts: those of livekit/egress' default template. Any other name is refused: a misspelt one
/// would otherwise be noticed only in the finished recording.
const LAYOUTS: &str = "grid, speaker, single-speaker, each also with -light or -dark";

impl LayoutName {
    /// The default.
    pub const GRID: Self = Self { shape: LayoutShape::Grid, light: false };

    /// Reads the request's `layout`; empty is the grid.
    ///
    /// # Errors
    ///
    /// [`PlanError::Impossible`] with the known names. A retry is useless.
    pub fn parse(name: &str) -> Result<Self, PlanError> {
        let (shape, light) = match name.strip_suffix("-light") {
            Some(shape) => (shape, true),
            None => (name.strip_suffix("-dark").unwrap_or(name), false),
        };
        let shape = match shape {
            "grid" => LayoutShape::Grid,
            "" if name.is_empty() => LayoutShape::Grid,
            "speaker" => LayoutShape::Speaker,
            "single-speaker" => LayoutShape::SingleSpeaker,
            _ => {
                let asked = format!("`{}`", name.chars().take(64).collect::<String>());
                return Err(PlanError::Impossible { field: "layout", asked, possible: LAYOUTS });
            }
        };
        Ok(Self { shape, light })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_in_use_is_known_and_others_are_refused_with_the_list() {
        for (name, shape, light) in [
            ("", LayoutShape::Grid, false),
            ("grid", LayoutShape::Grid, false),
            ("grid-dark", LayoutShape::Grid, false),
            ("grid-light", LayoutShape::Grid, true),
            ("speaker", LayoutShape::Speaker, false),
            ("speaker-dark", LayoutShape::Speaker, false),
            ("speaker-light", LayoutShape::Speaker, true),
            ("single-speaker", LayoutShape::SingleSpeaker, false),
            ("single-speaker-dark", LayoutShape::SingleSpeaker, false),
            ("single-speaker-light", LayoutShape::SingleSpeaker, true),
        ] {
            assert_eq!(LayoutName::parse(name), Ok(LayoutName { shape, light }), "{name}");
        }
        for name in ["nosuch", "-light", "-dark", "grid-light-light", "Speaker", "grid-blue", " "] {
            let error = LayoutName::parse(name).expect_err(name).to_string();
            assert!(error.contains("layout") && error.contains("single-speaker"), "{error}");
        }
    }
}
