//! The launch queue: weighted fair between tenants, first in first out within one, bounded by slots. Accepted launches
//! come in, the next one that may be launched goes out. Pure: time is an argument, and nothing is launched here.
//! [`SharedQueue`] is the one of a dispatcher, whose launch loop waits for its changes.

mod shared;
mod launch_queue;
mod order;
mod queued_launch;

use std::time::Duration;

pub use self::launch_queue::{PauseScope, QueueStep};
pub use self::queued_launch::QueuedLaunch;
pub use self::shared::SharedQueue;

/// Pause for a launcher that has no capacity and does not say for how long.
pub const NO_ROOM_PAUSE: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests;
