//! The bearer token of a push, as Google documents it: an OpenID Connect token, signed with RS256 by one of the keys
//! that Google publishes, for our audience, of the service account that the subscription names.
//!
//! Our own on `aws-lc-rs`, because `jsonwebtoken` takes its cryptography from one provider per process, and the library
//! that makes room tokens installs one without RSA. Asks Google for its keys; everything else is pure.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::config::settings::Trust;

const ISSUERS: [&str; 2] = ["https://accounts.google.com", "accounts.google.com"];
/// Tolerated difference between Google's clock and ours.
const SKEW_S: i64 = 60;
/// Google rotates its keys every few days and publishes new ones long before they sign.
const KEYS_LAST: Duration = Duration::from_secs(3600);
/// A token with an unknown key makes us fetch the keys at most this often.
const ASK_AGAIN: Duration = Duration::from_secs(30);
const ANSWER: Duration = Duration::from_secs(5);

/// Why a push is refused.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The header is missing.
    #[error("there is no bearer token")]
    None,
    /// Not three parts of base64 and JSON.
    #[error("the token is no signed token")]
    Malformed,
    /// Not RS256.
    #[error("the token is signed with {0}")]
    Algorithm(String),
    /// Google publishes no such key.
    #[error("the key \"{0}\" is not published")]
    UnknownKey(String),
    /// The signature does not match.
    #[error("the signature is not that of its key")]
    Forged,
    /// For another audience, from another issuer or account; the text says which.
    #[error("the token's {0} is not the one that is expected")]
    NotOurs(&'static str),
    /// Expired or not valid yet; Unix seconds.
    #[error("the token holds from {from} to {to}, now is {now}")]
    Time { from: i64, to: i64, now: i64 },
    /// The keys cannot be fetched; the caller may be right.
    #[error("fetch the keys at {url}")]
    Keys {
        /// As configured.
        url: String,
        /// From the HTTP client.
        #[source]
        source: reqwest::Error,
    },
}

impl TokenError {
    /// The failure is on our side: the same push has to come again.
    pub fn is_ours(&self) -> bool {
        matches!(self, Self::Keys { .. })
    }
}

/// Checks tokens against one [`Trust`]; caches Google's keys.
pub struct TokenVerifier {
    trust: Trust,
    client: reqwest::Client,
    kept: Mutex<Option<CachedKeys>>,
}

struct CachedKeys {
    keys: Keys,
    at: Instant,
}

/// Modulus and exponent by key id.
type Keys = BTreeMap<String, (Vec<u8>, Vec<u8>)>;

#[derive(Deserialize)]
struct Published {
    keys: Vec<JsonWebKey>,
}

#[derive(Deserialize)]
struct JsonWebKey {
    #[serde(default)]
    kty: String,
    #[serde(default)]
    kid: String,
    #[serde(default)]
    n: String,
    #[serde(default)]
    e: String,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: String,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    exp: i64,
    #[serde(default)]
    iat: i64,
    #[serde(default)]
    email: String,
    #[serde(default)]
    email_verified: bool,
}

impl TokenVerifier {
    /// Without keys yet.
    pub fn new(trust: Trust) -> Self {
        Self { trust, client: reqwest::Client::new(), kept: Mutex::default() }
    }

    /// `authorization`: the header; `now_s`: Unix seconds.
    ///
    /// # Errors
    /// When the token is not the one expected; a retry is right where [`TokenError::is_ours`].
    pub async fn check(&self, authorization: &str, now_s: i64) -> Result<(), TokenError> {
        let token = authorization.strip_prefix("Bearer ").filter(|token| !token.is_empty()).ok_or(TokenError::None)?;
        let parts = Parts::of(token)?;
        let keys = self.keys(&parts.header.kid).await?;
        let key = keys.get(&parts.header.kid).ok_or_else(|| TokenError::UnknownKey(parts.header.kid.clone()))?;
        parts.verify(key)?;
        check_claims(&parts.claims, &self.trust, now_s)
    }

    async fn keys(&self, wanted: &str) -> Result<Keys, TokenError> {
        let mut kept = self.kept.lock().await;
        if let Some(kept) = &*kept {
            let fresh = if kept.keys.contains_key(wanted) { KEYS_LAST } else { ASK_AGAIN };
            if kept.at.elapsed() < fresh {
                return Ok(kept.keys.clone());
            }
        }
        let url = &self.trust.keys;
        let lost = |source: reqwest::Error| TokenError::Keys { url: url.clone(), source: source.without_url() };
        let answer = self.client.get(url).timeout(ANSWER).send().await.and_then(reqwest::Response::error_for_status);
        let bytes = answer.map_err(lost)?.bytes().await.map_err(lost)?;
        let published = serde_json::from_slice(&bytes).unwrap_or(Published { keys: Vec::new() });
        let number = |text: &str| URL_SAFE_NO_PAD.decode(text).ok().filter(|bytes| !bytes.is_empty());
        let rsa = published.keys.into_iter().filter(|key| key.kty == "RSA");
        let keys: Keys = rsa.filter_map(|key| Some((key.kid, (number(&key.n)?, number(&key.e)?)))).collect();
        *kept = Some(CachedKeys { keys: keys.clone(), at: Instant::now() });
        Ok(keys)
    }
}

struct Parts<'a> {
    header: Header,
    claims: Claims,
    signed: &'a str,
    signature: Vec<u8>,
}

impl<'a> Parts<'a> {
    fn of(token: &'a str) -> Result<Self, TokenError> {
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(TokenError::Malformed)?;
        let header: Header = part(header)?;
        if header.alg != "RS256" {
            return Err(TokenError::Algorithm(header.alg));
        }
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| TokenError::Malformed)?;
        Ok(Self { header, claims: part(claims)?, signed, signature })
    }

    fn verify(&self, (n, e): &(Vec<u8>, Vec<u8>)) -> Result<(), TokenError> {
        RsaPublicKeyComponents { n, e }
            .verify(&RSA_PKCS1_2048_8192_SHA256, self.signed.as_bytes(), &self.signature)
            .map_err(|_| TokenError::Forged)
    }
}

fn part<T: DeserializeOwned>(text: &str) -> Result<T, TokenError> {
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| TokenError::Malformed)?;
    serde_json::from_slice(&bytes).map_err(|_| TokenError::Malformed)
}

fn check_claims(claims: &Claims, trust: &Trust, now_s: i64) -> Result<(), TokenError> {
    if !ISSUERS.contains(&claims.iss.as_str()) {
        return Err(TokenError::NotOurs("issuer"));
    }
    if claims.aud != trust.audience {
        return Err(TokenError::NotOurs("audience"));
    }
    if claims.email != trust.account || !claims.email_verified {
        return Err(TokenError::NotOurs("account"));
    }
    if now_s >= claims.exp + SKEW_S || now_s < claims.iat - SKEW_S {
        return Err(TokenError::Time { from: claims.iat, to: claims.exp, now: now_s });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::rsa::{KeyPair, KeySize};
    use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
    use serde_json::json;

    use super::*;

    fn signed(pair: &KeyPair, header: &serde_json::Value, claims: &serde_json::Value) -> String {
        let text = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
        let mut signature = vec![0; pair.public_modulus_len()];
        pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature).unwrap();
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    #[test]
    fn a_token_is_taken_from_the_right_account_for_us_in_its_time_and_as_it_was_signed() {
        let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
        // An RSAPublicKey in DER: two integers behind their heads, the first with a zero before it.
        let der = pair.public_key().as_ref().to_vec();
        let key = (der[9..265].to_vec(), der[267..].to_vec());
        let trust = Trust { audience: "https://d".into(), account: "events@p".into(), keys: String::new() };
        let header = json!({ "alg": "RS256", "kid": "1", "typ": "JWT" });
        let claims = json!({ "iss": "https://accounts.google.com", "aud": "https://d", "email": "events@p",
            "email_verified": true, "iat": 1000, "exp": 4600 });
        let check = |token: &str, now| {
            let parts = Parts::of(token)?;
            parts.verify(&key)?;
            check_claims(&parts.claims, &trust, now)
        };
        let fine = signed(&pair, &header, &claims);
        check(&fine, 2000).unwrap();
        check(&fine, 4650).unwrap();
        assert!(matches!(check(&fine, 4660), Err(TokenError::Time { .. })));
        assert!(matches!(check(&fine, 900), Err(TokenError::Time { .. })));
        for (name, value) in [
            ("iss", json!("https://evil")),
            ("aud", json!("https://other")),
            ("email", json!("else@p")),
            ("email_verified", json!(false)),
        ] {
            let mut claims = claims.clone();
            claims[name] = value;
            assert!(matches!(check(&signed(&pair, &header, &claims), 2000), Err(TokenError::NotOurs(_))), "{name}");
        }
        let none = signed(&pair, &json!({ "alg": "none", "kid": "1" }), &claims);
        assert!(matches!(check(&none, 2000), Err(TokenError::Algorithm(_))));
        let other = KeyPair::generate(KeySize::Rsa2048).unwrap();
        assert!(matches!(check(&signed(&other, &header, &claims), 2000), Err(TokenError::Forged)));
        // As Cloud Run hands a token on to the container.
        let removed = format!("{}.SIGNATURE_REMOVED_BY_GOOGLE", fine.rsplit_once('.').unwrap().0);
        assert!(check(&removed, 2000).is_err());
        assert!(matches!(check("x", 2000), Err(TokenError::Malformed)));
    }
}
