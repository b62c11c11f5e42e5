//! One RTMP stream from its queue to its server: dials, publishes, sends, notices that the server is gone, dials again.
//! The task of one stream; it waits for nothing but its own connection, and takes nothing from others but its queue.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tracing::{debug, info};

use super::client::{ACK_WINDOW, RtmpClient, RtmpEvent};
use super::dial::RtmpDial;
use super::fault::RtmpFault;
use super::flv::{FlvMuxer, StreamFormat};
use super::health::{HEALTH_STEP, HealthWatch};
use super::queue::StreamQueue;
use super::retry::{RetryBudget, RetryDecision};
use super::ring::{RingStats, StreamUnit};
use super::url::RtmpUrl;
use crate::units::MediaTime;

/// From the first byte on until the stream is accepted, and for the connection before it.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// What waits at the end may still go out. Without a bound a slow stream held the recording's end for 5.5 s.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
/// For the commands that end a stream.
const END_TIMEOUT: Duration = Duration::from_secs(1);
/// For a server's reason after it stopped reading.
const REASON_TIMEOUT: Duration = Duration::from_millis(100);
const PING_EVERY: Duration = Duration::from_secs(1);
const READ_BYTES: usize = 16 << 10;

/// What a stream's task says. The callback must not wait.
#[derive(Clone, Debug, PartialEq)]
pub enum StreamEvent {
    /// The server accepted it, at first or again.
    Published {
        /// Attempts and connections that failed before.
        failures: u32,
    },
    /// No key frame waits that a new connection could begin with.
    KeyFrameWanted,
    /// It is tried again after a wait.
    Retrying {
        /// Why.
        fault: RtmpFault,
        /// How long.
        wait: Duration,
    },
    /// Every second while it is published.
    Progress(StreamProgress),
}

/// How a stream gets on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamProgress {
    /// Over this connection.
    pub sent_bytes: u64,
    /// The server has not read; divided by the bit rate the lag behind us. `None`: it never acknowledges.
    pub unacked_bytes: Option<u64>,
    /// What waits here.
    pub waiting: RingStats,
}

/// One stream.
pub struct RtmpStream<D> {
    /// Where to.
    pub url: RtmpUrl,
    /// What it has.
    pub format: StreamFormat,
    /// Its frames.
    pub queue: Arc<StreamQueue>,
    /// How it is reached.
    pub dial: D,
}

impl<D: RtmpDial> RtmpStream<D> {
    /// Publishes until the queue ends.
    ///
    /// # Errors
    ///
    /// The fault that was final: what could be tried again was, three times before the first frame was sent, for 30 s after
    /// that. A queue that ends while a stream that was accepted is being tried again is no fault.
    pub async fn run(self, mut on_event: impl FnMut(StreamEvent) + Send) -> Result<(), RtmpFault> {
        let mut budget = RetryBudget::default();
        let mut clock = StreamTime::default();
        loop {
            let mut connection = StreamConnection {
                client: RtmpClient::new(self.url.clone()),
                muxer: FlvMuxer::new(self.format),
                health: HealthWatch::new(ACK_WINDOW.into(), Instant::now().into_std()),
                queue: &self.queue,
                budget: &mut budget,
                clock: &mut clock,
                on_event: &mut on_event,
                is_flushed: true,
            };
            let fault = match self.attempt(&mut connection).await {
                Ok(()) => return Ok(()),
                Err(fault) => fault,
            };
            let RetryDecision::After(wait) = budget.failed(Instant::now().into_std(), &fault) else {
                return Err(fault);
            };
            debug!(url = %self.url, %fault, ?wait, "the stream is tried again");
            on_event(StreamEvent::Retrying { fault: fault.clone(), wait });
            if timeout(wait, self.queue.ended()).await.is_ok() {
                return if clock.has_begun() { Ok(()) } else { Err(fault) };
            }
        }
    }

    async fn attempt<F: FnMut(StreamEvent)>(&self, connection: &mut StreamConnection<'_, F>) -> Result<(), RtmpFault> {
        let io = tokio::select! {
            dialled = timeout(ANSWER_TIMEOUT, self.dial.dial(&self.url)) => match dialled {
                Ok(io) => io?,
                Err(_) => return Err(RtmpFault::Silent { step: "the connection" }),
            },
            () = self.queue.ended() => return Ok(()),
        };
        connection.run(io).await
    }
}

/// Media time becomes the stream's own, which goes on over all its connections.
#[derive(Debug, Default)]
struct StreamTime {
    began: Option<MediaTime>,
}

impl StreamTime {
    const fn has_begun(&self) -> bool {
        self.began.is_some()
    }

    /// Milliseconds since the first frame that was sent.
    fn ms(&mut self, at: MediaTime) -> u64 {
        at.ns_since(*self.began.get_or_insert(at)) / 1_000_000
    }
}

/// One connection, with what outlives it.
struct StreamConnection<'a, F> {
    client: RtmpClient,
    muxer: FlvMuxer,
    health: HealthWatch,
    queue: &'a StreamQueue,
    budget: &'a mut RetryBudget,
    clock: &'a mut StreamTime,
    on_event: &'a mut F,
    /// Nothing waits in TLS.
    is_flushed: bool,
}

impl<F: FnMut(StreamEvent)> StreamConnection<'_, F> {
    /// Until the queue ended and is empty, or [`DRAIN_TIMEOUT`] after its end.
    async fn run(&mut self, io: impl AsyncRead + AsyncWrite + Unpin) -> Result<(), RtmpFault> {
        let (mut read, mut write) = tokio::io::split(io);
        let mut buffer = vec![0; READ_BYTES];
        let opened = Instant::now();
        let mut pinged = opened;
        let mut steps = interval(HEALTH_STEP);
        steps.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let is_idle = self.client.pending().is_empty() && self.is_flushed;
            tokio::select! {
                read = read.read(&mut buffer) => {
                    let length = read.map_err(|error| self.failed(&error))?;
                    if length == 0 {
                        return Err(self.client.broken(true, "the server closed the connection".to_owned()));
                    }
                    self.on_bytes(&buffer[..length])?;
                }
                wrote = write_some(&mut write, self.client.pending()), if !is_idle => match wrote {
                    Ok(length) => {
                        self.is_flushed = self.client.pending().is_empty();
                        self.client.advance(length);
                        self.health.wrote();
                    }
                    Err(error) => return Err(self.reason(&mut read, &mut buffer, &error).await),
                },
                unit = self.queue.next(), if is_idle && self.client.is_live() => match unit {
                    Some(unit) => self.on_unit(&unit),
                    None => break,
                },
                _ = steps.tick() => {
                    self.step(opened, &mut pinged)?;
                    match self.queue.ended_for() {
                        Some(_) if !self.client.is_live() => return Ok(()),
                        Some(ended) if ended >= DRAIN_TIMEOUT => break,
                        _ => {}
                    }
                }
            }
        }
        self.client.end();
        let ending = async {
            write.write_all(self.client.pending()).await?;
            write.shutdown().await
        };
        // The stream is over either way.
        if let Ok(Err(error)) = timeout(END_TIMEOUT, ending).await {
            debug!(%error, "a stream's end could not be told");
        }
        Ok(())
    }

    fn on_bytes(&mut self, bytes: &[u8]) -> Result<(), RtmpFault> {
        self.health.heard();
        for event in self.client.receive(bytes)? {
            match event {
                RtmpEvent::Published => {
                    info!(failures = self.budget.failures(), "stream published");
                    let now = Instant::now().into_std();
                    self.budget.published(now);
                    self.health = HealthWatch::new(ACK_WINDOW.into(), now);
                    let is_key_frame_wanted = self.queue.begin();
                    self.muxer.headers().iter().for_each(|tag| self.client.send(tag));
                    (self.on_event)(StreamEvent::Published { failures: self.budget.failures() });
                    if is_key_frame_wanted {
                        (self.on_event)(StreamEvent::KeyFrameWanted);
                    }
                }
                RtmpEvent::Acknowledged { bytes } => self.health.acked(bytes),
                RtmpEvent::Pong => self.health.ponged(),
            }
        }
        Ok(())
    }

    fn on_unit(&mut self, unit: &StreamUnit) {
        let at_ms = self.clock.ms(unit.at);
        self.muxer.push(unit, at_ms).iter().for_each(|tag| self.client.send(tag));
    }

    fn step(&mut self, opened: Instant, pinged: &mut Instant) -> Result<(), RtmpFault> {
        let now = Instant::now();
        if !self.client.is_live() {
            let is_silent = now.duration_since(opened) >= ANSWER_TIMEOUT;
            return if is_silent { Err(RtmpFault::Silent { step: self.client.step() }) } else { Ok(()) };
        }
        let is_writing = !self.client.pending().is_empty() || !self.is_flushed;
        let sent_bytes = self.client.sent_bytes();
        if let Some(quiet) = self.health.step(now.into_std(), sent_bytes, is_writing) {
            return Err(RtmpFault::Wedged { quiet });
        }
        if now.duration_since(*pinged) >= PING_EVERY {
            *pinged = now;
            self.client.ping(now.duration_since(opened).as_millis() as u32);
            let unacked_bytes = self.health.unacked(sent_bytes);
            let waiting = self.queue.stats();
            (self.on_event)(StreamEvent::Progress(StreamProgress { sent_bytes, unacked_bytes, waiting }));
        }
        Ok(())
    }

    fn failed(&self, error: &io::Error) -> RtmpFault {
        let kinds = [io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe, io::ErrorKind::UnexpectedEof];
        self.client.broken(kinds.contains(&error.kind()), error.to_string())
    }

    /// A write failed: the server may have said why before it closed.
    async fn reason(&mut self, read: &mut (impl AsyncRead + Unpin), buffer: &mut [u8], error: &io::Error) -> RtmpFault {
        let fault = self.failed(error);
        let told = async {
            while let Ok(length @ 1..) = read.read(buffer).await {
                self.client.receive(&buffer[..length])?;
            }
            Ok::<(), RtmpFault>(())
        };
        match timeout(REASON_TIMEOUT, told).await {
            Ok(Err(told)) => told,
            Ok(Ok(())) | Err(_) => fault,
        }
    }
}

/// Some bytes, or a flush when there are none. Dropping the future loses nothing.
async fn write_some(write: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<usize> {
    if bytes.is_empty() {
        write.flush().await?;
        return Ok(0);
    }
    match write.write(bytes).await? {
        0 => Err(io::ErrorKind::WriteZero.into()),
        length => Ok(length),
    }
}

#[cfg(test)]
#[path = "driver_tests.rs"]
mod tests;
