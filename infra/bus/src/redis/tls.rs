//! TLS of connections to Redis, as the `redis.tls:` section configures it. Files are read once, when the bus connects.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use spillway_process::tls::{self, ServerTrust};
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
        let trust = if config.insecure {
            ServerTrust::Unverified
        } else {
            ServerTrust::Authorities(authorities(config.ca_cert_file.as_deref())?)
        };
        let builder = tls::client(trust).map_err(|error| BusError::Settings(format!("tls: {error}")))?;
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
    let store = match ca {
        Some(ca) => {
            let mut store = RootCertStore::empty();
            for certificate in certificates("ca_cert_file", ca)? {
                store.add(certificate).map_err(|error| unreadable("ca_cert_file", ca, error))?;
            }
            store
        }
        None => tls::system_authorities(),
    };
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
