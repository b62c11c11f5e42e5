//! URLs of streams: shorthands such as `mux://KEY` become what is connected to. Runs in the session's task, before the
//! media process hears of a stream; for Twitch it asks their directory, once per egress where that answers.

use std::time::Duration;

use serde::Deserialize;
use spillway_protocol::{Code, RpcError, Secret};
use tokio::sync::OnceCell;
use tracing::warn;

/// Mux' server for live streams (docs.mux.com, "Configure broadcast software"); livekit/egress has the same.
const MUX: &str = "rtmps://global-live.mux.com:443/app/{stream_key}";
/// Twitch's directory of servers, the nearest first.
const TWITCH_INGESTS: &str = "https://ingest.twitch.tv/ingests";
/// Servers of that directory. A URL that names one gets the server that is best for us.
const TWITCH_HOSTS: &str = ".contribute.live-video.net";
const KEY: &str = "{stream_key}";
/// An UpdateStream call is answered within 2.5 s.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(2);

/// Where a stream goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamUrl {
    /// As it was given; it is removed by this one as well.
    pub url: Secret,
    /// What is connected to; another one where a shorthand was given.
    pub target: Secret,
}

/// Resolves the URLs of one egress.
#[derive(Debug)]
pub struct StreamUrls {
    /// Where Twitch's directory is.
    directory: String,
    /// The template of its best server.
    twitch: OnceCell<String>,
}

impl Default for StreamUrls {
    fn default() -> Self {
        Self { directory: TWITCH_INGESTS.to_owned(), twitch: OnceCell::new() }
    }
}

impl StreamUrls {
    /// What is to be connected to, for each URL that was not refused before, in their order. Twitch's directory is asked
    /// once for all of them: takes 2 s at most.
    ///
    /// # Errors
    /// Of a URL, as it was refused before. Else Twitch's directory does not answer; a retry is right.
    pub async fn resolve(&self, urls: Vec<Result<Secret, RpcError>>) -> Vec<Result<StreamUrl, RpcError>> {
        let asks = |url: &Secret| matches!(shorthand(url.reveal()), Shorthand::Twitch(_) | Shorthand::TwitchServer(_));
        // Without one that asks, the template is of no use.
        let twitch = if urls.iter().flatten().any(asks) { self.twitch().await } else { Ok(KEY) };
        urls.into_iter().map(|url| resolved(url?, &twitch)).collect()
    }

    async fn twitch(&self) -> Result<&str, RpcError> {
        let found = self.twitch.get_or_try_init(|| async {
            let failed = |error: reqwest::Error| {
                let message = format!("Twitch's directory of servers does not answer: {}", error.without_url());
                RpcError::new(Code::Unavailable, message)
            };
            let answer = reqwest::Client::new().get(&self.directory).timeout(LOOKUP_TIMEOUT).send().await;
            let answer = answer.and_then(reqwest::Response::error_for_status).map_err(failed)?;
            let text = answer.bytes().await.map_err(failed)?;
            template(&text).ok_or_else(|| RpcError::new(Code::Unavailable, "Twitch's directory names no server"))
        });
        found.await.map(String::as_str)
    }
}

/// `twitch`: the template of Twitch's best server, or why it is not known.
fn resolved(url: Secret, twitch: &Result<&str, RpcError>) -> Result<StreamUrl, RpcError> {
    let target = match (shorthand(url.reveal()), twitch) {
        (Shorthand::Plain, _) => url.clone(),
        (Shorthand::Mux(key), _) => MUX.replace(KEY, key).into(),
        (Shorthand::Twitch(key) | Shorthand::TwitchServer(key), Ok(template)) => template.replace(KEY, key).into(),
        (Shorthand::Twitch(_), Err(error)) => return Err(error.clone()),
        // It names a server already.
        (Shorthand::TwitchServer(_), Err(error)) => {
            warn!(%error, "the server of the request is taken");
            url.clone()
        }
    };
    Ok(StreamUrl { url, target })
}

#[derive(Debug, PartialEq, Eq)]
enum Shorthand<'a> {
    /// None.
    Plain,
    /// With the key.
    Mux(&'a str),
    /// With the key.
    Twitch(&'a str),
    /// The key of a URL that names a server of Twitch.
    TwitchServer(&'a str),
}

fn shorthand(url: &str) -> Shorthand<'_> {
    let Some((scheme, rest)) = url.split_once("://") else { return Shorthand::Plain };
    match scheme.to_ascii_lowercase().as_str() {
        "mux" => Shorthand::Mux(rest),
        "twitch" => Shorthand::Twitch(rest),
        "rtmp" | "rtmps" => match rest.split_once("/app/") {
            Some((server, key)) if is_twitch(server) && !key.is_empty() => Shorthand::TwitchServer(key),
            _ => Shorthand::Plain,
        },
        _ => Shorthand::Plain,
    }
}

/// `server`: host and port.
fn is_twitch(server: &str) -> bool {
    let host = server.split_once(':').map_or(server, |(host, _)| host);
    host.ends_with(TWITCH_HOSTS) && !host.contains(['/', '@', '?'])
}

#[derive(Deserialize)]
struct TwitchDirectory {
    ingests: Vec<TwitchServer>,
}

#[derive(Deserialize)]
struct TwitchServer {
    #[serde(default)]
    url_template: String,
    #[serde(default)]
    url_template_secure: String,
}

/// Of the first server, encrypted if it can.
fn template(directory: &[u8]) -> Option<String> {
    let directory: TwitchDirectory = serde_json::from_slice(directory).ok()?;
    let first = directory.ingests.into_iter().next()?;
    [first.url_template_secure, first.url_template].into_iter().find(|template| template.contains(KEY))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    const DIRECTORY: &str = r#"{"ingests": [
        {"_id": 1, "url_template": "rtmp://ber/app/{stream_key}", "url_template_secure": "rtmps://ber:443/app/{stream_key}"},
        {"_id": 2, "url_template": "rtmp://fra/app/{stream_key}"}
    ]}"#;

    #[test]
    fn shorthands_are_found_whatever_their_case() {
        for (url, expected) in [
            ("mux://key", Shorthand::Mux("key")),
            ("Twitch://key", Shorthand::Twitch("key")),
            ("rtmps://fra02.contribute.live-video.net:443/app/key?x=1", Shorthand::TwitchServer("key?x=1")),
            ("rtmp://fra02.contribute.live-video.net/app/", Shorthand::Plain),
            ("rtmp://evil.example/a.contribute.live-video.net/app/key", Shorthand::Plain),
            ("rtmp://contribute.live-video.net/app/key", Shorthand::Plain),
            ("rtmp://h/app/key", Shorthand::Plain),
            ("srt://h:1?streamid=x", Shorthand::Plain),
            ("key", Shorthand::Plain),
        ] {
            assert_eq!(shorthand(url), expected, "{url}");
        }
    }

    #[test]
    fn the_first_server_is_taken_encrypted_if_it_can() {
        assert_eq!(template(DIRECTORY.as_bytes()).as_deref(), Some("rtmps://ber:443/app/{stream_key}"));
        let plain = r#"{"ingests": [{"url_template": "rtmp://fra/app/{stream_key}"}]}"#;
        assert_eq!(template(plain.as_bytes()).as_deref(), Some("rtmp://fra/app/{stream_key}"));
        for nothing in ["", "[]", r#"{"ingests": []}"#, r#"{"ingests": [{"url_template": "rtmp://fra"}]}"#] {
            assert_eq!(template(nothing.as_bytes()), None, "{nothing}");
        }
    }

    /// A directory that answers each request with this; its address.
    async fn directory(status: &str, body: &str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}/ingests", listener.local_addr().unwrap());
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
        tokio::spawn(async move {
            while let Ok((mut tcp, _)) = listener.accept().await {
                let mut request = vec![0; 4096];
                let _ = tcp.read(&mut request).await;
                let _ = tcp.write_all(answer.as_bytes()).await;
            }
        });
        address
    }

    fn resolver(directory: String) -> StreamUrls {
        StreamUrls { directory, twitch: OnceCell::new() }
    }

    async fn target(urls: &StreamUrls, url: &str) -> Result<String, RpcError> {
        let resolved = urls.resolve(vec![Ok(Secret::new(url.to_owned()))]).await.remove(0)?;
        assert_eq!(resolved.url.reveal(), url);
        Ok(resolved.target.reveal().clone())
    }

    #[tokio::test]
    async fn urls_become_what_is_connected_to() {
        let urls = resolver(directory("200 OK", DIRECTORY).await);
        for (url, expected) in [
            ("mux://key", "rtmps://global-live.mux.com:443/app/key"),
            ("twitch://key", "rtmps://ber:443/app/key"),
            ("rtmp://fra.contribute.live-video.net/app/key", "rtmps://ber:443/app/key"),
            ("rtmp://h/app/key", "rtmp://h/app/key"),
        ] {
            assert_eq!(target(&urls, url).await.unwrap(), expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_directory_that_does_not_answer_is_waited_for_once() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let urls = resolver(format!("http://{}/ingests", listener.local_addr().unwrap()));
        let refused = RpcError::new(Code::InvalidArgument, "refused before");
        let named = Secret::new("rtmp://fra.contribute.live-video.net/app/key".to_owned());
        let mut asked: Vec<Result<Secret, RpcError>> = vec![Ok(named.clone()); 8];
        asked.push(Err(refused.clone()));
        let begun = tokio::time::Instant::now();
        let resolved = urls.resolve(asked).await;
        assert!(begun.elapsed() < 2 * LOOKUP_TIMEOUT, "{:?}", begun.elapsed());
        assert!(resolved[..8].iter().all(|url| url.as_ref().is_ok_and(|url| url.target == named)), "{resolved:?}");
        assert_eq!(resolved[8], Err(refused));
    }

    #[tokio::test]
    async fn without_the_directory_only_its_shorthand_is_refused() {
        for (status, body) in [("503 Service Unavailable", ""), ("200 OK", "nothing")] {
            let urls = resolver(directory(status, body).await);
            let refused = target(&urls, "twitch://canary").await.unwrap_err();
            assert_eq!(refused.code, Code::Unavailable);
            assert!(!refused.message.contains("canary"), "{refused}");
            let named = "rtmp://fra.contribute.live-video.net/app/key";
            assert_eq!(target(&urls, named).await.unwrap(), named);
        }
    }
}
