//! Errors of psrpc calls: a code for programs, a message for people.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Error codes of psrpc (livekit/psrpc, `errors.go`). livekit-server translates them into Twirp codes and HTTP statuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The caller gave up.
    Canceled,
    /// The request could not be decoded.
    MalformedRequest,
    /// The answer could not be decoded.
    MalformedResult,
    /// No answer in time.
    DeadlineExceeded,
    /// No server answered, or the server cannot answer now.
    Unavailable,
    /// An error without a code, or with a code that this version does not know.
    Unknown,
    /// The request is wrong whatever the state of the system.
    InvalidArgument,
    /// What the request names does not exist.
    NotFound,
    /// HTTP 406; not used by livekit/egress.
    NotAcceptable,
    /// What the request would create exists.
    AlreadyExists,
    /// The caller is known and not allowed to do this.
    PermissionDenied,
    /// No capacity, or a quota is used up.
    ResourceExhausted,
    /// The system is not in the state that the request needs.
    FailedPrecondition,
    /// A concurrent operation interfered.
    Aborted,
    /// Beyond the valid range.
    OutOfRange,
    /// Not supported by this version.
    Unimplemented,
    /// A fault of the server.
    Internal,
    /// Data is lost or corrupt.
    DataLoss,
    /// No valid credentials.
    Unauthenticated,
    /// HTTP 422; not used by livekit/egress.
    UnprocessableEntity,
    /// A service that the server depends on failed (its 5xx).
    UpstreamServerError,
    /// A service that the server depends on refused (its 4xx).
    UpstreamClientError,
}

/// Code, its text in a response, and psrpc's HTTP number.
const TABLE: [(Code, &str, u16); 22] = [
    (Code::Canceled, "canceled", 503),
    (Code::MalformedRequest, "malformed_request", 400),
    (Code::MalformedResult, "malformed_result", 500),
    (Code::DeadlineExceeded, "deadline_exceeded", 503),
    (Code::Unavailable, "unavailable", 503),
    (Code::Unknown, "unknown", 500),
    (Code::InvalidArgument, "invalid_argument", 400),
    (Code::NotFound, "not_found", 404),
    (Code::NotAcceptable, "not_acceptable", 406),
    (Code::AlreadyExists, "already_exists", 409),
    (Code::PermissionDenied, "permission_denied", 403),
    (Code::ResourceExhausted, "resource_exhausted", 429),
    (Code::FailedPrecondition, "failed_precondition", 412),
    (Code::Aborted, "aborted", 409),
    (Code::OutOfRange, "out_of_range", 416),
    (Code::Unimplemented, "unimplemented", 501),
    (Code::Internal, "internal", 500),
    (Code::DataLoss, "data_loss", 500),
    (Code::Unauthenticated, "unauthenticated", 401),
    (Code::UnprocessableEntity, "unprocessable_entity", 422),
    (Code::UpstreamServerError, "upstream_server_error", 502),
    (Code::UpstreamClientError, "upstream_client_error", 424),
];

impl Code {
    fn row(self) -> &'static (Code, &'static str, u16) {
        // The table lists the codes in the order of their declaration, which a test checks.
        &TABLE[self as usize]
    }

    /// Text in `RpcResponse.code`.
    pub fn as_str(self) -> &'static str {
        self.row().1
    }

    /// Reads `RpcResponse.code`. An empty or unknown text is [`Code::Unknown`], as in psrpc.
    pub fn parse(text: &str) -> Self {
        TABLE.iter().find(|row| row.1 == text).map_or(Self::Unknown, |row| row.0)
    }

    /// psrpc's HTTP number, which goes into `EgressInfo.error_code`. The status of the HTTP API differs for some codes.
    pub fn http(self) -> u16 {
        self.row().2
    }

    /// Every code, in the order of declaration.
    pub fn all() -> impl Iterator<Item = Code> {
        TABLE.iter().map(|row| row.0)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The error of a call. psrpc takes a response for an error only when its message is not empty, so it never is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RpcError {
    /// For programs.
    pub code: Code,
    /// For people; not empty when made by [`RpcError::new`].
    pub message: String,
}

impl RpcError {
    /// An empty message becomes the text of the code.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { code, message: if message.is_empty() { code.as_str().to_owned() } else { message } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_found_again_by_its_text() {
        for code in Code::all() {
            assert_eq!(code.row().0, code);
            assert_eq!(Code::parse(code.as_str()), code);
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
        }
        assert_eq!(Code::parse(""), Code::Unknown);
        assert_eq!(Code::parse("teapot"), Code::Unknown);
    }

    #[test]
    fn an_error_always_has_a_text() {
        assert_eq!(RpcError::new(Code::NotFound, "").to_string(), "not_found");
        assert_eq!(RpcError::new(Code::NotFound, "egress does not exist").to_string(), "egress does not exist");
    }
}
