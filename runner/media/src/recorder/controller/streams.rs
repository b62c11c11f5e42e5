//! Streams come, get on and go; see [`RecordedStreams`](crate::recorder::recorded_streams::RecordedStreams). Part of the
//! controller, on its thread.

use super::RecorderController;
use crate::output::StreamEvent;

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

    /// Cuts streams that are still connected. What has become of them is in the channel; of those that never began it is told
    /// here.
    pub(super) fn close_streams(&mut self) {
        self.streams.close();
        for event in self.streams.never_begun(self.clock.unix_ns()) {
            self.send(event);
        }
    }
}
