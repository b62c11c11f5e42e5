//! A request of any kind under one set of names: `request` and `second_api` fill it in, `outputs` and `plan` work with it.

use livekit_protocol as livekit;
use url::Url;

use crate::encoding::RequestedEncoding;
use crate::error::PlanError;
use crate::output_types::Container;
use crate::types::{EgressKind, LayoutName, Mixing, Source};
use crate::uploads::RequestedUpload;

/// A request of any kind.
pub(crate) struct RequestFields<'a> {
    pub(crate) kind: EgressKind,
    /// Empty where the request names no room.
    pub(crate) room_name: &'a String,
    pub(crate) source: Source,
    pub(crate) wants_sound: bool,
    pub(crate) wants_picture: bool,
    pub(crate) layout: LayoutName,
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
            layout: LayoutName::GRID,
            mixing: Mixing::Both,
            encoding: RequestedEncoding::Nothing,
            outputs: Outputs::default(),
        }
    }
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

pub(crate) fn web_url(text: &str, field: &'static str) -> Result<(), PlanError> {
    match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") => Ok(()),
        _ => Err(PlanError::Field(field)),
    }
}
