//! A StartEgress request becomes an [`EgressPlan`] and its [`Destinations`], or is refused. Pure: no clock, no sockets, no
//! disk.
//!
//! `plan` is the entry point. `request` (with `second_api`) reads the request into `fields`, and `outputs` its outputs with
//! their containers and codecs; `encoding` (options, layout), `stream_url`, `srt_url`, `websocket_url`, `uploads` (path,
//! store) and `own_identity` hold the rules that these apply; `page` decides which requests are recorded from a web page. The
//! plan travels in the ticket to the runner and its media process; the destinations
//! and URLs of streams are secrets and never part of it. In the runner, `name` makes file names of it, `segment_name` those of
//! an HLS output, `image_name` those of images and `sheets` those of the poster and the thumbnails beside a recording. `read`
//! takes a request from a file; `manifest` is the JSON file beside a recording; `built_in_template` is the page of room
//! composites that are recorded as a page.
#![warn(missing_docs)]

mod plan;
mod page;
mod request;
mod second_api;
mod outputs;
mod fields;
mod stream_url;
mod srt_url;
mod websocket_url;
pub mod segment_name;
pub mod image_name;
pub mod sheets;
pub mod name;
pub mod uploads;
mod own_identity;
pub mod destination;
mod encoding;
mod types;
mod output_types;
mod page_types;
mod error;
mod read;
pub mod manifest;
pub mod built_in_template;

pub use destination::{Destination, Destinations, Provider, StorageConfig, Store};
pub use error::PlanError;
pub use output_types::{
    AudioCodec, Container, FileOutput, ImageCodec, ImageSuffix, ImagesOutput, Output, OutputKind, SegmentsOutput,
    SheetRules, SheetsPlan, StreamProtocol, StreamsOutput,
};
pub use page::{CompositeEngine, PageRules, page_url};
pub use page_types::{PageKind, PagePlan};
pub use plan::{Defaults, LimitRules, destinations, plan, stream_urls};
pub use read::{ReadError, start_request};
pub use spillway_protocol::requested::stream_url;
pub use spillway_protocol::{Secret, hide_value, without_secrets};
pub use srt_url::{SrtUrl, SrtUrlError};
pub use stream_url::{check as check_stream_url, hidden as hidden_stream_url};
pub use types::{
    AudioEncoding, AudioMatch, AudioPlan, AudioRoute, EgressKind, EgressPlan, H264Profile, LayoutName, LayoutShape,
    Limits, MediaVideo, Mixing, Source, StereoSide, VideoEncoding, VideoPlan,
};
pub use websocket_url::WebsocketUrl;
