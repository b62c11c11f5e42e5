//! Streams come, get on and go; see [`RecordedStreams`](crate::recorder::recorded_streams::RecordedStreams). Part of the
//! controller, on its thread.

use std::sync::mpsc::Receiver;

use super::RecorderController;
use crate::output::StreamEvent;
use crate::recorder::input::RecorderInput;

impl RecorderController {
    pub(super) fn remove_stream(&mut self, id: u32) {
        if let Some(event) = self.streams.remove(id, self.clock.unix_ns()) {
            self.send(event);
        }
    }

    /// What the streams' thread says. The end of an output that follows from it comes through the channel, after this.
    pub(super) fn on_stream(&mut self, id: u32, event: StreamEvent) {
        if let Some(event) = self.streams.on_event(id, event, self.clock.unix_ns()) {
            self.send(event);
        }
    }

    /// After the files: cuts streams that are still connected, and tells what has become of the others.
    pub(super) fn close_streams(&mut self, inbox: &Receiver<RecorderInput>) {
        self.streams.close();
        while let Ok(input) = inbox.try_recv() {
            if let RecorderInput::Stream(id, event) = input {
                self.on_stream(id, event);
            }
        }
        for event in self.streams.never_begun(self.clock.unix_ns()) {
            self.send(event);
        }
    }
}
