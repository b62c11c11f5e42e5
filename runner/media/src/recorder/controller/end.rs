//! How a recording ends: the room is left, what is made already is written, and what does not come to an end is given up. Part
//! of the controller, on its thread.

use std::time::{Duration, Instant};

use spillway_ipc::{MediaEndReason, MediaEvent};
use spillway_process::chain;
use tracing::{error, warn};

use super::{CONTINUE, DrainState, Flow, RecorderController, failed};
use crate::recorder::recorded_file::FileError;
use crate::units::MediaTime;

/// How long the room may take to hand over what has arrived after we leave.
const ROOM_LEAVE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a drain may go without any progress before the file is closed as it is.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// The same when the runner is gone and will not wait for us. Streams take up to 3 s.
pub(super) const ORPHAN_DRAIN_TIMEOUT: Duration = Duration::from_secs(4);

impl RecorderController {
    pub(super) fn stop(&mut self) -> Flow {
        if self.leaving.is_none() && self.draining.is_none() {
            self.leaving = Some(Instant::now() + ROOM_LEAVE_TIMEOUT);
            if let Some(room) = &self.room {
                room.leave();
            }
            // Nothing of a page is on its way that would have to be waited for.
            if self.page.is_some() {
                return self.drain(MediaEndReason::Stopped);
            }
        }
        CONTINUE
    }

    pub(super) fn room_over(&mut self, why: MediaEndReason) -> Flow {
        let why = if self.leaving.is_some() { MediaEndReason::Stopped } else { why };
        self.drain(why)
    }

    pub(super) fn drain(&mut self, why: MediaEndReason) -> Flow {
        if self.draining.is_some() {
            return CONTINUE;
        }
        let stopped_at = self.stopped_at();
        let Some(recorder) = &mut self.recorder else { return Flow::Break(why) };
        recorder.end(stopped_at);
        self.draining = Some(DrainState {
            why,
            worked: recorder.worked(),
            give_up_at: Instant::now() + self.drain_timeout(),
            images_until: None,
        });
        CONTINUE
    }

    /// Media time at which a stop was asked for, or where the page has ended.
    fn stopped_at(&self) -> Option<MediaTime> {
        if self.page_end.is_some() {
            return self.page_end;
        }
        let asked = self.leaving?.checked_sub(ROOM_LEAVE_TIMEOUT)?;
        let since_origin = self.clock.unix_ns_at(asked.into()).checked_sub(self.origin?)?;
        u64::try_from(since_origin).ok().map(MediaTime::from_ns)
    }

    fn drain_timeout(&self) -> Duration {
        if self.orphan { ORPHAN_DRAIN_TIMEOUT } else { DRAIN_TIMEOUT }
    }

    /// Gives up a drain that stands still, and begins that of a room which does not let us go.
    pub(super) fn watch_drain(&mut self, now: Instant, worked: u64) -> Flow {
        if self.images_are_late(now)
            && let Some(draining) = self.draining.take()
        {
            self.send(MediaEvent::Noted { message: "the last images were not made in time".to_owned() });
            return Flow::Break(draining.why);
        }
        let drain_timeout = self.drain_timeout();
        if let Some(draining) = &mut self.draining {
            if draining.worked != worked {
                draining.worked = worked;
                draining.give_up_at = now + drain_timeout;
            } else if now >= draining.give_up_at {
                warn!("the file did not finish draining");
                return Flow::Break(MediaEndReason::Failed {
                    code: "deadline_exceeded".into(),
                    message: "the encoder did not finish; the file ends where it stood".into(),
                });
            }
        } else if self.leaving.is_some_and(|until| now >= until) {
            return self.drain(MediaEndReason::Stopped);
        }
        CONTINUE
    }

    /// Nothing more can be written. What was, stays.
    pub(super) fn broke(&mut self, error: FileError) -> Flow {
        // A closed input is the echo of a fault that the pipeline tells itself.
        if matches!(&error, FileError::Feed(_)) {
            return CONTINUE;
        }
        let message = chain(&error).to_string();
        if let Some(room) = &self.room {
            room.leave();
        }
        if error.is_full() {
            return Flow::Break(MediaEndReason::Full { message });
        }
        if error.code() == "internal" {
            error!(error = message, "recording broke");
        }
        failed(error.code(), message)
    }
}
