//! [`Bus`]: the one handle to everything shared, passed to the constructor of each service of this crate.

use std::fmt;
use std::sync::Arc;

use spillway_process::Clock;

use crate::backend::Backend;

/// A connection to everything shared. Cheap to clone; clones share the connection.
#[derive(Clone)]
pub struct Bus {
    pub(crate) backend: Arc<dyn Backend>,
}

impl Bus {
    pub(crate) fn on(backend: impl Backend) -> Self {
        Self { backend: Arc::new(backend) }
    }

    /// Redis' time, which all processes of an installation share: for everything that is stamped, sent or billed.
    pub fn clock(&self) -> &Clock {
        self.backend.clock()
    }

    /// Every subscription is confirmed on a live connection and the last ping was answered. Bids are made only then.
    pub fn healthy(&self) -> bool {
        self.backend.healthy()
    }
}

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bus").field("healthy", &self.healthy()).finish_non_exhaustive()
    }
}
