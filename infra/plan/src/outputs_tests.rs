//! Containers and codecs: what is chosen, and what is refused.

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
