//! Connections to the servers of streams over TCP, and TLS over it. Dialled in a stream's task; every step is bounded by the
//! caller. No text has a part of the URL but its host.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tracing::debug;

use super::stream_tls::StreamTls;

/// A server whose machine is gone ends the connection with `ETIMEDOUT` after this, where Linux would try for 15 minutes.
const USER_TIMEOUT: Duration = Duration::from_secs(4);

/// Either kind of connection.
pub trait StreamIo: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> StreamIo for T {}

/// Why there is no connection. Its text goes to the user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
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
    /// The resolver's answer is empty.
    pub fn no_address() -> Self {
        Self::Resolve { message: "it has no address".to_owned() }
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
    /// Resolve, connect or TLS. Whether another try helps is the stream's decision.
    fn dial(&self, target: DialTarget<'_>) -> impl Future<Output = Result<Self::Io, DialError>> + Send;
}

/// Connections over TCP, and with this TLS over it where it is asked for.
pub struct TcpDial(pub StreamTls);

impl StreamDial for TcpDial {
    type Io = Box<dyn StreamIo>;

    async fn dial(&self, target: DialTarget<'_>) -> Result<Box<dyn StreamIo>, DialError> {
        if !target.is_tls {
            return Ok(Box::new(connect(target).await?));
        }
        let failed = |message: String| DialError::Tls { message };
        let config = self.0.config().map_err(|error| failed(error.to_string()))?;
        let name = ServerName::try_from(target.host.to_owned()).map_err(|error| failed(error.to_string()))?;
        let tcp = connect(target).await?;
        let tls = TlsConnector::from(config).connect(name, tcp).await.map_err(|error| failed(error.to_string()))?;
        Ok(Box::new(tls))
    }
}

/// The addresses of a host, in the resolver's order; there may be none.
///
/// # Errors
///
/// What the resolver says.
pub async fn resolve(host: &str, port: u16) -> Result<impl Iterator<Item = SocketAddr>, DialError> {
    tokio::net::lookup_host((host, port)).await.map_err(|error| DialError::Resolve { message: error.to_string() })
}

/// The first address that takes the connection.
async fn connect(target: DialTarget<'_>) -> Result<TcpStream, DialError> {
    let mut failed = DialError::no_address();
    for address in resolve(target.host, target.port).await? {
        match TcpStream::connect(address).await {
            Ok(tcp) => {
                if let Err(error) = tune(&tcp, target.send_buffer) {
                    debug!(%error, "socket options of a stream are the system's");
                }
                return Ok(tcp);
            }
            Err(error) => failed = DialError::Connect { message: error.to_string() },
        }
    }
    Err(failed)
}

fn tune(tcp: &TcpStream, send_buffer: usize) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    rustix::net::sockopt::set_socket_send_buffer_size(tcp, send_buffer)?;
    rustix::net::sockopt::set_tcp_user_timeout(tcp, USER_TIMEOUT.as_millis() as u32)?;
    Ok(())
}
