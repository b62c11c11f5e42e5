//! Everything that reaches the controller, on one channel: commands, the room, pipelines, a compositor, streams.

use spillway_ipc::{MediaCommand, MediaEvent};

use crate::compositor::CompositorEvent;
use crate::output::{PipelineEvent, StreamEvent};
use crate::source::room::RoomMessage;

/// What the controller is told.
pub(crate) enum RecorderInput {
    Command(MediaCommand),
    RunnerGone,
    Room(Vec<RoomMessage>),
    RoomGone,
    Pipeline(u32, PipelineEvent),
    Compositor(u32, CompositorEvent),
    Stream(u32, StreamEvent),
    /// Of an output, for the runner.
    Media(MediaEvent),
}
