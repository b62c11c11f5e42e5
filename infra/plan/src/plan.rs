//! StartEgress, read: every mistake that can be known without a room is answered here, in the order and words of
//! livekit/egress.

use livekit_protocol as livekit;
use spillway_protocol::EgressId;
use spillway_protocol::rpc::StartEgressRequest;
use spillway_protocol::rpc::start_egress_request::EgressRequest;
use url::Url;

use crate::container;
use crate::destination::StorageConfig;
use crate::encoding::{Encoding, RequestedEncoding};
use crate::error::PlanError;
use crate::name;
use crate::types::*;
use crate::uploads::{self, RequestedUpload};

/// What the installation says about every request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Defaults {
    /// Somebody here can make a room token, so that the request need not bring one.
    pub mints_tokens: bool,
    /// livekit-server's URL is known, so that the request need not bring it.
    pub knows_server: bool,
    pub storage: StorageConfig,
    pub limits: Limits,
}

impl Default for Defaults {
    fn default() -> Self {
        Self { mints_tokens: true, knows_server: true, storage: StorageConfig::default(), limits: Limits::default() }
    }
}

/// What will be made of `start`, or why nothing will.
pub fn plan(start: &StartEgressRequest, defaults: &Defaults) -> Result<EgressPlan, PlanError> {
    // It is part of file names (spool, manifest): no `/` and no `..` in it, also where no livekit-server has made it.
    if EgressId::parse(&start.egress_id).is_err() {
        return Err(PlanError::Field("egressID"));
    }
    let asked = read(start.request.as_ref().ok_or(PlanError::Field("request"))?)?;
    let encoding = Encoding::read(&asked.encoding)?;
    let file = asked.outputs.only_file(start.retry_count, defaults)?;

    let room_name = if asked.room_name.is_empty() { &start.room_name } else { asked.room_name };
    if start.token.is_empty() {
        if !defaults.mints_tokens {
            return Err(PlanError::Field("token or api key/secret"));
        }
        if room_name.is_empty() {
            // livekit/egress says "token or api key/secret" here too, which sends people the wrong way.
            return Err(PlanError::Field("room_name"));
        }
    }
    if start.ws_url.is_empty() && !defaults.knows_server {
        return Err(PlanError::Field("ws_url"));
    }

    let PlannedMedia { picture, sound, container } = made(&asked, encoding, &file)?;
    Ok(EgressPlan {
        egress_id: start.egress_id.clone(),
        room_name: room_name.clone(),
        room_id: start.room_id.clone(),
        kind: asked.kind,
        source: asked.source,
        picture,
        sound,
        outputs: vec![Output::File(FileOutput {
            container,
            path: name::clean(file.path),
            manifest: file.manifest,
            stored: file.upload.is_some() || defaults.storage.primary.is_some(),
        })],
        limits: defaults.limits.clone(),
        retry_count: start.retry_count,
    })
}

/// The upload that each output of the plan brings, in its order.
pub(crate) fn uploads(start: &StartEgressRequest) -> Result<Vec<Option<RequestedUpload<'_>>>, PlanError> {
    let asked = read(start.request.as_ref().ok_or(PlanError::Field("request"))?)?;
    Ok(asked.outputs.files.iter().map(|file| file.upload).collect())
}

/// A request of any kind, under one set of names.
struct RequestFields<'a> {
    kind: EgressKind,
    room_name: &'a String,
    source: Source,
    wants_sound: bool,
    wants_picture: bool,
    layout: LayoutName,
    mixing: Mixing,
    encoding: RequestedEncoding<'a>,
    outputs: Outputs<'a>,
}

#[derive(Clone, Copy)]
struct File<'a> {
    path: &'a str,
    container: Option<Container>,
    manifest: bool,
    upload: Option<RequestedUpload<'a>>,
}

/// How many of each kind of output there are; only files can be served yet.
#[derive(Default)]
struct Outputs<'a> {
    files: Vec<File<'a>>,
    streams: usize,
    segments: usize,
    images: usize,
    websocket: bool,
}

fn read(request: &EgressRequest) -> Result<RequestFields<'_>, PlanError> {
    match request {
        EgressRequest::RoomComposite(request) => room_composite(request),
        EgressRequest::Participant(request) => participant(request),
        EgressRequest::TrackComposite(request) => track_composite(request),
        EgressRequest::Track(request) => track(request),
        EgressRequest::Web(request) => {
            web_url(&request.url, "web url")?;
            Err(PlanError::NotYet("web egress is"))
        }
        EgressRequest::Egress(_) => Err(PlanError::NotYet("the StartEgress (v2) API is")),
        EgressRequest::Replay(_) => Err(PlanError::NotYet("replay export is")),
    }
}

fn room_composite(request: &livekit::RoomCompositeEgressRequest) -> Result<RequestFields<'_>, PlanError> {
    use livekit::room_composite_egress_request::{Options, Output};
    if !request.custom_base_url.is_empty() {
        web_url(&request.custom_base_url, "template base url")?;
    }
    if request.audio_only && request.video_only {
        return Err(PlanError::Field("audio_only and video_only"));
    }
    if !request.custom_base_url.is_empty() {
        return Err(PlanError::NotYet("custom_base_url (templates of your own) is"));
    }
    let mixing = match livekit::AudioMixing::try_from(request.audio_mixing) {
        Ok(livekit::AudioMixing::DefaultMixing) => Mixing::Both,
        Ok(livekit::AudioMixing::DualChannelAgent) => Mixing::AgentsLeft,
        Ok(livekit::AudioMixing::DualChannelAlternate) => Mixing::Alternate,
        Err(_) => return Err(PlanError::Field("audio_mixing")),
    };
    #[expect(deprecated, reason = "old SDKs still fill the single output")]
    let single = match &request.output {
        Some(Output::File(file)) => Single::File(file),
        Some(Output::Stream(_)) => Single::Stream,
        Some(Output::Segments(_)) => Single::Segments,
        None => Single::None,
    };
    Ok(RequestFields {
        kind: EgressKind::RoomComposite,
        room_name: &request.room_name,
        source: Source::Room,
        wants_sound: !request.video_only,
        wants_picture: !request.audio_only,
        layout: LayoutName::parse(&request.layout)?,
        mixing,
        encoding: match &request.options {
            None => RequestedEncoding::Nothing,
            Some(Options::Preset(number)) => RequestedEncoding::Preset(*number),
            Some(Options::Advanced(options)) => RequestedEncoding::Advanced(options),
        },
        outputs: Outputs::read(
            single,
            &request.file_outputs,
            request.stream_outputs.len(),
            request.segment_outputs.len(),
            request.image_outputs.len(),
        )?,
    })
}

fn participant(request: &livekit::ParticipantEgressRequest) -> Result<RequestFields<'_>, PlanError> {
    use livekit::participant_egress_request::Options;
    if request.identity.is_empty() {
        return Err(PlanError::Field("identity"));
    }
    Ok(RequestFields {
        kind: EgressKind::Participant,
        room_name: &request.room_name,
        source: Source::Participant { identity: request.identity.clone(), screen_share: request.screen_share },
        wants_sound: true,
        wants_picture: true,
        layout: LayoutName::GRID,
        mixing: Mixing::Both,
        encoding: match &request.options {
            None => RequestedEncoding::Nothing,
            Some(Options::Preset(number)) => RequestedEncoding::Preset(*number),
            Some(Options::Advanced(options)) => RequestedEncoding::Advanced(options),
        },
        outputs: Outputs::read(
            Single::None,
            &request.file_outputs,
            request.stream_outputs.len(),
            request.segment_outputs.len(),
            request.image_outputs.len(),
        )?,
    })
}

fn track_composite(request: &livekit::TrackCompositeEgressRequest) -> Result<RequestFields<'_>, PlanError> {
    use livekit::track_composite_egress_request::{Options, Output};
    let named = |id: &String| (!id.is_empty()).then(|| id.clone());
    let (audio, video) = (named(&request.audio_track_id), named(&request.video_track_id));
    if audio.is_none() && video.is_none() {
        return Err(PlanError::Field("audio_track_id or video_track_id"));
    }
    #[expect(deprecated, reason = "old SDKs still fill the single output")]
    let single = match &request.output {
        Some(Output::File(file)) => Single::File(file),
        Some(Output::Stream(_)) => Single::Stream,
        Some(Output::Segments(_)) => Single::Segments,
        None => Single::None,
    };
    Ok(RequestFields {
        kind: EgressKind::TrackComposite,
        room_name: &request.room_name,
        wants_sound: audio.is_some(),
        wants_picture: video.is_some(),
        source: Source::Tracks { audio, video },
        layout: LayoutName::GRID,
        mixing: Mixing::Both,
        encoding: match &request.options {
            None => RequestedEncoding::Nothing,
            Some(Options::Preset(number)) => RequestedEncoding::Preset(*number),
            Some(Options::Advanced(options)) => RequestedEncoding::Advanced(options),
        },
        outputs: Outputs::read(
            single,
            &request.file_outputs,
            request.stream_outputs.len(),
            request.segment_outputs.len(),
            request.image_outputs.len(),
        )?,
    })
}

fn track(request: &livekit::TrackEgressRequest) -> Result<RequestFields<'_>, PlanError> {
    use livekit::track_egress_request::Output;
    if request.track_id.is_empty() {
        return Err(PlanError::Field("track_id"));
    }
    let mut outputs = Outputs::default();
    match &request.output {
        Some(Output::File(file)) => outputs.files.push(File {
            path: &file.filepath,
            // The promise of the first README: whoever names an IVF gets one, where the codec allows it.
            container: file.filepath.ends_with(".ivf").then_some(Container::Ivf),
            manifest: !file.disable_manifest,
            upload: file.output.as_ref().map(RequestedUpload::from),
        }),
        Some(Output::WebsocketUrl(_)) => outputs.websocket = true,
        None => {}
    }
    Ok(RequestFields {
        kind: EgressKind::Track,
        room_name: &request.room_name,
        source: Source::Track { track_id: request.track_id.clone() },
        wants_sound: true,
        wants_picture: true,
        layout: LayoutName::GRID,
        mixing: Mixing::Both,
        encoding: RequestedEncoding::Nothing,
        outputs,
    })
}

/// The deprecated one output of a v1 request.
enum Single<'a> {
    None,
    File(&'a livekit::EncodedFileOutput),
    Stream,
    Segments,
}

impl<'a> Outputs<'a> {
    /// The single output counts only where the list of its kind is empty.
    fn read(
        single: Single<'a>,
        files: &'a [livekit::EncodedFileOutput],
        streams: usize,
        segments: usize,
        images: usize,
    ) -> Result<Self, PlanError> {
        let files = match single {
            Single::File(file) if files.is_empty() => vec![encoded_file(file)?],
            _ => files.iter().map(encoded_file).collect::<Result<_, _>>()?,
        };
        let streams = if matches!(single, Single::Stream) { streams.max(1) } else { streams };
        let segments = if matches!(single, Single::Segments) { segments.max(1) } else { segments };
        Ok(Self { files, streams, segments, images, websocket: false })
    }

    /// The one file, if a file is all that was asked for.
    fn only_file(&self, retry_count: i32, defaults: &Defaults) -> Result<File<'a>, PlanError> {
        if self.files.len() > 1 {
            return Err(PlanError::Field("multiple file outputs"));
        }
        if self.streams > 1 {
            return Err(PlanError::Field("multiple stream outputs"));
        }
        if self.segments > 1 {
            return Err(PlanError::Field("multiple segmented file outputs"));
        }
        for (asked, feature) in [
            (self.streams > 0, "stream outputs (RTMP, SRT) are"),
            (self.segments > 0, "segment outputs (HLS) are"),
            (self.images > 0, "image outputs are"),
            (self.websocket, "websocket outputs are"),
        ] {
            if asked {
                return Err(PlanError::NotYet(feature));
            }
        }
        let file = *self.files.first().ok_or(PlanError::Field("output"))?;
        uploads::destination(file.upload, &defaults.storage)?;
        if !name::possible(file.path) {
            return Err(PlanError::Field("filepath"));
        }
        if retry_count > 0 && !name::retry_safe(file.path) {
            return Err(PlanError::NotRetrySafe);
        }
        Ok(file)
    }
}

fn encoded_file(file: &livekit::EncodedFileOutput) -> Result<File<'_>, PlanError> {
    Ok(File {
        path: &file.filepath,
        container: match livekit::EncodedFileType::try_from(file.file_type) {
            Ok(livekit::EncodedFileType::DefaultFiletype) => None,
            Ok(livekit::EncodedFileType::Mp4) => Some(Container::Mp4),
            Ok(livekit::EncodedFileType::Ogg) => Some(Container::Ogg),
            Ok(livekit::EncodedFileType::Mp3) => Some(Container::Mp3),
            Err(_) => return Err(PlanError::Field("file_type")),
        },
        manifest: !file.disable_manifest,
        upload: file.output.as_ref().map(RequestedUpload::from),
    })
}

/// Picture and sound as they will be made, and the container of the file.
struct PlannedMedia {
    picture: Option<VideoPlan>,
    sound: Option<AudioPlan>,
    container: Option<Container>,
}

fn made(asked: &RequestFields, encoding: Encoding, file: &File) -> Result<PlannedMedia, PlanError> {
    if asked.kind == EgressKind::Track {
        return Ok(PlannedMedia {
            picture: Some(VideoPlan::Copied),
            sound: Some(AudioPlan::Copied),
            container: file.container,
        });
    }
    let (container, codec) =
        container::choose(file.container, encoding.audio_codec, asked.wants_sound, asked.wants_picture)?;
    let sound = if asked.wants_sound {
        let (bitrate, frequency) = encoding.sound(codec)?;
        Some(AudioPlan::Mixed { codec, bitrate, frequency, mixing: asked.mixing })
    } else {
        None
    };
    let picture = asked.wants_picture.then_some(match asked.kind {
        EgressKind::RoomComposite => VideoPlan::Composed { layout: asked.layout, encoding: encoding.video },
        _ if encoding.video_asked => VideoPlan::Single(encoding.video),
        _ => VideoPlan::CopiedIfPossible(encoding.video),
    });
    Ok(PlannedMedia { picture, sound, container: Some(container) })
}

fn web_url(text: &str, field: &'static str) -> Result<(), PlanError> {
    match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") => Ok(()),
        _ => Err(PlanError::Field(field)),
    }
}
