//! What S3 and its relatives say when they refuse.

use std::error::Error;

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use crate::error::{Kind, StorageError};

pub fn failed<E>(provider: &'static str, doing: &'static str, error: SdkError<E, HttpResponse>) -> StorageError
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    if let SdkError::ServiceError(refusal) = &error {
        let status = refusal.raw().status().as_u16();
        let (code, message) = (refusal.err().code(), refusal.err().message());
        let kind = kind_of(code, status);
        let words = match (code, message) {
            (Some(code), Some(message)) => format!("{code}: {message} ({status})"),
            (Some(code), None) => format!("{code} ({status})"),
            (None, Some(message)) => format!("{message} ({status})"),
            (None, None) => format!("status {status}"),
        };
        return StorageError::new(kind, provider, doing, words).because(error);
    }
    let words = innermost(&error);
    let kind = match &error {
        SdkError::TimeoutError(_) | SdkError::ResponseError(_) => Kind::Busy,
        _ => kind_of_chain(&error),
    };
    StorageError::new(kind, provider, doing, words).because(error)
}

pub fn kind_of(code: Option<&str>, status: u16) -> Kind {
    match code.unwrap_or_default() {
        "NoSuchUpload" => return Kind::Gone,
        "NoSuchBucket" => return Kind::NotFound,
        "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired" => return Kind::Expired,
        "BadDigest" | "InvalidDigest" | "XAmzContentSHA256Mismatch" | "XAmzContentChecksumMismatch" => {
            return Kind::Mismatch;
        }
        "SlowDown"
        | "RequestTimeout"
        | "OperationAborted"
        | "IncompleteBody"
        | "InternalError"
        | "Throttling"
        | "ThrottlingException"
        | "RequestLimitExceeded" => return Kind::Busy,
        "AccessDenied"
        | "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "NotSignedUp"
        | "InvalidToken"
        | "InvalidClientTokenId"
        | "AuthFailure"
        | "AllAccessDisabled" => return Kind::Denied,
        _ => {}
    }
    match status {
        401 | 403 => Kind::Denied,
        404 => Kind::NotFound,
        408 | 409 | 429 | 500..=599 => Kind::Busy,
        300..=499 => Kind::Invalid,
        _ => Kind::Other,
    }
}

/// No answer: the way, or credentials that could not be had.
fn kind_of_chain(error: &(dyn Error + 'static)) -> Kind {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let text = error.to_string();
        if text.contains("ExpiredToken") {
            return Kind::Expired;
        }
        if [
            "AccessDenied",
            "InvalidClientTokenId",
            "SignatureDoesNotMatch",
            "credential provider was not enabled",
            "no providers in chain",
        ]
        .iter()
        .any(|word| text.contains(word))
        {
            return Kind::Denied;
        }
        cause = error.source();
    }
    Kind::Busy
}

/// What the libraries say last: it is the operating system's, or a provider's own.
fn innermost(error: &(dyn Error + 'static)) -> String {
    let (mut last, mut words) = (error, Vec::new());
    while let Some(cause) = last.source() {
        last = cause;
        let text = last.to_string();
        if !words.contains(&text) {
            words.push(text);
        }
    }
    let from = words.len().saturating_sub(2);
    if words.is_empty() { error.to_string() } else { words[from..].join(": ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_sorted_by_whose_turn_it_is() {
        for (code, status, kind) in [
            ("NoSuchUpload", 404, Kind::Gone),
            ("NoSuchBucket", 404, Kind::NotFound),
            ("ExpiredToken", 400, Kind::Expired),
            ("BadDigest", 400, Kind::Mismatch),
            ("SlowDown", 503, Kind::Busy),
            ("InvalidPart", 400, Kind::Invalid),
            ("EntityTooSmall", 400, Kind::Invalid),
            ("Whatever", 403, Kind::Denied),
        ] {
            assert_eq!(kind_of(Some(code), status), kind, "{code}");
        }
        for (status, kind) in
            [(403, Kind::Denied), (404, Kind::NotFound), (429, Kind::Busy), (502, Kind::Busy), (301, Kind::Invalid)]
        {
            assert_eq!(kind_of(None, status), kind, "{status}");
        }
    }
}
