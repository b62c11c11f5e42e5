//! The request of the second API (`StartEgressRequest` of livekit_egress.proto): one source, one encoding, a list of outputs,
//! and a storage for those that bring none. It is read into the fields of any request, and its mistakes are refused in
//! livekit/egress' order and with its texts (`pkg/config/pipeline.go`, `output.go`).
//!
//! Three differences. `capture_all` beside routes means what the message says: audio that no route matches is heard on both
//! channels; livekit/egress ignores the routes then. An empty sid or identity is refused; livekit/egress records nothing of
//! it. The upload inside an output of segments or images, a field of the first API, counts where the request names no
//! storage.

use livekit_protocol as livekit;
use livekit_protocol::audio_route::Match;
use livekit_protocol::media_source::Video;
use livekit_protocol::output::Config;
use livekit_protocol::start_egress_request::{Encoding, Source as RequestedSource};

use crate::encoding::RequestedEncoding;
use crate::error::{PlanError, at_most};
use crate::fields::{File, Outputs, RequestFields, RequestedPage, Uploaded, not_both, web_url};
use crate::output_types::{HLS_MIME, RAW_AUDIO_MIME, StreamProtocol};
use crate::outputs::{container, copied_container};
use crate::stream_url;
use crate::types::{AudioMatch, AudioRoute, EgressKind, MediaVideo, Mixing, Source, StereoSide};
use crate::uploads::RequestedUpload;

/// Every new audio track is compared with each of them.
const MAX_AUDIO_ROUTES: usize = 1000;

/// Reads the request. Fails on a missing or malformed field and on a source that is not supported.
pub(crate) fn read(request: &livekit::StartEgressRequest) -> Result<RequestFields<'_>, PlanError> {
    let encoding = match &request.encoding {
        None => RequestedEncoding::Nothing,
        Some(Encoding::Preset(number)) => RequestedEncoding::Preset(*number),
        Some(Encoding::Advanced(options)) => RequestedEncoding::Advanced(options),
    };
    if encoding.is_passthrough() {
        return passthrough(request);
    }
    match &request.source {
        Some(RequestedSource::Media(media)) => self::media(request, media, encoding),
        Some(RequestedSource::Template(template)) => self::template(request, template, encoding),
        Some(RequestedSource::Web(web)) => self::web(request, web, encoding),
        None => Err(PlanError::Field("source")),
    }
}

/// The same as a room composite, with its default mixing: the message has no field for another.
fn template<'a>(
    request: &'a livekit::StartEgressRequest,
    template: &'a livekit::TemplateSource,
    encoding: RequestedEncoding<'a>,
) -> Result<RequestFields<'a>, PlanError> {
    if !template.custom_base_url.is_empty() {
        web_url(&template.custom_base_url, "template base url")?;
    }
    not_both(template.audio_only, template.video_only)?;
    let outputs = outputs(request)?;
    let (wants_sound, mut wants_picture) = (!template.video_only, !template.audio_only);
    if outputs.websocket.is_some() {
        takes_raw_sound(&outputs, wants_sound)?;
        wants_picture = false;
    }
    Ok(RequestFields {
        wants_sound,
        wants_picture,
        layout: &template.layout,
        page: Some(RequestedPage::template(&template.custom_base_url, &template.layout, !wants_picture)),
        encoding,
        outputs,
        ..RequestFields::new(EgressKind::RoomComposite, &request.room_name, Source::Room)
    })
}

/// A page of any kind; a room that the request names gives its name to files and nothing else.
fn web<'a>(
    request: &'a livekit::StartEgressRequest,
    web: &livekit::WebSource,
    encoding: RequestedEncoding<'a>,
) -> Result<RequestFields<'a>, PlanError> {
    web_url(&web.url, "web url")?;
    not_both(web.audio_only, web.video_only)?;
    let outputs = outputs(request)?;
    let (wants_sound, mut wants_picture) = (!web.video_only, !web.audio_only);
    if outputs.websocket.is_some() {
        takes_raw_sound(&outputs, wants_sound)?;
        wants_picture = false;
    }
    Ok(RequestFields {
        wants_sound,
        wants_picture,
        page: Some(RequestedPage::Web { awaits_start: web.await_start_signal }),
        encoding,
        outputs,
        // Replaced by the page.
        ..RequestFields::new(EgressKind::Web, &request.room_name, Source::Room)
    })
}

fn media<'a>(
    request: &'a livekit::StartEgressRequest,
    media: &'a livekit::MediaSource,
    encoding: RequestedEncoding<'a>,
) -> Result<RequestFields<'a>, PlanError> {
    let mut video = media.video.as_ref().map(self::video).transpose()?;
    let (audio, other_audio) = match &media.audio {
        Some(audio) => (routes(&audio.routes)?, audio.capture_all),
        None => (vec![], false),
    };
    let wants_sound = other_audio || !audio.is_empty();
    if !wants_sound && video.is_none() {
        return Err(PlanError::Field("audio or video"));
    }
    let outputs = outputs(request)?;
    if outputs.websocket.is_some() {
        takes_raw_sound(&outputs, wants_sound)?;
        // As in livekit/egress: a websocket has no picture, so the request has none.
        video = None;
    }
    let one_side = audio.iter().any(|route| route.side != StereoSide::Both);
    let (wants_picture, everything) = (video.is_some(), other_audio && audio.is_empty());
    // All audio and no video is what a room composite of audio alone takes.
    let source = if everything && !wants_picture { Source::Room } else { Source::Media { video, audio, other_audio } };
    Ok(RequestFields {
        wants_sound,
        wants_picture,
        mixing: if one_side { Mixing::Routed } else { Mixing::Both },
        encoding,
        outputs,
        ..RequestFields::new(EgressKind::Media, &request.room_name, source)
    })
}

fn video(asked: &Video) -> Result<MediaVideo, PlanError> {
    match asked {
        Video::VideoTrackId(sid) if sid.is_empty() => Err(PlanError::Field("video_track_id")),
        Video::VideoTrackId(sid) => Ok(MediaVideo::Track(sid.clone())),
        Video::ParticipantVideo(of) if of.identity.is_empty() => Err(PlanError::Field("participant_video identity")),
        // One or the other, in spite of the field's name, as in livekit/egress.
        Video::ParticipantVideo(of) if of.prefer_screen_share => Ok(MediaVideo::ScreenShare(of.identity.clone())),
        Video::ParticipantVideo(of) => Ok(MediaVideo::Camera(of.identity.clone())),
    }
}

fn routes(asked: &[livekit::AudioRoute]) -> Result<Vec<AudioRoute>, PlanError> {
    at_most("audio routes", asked.len(), MAX_AUDIO_ROUTES)?;
    let route = |asked: &livekit::AudioRoute| {
        let of = match &asked.r#match {
            None => return Err(PlanError::Field("audio route match")),
            Some(Match::TrackId(sid)) if sid.is_empty() => return Err(PlanError::Field("audio route track_id")),
            Some(Match::ParticipantIdentity(identity)) if identity.is_empty() => {
                return Err(PlanError::Field("audio route participant_identity"));
            }
            Some(Match::TrackId(sid)) => AudioMatch::Track(sid.clone()),
            Some(Match::ParticipantIdentity(identity)) => AudioMatch::Participant(identity.clone()),
            // Not checked: a newer livekit-server may have kinds that are not known here.
            Some(Match::ParticipantKind(number)) => AudioMatch::Kind(*number),
        };
        let side = match livekit::AudioChannel::try_from(asked.channel) {
            Ok(livekit::AudioChannel::Both) => StereoSide::Both,
            Ok(livekit::AudioChannel::Left) => StereoSide::Left,
            Ok(livekit::AudioChannel::Right) => StereoSide::Right,
            Err(_) => return Err(PlanError::Field("audio route channel")),
        };
        Ok(AudioRoute { of, side })
    };
    asked.iter().map(route).collect()
}

/// The preset PASSTHROUGH: one named track, copied into one file as by a Track request. That it is of the kind it was named
/// as is seen in the room.
fn passthrough(request: &livekit::StartEgressRequest) -> Result<RequestFields<'_>, PlanError> {
    let Some(RequestedSource::Media(media)) = &request.source else {
        return Err(PlanError::Field("passthrough source"));
    };
    let video = match &media.video {
        Some(Video::VideoTrackId(sid)) if sid.is_empty() => {
            return Err(PlanError::Field("passthrough video_track_id"));
        }
        Some(Video::VideoTrackId(sid)) => Some(sid.clone()),
        Some(Video::ParticipantVideo(_)) => return Err(PlanError::Field("passthrough participant_video")),
        None => None,
    };
    let audio = match &media.audio {
        Some(audio) if audio.capture_all => return Err(PlanError::Field("passthrough capture_all")),
        Some(audio) => match audio.routes.as_slice() {
            [] => None,
            [route] => match &route.r#match {
                Some(Match::TrackId(sid)) if sid.is_empty() => {
                    return Err(PlanError::Field("passthrough audio route track_id"));
                }
                Some(Match::TrackId(sid)) => Some(sid.clone()),
                Some(Match::ParticipantIdentity(_) | Match::ParticipantKind(_)) | None => {
                    return Err(PlanError::Field("passthrough audio route match"));
                }
            },
            _ => return Err(PlanError::Field("passthrough audio routes")),
        },
        None => None,
    };
    if video.is_some() == audio.is_some() {
        return Err(PlanError::Field("passthrough track_id"));
    }
    let [output] = request.outputs.as_slice() else { return Err(PlanError::Field("passthrough outputs")) };
    let Some(Config::File(asked)) = &output.config else { return Err(PlanError::Field("passthrough output")) };
    if asked.file_type != i32::from(livekit::EncodedFileType::DefaultFiletype) {
        return Err(PlanError::Field("passthrough file_type"));
    }
    let file = File { container: copied_container(&asked.filepath), ..file(asked, upload(request, output))? };
    let source = Source::Tracks { audio, video };
    Ok(RequestFields {
        outputs: Outputs { files: vec![file], ..Outputs::default() },
        ..RequestFields::new(EgressKind::Track, &request.room_name, source)
    })
}

fn outputs(request: &livekit::StartEgressRequest) -> Result<Outputs<'_>, PlanError> {
    let mut outputs = Outputs::default();
    for output in &request.outputs {
        let upload = upload(request, output);
        match output.config.as_ref().ok_or(PlanError::Field("output config"))? {
            Config::File(asked) => outputs.files.push(file(asked, upload)?),
            Config::Segments(asked) => {
                let own = || asked.output.as_ref().map(RequestedUpload::from);
                outputs.segments.push(Uploaded { asked, upload: upload.or_else(own) });
            }
            Config::Images(asked) => {
                let own = || asked.output.as_ref().map(RequestedUpload::from);
                outputs.images.push(Uploaded { asked, upload: upload.or_else(own) });
            }
            Config::Stream(_) if !outputs.streams.is_empty() || outputs.websocket.is_some() => {
                return Err(PlanError::Field("multiple stream outputs"));
            }
            Config::Stream(stream) => match stream_url::protocol(stream) {
                Ok(StreamProtocol::Websocket) => outputs.websocket = Some(websocket_url(stream)?),
                Ok(StreamProtocol::Rtmp | StreamProtocol::Srt) | Err(_) => outputs.streams.push(stream),
            },
        }
    }
    Ok(outputs)
}

fn file<'a>(asked: &'a livekit::FileOutput, upload: Option<RequestedUpload<'a>>) -> Result<File<'a>, PlanError> {
    Ok(File {
        path: &asked.filepath,
        container: container(asked.file_type)?,
        manifest: !asked.disable_manifest,
        upload,
    })
}

/// The output's own storage, else the request's. As in livekit/egress the first that is there counts, also one that names no
/// provider: that means the installation's.
fn upload<'a>(request: &'a livekit::StartEgressRequest, output: &'a livekit::Output) -> Option<RequestedUpload<'a>> {
    let storage = output.storage.as_ref().or(request.storage.as_ref())?;
    storage.provider.as_ref().map(RequestedUpload::from)
}

fn websocket_url(stream: &livekit::StreamOutput) -> Result<&str, PlanError> {
    stream.urls.iter().try_for_each(|url| stream_url::check(url, StreamProtocol::Websocket))?;
    match stream.urls.as_slice() {
        [] => Err(PlanError::Field("stream url")),
        [url] => Ok(url),
        // livekit/egress dials one of them and reports all.
        _ => Err(PlanError::NotYet("several URLs of websockets are")),
    }
}

/// The audio of a websocket is not encoded, and no other output takes that.
fn takes_raw_sound(outputs: &Outputs, wants_sound: bool) -> Result<(), PlanError> {
    if !wants_sound {
        return Err(PlanError::Incompatible { format: RAW_AUDIO_MIME, codec: "video/h264" });
    }
    if let Some(file) = outputs.files.first() {
        return Err(match file.container {
            Some(container) => PlanError::Incompatible { format: container.mime(), codec: RAW_AUDIO_MIME },
            None => PlanError::NoFileType,
        });
    }
    if !outputs.segments.is_empty() {
        return Err(PlanError::Incompatible { format: HLS_MIME, codec: RAW_AUDIO_MIME });
    }
    if outputs.images.is_empty() { Ok(()) } else { Err(PlanError::Field("audio_only images")) }
}
