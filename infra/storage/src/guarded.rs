//! Connections to the hosts of a destination. What a request named is held against the installation's guard: when the store is
//! opened, so that a mistake is told before the room is joined, and again by the HTTP client for every connection, after the
//! name was resolved. No client here follows redirects. Runs in the caller's task.

use std::error::Error;

use spillway_guard::{Guard, GuardError, host_and_port};
use spillway_plan::destination::{DestinationOrigin, Proxy, with_scheme};
use tokio::time::timeout;

use crate::error::{StorageError, StorageErrorKind};
use crate::options::Options;

/// Of hosts that a vendor's library makes.
const HTTPS: u16 = 443;

/// The hosts of a destination.
pub struct NamedHosts<'a> {
    /// As [`StorageError::provider`].
    pub provider: &'static str,
    /// Who named them.
    pub origin: DestinationOrigin,
    /// As in the destination; empty: the vendor's own.
    pub endpoint: &'a str,
    /// As in the destination.
    pub proxy: Option<&'a Proxy>,
}

impl NamedHosts<'_> {
    /// The resolver of the client that connects there: to the endpoint, or with a proxy to that alone.
    ///
    /// # Errors
    /// `Refused`: a request may not name this host. A retry changes nothing.
    pub async fn checked(&self, options: &Options) -> Result<GuardedNames, StorageError> {
        if self.origin == DestinationOrigin::Configuration {
            return Ok(GuardedNames { guard: Guard::unrestricted(), port: HTTPS });
        }
        let mut names = GuardedNames { guard: options.guard.for_vendor(), port: HTTPS };
        if !self.endpoint.is_empty() {
            names = self.named(&with_scheme(self.endpoint), options).await?;
        }
        if let Some(proxy) = self.proxy {
            names = self.named(proxy.url.reveal(), options).await?;
        }
        Ok(names)
    }

    /// A host that cannot be resolved now is no refusal: the first call says so.
    async fn named(&self, url: &str, options: &Options) -> Result<GuardedNames, StorageError> {
        let (host, port) = host_and_port(url).unwrap_or_default();
        match timeout(options.connect_timeout, options.guard.resolve(&host, port)).await {
            Ok(Err(error)) if error.is_refusal() => Err(refused(self.provider, "open", error)),
            _ => Ok(GuardedNames { guard: options.guard.clone(), port }),
        }
    }
}

fn refused(provider: &'static str, doing: &'static str, error: GuardError) -> StorageError {
    StorageError::new(StorageErrorKind::Refused, provider, doing, error.to_string()).because(error)
}

/// The refusal behind a client's error, if it is one.
pub fn refusal(provider: &'static str, doing: &'static str, error: &(dyn Error + 'static)) -> Option<StorageError> {
    GuardError::behind(error).map(|error| refused(provider, doing, error.clone()))
}

/// Resolves the names that an HTTP client connects to. Addresses in URLs do not come here: [`NamedHosts::checked`] has seen
/// them.
#[derive(Clone, Debug)]
pub struct GuardedNames {
    guard: Guard,
    /// The one that is connected to.
    port: u16,
}

#[cfg(feature = "s3")]
impl aws_smithy_runtime_api::client::dns::ResolveDns for GuardedNames {
    fn resolve_dns<'a>(&'a self, name: &'a str) -> aws_smithy_runtime_api::client::dns::DnsFuture<'a> {
        use aws_smithy_runtime_api::client::dns::{DnsFuture, ResolveDnsError};

        DnsFuture::new(async move {
            let found = self.guard.resolve(name, self.port).await.map_err(ResolveDnsError::new)?;
            Ok(found.into_iter().map(|address| address.ip()).collect())
        })
    }
}

#[cfg(any(feature = "azure", feature = "gcs"))]
impl reqwest::dns::Resolve for GuardedNames {
    fn resolve(&self, name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        let this = self.clone();
        Box::pin(async move {
            let found = this.guard.resolve(name.as_str(), this.port).await?;
            let found: reqwest::dns::Addrs = Box::new(found.into_iter());
            Ok(found)
        })
    }
}
