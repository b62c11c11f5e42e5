//! One RTMP stream from its ring to its server: dials, publishes, sends, notices that the server is gone, dials again.
//! The task of one stream; it waits for nothing but its own connection, and takes nothing from others but its frames.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tracing::{debug, info};

use super::client::{ACK_WINDOW, RtmpClient, RtmpEvent};
use super::fault::RtmpFault;
use super::flv::{FlvMuxer, bitrate_kbps};
use super::health::{HEALTH_STEP, HealthWatch};
use super::url::RtmpUrl;
use crate::encoded::EncodedUnit;
use crate::output::attempts::StreamDriver;
use crate::output::retry::RetryBudget;
use crate::output::stream::{StreamContext, StreamEvent, StreamTime};
use crate::output::stream_dial::{DialTarget, StreamDial};

/// From the first byte on until the stream is accepted, and for the connection before it.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// What waits at the end may still go out. Without a bound a slow stream held the recording's end for 5.5 s.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
/// For the commands that end a stream.
const END_TIMEOUT: Duration = Duration::from_secs(1);
/// For a server's reason after it stopped reading.
const REASON_TIMEOUT: Duration = Duration::from_millis(100);
/// A server that closes an accepted connection within so long has not taken the stream. nginx-rtmp, which denies publishing
/// so, does it 0.2 ms after it has accepted.
const DROP_LIMIT: Duration = Duration::from_secs(1);
const PING_EVERY: Duration = Duration::from_secs(1);
const READ_BYTES: usize = 16 << 10;
const SEND_BUFFER_BYTES: usize = 256 << 10;

/// One stream, with what outlives its connections.
pub struct RtmpDriver<'a, D> {
    url: &'a RtmpUrl,
    context: &'a StreamContext,
    dial: &'a D,
    clock: StreamTime,
}

impl<'a, D> RtmpDriver<'a, D> {
    /// To this URL, over the connections that `dial` opens.
    pub fn new(url: &'a RtmpUrl, context: &'a StreamContext, dial: &'a D) -> Self {
        Self { url, context, dial, clock: StreamTime::default() }
    }
}

impl<D: StreamDial> StreamDriver for RtmpDriver<'_, D> {
    type Fault = RtmpFault;

    async fn attempt(&mut self, budget: &mut RetryBudget) -> Result<(), RtmpFault> {
        let (url, context, dial) = (self.url, self.context, self.dial);
        let (host, port, is_tls) = (url.host(), url.port(), url.is_tls());
        let target = DialTarget { host, port, is_tls, send_buffer: SEND_BUFFER_BYTES };
        let io = tokio::select! {
            dialled = timeout(ANSWER_TIMEOUT, dial.dial(target)) => match dialled {
                Ok(io) => io?,
                Err(_) => return Err(RtmpFault::Silent { step: "the connection" }),
            },
            () = context.ring.ended() => return Ok(()),
        };
        let mut connection = StreamConnection {
            client: RtmpClient::new(url.clone()),
            muxer: FlvMuxer::new(&context.formats),
            health: HealthWatch::new(ACK_WINDOW.into(), Instant::now().into_std()),
            context,
            budget,
            clock: &mut self.clock,
            published_at: None,
            has_headers: false,
            is_flushed: true,
        };
        connection.run(io).await
    }

    fn has_begun(&self) -> bool {
        self.clock.has_begun()
    }
}

/// One connection.
struct StreamConnection<'a> {
    client: RtmpClient,
    muxer: FlvMuxer,
    health: HealthWatch,
    context: &'a StreamContext,
    budget: &'a mut RetryBudget,
    clock: &'a mut StreamTime,
    /// When the server accepted the stream.
    published_at: Option<Instant>,
    /// They were sent.
    has_headers: bool,
    /// Nothing waits in TLS.
    is_flushed: bool,
}

impl StreamConnection<'_> {
    /// Until the ring ended and is empty, or [`DRAIN_TIMEOUT`] after its end.
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
                        return Err(self.closed());
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
                unit = self.context.ring.next(), if is_idle && self.client.is_live() => match unit {
                    Some(unit) => self.on_unit(&unit),
                    None => break,
                },
                _ = steps.tick() => {
                    self.step(opened, &mut pinged)?;
                    match self.context.ring.ended_for() {
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
                    info!(stream = ?self.context.reporter, failures = self.budget.failures(), "published");
                    let now = Instant::now();
                    self.published_at = Some(now);
                    self.budget.published(now.into_std());
                    self.health = HealthWatch::new(ACK_WINDOW.into(), now.into_std());
                    if self.context.ring.begin() {
                        (self.context.key_frame)();
                    }
                    self.context.reporter.report(StreamEvent::Active);
                }
                RtmpEvent::Acknowledged { bytes } => self.health.acked(bytes),
                RtmpEvent::Pong => self.health.ponged(),
            }
        }
        Ok(())
    }

    fn on_unit(&mut self, unit: &EncodedUnit) {
        let at_ms = self.clock.at(unit.at_ns).ns() / 1_000_000;
        if !self.has_headers {
            self.has_headers = true;
            self.muxer.headers(at_ms).iter().for_each(|tag| self.client.send(tag));
        }
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
            self.context.reporter.set_lag_ms(self.lag_ms(sent_bytes));
        }
        Ok(())
    }

    /// What lies here, and what the server has not acknowledged: kernels on the way hold seconds of a slow stream.
    fn lag_ms(&self, sent_bytes: u64) -> u64 {
        let unacked_bits = self.health.unacked(sent_bytes).unwrap_or(0) * 8;
        let bitrate_kbps = bitrate_kbps(&self.context.formats);
        self.context.ring.stats().lag_ns / 1_000_000 + unacked_bits.checked_div(bitrate_kbps).unwrap_or(0)
    }

    fn failed(&self, error: &io::Error) -> RtmpFault {
        let kinds = [io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe, io::ErrorKind::UnexpectedEof];
        if kinds.contains(&error.kind()) {
            return self.closed();
        }
        self.client.broken(false, error.to_string())
    }

    /// The end of what it sends, a reset and a write into a closed connection are one thing: which comes first is chance.
    fn closed(&self) -> RtmpFault {
        if self.published_at.is_some_and(|at| at.elapsed() < DROP_LIMIT) {
            return RtmpFault::Dropped;
        }
        self.client.broken(true, "the server closed the connection".to_owned())
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
