//! Sound from its ring to one websocket: dials, sends, notices that the server is gone or does not keep up, dials again. The
//! task of one stream; it waits for nothing but its own connection.

use std::time::Duration;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{FutureExt, SinkExt, StreamExt};
use spillway_plan::WebsocketUrl;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Error, Message};
use tracing::{debug, info};

use super::fault::WebsocketFault;
use super::handshake::open;
use super::health::{PingWatch, WEBSOCKET_STEP};
use crate::encoded::EncodedUnit;
use crate::output::attempts::StreamDriver;
use crate::output::retry::RetryBudget;
use crate::output::stream::{StreamContext, StreamEvent};
use crate::output::stream_dial::{DialTarget, StreamDial};

/// For the connection, and for the handshake over it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// What waits at the end may still go out.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
/// For both close frames.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// A sixth of a second of sound.
const SEND_BUFFER_BYTES: usize = 32 << 10;

/// One stream, with what outlives its connections.
pub struct WebsocketDriver<'a, D> {
    url: &'a WebsocketUrl,
    context: &'a StreamContext,
    dial: &'a D,
    was_open: bool,
}

impl<'a, D> WebsocketDriver<'a, D> {
    /// To this URL, over the connections that `dial` opens.
    pub const fn new(url: &'a WebsocketUrl, context: &'a StreamContext, dial: &'a D) -> Self {
        Self { url, context, dial, was_open: false }
    }
}

impl<D: StreamDial> StreamDriver for WebsocketDriver<'_, D> {
    type Fault = WebsocketFault;

    async fn attempt(&mut self, budget: &mut RetryBudget) -> Result<(), WebsocketFault> {
        let (url, context, dial) = (self.url, self.context, self.dial);
        let (host, port, is_tls) = (url.host(), url.port(), url.is_tls());
        let target = DialTarget { host, port, is_tls, send_buffer: SEND_BUFFER_BYTES };
        let opened = async {
            let io = within("the connection", dial.dial(target)).await?;
            within("the websocket's handshake", open(url, io)).await
        };
        let websocket = tokio::select! {
            opened = opened => opened?,
            () = context.ring.ended() => return Ok(()),
        };
        let now = Instant::now().into_std();
        info!(stream = ?context.reporter, failures = budget.failures(), "published");
        budget.published(now);
        self.was_open = true;
        context.reporter.report(StreamEvent::Active);
        let (send, receive) = websocket.split();
        let health = PingWatch::new(now);
        WebsocketConnection { url, context, send, receive, health, is_writing: false, is_muted: false }.run().await
    }

    fn has_begun(&self) -> bool {
        self.was_open
    }
}

async fn within<T, E>(step: &'static str, answer: impl Future<Output = Result<T, E>>) -> Result<T, WebsocketFault>
where
    WebsocketFault: From<E>,
{
    match timeout(ANSWER_TIMEOUT, answer).await {
        Ok(answered) => Ok(answered?),
        Err(_) => Err(WebsocketFault::Silent { step }),
    }
}

/// One open websocket.
struct WebsocketConnection<'a, S> {
    url: &'a WebsocketUrl,
    context: &'a StreamContext,
    send: SplitSink<WebSocketStream<S>, Message>,
    receive: SplitStream<WebSocketStream<S>>,
    health: PingWatch,
    /// Something is on its way into the socket: nothing else is begun.
    is_writing: bool,
    /// The server was told so.
    is_muted: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebsocketConnection<'_, S> {
    /// Until the ring ended and is empty, or [`DRAIN_TIMEOUT`] after its end.
    async fn run(mut self) -> Result<(), WebsocketFault> {
        let mut steps = interval(WEBSOCKET_STEP);
        steps.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                received = self.receive.next() => self.on_received(received).await?,
                flushed = self.send.flush(), if self.is_writing => self.on_flushed(flushed)?,
                unit = self.context.ring.next(), if !self.is_writing => match unit {
                    Some(unit) => self.on_unit(unit).await?,
                    None => break,
                },
                _ = steps.tick() => {
                    self.step().await?;
                    if self.context.ring.ended_for().is_some_and(|ended| ended >= DRAIN_TIMEOUT) {
                        break;
                    }
                }
            }
        }
        // The stream is over either way.
        if timeout(CLOSE_TIMEOUT, self.close()).await.is_err() {
            debug!(stream = ?self.context.reporter, "the server has not closed its side");
        }
        Ok(())
    }

    /// What a server says is dropped, but for its answers to pings and its end. Pings are answered by the library.
    async fn on_received(&mut self, received: Option<Result<Message, Error>>) -> Result<(), WebsocketFault> {
        match received {
            Some(Ok(Message::Pong(payload))) => {
                if let Some(number) = std::str::from_utf8(&payload).ok().and_then(|text| text.parse().ok()) {
                    self.health.ponged(number);
                }
                Ok(())
            }
            Some(Ok(Message::Close(frame))) => {
                let fault = WebsocketFault::closed(self.url, frame.as_ref());
                // The answer to it lies in the library.
                let _ = timeout(CLOSE_TIMEOUT, self.send.flush()).await;
                Err(fault)
            }
            Some(Ok(_)) => Ok(()),
            Some(Err(error)) => Err(self.lost(&error)),
            None => Err(WebsocketFault::Closed(None)),
        }
    }

    async fn on_unit(&mut self, unit: EncodedUnit) -> Result<(), WebsocketFault> {
        let muted = self.context.mutes.is_muted_at(unit.at_ns);
        if muted != self.is_muted {
            self.is_muted = muted;
            self.write(Message::text(format!("{{\"muted\":{muted}}}"))).await?;
        }
        self.write(Message::Binary(unit.data)).await
    }

    async fn step(&mut self) -> Result<(), WebsocketFault> {
        let now = Instant::now().into_std();
        if let Some(quiet) = self.health.step(now, self.is_writing) {
            return Err(WebsocketFault::Wedged { quiet });
        }
        // Behind a write that waits a ping would say nothing.
        if !self.is_writing
            && let Some(number) = self.health.ping()
        {
            self.write(Message::Ping(number.to_string().into())).await?;
        }
        let lag = u64::try_from(self.health.lag().as_millis()).unwrap_or(u64::MAX);
        self.context.reporter.set_lag_ms((self.context.ring.stats().lag_ns / 1_000_000).saturating_add(lag));
        Ok(())
    }

    /// Writes what the socket takes at once. Does not wait for it: before a message at most one other is on its way (the text of
    /// a mute before its block), and then this one waits in the slot of [`SplitSink`].
    async fn write(&mut self, message: Message) -> Result<(), WebsocketFault> {
        self.is_writing = true;
        self.send.feed(message).await.map_err(|error| self.lost(&error))?;
        match self.send.flush().now_or_never() {
            Some(flushed) => self.on_flushed(flushed),
            None => Ok(()),
        }
    }

    fn on_flushed(&mut self, flushed: Result<(), Error>) -> Result<(), WebsocketFault> {
        flushed.map_err(|error| self.lost(&error))?;
        self.is_writing = false;
        self.health.wrote();
        Ok(())
    }

    /// A close frame without a code, as livekit/egress ends; then the server's.
    async fn close(&mut self) -> Result<(), Error> {
        self.send.send(Message::Close(None)).await?;
        while let Some(received) = self.receive.next().await {
            if received?.is_close() {
                break;
            }
        }
        Ok(())
    }

    fn lost(&self, error: &Error) -> WebsocketFault {
        let message = match error {
            Error::Io(error) => error.to_string(),
            error => error.to_string(),
        };
        WebsocketFault::Lost { message: self.url.without_secrets(&message) }
    }
}

#[cfg(test)]
#[path = "driver_tests.rs"]
mod tests;
