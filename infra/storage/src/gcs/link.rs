//! Signed links: a URL that opens one object for a limited time (Google's V4 signing process, query parameters only).
//!
//! In: bucket, object name, validity, the time and the signing account's e-mail. Out: the text to sign and, with its
//! signature, the URL. Pure; the signature itself is made with the signer of `identity`.
//! Source: cloud.google.com/storage/docs/access-control/signed-urls and /authentication/canonical-requests.

use std::time::Duration;

use chrono::{DateTime, Utc};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest, Sha256};

use super::xml::KEY;
use crate::checksum::hex;

/// Links name Google's own host, whatever endpoint uploads go to: it is the only one whose certificate browsers know.
const HOST: &str = "storage.googleapis.com";
const ALGORITHM: &str = "GOOG4-RSA-SHA256";
/// Everything but RFC 3986's unreserved characters.
const PARAMETER: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// A link that lacks nothing but its signature.
pub struct UnsignedLink {
    path: String,
    query: String,
    time: String,
    scope: String,
}

impl UnsignedLink {
    /// A GET of one object, valid for `validity` from `now`.
    pub fn new(bucket: &str, object: &str, validity: Duration, now: DateTime<Utc>, email: &str) -> Self {
        let time = now.format("%Y%m%dT%H%M%SZ").to_string();
        let scope = format!("{}/auto/storage/goog4_request", now.format("%Y%m%d"));
        let credential = format!("{email}/{scope}");
        // In the order of their names, as the canonical request wants them.
        let query = format!(
            "X-Goog-Algorithm={ALGORITHM}&X-Goog-Credential={}&X-Goog-Date={time}&X-Goog-Expires={}\
             &X-Goog-SignedHeaders=host",
            utf8_percent_encode(&credential, PARAMETER),
            validity.as_secs()
        );
        Self { path: format!("/{bucket}/{}", utf8_percent_encode(object, KEY)), query, time, scope }
    }

    /// The text that the account's key signs, with RSA and SHA-256.
    pub fn text(&self) -> String {
        let request = format!("GET\n{}\n{}\nhost:{HOST}\n\nhost\nUNSIGNED-PAYLOAD", self.path, self.query);
        let digest = hex(&Sha256::digest(request));
        format!("{ALGORITHM}\n{}\n{}\n{digest}", self.time, self.scope)
    }

    /// The URL with the signature of [`UnsignedLink::text`].
    pub fn signed(&self, signature: &[u8]) -> String {
        format!("https://{HOST}{}?{}&X-Goog-Signature={}", self.path, self.query, hex(signature))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Digests of the canonical requests in Google's published conformance vectors (v4_signatures.json).
    #[test]
    fn texts_to_sign_are_those_of_googles_own_vectors() {
        let now = "2019-02-01T09:00:00Z".parse().unwrap();
        let email = "test-iam-credentials@dummy-project-id.iam.gserviceaccount.com";
        let slashes = "/path/with/slashes/under_score/amper&sand/file.ext";
        for (object, digest) in [
            ("test-object", "00e2fb794ea93d7adb703edaebdd509821fcc7d4f1a79ac5c8d2b394df109320"),
            (slashes, "63c601ecd6ccfec84f1113fc906609cbdf7651395f4300cecd96ddd2c35164f8"),
        ] {
            let text = UnsignedLink::new("test-bucket", object, Duration::from_secs(10), now, email).text();
            assert_eq!(
                text,
                format!("GOOG4-RSA-SHA256\n20190201T090000Z\n20190201/auto/storage/goog4_request\n{digest}")
            );
        }
    }
}
