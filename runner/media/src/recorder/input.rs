//! Everything that reaches the controller, on one channel: commands, the room or page, pipelines, a compositor, streams.

use spillway_ipc::{MediaCommand, MediaEvent};

use crate::compositor::CompositorEvent;
use crate::output::images::CapturedImage;
use crate::output::{PipelineEvent, StreamEvent};
use crate::source::page::PageMessage;
use crate::source::room::RoomMessage;

/// What the controller is told.
pub(crate) enum RecorderInput {
    Command(MediaCommand),
    RunnerGone,
    Room(Vec<RoomMessage>),
    RoomGone,
    Page(PageMessage),
    PageGone,
    Pipeline(u32, PipelineEvent),
    Compositor(u32, CompositorEvent),
    Stream(u32, StreamEvent),
    /// Of an output, for the runner.
    Media(MediaEvent),
    /// Of an image output of this recorder, for the runner.
    Image(u32, CapturedImage),
}
