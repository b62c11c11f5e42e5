//! Where the objects of an output go: its stores are opened and tried before anything is recorded. Destinations of the plan
//! come in, an [`ObjectUploads`] comes out. Errors that may pass are no reason not to record.

use std::sync::Arc;

use spillway_plan::{Destination, Destinations};
use spillway_process::{LocalRoot, chain};
use spillway_storage::{Meta, Storage};
use tracing::warn;

use super::abort::tried;
use super::objects::{ObjectStore, ObjectUploads};
use super::settings::UploadSettings;
use super::stores::StoreFactory;

/// The place of one output's objects.
#[derive(Clone, Debug)]
pub struct ObjectPlace {
    /// The first destination; of what it has the URL is asked for after it was given up.
    primary: ObjectStore,
    backup: Option<Arc<dyn Storage>>,
    /// Not empty: the primary store has refused, and the backup is used from the beginning.
    primary_error: String,
}

impl ObjectPlace {
    /// Opens the stores and tries the first one, and the other if that refuses or cannot be opened: an upload of `probe` is
    /// begun and aborted. Without destinations, or with [`Destination::Disk`], objects are files below `root`.
    ///
    /// # Errors
    /// A store refuses for good and there is no backup that does not: the message for the user. A store that does not
    /// answer is no error.
    pub async fn open(
        destinations: Option<&Destinations>,
        root: &LocalRoot,
        stores: &dyn StoreFactory,
        settings: &UploadSettings,
        probe: &str,
    ) -> Result<Self, String> {
        let Some(Destinations { primary: primary @ Destination::Store(_), backup }) = destinations else {
            return Ok(Self { primary: ObjectStore::Disk(root.clone()), backup: None, primary_error: String::new() });
        };
        let backup = match backup {
            Some(backup @ Destination::Store(_)) => Some(stores.open(backup).await.map_err(|error| error.to_string())?),
            _ => None,
        };
        let meta = Meta::of("application/json");
        let (opened, error) = match stores.open(primary).await {
            Ok(store) => match tried(&*store, settings, &meta, None, probe).await {
                Ok(_) => {
                    return Ok(Self { primary: ObjectStore::Remote(store), backup, primary_error: String::new() });
                }
                Err(error) => (Some(store), error),
            },
            Err(error) => (None, error),
        };
        warn!(%error, cause = %chain(&error), "store refuses");
        let Some(backup) = backup else { return Err(error.to_string()) };
        tried(&*backup, settings, &meta, None, probe)
            .await
            .map_err(|second| format!("primary: {error}\nbackup: {second}"))?;
        // Nothing will be in a store that is not open.
        let primary = ObjectStore::Remote(opened.unwrap_or_else(|| backup.clone()));
        Ok(Self { primary, backup: Some(backup), primary_error: error.to_string() })
    }

    /// That of a dead attempt; nothing is tried.
    ///
    /// # Errors
    /// As of [`StoreFactory::open`], for the user.
    pub async fn resume(
        destinations: Option<&Destinations>,
        on_backup: bool,
        root: &LocalRoot,
        stores: &dyn StoreFactory,
    ) -> Result<Self, String> {
        let untried = UploadSettings { write_check: false, ..UploadSettings::default() };
        let place = Self::open(destinations, root, stores, &untried, "").await?;
        if !place.primary_error.is_empty() {
            // Where its objects are would not be known.
            return Err(place.primary_error);
        }
        Ok(if on_backup { place.given_up() } else { place })
    }

    /// The backup goes on with what an earlier attempt has stored there; without one nothing changes.
    pub fn given_up(self) -> Self {
        if self.backup.is_none() || !self.primary_error.is_empty() {
            return self;
        }
        Self { primary_error: "given up by an earlier attempt".to_owned(), ..self }
    }

    /// URL or path of an object in the first destination.
    pub fn locate(&self) -> Arc<dyn Fn(&str) -> String + Send + Sync> {
        let primary = self.primary.clone();
        Arc::new(move |name| primary.location(name))
    }

    /// Objects stay on this machine, below this root.
    pub fn root(&self) -> Option<&LocalRoot> {
        match &self.primary {
            ObjectStore::Disk(root) => Some(root),
            ObjectStore::Remote(_) => None,
        }
    }

    /// Objects go to a store, and do not stay on this machine.
    pub fn is_remote(&self) -> bool {
        matches!(self.primary, ObjectStore::Remote(_))
    }

    /// There is a second destination.
    pub fn has_backup(&self) -> bool {
        self.backup.is_some()
    }

    /// Nothing is sent yet.
    pub fn uploads(self, settings: UploadSettings) -> ObjectUploads {
        match self.backup {
            Some(backup) if !self.primary_error.is_empty() => {
                ObjectUploads::new(ObjectStore::Remote(backup), None, self.primary_error, settings)
            }
            backup => ObjectUploads::new(self.primary, backup, String::new(), settings),
        }
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use bytes::Bytes;
    use spillway_plan::destination::S3;
    use spillway_plan::{Provider, Store};
    use spillway_storage::unreliable::FaultMode;
    use spillway_storage::{RamStorage, StorageError, StorageErrorKind, Unreliable};

    use super::*;
    use crate::upload::objects::ObjectEvent;

    fn bucket(name: &str) -> Destination {
        let provider = Provider::S3(Box::new(S3 { bucket: name.into(), ..S3::default() }));
        Destination::Store(Box::new(Store { provider, prefix: String::new(), presign: false }))
    }

    /// The backup, and a primary store that cannot be opened, or refuses.
    #[derive(Debug)]
    struct TwoStores {
        primary: Option<Unreliable>,
        backup: RamStorage,
    }

    #[async_trait]
    impl StoreFactory for TwoStores {
        async fn open(&self, destination: &Destination) -> Result<Arc<dyn Storage>, StorageError> {
            if *destination == bucket("backup") {
                return Ok(Arc::new(self.backup.clone()));
            }
            let denied = || StorageError::new(StorageErrorKind::Denied, "S3", "open", "no credentials");
            self.primary.clone().map(|primary| Arc::new(primary) as Arc<dyn Storage>).ok_or_else(denied)
        }
    }

    #[tokio::test]
    async fn the_backup_takes_over_from_a_store_that_refuses_or_cannot_be_opened() {
        let refusing = Unreliable::new(Arc::new(RamStorage::new()));
        refusing.set_fault_mode(FaultMode::Refusing(StorageErrorKind::Denied));
        let (root, settings) = (LocalRoot::confined("/nowhere"), UploadSettings::default());
        for primary in [None, Some(refusing)] {
            let stores = TwoStores { primary, backup: RamStorage::new() };
            let to = |backup| Destinations { primary: bucket("primary"), backup };
            let open = async |to: Destinations| ObjectPlace::open(Some(&to), &root, &stores, &settings, "p.json").await;
            assert!(open(to(None)).await.is_err());
            let place = open(to(Some(bucket("backup")))).await.unwrap();
            assert!(place.has_backup() && place.is_remote());
            let mut objects = place.uploads(settings.clone());
            assert!(objects.on_backup());
            objects.put_text("a.m3u8".into(), Bytes::from_static(b"text"), Meta::default());
            assert!(matches!(objects.next().await, ObjectEvent::Text { result: Ok(_), .. }));
            assert_eq!(stores.backup.keys(), ["a.m3u8"]);
        }
    }
}
