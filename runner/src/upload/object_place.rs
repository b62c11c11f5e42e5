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
    /// Opens the stores and tries the first one, and the other if that refuses: an upload of `probe` is begun and aborted.
    /// Without destinations, or with [`Destination::Disk`], objects are files below `root`.
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
        let primary = stores.open(primary).await.map_err(|error| error.to_string())?;
        let mut place = Self { primary: ObjectStore::Remote(primary.clone()), backup, primary_error: String::new() };
        let meta = Meta::of("application/json");
        if let Err(error) = tried(&*primary, settings, &meta, None, probe).await {
            warn!(%error, cause = %chain(&error), "store refuses");
            let Some(backup) = &place.backup else { return Err(error.to_string()) };
            tried(&**backup, settings, &meta, None, probe)
                .await
                .map_err(|second| format!("primary: {error}\nbackup: {second}"))?;
            place.primary_error = error.to_string();
        }
        Ok(place)
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
        let mut place = Self::open(destinations, root, stores, &untried, "").await?;
        if on_backup {
            place.primary_error = "given up by an earlier attempt".to_owned();
        }
        Ok(place)
    }

    /// URL or path of an object in the first destination.
    pub fn locate(&self) -> Arc<dyn Fn(&str) -> String + Send + Sync> {
        let primary = self.primary.clone();
        Arc::new(move |name| primary.location(name))
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
