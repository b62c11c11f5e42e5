//! Refusals of a request, with the texts that the caller sees.

use spillway_protocol::code::{Code, RpcError};

/// Why a request is refused. The texts down to `AssumeRoleDisabled` are livekit/egress' own; clients match on them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A field is missing or malformed; its name as livekit/egress writes it.
    #[error("request has missing or invalid field: {0}")]
    Field(&'static str),
    /// No video codec that we encode fits the file type.
    #[error("no supported codec is compatible with all outputs")]
    NoCommonCodec,
    /// No file type holds the audio codec beside video.
    #[error("no supported file output type is compatible with the selected codecs")]
    NoFileType,
    /// An output cannot hold a codec.
    #[error("format {format} incompatible with codec {codec}")]
    Incompatible {
        /// MIME type of the output.
        format: &'static str,
        /// MIME type of the codec.
        codec: &'static str,
    },
    /// A codec of the API that is not encoded.
    #[error("{codec} encoding is not yet supported")]
    Encoding {
        /// MIME type.
        codec: &'static str,
    },
    /// A URL of a stream output.
    #[error("invalid url {url}: {reason}")]
    InvalidUrl {
        /// Its scheme at most, see [`hidden_stream_url`](crate::hidden_stream_url); the rest is secret.
        url: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A second attempt could overwrite the file of the first: its name has no `{retry}`.
    #[error("output configuration does not support retry")]
    NotRetrySafe,
    /// A role without a key of its own, and the installation has none for such roles.
    #[error("S3 upload using AssumeRole is disabled for this account")]
    AssumeRoleDisabled,

    /// The installation's own credentials would sign for something that is not its own.
    #[error("{0} needs credentials in the request: the installation's own sign for its own buckets only")]
    OwnIdentity(&'static str),
    /// A number beyond any sensible use.
    #[error("request has missing or invalid field: {field} ({asked} asked, at most {max})")]
    TooMuch {
        /// Name in the request.
        field: &'static str,
        /// Value in the request.
        asked: i64,
        /// Largest value that is accepted.
        max: i64,
    },
    /// A value outside a list.
    #[error("request has missing or invalid field: {field} ({asked} asked, possible are {possible})")]
    Impossible {
        /// Name in the request.
        field: &'static str,
        /// Value in the request, never one that may be secret.
        asked: String,
        /// The list.
        possible: &'static str,
    },
    /// A request with a template of its own, where none is allowed.
    #[error("custom_base_url needs a web page, and this installation has composite_engine: native")]
    NativeOnly,
    /// Room composites are pages, and there is none for them.
    #[error(
        "room composites need a web page here (composite_engine: page), and neither custom_base_url nor template_base names one"
    )]
    NoTemplate,
    /// A feature of livekit/egress that this version does not have; the text is a subject with its verb.
    #[error("{0} not supported yet")]
    NotYet(&'static str),
}

impl PlanError {
    /// The psrpc code of the refusal.
    pub fn code(&self) -> Code {
        match self {
            Self::NotRetrySafe | Self::NoTemplate => Code::FailedPrecondition,
            Self::NotYet(_) => Code::Unimplemented,
            Self::AssumeRoleDisabled | Self::OwnIdentity(_) | Self::NativeOnly => Code::PermissionDenied,
            Self::Field(_)
            | Self::NoCommonCodec
            | Self::NoFileType
            | Self::Incompatible { .. }
            | Self::Encoding { .. }
            | Self::InvalidUrl { .. }
            | Self::TooMuch { .. }
            | Self::Impossible { .. } => Code::InvalidArgument,
        }
    }
}

impl From<PlanError> for RpcError {
    fn from(error: PlanError) -> Self {
        RpcError::new(error.code(), error.to_string())
    }
}

/// Refuses a number beyond `max`.
pub(crate) fn at_most<T: TryInto<i64>>(field: &'static str, asked: T, max: T) -> Result<(), PlanError> {
    let (asked, max) = (asked.try_into().unwrap_or(i64::MAX), max.try_into().unwrap_or(i64::MAX));
    if asked > max { Err(PlanError::TooMuch { field, asked, max }) } else { Ok(()) }
}
