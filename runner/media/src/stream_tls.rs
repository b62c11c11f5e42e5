//! How servers of encrypted streams and TURN servers are authenticated: by the system's authorities, a private one beside
//! them, or not at all. The certificates are read once, for the first connection that needs them.

use std::sync::{Arc, OnceLock};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use spillway_ipc::StreamSettings;
use spillway_process::tls::{self, ServerTrust};

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
    let trust = if settings.tls_skip_verify {
        ServerTrust::Unverified
    } else {
        ServerTrust::Authorities(authorities(settings.ca.as_deref())?)
    };
    let builder = tls::client(trust).map_err(|error| StreamTlsError { message: error.to_string() })?;
    Ok(Arc::new(builder.with_no_client_auth()))
}

/// The system's authorities, as far as they parse, and those of the settings.
fn authorities(ca: Option<&str>) -> Result<RootCertStore, StreamTlsError> {
    let mut store = tls::system_authorities();
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
