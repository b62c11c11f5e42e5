//! An SRT URL in its parts, with the rules that libsrt would apply only when it connects. Pure. Passphrase and stream id are
//! in no text of these types.

use std::fmt;

use spillway_protocol::requested::stream_url;
use spillway_protocol::{Secret, without_secrets};
use url::{Host, Url, form_urlencoded};

/// libsrt's bounds of a passphrase, bytes (`SRTO_PASSPHRASE`).
const PASSPHRASE_BYTES: std::ops::RangeInclusive<usize> = 10..=79;
/// Of a stream id (`SRTO_STREAMID`).
const MAX_STREAM_ID_BYTES: usize = 512;
/// `pbkeylen`, bytes; 0 leaves it to the server.
const KEY_BYTES: [u32; 4] = [0, 16, 24, 32];
/// A minute is far above every use; the receiver holds all of it in memory.
const MAX_LATENCY_MS: u32 = 60_000;
/// GStreamer's.
const DEFAULT_PORT: u16 = 7001;

/// Options of libsrt's sockets that GStreamer's `srtsink` takes from its URL, without those that have a field of their own.
/// `transtype`, `messageapi` and `tsbpdmode` are not among them: with another value no live stream arrives.
const SOCKET_OPTIONS: [&str; 20] = [
    "mss",
    "fc",
    "sndbuf",
    "rcvbuf",
    "maxbw",
    "inputbw",
    "oheadbw",
    "ipttl",
    "iptos",
    "tlpktdrop",
    "snddropdelay",
    "nakreport",
    "conntimeo",
    "lossmaxttl",
    "peerlatency",
    "rcvlatency",
    "minversion",
    "kmrefreshrate",
    "kmpreannounce",
    "enforcedencryption",
];

/// An `srt://` URL of a caller. `Display` and `Debug` show it as EgressInfo does.
#[derive(Clone, PartialEq, Eq)]
pub struct SrtUrl {
    host: String,
    port: u16,
    passphrase: Option<Secret>,
    stream_id: Option<Secret>,
    latency_ms: Option<u32>,
    key_bytes: Option<u32>,
    options: Vec<(&'static str, i64)>,
    shown: String,
}

/// The URL cannot be streamed to. Shows nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SrtUrlError {
    /// It does not begin with `srt://`.
    Scheme,
    /// No host, or no possible port.
    Host,
    /// A server that waits for connections needs an address that is known before: tasks have none.
    Mode,
    /// Too short or too long.
    Passphrase,
    /// Too long.
    StreamId,
    /// No number of milliseconds, or more than a minute.
    Latency,
    /// None of libsrt's.
    KeyLength,
    /// Known, and no number.
    Number,
}

impl SrtUrlError {
    /// Its text.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Scheme => "invalid scheme",
            Self::Host => "no host in URL",
            Self::Mode => "only mode=caller is supported",
            Self::Passphrase => "passphrase must have 10 to 79 characters",
            Self::StreamId => "streamid must have at most 512 characters",
            Self::Latency => "latency must be a number of milliseconds up to 60000",
            Self::KeyLength => "pbkeylen must be 0, 16, 24 or 32",
            Self::Number => "an option of the URL must be a number",
        }
    }
}

impl fmt::Display for SrtUrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl std::error::Error for SrtUrlError {}

impl SrtUrl {
    /// Takes a URL apart. Parameters that are not known are ignored, as by GStreamer. A `+` is one, not a space, and a `#`
    /// begins no fragment: stream ids begin with one (`#!::r=…`).
    ///
    /// # Errors
    ///
    /// When libsrt could not stream to it; for good.
    pub fn parse(text: &str) -> Result<Self, SrtUrlError> {
        let (address, query) = text.split_once('?').unwrap_or((text, ""));
        let url = Url::parse(address).map_err(|_| SrtUrlError::Host)?;
        if url.scheme() != "srt" {
            return Err(SrtUrlError::Scheme);
        }
        let host = match url.host() {
            Some(Host::Domain("")) | None => return Err(SrtUrlError::Host),
            Some(Host::Ipv6(address)) => address.to_string(),
            Some(host) => host.to_string(),
        };
        let port = url.port().unwrap_or(DEFAULT_PORT);
        if port == 0 {
            return Err(SrtUrlError::Host);
        }
        let mut parsed = Self {
            host,
            port,
            passphrase: None,
            stream_id: None,
            latency_ms: None,
            key_bytes: None,
            options: vec![],
            shown: stream_url(text),
        };
        for (name, value) in form_urlencoded::parse(query.replace('+', "%2B").as_bytes()) {
            parsed.set(&name, &value)?;
        }
        Ok(parsed)
    }

    /// The last one counts, where there are several.
    fn set(&mut self, name: &str, value: &str) -> Result<(), SrtUrlError> {
        let secret = || (!value.is_empty()).then(|| Secret::new(value.to_owned()));
        match name {
            "mode" if value != "caller" => return Err(SrtUrlError::Mode),
            "passphrase" if !value.is_empty() && !PASSPHRASE_BYTES.contains(&value.len()) => {
                return Err(SrtUrlError::Passphrase);
            }
            "passphrase" => self.passphrase = secret(),
            "streamid" if value.len() > MAX_STREAM_ID_BYTES => return Err(SrtUrlError::StreamId),
            "streamid" => self.stream_id = secret(),
            "latency" => {
                let latency = value.parse::<u32>().ok().filter(|ms| *ms <= MAX_LATENCY_MS);
                self.latency_ms = Some(latency.ok_or(SrtUrlError::Latency)?);
            }
            "pbkeylen" => {
                let bytes = value.parse::<u32>().ok().filter(|bytes| KEY_BYTES.contains(bytes));
                self.key_bytes = Some(bytes.ok_or(SrtUrlError::KeyLength)?);
            }
            _ => {
                if let Some(option) = SOCKET_OPTIONS.into_iter().find(|option| *option == name) {
                    self.options.retain(|(set, _)| *set != option);
                    self.options.push((option, number(value)?));
                }
            }
        }
        Ok(())
    }

    /// A text of libsrt's or GStreamer's with `{...}` where it repeats the passphrase or the stream id.
    pub fn without_secrets(&self, text: &str) -> String {
        let secrets = [&self.passphrase, &self.stream_id].into_iter().flatten();
        without_secrets(text, secrets.map(|secret| secret.reveal().as_str()))
    }

    /// Name or address, an IPv6 address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// UDP port, as written or GStreamer's.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Encrypts the stream.
    pub const fn passphrase(&self) -> Option<&Secret> {
        self.passphrase.as_ref()
    }

    /// Which stream of the server it is, often with a password in it.
    pub const fn stream_id(&self) -> Option<&Secret> {
        self.stream_id.as_ref()
    }

    /// For how long lost packets may be sent again; `None`: libsrt's.
    pub const fn latency_ms(&self) -> Option<u32> {
        self.latency_ms
    }

    /// Length of the key, bytes.
    pub const fn key_bytes(&self) -> Option<u32> {
        self.key_bytes
    }

    /// Other options of the socket, by libsrt's names in lower case.
    pub fn options(&self) -> &[(&'static str, i64)] {
        &self.options
    }
}

/// Truths are numbers for libsrt, but not for GStreamer's `srtsink`, which takes `1` and `0` for both.
fn number(value: &str) -> Result<i64, SrtUrlError> {
    match value {
        "true" | "yes" | "on" => Ok(1),
        "false" | "no" | "off" => Ok(0),
        _ => value.parse().map_err(|_| SrtUrlError::Number),
    }
}

impl fmt::Display for SrtUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for SrtUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn secret(secret: Option<&Secret>) -> &str {
        secret.map_or("", |secret| secret.reveal().as_str())
    }

    #[test]
    fn a_url_has_host_port_and_options() {
        let url = SrtUrl::parse(
            "SRT://ingest.example:9000?mode=caller&passphrase=01234%2056789&streamid=%23!::r=a+b,m=publish&latency=250\
             &pbkeylen=32&maxbw=-1&tlpktdrop=true&pkt_size=1316&maxbw=5",
        )
        .unwrap();
        assert_eq!((url.host(), url.port()), ("ingest.example", 9000));
        assert_eq!(secret(url.passphrase()), "01234 56789");
        assert_eq!(secret(url.stream_id()), "#!::r=a+b,m=publish");
        assert_eq!((url.latency_ms(), url.key_bytes()), (Some(250), Some(32)));
        assert_eq!(url.options(), [("tlpktdrop", 1), ("maxbw", 5)]);
        let unescaped = SrtUrl::parse("srt://h:1?streamid=#!::r=a,m=publish&latency=9").unwrap();
        assert_eq!((secret(unescaped.stream_id()), unescaped.latency_ms()), ("#!::r=a,m=publish", Some(9)));
        let bare = SrtUrl::parse("srt://[::1]").unwrap();
        assert_eq!((bare.host(), bare.port()), ("::1", 7001));
        assert_eq!((secret(bare.passphrase()), secret(bare.stream_id()), bare.latency_ms()), ("", "", None));
        assert_eq!(SrtUrl::parse("srt://10.0.0.7:1?passphrase=").unwrap().host(), "10.0.0.7");
    }

    #[test]
    fn what_libsrt_would_refuse_is_refused() {
        let long = "x".repeat(513);
        for (url, error) in [
            ("rtmp://h/a/k", SrtUrlError::Scheme),
            ("srt://", SrtUrlError::Host),
            ("srt://:9000", SrtUrlError::Host),
            ("srt://h:0", SrtUrlError::Host),
            ("srt://h:99999", SrtUrlError::Host),
            ("srt://h:1?mode=listener", SrtUrlError::Mode),
            ("srt://h:1?mode=rendezvous", SrtUrlError::Mode),
            ("srt://h:1?passphrase=012345678", SrtUrlError::Passphrase),
            (format!("srt://h:1?passphrase={long}").as_str(), SrtUrlError::Passphrase),
            (format!("srt://h:1?streamid={long}").as_str(), SrtUrlError::StreamId),
            ("srt://h:1?latency=soon", SrtUrlError::Latency),
            ("srt://h:1?latency=-1", SrtUrlError::Latency),
            ("srt://h:1?latency=60001", SrtUrlError::Latency),
            ("srt://h:1?pbkeylen=17", SrtUrlError::KeyLength),
            ("srt://h:1?maxbw=much", SrtUrlError::Number),
        ] {
            assert_eq!(SrtUrl::parse(url), Err(error), "{url}");
        }
    }

    #[test]
    fn no_text_has_a_secret() {
        let url = SrtUrl::parse("srt://u:canary@h:1?passphrase=canary-0123&streamid=canary-id#canary").unwrap();
        let told = format!("{url} {url:?} {:#?}", Some(&url));
        assert!(!told.contains("canary"), "{told}");
    }

    proptest! {
        #[test]
        fn any_text_is_a_url_or_not(text in "(srt://)?[a-z@:/?&=%+\\[\\]#0-9 é]{0,40}") {
            if let Ok(url) = SrtUrl::parse(&text) {
                prop_assert!(!url.host().is_empty() && url.port() > 0);
            }
        }
    }
}
