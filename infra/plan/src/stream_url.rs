//! URLs of streams: which protocol they are of, and whether they have its form. Pure. A URL is a secret, and of a malformed one
//! it is not known which part is the key: it may stand where others have the host. So errors show a scheme of ours and nothing
//! else. livekit/egress' errors show all of it.

use livekit_protocol as livekit;
use url::Url;

use crate::error::PlanError;
use crate::output_types::StreamProtocol;
use crate::srt_url::SrtUrl;
use crate::websocket_url::WebsocketUrl;

const RTMP_FORM: &str = "rtmp urls must be of format rtmp(s)://{host}(/{path})/{app}/{stream_key}( live=1)";
/// librtmp's option for live streams, which some users put behind the key.
const LIVE: &str = " live=1";
/// Our schemes: their name, what is shown of their URLs, and the protocol.
const SCHEMES: [(&str, &str, StreamProtocol); 7] = [
    ("rtmp", "rtmp://{...}", StreamProtocol::Rtmp),
    ("rtmps", "rtmps://{...}", StreamProtocol::Rtmp),
    // The key of an account with Mux or Twitch, resolved by the runner.
    ("mux", "mux://{...}", StreamProtocol::Rtmp),
    ("twitch", "twitch://{...}", StreamProtocol::Rtmp),
    ("srt", "srt://{...}", StreamProtocol::Srt),
    ("ws", "ws://{...}", StreamProtocol::Websocket),
    ("wss", "wss://{...}", StreamProtocol::Websocket),
];

/// The protocol of a stream output: the one it names, else that of its first URL.
pub(crate) fn protocol(output: &livekit::StreamOutput) -> Result<StreamProtocol, PlanError> {
    use livekit::StreamProtocol as Named;
    match Named::try_from(output.protocol) {
        Ok(Named::Rtmp) => Ok(StreamProtocol::Rtmp),
        Ok(Named::Srt) => Ok(StreamProtocol::Srt),
        Ok(Named::Websocket) => Ok(StreamProtocol::Websocket),
        Ok(Named::DefaultProtocol) => {
            let first = output.urls.first().ok_or(PlanError::Field("stream protocol"))?;
            protocol_of(first).ok_or_else(|| invalid(first, "invalid protocol"))
        }
        Err(_) => Err(PlanError::Field("stream protocol")),
    }
}

/// Whether a URL is of this protocol and names a server, and a stream where the protocol needs one.
///
/// # Errors
///
/// It is not; a retry is useless. The text has no part of the URL but its scheme.
pub fn check(url: &str, protocol: StreamProtocol) -> Result<(), PlanError> {
    if url.chars().any(char::is_control) {
        return Err(invalid(url, "invalid control character in URL"));
    }
    if protocol_of(url) != Some(protocol) {
        return Err(invalid(url, "invalid scheme"));
    }
    match protocol {
        StreamProtocol::Rtmp if !has_rtmp_form(url) => Err(invalid(url, RTMP_FORM)),
        StreamProtocol::Srt => SrtUrl::parse(url).map(drop).map_err(|error| invalid(url, error.reason())),
        StreamProtocol::Websocket if WebsocketUrl::parse(url).is_none() => Err(invalid(url, "no host in URL")),
        StreamProtocol::Rtmp | StreamProtocol::Websocket => Ok(()),
    }
}

pub(crate) fn invalid(url: &str, reason: &'static str) -> PlanError {
    PlanError::InvalidUrl { url: hidden(url), reason }
}

/// A URL as errors show it, whatever it is: `rtmp://{...}`, or `{...}` where the scheme is none of ours.
pub fn hidden(url: &str) -> &'static str {
    scheme_of(url).map_or("{...}", |(_, hidden, _)| hidden)
}

fn protocol_of(url: &str) -> Option<StreamProtocol> {
    scheme_of(url).map(|(_, _, protocol)| protocol)
}

fn scheme_of(url: &str) -> Option<(&'static str, &'static str, StreamProtocol)> {
    let (scheme, _) = url.split_once("://")?;
    SCHEMES.into_iter().find(|(name, ..)| name.eq_ignore_ascii_case(scheme))
}

/// A host, then an application and a key: the key is what follows the last slash, with its query. A query may stand
/// before that slash: then it belongs to the application.
fn has_rtmp_form(url: &str) -> bool {
    let url = url.strip_suffix(LIVE).unwrap_or(url);
    let Some((scheme, rest)) = url.split_once("://") else { return false };
    if matches!(scheme.to_ascii_lowercase().as_str(), "mux" | "twitch") {
        return !rest.is_empty() && !rest.contains(char::is_whitespace);
    }
    let Some((_, path)) = rest.split_once('/') else { return false };
    let query = path.find('?').unwrap_or(path.len());
    let Some(slash) = path[..query].rfind('/').or_else(|| path.rfind('/')) else { return false };
    let (app, key) = (&path[..slash], &path[slash + 1..]);
    let has_names = !app.is_empty() && !key.is_empty() && !key.starts_with('?');
    has_names && !url.contains(char::is_whitespace) && has_host(url)
}

fn has_host(url: &str) -> bool {
    Url::parse(url).is_ok_and(|url| url.host_str().is_some_and(|host| !host.is_empty()) && url.port() != Some(0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use StreamProtocol::{Rtmp, Srt, Websocket};

    fn output(protocol: i32, urls: &[&str]) -> livekit::StreamOutput {
        livekit::StreamOutput { protocol, urls: urls.iter().map(|url| (*url).to_owned()).collect() }
    }

    #[test]
    fn the_first_url_decides_where_no_protocol_is_named() {
        let cases: &[(i32, &[&str], Result<StreamProtocol, PlanError>)] = &[
            (0, &["rtmp://h/a/k", "srt://h:1"], Ok(Rtmp)),
            (0, &["RTMPS://h/a/k"], Ok(Rtmp)),
            (0, &["mux://key"], Ok(Rtmp)),
            (0, &["twitch://key"], Ok(Rtmp)),
            (0, &["srt://h:1"], Ok(Srt)),
            (0, &["wss://h"], Ok(Websocket)),
            (1, &["srt://h:1"], Ok(Rtmp)),
            (2, &[], Ok(Srt)),
            (3, &[], Ok(Websocket)),
            (0, &[], Err(PlanError::Field("stream protocol"))),
            (9, &["rtmp://h/a/k"], Err(PlanError::Field("stream protocol"))),
        ];
        for (named, urls, expected) in cases {
            assert_eq!(protocol(&output(*named, urls)), *expected, "{named} {urls:?}");
        }
        for url in ["http://h/key", "key", ""] {
            let refused = protocol(&output(0, &[url])).expect_err(url).to_string();
            assert_eq!(refused, "invalid url {...}: invalid protocol");
        }
    }

    #[test]
    fn a_url_has_the_form_of_its_protocol() {
        for (url, of) in [
            ("rtmp://localhost:1935/live/key", Rtmp),
            ("rtmp://localhost/live/key live=1", Rtmp),
            ("rtmps://a.b.example:443/path/more/app/key?token=a/b&x=1", Rtmp),
            ("rtmp://user:password@host/app/key", Rtmp),
            ("rtmp://host/app?auth=x/key", Rtmp),
            ("rtmp://[::1]:1935/app/key", Rtmp),
            ("mux://key", Rtmp),
            ("twitch://key", Rtmp),
            ("srt://host:9000?passphrase=0123456789&mode=caller", Srt),
            ("srt://host:9000?streamid=#!::r=live/x,m=publish", Srt),
            ("ws://host:8080/a?token=x", Websocket),
            ("wss://host", Websocket),
        ] {
            assert_eq!(check(url, of), Ok(()), "{url}");
        }
        for (url, of, message) in [
            ("rtmp://canary", Rtmp, "invalid url rtmp://{...}: rtmp urls must be"),
            ("RTMPS://host/canary", Rtmp, "invalid url rtmps://{...}: rtmp urls must be"),
            ("rtmp://canary/x", Rtmp, "invalid url rtmp://{...}: rtmp urls must be"),
            ("rtmp://host/app/canary/", Rtmp, "invalid url rtmp://{...}: rtmp urls must be"),
            ("rtmp://host/app/?canary", Rtmp, "invalid url rtmp://{...}: rtmp urls must be"),
            ("rtmp://host//canary", Rtmp, "invalid url rtmp://{...}: rtmp urls must be"),
            ("rtmp:///app/canary", Rtmp, "invalid url rtmp://{...}: rtmp urls must be"),
            ("rtmp://host:0/app/canary", Rtmp, "invalid url rtmp://{...}: rtmp urls must be"),
            ("rtmp://host:x/app/canary", Rtmp, "invalid url rtmp://{...}: rtmp urls must be"),
            ("rtmp://host/app/canary x", Rtmp, "invalid url rtmp://{...}: rtmp urls must be"),
            ("rtmp://host/app/canary\n", Rtmp, "invalid url rtmp://{...}: invalid control character in URL"),
            ("rtmp://canary?a=b/c", Rtmp, "invalid url rtmp://{...}: rtmp urls must be"),
            ("rtmp://user:canary@host/app", Rtmp, "invalid url rtmp://{...}: rtmp urls must be"),
            // A slash in the password: what is before it looks like host and port.
            ("rtmp://canary:7/canary@host", Rtmp, "invalid url rtmp://{...}: rtmp urls must be"),
            ("mux://", Rtmp, "invalid url mux://{...}: rtmp urls must be"),
            ("mux://canary canary", Rtmp, "invalid url mux://{...}: rtmp urls must be"),
            ("srt://host:1?passphrase=canary", Rtmp, "invalid url srt://{...}: invalid scheme"),
            ("rtmp://host/app/canary", Srt, "invalid url rtmp://{...}: invalid scheme"),
            ("srt://:9000?passphrase=canary", Srt, "invalid url srt://{...}: no host in URL"),
            ("srt://h:1?passphrase=canary", Srt, "invalid url srt://{...}: passphrase must have 10 to 79 characters"),
            ("srt://canary?mode=listener", Srt, "invalid url srt://{...}: only mode=caller is supported"),
            ("srt://h:1?latency=canary", Srt, "invalid url srt://{...}: latency must be a number"),
            ("ws://", Websocket, "invalid url ws://{...}: no host in URL"),
            ("wss://canary:0", Websocket, "invalid url wss://{...}: no host in URL"),
            ("http://host/canary", Websocket, "invalid url {...}: invalid scheme"),
            ("canary://host", Websocket, "invalid url {...}: invalid scheme"),
            ("canary", Rtmp, "invalid url {...}: invalid scheme"),
        ] {
            let refused = check(url, of).expect_err(url).to_string();
            assert!(refused.starts_with(message), "{url:?}: {refused}");
            assert!(!refused.contains("canary"), "{refused}");
        }
    }

    proptest! {
        #[test]
        fn no_error_shows_more_than_a_scheme(
            scheme in "((rtmps?|mux|twitch|srt|wss?|https?|[a-z]{0,4})://)?",
            before in "[a-z0-9/?=&#@:.\\[\\] ]{0,12}",
            after in "[a-z0-9/?=&#@:.\\[\\] ]{0,12}",
        ) {
            for of in [Rtmp, Srt, Websocket] {
                if let Err(error) = check(&format!("{scheme}{before}CANARY{after}"), of) {
                    let shown = error.to_string();
                    prop_assert!(!shown.to_ascii_uppercase().contains("CANARY"), "{}", shown);
                    let url = shown.split(": ").next().unwrap_or_default();
                    prop_assert!(url.ends_with("{...}") && url.len() <= "invalid url twitch://{...}".len(), "{}", shown);
                }
            }
        }
    }
}
