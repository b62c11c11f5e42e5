//! Opens the stores of a recording: a destination of the request goes in, a [`Storage`] comes out. A trait, so that tests
//! put stores in memory in its place. The stores of all files are opened at once.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::join_all;
use spillway_guard::{Guard, GuardRules};
use spillway_plan::{Destination, Destinations};
use spillway_storage::{Options, Storage, StorageError};

/// Opens stores.
#[async_trait]
pub trait StoreFactory: Send + Sync + fmt::Debug {
    /// Opens a store; no request is needed for most providers.
    ///
    /// # Errors
    /// The destination is wrong or no credentials were found; a retry is right where
    /// [`is_transient`](StorageError::is_transient).
    async fn open(&self, destination: &Destination) -> Result<Arc<dyn Storage>, StorageError>;
}

/// Opens real stores: S3, Azure, GCS, AliOSS.
#[derive(Clone, Debug, Default)]
pub struct DefaultStoreFactory {
    /// Timeouts, what requests may name, and who Azure's stores are used as.
    pub options: Options,
}

impl DefaultStoreFactory {
    /// With what the installation opens to requests, and what the environment says about this machine: `AZURE_CLIENT_ID` names
    /// the identity that Azure's stores are used as, as in Azure's own tools.
    pub fn new(rules: &GuardRules, env: impl Fn(&str) -> Option<String>) -> Self {
        let azure_client_id = env("AZURE_CLIENT_ID").filter(|id| !id.is_empty());
        Self { options: Options { guard: Guard::new(rules), azure_client_id, ..Options::default() } }
    }
}

#[async_trait]
impl StoreFactory for DefaultStoreFactory {
    async fn open(&self, destination: &Destination) -> Result<Arc<dyn Storage>, StorageError> {
        spillway_storage::open(destination, &self.options).await
    }
}

/// The stores of an egress' files. Each is opened once, however many files go there; each HLS output opens its own.
pub(super) struct OpenedStores<'a>(Vec<(&'a Destination, OpenedStore)>);

type OpenedStore = Result<Arc<dyn Storage>, StorageError>;

impl<'a> OpenedStores<'a> {
    /// Opens the stores of these files.
    pub(super) async fn open(files: impl Iterator<Item = &'a Destinations>, stores: &dyn StoreFactory) -> Self {
        let mut distinct: Vec<&Destination> = vec![];
        for destinations in files {
            for destination in [Some(&destinations.primary), destinations.backup.as_ref()].into_iter().flatten() {
                if matches!(destination, Destination::Store(_)) && !distinct.contains(&destination) {
                    distinct.push(destination);
                }
            }
        }
        let opening: Vec<_> = distinct.into_iter().map(|to| async move { (to, stores.open(to).await) }).collect();
        Self(join_all(opening).await)
    }

    /// `None`: it is no store of theirs.
    pub(super) fn get(&self, destination: &Destination) -> Option<Result<Arc<dyn Storage>, &StorageError>> {
        let (_, opened) = self.0.iter().find(|(known, _)| *known == destination)?;
        Some(opened.as_ref().map(Arc::clone))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn azures_identity_is_the_one_that_the_environment_names() {
        let named = |value: &str| {
            let value = value.to_owned();
            let env = move |name: &str| (name == "AZURE_CLIENT_ID").then(|| value.clone());
            DefaultStoreFactory::new(&GuardRules::default(), env)
        };
        assert_eq!(named("runner").options.azure_client_id.as_deref(), Some("runner"));
        assert_eq!(named("").options.azure_client_id, None);
        assert_eq!(DefaultStoreFactory::new(&GuardRules::default(), |_| None).options.azure_client_id, None);
    }
}
