//! One recording's media, in the order a packet meets the rooms:
//!
//! `source` (a room: join, subscribe, reorder, assemble) → `timeline` (session time) → `compositor` (inbox, decode, layout,
//! picture, sound) or `copy` → `pipeline` (encode) → `outlet` (mux into the spool). `recording` leads them;
//! `quality` watches what was really recorded.

pub mod track;
pub mod cadence;
pub mod source;
pub mod timeline;
pub mod compositor;
pub mod passthrough;
pub mod pipeline;
pub mod mux;
pub mod quality;
pub mod recorder;
