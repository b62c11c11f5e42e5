//! Errors of Azure's blob service: the crate's error goes in, a [`StorageError`] comes out, without the texts that quote
//! credentials. Pure.

use azure_core::error::ErrorKind;

use crate::error::{StorageError, StorageErrorKind};
use crate::guarded;

/// The provider's name in errors.
pub const NAME: &str = "Azure";

/// Azure's error code, where the service answered with one.
pub fn code(error: &azure_core::Error) -> Option<&str> {
    match error.kind() {
        ErrorKind::HttpResponse { error_code, .. } => error_code.as_deref(),
        _ => None,
    }
}

/// The error of a call, with Azure's code, the first line of its message and the status.
pub fn failed(doing: &'static str, error: azure_core::Error) -> StorageError {
    if let Some(refused) = guarded::refusal(NAME, doing, &error) {
        return refused;
    }
    let (kind, message) = match error.kind() {
        ErrorKind::HttpResponse { status, error_code, raw_response } => {
            let status = u16::from(*status);
            let code = error_code.as_deref().unwrap_or_default();
            let body = raw_response.as_ref().map(|raw| String::from_utf8_lossy(raw.body().as_ref()).into_owned());
            let detail = body.as_deref().and_then(message_of).unwrap_or_default();
            let message = match (code, detail) {
                ("", "") => format!("status {status}"),
                (code, "") => format!("{code} ({status})"),
                ("", detail) => format!("{detail} ({status})"),
                (code, detail) => format!("{code}: {detail} ({status})"),
            };
            // Azurite's message in place of the code Md5Mismatch.
            let damaged = status == 400 && detail.contains("contentMD5 doesn't match");
            (if damaged { StorageErrorKind::Mismatch } else { kind_of(code, status) }, message)
        }
        ErrorKind::Connection | ErrorKind::Io => (StorageErrorKind::Busy, error.to_string()),
        // Without its source, which quotes the answer of a metadata service or a file.
        ErrorKind::Credential => {
            return StorageError::new(
                StorageErrorKind::Denied,
                NAME,
                doing,
                "this machine's identity gave no access token",
            );
        }
        _ => (StorageErrorKind::Other, error.to_string()),
    };
    StorageError::new(kind, NAME, doing, message).because(error)
}

fn kind_of(code: &str, status: u16) -> StorageErrorKind {
    match (code, status) {
        ("ContainerNotFound" | "ContainerBeingDeleted" | "ResourceNotFound", _) => StorageErrorKind::NotFound,
        // Commits are conditional: another process committed first.
        ("BlobAlreadyExists" | "ConditionNotMet", _) | (_, 412) => StorageErrorKind::Gone,
        ("Md5Mismatch" | "Crc64Mismatch" | "InvalidMd5", _) => StorageErrorKind::Mismatch,
        ("ServerBusy" | "OperationTimedOut" | "InternalError", _) => StorageErrorKind::Busy,
        (_, 401 | 403) => StorageErrorKind::Denied,
        (_, 404) => StorageErrorKind::NotFound,
        (_, 408 | 409 | 429 | 500..=599) => StorageErrorKind::Busy,
        (_, 300..=499) => StorageErrorKind::Invalid,
        _ => StorageErrorKind::Other,
    }
}

/// The first line of the message; the others are a request id and a time.
fn message_of(body: &str) -> Option<&str> {
    let (_, rest) = body.split_once("<Message>")?;
    rest.split_once("</Message>")?.0.lines().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_a_token_provider_are_not_repeated() {
        let shown = failed("put", azure_core::Error::with_message(ErrorKind::Credential, "canary"));
        assert_eq!(shown.to_string(), "Azure upload failed: put: this machine's identity gave no access token");
        assert!(shown.kind == StorageErrorKind::Denied && !format!("{shown:?}").contains("canary"));
    }

    #[test]
    fn a_refusal_is_sorted_by_who_can_fix_it() {
        for (code, status, kind) in [
            ("ContainerNotFound", 404, StorageErrorKind::NotFound),
            ("AuthenticationFailed", 403, StorageErrorKind::Denied),
            ("BlobAlreadyExists", 409, StorageErrorKind::Gone),
            ("ConditionNotMet", 412, StorageErrorKind::Gone),
            ("Md5Mismatch", 400, StorageErrorKind::Mismatch),
            ("InvalidBlockList", 400, StorageErrorKind::Invalid),
            ("ServerBusy", 503, StorageErrorKind::Busy),
            ("", 429, StorageErrorKind::Busy),
        ] {
            assert_eq!(kind_of(code, status), kind, "{code}");
        }
        let body = "<?xml?><Error><Code>X</Code><Message>No such thing.\nRequestId:1</Message></Error>";
        assert_eq!(message_of(body), Some("No such thing."));
    }
}
