//! Container and audio codec of an encoded file. The request's file type decides, and where it is not set the codecs; the
//! extension of the path never does. Track egress is not encoded: its container follows from the published codec, in the
//! media process.

use crate::error::PlanError;
use crate::types::{AudioCodec, Container};

impl Container {
    /// File name extension, with the dot.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Mp4 => ".mp4",
            Self::Ogg => ".ogg",
            Self::Webm => ".webm",
            Self::Ivf => ".ivf",
            Self::Mp3 => ".mp3",
        }
    }

    /// Content type of a stored file; also names the container in errors.
    pub fn mime(self) -> &'static str {
        match self {
            Self::Mp4 => "video/mp4",
            Self::Ogg => "audio/ogg",
            Self::Webm => "video/webm",
            Self::Ivf => "video/x-ivf",
            Self::Mp3 => "audio/mpeg",
        }
    }

    /// Audio codecs of an encoded recording in this container, default first.
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
    /// Names the codec in errors.
    pub fn mime(self) -> &'static str {
        match self {
            Self::Aac => "audio/aac",
            Self::Opus => "audio/opus",
            Self::Mp3 => "audio/mpeg",
        }
    }
}

/// The container of an encoded file and its audio codec; without `sound` the codec has no meaning. Fails where the file type
/// cannot hold what is encoded.
pub(crate) fn choose(
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
            // As in livekit/egress: a requested audio codec changes the error about the video.
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
        // A codec for audio that is not recorded is no contradiction.
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
}
