//! Events to the runner, rate limited. Runs on the controller's thread.

use std::time::{Duration, Instant};

use spillway_ipc::framing::EventWriter;
use spillway_ipc::{MediaEndReason, MediaEvent};
use tracing::debug;

const ALIVE_EVERY: Duration = Duration::from_millis(700);
const WROTE_EVERY: Duration = Duration::from_millis(250);

/// Writes events to the runner; rate limits those that only say how far it is.
pub struct EventReporter {
    send: EventWriter,
    alive_at: Option<Instant>,
    wrote_at: Option<Instant>,
    wrote_end: u64,
}

impl EventReporter {
    /// Nothing is sent yet.
    pub fn new(send: EventWriter) -> Self {
        Self { send, alive_at: None, wrote_at: None, wrote_end: 0 }
    }

    /// At once. A runner that is gone is no error here.
    pub fn send(&mut self, event: MediaEvent) {
        // A runner that is gone is noticed where commands are read.
        if let Err(error) = self.send.send(&event) {
            debug!(error = %spillway_process::chain(&error), "the runner does not read");
        }
    }

    /// At most every 700 ms.
    pub fn alive(&mut self, media_ns: u64, lag_ms: u64, backlog_bytes: u64) {
        if due(&mut self.alive_at, ALIVE_EVERY) {
            self.send(MediaEvent::Alive { media_ns, lag_ms, backlog_bytes });
        }
    }

    /// At most every 250 ms, and only when the file has grown.
    pub fn wrote(&mut self, file: u32, end: u64, sealed_to: u64, media_ns: u64) {
        if end != self.wrote_end && due(&mut self.wrote_at, WROTE_EVERY) {
            self.wrote_end = end;
            self.send(MediaEvent::Wrote { file, end, sealed_to, media_ns });
        }
    }

    /// The last event.
    pub fn ended(&mut self, why: MediaEndReason) {
        self.send(MediaEvent::Ended { why });
    }
}

fn due(last: &mut Option<Instant>, every: Duration) -> bool {
    let now = Instant::now();
    // A tick that comes a little early counts.
    let due = last.is_none_or(|last| now + Duration::from_millis(10) >= last + every);
    if due {
        *last = Some(now);
    }
    due
}
