//! The one connection for subscriptions: whatever breaks it, everything is subscribed again and confirmed before it
//! counts as up.

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
use crate::BusError;
use crate::backend::{InboundMessage, Interest, RouteRemoval, Routes, Subscription};
use crate::error::Cause;

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
    /// Returns when the first connection stands.
    pub async fn connect(dialler: SharedDialler, target: Endpoint) -> Result<Self, BusError> {
        let (state, watched) = watch::channel(None);
        let (leavers, leaving) = mpsc::unbounded_channel();
        let shared = Arc::new(ListenerState::default());
        let stop = CancellationToken::new();
        let answer_timeout = dialler.answer;
        let first = dialler.pubsub(&target).await?.split();
        let keeper = ListenerTask { dialler, target, shared: shared.clone(), state, generation: 0 };
        let (stopped, leaver) = (stop.clone(), leave(shared.clone(), leaving, watched.clone()));
        tokio::spawn(async move {
            tokio::select! {
                () = keeper.run(first) => {}
                () = leaver => {}
                () = stopped.cancelled() => {}
            }
        });
        Ok(Self { shared, state: watched, leavers, answer_timeout, _task: stop.drop_guard() })
    }

    pub fn is_up(&self) -> bool {
        self.state.borrow().is_some()
    }

    pub async fn subscribe(&self, interest: Interest) -> Result<Subscription, BusError> {
        let (id, inbox) = self.shared.routes().add(interest.clone());
        let (shared, leavers, left) = (self.shared.clone(), self.leavers.clone(), interest.clone());
        // From here on a dropped subscription, this call given up included, cleans up behind itself.
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
                // The connection broke: the next one subscribes this too, and is asked all the same.
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

/// Tells Redis about channels nobody here wants any more.
async fn leave(
    shared: Arc<ListenerState>,
    mut leaving: mpsc::UnboundedReceiver<Interest>,
    state: watch::Receiver<Option<Up>>,
) {
    while let Some(interest) = leaving.recv().await {
        let _in_order = shared.order.lock().await;
        // A connection that is down knows nothing of it, and the next one will not be told.
        let Some(Up { mut sink, .. }) = state.borrow().clone() else { continue };
        if shared.routes().wants(&interest) {
            continue;
        }
        // Bounded, for the lock's sake. Failing means the connection is breaking.
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

    /// Everything wanted, subscribed and confirmed. What is added meanwhile is confirmed by whoever adds it.
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

    /// Delivers until the connection is no good, and says why.
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
                answer = async { pinged.as_mut().as_pin_mut().expect("polled only when some").await }, if pinged.is_some() => {
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
