//! Connections to RTMP servers: TCP, and TLS over it. Dialled in a stream's task; every step is bounded by the caller.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tracing::debug;

use super::fault::RtmpFault;
use super::health::QUIET_LIMIT;
use super::url::RtmpUrl;

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

/// How servers of `rtmps://` are authenticated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RtmpTlsOptions {
    /// PEM file of certificate authorities that are trusted beside the system's.
    pub ca_file: Option<PathBuf>,
    /// Any certificate will do. The stream and its key then go to whatever server answers.
    pub skip_verify: bool,
}

/// The configuration cannot be used. Not to be tried again.
#[derive(Debug, thiserror::Error)]
#[error("TLS of RTMPS: {message}")]
pub struct RtmpTlsError {
    message: String,
}

impl RtmpTlsOptions {
    /// Reads the certificates. They are read once, for all streams of a recording.
    ///
    /// # Errors
    ///
    /// When the file of authorities cannot be read or has none; for good.
    pub fn client_config(&self) -> Result<Arc<ClientConfig>, RtmpTlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| RtmpTlsError { message: error.to_string() })?;
        let builder = if self.skip_verify {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(UnverifiedServer(provider)))
        } else {
            builder.with_root_certificates(authorities(self.ca_file.as_deref())?)
        };
        Ok(Arc::new(builder.with_no_client_auth()))
    }
}

/// The system's authorities, as far as they parse, and the file's.
fn authorities(ca_file: Option<&Path>) -> Result<RootCertStore, RtmpTlsError> {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = ca_file {
        let unusable = |why: String| RtmpTlsError { message: format!("{}: {why}", path.display()) };
        let before = store.len();
        for certificate in CertificateDer::pem_file_iter(path).map_err(|error| unusable(error.to_string()))? {
            let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
            store.add(certificate).map_err(|error| unusable(error.to_string()))?;
        }
        if store.len() == before {
            return Err(unusable("no certificate in it".to_owned()));
        }
    }
    Ok(store)
}

/// Either kind of connection.
pub trait RtmpIo: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> RtmpIo for T {}

/// Connections over TCP, with TLS where the URL asks for it.
#[derive(Clone, Debug)]
pub struct TcpDial {
    tls: Arc<ClientConfig>,
}

impl TcpDial {
    /// `tls`: see [`RtmpTlsOptions::client_config`].
    pub const fn new(tls: Arc<ClientConfig>) -> Self {
        Self { tls }
    }
}

impl RtmpDial for TcpDial {
    type Io = Box<dyn RtmpIo>;

    async fn dial(&self, url: &RtmpUrl) -> Result<Self::Io, RtmpFault> {
        let tcp = connect(url).await?;
        if !url.is_tls() {
            return Ok(Box::new(tcp));
        }
        let fault = |message: String| RtmpFault::Tls { message };
        let name = ServerName::try_from(url.host().to_owned()).map_err(|error| fault(error.to_string()))?;
        let connector = TlsConnector::from(self.tls.clone());
        let tls = connector.connect(name, tcp).await.map_err(|error| fault(error.to_string()))?;
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

/// `skip_verify`: the connection is encrypted, and the server is not authenticated.
#[derive(Debug)]
struct UnverifiedServer(Arc<CryptoProvider>);

impl ServerCertVerifier for UnverifiedServer {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
