//! The proxy of the installation's network, where the internet is reached through nothing else. Ours stands before it: it decides
//! what is let through, and that one resolves the name again. Dialled in the task of a browser's connection.

use std::{fmt, io};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;
use spillway_plan::Secret;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use url::{Host, Url};

use super::head::{read_head, status};

/// One HTTP proxy. No text has its user or password.
#[derive(Clone)]
pub struct UpstreamProxy {
    /// An IPv6 address without brackets.
    host: String,
    port: u16,
    authorization: Option<Secret>,
}

/// The URL is none of a proxy that can be used. Shows nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the network's proxy is not written like http://user:password@proxy.example:3128")]
pub struct UpstreamProxyError;

impl fmt::Debug for UpstreamProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UpstreamProxy({}:{})", self.host, self.port)
    }
}

impl UpstreamProxy {
    /// Reads a URL as `https_proxy` has it.
    ///
    /// # Errors
    ///
    /// It is none of an HTTP proxy, or asks for TLS to it; for good.
    pub fn parse(url: &Secret) -> Result<Self, UpstreamProxyError> {
        let url = Url::parse(url.reveal()).map_err(|_| UpstreamProxyError)?;
        let host = match url.host() {
            Some(Host::Domain(name)) => name.to_owned(),
            Some(Host::Ipv4(address)) => address.to_string(),
            Some(Host::Ipv6(address)) => address.to_string(),
            None => return Err(UpstreamProxyError),
        };
        if url.scheme() != "http" {
            return Err(UpstreamProxyError);
        }
        let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let (user, password) = (decoded(url.username()), decoded(url.password().unwrap_or_default()));
        let has_credentials = !user.is_empty() || !password.is_empty();
        let authorization =
            has_credentials.then(|| Secret::new(format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))));
        Ok(Self { host, port: url.port().unwrap_or(80), authorization })
    }

    /// Value of its header, if it wants one.
    pub fn authorization(&self) -> Option<&str> {
        self.authorization.as_ref().map(|value| value.reveal().as_str())
    }

    /// A connection to the proxy itself.
    ///
    /// # Errors
    ///
    /// The system's; a retry may help.
    pub async fn dial(&self) -> io::Result<TcpStream> {
        TcpStream::connect((self.host.as_str(), self.port)).await
    }

    /// A tunnel through it to `authority` (`host:port`), with what came behind its answer.
    ///
    /// # Errors
    ///
    /// It is not there, or does not let this through.
    pub async fn tunnel(&self, authority: &str) -> io::Result<(TcpStream, Vec<u8>)> {
        let mut stream = self.dial().await?;
        let mut head = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n");
        if let Some(authorization) = self.authorization() {
            head += &format!("Proxy-Authorization: {authorization}\r\n");
        }
        stream.write_all((head + "\r\n").as_bytes()).await?;
        let mut answer = Vec::with_capacity(1 << 10);
        let end = read_head(&mut stream, &mut answer).await?;
        let end = end.ok_or_else(|| io::Error::other("the network's proxy does not speak HTTP"))?;
        let rest = answer.split_off(end);
        match status(&answer) {
            Some(200..=299) => Ok((stream, rest)),
            Some(status) => Err(io::Error::other(format!("the network's proxy answers {status}"))),
            None => Err(io::Error::other("the network's proxy does not speak HTTP")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str) -> Result<UpstreamProxy, UpstreamProxyError> {
        UpstreamProxy::parse(&Secret::new(url.to_owned()))
    }

    #[test]
    fn a_proxy_has_a_host_a_port_and_maybe_credentials() {
        let proxy = read("http://me%40corp:canary%20b@proxy.example:3128").unwrap();
        assert_eq!((proxy.host.as_str(), proxy.port), ("proxy.example", 3128));
        assert_eq!(proxy.authorization(), Some(format!("Basic {}", STANDARD.encode("me@corp:canary b")).as_str()));
        assert_eq!(format!("{proxy:?}"), "UpstreamProxy(proxy.example:3128)");
        let plain = read("http://[::1]").unwrap();
        assert_eq!((plain.host.as_str(), plain.port, plain.authorization()), ("::1", 80, None));
        for url in ["", "proxy.example:3128", "https://proxy.example", "socks5://proxy.example"] {
            assert_eq!(read(url).err(), Some(UpstreamProxyError), "{url}");
        }
    }
}
