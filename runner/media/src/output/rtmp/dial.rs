//! How a stream gets its connection: over TCP or TLS, or to something in memory in tests. Dialled in a stream's task.

use tokio::io::{AsyncRead, AsyncWrite};

use super::fault::RtmpFault;
use super::url::RtmpUrl;
use crate::output::stream_dial::{DialTarget, StreamIo, dial};
use crate::stream_tls::StreamTls;

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

/// Connections over TCP, with TLS where the URL asks for it.
pub struct TcpDial(pub StreamTls);

impl RtmpDial for TcpDial {
    type Io = Box<dyn StreamIo>;

    async fn dial(&self, url: &RtmpUrl) -> Result<Self::Io, RtmpFault> {
        let target = DialTarget { host: url.host(), port: url.port(), send_buffer: SEND_BUFFER_BYTES };
        Ok(dial(target, url.is_tls().then_some(&self.0)).await?)
    }
}
