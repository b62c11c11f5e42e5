//! Between the room's loop, its receiver and the listener: arrivals go in (and into the dump), what came of them goes out.

use std::time::{Duration, Instant};

use spillway_ipc::MediaEndReason;
use tracing::warn;

use super::RoomDriver;
use crate::receive::event::RoomEvent;
use crate::source::dump::{DumpItem, DumpRecord};
use crate::source::room::message::RoomMessage;
use crate::units::Ssrc;

/// The server throttles too; this keeps us from asking for nothing.
const KEYFRAME_EVERY: Duration = Duration::from_millis(500);

impl RoomDriver {
    pub(super) fn receive(&mut self, arrival: RoomEvent, at: Duration) {
        if self.dump.is_some() {
            self.keep(at, DumpItem::Event(arrival.clone()));
        }
        self.receiver.push(arrival, at);
    }

    pub(super) fn keep(&mut self, at: Duration, what: DumpItem) {
        let Some(dump) = &mut self.dump else { return };
        if let Err(error) = dump.keep(&DumpRecord::new(at, what)) {
            warn!(%error, "arrivals are no longer kept");
            self.dump = None;
        }
    }

    /// Arrivals to the receiver.
    pub(super) fn receive_all(&mut self) {
        for (arrival, at) in self.peer.take_arrivals() {
            let at = self.since(at);
            self.receive(arrival, at);
        }
        for ssrc in self.receiver.keyframes_wanted() {
            self.ask_keyframe(ssrc);
        }
    }

    pub(super) fn ask_keyframe(&mut self, ssrc: Ssrc) {
        let now = Instant::now();
        if self.asked.get(&ssrc).is_some_and(|asked| now - *asked < KEYFRAME_EVERY) {
            return;
        }
        self.asked.insert(ssrc, now);
        self.peer.ask_keyframe(ssrc);
    }

    /// Everything that is known to the listener, in one go: waking it costs more than what it then does with a frame.
    pub(super) fn deliver(&mut self) {
        self.receive_all();
        self.hand_out();
        if !self.deliveries.is_empty() && !(self.hear)(std::mem::take(&mut self.deliveries)) {
            self.end(MediaEndReason::Stopped, Duration::ZERO);
        }
    }

    pub(super) fn hand_out(&mut self) {
        if !self.origin_told
            && let Some(zero) = self.receiver.origin()
        {
            self.origin_told = true;
            let at = self.began + zero;
            self.say(RoomMessage::Epoch { at });
        }
        self.deliveries.extend(self.receiver.drain().map(RoomMessage::TimelineEvent));
    }

    pub(super) fn say(&mut self, delivery: RoomMessage) {
        self.deliveries.push(delivery);
    }

    pub(super) fn say_stats(&mut self) {
        for stats in self.receiver.stats() {
            self.say(RoomMessage::Stats(stats));
        }
    }
}
