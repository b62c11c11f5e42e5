//! A room, in the order a packet meets the rooms: `room` (join, subscribe, receive) → `arrival` → `reorder` → `assemble`
//! → `reception` (gates, the timeline's times). `dump` keeps arrivals, `replay` makes them arrive again.

pub mod event;
pub mod depacketize;
pub mod dump;
mod packet;
mod receiver;
mod reorder;
pub mod replay;
pub mod room;

pub use packet::Packet;
pub use receiver::{ReceiveOptions, RoomReceiver, TICK, TrackStats};
pub use reorder::{Reorder, ReorderCounts, ReorderOutput};
