//! Server-sent events: a snapshot for each who connects, then the changes of each second. One task makes the changes for all who
//! look, and rests while nobody does; what each of them gets is written in the task of its connection.
//!
//! Who is too slow to read gets a new snapshot instead of what it has missed, so nothing piles up.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use futures_util::stream::unfold;
use hyper::body::Bytes;
use spillway_bus::BusError;
use spillway_process::chain;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Interval, MissedTickBehavior, interval};
use tracing::debug;

use super::live::LiveViews;
use super::view::LiveView;
use crate::instance::Instance;

/// Between two changes. Runners send one heartbeat a second.
pub const REFRESH: Duration = Duration::from_secs(1);
/// Connections at once.
const MAX_READERS: usize = 32;
/// Changes that are kept for who reads slowly.
const KEPT_CHANGES: usize = 4;
/// Without an event for so long a comment is sent, so that proxies do not take the connection for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// The events of one dispatcher.
pub struct LiveFeed {
    instance: Arc<Instance>,
    /// Where what lives is read.
    pub views: LiveViews,
    changes: broadcast::Sender<Bytes>,
    readers: Arc<Semaphore>,
    /// There is one more reader.
    wanted: Notify,
}

impl LiveFeed {
    /// Without a reader.
    pub fn new(instance: Arc<Instance>, views: LiveViews) -> Self {
        Self {
            instance,
            views,
            changes: broadcast::Sender::new(KEPT_CHANGES),
            readers: Arc::new(Semaphore::new(MAX_READERS)),
            wanted: Notify::new(),
        }
    }

    /// Makes changes while anybody reads them. Returns when the dispatcher stops.
    pub async fn run(self: Arc<Self>) {
        let mut ticks = interval(REFRESH);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut before: Option<Arc<LiveView>> = None;
        loop {
            if self.changes.receiver_count() == 0 {
                before = None;
                self.views.forget().await;
                tokio::select! {
                    () = self.wanted.notified() => {}
                    () = self.instance.shutdown.triggered() => return,
                }
            }
            if !self.ticked(&mut ticks).await {
                return;
            }
            let sent = match self.views.latest().await {
                Ok(view) => {
                    let sent = match &before {
                        Some(before) => event("change", &view.changes_since(before)),
                        None => event("snapshot", &view.snapshot()),
                    };
                    before = Some(view);
                    sent
                }
                Err(error) => trouble(&error),
            };
            // It fails when the last reader has just left.
            let _ = self.changes.send(sent);
        }
    }

    /// False: the dispatcher stops.
    async fn ticked(&self, ticks: &mut Interval) -> bool {
        tokio::select! {
            _ = ticks.tick() => true,
            () = self.instance.shutdown.triggered() => false,
        }
    }

    /// Events for one more reader, until the dispatcher stops or `may_read` no longer holds. `None`: there are too many.
    ///
    /// # Errors
    /// Of an event: never.
    pub fn read(
        self: &Arc<Self>,
        may_read: Box<dyn Fn() -> bool + Send>,
    ) -> Option<impl Stream<Item = io::Result<Bytes>> + Send + use<>> {
        let place = Arc::clone(&self.readers).try_acquire_owned().ok()?;
        // Before the first snapshot, so that no change after it is missed.
        let changes = self.changes.subscribe();
        self.wanted.notify_one();
        let reader = Reader { feed: Arc::clone(self), changes, is_behind: true, may_read, _place: place };
        Some(unfold(reader, |mut reader| async move {
            let sent = reader.next().await?;
            Some((Ok::<Bytes, io::Error>(sent), reader))
        }))
    }
}

/// One connection.
struct Reader {
    feed: Arc<LiveFeed>,
    changes: broadcast::Receiver<Bytes>,
    /// A snapshot is next.
    is_behind: bool,
    may_read: Box<dyn Fn() -> bool + Send>,
    _place: OwnedSemaphorePermit,
}

impl Reader {
    /// `None`: the last one was before this.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if std::mem::take(&mut self.is_behind) {
                return Some(match self.feed.views.latest().await {
                    Ok(view) => event("snapshot", &view.snapshot()),
                    Err(error) => trouble(&error),
                });
            }
            let received = tokio::select! {
                received = tokio::time::timeout(KEEP_ALIVE, self.changes.recv()) => received,
                () = self.feed.instance.shutdown.triggered() => return None,
            };
            if !(self.may_read)() {
                return None;
            }
            match received {
                Ok(Ok(sent)) => return Some(sent),
                Ok(Err(RecvError::Lagged(_))) => self.is_behind = true,
                Ok(Err(RecvError::Closed)) => return None,
                Err(_) => return Some(Bytes::from_static(b":\n\n")),
            }
        }
    }
}

/// `data`: JSON on one line.
fn event(name: &str, data: &str) -> Bytes {
    Bytes::from(format!("event: {name}\ndata: {data}\n\n"))
}

/// What is shown is old now; the next event that is none of these is new again.
fn trouble(error: &BusError) -> Bytes {
    debug!(error = %chain(error), "what lives cannot be shown");
    event("trouble", r#"{"error":"Redis does not answer"}"#)
}
