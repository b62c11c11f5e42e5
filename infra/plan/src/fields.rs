//! A request of any kind under one set of names: `request` and `second_api` fill it in, `outputs` and `plan` work with it.

use livekit_protocol as livekit;
use url::Url;

use crate::encoding::RequestedEncoding;
use crate::error::PlanError;
use crate::output_types::Container;
use crate::types::{EgressKind, Mixing, Source};
use crate::uploads::RequestedUpload;

/// A request of any kind.
pub(crate) struct RequestFields<'a> {
    pub(crate) kind: EgressKind,
    /// Empty where the request names no room.
    pub(crate) room_name: &'a String,
    pub(crate) source: Source,
    pub(crate) wants_sound: bool,
    pub(crate) wants_picture: bool,
    /// As written; empty where there is none.
    pub(crate) layout: &'a str,
    /// `None`: no page can be meant.
    pub(crate) page: Option<RequestedPage>,
    pub(crate) mixing: Mixing,
    pub(crate) encoding: RequestedEncoding<'a>,
    pub(crate) outputs: Outputs<'a>,
}

impl<'a> RequestFields<'a> {
    /// With sound and picture, default layout, mixing and encoding, and no outputs.
    pub(crate) fn new(kind: EgressKind, room_name: &'a String, source: Source) -> Self {
        Self {
            kind,
            room_name,
            source,
            wants_sound: true,
            wants_picture: true,
            layout: "",
            page: None,
            mixing: Mixing::Both,
            encoding: RequestedEncoding::Nothing,
            outputs: Outputs::default(),
        }
    }
}

/// What a request says about the page that is recorded for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RequestedPage {
    /// A page is asked for.
    Web {
        /// The recording begins when the page says so.
        awaits_start: bool,
    },
    /// A room composite: a template may be.
    Template {
        /// The request brings one of its own.
        own: bool,
        /// It is heard only, and names no layout.
        only_sound: bool,
    },
}

impl RequestedPage {
    /// Of a room composite with these fields.
    pub(crate) fn template(custom_base_url: &str, layout: &str, audio_only: bool) -> Self {
        Self::Template { own: !custom_base_url.is_empty(), only_sound: audio_only && layout.is_empty() }
    }
}

/// Where the page of a request is, as it is written.
#[derive(Clone, Copy)]
pub(crate) struct PageAddress<'a> {
    /// Empty: the request names none.
    pub(crate) url: &'a str,
    /// For the template.
    pub(crate) layout: &'a str,
}

/// The outputs of a request.
#[derive(Default)]
pub(crate) struct Outputs<'a> {
    pub(crate) files: Vec<File<'a>>,
    pub(crate) segments: Vec<Uploaded<'a, livekit::SegmentedFileOutput>>,
    pub(crate) images: Vec<Uploaded<'a, livekit::ImageOutput>>,
    /// RTMP and SRT, and what is malformed.
    pub(crate) streams: Vec<&'a livekit::StreamOutput>,
    /// URL of a Track request, or of a stream output of the second API.
    pub(crate) websocket: Option<&'a str>,
}

/// A file output.
#[derive(Clone, Copy)]
pub(crate) struct File<'a> {
    pub(crate) path: &'a str,
    pub(crate) container: Option<Container>,
    pub(crate) manifest: bool,
    pub(crate) upload: Option<RequestedUpload<'a>>,
}

/// An output of another kind that makes files.
pub(crate) struct Uploaded<'a, T> {
    pub(crate) asked: &'a T,
    /// `None`: the installation's storage.
    pub(crate) upload: Option<RequestedUpload<'a>>,
}

/// Of a source that may leave out its picture or its sound.
pub(crate) fn not_both(audio_only: bool, video_only: bool) -> Result<(), PlanError> {
    if audio_only && video_only { Err(PlanError::Field("audio_only and video_only")) } else { Ok(()) }
}

pub(crate) fn web_url(text: &str, field: &'static str) -> Result<(), PlanError> {
    match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") => Ok(()),
        _ => Err(PlanError::Field(field)),
    }
}
