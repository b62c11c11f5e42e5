//! What a recording is made of: the session's input. Values only.

use std::path::PathBuf;

use spillway_bus::LiveStreams;
use spillway_ipc::MediaSettings;
use spillway_plan::EgressPlan;
use spillway_process::{Clock, LocalRoot};
use spillway_protocol::Secret;
use tokio::sync::watch;

use super::earlier::EarlierRecording;
use super::machine::SessionRules;
use crate::upload::UploadResources;

/// Everything one recording needs.
#[derive(Debug)]
pub struct SessionJob {
    /// What is recorded, how, and into which files.
    pub plan: EgressPlan,
    /// Where the streams go, each with its key: those of the request, or those that are alive where the recording goes on.
    pub streams: LiveStreams,
    /// Told of every change of them, for a task that goes on should this one die.
    pub live_streams: watch::Sender<LiveStreams>,
    /// What another task has recorded, where the recording goes on.
    pub earlier: Option<EarlierRecording>,
    /// livekit-server's websocket URL.
    pub ws_url: String,
    /// JWT for the room.
    pub token: Secret,
    /// What the browser opens, where a page is recorded.
    pub page_url: Option<Secret>,
    /// For the media process.
    pub media: MediaSettings,
    /// The media program.
    pub program: PathBuf,
    /// Where files lie that stay on this machine.
    pub root: LocalRoot,
    /// Limits and timeouts.
    pub rules: SessionRules,
    /// Stores, spool and checkpoint.
    pub resources: UploadResources,
    /// For all timestamps, here and in the media process.
    pub clock: Clock,
}
