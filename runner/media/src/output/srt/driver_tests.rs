//! A stream's task against a server in memory, in tokio's paused time.

use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::super::link::SrtStats;
use super::*;
use crate::encoded::StreamNumber;
use crate::output::attempts::publish;
use crate::output::ring::{RingBounds, UnitRing};
use crate::output::stream_dial::DialError;
use crate::output::stream_test::{TestStream, picture_and_sound};

const URL: &str = "srt://h:9000?passphrase=canary-0123&streamid=canary-id";

/// What a connection is like at the moment; the test moves it.
#[derive(Default)]
struct FakeState {
    stats: Option<SrtStats>,
    error: Option<String>,
    waiting: u64,
    sent: Vec<u8>,
    is_closed: bool,
}

#[derive(Clone, Default)]
struct FakeLink(Arc<Mutex<FakeState>>);

impl FakeLink {
    fn with<T>(&self, change: impl FnOnce(&mut FakeState) -> T) -> T {
        change(&mut self.0.lock().unwrap())
    }

    fn acknowledge(&self, acks: u64) {
        self.with(|state| state.stats = Some(SrtStats { acks, latency_ms: 120, rtt_ms: 30 }));
    }

    fn fail(&self, text: &str) {
        self.with(|state| state.error = Some(format!("Failed to write to SRT socket: {text}")));
    }

    /// PIDs of what was sent since the last call.
    fn pids(&self) -> Vec<u16> {
        let sent = self.with(|state| std::mem::take(&mut state.sent));
        assert_eq!(sent.len() % 188, 0);
        sent.chunks(188).map(|packet| u16::from_be_bytes([packet[1] & 0x1f, packet[2]])).collect()
    }
}

impl SrtLink for FakeLink {
    fn stats(&self) -> Option<SrtStats> {
        self.with(|state| state.stats)
    }

    fn error(&self) -> Option<String> {
        self.with(|state| state.error.clone())
    }

    fn waiting_bytes(&self) -> u64 {
        self.with(|state| state.waiting)
    }

    fn send(&self, packets: Bytes) {
        assert!(packets.len() <= DATAGRAM_BYTES && !packets.is_empty());
        self.with(|state| state.sent.extend_from_slice(&packets));
    }

    async fn close(self) {
        self.with(|state| state.is_closed = true);
    }
}

/// Hands the other end of each connection to the test; finds no address when the test takes no more.
struct MemoryDial(mpsc::UnboundedSender<FakeLink>);

impl SrtDial for MemoryDial {
    type Link = FakeLink;

    async fn dial(&self, _: &SrtUrl) -> Result<FakeLink, SrtFault> {
        let link = FakeLink::default();
        let sent = self.0.send(link.clone());
        sent.map_err(|_| DialError::Resolve { message: "no such host".to_owned() })?;
        Ok(link)
    }
}

struct Running {
    stream: TestStream,
    task: JoinHandle<Result<(), SrtFault>>,
    links: mpsc::UnboundedReceiver<FakeLink>,
}

fn running() -> Running {
    let (dialled, links) = mpsc::unbounded_channel();
    let (context, stream) = TestStream::new(URL, picture_and_sound(), RingBounds::Pictures);
    let task = tokio::spawn(async move {
        let url = SrtUrl::parse(context.url.reveal()).unwrap();
        publish(&context, &mut SrtDriver::new(&url, &context, &MemoryDial(dialled))).await
    });
    Running { stream, task, links }
}

impl Running {
    async fn link(&mut self) -> FakeLink {
        self.links.recv().await.unwrap()
    }
}

fn retrying(message: &str, retries: u32) -> StreamEvent {
    StreamEvent::Retrying { message: message.to_owned(), retries }
}

fn picture(at_ms: u64, key: bool) -> EncodedUnit {
    let start: &[u8] = if key { &[0, 0, 0, 1, 0x67, 1, 0, 0, 1, 0x68, 2, 0, 0, 1, 0x65] } else { &[0, 0, 0, 1, 0x41] };
    let data = Bytes::from([start, &[0x55; 400]].concat());
    let (stream, kind) = (StreamNumber(0), MediaKind::Video);
    EncodedUnit { stream, kind, key, at_ns: at_ms * 1_000_000, offset_ns: 0, duration_ns: 0, data }
}

/// Ten pictures a second, a key frame every two.
fn feed(ring: &Arc<UnitRing>) -> JoinHandle<()> {
    let ring = ring.clone();
    tokio::spawn(async move {
        for n in 0u64.. {
            ring.put(picture(n * 100, n % 20 == 0));
            sleep(Duration::from_millis(100)).await;
        }
    })
}

/// Acknowledges everything from now on.
fn answer(link: &FakeLink) -> JoinHandle<()> {
    let link = link.clone();
    tokio::spawn(async move {
        for acks in 1.. {
            link.acknowledge(acks);
            sleep(Duration::from_millis(50)).await;
        }
    })
}

#[tokio::test(start_paused = true)]
async fn a_server_that_answers_gets_tables_and_a_key_frame_first() {
    let mut running = running();
    let feed = feed(&running.stream.ring);
    let link = running.link().await;
    sleep(Duration::from_millis(450)).await;
    assert!(link.pids().iter().all(|pid| *pid == 0x1fff), "nothing but what is dropped before the connection");
    link.acknowledge(0);
    sleep(Duration::from_millis(250)).await;
    assert_eq!(running.stream.said(), [StreamEvent::Connecting], "nothing was acknowledged");
    let pids = link.pids();
    let media: Vec<u16> = pids.into_iter().filter(|pid| *pid != 0x1fff).collect();
    assert_eq!(media[..3], [0, 0x1000, 0x100]);
    link.acknowledge(1);
    sleep(Duration::from_millis(150)).await;
    assert_eq!(running.stream.said(), [StreamEvent::Active]);
    assert_eq!(running.stream.asked_key_frames(), 0, "a key frame was at hand");
    let ended = Instant::now();
    feed.abort();
    running.stream.ring.end();
    assert_eq!(running.task.await.unwrap(), Ok(()));
    assert!(link.with(|state| state.is_closed) && ended.elapsed() < Duration::from_millis(500));
    // Latency, round trip, and what lies between our push and the sending: before that the server drops the end.
    assert!(ended.elapsed() >= Duration::from_millis(120 + 30) + END_MARGIN);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_told_at_once_and_silence_after_five_seconds() {
    for (text, told, within) in [
        (Some("Failed to authenticate: Incorrect passphrase"), "the server refused: Failed to auth", 200),
        (Some("Error on SRT socket: Connection timeout"), "could not connect: no answer", 200),
        (Some("no stream canary-id"), "the server refused: no stream {...}", 200),
        (None, "could not connect: no answer", 5200),
    ] {
        let mut running = running();
        let feed = feed(&running.stream.ring);
        let asked = Instant::now();
        let link = running.link().await;
        text.iter().for_each(|text| link.fail(text));
        let fault = (&mut running.task).await.unwrap().unwrap_err();
        assert!(fault.to_string().starts_with(told), "{fault}");
        assert!(asked.elapsed() < Duration::from_millis(within), "{:?}", asked.elapsed());
        assert!(link.with(|state| state.is_closed));
        assert_eq!(running.stream.said(), [StreamEvent::Connecting]);
        feed.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn a_host_without_an_address_is_tried_three_times() {
    let mut running = running();
    running.links.close();
    let feed = feed(&running.stream.ring);
    let fault = (&mut running.task).await.unwrap().unwrap_err();
    assert!(matches!(fault, SrtFault::Dial(DialError::Resolve { .. })), "{fault}");
    let again = |retries| retrying("the host cannot be resolved: no such host", retries);
    assert_eq!(running.stream.said(), [StreamEvent::Connecting, again(1), again(2)]);
    feed.abort();
}

#[tokio::test(start_paused = true)]
async fn a_server_that_stops_acknowledging_is_left_after_three_seconds_and_its_time_goes_on() {
    let mut running = running();
    let feed = feed(&running.stream.ring);
    let first = running.link().await;
    let answers = answer(&first);
    sleep(Duration::from_millis(4050)).await;
    answers.abort();
    let stopped = Instant::now();
    let second = running.link().await;
    let after = stopped.elapsed();
    assert!(after >= Duration::from_millis(2900) && after < Duration::from_millis(3500), "{after:?}");
    assert!(first.with(|state| state.is_closed));
    let quiet = "the server has not acknowledged anything for 3.0 s";
    assert_eq!(running.stream.said(), [StreamEvent::Connecting, StreamEvent::Active, retrying(quiet, 1)]);
    let answers = answer(&second);
    sleep(Duration::from_millis(500)).await;
    assert_eq!(running.stream.said(), [StreamEvent::Active]);
    // Between two key frames: one is asked for at the loss, and again at the beginning, as none has come.
    assert_eq!(running.stream.asked_key_frames(), 2);
    answers.abort();
    feed.abort();
}

#[tokio::test(start_paused = true)]
async fn a_loss_is_tried_again_for_half_a_minute() {
    let mut running = running();
    let feed = feed(&running.stream.ring);
    let link = running.link().await;
    let answers = answer(&link);
    sleep(Duration::from_secs(3)).await;
    answers.abort();
    link.fail("Error on SRT socket: Unknown or erroneous");
    running.links.close();
    let lost = Instant::now();
    let fault = (&mut running.task).await.unwrap().unwrap_err();
    assert!(lost.elapsed() >= Duration::from_secs(30) && lost.elapsed() < Duration::from_secs(32));
    assert!(matches!(fault, SrtFault::Dial(DialError::Resolve { .. })), "{fault}");
    let said = running.stream.said();
    assert_eq!(said[2], retrying("the connection was lost: Unknown or erroneous", 1));
    feed.abort();
}

#[tokio::test(start_paused = true)]
async fn what_libsrt_does_not_take_waits_in_the_ring_and_the_end_does_not_wait_for_it() {
    let mut running = running();
    let feed = feed(&running.stream.ring);
    let link = running.link().await;
    let answers = answer(&link);
    sleep(Duration::from_secs(1)).await;
    link.with(|state| state.waiting = MAX_WAITING_BYTES + 1);
    sleep(Duration::from_millis(300)).await;
    link.pids();
    sleep(Duration::from_secs(8)).await;
    assert!(link.pids().is_empty(), "it takes nothing");
    let stats = running.stream.ring.stats();
    assert!(stats.lag_ns <= 5_000_000_000 && stats.dropped > 0, "{stats:?}");
    feed.abort();
    let ended = Instant::now();
    running.stream.ring.end();
    assert_eq!(running.task.await.unwrap(), Ok(()));
    assert!(ended.elapsed() < DRAIN_TIMEOUT + MAX_END_WAIT, "{:?}", ended.elapsed());
    answers.abort();
}

#[tokio::test(start_paused = true)]
async fn an_end_before_the_connection_is_waited_for_by_nothing() {
    let mut running = running();
    running.stream.ring.put(picture(0, true));
    let _link = running.link().await;
    let ended = Instant::now();
    running.stream.ring.end();
    assert_eq!(running.task.await.unwrap(), Ok(()));
    assert!(ended.elapsed() <= SRT_STEP * 2, "{:?}", ended.elapsed());
}

/// What may happen to a connection.
#[derive(Clone, Debug)]
enum Chance {
    Counts(Option<u64>),
    Error(u8),
    Waiting(bool),
    Wait(u64),
}

fn chance() -> impl Strategy<Value = Chance> {
    prop_oneof![
        4 => proptest::option::of(0u64..5).prop_map(Chance::Counts),
        1 => (0u8..3).prop_map(Chance::Error),
        1 => any::<bool>().prop_map(Chance::Waiting),
        6 => (0u64..2500).prop_map(Chance::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever libsrt counts and says: the events are in order, the end comes in time, and every connection is closed.
    #[test]
    fn a_storm_of_stats(chances in proptest::collection::vec(chance(), 0..60)) {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut running = running();
            let feed = feed(&running.stream.ring);
            let mut links = vec![running.link().await];
            for chance in chances {
                links.extend(std::iter::from_fn(|| running.links.try_recv().ok()));
                let link = links.last().unwrap().clone();
                match chance {
                    Chance::Counts(acks) => link.with(|state| {
                        state.stats = acks.map(|acks| SrtStats { acks, latency_ms: 99_999, rtt_ms: u64::MAX });
                    }),
                    Chance::Error(number) => {
                        link.fail(["Error on SRT socket: Connection timeout", "", "canary-id"][usize::from(number)]);
                    }
                    Chance::Waiting(full) => link.with(|state| state.waiting = if full { u64::MAX } else { 0 }),
                    Chance::Wait(ms) => sleep(Duration::from_millis(ms)).await,
                }
            }
            feed.abort();
            running.stream.ring.end();
            let ended = Instant::now();
            let outcome = (&mut running.task).await.unwrap();
            assert!(ended.elapsed() < DRAIN_TIMEOUT + MAX_END_WAIT + CLOSE_TIMEOUT, "{:?}", ended.elapsed());
            assert!(outcome.is_ok() || !outcome.unwrap_err().to_string().contains("canary"));
            links.extend(std::iter::from_fn(|| running.links.try_recv().ok()));
            assert!(links.iter().all(|link| link.with(|state| state.is_closed)));
            let said = running.stream.said();
            assert_eq!(said.first(), Some(&StreamEvent::Connecting));
            let active = said.iter().filter(|event| **event == StreamEvent::Active).count();
            assert!(active <= links.len() && !said[1..].contains(&StreamEvent::Connecting));
        });
    }
}
