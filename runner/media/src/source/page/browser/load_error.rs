//! Why a page was not loaded, in livekit/egress' form (`page load error: …`), with a meaning behind Chromium's codes. Pure.

use hyper::StatusCode;

/// Errors of Chromium after which another attempt may succeed: livekit/egress' list.
const PASSING: &[&str] = &["net::ERR_CERT_VERIFIER_CHANGED", "net::ERR_CONNECTION_CLOSED"];

/// Chromium's codes that occur for a page, and what they mean.
const MEANINGS: &[(&str, &str)] = &[
    ("net::ERR_NAME_NOT_RESOLVED", "the name of its host is not known"),
    ("net::ERR_NAME_RESOLUTION_FAILED", "the name of its host could not be looked up"),
    ("net::ERR_CONNECTION_REFUSED", "nothing listens there"),
    ("net::ERR_CONNECTION_TIMED_OUT", "its host does not answer"),
    ("net::ERR_CONNECTION_RESET", "its host broke the connection"),
    ("net::ERR_CONNECTION_CLOSED", "its host closed the connection"),
    ("net::ERR_EMPTY_RESPONSE", "its host answered nothing"),
    ("net::ERR_ADDRESS_UNREACHABLE", "there is no way to its host"),
    ("net::ERR_INTERNET_DISCONNECTED", "there is no network"),
    ("net::ERR_TUNNEL_CONNECTION_FAILED", "the way to its host is refused"),
    ("net::ERR_PROXY_CONNECTION_FAILED", "the proxy does not answer"),
    ("net::ERR_UNSAFE_PORT", "browsers do not open this port"),
    ("net::ERR_TOO_MANY_REDIRECTS", "it redirects in a circle"),
    ("net::ERR_ABORTED", "it is no page but a download, or it was left at once"),
    ("net::ERR_BLOCKED_BY_RESPONSE", "it does not want to be shown"),
    ("net::ERR_HTTP2_PROTOCOL_ERROR", "its host does not speak HTTP/2 well"),
    ("net::ERR_HTTP_RESPONSE_CODE_FAILURE", "its host answered with an error"),
    ("net::ERR_INVALID_REDIRECT", "it redirects to no valid URL"),
    ("net::ERR_SSL_PROTOCOL_ERROR", "its host does not speak TLS"),
    ("net::ERR_SSL_VERSION_OR_CIPHER_MISMATCH", "its host speaks an old TLS only"),
    ("net::ERR_CERT_AUTHORITY_INVALID", "the issuer of its certificate is not trusted"),
    ("net::ERR_CERT_COMMON_NAME_INVALID", "its certificate is for another name"),
    ("net::ERR_CERT_DATE_INVALID", "its certificate has expired or is not valid yet"),
    ("net::ERR_CERT_REVOKED", "its certificate is revoked"),
];

/// No answer in time.
pub const TIMED_OUT: &str = "page load error: timed out";

/// Of a navigation that ended with this code (`net::ERR_…`).
pub fn navigation(code: &str) -> String {
    match MEANINGS.iter().find(|(known, _)| *known == code) {
        Some((_, meaning)) => format!("page load error: {code} ({meaning})"),
        None => format!("page load error: {code}"),
    }
}

/// Of a host that was not reached, or may not be.
pub fn not_reached(why: &str) -> String {
    format!("page load error: {why}")
}

/// Whether the navigation is to be tried again.
pub fn may_pass(code: &str) -> bool {
    PASSING.contains(&code)
}

/// Of a main document with a status of 400 or more; `text` as its server sent it, perhaps empty.
pub fn http(status: i64, text: &str) -> String {
    // Answers over HTTP/2 and HTTP/3 have only a number.
    let known = || u16::try_from(status).ok().and_then(|status| StatusCode::from_u16(status).ok()?.canonical_reason());
    let text = match text.trim() {
        "" => known().map_or_else(|| format!("HTTP status {status}"), str::to_owned),
        // A server may say anything.
        text => text.chars().filter(|character| !character.is_control()).take(100).collect(),
    };
    format!("page load error: {text}")
}

/// Of an element `div.error` in the page that was loaded; `text`: what it says.
pub fn template(text: &str) -> String {
    let pieces: Vec<&str> = text.split_whitespace().collect();
    format!("template error: {}", pieces.join(" ").chars().take(500).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_the_peers_form() {
        for (message, wanted) in [
            (
                navigation("net::ERR_CONNECTION_REFUSED"),
                "page load error: net::ERR_CONNECTION_REFUSED (nothing listens there)",
            ),
            (navigation("net::ERR_NEW"), "page load error: net::ERR_NEW"),
            (http(404, "File not found"), "page load error: File not found"),
            (http(404, ""), "page load error: Not Found"),
            (http(599, " "), "page load error: HTTP status 599"),
            (http(500, "a\r\nb"), "page load error: ab"),
            (template("  broken\n template "), "template error: broken template"),
        ] {
            assert_eq!(message, wanted);
        }
        assert!(http(500, &"x".repeat(1000)).len() < 150 && template(&"x ".repeat(1000)).len() < 520);
    }

    #[test]
    fn only_what_passes_is_tried_again() {
        assert!(may_pass("net::ERR_CONNECTION_CLOSED") && !may_pass("net::ERR_NAME_NOT_RESOLVED"));
    }
}
