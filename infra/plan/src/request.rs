//! StartEgress requests of every kind under one set of names ([`RequestFields`]), with the mistakes that one field alone
//! shows. Those of the first API are read here. How it is served is decided in `outputs`, `page` and `plan`.

use livekit_protocol as livekit;
use spillway_protocol::rpc::StartEgressRequest;
use spillway_protocol::rpc::start_egress_request::EgressRequest;

use crate::encoding::RequestedEncoding;
use crate::error::PlanError;
use crate::fields::{File, Outputs, PageAddress, RequestFields, RequestedPage, Uploaded, not_both, web_url};
use crate::outputs::{container, copied_container};
use crate::second_api;
use crate::types::{EgressKind, Mixing, Source};
use crate::uploads::RequestedUpload;

/// The deprecated single output of a request of the first API.
enum Single<'a> {
    None,
    File(&'a livekit::EncodedFileOutput),
    Stream(&'a livekit::StreamOutput),
    Segments(&'a livekit::SegmentedFileOutput),
}

/// Macros, because these fields have the same names and different types in each message of the first API.
macro_rules! encoding {
    ($message:ident, $request:ident) => {
        match &$request.options {
            None => RequestedEncoding::Nothing,
            Some(livekit::$message::Options::Preset(number)) => RequestedEncoding::Preset(*number),
            Some(livekit::$message::Options::Advanced(options)) => RequestedEncoding::Advanced(options),
        }
    };
}

macro_rules! single {
    ($message:ident, $request:ident) => {{
        #[expect(deprecated, reason = "old SDKs still fill the single output")]
        let single = match &$request.output {
            Some(livekit::$message::Output::File(file)) => Single::File(file),
            Some(livekit::$message::Output::Stream(stream)) => Single::Stream(stream),
            Some(livekit::$message::Output::Segments(segments)) => Single::Segments(segments),
            None => Single::None,
        };
        single
    }};
}

macro_rules! outputs {
    ($request:ident, $single:expr) => {
        Outputs::read(
            $single,
            &$request.file_outputs,
            &$request.stream_outputs,
            &$request.segment_outputs,
            &$request.image_outputs,
        )
    };
}

/// Reads the request inside a StartEgress. Fails on a missing or malformed field and on a kind that is not supported.
pub(crate) fn read(start: &StartEgressRequest) -> Result<RequestFields<'_>, PlanError> {
    match start.request.as_ref().ok_or(PlanError::Field("request"))? {
        EgressRequest::RoomComposite(request) => room_composite(request),
        EgressRequest::Participant(request) => participant(request),
        EgressRequest::TrackComposite(request) => track_composite(request),
        EgressRequest::Track(request) => track(request),
        EgressRequest::Web(request) => web(request),
        EgressRequest::Egress(request) => second_api::read(request),
        EgressRequest::Replay(_) => Err(PlanError::NotYet("replay export is")),
    }
}

fn room_composite(request: &livekit::RoomCompositeEgressRequest) -> Result<RequestFields<'_>, PlanError> {
    if !request.custom_base_url.is_empty() {
        web_url(&request.custom_base_url, "template base url")?;
    }
    not_both(request.audio_only, request.video_only)?;
    let mixing = match livekit::AudioMixing::try_from(request.audio_mixing) {
        Ok(livekit::AudioMixing::DefaultMixing) => Mixing::Both,
        Ok(livekit::AudioMixing::DualChannelAgent) => Mixing::AgentsLeft,
        Ok(livekit::AudioMixing::DualChannelAlternate) => Mixing::Alternate,
        Err(_) => return Err(PlanError::Field("audio_mixing")),
    };
    Ok(RequestFields {
        wants_sound: !request.video_only,
        wants_picture: !request.audio_only,
        layout: &request.layout,
        page: Some(RequestedPage::template(&request.custom_base_url, &request.layout, request.audio_only)),
        mixing,
        encoding: encoding!(room_composite_egress_request, request),
        outputs: outputs!(request, single!(room_composite_egress_request, request))?,
        ..RequestFields::new(EgressKind::RoomComposite, &request.room_name, Source::Room)
    })
}

static NO_ROOM: String = String::new();

fn web(request: &livekit::WebEgressRequest) -> Result<RequestFields<'_>, PlanError> {
    web_url(&request.url, "web url")?;
    not_both(request.audio_only, request.video_only)?;
    let page = RequestedPage::Web { awaits_start: request.await_start_signal };
    Ok(RequestFields {
        wants_sound: !request.video_only,
        wants_picture: !request.audio_only,
        page: Some(page),
        encoding: encoding!(web_egress_request, request),
        outputs: outputs!(request, single!(web_egress_request, request))?,
        // Replaced by the page.
        ..RequestFields::new(EgressKind::Web, &NO_ROOM, Source::Room)
    })
}

/// What a request says about where its page is. Fails where no page can be meant.
pub(crate) fn page_address(start: &StartEgressRequest) -> Result<PageAddress<'_>, PlanError> {
    use livekit::start_egress_request::Source as Requested;
    match start.request.as_ref() {
        Some(EgressRequest::RoomComposite(request)) => {
            Ok(PageAddress { url: &request.custom_base_url, layout: &request.layout })
        }
        Some(EgressRequest::Web(request)) => Ok(PageAddress { url: &request.url, layout: "" }),
        Some(EgressRequest::Egress(request)) => match &request.source {
            Some(Requested::Template(template)) => {
                Ok(PageAddress { url: &template.custom_base_url, layout: &template.layout })
            }
            Some(Requested::Web(web)) => Ok(PageAddress { url: &web.url, layout: "" }),
            Some(Requested::Media(_)) | None => Err(PlanError::Field("source")),
        },
        _ => Err(PlanError::Field("request")),
    }
}

fn participant(request: &livekit::ParticipantEgressRequest) -> Result<RequestFields<'_>, PlanError> {
    if request.identity.is_empty() {
        return Err(PlanError::Field("identity"));
    }
    let source = Source::Participant { identity: request.identity.clone(), screen_share: request.screen_share };
    Ok(RequestFields {
        encoding: encoding!(participant_egress_request, request),
        outputs: outputs!(request, Single::None)?,
        ..RequestFields::new(EgressKind::Participant, &request.room_name, source)
    })
}

fn track_composite(request: &livekit::TrackCompositeEgressRequest) -> Result<RequestFields<'_>, PlanError> {
    let named = |id: &String| (!id.is_empty()).then(|| id.clone());
    let (audio, video) = (named(&request.audio_track_id), named(&request.video_track_id));
    if audio.is_none() && video.is_none() {
        return Err(PlanError::Field("audio_track_id or video_track_id"));
    }
    Ok(RequestFields {
        wants_sound: audio.is_some(),
        wants_picture: video.is_some(),
        encoding: encoding!(track_composite_egress_request, request),
        outputs: outputs!(request, single!(track_composite_egress_request, request))?,
        ..RequestFields::new(EgressKind::TrackComposite, &request.room_name, Source::Tracks { audio, video })
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
            container: copied_container(&file.filepath),
            manifest: !file.disable_manifest,
            upload: file.output.as_ref().map(RequestedUpload::from),
        }),
        Some(Output::WebsocketUrl(url)) => outputs.websocket = Some(url),
        None => {}
    }
    let source = Source::Track { track_id: request.track_id.clone() };
    Ok(RequestFields { outputs, ..RequestFields::new(EgressKind::Track, &request.room_name, source) })
}

impl<'a> Outputs<'a> {
    /// The single output counts only where the list of its kind is empty.
    fn read(
        single: Single<'a>,
        files: &'a [livekit::EncodedFileOutput],
        streams: &'a [livekit::StreamOutput],
        segments: &'a [livekit::SegmentedFileOutput],
        images: &'a [livekit::ImageOutput],
    ) -> Result<Self, PlanError> {
        let (file, stream, segmented) = match single {
            Single::None => (None, None, None),
            Single::File(file) => (Some(file), None, None),
            Single::Stream(stream) => (None, Some(stream), None),
            Single::Segments(segments) => (None, None, Some(segments)),
        };
        Ok(Self {
            files: listed(files, file).into_iter().map(encoded_file).collect::<Result<_, _>>()?,
            segments: listed(segments, segmented)
                .into_iter()
                .map(|asked| Uploaded { asked, upload: asked.output.as_ref().map(RequestedUpload::from) })
                .collect(),
            images: images
                .iter()
                .map(|asked| Uploaded { asked, upload: asked.output.as_ref().map(RequestedUpload::from) })
                .collect(),
            streams: listed(streams, stream),
            websocket: None,
        })
    }
}

fn listed<'a, T>(list: &'a [T], single: Option<&'a T>) -> Vec<&'a T> {
    match single {
        Some(single) if list.is_empty() => vec![single],
        _ => list.iter().collect(),
    }
}

fn encoded_file(file: &livekit::EncodedFileOutput) -> Result<File<'_>, PlanError> {
    Ok(File {
        path: &file.filepath,
        container: container(file.file_type)?,
        manifest: !file.disable_manifest,
        upload: file.output.as_ref().map(RequestedUpload::from),
    })
}
