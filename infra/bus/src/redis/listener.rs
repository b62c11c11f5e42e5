//! The one connection for subscriptions. A background task reads it, pings it, and replaces it when it breaks; every
//! subscription is made again and confirmed before the new connection counts as up.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use redis::aio::{PubSubSink, PubSubStream};
use redis::{Msg, RedisResult};
use spillway_process::chain;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, interval_at, timeout, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{info, warn};

use super::dial::{Endpoint, SharedDialler};
use super::node::{PING_EVERY, PING_WITHIN, reconnecting};
use crate::error::{BusError, Cause};
use crate::pub_sub::{InboundMessage, Interest, RouteRemoval, Routes, Subscription};

/// Subscriptions of this process. The background task ends when it is dropped.
pub(super) struct PubSubListener {
    shared: Arc<ListenerState>,
    state: watch::Receiver<Option<Up>>,
    leavers: mpsc::UnboundedSender<Interest>,
    answer_timeout: Duration,
    _task: DropGuard,
}

#[derive(Default)]
struct ListenerState {
    routes: Mutex<Routes>,
    /// SUBSCRIBE and UNSUBSCRIBE of one channel must reach Redis in the order they were decided.
    order: tokio::sync::Mutex<()>,
}

impl ListenerState {
    fn routes(&self) -> MutexGuard<'_, Routes> {
        self.routes.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[derive(Clone)]
struct Up {
    generation: u64,
    sink: PubSubSink,
}

/// Names in one SUBSCRIBE.
const BATCH: usize = 500;

impl PubSubListener {
    /// Returns when the first connection is made.
    ///
    /// # Errors
    /// As [`super::dial::Dialler::pubsub`]; nothing goes on in the background then.
    pub async fn connect(dialler: SharedDialler, target: Endpoint) -> Result<Self, BusError> {
        let (state, watched) = watch::channel(None);
        let (leavers, leaving) = mpsc::unbounded_channel();
        let shared = Arc::new(ListenerState::default());
        let stop = CancellationToken::new();
        let answer_timeout = dialler.answer;
        let first = dialler.pubsub(&target).await?.split();
        let listener = ListenerTask { dialler, target, shared: shared.clone(), state, generation: 0 };
        let (stopped, leaver) = (stop.clone(), leave(shared.clone(), leaving, watched.clone()));
        tokio::spawn(async move {
            tokio::select! {
                () = listener.run(first) => {}
                () = leaver => {}
                () = stopped.cancelled() => {}
            }
        });
        Ok(Self { shared, state: watched, leavers, answer_timeout, _task: stop.drop_guard() })
    }

    /// Whether everything is subscribed and confirmed.
    pub fn is_up(&self) -> bool {
        self.state.borrow().is_some()
    }

    /// Returns when the server has confirmed.
    ///
    /// # Errors
    /// Not connected or not confirmed within twice the answer timeout; nothing is subscribed then, and a retry is
    /// right.
    pub async fn subscribe(&self, interest: Interest) -> Result<Subscription, BusError> {
        let (id, inbox) = self.shared.routes().add(interest.clone());
        let (shared, leavers, left) = (self.shared.clone(), self.leavers.clone(), interest.clone());
        // From here on a dropped subscription unsubscribes, also when this call is cancelled.
        let subscription = Subscription::new(inbox, move || {
            if shared.routes().remove(&left, id) == RouteRemoval::Last {
                let _ = leavers.send(left);
            }
        });
        self.confirm(&interest).await?;
        Ok(subscription)
    }

    async fn confirm(&self, interest: &Interest) -> Result<(), BusError> {
        let act = "subscribe";
        let give_up = Instant::now() + self.answer_timeout * 2;
        let mut state = self.state.clone();
        loop {
            let up = match timeout_at(give_up, state.wait_for(Option::is_some)).await {
                Ok(Ok(up)) => up.clone().ok_or(BusError::Closed)?,
                Ok(Err(_)) => return Err(BusError::Closed),
                Err(_) => return Err(BusError::Command { act, source: "not connected".into() }),
            };
            let subscribed = timeout_at(give_up, async {
                let _in_order = self.shared.order.lock().await;
                subscribe(&mut up.sink.clone(), std::slice::from_ref(interest)).await
            });
            match subscribed.await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) if !error.is_unrecoverable_error() => {
                    return Err(BusError::Command { act, source: error.into() });
                }
                // The connection broke. The next one subscribes this interest too; it is still confirmed here.
                Ok(Err(_)) => {
                    let next = state.wait_for(|now| now.as_ref().is_none_or(|now| now.generation > up.generation));
                    timeout_at(give_up, next)
                        .await
                        .map_err(|_| BusError::Silent { act })?
                        .map_err(|_| BusError::Closed)?;
                }
                Err(_) => return Err(BusError::Silent { act }),
            }
        }
    }
}

/// Unsubscribes channels that have no reader in this process any more.
async fn leave(
    shared: Arc<ListenerState>,
    mut leaving: mpsc::UnboundedReceiver<Interest>,
    state: watch::Receiver<Option<Up>>,
) {
    while let Some(interest) = leaving.recv().await {
        let _in_order = shared.order.lock().await;
        // Without a connection there is nothing to unsubscribe, and the next one does not subscribe it.
        let Some(Up { mut sink, .. }) = state.borrow().clone() else { continue };
        if shared.routes().wants(&interest) {
            continue;
        }
        // Bounded, since the lock is held. A failure means that the connection is breaking.
        let _ = timeout(PING_WITHIN, async {
            match &interest {
                Interest::Channel(name) => sink.unsubscribe(name).await,
                Interest::Pattern(name) => sink.punsubscribe(name).await,
            }
        })
        .await;
    }
}

struct ListenerTask {
    dialler: SharedDialler,
    target: Endpoint,
    shared: Arc<ListenerState>,
    state: watch::Sender<Option<Up>>,
    generation: u64,
}

impl ListenerTask {
    async fn run(mut self, first: (PubSubSink, PubSubStream)) {
        let mut waits = reconnecting();
        let mut next = Some(first);
        let mut down = false;
        loop {
            let connection = match next.take() {
                Some(connection) => Ok(connection),
                None => self.dialler.pubsub(&self.target).await.map(redis::aio::PubSub::split),
            };
            let error = match connection {
                Ok((sink, stream)) => match self.restore(&sink).await {
                    Ok(()) => {
                        if std::mem::take(&mut down) {
                            info!("redis is back for subscriptions, all confirmed");
                        }
                        waits = reconnecting();
                        self.generation += 1;
                        self.state.send_replace(Some(Up { generation: self.generation, sink: sink.clone() }));
                        let why = self.read_messages(sink, stream).await;
                        self.state.send_replace(None);
                        why
                    }
                    Err(error) => error,
                },
                Err(error) => error,
            };
            if !std::mem::replace(&mut down, true) {
                warn!(error = %chain(&error), "redis is away for subscriptions");
            }
            tokio::time::sleep(waits.wait()).await;
        }
    }

    /// Subscribes everything and waits for the confirmations. What is added meanwhile is confirmed by its own call.
    async fn restore(&self, sink: &PubSubSink) -> Result<(), BusError> {
        let wanted: Vec<Interest> = self.shared.routes().interests().cloned().collect();
        let act = "subscribe again";
        for batch in wanted.chunks(BATCH) {
            match timeout(self.dialler.answer, subscribe(&mut sink.clone(), batch)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Err(BusError::Command { act, source: error.into() }),
                Err(_) => return Err(BusError::Silent { act }),
            }
        }
        Ok(())
    }

    /// Delivers until the connection breaks, and returns why.
    async fn read_messages(&self, sink: PubSubSink, mut stream: PubSubStream) -> BusError {
        let act = "listen";
        let mut pings = interval_at(Instant::now() + PING_EVERY, PING_EVERY);
        let mut pinged = std::pin::pin!(None);
        loop {
            tokio::select! {
                message = stream.next() => match message {
                    Some(message) => self.deliver(message),
                    None => return BusError::Command { act, source: "connection closed".into() },
                },
                _ = pings.tick(), if pinged.is_none() => {
                    let mut sink = sink.clone();
                    pinged.set(Some(async move { timeout(PING_WITHIN, sink.ping::<redis::Value>()).await }));
                }
                answer = async {
                    match pinged.as_mut().as_pin_mut() {
                        Some(ping) => ping.await,
                        None => std::future::pending().await,
                    }
                } => {
                    pinged.set(None);
                    match answer {
                        Ok(Ok(_)) => {}
                        Ok(Err(error)) => return BusError::Command { act, source: Cause::from(error) },
                        Err(_) => return BusError::Silent { act: "ping on the listening connection" },
                    }
                }
            }
        }
    }

    fn deliver(&self, message: Msg) {
        let channel = message.get_channel_name().to_owned();
        let interest = if message.from_pattern() {
            match message.get_pattern::<String>() {
                Ok(pattern) => Interest::Pattern(pattern),
                Err(_) => return,
            }
        } else {
            Interest::Channel(channel.clone())
        };
        let payload = Bytes::copy_from_slice(message.get_payload_bytes());
        self.shared.routes().deliver(&interest, &InboundMessage { channel, payload, at: Instant::now() });
    }
}

async fn subscribe(sink: &mut PubSubSink, interests: &[Interest]) -> RedisResult<()> {
    let (mut channels, mut patterns) = (Vec::new(), Vec::new());
    for interest in interests {
        match interest {
            Interest::Channel(name) => channels.push(name),
            Interest::Pattern(name) => patterns.push(name),
        }
    }
    if !channels.is_empty() {
        sink.subscribe(&channels).await?;
    }
    if !patterns.is_empty() {
        sink.psubscribe(&patterns).await?;
    }
    Ok(())
}
