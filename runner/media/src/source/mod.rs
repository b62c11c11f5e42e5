//! A room, in the order a packet meets the rooms: `room` (join, subscribe, receive) → `arrival` → `reorder` → `assemble`
//! → `reception` (gates, the timeline's times). `dump` keeps arrivals, `replay` makes them arrive again.

pub mod arrival;
pub mod assemble;
pub mod dump;
mod packet;
mod reception;
mod reorder;
pub mod replay;
pub mod room;

pub use packet::Packet;
pub use reception::{Reception, ReceptionOptions, TICK, TrackStats};
pub use reorder::{Counts, Next, Reorder};
