//! A stream's task against a small RTMP server in memory, in tokio's paused time.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::super::amf::{self, AmfValue};
use super::super::chunk::{ChunkReader, ChunkWriter, RtmpMessage};
use super::*;
use crate::encoded::{MediaKind, StreamNumber};
use crate::output::attempts::publish;
use crate::output::ring::{RingBounds, UnitRing};
use crate::output::stream_dial::DialError;
use crate::output::stream_test::{TestStream, picture_and_sound};

/// Hands the server's end of each connection to the test; refuses when the test takes no more.
struct MemoryDial(mpsc::UnboundedSender<FakeServer>);

impl StreamDial for MemoryDial {
    type Io = DuplexStream;

    async fn dial(&self, _: DialTarget<'_>) -> Result<DuplexStream, DialError> {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let unreachable = |_| DialError::Connect { message: "no listener".to_owned() };
        self.0.send(FakeServer::new(theirs)).map_err(unreachable)?;
        Ok(ours)
    }
}

/// Answers when the test says so.
struct FakeServer {
    io: DuplexStream,
    reader: ChunkReader,
    waiting: VecDeque<RtmpMessage>,
}

impl FakeServer {
    fn new(io: DuplexStream) -> Self {
        Self { io, reader: ChunkReader::default(), waiting: VecDeque::new() }
    }

    async fn handshake(&mut self) {
        let mut hello = vec![0; 1537];
        self.io.read_exact(&mut hello).await.unwrap();
        self.io.write_all(&[&[3][..], &[0; 1536], &hello[1..]].concat()).await.unwrap();
        self.io.read_exact(&mut hello[1..]).await.unwrap();
    }

    /// The next message; `None` at the end of the connection.
    async fn next(&mut self) -> Option<RtmpMessage> {
        let mut buffer = vec![0; 4096];
        while self.waiting.is_empty() {
            let length = self.io.read(&mut buffer).await.ok().filter(|length| *length > 0)?;
            self.waiting.extend(self.reader.push(&buffer[..length]).unwrap());
        }
        self.waiting.pop_front()
    }

    async fn send(&mut self, kind: u8, body: &[u8]) {
        let mut out = Vec::new();
        ChunkWriter::default().write(&mut out, 3, kind, 0, 0, body);
        // The client may be gone.
        let _ = self.io.write_all(&out).await;
    }

    async fn answer(&mut self, name: &str, id: f64, argument: AmfValue) {
        let values = [AmfValue::text(name), AmfValue::Number(id), AmfValue::Null, argument];
        self.send(RtmpMessage::COMMAND, &amf::encode(&values)).await;
    }

    /// Up to the `publish` command.
    async fn until_publish(&mut self) {
        self.handshake().await;
        loop {
            let message = self.next().await.unwrap();
            if message.kind != RtmpMessage::COMMAND {
                continue;
            }
            let values = amf::decode(&message.body).unwrap();
            let id = values[1].as_number().unwrap();
            match values[0].as_text().unwrap() {
                "connect" => self.answer("_result", id, AmfValue::Null).await,
                "createStream" => self.answer("_result", id, AmfValue::Number(1.0)).await,
                "publish" => return,
                _ => {}
            }
        }
    }

    async fn status(&mut self, level: &str, code: &str) {
        let member = |(name, text): (&str, &str)| (name.to_owned(), AmfValue::text(text));
        let members = [("level", level), ("code", code), ("description", "told by the server")].map(member);
        self.answer("onStatus", 0.0, AmfValue::Object(members.into())).await;
    }

    async fn accept(&mut self) {
        self.until_publish().await;
        self.status("status", "NetStream.Publish.Start").await;
    }

    /// Answers pings and acknowledges for so long; what was received of media: kind, time, first two bytes.
    async fn receive_for(&mut self, time: Duration) -> Vec<(u8, u32, [u8; 2])> {
        let (until, mut media) = (Instant::now() + time, vec![]);
        while let Ok(Some(message)) = tokio::time::timeout_at(until, self.next()).await {
            match message.kind {
                RtmpMessage::USER_CONTROL => {
                    let pong = [&[0, 7][..], &message.body[2..]].concat();
                    self.send(RtmpMessage::USER_CONTROL, &pong).await;
                }
                RtmpMessage::AUDIO | RtmpMessage::VIDEO => {
                    media.push((message.kind, message.time_ms, [message.body[0], message.body[1]]));
                }
                _ => {}
            }
        }
        media
    }
}

struct Running {
    stream: TestStream,
    task: JoinHandle<Result<(), RtmpFault>>,
    servers: mpsc::UnboundedReceiver<FakeServer>,
}

fn running() -> Running {
    let (dialled, servers) = mpsc::unbounded_channel();
    let (context, stream) = TestStream::new("rtmp://h/app/canary-key", picture_and_sound(), RingBounds::Pictures);
    let task = tokio::spawn(async move {
        let url = RtmpUrl::parse(context.url.reveal()).unwrap();
        publish(&context, &mut RtmpDriver::new(&url, &context, &MemoryDial(dialled))).await
    });
    Running { stream, task, servers }
}

impl Running {
    async fn server(&mut self) -> FakeServer {
        self.servers.recv().await.unwrap()
    }
}

/// Why it was tried again.
fn retried(events: &[StreamEvent]) -> Vec<String> {
    let message = |event: &StreamEvent| match event {
        StreamEvent::Retrying { message, .. } => Some(message.clone()),
        _ => None,
    };
    events.iter().filter_map(message).collect()
}

fn picture(at_ms: u64, key: bool, bytes: usize) -> EncodedUnit {
    let head: &[u8] =
        if key { &[0, 0, 1, 0x67, 77, 0, 31, 1, 0, 0, 1, 0x68, 1, 2, 0, 0, 1, 0x65] } else { &[0, 0, 1, 0x41] };
    let data = Bytes::from([head, &vec![5; bytes]].concat());
    let (kind, at_ns) = (MediaKind::Video, at_ms * 1_000_000);
    EncodedUnit { stream: StreamNumber(0), kind, key, at_ns, offset_ns: 0, duration_ns: 0, data }
}

fn sound(at_ms: u64) -> EncodedUnit {
    EncodedUnit { stream: StreamNumber(1), kind: MediaKind::Audio, ..picture(at_ms, true, 1) }
}

/// Puts pictures in, ten a second with a key frame each two seconds, until it is aborted.
fn feed(ring: &Arc<UnitRing>, bytes: usize) -> JoinHandle<()> {
    let ring = ring.clone();
    tokio::spawn(async move {
        for n in 0u64.. {
            ring.put(picture(n * 100, n % 20 == 0, bytes));
            sleep(Duration::from_millis(100)).await;
        }
    })
}

#[tokio::test(start_paused = true)]
async fn frames_go_out_in_their_time_and_the_end_is_told() {
    let mut running = running();
    let mut server = running.server().await;
    running.stream.ring.put(picture(5000, true, 10_000));
    server.accept().await;
    running.stream.ring.put(sound(5010));
    running.stream.ring.put(picture(5040, false, 10));
    running.stream.ring.end();
    assert_eq!(running.task.await.unwrap(), Ok(()));
    let mut told = vec![];
    while let Some(message) = server.next().await {
        told.push(match message.kind {
            RtmpMessage::COMMAND => amf::decode(&message.body).unwrap()[0].as_text().unwrap().to_owned(),
            kind => format!("{kind} {} {:x}{:x}", message.time_ms, message.body[0], message.body[1]),
        });
    }
    let frames = ["8 0 af0", "9 0 170", "9 0 171", "8 10 af1", "9 40 271", "FCUnpublish", "deleteStream"];
    assert!(told[0].starts_with("18 0"), "{told:?}");
    assert_eq!(told[1..], frames);
}

#[tokio::test(start_paused = true)]
async fn a_refused_key_is_told_in_the_servers_text_at_once() {
    let mut running = running();
    let mut server = running.server().await;
    server.until_publish().await;
    server.status("error", "NetStream.Publish.BadName").await;
    let fault = running.task.await.unwrap().unwrap_err();
    assert_eq!(fault.to_string(), "the server refused: NetStream.Publish.BadName: told by the server");
    assert!(running.servers.recv().await.is_none(), "tried again");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_closes_at_publish_refuses() {
    let mut running = running();
    let mut server = running.server().await;
    server.until_publish().await;
    drop(server);
    assert_eq!(running.task.await.unwrap(), Err(RtmpFault::Closed { step: "publish" }));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_accepts_and_closes_is_found_to_refuse_within_a_second() {
    let (began, mut running) = (Instant::now(), running());
    let feed = feed(&running.stream.ring, 100);
    for _ in 0..2 {
        running.server().await.accept().await;
    }
    assert_eq!((&mut running.task).await.unwrap(), Err(RtmpFault::Dropped));
    assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
    assert!(running.servers.recv().await.is_none(), "tried again");
    let refused = RtmpFault::Dropped.to_string();
    assert!(refused.starts_with("the server closed the connection right after `publish`"), "{refused}");
    assert_eq!(retried(&running.stream.said()), [refused]);
    feed.abort();
}

#[tokio::test(start_paused = true)]
async fn a_server_that_restarts_at_the_first_publish_is_not_taken_for_a_refusal() {
    let mut running = running();
    let feed = feed(&running.stream.ring, 100);
    let mut server = running.server().await;
    server.accept().await;
    drop(server);
    let shut_down = Instant::now();
    // What was left of it, twice.
    drop(running.server().await);
    drop(running.server().await);
    let mut server = running.server().await;
    assert!(shut_down.elapsed() > Duration::from_secs(2), "{:?}", shut_down.elapsed());
    server.accept().await;
    assert!(!server.receive_for(Duration::from_secs(3)).await.is_empty());
    assert_eq!(running.stream.said().last(), Some(&StreamEvent::Active));
    feed.abort();
}

#[tokio::test(start_paused = true)]
async fn a_key_that_the_lost_connection_still_has_is_asked_for_again_soon() {
    // A stream that has lived, and one that has not.
    for (life_ms, refusals) in [(3000, 4), (1500, 2)] {
        let mut running = running();
        let feed = feed(&running.stream.ring, 100);
        let mut server = running.server().await;
        server.accept().await;
        server.receive_for(Duration::from_millis(life_ms)).await;
        drop(server);
        let lost = Instant::now();
        for _ in 0..refusals {
            let mut server = running.server().await;
            server.until_publish().await;
            server.status("error", "NetStream.Publish.BadName").await;
        }
        running.server().await.accept().await;
        assert!(lost.elapsed() < Duration::from_secs(1), "{life_ms}: {:?}", lost.elapsed());
        feed.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_says_nothing_gets_one_try_of_five_seconds() {
    let (began, mut running) = (Instant::now(), running());
    let _server = running.server().await;
    let fault = running.task.await.unwrap();
    assert_eq!(fault, Err(RtmpFault::Silent { step: "the RTMP handshake" }));
    assert!(began.elapsed() < ANSWER_TIMEOUT + HEALTH_STEP * 2);
}

#[tokio::test(start_paused = true)]
async fn an_unreachable_server_gets_three_tries_in_two_seconds() {
    let (began, running) = (Instant::now(), running());
    drop(running.servers);
    let fault = running.task.await.unwrap();
    assert!(matches!(fault, Err(RtmpFault::Dial(DialError::Connect { .. }))), "{fault:?}");
    assert_eq!(began.elapsed().as_secs(), 2);
}

#[tokio::test(start_paused = true)]
async fn time_goes_on_over_a_reconnect_that_begins_at_a_key_frame() {
    let mut running = running();
    let feed = feed(&running.stream.ring, 100);
    let mut server = running.server().await;
    server.accept().await;
    let before = server.receive_for(Duration::from_millis(4250)).await;
    assert_eq!((before[1], before[2]), ((9, 0, [0x17, 0]), (9, 0, [0x17, 1])));
    drop(server);
    let mut server = running.server().await;
    server.accept().await;
    let after = server.receive_for(Duration::from_millis(200)).await;
    // Lost at 4.25 s: the key frame of 4 s was sent already, the ring is empty; the next one is of 6 s.
    assert!(after.is_empty(), "{after:?}");
    let after = server.receive_for(Duration::from_secs(2)).await;
    // The headers too have the time that it is.
    assert_eq!(after[..3], [(8, 6000, [0xaf, 0]), (9, 6000, [0x17, 0]), (9, 6000, [0x17, 1])]);
    feed.abort();
    running.stream.ring.end();
    assert_eq!((&mut running.task).await.unwrap(), Ok(()));
    let lost = "the connection was lost: the server closed the connection".to_owned();
    let retrying = StreamEvent::Retrying { message: lost, retries: 1 };
    assert_eq!(running.stream.said(), [StreamEvent::Connecting, StreamEvent::Active, retrying, StreamEvent::Active]);
    // The first connection began at the key frame that lay there. One is asked for at the loss, and again when the second
    // connection begins without it.
    assert_eq!(running.stream.asked_key_frames(), 2);
}

/// An encoder: 30 pictures a second, a key frame each two seconds, and the next picture after a key frame was asked for.
async fn encode(stream: &TestStream) {
    let mut answered = 0;
    for n in 0u64.. {
        let asked = stream.asked_key_frames();
        stream.ring.put(picture(n * 33, n % 60 == 0 || asked > answered, 100));
        answered = asked;
        sleep(Duration::from_millis(33)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_next_connection_begins_at_a_key_frame_that_was_asked_for_at_the_loss() {
    let Running { stream, task: _task, mut servers } = running();
    let watched = async {
        let mut server = servers.recv().await.unwrap();
        server.accept().await;
        server.receive_for(Duration::from_secs(5)).await;
        drop(server);
        let mut server = servers.recv().await.unwrap();
        // The way to the server; to nginx on this machine it is 45 ms.
        sleep(Duration::from_millis(100)).await;
        server.accept().await;
        server.receive_for(Duration::from_millis(100)).await
    };
    let after = tokio::select! {
        after = watched => after,
        () = encode(&stream) => panic!("it has no end"),
    };
    // Lost at 5 s, and 150 ms later there again: all pictures since the one after the loss came.
    let times: Vec<u32> = after.iter().filter(|(_, _, head)| head[1] == 1).map(|(_, time_ms, _)| *time_ms).collect();
    assert!(matches!(after[..3], [(8, _, [0xaf, 0]), (9, _, [0x17, 0]), (9, _, [0x17, 1])]), "{after:?}");
    assert!((5000..5050).contains(&times[0]) && times.windows(2).all(|pair| pair[1] - pair[0] == 33), "{times:?}");
    assert_eq!(stream.asked_key_frames(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_hangs_is_found_in_little_more_than_four_seconds() {
    let mut running = running();
    let feed = feed(&running.stream.ring, 100);
    let mut server = running.server().await;
    server.accept().await;
    server.receive_for(Duration::from_secs(3)).await;
    running.stream.said();
    // It neither reads nor answers, and its connection stays open.
    let hung = Instant::now();
    let mut second = running.server().await;
    assert!(hung.elapsed() > Duration::from_secs(3) && hung.elapsed() < Duration::from_secs(5), "{:?}", hung.elapsed());
    assert_eq!(retried(&running.stream.said()), ["the server has not answered for 4.0 s"]);
    second.accept().await;
    assert!(!second.receive_for(Duration::from_secs(3)).await.is_empty());
    feed.abort();
}

#[tokio::test(start_paused = true)]
async fn a_server_that_stops_reading_is_found_though_it_never_answered() {
    let mut running = running();
    let feed = feed(&running.stream.ring, 20_000);
    let mut server = running.server().await;
    server.accept().await;
    sleep(Duration::from_secs(8)).await;
    assert_eq!(retried(&running.stream.said()), ["the server has not answered for 4.0 s"]);
    let stats = running.stream.ring.stats();
    assert!(stats.lag_ns <= 5_000_000_000, "{stats:?}");
    assert!(running.stream.reporter.lag_ms() >= 2000, "{} ms", running.stream.reporter.lag_ms());
    feed.abort();
}

#[tokio::test(start_paused = true)]
async fn the_end_does_not_wait_for_a_slow_server() {
    let mut running = running();
    let mut server = running.server().await;
    server.accept().await;
    sleep(Duration::from_millis(100)).await;
    for n in 0..40 {
        running.stream.ring.put(picture(n * 100, n == 0, 20_000));
    }
    let ended = Instant::now();
    running.stream.ring.end();
    assert_eq!(running.task.await.unwrap(), Ok(()));
    assert!(ended.elapsed() < DRAIN_TIMEOUT + END_TIMEOUT + HEALTH_STEP * 2, "{:?}", ended.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_end_during_a_wait_is_not_waited_for() {
    let mut running = running();
    let feed = feed(&running.stream.ring, 100);
    let mut server = running.server().await;
    server.accept().await;
    server.receive_for(Duration::from_secs(3)).await;
    drop((server, running.servers));
    sleep(Duration::from_secs(5)).await;
    let ended = Instant::now();
    running.stream.ring.end();
    assert_eq!((running.task.await.unwrap(), ended.elapsed()), (Ok(()), Duration::ZERO));
    feed.abort();
}
