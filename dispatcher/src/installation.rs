//! The installation that this dispatcher's Redis belongs to; its id is part of every launch order.

use std::sync::{Arc, Mutex};

use spillway_bus::{Bus, BusError, Installation};
use tracing::warn;

use crate::lock::locked;

/// Clones are one id.
#[derive(Clone)]
pub struct InstallationId {
    installation: Installation,
    id: Arc<Mutex<String>>,
}

impl InstallationId {
    /// Not read yet.
    pub fn new(bus: &Bus) -> Self {
        Self { installation: Installation::new(bus), id: Arc::default() }
    }

    /// Reads it, and creates one where Redis has none: because it is new, or has lost everything.
    ///
    /// # Errors
    /// When Redis does not answer; a retry is right, the id read before stays.
    pub async fn learn(&self) -> Result<(), BusError> {
        let id = self.installation.get_or_make().await?;
        let before = std::mem::replace(&mut *locked(&self.id), id.clone());
        if !before.is_empty() && before != id {
            warn!(
                before,
                id, "redis has lost the installation's id: tasks of the old one are only reported from now on"
            );
        }
        Ok(())
    }

    /// As last read; empty before [`InstallationId::learn`].
    pub fn get(&self) -> String {
        locked(&self.id).clone()
    }

    /// As Redis has it now; `None`: it has none.
    ///
    /// # Errors
    /// When Redis does not answer; a retry is right.
    pub async fn find(&self) -> Result<Option<String>, BusError> {
        self.installation.find().await
    }
}
