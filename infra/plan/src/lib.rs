//! A StartEgress request becomes an [`EgressPlan`] and its [`Destinations`], or is refused. Pure: no clock, no sockets, no
//! disk.
//!
//! `plan` is the entry point. `request` reads the request; `encoding` (options, container, layout) and `uploads` (path,
//! store) hold the rules that `plan` applies. The plan travels in the ticket to the runner and its media process; the
//! destinations have secrets and are never part of it. In the runner, `name` makes file names of it. `read` takes a request
//! from a file; `manifest` is the JSON file beside a recording.
#![warn(missing_docs)]

mod plan;
mod request;
pub mod name;
pub mod uploads;
pub mod destination;
mod encoding;
mod types;
mod error;
mod read;
pub mod manifest;

pub use destination::{Destination, Destinations, Provider, StorageConfig, Store};
pub use error::PlanError;
pub use plan::{Defaults, destinations, plan};
pub use read::{ReadError, start_request};
pub use spillway_protocol::Secret;
pub use spillway_protocol::requested::stream_url;
pub use types::{
    AudioCodec, AudioPlan, Container, EgressKind, EgressPlan, FileOutput, H264Profile, LayoutName, LayoutShape, Limits,
    Mixing, Output, Source, VideoEncoding, VideoPlan,
};
