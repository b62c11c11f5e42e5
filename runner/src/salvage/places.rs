//! Where the outputs of a dead attempt lie: stores, and the disk of this machine. Values; nothing is tried.

use std::time::Duration;

use spillway_plan::Destinations;
use spillway_process::LocalRoot;
use tokio::time::Instant;

use crate::upload::stores::StoreFactory;
use crate::upload::{ObjectPlace, UploadSettings};

/// What a salvage knows of the places of a recording's outputs.
#[derive(Clone, Copy, Debug)]
pub(super) struct SalvagePlaces<'a> {
    /// By output; one that is not there stays on this machine's disk.
    pub(super) destinations: &'a [Destinations],
    /// Where files lie that stay on this machine.
    pub(super) root: &'a LocalRoot,
    /// Opens the stores.
    pub(super) stores: &'a dyn StoreFactory,
    /// Timeouts, spool folder.
    pub(super) settings: &'a UploadSettings,
    /// The checkpoint is of this machine: its paths can be looked at.
    pub(super) here: bool,
}

impl SalvagePlaces<'_> {
    /// No store is asked for anything after it.
    pub(super) fn give_up(&self) -> Instant {
        Instant::now() + Duration::from_millis(self.settings.max_outage_ms)
    }

    /// Where the objects of an output are.
    ///
    /// # Errors
    /// As of [`ObjectPlace::resume`].
    pub(super) async fn of_output(&self, output: u32, on_backup: bool) -> Result<ObjectPlace, String> {
        ObjectPlace::resume(self.destinations.get(output as usize), on_backup, self.root, self.stores).await
    }
}
