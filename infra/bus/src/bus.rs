//! [`Bus`]: the one handle to everything shared, passed to the constructor of each service of this crate, and what it
//! stands on: Redis (`redis`) or, for tests, memory.

use std::fmt;
use std::sync::Arc;

use spillway_process::Clock;

use crate::key_value::KeyValue;
use crate::pub_sub::PubSub;
use crate::task_ledger::TaskLedger;

/// Everything the bus asks of Redis. Calls wait for a bounded time; what they wait for may have been done although they
/// fail.
pub(crate) trait Backend: PubSub + KeyValue + TaskLedger + 'static {
    /// The server's time, as well as it is known here; it stamps what is sent.
    fn clock(&self) -> &Clock;

    /// Commands are answered, and every subscription is confirmed.
    fn healthy(&self) -> bool;
}

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
