//! TLS of connections to Redis, as the `redis.tls:` section configures it. Files are read once, when the bus connects.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::config::TlsConfig;
use crate::error::BusError;

/// Wraps TCP connections in TLS.
pub(super) struct TlsDialler {
    connector: TlsConnector,
    /// Instead of the host of the address.
    server_name: Option<ServerName<'static>>,
}

impl TlsDialler {
    /// # Errors
    /// A file cannot be read or the settings contradict one another; for good.
    pub fn new(config: &TlsConfig) -> Result<Self, BusError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| BusError::Settings(format!("tls: {error}")))?;
        let builder = if config.insecure {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        } else {
            builder.with_root_certificates(authorities(config.ca_cert_file.as_deref())?)
        };
        let client = match (&config.client_cert_file, &config.client_key_file) {
            (Some(cert), Some(key)) => {
                let key =
                    PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable("client_key_file", key, error))?;
                builder
                    .with_client_auth_cert(certificates("client_cert_file", cert)?, key)
                    .map_err(|error| BusError::Settings(format!("tls: client certificate: {error}")))?
            }
            (None, None) => builder.with_no_client_auth(),
            _ => return Err(BusError::Settings("tls: client_cert_file and client_key_file go together".into())),
        };
        let server_name = match config.server_name.as_str() {
            "" => None,
            name => Some(
                ServerName::try_from(name.to_owned())
                    .map_err(|_| BusError::Settings(format!("tls.server_name {name:?} is no host name")))?,
            ),
        };
        Ok(Self { connector: TlsConnector::from(Arc::new(client)), server_name })
    }

    /// `address` is host:port; its host must be in the certificate unless `tls.server_name` is set.
    ///
    /// # Errors
    /// The handshake failed. The caller bounds the time.
    pub async fn wrap(&self, address: &str, tcp: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let name = match &self.server_name {
            Some(name) => name.clone(),
            None => {
                let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
                let host = host.trim_start_matches('[').trim_end_matches(']');
                ServerName::try_from(host.to_owned())
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?
            }
        };
        self.connector.connect(name, tcp).await
    }
}

fn authorities(ca: Option<&Path>) -> Result<RootCertStore, BusError> {
    let mut store = RootCertStore::empty();
    match ca {
        Some(ca) => {
            for certificate in certificates("ca_cert_file", ca)? {
                store.add(certificate).map_err(|error| unreadable("ca_cert_file", ca, error))?;
            }
        }
        None => {
            // Some certificates of a system may not parse; the others count.
            let found = rustls_native_certs::load_native_certs();
            store.add_parsable_certificates(found.certs);
        }
    }
    if store.is_empty() {
        return Err(BusError::Settings("tls: no certificate authority found; give ca_cert_file".into()));
    }
    Ok(store)
}

fn certificates(key: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, BusError> {
    let found: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).map_err(|error| unreadable(key, path, error))?.collect();
    match found {
        Ok(found) if found.is_empty() => Err(unreadable(key, path, "no certificate in it")),
        Ok(found) => Ok(found),
        Err(error) => Err(unreadable(key, path, error)),
    }
}

fn unreadable(key: &str, path: &Path, why: impl std::fmt::Display) -> BusError {
    BusError::Settings(format!("tls.{key} {}: {why}", path.display()))
}

/// `insecure: true`: the connection is encrypted, and the server is not authenticated.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
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
