//! How servers of encrypted streams and TURN servers are authenticated: by the system's authorities, a private one beside
//! them, or not at all. The certificates are read once, for the first connection that needs them.

use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use spillway_ipc::StreamSettings;

/// TLS of all streams and relays of a recording.
#[derive(Clone, Debug, Default)]
pub struct StreamTls {
    settings: StreamSettings,
    config: Arc<OnceLock<Result<Arc<ClientConfig>, StreamTlsError>>>,
}

/// The settings cannot be used. Not to be tried again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("settings of TLS: {message}")]
pub struct StreamTlsError {
    message: String,
}

impl StreamTls {
    /// By these settings. Nothing is read yet.
    pub fn new(settings: StreamSettings) -> Self {
        Self { settings, config: Arc::default() }
    }

    /// The configuration of every connection.
    ///
    /// # Errors
    ///
    /// When the authority of the settings cannot be read; for good.
    pub fn config(&self) -> Result<Arc<ClientConfig>, StreamTlsError> {
        self.config.get_or_init(|| made(&self.settings)).clone()
    }
}

fn made(settings: &StreamSettings) -> Result<Arc<ClientConfig>, StreamTlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| StreamTlsError { message: error.to_string() })?;
    let builder = if settings.tls_skip_verify {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(UnverifiedServer(provider)))
    } else {
        builder.with_root_certificates(authorities(settings.ca.as_deref())?)
    };
    Ok(Arc::new(builder.with_no_client_auth()))
}

/// The system's authorities, as far as they parse, and those of the settings.
fn authorities(ca: Option<&str>) -> Result<RootCertStore, StreamTlsError> {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(ca) = ca {
        let unusable = |why: String| StreamTlsError { message: format!("certificate authority: {why}") };
        let before = store.len();
        for certificate in CertificateDer::pem_slice_iter(ca.as_bytes()) {
            let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
            store.add(certificate).map_err(|error| unusable(error.to_string()))?;
        }
        if store.len() == before {
            return Err(unusable("no certificate in it".to_owned()));
        }
    }
    Ok(store)
}

/// `tls_skip_verify`: the connection is encrypted, and the server is not authenticated.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_without_certificates_is_refused() {
        for ca in ["", "no PEM", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            let tls = StreamTls::new(StreamSettings { ca: Some(ca.to_owned()), tls_skip_verify: false });
            let told = tls.config().unwrap_err().to_string();
            assert!(told.starts_with("settings of TLS: certificate authority: "), "{told}");
        }
        let skipped = StreamSettings { ca: Some(String::new()), tls_skip_verify: true };
        assert!(StreamTls::new(skipped).config().is_ok());
    }
}
