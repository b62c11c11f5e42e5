//! What a [`crate::Bus`] stands on: Redis ([`crate::redis`]) or, for tests, memory. Three traits and their sum.

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
