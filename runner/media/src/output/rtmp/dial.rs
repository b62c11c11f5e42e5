//! Connections to RTMP servers: TCP, and TLS over it. Dialled in a stream's task; every step is bounded by the caller.

use std::io;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tracing::debug;

use super::fault::RtmpFault;
use super::health::QUIET_LIMIT;
use super::url::RtmpUrl;
use crate::output::stream_tls::StreamTls;

/// Lag belongs into our own ring, where it can be dropped. Linux would let 4 MB of it grow in the kernel.
const SEND_BUFFER_BYTES: usize = 256 << 10;

/// Opens connections; TCP, or something in memory in tests.
pub trait RtmpDial: Send + Sync {
    /// What is read and written.
    type Io: AsyncRead + AsyncWrite + Send + Unpin;

    /// A connection to the URL's host. The caller bounds the time.
    ///
    /// # Errors
    ///
    /// Resolve, connect or TLS. Whether another try helps is the stream's decision.
    fn dial(&self, url: &RtmpUrl) -> impl Future<Output = Result<Self::Io, RtmpFault>> + Send;
}

/// Either kind of connection.
pub trait RtmpIo: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> RtmpIo for T {}

/// Connections over TCP, with TLS where the URL asks for it.
pub struct TcpDial(pub StreamTls);

impl RtmpDial for TcpDial {
    type Io = Box<dyn RtmpIo>;

    async fn dial(&self, url: &RtmpUrl) -> Result<Self::Io, RtmpFault> {
        if !url.is_tls() {
            return Ok(Box::new(connect(url).await?));
        }
        let fault = |message: String| RtmpFault::Tls { message };
        let config = self.0.config().map_err(|error| fault(error.to_string()))?;
        let name = ServerName::try_from(url.host().to_owned()).map_err(|error| fault(error.to_string()))?;
        let tcp = connect(url).await?;
        let tls = TlsConnector::from(config).connect(name, tcp).await.map_err(|error| fault(error.to_string()))?;
        Ok(Box::new(tls))
    }
}

/// The first address that takes the connection.
async fn connect(url: &RtmpUrl) -> Result<TcpStream, RtmpFault> {
    let resolve = |message: String| RtmpFault::Resolve { message };
    let addresses =
        tokio::net::lookup_host((url.host(), url.port())).await.map_err(|error| resolve(error.to_string()))?;
    let mut fault = resolve("it has no address".to_owned());
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(tcp) => {
                if let Err(error) = tune(&tcp) {
                    debug!(%error, "socket options of a stream are the system's");
                }
                return Ok(tcp);
            }
            Err(error) => fault = RtmpFault::Connect { message: error.to_string() },
        }
    }
    Err(fault)
}

/// A server whose machine is gone ends the connection with `ETIMEDOUT`, where Linux would try for 15 minutes.
fn tune(tcp: &TcpStream) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    rustix::net::sockopt::set_socket_send_buffer_size(tcp, SEND_BUFFER_BYTES)?;
    rustix::net::sockopt::set_tcp_user_timeout(tcp, QUIET_LIMIT.as_millis() as u32)?;
    Ok(())
}
