//! One recording's media, in the order a packet meets the rooms:
//!
//! `source` (a room: join, subscribe, reorder, assemble) → `timeline` (session time) → `scene` (inbox, decode, layout,
//! picture, sound) or `copy` → `pipeline` (encode) → `outlet` (mux into the spool). `recording` leads them;
//! `quality` watches what was really recorded.

pub mod track;
pub mod cadence;
pub mod source;
pub mod timeline;
pub mod scene;
pub mod copy;
pub mod pipeline;
pub mod outlet;
pub mod quality;
pub mod recording;
