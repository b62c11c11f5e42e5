//! One SRT stream from its ring to its server: connects, sends a transport stream, notices that the server is gone, connects
//! again. The task of one stream; it waits for nothing but its own connection.

use std::time::Duration;

use bytes::Bytes;
use spillway_plan::SrtUrl;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tracing::{debug, info};

use super::fault::SrtFault;
use super::health::{AckWatch, SRT_STEP};
use super::link::{SrtDial, SrtLink};
use crate::encoded::{EncodedFormat, EncodedUnit, MediaKind};
use crate::mux::TsMuxer;
use crate::output::attempts::StreamDriver;
use crate::output::retry::RetryBudget;
use crate::output::stream::{StreamContext, StreamEvent, StreamTime};
use crate::track::Codec;

/// From the first datagram on until the server acknowledges the first packet of media.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// What waits at the end may still go out.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
/// For libsrt to close its socket.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// The end of a connection takes from a server what it has received and not yet handed on: libsrt hands a packet on when the
/// latency is over, and drops what is younger at the shutdown. The end waits for the latency, one round trip and this, in which
/// `srtsink` sends what was pushed last (the last two sound frames of 142 were lost at 0 ms, on a busy machine).
const END_MARGIN: Duration = Duration::from_millis(150);
/// The longest wait for the latency: with a longer one the server loses the end of the stream.
const MAX_END_WAIT: Duration = Duration::from_secs(4);
/// libsrt takes no more while so much waits there: the rest stays in our own ring, where it can be dropped.
const MAX_WAITING_BYTES: u64 = 512 << 10;
/// Seven packets: one datagram (`SRT_LIVE_DEF_PLSIZE`).
const DATAGRAM_BYTES: usize = 7 * 188;

/// A packet that every receiver drops (PID 0x1fff). `srtsink` tells that a handshake failed when it has something to send.
static NULL_PACKET: [u8; 188] = {
    let mut packet = [0xff; 188];
    packet[0] = 0x47;
    packet[1] = 0x1f;
    packet[3] = 0x10;
    packet
};

/// One stream, with what outlives its connections.
pub struct SrtDriver<'a, D> {
    url: &'a SrtUrl,
    context: &'a StreamContext,
    dial: &'a D,
    clock: StreamTime,
}

impl<'a, D> SrtDriver<'a, D> {
    /// To this URL, over the connections that `dial` opens.
    pub fn new(url: &'a SrtUrl, context: &'a StreamContext, dial: &'a D) -> Self {
        Self { url, context, dial, clock: StreamTime::default() }
    }
}

impl<D: SrtDial> StreamDriver for SrtDriver<'_, D> {
    type Fault = SrtFault;

    async fn attempt(&mut self, budget: &mut RetryBudget) -> Result<(), SrtFault> {
        let (url, context, dial) = (self.url, self.context, self.dial);
        let opened = Instant::now();
        let muxer = muxer(&context.formats).ok_or(SrtFault::Format)?;
        let link = tokio::select! {
            dialled = timeout(CONNECT_TIMEOUT, dial.dial(url)) => match dialled {
                Ok(link) => link?,
                Err(_) => return Err(SrtFault::Silent),
            },
            () = context.ring.ended() => return Ok(()),
        };
        let mut connection = SrtConnection {
            url,
            context,
            link: &link,
            budget,
            clock: &mut self.clock,
            muxer,
            packets: Vec::new(),
            sent_bytes: 0,
            opened,
            stage: SrtStage::Connecting,
        };
        let outcome = connection.run().await;
        if timeout(CLOSE_TIMEOUT, link.close()).await.is_err() {
            debug!(stream = ?context.reporter, "a connection is slow to close");
        }
        outcome
    }

    fn has_begun(&self) -> bool {
        self.clock.has_begun()
    }
}

/// A fresh one for each connection: its receiver knows nothing yet.
fn muxer(formats: &[EncodedFormat]) -> Option<TsMuxer> {
    let has_video = formats.iter().any(|format| matches!(format, EncodedFormat::Video { codec: Codec::H264, .. }));
    let aac_rate = formats.iter().find_map(|format| match format {
        EncodedFormat::Aac { rate, .. } => Some(*rate),
        _ => None,
    });
    TsMuxer::new(has_video, aac_rate)
}

/// One connection.
struct SrtConnection<'a, L> {
    url: &'a SrtUrl,
    context: &'a StreamContext,
    link: &'a L,
    budget: &'a mut RetryBudget,
    clock: &'a mut StreamTime,
    muxer: TsMuxer,
    /// Not yet cut into datagrams.
    packets: Vec<u8>,
    sent_bytes: u64,
    opened: Instant,
    stage: SrtStage,
}

/// How far a connection has come.
enum SrtStage {
    /// The handshake is under way.
    Connecting,
    /// It is done: media is sent, and nothing acknowledged.
    Connected,
    /// The server takes what is sent.
    Active(AckWatch),
}

impl<L: SrtLink> SrtConnection<'_, L> {
    /// Until the ring ended and is empty, or [`DRAIN_TIMEOUT`] after its end.
    async fn run(&mut self) -> Result<(), SrtFault> {
        let mut steps = interval(SRT_STEP);
        steps.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let is_ready =
                !matches!(self.stage, SrtStage::Connecting) && self.link.waiting_bytes() <= MAX_WAITING_BYTES;
            tokio::select! {
                unit = self.context.ring.next(), if is_ready => match unit {
                    Some(unit) => self.on_unit(&unit),
                    None => break,
                },
                _ = steps.tick() => {
                    self.step()?;
                    match (self.context.ring.ended_for(), &self.stage) {
                        (Some(_), SrtStage::Connecting) => return Ok(()),
                        (Some(ended), _) if ended >= DRAIN_TIMEOUT => break,
                        _ => {}
                    }
                }
            }
        }
        self.drain().await;
        Ok(())
    }

    fn step(&mut self) -> Result<(), SrtFault> {
        let now = Instant::now();
        if let Some(text) = self.link.error() {
            let is_connected = !matches!(self.stage, SrtStage::Connecting);
            return Err(SrtFault::of_element(self.url, is_connected, &text));
        }
        let acks = self.link.stats().map(|stats| stats.acks);
        match &mut self.stage {
            SrtStage::Connecting if acks.is_some() => self.connected(),
            SrtStage::Connected if acks.is_some_and(|acks| acks > 0) => self.active(now, acks.unwrap_or_default()),
            SrtStage::Connecting | SrtStage::Connected if now.duration_since(self.opened) >= CONNECT_TIMEOUT => {
                return Err(SrtFault::Silent);
            }
            SrtStage::Connecting => self.link.send(Bytes::from_static(&NULL_PACKET)),
            SrtStage::Connected => {}
            SrtStage::Active(watch) => {
                let is_waiting = self.link.waiting_bytes() > 0;
                if let Some(quiet) = watch.step(now.into_std(), acks, self.sent_bytes, is_waiting) {
                    return Err(SrtFault::Wedged { quiet });
                }
                self.context.reporter.set_lag_ms(self.context.ring.stats().lag_ns / 1_000_000);
            }
        }
        Ok(())
    }

    /// The handshake is done. A receiver begins with the tables and a key frame.
    fn connected(&mut self) {
        self.stage = SrtStage::Connected;
        if self.context.ring.begin() {
            (self.context.key_frame)();
        }
        self.muxer.begin_segment(&mut self.packets);
        self.send();
    }

    fn active(&mut self, now: Instant, acks: u64) {
        info!(stream = ?self.context.reporter, failures = self.budget.failures(), "published");
        self.stage = SrtStage::Active(AckWatch::new(now.into_std(), acks, self.sent_bytes));
        self.budget.published(now.into_std());
        self.context.reporter.report(StreamEvent::Active);
    }

    fn on_unit(&mut self, unit: &EncodedUnit) {
        let at = self.clock.at(unit.at_ns);
        match unit.kind {
            MediaKind::Video => self.muxer.video(at, unit.key, &unit.data, &mut self.packets),
            MediaKind::Audio => self.muxer.audio(at, &unit.data, &mut self.packets),
        }
        self.send();
    }

    fn send(&mut self) {
        let packets = Bytes::from(std::mem::take(&mut self.packets));
        self.sent_bytes += packets.len() as u64;
        let mut begin = 0;
        while begin < packets.len() {
            let end = packets.len().min(begin + DATAGRAM_BYTES);
            self.link.send(packets.slice(begin..end));
            begin = end;
        }
    }

    /// The last sound, and the time after which the server has handed it on.
    async fn drain(&mut self) {
        self.muxer.end_segment(&mut self.packets);
        self.send();
        if let Some(stats) = self.link.stats() {
            let latency = Duration::from_millis(stats.latency_ms.saturating_add(stats.rtt_ms));
            sleep((latency + END_MARGIN).min(MAX_END_WAIT)).await;
        }
    }
}

#[cfg(test)]
#[path = "driver_tests.rs"]
mod tests;
