//! Requests to a dispatcher's console. The token is read here and goes into a header, and nowhere else.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::{Client, Method, RequestBuilder, Response, redirect};
use serde_json::Value;
use spillway_protocol::Secret;
use url::{Host, Url};

use crate::shown;

const CONNECT: Duration = Duration::from_secs(5);
/// A bill of a hundred thousand tasks takes seconds.
const ANSWER: Duration = Duration::from_secs(120);
/// Without an event for so long the connection is dead: the console sends a comment every 15 s.
const SILENCE: Duration = Duration::from_secs(40);
/// Largest event that is taken; a snapshot of two thousand egresses has about 3 MB.
const MAX_EVENT_BYTES: usize = 32 << 20;

/// Why a request was not answered as it should be.
#[derive(Debug, thiserror::Error)]
pub enum ApiFailure {
    /// The console refused it.
    #[error("{message} (status {status})")]
    Refused {
        /// Of HTTP.
        status: u16,
        /// The console's words.
        message: String,
    },
    /// There was no whole answer.
    #[error("no answer of the console: {0}")]
    Lost(String),
}

impl ApiFailure {
    /// The same request will be refused again.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Refused { status, .. } if *status < 500)
    }
}

impl From<reqwest::Error> for ApiFailure {
    fn from(error: reqwest::Error) -> Self {
        Self::Lost(spillway_process::chain(&error).to_string())
    }
}

/// The API of one dispatcher.
pub struct Api {
    client: Client,
    /// Ends in `/console/api/`.
    base: Url,
    authorization: Option<HeaderValue>,
}

impl Api {
    /// `url`: of the dispatcher, with or without `/console`. `token_file`: see [`token`].
    ///
    /// # Errors
    /// When the address is none, or the token cannot be read; no retry.
    pub fn open(url: &str, token_file: Option<&Path>) -> anyhow::Result<Self> {
        let base = base_of(url)?;
        let token = token(token_file, &|name| std::env::var(name).ok())?;
        if let (Some(host), true) = (unprotected_host(&base), token.is_some()) {
            eprintln!("spillway: the token goes to {host} without encryption");
        }
        let authorization = token.map(|token| header_of(&token)).transpose()?;
        // A redirect would take the token elsewhere.
        let client = Client::builder().connect_timeout(CONNECT).redirect(redirect::Policy::none());
        Ok(Self { client: client.build().context("make an HTTP client")?, base, authorization })
    }

    /// A value.
    ///
    /// # Errors
    /// When the console refuses or does not answer.
    pub async fn get(&self, path: &str, parameters: &[(&str, String)]) -> Result<Value, ApiFailure> {
        value_of(self.send(self.request(Method::GET, path, parameters)?.timeout(ANSWER)).await?).await
    }

    /// A text.
    ///
    /// # Errors
    /// As for [`Api::get`].
    pub async fn text(&self, path: &str, parameters: &[(&str, String)]) -> Result<String, ApiFailure> {
        Ok(self.send(self.request(Method::GET, path, parameters)?.timeout(ANSWER)).await?.text().await?)
    }

    /// Asks for something to be done; the answer is a value.
    ///
    /// # Errors
    /// As for [`Api::get`]; without an answer it may have been done.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, ApiFailure> {
        let request = self.request(Method::POST, path, &[])?.timeout(ANSWER);
        value_of(self.send(request.body(body.to_string())).await?).await
    }

    /// Server-sent events.
    ///
    /// # Errors
    /// As for [`Api::get`].
    pub async fn events(&self, path: &str) -> Result<EventReader, ApiFailure> {
        let response = self.send(self.request(Method::GET, path, &[])?).await?;
        Ok(EventReader { response, events: EventParser::default() })
    }

    fn request(&self, method: Method, path: &str, parameters: &[(&str, String)]) -> Result<RequestBuilder, ApiFailure> {
        let mut url = self.base.join(path).map_err(|error| ApiFailure::Lost(error.to_string()))?;
        if !parameters.is_empty() {
            url.query_pairs_mut().extend_pairs(parameters.iter().map(|(name, value)| (*name, value.as_str())));
        }
        let request = self.client.request(method, url);
        Ok(match &self.authorization {
            Some(authorization) => request.header(AUTHORIZATION, authorization.clone()),
            None => request,
        })
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, ApiFailure> {
        let response = request.send().await?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let text = response.text().await.unwrap_or_default();
        let told = serde_json::from_str::<Value>(&text).unwrap_or_default();
        let message = told["error"].as_str().unwrap_or("this is no console of a dispatcher");
        Err(ApiFailure::Refused { status: status.as_u16(), message: shown::safe(message) })
    }
}

async fn value_of(response: Response) -> Result<Value, ApiFailure> {
    let text = response.text().await?;
    serde_json::from_str(&text).map_err(|_| ApiFailure::Lost("it is no JSON".to_owned()))
}

fn base_of(url: &str) -> anyhow::Result<Url> {
    let parsed = Url::parse(url).with_context(|| format!("{url:?} is no address like https://spillway.example.com"))?;
    if !matches!(parsed.scheme(), "http" | "https") || !parsed.has_host() {
        bail!("{url:?} is no address like https://spillway.example.com");
    }
    if !parsed.username().is_empty() || parsed.password().is_some() {
        bail!("the address has a password in it; a token goes into SPILLWAY_TOKEN or a file");
    }
    let path = parsed.path().trim_end_matches('/').trim_end_matches("/console");
    let mut base = parsed.clone();
    base.set_path(&format!("{path}/console/api/"));
    base.set_query(None);
    base.set_fragment(None);
    Ok(base)
}

/// The host, where a token would be read on its way there.
fn unprotected_host(base: &Url) -> Option<String> {
    let is_here = match base.host()? {
        Host::Domain(name) => name == "localhost",
        Host::Ipv4(address) => IpAddr::V4(address).is_loopback(),
        Host::Ipv6(address) => IpAddr::V6(address).is_loopback(),
    };
    (base.scheme() == "http" && !is_here).then(|| base.host_str().unwrap_or_default().to_owned())
}

/// `SPILLWAY_TOKEN`; else what `file` holds; else `~/.config/spillway/token`, where that is. `None`: there is none, and a proxy
/// in front of the console may add one.
fn token(file: Option<&Path>, env: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<Option<Secret>> {
    let given = |text: String| Some(Secret::new(text.trim().to_owned())).filter(|token| !token.reveal().is_empty());
    if let Some(token) = env("SPILLWAY_TOKEN").and_then(given) {
        return Ok(Some(token));
    }
    let usual =
        env("HOME").map(|home| PathBuf::from(home).join(".config/spillway/token")).filter(|path| path.is_file());
    let Some(path) = file.map(Path::to_owned).or(usual) else { return Ok(None) };
    let text = std::fs::read_to_string(&path).with_context(|| format!("read the token in {}", path.display()))?;
    Ok(given(text))
}

fn header_of(token: &Secret) -> anyhow::Result<HeaderValue> {
    // The library's error would not quote it; its `Debug` of a header that is not marked would.
    let mut value =
        HeaderValue::from_str(&format!("Bearer {}", token.reveal())).context("the token has a line break")?;
    value.set_sensitive(true);
    Ok(value)
}

/// Events of one connection.
pub struct EventReader {
    response: Response,
    events: EventParser,
}

impl EventReader {
    /// Name and value of the next one.
    ///
    /// # Errors
    /// When the connection has ended, or is silent for long.
    pub async fn next(&mut self) -> Result<(String, Value), ApiFailure> {
        loop {
            if let Some(event) = self.events.next()? {
                return Ok(event);
            }
            let silent = |_| ApiFailure::Lost("no event for 40 s".to_owned());
            match tokio::time::timeout(SILENCE, self.response.chunk()).await.map_err(silent)?? {
                Some(chunk) => self.events.take(&chunk)?,
                None => return Err(ApiFailure::Lost("the console has ended the connection".to_owned())),
            }
        }
    }
}

/// Bytes → events. Pure.
#[derive(Default)]
struct EventParser {
    rest: Vec<u8>,
    whole: VecDeque<String>,
}

impl EventParser {
    fn take(&mut self, chunk: &[u8]) -> Result<(), ApiFailure> {
        // An end may lie across two chunks.
        let mut searched = self.rest.len().saturating_sub(1);
        self.rest.extend_from_slice(chunk);
        while let Some(end) = self.rest[searched..].windows(2).position(|two| two == b"\n\n") {
            let event: Vec<u8> = self.rest.drain(..searched + end + 2).collect();
            self.whole.push_back(String::from_utf8_lossy(&event).into_owned());
            searched = 0;
        }
        match self.rest.len() {
            0..=MAX_EVENT_BYTES => Ok(()),
            _ => Err(ApiFailure::Lost("an event without an end".to_owned())),
        }
    }

    /// Comments are passed over.
    fn next(&mut self) -> Result<Option<(String, Value)>, ApiFailure> {
        while let Some(event) = self.whole.pop_front() {
            let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            let (Some(name), Some(data)) = (field("event"), field("data")) else { continue };
            let value = serde_json::from_str(data).map_err(|_| ApiFailure::Lost("an event is no JSON".to_owned()))?;
            return Ok(Some((name.to_owned(), value)));
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_be_that_of_the_dispatcher_or_of_its_console() {
        for (given, base) in [
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080/console/api/"),
            ("https://x.example/console/", "https://x.example/console/api/"),
            ("https://x.example/spillway/console#bill", "https://x.example/spillway/console/api/"),
        ] {
            assert_eq!(base_of(given).unwrap().as_str(), base);
        }
        for wrong in ["", "x.example", "ftp://x", "https://user:canary@x.example"] {
            let told = format!("{:#}", base_of(wrong).unwrap_err());
            assert!(!told.contains("canary"), "{told}");
        }
        let host = |url| unprotected_host(&base_of(url).unwrap());
        assert_eq!(host("http://x.example").as_deref(), Some("x.example"));
        assert_eq!(host("http://10.0.0.1:1").as_deref(), Some("10.0.0.1"));
        for fine in ["https://x.example", "http://localhost:1", "http://127.0.0.1", "http://[::1]:1"] {
            assert_eq!(host(fine), None, "{fine}");
        }
    }

    #[test]
    fn a_token_is_read_from_the_environment_or_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, "of-the-file\n").unwrap();
        let none = |_: &str| None;
        let set = |name: &str| (name == "SPILLWAY_TOKEN").then(|| " of-the-environment ".to_owned());
        let revealed = |token: anyhow::Result<Option<Secret>>| token.unwrap().map(|token| token.reveal().clone());
        assert_eq!(revealed(token(Some(&file), &none)).as_deref(), Some("of-the-file"));
        assert_eq!(revealed(token(Some(&file), &set)).as_deref(), Some("of-the-environment"));
        assert_eq!(revealed(token(None, &none)), None);
        let home = folder.path().display().to_string();
        let at_home = |name: &str| (name == "HOME").then(|| home.clone());
        assert_eq!(revealed(token(None, &at_home)), None);
        std::fs::create_dir_all(folder.path().join(".config/spillway")).unwrap();
        std::fs::write(folder.path().join(".config/spillway/token"), "usual").unwrap();
        assert_eq!(revealed(token(None, &at_home)).as_deref(), Some("usual"));
        let missing = token(Some(&folder.path().join("nosuch")), &at_home).unwrap_err();
        assert!(missing.to_string().starts_with("read the token in "), "{missing}");
        let header = header_of(&Secret::new("canary".to_owned())).unwrap();
        assert!(!format!("{header:?}").contains("canary"));
        assert!(!format!("{:#}", header_of(&Secret::new("can\nary".to_owned())).unwrap_err()).contains("ary"));
    }

    #[test]
    fn events_come_in_any_pieces() {
        let text = ":\n\nevent: snapshot\ndata: {\"a\":\"ü\"}\n\nevent: change\ndata: {}\n\n:\n\n";
        for size in 1..text.len() {
            let mut parser = EventParser::default();
            let mut seen = Vec::new();
            for piece in text.as_bytes().chunks(size) {
                parser.take(piece).unwrap();
                while let Some((name, value)) = parser.next().unwrap() {
                    seen.push((name, value.to_string()));
                }
            }
            let expected = [("snapshot", "{\"a\":\"ü\"}"), ("change", "{}")];
            assert_eq!(seen, expected.map(|(name, value)| (name.to_owned(), value.to_owned())), "pieces of {size}");
        }
        let mut broken = EventParser::default();
        broken.take(b"event: change\ndata: {\n\n").unwrap();
        assert!(broken.next().is_err());
    }
}
