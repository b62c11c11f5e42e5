//! What an answer says when it says no: a code for the machine, a text for the person.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The codes psrpc knows. livekit-server translates them into Twirp codes and HTTP statuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    Canceled,
    MalformedRequest,
    MalformedResult,
    DeadlineExceeded,
    Unavailable,
    Unknown,
    InvalidArgument,
    NotFound,
    NotAcceptable,
    AlreadyExists,
    PermissionDenied,
    ResourceExhausted,
    FailedPrecondition,
    Aborted,
    OutOfRange,
    Unimplemented,
    Internal,
    DataLoss,
    Unauthenticated,
    UnprocessableEntity,
    UpstreamServerError,
    UpstreamClientError,
}

/// Code, its text on the wire, and psrpc's own HTTP number (the one that goes into `EgressInfo.error_code`; the API's
/// own status differs for some).
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
        // The table lists the codes in the order of their declaration; a test holds it to that.
        &TABLE[self as usize]
    }

    pub fn as_str(self) -> &'static str {
        self.row().1
    }

    /// A text nobody knows, and no text, mean `unknown`, as psrpc reads them.
    pub fn parse(text: &str) -> Self {
        TABLE.iter().find(|row| row.1 == text).map_or(Self::Unknown, |row| row.0)
    }

    pub fn http(self) -> u16 {
        self.row().2
    }

    pub fn all() -> impl Iterator<Item = Code> {
        TABLE.iter().map(|row| row.0)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A refusal as it travels. psrpc takes an answer for an error only when it has a text, so there always is one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RpcError {
    pub code: Code,
    pub message: String,
}

impl RpcError {
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
