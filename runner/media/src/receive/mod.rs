//! From what arrives of a room to [`TimelineEvent`](crate::track::TimelineEvent)s: jitter buffer, depacketisers,
//! timeline.
//!
//! [`TrackReceiver`] is the one entry: events in, frames with their media time out. Everything here is pure: time is an
//! argument, so a dump gives the same stream as the live room did, as fast as it is read. It runs in the room's thread.

mod track_receiver;
mod placement;
mod stream;
mod layer_gate;
mod key_requests;
mod reorder;
mod depacketize;
mod timeline;
mod stats;
pub mod event;

pub use self::placement::ReceiveOptions;
pub use self::stats::TrackStats;
pub use self::track_receiver::{EmptyStart, TrackReceiver};
