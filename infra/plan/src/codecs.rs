//! Containers of the files of a request and the audio codec of each output. Pure.
//!
//! The request's file type decides the container, and where it is not set the codecs; the extension of the path does for
//! WebM alone, which has no file type, where the published picture may be copied into one ([`asks_webm`]).
//! Texts and order of the refusals are livekit/egress'. Beyond it, a file type that cannot hold the codec of the other
//! outputs gets an encoding of its own, and one for audio alone is taken beside an output with the picture.
//! Track egress is not encoded: its container follows from the published codec, in the media process.

use crate::error::PlanError;
use crate::output_types::{AudioCodec, Container, HLS_MIME, OutputKind};

/// What the outputs of a request hold. Without sound the codecs have no meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ChosenCodecs {
    /// In the order of the request.
    pub(crate) files: Vec<(Container, AudioCodec)>,
    /// AAC where an output takes it, else the codec of the first.
    pub(crate) main: AudioCodec,
    /// Every other one.
    pub(crate) also: Vec<AudioCodec>,
}

impl ChosenCodecs {
    /// The mix is encoded in this codec too, for a container that is known only with the published codec.
    pub(crate) fn encode_too(&mut self, codec: AudioCodec) {
        if self.main != codec && !self.also.contains(&codec) {
            self.also.push(codec);
        }
    }
}

/// Whether a file without a type is WebM where the published picture can be copied into one. `asked`: the request's audio
/// codec, which must fit. An H264 picture and one that is composed go into the MP4 that [`choose_codecs`] has for it.
pub(crate) fn asks_webm(path: &str, asked: Option<AudioCodec>) -> bool {
    let webm = Container::Webm;
    path.ends_with(webm.extension()) && asked.is_none_or(|codec| webm.audio().contains(&codec))
}

/// Chooses for `files` with these file types beside `others`, where a [`OutputKind::Stream`] is RTMP or SRT. `asked`: the
/// request's audio codec; a stream overrides it where the output can follow. Fails where a file type cannot hold what is
/// encoded.
pub(crate) fn choose_codecs(
    files: &[Option<Container>],
    others: &[OutputKind],
    asked: Option<AudioCodec>,
    sound: bool,
    picture: bool,
) -> Result<ChosenCodecs, PlanError> {
    let asked = asked.filter(|_| sound);
    let streams = others.contains(&OutputKind::Stream);
    let aac_alone = streams || others.contains(&OutputKind::Segments);
    let picture_elsewhere =
        aac_alone || files.iter().any(|container| container.is_none_or(Container::takes_encoded_video));

    let mut typed = Vec::new();
    for container in files {
        typed.push(match container {
            Some(container) => {
                if picture && !container.takes_encoded_video() && !(sound && picture_elsewhere) {
                    return Err(match asked {
                        // As in livekit/egress: a requested audio codec changes the error about the video.
                        Some(_) => PlanError::Incompatible { format: container.mime(), codec: "video/h264" },
                        None => PlanError::NoCommonCodec,
                    });
                }
                Some((*container, audio_of(*container, asked, streams)?))
            }
            None => None,
        });
    }
    if let (Some(codec), true, false) = (asked, aac_alone, streams)
        && codec != AudioCodec::Aac
    {
        return Err(PlanError::Incompatible { format: HLS_MIME, codec: codec.mime() });
    }
    // What a file without a type follows.
    let followed = if aac_alone { Some(AudioCodec::Aac) } else { asked };
    let first_typed = typed.iter().flatten().next().map(|(_, codec)| *codec);
    let untyped = if picture {
        match followed {
            Some(codec) if files.contains(&None) && !Container::Mp4.audio().contains(&codec) => {
                return Err(PlanError::NoFileType);
            }
            followed => (Container::Mp4, followed.unwrap_or(AudioCodec::Aac)),
        }
    } else {
        match followed.or(first_typed) {
            None | Some(AudioCodec::Opus) => (Container::Ogg, AudioCodec::Opus),
            Some(AudioCodec::Aac) => (Container::Mp4, AudioCodec::Aac),
            Some(AudioCodec::Mp3) => (Container::Mp3, AudioCodec::Mp3),
        }
    };
    let files: Vec<(Container, AudioCodec)> = typed.into_iter().map(|typed| typed.unwrap_or(untyped)).collect();

    let mut used: Vec<AudioCodec> = Vec::new();
    for codec in files.iter().map(|(_, codec)| *codec).chain(aac_alone.then_some(AudioCodec::Aac)) {
        if !used.contains(&codec) {
            used.push(codec);
        }
    }
    let aac = used.iter().position(|codec| *codec == AudioCodec::Aac);
    let main = if used.is_empty() { AudioCodec::Aac } else { used.remove(aac.unwrap_or(0)) };
    Ok(ChosenCodecs { files, main, also: used })
}

/// The audio codec of a file whose type is set.
fn audio_of(container: Container, asked: Option<AudioCodec>, streams: bool) -> Result<AudioCodec, PlanError> {
    let possible = container.audio();
    match asked {
        Some(_) if streams && possible.contains(&AudioCodec::Aac) => Ok(AudioCodec::Aac),
        Some(codec) if possible.contains(&codec) => Ok(codec),
        Some(codec) => Err(PlanError::Incompatible { format: container.mime(), codec: codec.mime() }),
        None => Ok(possible.first().copied().unwrap_or(AudioCodec::Opus)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use AudioCodec::{Aac, Mp3, Opus};
    use Container::{Mp4, Ogg};
    use OutputKind::{Images, Segments, Stream};

    fn one(
        asked: Option<Container>,
        codec: Option<AudioCodec>,
        sound: bool,
        picture: bool,
    ) -> Result<(Container, AudioCodec), PlanError> {
        choose_codecs(&[asked], &[], codec, sound, picture).map(|chosen| {
            assert_eq!((chosen.main, chosen.also), (chosen.files[0].1, vec![]));
            chosen.files[0]
        })
    }

    #[test]
    fn codecs_decide_where_the_file_type_says_nothing() {
        for (codec, picture, expected) in [
            (None, false, (Ogg, Opus)),
            (Some(Opus), false, (Ogg, Opus)),
            (Some(Aac), false, (Mp4, Aac)),
            (Some(Mp3), false, (Container::Mp3, Mp3)),
            (None, true, (Mp4, Aac)),
            (Some(Opus), true, (Mp4, Opus)),
        ] {
            assert_eq!(one(None, codec, true, picture), Ok(expected), "{codec:?} {picture}");
        }
        assert_eq!(one(None, Some(Mp3), true, true), Err(PlanError::NoFileType));
        // A codec for audio that is not recorded is no contradiction.
        assert_eq!(one(None, Some(Mp3), false, true).map(|(container, _)| container), Ok(Mp4));
    }

    #[test]
    fn a_container_that_cannot_hold_the_codec_is_refused_at_once() {
        let refused = |asked, codec, picture| one(Some(asked), codec, true, picture).expect_err("refused").to_string();
        for (asked, codec, picture, message) in [
            (Ogg, None, true, "no supported codec is compatible with all outputs"),
            (Ogg, Some(Opus), true, "format audio/ogg incompatible with codec video/h264"),
            (Ogg, Some(Aac), false, "format audio/ogg incompatible with codec audio/aac"),
            (Mp4, Some(Mp3), true, "format video/mp4 incompatible with codec audio/mpeg"),
            (Container::Mp3, Some(Aac), false, "format audio/mpeg incompatible with codec audio/aac"),
            (Container::Mp3, Some(Opus), false, "format audio/mpeg incompatible with codec audio/opus"),
            (Container::Mp3, None, true, "no supported codec is compatible with all outputs"),
        ] {
            assert_eq!(refused(asked, codec, picture), message);
        }
        assert_eq!(one(Some(Container::Mp3), None, true, false), Ok((Container::Mp3, Mp3)));
    }

    #[test]
    fn other_outputs_decide_the_codec_of_a_file_that_can_follow() {
        const MP3: Container = Container::Mp3;
        type Case = (
            &'static [Option<Container>],
            &'static [OutputKind],
            Option<AudioCodec>,
            bool,
            &'static [(Container, AudioCodec)],
            AudioCodec,
            &'static [AudioCodec],
        );
        let cases: &[Case] = &[
            // (file types, others, asked codec, picture) → (files, main codec, codecs beside it)
            (&[None], &[Segments], None, false, &[(Mp4, Aac)], Aac, &[]),
            (&[None], &[Stream], None, false, &[(Mp4, Aac)], Aac, &[]),
            (&[None], &[Stream], Some(Opus), true, &[(Mp4, Aac)], Aac, &[]),
            (&[Some(Mp4)], &[Stream], Some(Opus), true, &[(Mp4, Aac)], Aac, &[]),
            (&[Some(Mp4)], &[Stream], Some(Mp3), true, &[(Mp4, Aac)], Aac, &[]),
            (&[Some(Ogg)], &[Stream], None, false, &[(Ogg, Opus)], Aac, &[Opus]),
            (&[Some(Ogg)], &[Stream], None, true, &[(Ogg, Opus)], Aac, &[Opus]),
            (&[Some(Ogg)], &[Stream], Some(Opus), false, &[(Ogg, Opus)], Aac, &[Opus]),
            (&[Some(MP3)], &[Segments], None, false, &[(MP3, Mp3)], Aac, &[Mp3]),
            (&[Some(Ogg)], &[Images], None, false, &[(Ogg, Opus)], Opus, &[]),
            (&[None], &[Images], None, true, &[(Mp4, Aac)], Aac, &[]),
            (&[], &[Segments, Stream], Some(Opus), true, &[], Aac, &[]),
            (&[], &[Segments], None, false, &[], Aac, &[]),
            (&[Some(Mp4), Some(Mp4), Some(Ogg)], &[], None, true, &[(Mp4, Aac), (Mp4, Aac), (Ogg, Opus)], Aac, &[Opus]),
            (&[Some(Ogg), Some(Mp4)], &[], None, false, &[(Ogg, Opus), (Mp4, Aac)], Aac, &[Opus]),
            (&[Some(Ogg), Some(MP3)], &[], None, false, &[(Ogg, Opus), (MP3, Mp3)], Opus, &[Mp3]),
            (&[Some(Ogg), Some(MP3)], &[Segments], None, false, &[(Ogg, Opus), (MP3, Mp3)], Aac, &[Opus, Mp3]),
            (&[None, Some(MP3)], &[], None, false, &[(MP3, Mp3), (MP3, Mp3)], Mp3, &[]),
            (&[None, Some(Mp4)], &[], None, false, &[(Mp4, Aac), (Mp4, Aac)], Aac, &[]),
            (&[Some(Mp4), Some(Ogg)], &[], Some(Opus), true, &[(Mp4, Opus), (Ogg, Opus)], Opus, &[]),
            (&[None, None], &[], None, false, &[(Ogg, Opus), (Ogg, Opus)], Opus, &[]),
        ];
        for (types, others, asked, picture, files, main, also) in cases {
            let chosen = ChosenCodecs { files: files.to_vec(), main: *main, also: also.to_vec() };
            let name = format!("{types:?} {others:?} {asked:?} {picture}");
            assert_eq!(choose_codecs(types, others, *asked, true, *picture), Ok(chosen), "{name}");
        }
    }

    #[test]
    fn webm_is_asked_for_by_its_extension_and_holds_opus() {
        for (path, asked, webm) in [
            ("d/a.webm", None, true),
            ("d/a.webm", Some(Opus), true),
            (".webm", None, true),
            ("d/a.webm", Some(Aac), false),
            ("d/a.webm", Some(Mp3), false),
            ("d/a.webm.mp4", None, false),
            ("d/a.WEBM", None, false),
            ("d.webm/", None, false),
            ("", None, false),
        ] {
            assert_eq!(asks_webm(path, asked), webm, "{path} {asked:?}");
        }
        for (types, also) in [
            (&[None][..], &[Opus][..]),
            (&[None, Some(Ogg)][..], &[Opus][..]),
            (&[None, Some(Container::Mp3)][..], &[Mp3, Opus][..]),
        ] {
            let mut chosen = choose_codecs(types, &[], None, true, true).expect("codecs");
            chosen.encode_too(Opus);
            assert_eq!((chosen.main, chosen.also.as_slice()), (Aac, also), "{types:?}");
        }
        let mut opus = choose_codecs(&[None], &[], Some(Opus), true, true).expect("codecs");
        opus.encode_too(Opus);
        assert_eq!((opus.main, opus.also), (Opus, vec![]));
    }

    #[test]
    fn a_codec_that_was_asked_for_and_does_not_fit_is_refused() {
        type Case = (&'static [Option<Container>], &'static [OutputKind], AudioCodec, &'static str);
        let cases: &[Case] = &[
            (&[], &[Segments], Mp3, "format application/x-mpegurl incompatible with codec audio/mpeg"),
            (&[None], &[Segments], Opus, "format application/x-mpegurl incompatible with codec audio/opus"),
            (&[Some(Ogg)], &[Stream], Aac, "format audio/ogg incompatible with codec audio/aac"),
            (&[Some(Ogg)], &[Segments], Aac, "format audio/ogg incompatible with codec audio/aac"),
            (&[Some(Container::Mp3)], &[Stream], Opus, "format audio/mpeg incompatible with codec audio/opus"),
            (&[Some(Mp4), Some(Ogg)], &[], Aac, "format audio/ogg incompatible with codec audio/aac"),
        ];
        for (types, others, asked, message) in cases {
            let refused = choose_codecs(types, others, Some(*asked), true, false).expect_err("refused");
            assert_eq!(refused.to_string(), *message, "{types:?} {others:?}");
        }
        // Nothing would be in it.
        let silent = choose_codecs(&[Some(Mp4), Some(Ogg)], &[], None, false, true);
        assert_eq!(silent, Err(PlanError::NoCommonCodec));
        // An image takes no encoded picture, so no output would.
        assert_eq!(choose_codecs(&[Some(Ogg)], &[Images], None, true, true), Err(PlanError::NoCommonCodec));
    }
}
