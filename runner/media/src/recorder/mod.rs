//! One recording, or one probe of a room, from the runner's first command to its last event.
//!
//! The main thread runs the `controller`; one more thread reads commands; a room, pipelines and a compositor send into
//! the same channel (`input`).
//!
//! Choices it makes (each loses nothing that was published):
//! * A picture that can be copied is copied, whatever sizes it takes later.
//! * When the copied publication comes back in another codec, its files are closed and others begin.
//! * A muted picture beside sound is black; a single track has a long last frame instead.
//! * Images beside a copied picture are decoded for themselves: the copy and its sound are what they are without them.

mod controller;
mod source_recorder;
mod copied_track;
mod recorded_series;
mod recorded_file;
mod recorded_streams;
mod formats;
mod mode;
mod input;
mod held_events;
mod copy_choice;

use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};

use gstreamer as gst;
use spillway_ipc::framing::{CommandReader, EventWriter};
use spillway_ipc::{MediaCommand, MediaEndReason, MediaEvent, ProbeCommand, StartCommand};
use spillway_process::chain;
use tracing::warn;

use self::controller::{ALIVE_EVERY, RecorderController, send};
use self::input::RecorderInput;
use crate::source::room;

/// Records until told to stop or until there is nothing more, or probes. Returns when everything is said.
pub fn run(mut commands: CommandReader, events: EventWriter) {
    let (tell, inbox) = channel();
    // The first start of a process pays for GStreamer's registry: meanwhile we join.
    let gstreamer = std::thread::spawn(gst::init);
    let reader = tell.clone();
    std::thread::spawn(move || {
        loop {
            let input = match commands.recv() {
                Ok(Some(command)) => RecorderInput::Command(command),
                Ok(None) => RecorderInput::RunnerGone,
                Err(error) => {
                    warn!(error = %chain(&error), "the runner is not understood");
                    RecorderInput::RunnerGone
                }
            };
            let gone = matches!(input, RecorderInput::RunnerGone);
            if reader.send(input).is_err() || gone {
                return;
            }
        }
    });
    let start = match first_command(&inbox, &events) {
        Some(FirstCommand::Start(start)) => start,
        Some(FirstCommand::Probe(probe)) => {
            room::probe(&probe, &mut |event| send(&events, &event));
            // It would die with this process in the middle of its work.
            if let Ok(Err(error)) = gstreamer.join() {
                warn!(%error, "GStreamer does not work");
            }
            return;
        }
        None => return,
    };
    let span = tracing::info_span!("recording", egress_id = %start.plan.egress_id);
    let _recording = span.enter();
    RecorderController::new(*start, events, tell, gstreamer).run_loop(&inbox);
}

/// What this process was started for.
enum FirstCommand {
    Start(Box<StartCommand>),
    Probe(Box<ProbeCommand>),
}

fn first_command(inbox: &Receiver<RecorderInput>, events: &EventWriter) -> Option<FirstCommand> {
    loop {
        match inbox.recv_timeout(ALIVE_EVERY) {
            Ok(RecorderInput::Command(MediaCommand::Start(start))) => return Some(FirstCommand::Start(start)),
            Ok(RecorderInput::Command(MediaCommand::Probe(probe))) => return Some(FirstCommand::Probe(probe)),
            Ok(RecorderInput::Command(MediaCommand::Stop)) => {
                send(events, &MediaEvent::Ended { why: MediaEndReason::Stopped });
                return None;
            }
            Ok(RecorderInput::RunnerGone) | Err(RecvTimeoutError::Disconnected) => return None,
            Ok(_) => {}
            Err(RecvTimeoutError::Timeout) => {
                send(events, &MediaEvent::Alive { media_ns: 0, lag_ms: 0, backlog_bytes: 0, streams: vec![] });
            }
        }
    }
}
