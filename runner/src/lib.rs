//! One egress, then exit. `serve` puts a runner together: for a dispatcher, whose launch is read by `container` and `ticket`, or
//! for a request by hand (`oneshot`). `session` records: it runs the media process and owns the files, `upload` brings them
//! into their stores, `results` says what they are called, `report` tells livekit-server. `control` and `heartbeat` run beside it;
//! `salvage` finishes the uploads of an attempt that died. `probe` records nothing: it checks what a recording would need. Each
//! module uses those below it.

#![warn(missing_docs, clippy::missing_errors_doc)]

pub mod probe;
pub mod serve;
pub mod container;
pub mod oneshot;
pub mod ticket;
pub mod config;
pub mod salvage;
pub mod heartbeat;
pub mod control;
pub mod session;
pub mod report;
pub mod upload;
pub mod results;
pub mod events;
mod clock;
