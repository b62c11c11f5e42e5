//! Which container goes with which codec. The extension of the path never decides (but see [`Container::for_published`]
//! on `.ivf`): the request's file type does, and where it says nothing, the codecs.

use serde::{Deserialize, Serialize};

use crate::error::PlanError;
use crate::types::{AudioCodec, Container};

/// What a participant published, as a Track egress finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PublishedCodec {
    H264,
    H265,
    Vp8,
    Vp9,
    Av1,
    Opus,
    Pcmu,
    Pcma,
}

impl Container {
    /// With the dot.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Mp4 => ".mp4",
            Self::Ogg => ".ogg",
            Self::Webm => ".webm",
            Self::Ivf => ".ivf",
            Self::Mp3 => ".mp3",
        }
    }

    /// Content type of what is stored, and the word for the container in errors.
    pub fn mime(self) -> &'static str {
        match self {
            Self::Mp4 => "video/mp4",
            Self::Ogg => "audio/ogg",
            Self::Webm => "video/webm",
            Self::Ivf => "video/x-ivf",
            Self::Mp3 => "audio/mpeg",
        }
    }

    /// The container of a track whose bytes are stored untouched. `asked` is the plan's: only IVF can be asked for, by a
    /// path that ends in `.ivf`, and only where IVF can hold the codec.
    pub fn for_published(codec: PublishedCodec, asked: Option<Container>) -> Container {
        match codec {
            PublishedCodec::H264 | PublishedCodec::H265 => Self::Mp4,
            PublishedCodec::Vp8 | PublishedCodec::Vp9 | PublishedCodec::Av1 if asked == Some(Self::Ivf) => Self::Ivf,
            PublishedCodec::Vp8 | PublishedCodec::Vp9 | PublishedCodec::Av1 => Self::Webm,
            PublishedCodec::Opus | PublishedCodec::Pcmu | PublishedCodec::Pcma => Self::Ogg,
        }
    }

    /// Codecs an encoded recording may have in this container, default first.
    fn audio(self) -> &'static [AudioCodec] {
        match self {
            Self::Mp4 => &[AudioCodec::Aac, AudioCodec::Opus],
            Self::Ogg | Self::Webm => &[AudioCodec::Opus],
            Self::Mp3 => &[AudioCodec::Mp3],
            Self::Ivf => &[],
        }
    }

    /// Only H264 is ever encoded.
    fn takes_encoded_video(self) -> bool {
        matches!(self, Self::Mp4)
    }
}

impl AudioCodec {
    pub fn mime(self) -> &'static str {
        match self {
            Self::Aac => "audio/aac",
            Self::Opus => "audio/opus",
            Self::Mp3 => "audio/mpeg",
        }
    }
}

/// The container of an encoded file and the audio codec in it; without sound the codec is only what would be used.
pub fn choose(
    asked: Option<Container>,
    codec: Option<AudioCodec>,
    sound: bool,
    picture: bool,
) -> Result<(Container, AudioCodec), PlanError> {
    let codec = codec.filter(|_| sound);
    let container = match asked {
        Some(container) => container,
        None if picture => Container::Mp4,
        None => match codec {
            None | Some(AudioCodec::Opus) => Container::Ogg,
            Some(AudioCodec::Aac) => Container::Mp4,
            Some(AudioCodec::Mp3) => Container::Mp3,
        },
    };
    if picture && !container.takes_encoded_video() {
        return Err(match codec {
            // Peculiar, but clients know it: an audio codec that was named changes the words about the video.
            Some(_) => PlanError::Incompatible { format: container.mime(), codec: "video/h264" },
            None => PlanError::NoCommonCodec,
        });
    }
    let possible = container.audio();
    let codec = match codec {
        None => possible.first().copied().unwrap_or(AudioCodec::Opus),
        Some(codec) if possible.contains(&codec) => codec,
        Some(_) if asked.is_none() => return Err(PlanError::NoFileType),
        Some(codec) => return Err(PlanError::Incompatible { format: container.mime(), codec: codec.mime() }),
    };
    Ok((container, codec))
}

#[cfg(test)]
mod tests {
    use super::*;
    use AudioCodec::{Aac, Mp3, Opus};

    #[test]
    fn codecs_decide_where_the_file_type_says_nothing() {
        for (codec, picture, expected) in [
            (None, false, (Container::Ogg, Opus)),
            (Some(Opus), false, (Container::Ogg, Opus)),
            (Some(Aac), false, (Container::Mp4, Aac)),
            (Some(Mp3), false, (Container::Mp3, Mp3)),
            (None, true, (Container::Mp4, Aac)),
            (Some(Opus), true, (Container::Mp4, Opus)),
        ] {
            assert_eq!(choose(None, codec, true, picture), Ok(expected), "{codec:?} {picture}");
        }
        assert_eq!(choose(None, Some(Mp3), true, true), Err(PlanError::NoFileType));
        // A codec for a sound that is not recorded is no contradiction.
        assert_eq!(choose(None, Some(Mp3), false, true).map(|(container, _)| container), Ok(Container::Mp4));
    }

    #[test]
    fn a_container_that_cannot_hold_the_codec_is_refused_at_once() {
        let refused =
            |asked, codec, picture| choose(Some(asked), codec, true, picture).expect_err("refused").to_string();
        for (asked, codec, picture, message) in [
            (Container::Ogg, None, true, "no supported codec is compatible with all outputs"),
            (Container::Ogg, Some(Opus), true, "format audio/ogg incompatible with codec video/h264"),
            (Container::Ogg, Some(Aac), false, "format audio/ogg incompatible with codec audio/aac"),
            (Container::Mp4, Some(Mp3), true, "format video/mp4 incompatible with codec audio/mpeg"),
            (Container::Mp3, Some(Aac), false, "format audio/mpeg incompatible with codec audio/aac"),
            (Container::Mp3, Some(Opus), false, "format audio/mpeg incompatible with codec audio/opus"),
            (Container::Mp3, None, true, "no supported codec is compatible with all outputs"),
        ] {
            assert_eq!(refused(asked, codec, picture), message);
        }
        assert_eq!(choose(Some(Container::Mp3), None, true, false), Ok((Container::Mp3, Mp3)));
    }

    #[test]
    fn ivf_is_for_those_who_ask_and_only_where_it_fits() {
        let ivf = Some(Container::Ivf);
        assert_eq!(Container::for_published(PublishedCodec::Vp9, None), Container::Webm);
        assert_eq!(Container::for_published(PublishedCodec::Vp9, ivf), Container::Ivf);
        assert_eq!(Container::for_published(PublishedCodec::Av1, ivf), Container::Ivf);
        assert_eq!(Container::for_published(PublishedCodec::H264, ivf), Container::Mp4);
        assert_eq!(Container::for_published(PublishedCodec::Pcma, ivf), Container::Ogg);
    }
}
