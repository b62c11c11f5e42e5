//! One recording's media, from datagrams to the bytes of a file.
//!
//! `recorder` controls one recording. `source` joins a room and hands packets to `receive`, which gives frames and
//! events with their media time. They are copied (`passthrough`) or decoded and mixed (`compositor`), and go through
//! `output` (with `encode` and `mux`) into the spool. `quality` counts what was really recorded. `template_server` gives
//! Chromium the page of room composites that are recorded as pages.
//!
//! A module uses only modules below it in this list; `tests/rules` looks for cycles.

#![warn(missing_docs, clippy::missing_errors_doc)]

pub mod recorder;
pub mod quality;
pub mod source;
pub mod receive;
pub mod compositor;
pub mod passthrough;
pub mod output;
pub mod mux;
pub mod encode;
pub mod encoded;
pub mod key_grid;
pub mod cadence;
pub mod template_server;
mod stream_tls;
mod element;
mod av1;
mod nal_unit;
pub mod track;
pub mod units;
