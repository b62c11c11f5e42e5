//! Errors of S3 and compatible stores: the SDK's error goes in, a [`StorageError`] comes out, without the texts that quote
//! credentials. Pure.

use std::error::Error;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use crate::error::{StorageError, StorageErrorKind};
use crate::guarded;

/// The error of a call, with the store's code, message and status where it answered.
pub fn failed<E>(provider: &'static str, doing: &'static str, error: SdkError<E, HttpResponse>) -> StorageError
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    if let SdkError::ServiceError(refusal) = &error {
        let status = refusal.raw().status().as_u16();
        let (code, message) = (refusal.err().code(), refusal.err().message());
        let kind = kind_of(code, status);
        let message = match (code, message) {
            (Some(code), Some(message)) => format!("{code}: {message} ({status})"),
            (Some(code), None) => format!("{code} ({status})"),
            (None, Some(message)) => format!("{message} ({status})"),
            (None, None) => format!("status {status}"),
        };
        return StorageError::new(kind, provider, doing, message).because(error);
    }
    if let Some(refused) = guarded::refusal(provider, doing, &error) {
        return refused;
    }
    if let Some(reason) = credentials_reason(&error) {
        // Without its source, which quotes configuration files and metadata services.
        return StorageError::new(kind_of_chain(&error), provider, doing, reason);
    }
    let message = innermost(&error);
    let kind = match &error {
        SdkError::TimeoutError(_) | SdkError::ResponseError(_) => StorageErrorKind::Busy,
        _ => kind_of_chain(&error),
    };
    StorageError::new(kind, provider, doing, message).because(error)
}

/// The kind of a refusal, by S3's error code and else by the HTTP status.
pub fn kind_of(code: Option<&str>, status: u16) -> StorageErrorKind {
    match code.unwrap_or_default() {
        "NoSuchUpload" => return StorageErrorKind::Gone,
        "NoSuchBucket" => return StorageErrorKind::NotFound,
        "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired" => return StorageErrorKind::Expired,
        "BadDigest" | "InvalidDigest" | "XAmzContentSHA256Mismatch" | "XAmzContentChecksumMismatch" => {
            return StorageErrorKind::Mismatch;
        }
        "SlowDown"
        | "RequestTimeout"
        | "OperationAborted"
        | "IncompleteBody"
        | "InternalError"
        | "Throttling"
        | "ThrottlingException"
        | "RequestLimitExceeded" => return StorageErrorKind::Busy,
        "AccessDenied"
        | "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "NotSignedUp"
        | "InvalidToken"
        | "InvalidClientTokenId"
        | "AuthFailure"
        | "AllAccessDisabled" => return StorageErrorKind::Denied,
        _ => {}
    }
    match status {
        401 | 403 => StorageErrorKind::Denied,
        404 => StorageErrorKind::NotFound,
        408 | 409 | 429 | 500..=599 => StorageErrorKind::Busy,
        300..=499 => StorageErrorKind::Invalid,
        _ => StorageErrorKind::Other,
    }
}

/// AWS' error codes for refused credentials. Nothing else of those messages is repeated.
const CREDENTIAL_CODES: [&str; 4] = ["ExpiredToken", "AccessDenied", "InvalidClientTokenId", "SignatureDoesNotMatch"];

/// Why there are no credentials, in our own text and with AWS' code where it is known; `None`: the error has another cause.
fn credentials_reason(error: &(dyn Error + 'static)) -> Option<String> {
    let (mut chain, mut next) = (Vec::new(), Some(error));
    while let Some(error) = next {
        chain.push(error);
        next = error.source();
    }
    let about = chain.iter().find_map(|error| error.downcast_ref::<CredentialsError>())?;
    let reason = match about {
        CredentialsError::CredentialsNotLoaded(_) => "no credentials were given and this machine has none",
        CredentialsError::ProviderTimedOut(_) => "the source of the credentials does not answer",
        CredentialsError::InvalidConfiguration(_) => "this machine's configuration of credentials cannot be used",
        _ => "no credentials were to be had",
    };
    let code = CREDENTIAL_CODES.into_iter().find(|code| chain.iter().any(|error| error.to_string().contains(code)));
    Some(code.map_or_else(|| reason.to_owned(), |code| format!("{reason}: {code}")))
}

/// The kind of an error without an answer: network, or no credentials.
fn kind_of_chain(error: &(dyn Error + 'static)) -> StorageErrorKind {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let text = error.to_string();
        if text.contains("ExpiredToken") {
            return StorageErrorKind::Expired;
        }
        if [
            "AccessDenied",
            "InvalidClientTokenId",
            "SignatureDoesNotMatch",
            "credential provider was not enabled",
            "no providers in chain",
        ]
        .iter()
        .any(|pattern| text.contains(pattern))
        {
            return StorageErrorKind::Denied;
        }
        cause = error.source();
    }
    StorageErrorKind::Busy
}

/// The last two texts of the chain: those of the operating system or of a credentials provider.
fn innermost(error: &(dyn Error + 'static)) -> String {
    let (mut last, mut causes) = (error, Vec::new());
    while let Some(cause) = last.source() {
        last = cause;
        let text = last.to_string();
        if !causes.contains(&text) {
            causes.push(text);
        }
    }
    let from = causes.len().saturating_sub(2);
    if causes.is_empty() { error.to_string() } else { causes[from..].join(": ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_a_credentials_provider_are_not_repeated() {
        let quoting = || Box::<dyn Error + Send + Sync>::from("canary: unhandled error (AccessDenied)");
        for (error, reason) in [
            (CredentialsError::not_loaded(quoting()), "no credentials were given and this machine has none"),
            (CredentialsError::provider_error(quoting()), "no credentials were to be had"),
            (CredentialsError::unhandled(quoting()), "no credentials were to be had"),
            (
                CredentialsError::invalid_configuration(quoting()),
                "this machine's configuration of credentials cannot be used",
            ),
        ] {
            let error = SdkError::<aws_sdk_s3::operation::put_object::PutObjectError, HttpResponse>::dispatch_failure(
                aws_smithy_runtime_api::client::result::ConnectorError::user(error.into()),
            );
            let shown = failed("S3", "put", error);
            assert_eq!(shown.to_string(), format!("S3 upload failed: put: {reason}: AccessDenied"));
            assert!(!spillway_process::chain(&shown).to_string().contains("canary"));
            assert!(!format!("{shown:?}").contains("canary"));
            assert_eq!(shown.kind, StorageErrorKind::Denied);
        }
    }

    #[test]
    fn a_refusal_is_sorted_by_who_can_fix_it() {
        for (code, status, kind) in [
            ("NoSuchUpload", 404, StorageErrorKind::Gone),
            ("NoSuchBucket", 404, StorageErrorKind::NotFound),
            ("ExpiredToken", 400, StorageErrorKind::Expired),
            ("BadDigest", 400, StorageErrorKind::Mismatch),
            ("SlowDown", 503, StorageErrorKind::Busy),
            ("InvalidPart", 400, StorageErrorKind::Invalid),
            ("EntityTooSmall", 400, StorageErrorKind::Invalid),
            ("Whatever", 403, StorageErrorKind::Denied),
        ] {
            assert_eq!(kind_of(Some(code), status), kind, "{code}");
        }
        for (status, kind) in [
            (403, StorageErrorKind::Denied),
            (404, StorageErrorKind::NotFound),
            (429, StorageErrorKind::Busy),
            (502, StorageErrorKind::Busy),
            (301, StorageErrorKind::Invalid),
        ] {
            assert_eq!(kind_of(None, status), kind, "{status}");
        }
    }
}
