//! Signatures made with the account key: of requests (Shared Key, as a policy of Azure's pipeline) and of links (service SAS).
//! Azure's crate has neither. No I/O of its own.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use azure_core::credentials::Secret;
use azure_core::hmac::hmac_sha256;
use azure_core::http::policies::{Policy, PolicyResult};
use azure_core::http::{Context, Method, Request};
use chrono::{DateTime, SecondsFormat, Utc};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

/// Version of the service SAS, which fixes the fields of its text and their order.
const LINK_VERSION: &str = "2022-11-02";

/// An account's name and key.
pub struct SharedKey {
    account: String,
    key: Secret,
}

impl fmt::Debug for SharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedKey({})", self.account)
    }
}

impl SharedKey {
    /// `key` is base64, as the portal shows it.
    pub fn new(account: &str, key: &spillway_plan::Secret) -> Self {
        Self { account: account.to_owned(), key: Secret::new(key.reveal().clone()) }
    }

    /// The query of a link that reads one blob until `until`.
    ///
    /// # Errors
    /// The key is not base64. A retry changes nothing.
    pub fn link(&self, container: &str, name: &str, until: DateTime<Utc>) -> azure_core::Result<String> {
        let until = until.to_rfc3339_opts(SecondsFormat::Secs, true);
        let resource = format!("/blob/{}/{container}/{name}", self.account);
        // Permissions, start, expiry, resource, identifier, IP, protocol, version, kind, snapshot, scope, five headers.
        let text = format!("r\n\n{until}\n{resource}\n\n\n\n{LINK_VERSION}\nb\n\n\n\n\n\n\n");
        let signature = hmac_sha256(&text, &self.key)?;
        let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        Ok(format!("sv={LINK_VERSION}&sr=b&sp=r&se={}&sig={}", encoded(&until), encoded(&signature)))
    }

    /// The text that is signed of a request. An emulator's path begins with the account, which is then in it twice.
    fn text(&self, request: &Request) -> String {
        let headers: BTreeMap<String, &str> = request
            .headers()
            .iter()
            .map(|(name, value)| (name.as_str().to_ascii_lowercase(), value.as_str()))
            .collect();
        let header = |name: &str| headers.get(name).copied().unwrap_or_default();
        let length = match request.body().len() {
            None | Some(0) => String::new(),
            Some(length) => length.to_string(),
        };
        let verb = match request.method() {
            Method::Delete => "DELETE",
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Patch => "PATCH",
            Method::Post => "POST",
            Method::Put => "PUT",
            _ => "",
        };
        let mut text = format!("{verb}\n{}\n{}\n{length}\n", header("content-encoding"), header("content-language"));
        // The empty one is Date, which x-ms-date replaces.
        for name in ["content-md5", "content-type", "", "if-modified-since", "if-match", "if-none-match"] {
            text += header(name);
            text.push('\n');
        }
        text += &format!("{}\n{}\n", header("if-unmodified-since"), header("range"));
        for (name, value) in headers.iter().filter(|(name, _)| name.starts_with("x-ms-")) {
            text += &format!("{name}:{}\n", value.trim());
        }
        text += &format!("/{}{}", self.account, request.url().path());
        let mut query: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, value) in request.url().query_pairs() {
            query.entry(name.to_ascii_lowercase()).or_default().push(value.into_owned());
        }
        for (name, mut values) in query {
            values.sort();
            text += &format!("\n{name}:{}", values.join(","));
        }
        text
    }
}

#[async_trait]
impl Policy for SharedKey {
    async fn send(&self, context: &Context, request: &mut Request, next: &[Arc<dyn Policy>]) -> PolicyResult {
        request.insert_header("x-ms-date", Utc::now().format("%a, %d %b %Y %H:%M:%S GMT").to_string());
        let signature = hmac_sha256(&self.text(request), &self.key)?;
        request.insert_header("authorization", format!("SharedKey {}:{signature}", self.account));
        next[0].send(context, request, &next[1..]).await
    }
}
