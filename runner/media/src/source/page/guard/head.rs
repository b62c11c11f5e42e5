//! Heads of HTTP/1.1 messages, as far as a forward proxy reads them: where a request goes, and what is different on its other
//! side. Pure but for `read_head`. Bodies are passed on as they come.

use std::io;

use spillway_guard::host_and_port;
use tokio::io::AsyncReadExt;

/// Longer heads are refused. Chromium's are some kilobytes, with cookies up to 16 KiB or so.
const MAX_HEAD_BYTES: usize = 64 << 10;

/// Between two neighbours only (RFC 9110, 7.6.1). Every connection is for one request, which `Connection: close` says.
const HOP_BY_HOP: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "upgrade",
];

/// Where the head in these bytes ends; `None`: it goes on.
fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4)
}

/// What a browser asks its proxy for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyRequest {
    /// Name or address, an IPv6 address in brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// `None`: a tunnel.
    pub forward: Option<ForwardRequest>,
}

/// A request that is passed on: `http://` without TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardRequest {
    method: String,
    /// With scheme and host.
    url: String,
    /// Path and query.
    path: String,
    /// Lines that are passed on, each with its end.
    headers: Vec<u8>,
}

impl ProxyRequest {
    /// Reads a head. `None`: it is no request to a proxy.
    pub fn parse(head: &[u8]) -> Option<Self> {
        let (first, headers) = lines(head)?;
        let first = std::str::from_utf8(first).ok()?;
        let mut parts = first.split(' ');
        let (method, target, version) = (parts.next()?, parts.next()?, parts.next()?);
        let is_token = !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_uppercase());
        let is_visible = target.bytes().all(|byte| byte.is_ascii_graphic());
        if parts.next().is_some() || !version.starts_with("HTTP/1.") || !is_token || !is_visible {
            return None;
        }
        if method == "CONNECT" {
            let (host, port) = target.rsplit_once(':')?;
            return Some(Self { host: host.to_owned(), port: port.parse().ok()?, forward: None });
        }
        let behind = target.get(..7).filter(|scheme| scheme.eq_ignore_ascii_case("http://")).map(|_| &target[7..])?;
        let (host, port) = host_and_port(target)?;
        let path = &behind[behind.find(['/', '?']).unwrap_or(behind.len())..];
        let slash = if path.starts_with('/') { "" } else { "/" };
        let forward = ForwardRequest {
            method: method.to_owned(),
            url: target.to_owned(),
            path: format!("{slash}{path}"),
            headers: passed_on(headers)?,
        };
        Some(Self { host, port, forward: Some(forward) })
    }

    /// As an authority: `host:port`.
    pub fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

impl ForwardRequest {
    /// The head for the server itself.
    pub fn to_server(&self) -> Vec<u8> {
        self.head(&self.path, "")
    }

    /// The head for another proxy. `authorization`: value of its header, if it wants one.
    pub fn to_proxy(&self, authorization: Option<&str>) -> Vec<u8> {
        let header = authorization.map(|value| format!("Proxy-Authorization: {value}\r\n")).unwrap_or_default();
        self.head(&self.url, &header)
    }

    fn head(&self, target: &str, more: &str) -> Vec<u8> {
        let mut head = format!("{} {target} HTTP/1.1\r\n", self.method).into_bytes();
        head.extend_from_slice(&self.headers);
        head.extend_from_slice(more.as_bytes());
        head.extend_from_slice(b"Connection: close\r\n\r\n");
        head
    }
}

/// The status of a response's head; `None`: it is none.
pub fn status(head: &[u8]) -> Option<u16> {
    let (first, _) = lines(head)?;
    let first = std::str::from_utf8(first).ok()?.strip_prefix("HTTP/1.")?;
    first.split(' ').nth(1)?.parse().ok()
}

/// A response's head that has the browser use another connection for its next request: that may go to another server.
/// `None`: it cannot be read.
pub fn closing(head: &[u8]) -> Option<Vec<u8>> {
    let (first, headers) = lines(head)?;
    let mut closing = [first, b"\r\n"].concat();
    closing.extend_from_slice(&passed_on(headers)?);
    closing.extend_from_slice(b"Connection: close\r\n\r\n");
    Some(closing)
}

/// The first line of a head, and what follows up to the empty line.
fn lines(head: &[u8]) -> Option<(&[u8], &[u8])> {
    let head = head.strip_suffix(b"\r\n\r\n")?;
    match head.windows(2).position(|window| window == b"\r\n") {
        Some(at) => Some((&head[..at], &head[at + 2..])),
        None => Some((head, b"")),
    }
}

/// Header lines without those for this hop. `None`: one of them is none.
fn passed_on(headers: &[u8]) -> Option<Vec<u8>> {
    let mut passed_on = Vec::with_capacity(headers.len() + 2);
    let mut rest = headers;
    while !rest.is_empty() {
        let end = rest.windows(2).position(|window| window == b"\r\n").unwrap_or(rest.len());
        let line = &rest[..end];
        rest = rest.get(end + 2..).unwrap_or_default();
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = std::str::from_utf8(&line[..colon]).ok()?;
        // A name with a space is a folded line, which servers read in different ways.
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
            return None;
        }
        if !HOP_BY_HOP.iter().any(|hop| name.eq_ignore_ascii_case(hop)) {
            passed_on.extend_from_slice(line);
            passed_on.extend_from_slice(b"\r\n");
        }
    }
    Some(passed_on)
}

/// Reads until a head is whole; gives its length. `None`: there is none, or it does not end.
///
/// # Errors
///
/// The connection breaks.
pub async fn read_head(stream: &mut (impl AsyncReadExt + Unpin), bytes: &mut Vec<u8>) -> io::Result<Option<usize>> {
    loop {
        if let Some(end) = head_end(bytes) {
            return Ok(Some(end));
        }
        if bytes.len() > MAX_HEAD_BYTES || stream.read_buf(bytes).await? == 0 {
            return Ok(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(head: &str) -> Option<ProxyRequest> {
        ProxyRequest::parse(head.as_bytes())
    }

    #[test]
    fn a_tunnel_has_a_host_and_a_port() {
        for (target, host, port) in
            [("a.example:443", "a.example", 443), ("[::1]:80", "[::1]", 80), ("0x7f.1:1", "0x7f.1", 1)]
        {
            let request = read(&format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n")).unwrap();
            assert_eq!((request.host.as_str(), request.port, &request.forward), (host, port, &None));
            assert_eq!(request.authority(), target);
        }
    }

    #[test]
    fn a_request_is_passed_on_without_what_is_for_this_hop() {
        let request = read(
            "GET http://user@A.example:8080/a/b?c=d HTTP/1.1\r\nHost: a.example:8080\r\nProxy-Connection: keep-alive\r\n\
             Connection: keep-alive\r\nX-Own: \u{e9}\r\nproxy-authorization: Basic x\r\n\r\n",
        )
        .unwrap();
        assert_eq!((request.host.as_str(), request.port), ("a.example", 8080));
        let forward = request.forward.unwrap();
        let expected = "GET /a/b?c=d HTTP/1.1\r\nHost: a.example:8080\r\nX-Own: \u{e9}\r\nConnection: close\r\n\r\n";
        assert_eq!(String::from_utf8(forward.to_server()).unwrap(), expected);
        let upstream = String::from_utf8(forward.to_proxy(Some("Basic eA=="))).unwrap();
        assert!(upstream.starts_with("GET http://user@A.example:8080/a/b?c=d HTTP/1.1\r\n"), "{upstream}");
        assert!(upstream.contains("\r\nProxy-Authorization: Basic eA==\r\nConnection: close\r\n\r\n"), "{upstream}");
        let bare = read("HEAD http://a.example?q HTTP/1.1\r\n\r\n").unwrap().forward.unwrap();
        assert!(bare.to_server().starts_with(b"HEAD /?q HTTP/1.1\r\nConnection: close\r\n"));
    }

    #[test]
    fn what_is_no_request_to_a_proxy_is_refused() {
        for head in [
            "GET / HTTP/1.1\r\n\r\n",
            "GET https://a.example/ HTTP/1.1\r\n\r\n",
            "GET ftp://a.example/ HTTP/1.1\r\n\r\n",
            "CONNECT a.example HTTP/1.1\r\n\r\n",
            "CONNECT a.example:99999 HTTP/1.1\r\n\r\n",
            "GET http://a.example/ HTTP/2\r\n\r\n",
            "GET http://a.example/ x HTTP/1.1\r\n\r\n",
            "get http://a.example/ HTTP/1.1\r\n\r\n",
            "GET http://a.example/ HTTP/1.1\r\n folded: line\r\n\r\n",
            "GET http://a.example/ HTTP/1.1\r\nno header\r\n\r\n",
            "\r\n\r\n",
        ] {
            assert_eq!(read(head), None, "{head:?}");
        }
    }

    #[test]
    fn a_response_ends_its_connection() {
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nconnection: keep-alive\r\nKeep-Alive: timeout=5\r\n\r\n";
        assert_eq!(status(head), Some(200));
        let expected = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n";
        assert_eq!(closing(head).unwrap(), expected);
        assert_eq!(status(b"HTTP/1.0 404\r\n\r\n"), Some(404));
        assert_eq!(status(b"SSH-2.0-x\r\n\r\n"), None);
        assert_eq!(head_end(b"a\r\n\r\nrest"), Some(5));
        assert_eq!(head_end(b"a\r\n\r"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_head_or_not(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in "[A-Z]{0,7} http://[a-z:@\\[\\]/?]{0,20} HTTP/1.1") {
            for head in [bytes, text.into_bytes()] {
                let head = [head, b"\r\n\r\n".to_vec()].concat();
                if let Some(request) = ProxyRequest::parse(&head) {
                    prop_assert!(!request.host.is_empty() || request.forward.is_none());
                }
                let _ = (status(&head), closing(&head));
            }
        }
    }
}
