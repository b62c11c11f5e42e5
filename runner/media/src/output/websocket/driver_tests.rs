//! A stream's task against a websocket server in memory, in tokio's paused time.

use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_tungstenite::accept_async;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::*;
use crate::encoded::{EncodedFormat, MediaKind, StreamNumber};
use crate::output::ring::{RingBounds, UnitRing};
use crate::output::stream::StreamEnd;
use crate::output::stream_dial::DialError;
use crate::output::stream_test::TestStream;
use crate::output::websocket::{KEPT_NS, send};

const URL: &str = "ws://user:canary-0@h/audio?token=canary-1";
const BLOCK_MS: u64 = 20;

type Server = WebSocketStream<DuplexStream>;

/// Hands the server's end of each connection to the test; refuses when the test takes no more.
struct MemoryDial {
    dialled: mpsc::UnboundedSender<DuplexStream>,
    /// Bytes that a connection holds on the way.
    holds: usize,
}

impl StreamDial for MemoryDial {
    type Io = DuplexStream;

    async fn dial(&self, _: DialTarget<'_>) -> Result<DuplexStream, DialError> {
        let (ours, theirs) = tokio::io::duplex(self.holds);
        let unreachable = |_| DialError::Connect { message: "no listener".to_owned() };
        self.dialled.send(theirs).map_err(unreachable)?;
        Ok(ours)
    }
}

struct Running {
    stream: TestStream,
    task: JoinHandle<StreamEnd>,
    dialled: mpsc::UnboundedReceiver<DuplexStream>,
}

fn running() -> Running {
    over(32 << 10)
}

/// Over connections that hold so many bytes.
fn over(holds: usize) -> Running {
    let (dial, dialled) = mpsc::unbounded_channel();
    let dial = MemoryDial { dialled: dial, holds };
    let (context, stream) = TestStream::new(URL, vec![EncodedFormat::Pcm], RingBounds::Samples { max_ns: KEPT_NS });
    let task = tokio::spawn(async move {
        let url = WebsocketUrl::parse(context.url.reveal()).unwrap();
        send(&context, &mut WebsocketDriver::new(&url, &context, &dial)).await
    });
    Running { stream, task, dialled }
}

impl Running {
    async fn connection(&mut self) -> DuplexStream {
        self.dialled.recv().await.unwrap()
    }

    async fn server(&mut self) -> Server {
        let connection = self.connection().await;
        accept_async(connection).await.unwrap()
    }
}

fn retrying(message: &str, retries: u32) -> StreamEvent {
    StreamEvent::Retrying { message: message.to_owned(), retries }
}

/// A block whose first bytes are its number.
fn block(number: u64) -> EncodedUnit {
    let mut data = vec![0; 3840];
    data[..8].copy_from_slice(&number.to_le_bytes());
    let (stream, kind) = (StreamNumber(0), MediaKind::Audio);
    let at_ns = number * BLOCK_MS * 1_000_000;
    EncodedUnit {
        stream,
        kind,
        key: true,
        at_ns,
        offset_ns: 0,
        duration_ns: BLOCK_MS * 1_000_000,
        data: Bytes::from(data),
    }
}

fn feed(ring: &Arc<UnitRing>) -> JoinHandle<()> {
    let ring = ring.clone();
    tokio::spawn(async move {
        for number in 0.. {
            ring.put(block(number));
            sleep(Duration::from_millis(BLOCK_MS)).await;
        }
    })
}

/// What a server was sent: numbers of blocks, and texts between them.
#[derive(Debug, Default)]
struct Heard {
    blocks: Vec<u64>,
    /// With the number of the block behind it.
    texts: Vec<(usize, String)>,
    closed: Option<Option<CloseFrame>>,
}

/// Reads, and so answers pings, for so long or until the end.
async fn hear(server: &mut Server, time: Duration) -> Heard {
    let (until, mut heard) = (Instant::now() + time, Heard::default());
    while let Ok(Some(Ok(message))) = tokio::time::timeout_at(until, server.next()).await {
        match message {
            Message::Binary(data) => {
                assert_eq!(data.len(), 3840);
                heard.blocks.push(u64::from_le_bytes(data[..8].try_into().unwrap()));
            }
            Message::Text(text) => heard.texts.push((heard.blocks.len(), text.to_string())),
            Message::Close(frame) => heard.closed = Some(frame),
            _ => {}
        }
    }
    heard
}

#[tokio::test(start_paused = true)]
async fn every_block_arrives_and_the_end_is_a_close_frame_without_a_code() {
    let mut running = running();
    let feed = feed(&running.stream.ring);
    let mut server = running.server().await;
    let mut heard = hear(&mut server, Duration::from_secs(10)).await;
    assert!((495..=502).contains(&heard.blocks.len()), "{}", heard.blocks.len());
    feed.abort();
    running.stream.ring.end();
    let rest = hear(&mut server, Duration::from_secs(10)).await;
    heard.blocks.extend(rest.blocks);
    assert_eq!(heard.blocks, (0..heard.blocks.len() as u64).collect::<Vec<_>>());
    assert_eq!((heard.texts, rest.closed), (vec![], Some(None)));
    assert_eq!(running.task.await.unwrap(), StreamEnd::Finished);
    assert_eq!(running.stream.ring.stats().dropped, 0);
}

#[tokio::test(start_paused = true)]
async fn mutes_stand_between_their_blocks_and_are_told_again_to_another_connection() {
    let mut running = running();
    running.stream.mutes.set(1_000_000_000, true);
    running.stream.mutes.set(1_500_000_000, false);
    running.stream.mutes.set(2_500_000_000, true);
    let feed = feed(&running.stream.ring);
    let mut server = running.server().await;
    let heard = hear(&mut server, Duration::from_millis(3010)).await;
    let texts: Vec<(usize, &str)> = heard.texts.iter().map(|(at, text)| (*at, text.as_str())).collect();
    assert_eq!(texts, [(50, r#"{"muted":true}"#), (75, r#"{"muted":false}"#), (125, r#"{"muted":true}"#)]);
    drop(server);
    let mut server = running.server().await;
    let heard = hear(&mut server, Duration::from_secs(1)).await;
    assert_eq!(heard.texts, [(0, r#"{"muted":true}"#.to_owned())]);
    feed.abort();
}

#[tokio::test(start_paused = true)]
async fn a_server_that_comes_back_gets_the_last_two_seconds() {
    let mut running = running();
    let feed = feed(&running.stream.ring);
    let mut server = running.server().await;
    let before = hear(&mut server, Duration::from_secs(3)).await;
    drop(server);
    // Connections that nothing answers: the handshake takes its whole time.
    let silent = running.connection().await;
    sleep(Duration::from_millis(5500)).await;
    drop(silent);
    let mut server = running.server().await;
    let after = hear(&mut server, Duration::from_secs(1)).await;
    let lost = after.blocks[0] - before.blocks.last().unwrap();
    assert!(after.blocks.windows(2).all(|pair| pair[1] == pair[0] + 1));
    // Away for about seven seconds, two of which are kept.
    assert!((220..290).contains(&lost), "{lost} blocks");
    assert!(after.blocks.len() >= 140, "the kept ones come at once: {}", after.blocks.len());
    let said = running.stream.said();
    assert_eq!(said[..2], [StreamEvent::Connecting, StreamEvent::Active]);
    let silence = said.iter().any(|event| *event == retrying("no answer to the websocket's handshake", 2));
    assert!(silence && said.last() == Some(&StreamEvent::Active), "{said:?}");
    feed.abort();
}

#[tokio::test(start_paused = true)]
async fn what_a_server_answers_at_first_is_told() {
    for (answer, told, retries) in [
        ("HTTP/1.1 401 Unauthorized\r\n\r\n", "the server answered 401 Unauthorized", 0),
        ("HTTP/1.1 503 Service Unavailable\r\n\r\n", "the server answered 503 Service Unavailable", 2),
        ("SSH-2.0-canary-1\r\n\r\n", "websocket handshake: ", 2),
    ] {
        let mut running = running();
        running.stream.ring.put(block(0));
        // Until the stream's task has ended.
        while let Some(mut connection) = running.dialled.recv().await {
            let mut request = [0; 1024];
            let length = connection.read(&mut request).await.unwrap();
            let request = String::from_utf8_lossy(&request[..length]).to_lowercase();
            assert!(request.starts_with("get /audio?token=canary-1 http/1.1\r\n"), "{request}");
            assert!(request.contains("content-type: audio/x-raw") && request.contains("authorization: basic "));
            connection.write_all(answer.as_bytes()).await.unwrap();
        }
        let StreamEnd::Failed { code, message } = (&mut running.task).await.unwrap() else { panic!("{answer}") };
        assert_eq!(code, "invalid_argument");
        assert!(message.starts_with(told) && !message.contains("canary"), "{message}");
        assert_eq!(running.stream.said().len(), 1 + retries);
    }
}

#[tokio::test(start_paused = true)]
async fn a_close_frame_says_whether_it_is_dialled_again() {
    for (code, is_final) in [(CloseCode::Normal, true), (CloseCode::Policy, true), (CloseCode::Restart, false)] {
        let mut running = running();
        let feed = feed(&running.stream.ring);
        let mut server = running.server().await;
        hear(&mut server, Duration::from_secs(3)).await;
        let frame = CloseFrame { code, reason: "not canary-1".into() };
        server.close(Some(frame)).await.unwrap();
        let rest = hear(&mut server, Duration::from_secs(1)).await;
        assert!(rest.closed.is_some(), "the close frame is answered");
        let told = format!("the server closed the connection ({}: not {{...}})", u16::from(code));
        if is_final {
            assert_eq!((&mut running.task).await.unwrap(), StreamEnd::unavailable(told));
        } else {
            let _server = running.server().await;
            assert_eq!(running.stream.said()[2], retrying(&told, 1));
        }
        feed.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_hangs_is_found_after_four_seconds() {
    let mut running = running();
    let feed = feed(&running.stream.ring);
    let mut server = running.server().await;
    hear(&mut server, Duration::from_secs(3)).await;
    let hung = Instant::now();
    let _second = running.connection().await;
    assert!(
        hung.elapsed() >= Duration::from_secs(3) && hung.elapsed() < Duration::from_secs(6),
        "{:?}",
        hung.elapsed()
    );
    let said = running.stream.said();
    let is_wedged = |event: &StreamEvent| match event {
        StreamEvent::Retrying { message, .. } => message.starts_with("the server has not answered for 4."),
        _ => false,
    };
    assert!(said.iter().any(is_wedged), "{said:?}");
    let stats = running.stream.ring.stats();
    assert!(stats.lag_ns <= KEPT_NS, "{stats:?}");
    assert!(running.stream.reporter.lag_ms() >= 1000, "{} ms", running.stream.reporter.lag_ms());
    feed.abort();
}

/// Where the text does not fit into the socket, its block waits in the library, not in the task.
#[tokio::test(start_paused = true)]
async fn a_mute_on_a_full_socket_holds_up_no_step() {
    // A ping, two blocks of 20 ms, and less or more room than a text needs behind them.
    const PING_BYTES: usize = 7;
    const BLOCK_BYTES: usize = 3848;
    for room in (0..40).step_by(5) {
        let mut running = over(PING_BYTES + 2 * BLOCK_BYTES + room);
        running.stream.mutes.set(2 * BLOCK_MS * 1_000_000, true);
        let feed = feed(&running.stream.ring);
        let _silent = running.server().await;
        let opened = Instant::now();
        let _second = running.connection().await;
        assert!(opened.elapsed() < Duration::from_secs(6), "{room} bytes: {:?}", opened.elapsed());
        feed.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn an_end_is_not_waited_for_longer_than_three_seconds() {
    let mut running = running();
    let feed = feed(&running.stream.ring);
    let mut server = running.server().await;
    hear(&mut server, Duration::from_secs(3)).await;
    // It neither reads nor answers.
    sleep(Duration::from_secs(1)).await;
    feed.abort();
    let ended = Instant::now();
    running.stream.ring.end();
    assert_eq!(running.task.await.unwrap(), StreamEnd::Finished);
    assert!(ended.elapsed() <= DRAIN_TIMEOUT + WEBSOCKET_STEP + CLOSE_TIMEOUT, "{:?}", ended.elapsed());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever bytes come behind a good handshake, in whatever pieces: no panic, no secret, and the end comes in time.
    #[test]
    fn a_storm_of_frames(
        pieces in proptest::collection::vec(
            (proptest::collection::vec(prop_oneof![
                3 => any::<u8>(),
                // Frames that are whole: text, binary, close, ping, pong.
                2 => proptest::sample::select(vec![0x81u8, 0x82, 0x88, 0x89, 0x8a, 0x00, 0x01, 0x02]),
            ], 0..60), 0u64..1500),
            0..20,
        ),
    ) {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut running = running();
            let feed = feed(&running.stream.ring);
            let server = running.server().await;
            sleep(Duration::from_millis(10)).await;
            let (mut read, mut write) = tokio::io::split(server.into_inner());
            // Its half is read, so that nothing waits for it.
            let reader = tokio::spawn(async move {
                let mut buffer = [0; 4096];
                while read.read(&mut buffer).await.is_ok_and(|length| length > 0) {}
            });
            for (bytes, wait_ms) in pieces {
                // The stream may have hung up.
                let _ = write.write_all(&bytes).await;
                sleep(Duration::from_millis(wait_ms)).await;
            }
            feed.abort();
            running.stream.ring.end();
            let ended = Instant::now();
            let end = (&mut running.task).await.unwrap();
            assert!(ended.elapsed() <= DRAIN_TIMEOUT + WEBSOCKET_STEP + CLOSE_TIMEOUT, "{:?}", ended.elapsed());
            assert!(!format!("{end:?}").contains("canary"), "{end:?}");
            let said = running.stream.said();
            assert_eq!(said[..2], [StreamEvent::Connecting, StreamEvent::Active]);
            reader.abort();
        });
    }
}
