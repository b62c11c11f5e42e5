//! What a compositor says while it works. Sent from its mixers' and decoders' threads through one function, which must
//! not block.

use std::sync::Arc;

use super::policy::layer_request::LayerRequest;
use crate::units::MediaTime;

/// What a compositor says while it works, from its own threads. The function that takes it must not wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CompositorEvent {
    /// Output time 0 is this moment of the recording.
    Started {
        /// The start.
        at: MediaTime,
    },
    /// To be passed on to the room.
    LayerRequest(LayerRequest),
    /// Worth telling the user.
    Noted {
        /// For the user.
        message: String,
    },
    /// No more pictures can be made.
    Broken {
        /// For the user.
        message: String,
    },
    /// Both feeds are ended; everything up to the end was pushed.
    Ended,
}

pub(super) type EventFn = Arc<dyn Fn(CompositorEvent) + Send + Sync>;
