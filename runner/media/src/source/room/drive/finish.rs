//! The end: what is still on its way is read, everything is handed on, and the server learns of it.

use std::time::{Duration, Instant};

use spillway_ipc::MediaEndReason;
use tracing::{debug, warn};

use super::RoomDriver;
use crate::source::dump::{Dump, DumpItem};
use crate::source::room::link;
use crate::source::room::message::RoomMessage;

/// At a stop: for the tasks that read connections over TCP to have their turn.
const STREAM_TURN: Duration = Duration::from_millis(5);
/// A machine starved of CPU may have seconds of packets in its connections; a stop is not put off for ever by them.
const MAX_DRAIN: Duration = Duration::from_millis(500);

impl RoomDriver {
    /// What waits in connections over TCP: their tasks read it, and they have no turn while we read datagrams.
    async fn drain_streams(&mut self, asked: Instant) {
        while self.peer.has_unread_stream() && asked.elapsed() < MAX_DRAIN {
            if let Ok(news) = tokio::time::timeout(STREAM_TURN, self.peer.wait()).await {
                self.network(news);
                self.deliver();
            }
        }
    }

    /// Once, after the loop.
    pub(super) async fn finish(mut self) {
        let asked = Instant::now();
        while self.peer.caught_up() < asked {
            self.read();
            self.deliver();
        }
        self.drain_streams(asked).await;
        self.peer.close();
        let now = self.since(Instant::now());
        self.keep(now, DumpItem::Finish);
        self.receiver.finish(now);
        self.hand_out();
        self.say_stats();
        let why = self.over.take().map_or(MediaEndReason::Stopped, |(_, why)| why);
        self.say(RoomMessage::Ended(why));
        self.deliver();
        if let Some(Err(error)) = self.dump.take().map(Dump::finish) {
            warn!(%error, "arrivals are not all kept");
        }
        // The listener has its end; the server learns ours.
        drop(self.hear);
        if tokio::time::timeout(Duration::from_secs(2), link::leave(&self.link.client)).await.is_err() {
            debug!("leave not sent in time");
        }
    }
}
