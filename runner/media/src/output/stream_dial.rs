//! Connections to the servers of streams over TCP, and TLS over it. A request names them, so each goes through the guard.
//! Dialled in a stream's task; every step is bounded by the caller. No text has a part of the URL but its host.

use std::io;
use std::time::Duration;

use rustls::pki_types::ServerName;
use spillway_guard::{Guard, GuardError};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tracing::debug;

use crate::stream_tls::StreamTls;

/// A server whose machine is gone ends the connection with `ETIMEDOUT` after this, where Linux would try for 15 minutes.
const USER_TIMEOUT: Duration = Duration::from_secs(4);

/// Either kind of connection.
pub trait StreamIo: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> StreamIo for T {}

/// Why there is no connection. Its text goes to the user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// The installation does not let requests name this host.
    #[error("{message}")]
    Refused {
        /// The guard's.
        message: String,
    },
    /// The host has no address.
    #[error("the host cannot be resolved: {message}")]
    Resolve {
        /// The resolver's.
        message: String,
    },
    /// No TCP connection.
    #[error("cannot connect: {message}")]
    Connect {
        /// The system's.
        message: String,
    },
    /// No TLS session.
    #[error("TLS: {message}")]
    Tls {
        /// rustls'.
        message: String,
    },
}

impl DialError {
    /// psrpc code, as text, of a stream that ends with it.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Refused { .. } => "permission_denied",
            Self::Resolve { .. } | Self::Connect { .. } | Self::Tls { .. } => "unavailable",
        }
    }

    /// Another try is useless.
    pub const fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused { .. })
    }
}

impl From<GuardError> for DialError {
    fn from(error: GuardError) -> Self {
        match error {
            GuardError::Refused { .. } => Self::Refused { message: error.to_string() },
            GuardError::Resolve { message, .. } => Self::Resolve { message },
            GuardError::Connect { message, .. } => Self::Connect { message },
        }
    }
}

/// Where to.
#[derive(Clone, Copy, Debug)]
pub struct DialTarget<'a> {
    /// Name or address, an IPv6 address without brackets.
    pub host: &'a str,
    /// TCP port.
    pub port: u16,
    /// Whether TLS is over it.
    pub is_tls: bool,
    /// What the kernel may hold, bytes. Lag belongs into our own ring, where it can be dropped; Linux would let 4 MB of it
    /// grow.
    pub send_buffer: usize,
}

/// Opens connections; over TCP, or to something in memory in tests.
pub trait StreamDial: Send + Sync {
    /// What is read and written.
    type Io: AsyncRead + AsyncWrite + Send + Unpin;

    /// A connection. The caller bounds the time.
    ///
    /// # Errors
    ///
    /// Refused, resolve, connect or TLS. Whether another try helps is the stream's decision.
    fn dial(&self, target: DialTarget<'_>) -> impl Future<Output = Result<Self::Io, DialError>> + Send;
}

/// Connections over TCP, and TLS over it where it is asked for.
pub struct TcpDial {
    /// For URLs that ask for TLS.
    pub tls: StreamTls,
    /// What may be connected to.
    pub guard: Guard,
}

impl StreamDial for TcpDial {
    type Io = Box<dyn StreamIo>;

    async fn dial(&self, target: DialTarget<'_>) -> Result<Box<dyn StreamIo>, DialError> {
        let tcp = connect(&self.guard, target).await?;
        if !target.is_tls {
            return Ok(Box::new(tcp));
        }
        let failed = |message: String| DialError::Tls { message };
        let config = self.tls.config().map_err(|error| failed(error.to_string()))?;
        let name = ServerName::try_from(target.host.to_owned()).map_err(|error| failed(error.to_string()))?;
        let tls = TlsConnector::from(config).connect(name, tcp).await.map_err(|error| failed(error.to_string()))?;
        Ok(Box::new(tls))
    }
}

/// The first address that takes the connection.
async fn connect(guard: &Guard, target: DialTarget<'_>) -> Result<TcpStream, DialError> {
    let tcp = guard.connect(target.host, target.port).await?;
    if let Err(error) = tune(&tcp, target.send_buffer) {
        debug!(%error, "socket options of a stream are the system's");
    }
    Ok(tcp)
}

fn tune(tcp: &TcpStream, send_buffer: usize) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    rustix::net::sockopt::set_socket_send_buffer_size(tcp, send_buffer)?;
    rustix::net::sockopt::set_tcp_user_timeout(tcp, USER_TIMEOUT.as_millis() as u32)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use spillway_guard::GuardRules;
    use spillway_guard::forms::{self, FORMS};

    use super::*;

    #[tokio::test]
    async fn a_stream_is_dialled_to_no_form_of_the_table() {
        for form in FORMS {
            for is_tls in [false, true] {
                let dial = TcpDial { tls: StreamTls::default(), guard: forms::guard(&GuardRules::default()) };
                let target = DialTarget { host: form.host, port: 1935, is_tls, send_buffer: 1 << 10 };
                let Err(error) = dial.dial(target).await else { panic!("{} was dialled", form.host) };
                assert!(error.is_refusal() && error.code() == "permission_denied", "{}: {error}", form.host);
                assert!(error.to_string().contains(" is refused: "), "{error}");
            }
        }
    }

    #[tokio::test]
    async fn what_is_opened_is_dialled() {
        let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = server.local_addr().unwrap().port();
        for (host, entry) in
            [("127.0.0.1", "127.0.0.1"), ("loopback.example", "loopback.example"), ("0x7f.1", "127.0.0.0/8")]
        {
            let guard = forms::guard(&GuardRules { allow: vec![format!("{entry}:{port}")] });
            let dial = TcpDial { tls: StreamTls::default(), guard };
            let target = DialTarget { host, port, is_tls: false, send_buffer: 1 << 10 };
            assert!(dial.dial(target).await.is_ok(), "{host}");
        }
    }
}
