//! The client against a TURN server in memory, by the second.

use super::*;

const PEER: &str = "192.0.2.9:7882";
const RELAYED: &str = "198.51.100.1:50000";

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

/// Answers as coturn and pion do.
struct FakeServer {
    password: &'static str,
    nonce: u32,
    lifetime: u32,
    /// Of channel requests.
    refuses_peers: bool,
    full: bool,
    deaf: bool,
    channels: Vec<(u16, SocketAddr)>,
    /// Method and lifetime of every request that it granted.
    granted: Vec<(StunMethod, Option<u32>)>,
}

impl FakeServer {
    fn new() -> Self {
        Self {
            password: "secret",
            nonce: 1,
            lifetime: 600,
            refuses_peers: false,
            full: false,
            deaf: false,
            channels: Vec::new(),
            granted: Vec::new(),
        }
    }

    fn key(&self) -> LongTermKey {
        LongTermKey::new("user", "livekit", self.password)
    }

    fn error(&self, request: StunMessage<'_>, code: u16) -> Vec<u8> {
        let mut writer = StunWriter::new(request.method(), StunClass::Error, request.id());
        writer.put(StunAttribute::ERROR_CODE, &[0, 0, (code / 100) as u8, (code % 100) as u8]);
        if matches!(code, 401 | 438) {
            writer.put(StunAttribute::REALM, b"livekit");
            writer.put(StunAttribute::NONCE, &self.nonce.to_be_bytes());
        }
        writer.finish()
    }

    fn answer(&mut self, data: &[u8]) -> Option<Vec<u8>> {
        let request = StunMessage::read(data)?;
        if self.deaf || request.class() != StunClass::Request {
            return None;
        }
        if request.attribute(StunAttribute::USERNAME).is_none() {
            return Some(self.error(request, 401));
        }
        if request.attribute(StunAttribute::NONCE) != Some(&self.nonce.to_be_bytes()[..]) {
            return Some(self.error(request, 438));
        }
        if !request.is_signed_with(&self.key()) {
            return Some(self.error(request, 401));
        }
        let mut writer = StunWriter::new(request.method(), StunClass::Success, request.id());
        match request.method() {
            StunMethod::ALLOCATE if self.full => return Some(self.error(request, 508)),
            StunMethod::ALLOCATE => {
                assert_eq!(request.attribute(StunAttribute::REQUESTED_TRANSPORT), Some(&TRANSPORT_UDP[..]));
                writer.put_address(StunAttribute::XOR_RELAYED_ADDRESS, address(RELAYED));
                writer.put(StunAttribute::LIFETIME, &self.lifetime.to_be_bytes());
            }
            StunMethod::REFRESH => writer.put(StunAttribute::LIFETIME, &self.lifetime.to_be_bytes()),
            _ if self.refuses_peers => return Some(self.error(request, 403)),
            _ => {
                let number = request.attribute(StunAttribute::CHANNEL_NUMBER).unwrap();
                let number = u16::from_be_bytes([number[0], number[1]]);
                self.channels.push((number, request.address(StunAttribute::XOR_PEER_ADDRESS).unwrap()));
            }
        }
        self.granted.push((request.method(), request.number(StunAttribute::LIFETIME)));
        Some(writer.finish_signed(&self.key()))
    }
}

fn client(is_stream: bool, now: Instant) -> TurnClient {
    TurnClient::new("user", &Secret::new("secret".to_owned()), is_stream, now)
}

/// Carries requests and answers until both are silent; gives how many requests there were.
fn exchange(client: &mut TurnClient, server: &mut FakeServer, now: Instant) -> usize {
    let mut count = 0;
    loop {
        let requests = client.take_outgoing();
        if requests.is_empty() {
            return count;
        }
        count += requests.len();
        assert!(count < 100, "they talk without end");
        for request in requests {
            if let Some(answer) = server.answer(&request) {
                assert!(client.receive(&answer, now).is_none());
            }
        }
    }
}

/// Lets time pass in steps of the driver.
fn pass(client: &mut TurnClient, server: &mut FakeServer, from: Instant, by: Duration) -> Instant {
    let step = Duration::from_millis(200);
    let mut now = from;
    while now < from + by {
        now += step;
        client.tick(now);
        exchange(client, server, now);
    }
    now
}

#[test]
fn an_allocation_takes_a_challenge_and_a_channel_for_each_peer() {
    let (now, mut server) = (Instant::now(), FakeServer::new());
    let mut client = client(false, now);
    assert_eq!(exchange(&mut client, &mut server, now), 2);
    assert_eq!(client.take_changes(), [TurnChange::Allocated(address(RELAYED))]);
    // The first packet asks for the channel, the next one goes through it.
    assert_eq!(client.send(address(PEER), b"check", now), None);
    assert_eq!(client.send(address(PEER), b"check", now), None);
    assert_eq!(exchange(&mut client, &mut server, now), 1);
    assert_eq!(server.channels, [(FIRST_CHANNEL, address(PEER))]);
    assert_eq!(client.send(address(PEER), b"check", now).unwrap(), b"\x40\0\0\x05check");
    assert_eq!(client.receive(b"\x40\0\0\x03yes", now), Some((address(PEER), &b"yes"[..])));
    assert_eq!(client.receive(b"\x40\x01\0\x03yes", now), None, "a channel of nobody's");
    assert_eq!(client.receive(b"\x40\0\0\x04yes", now), None, "cut");
    let other = address("192.0.2.10:7882");
    assert_eq!(client.send(other, b"check", now), None);
    exchange(&mut client, &mut server, now);
    assert_eq!(client.send(other, b"check", now).unwrap()[..2], [0x40, 1]);
}

#[test]
fn what_a_peer_sends_before_its_channel_is_bound_is_heard() {
    let (now, mut server) = (Instant::now(), FakeServer::new());
    let mut client = client(false, now);
    exchange(&mut client, &mut server, now);
    let mut writer = StunWriter::new(StunMethod::DATA, StunClass::Indication, [3; 12]);
    writer.put_address(StunAttribute::XOR_PEER_ADDRESS, address(PEER));
    writer.put(StunAttribute::DATA, b"hello");
    let indication = writer.finish();
    assert_eq!(client.receive(&indication, now), Some((address(PEER), &b"hello"[..])));
}

#[test]
fn over_a_stream_channel_data_is_padded() {
    let (now, mut server) = (Instant::now(), FakeServer::new());
    let mut client = client(true, now);
    exchange(&mut client, &mut server, now);
    client.send(address(PEER), b"check", now);
    exchange(&mut client, &mut server, now);
    let framed = client.send(address(PEER), b"check", now).unwrap();
    assert_eq!(framed, b"\x40\0\0\x05check\0\0\0");
    assert_eq!(framed_bytes([0x40, 0, 0, 5]), Some(framed.len()));
    assert_eq!(framed_bytes([0x40, 0, 0, 8]), Some(12));
    assert_eq!(framed_bytes([0x01, 0x03, 0, 0x24]), Some(56));
    assert_eq!(framed_bytes(*b"\x80HTT"), None);
    // What follows the data is no part of it.
    assert_eq!(client.receive(b"\x40\0\0\x03yes\0", now), Some((address(PEER), &b"yes"[..])));
}

#[test]
fn requests_are_repeated_over_udp_and_given_up_after_eight_seconds() {
    let (now, mut server) = (Instant::now(), FakeServer { deaf: true, ..FakeServer::new() });
    let mut lost = client(false, now);
    exchange(&mut lost, &mut server, now);
    let at = pass(&mut lost, &mut server, now, seconds(7.0));
    assert_eq!(lost.take_changes(), []);
    pass(&mut lost, &mut server, at, seconds(2.0));
    assert_eq!(lost.take_changes(), [TurnChange::Failed("no answer".to_owned())]);
    assert_eq!(lost.wake_at(), None);
    // The third of the same request is heard.
    let mut slow = client(false, now);
    assert_eq!(exchange(&mut slow, &mut server, now), 1);
    slow.tick(now + seconds(0.3));
    assert_eq!(exchange(&mut slow, &mut server, now), 1);
    server.deaf = false;
    slow.tick(now + seconds(1.0));
    exchange(&mut slow, &mut server, now + seconds(1.0));
    assert_eq!(slow.take_changes(), [TurnChange::Allocated(address(RELAYED))]);
    // TCP repeats by itself.
    let mut stream = client(true, now);
    stream.take_outgoing();
    stream.tick(now + seconds(7.0));
    assert_eq!(stream.take_outgoing().len(), 0);
    stream.tick(now + seconds(8.0));
    assert_eq!(stream.take_changes(), [TurnChange::Failed("no answer".to_owned())]);
}

#[test]
fn an_hour_passes_with_nonces_that_change() {
    let (mut now, mut server) = (Instant::now(), FakeServer::new());
    let mut client = client(false, now);
    exchange(&mut client, &mut server, now);
    client.send(address(PEER), b"check", now);
    exchange(&mut client, &mut server, now);
    for _ in 0..60 {
        server.nonce += 1;
        now = pass(&mut client, &mut server, now, seconds(60.0));
        assert!(client.send(address(PEER), b"rtcp", now).is_some());
    }
    assert_eq!(client.take_changes(), [TurnChange::Allocated(address(RELAYED))]);
    let count = |method| server.granted.iter().filter(|(granted, _)| *granted == method).count();
    assert!((11..=13).contains(&count(StunMethod::REFRESH)), "{}", count(StunMethod::REFRESH));
    // The permission lasts five minutes.
    assert!((14..=16).contains(&count(StunMethod::CHANNEL_BIND)), "{}", count(StunMethod::CHANNEL_BIND));
}

#[test]
fn an_allocation_that_cannot_be_refreshed_ends_when_its_lifetime_does() {
    let (now, mut server) = (Instant::now(), FakeServer { lifetime: 60, ..FakeServer::new() });
    let mut client = client(false, now);
    exchange(&mut client, &mut server, now);
    client.take_changes();
    server.deaf = true;
    let at = pass(&mut client, &mut server, now, seconds(59.0));
    assert_eq!(client.take_changes(), []);
    pass(&mut client, &mut server, at, seconds(2.0));
    assert_eq!(client.take_changes(), [TurnChange::Failed("the allocation ran out".to_owned())]);
    assert_eq!(client.send(address(PEER), b"check", at), None);
}

#[test]
fn refusals_say_why() {
    let now = Instant::now();
    let mut server = FakeServer { full: true, ..FakeServer::new() };
    let mut full = client(false, now);
    exchange(&mut full, &mut server, now);
    assert_eq!(full.take_changes(), [TurnChange::Failed("508".to_owned())]);
    let mut server = FakeServer { password: "another", ..FakeServer::new() };
    let mut stranger = client(false, now);
    assert_eq!(exchange(&mut stranger, &mut server, now), 2);
    assert_eq!(stranger.take_changes(), [TurnChange::Failed("401".to_owned())]);
}

#[test]
fn a_server_that_never_likes_a_nonce_is_not_asked_for_ever() {
    let now = Instant::now();
    let mut client = client(false, now);
    let server = FakeServer::new();
    let mut asked = 0;
    loop {
        let requests = client.take_outgoing();
        if requests.is_empty() {
            break;
        }
        asked += requests.len();
        for request in requests {
            let stale = server.error(StunMessage::read(&request).unwrap(), 438);
            client.receive(&stale, now);
        }
    }
    assert_eq!(asked, 1 + MAX_CHALLENGES as usize);
    assert_eq!(client.take_changes(), [TurnChange::Failed("438".to_owned())]);
}

#[test]
fn an_answer_that_is_not_signed_is_not_believed() {
    let (now, mut server) = (Instant::now(), FakeServer::new());
    let mut client = client(false, now);
    let first = client.take_outgoing();
    let challenge = server.answer(&first[0]).unwrap();
    client.receive(&challenge, now);
    let signed = client.take_outgoing();
    let mut forged =
        StunWriter::new(StunMethod::ALLOCATE, StunClass::Success, StunMessage::read(&signed[0]).unwrap().id());
    forged.put_address(StunAttribute::XOR_RELAYED_ADDRESS, address("203.0.113.1:1"));
    client.receive(&forged.finish(), now);
    assert_eq!(client.take_changes(), []);
    let right = server.answer(&signed[0]).unwrap();
    client.receive(&right, now);
    assert_eq!(client.take_changes(), [TurnChange::Allocated(address(RELAYED))]);
}

#[test]
fn a_peer_that_is_refused_is_asked_for_again_after_a_while() {
    let (now, mut server) = (Instant::now(), FakeServer { refuses_peers: true, ..FakeServer::new() });
    let mut client = client(false, now);
    exchange(&mut client, &mut server, now);
    client.send(address(PEER), b"check", now);
    assert_eq!(exchange(&mut client, &mut server, now), 1);
    for _ in 0..10 {
        assert_eq!(client.send(address(PEER), b"check", now + seconds(1.0)), None);
    }
    assert_eq!(exchange(&mut client, &mut server, now), 0, "not with every check");
    server.refuses_peers = false;
    let later = now + ASK_AGAIN;
    client.send(address(PEER), b"check", later);
    exchange(&mut client, &mut server, later);
    assert!(client.send(address(PEER), b"check", later).is_some());
}

#[test]
fn an_allocation_is_given_back() {
    let (now, mut server) = (Instant::now(), FakeServer::new());
    let mut client = client(false, now);
    exchange(&mut client, &mut server, now);
    client.release(now);
    assert_eq!(exchange(&mut client, &mut server, now), 1);
    assert_eq!(server.granted.last(), Some(&(StunMethod::REFRESH, Some(0))));
    assert_eq!((client.send(address(PEER), b"check", now), client.wake_at()), (None, None));
}
