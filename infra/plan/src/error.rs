use spillway_protocol::code::{Code, RpcError};

/// Why a request is refused. The texts of the first group are livekit/egress' own, which clients match on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    #[error("request has missing or invalid field: {0}")]
    Field(&'static str),
    #[error("no supported codec is compatible with all outputs")]
    NoCommonCodec,
    #[error("no supported file output type is compatible with the selected codecs")]
    NoFileType,
    #[error("format {format} incompatible with codec {codec}")]
    Incompatible { format: &'static str, codec: &'static str },
    #[error("{codec} encoding is not yet supported")]
    Encoding { codec: &'static str },
    #[error("output configuration does not support retry")]
    NotRetrySafe,

    #[error("S3 upload using AssumeRole is disabled for this account")]
    AssumeRoleDisabled,

    /// The field is there and well formed, but asks for more than anybody can want.
    #[error("request has missing or invalid field: {field} ({asked} asked, at most {max})")]
    TooMuch { field: &'static str, asked: i64, max: i64 },
    #[error("request has missing or invalid field: {field} ({asked} asked, possible are {possible})")]
    Impossible { field: &'static str, asked: String, possible: &'static str },
    /// A feature of livekit/egress that this version does not have.
    #[error("{0} not supported yet")]
    NotYet(&'static str),
}

impl PlanError {
    pub fn code(&self) -> Code {
        match self {
            Self::NotRetrySafe => Code::FailedPrecondition,
            Self::NotYet(_) => Code::Unimplemented,
            Self::AssumeRoleDisabled => Code::PermissionDenied,
            Self::Field(_)
            | Self::NoCommonCodec
            | Self::NoFileType
            | Self::Incompatible { .. }
            | Self::Encoding { .. }
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
