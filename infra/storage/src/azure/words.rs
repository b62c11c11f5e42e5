use azure_core::error::ErrorKind;

use crate::error::{Kind, StorageError};

/// Azure's own name of what is wrong.
pub fn code(error: &azure_core::Error) -> Option<&str> {
    match error.kind() {
        ErrorKind::HttpResponse { error_code, .. } => error_code.as_deref(),
        _ => None,
    }
}

pub fn failed(doing: &'static str, error: azure_core::Error) -> StorageError {
    let (kind, words) = match error.kind() {
        ErrorKind::HttpResponse { status, error_code, raw_response } => {
            let status = u16::from(*status);
            let code = error_code.as_deref().unwrap_or_default();
            let body = raw_response.as_ref().map(|raw| String::from_utf8_lossy(raw.body().as_ref()).into_owned());
            let message = body.as_deref().and_then(message_of).unwrap_or_default();
            let words = match (code, message) {
                ("", "") => format!("status {status}"),
                (code, "") => format!("{code} ({status})"),
                ("", message) => format!("{message} ({status})"),
                (code, message) => format!("{code}: {message} ({status})"),
            };
            // Azurite's words for Md5Mismatch.
            let damaged = status == 400 && message.contains("contentMD5 doesn't match");
            (if damaged { Kind::Mismatch } else { kind_of(code, status) }, words)
        }
        ErrorKind::Connection | ErrorKind::Io => (Kind::Busy, error.to_string()),
        // Without its source: that quotes what a metadata service or a file said.
        ErrorKind::Credential => {
            return StorageError::new(Kind::Denied, "Azure", doing, "this machine's identity gave no access token");
        }
        _ => (Kind::Other, error.to_string()),
    };
    StorageError::new(kind, "Azure", doing, words).because(error)
}

fn kind_of(code: &str, status: u16) -> Kind {
    match (code, status) {
        ("ContainerNotFound" | "ContainerBeingDeleted" | "ResourceNotFound", _) => Kind::NotFound,
        // Our commits are conditional: somebody else was first.
        ("BlobAlreadyExists" | "ConditionNotMet", _) | (_, 412) => Kind::Gone,
        ("Md5Mismatch" | "Crc64Mismatch" | "InvalidMd5", _) => Kind::Mismatch,
        ("ServerBusy" | "OperationTimedOut" | "InternalError", _) => Kind::Busy,
        (_, 401 | 403) => Kind::Denied,
        (_, 404) => Kind::NotFound,
        (_, 408 | 409 | 429 | 500..=599) => Kind::Busy,
        (_, 300..=499) => Kind::Invalid,
        _ => Kind::Other,
    }
}

/// The first line: the others are a request id and a time.
fn message_of(body: &str) -> Option<&str> {
    let (_, rest) = body.split_once("<Message>")?;
    rest.split_once("</Message>")?.0.lines().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_source_of_tokens_says_is_not_repeated() {
        let told = failed("put", azure_core::Error::with_message(ErrorKind::Credential, "canary"));
        assert_eq!(told.to_string(), "Azure upload failed: put: this machine's identity gave no access token");
        assert!(told.kind == Kind::Denied && !format!("{told:?}").contains("canary"));
    }

    #[test]
    fn a_refusal_is_sorted_by_whose_turn_it_is() {
        for (code, status, kind) in [
            ("ContainerNotFound", 404, Kind::NotFound),
            ("AuthenticationFailed", 403, Kind::Denied),
            ("BlobAlreadyExists", 409, Kind::Gone),
            ("ConditionNotMet", 412, Kind::Gone),
            ("Md5Mismatch", 400, Kind::Mismatch),
            ("InvalidBlockList", 400, Kind::Invalid),
            ("ServerBusy", 503, Kind::Busy),
            ("", 429, Kind::Busy),
        ] {
            assert_eq!(kind_of(code, status), kind, "{code}");
        }
        let body = "<?xml?><Error><Code>X</Code><Message>No such thing.\nRequestId:1</Message></Error>";
        assert_eq!(message_of(body), Some("No such thing."));
    }
}
