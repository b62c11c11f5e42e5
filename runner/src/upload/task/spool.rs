//! The spool's side of an upload: what the media process wrote becomes bytes to send, stored ranges are given back to the
//! disk, and the end of the file is the end of the object. Runs in the upload task; the disk's longer work on a blocking
//! thread.

use std::io;
use std::ops::Range;

use tokio::task::spawn_blocking;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::state::{SpoolProgress, UploadTaskState, Uploader};
use crate::events::SessionEvent;

/// Samples of media over bytes that are kept; enough for any outage, thinned beyond.
const MAX_SAMPLES: usize = 512;
/// So much more of the spool is kept for the sake of a keyframe: without one another object would begin with a frame
/// that needs those before it. At 6 Mbit/s 44 s; rooms send keyframes when a participant joins, encoders every few seconds.
const KEY_WITHIN: u64 = 32 << 20;

impl Uploader {
    /// Gives stored parts back to the disk, as long as no backup store could need them.
    pub(super) async fn release_stored(&mut self, state: &mut UploadTaskState) {
        if self.can_change(state) {
            if state.used < self.spool_cap / 2 {
                return;
            }
            warn!("spool is half full: what is stored makes room, and the backup store could not take over any more");
        }
        let stored = state.machine.take_stored();
        state
            .stored
            .extend(stored.into_iter().map(|range| self.origin.in_file(range.start)..self.origin.in_file(range.end)));
        // Behind it stands a part that is not whole in the store: it is sent again from its first byte, by this process
        // or by a salvage. What it needs of the fragment in which it begins stays as well.
        let stored_to = self.origin.in_file(state.machine.whole_to());
        // Should another party abort the upload, the next object begins with what is there: at a restart point.
        let limit = self.points.keep_from(stored_to, KEY_WITHIN.min(self.spool_cap / 4)).unwrap_or(stored_to);
        let mut ranges = vec![];
        for range in &mut state.stored {
            let to = range.end.min(limit);
            if to > range.start {
                ranges.push(range.start..to);
                range.start = to;
            }
        }
        state.stored.retain(|range| !range.is_empty());
        let Some(kept_from) = ranges.iter().map(|range| range.end).max() else { return };
        state.kept_from = state.kept_from.max(kept_from).max(limit);
        self.points.forget_starts(state.kept_from);
        // Only what is given back: a part whose answer was lost stays, and may be sent again with its offsets.
        for range in &ranges {
            self.points.forget_offsets(range.clone());
        }
        let spool = self.spool.clone();
        let punch = move || ranges.into_iter().try_for_each(|range: Range<u64>| spool.punch(range).map(|_| ()));
        if let Ok(Err(error)) = spawn_blocking(punch).await {
            debug!(%error, "spool not given back");
        }
    }

    /// Looks how far the file is: walks it, cuts parts, and ends the recording when the spool is full.
    pub(super) fn wrote(&mut self, state: &mut UploadTaskState) {
        let SpoolProgress { sealed_to, media_ns } = *self.written.borrow_and_update();
        if let Err(error) = self.points.advance(&self.spool, sealed_to) {
            debug!(%error, "spool not walked");
        }
        let sealed_to = if self.origin.is_whole() { sealed_to } else { self.walked(sealed_to) };
        let media_ns = media_ns.saturating_sub(state.skipped_ns);
        if state.samples.back().is_none_or(|(end, _)| *end < sealed_to) {
            state.samples.push_back((sealed_to, media_ns));
            let safe = state.machine.safe_to();
            // Another object would begin at `kept_from`: how much media is before that has to be known.
            let given_back = state.kept_from > self.origin.from;
            let measured = if given_back { safe.min(self.origin.in_object(state.kept_from)) } else { safe };
            // One at or before it, to measure from.
            while state.samples.get(1).is_some_and(|(end, _)| *end <= measured) {
                state.samples.pop_front();
            }
            if state.samples.len() > MAX_SAMPLES {
                let mut odd = false;
                state.samples.retain(|_| {
                    odd = !odd;
                    odd
                });
            }
        }
        state.machine.wrote(sealed_to, Instant::now().into_std());
        if state.full_reported || state.machine.is_closed() {
            return;
        }
        state.used = self.spool.used().unwrap_or(0);
        let used = state.used;
        let full = if state.lost.is_some() {
            state.lost.clone()
        } else if state.machine.is_exhausted() {
            Some(format!("{} takes no more parts of one object", self.target.store.name()))
        } else {
            (used >= self.spool_cap).then(|| {
                let why = if state.outage.message.is_empty() { "the store is too slow" } else { &state.outage.message };
                format!("{} MB wait to be uploaded and the spool holds no more: {why}", used >> 20)
            })
        };
        if let Some(message) = full {
            warn!(reason = message, "recording has to end");
            // The session reads its inbox at all times; if it is full just now, the next tick tries again.
            state.full_reported = self.session.try_send(SessionEvent::SpoolFull(message)).is_ok();
        }
    }

    /// Nothing more is written: the object ends where the file does.
    pub(super) async fn close_object(&mut self, state: &mut UploadTaskState) -> io::Result<()> {
        let (spool, head) = (self.spool.clone(), self.rewritten());
        let look = spawn_blocking(move || {
            let end = spool.end()?;
            Ok::<_, io::Error>((end, spool.read(0..head.min(end))?))
        });
        let (end, head) = look.await.unwrap_or_else(|error| Err(io::Error::other(error)))?;
        self.points.advance(&self.spool, end)?;
        let end = if self.origin.is_whole() { end } else { self.walked(end) };
        let rewritten = state.head.as_ref().is_some_and(|sent| *sent != head);
        state.machine.close(end, rewritten, Instant::now().into_std());
        Ok(())
    }

    /// Where in the object the last whole unit before `sealed_to` of the file ends.
    fn walked(&self, sealed_to: u64) -> u64 {
        self.origin.in_object(self.points.walked_to().min(sealed_to))
    }
}
