//! Host and port of a URL, of the schemes that a request has them in. Pure.

use url::Url;

/// Host (an IPv6 address with its brackets) and port, the scheme's own where the URL names none. `None`: it is no URL, has no
/// host, or is of a scheme without a known port.
pub fn host_and_port(url: &str) -> Option<(String, u16)> {
    let url = Url::parse(url).ok()?;
    let port = url.port_or_known_default().or(match url.scheme() {
        "rtmp" => Some(1935),
        "rtmps" => Some(443),
        // GStreamer's.
        "srt" => Some(7001),
        _ => None,
    })?;
    Some((url.host_str().filter(|host| !host.is_empty())?.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_host_and_a_port() {
        for (url, host, port) in [
            ("https://user:pw@Minio:9000/x?y", "minio", 9000),
            ("http://0x7f.1/", "127.0.0.1", 80),
            ("wss://[::1]", "[::1]", 443),
            ("rtmp://10.0.0.5/app/key", "10.0.0.5", 1935),
            ("rtmps://h/app/key live=1", "h", 443),
            ("srt://h?passphrase=x", "h", 7001),
        ] {
            assert_eq!(host_and_port(url), Some((host.to_owned(), port)), "{url}");
        }
        for url in ["", "minio:9000", "mux://key", "rtmp:///app/key", "http://"] {
            assert_eq!(host_and_port(url), None, "{url}");
        }
    }
}
