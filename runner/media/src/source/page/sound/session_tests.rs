use pulseaudio::protocol::{
    CorkStreamParams, DESCRIPTOR_SIZE, GetSinkInfo, Props, SinkInfoList, read_descriptor, read_reply_message,
};

use super::*;

const COOKIE: &[u8] = b"a cookie of 256 bytes, in life";
const MS: i64 = 48;

/// A client of the same crate, without a socket.
struct Caller {
    session: PulseSession,
    mix: SoundMix,
    stats: SoundStats,
    out: Vec<u8>,
    now: i64,
}

impl Caller {
    fn new(trusted: bool) -> Self {
        let (mix, stats) = (SoundMix::default(), SoundStats::default());
        Self { session: PulseSession::new(trusted), mix, stats, out: Vec::new(), now: 0 }
    }

    fn message(&mut self, channel: u32, payload: &[u8]) -> Result<(), SessionError> {
        let sink = SinkContext { now: self.now, mix: &mut self.mix, stats: &mut self.stats };
        self.session.on_message(channel, payload, COOKIE, sink, &mut self.out)
    }

    fn send(&mut self, number: u32, command: &Command) -> Result<(), SessionError> {
        let mut bytes = Vec::new();
        protocol::write_command_message(&mut bytes, number, command, protocol::MAX_VERSION).unwrap();
        self.message(COMMANDS, &bytes[DESCRIPTOR_SIZE..])
    }

    fn answer<R: CommandReply>(&mut self) -> (u32, R) {
        let (answer, length) = {
            let mut read = Cursor::new(&self.out[..]);
            let answer = read_reply_message(&mut read, protocol::MAX_VERSION).unwrap();
            (answer, read.position() as usize)
        };
        self.out.drain(..length);
        answer
    }

    fn ask<R: CommandReply>(&mut self, command: &Command) -> R {
        self.send(77, command).unwrap();
        let (number, answer) = self.answer();
        assert_eq!(number, 77);
        assert!(self.out.is_empty());
        answer
    }

    fn refusal(&mut self, command: &Command) -> PulseError {
        self.send(78, command).unwrap();
        let mut read = Cursor::new(&self.out[..]);
        let Err(ProtocolError::ServerError(error)) = read_reply_message::<LookupReply>(&mut read, 35) else {
            panic!("no refusal")
        };
        self.out.clear();
        error
    }

    fn ack(&mut self, command: &Command) {
        self.send(79, command).unwrap();
        assert_eq!(protocol::read_ack_message(&mut Cursor::new(&self.out[..])).unwrap(), 79);
        self.out.clear();
    }

    /// What the client is asked for at this time: channel and bytes.
    fn requests(&mut self) -> Vec<(u32, u32)> {
        self.session.tick(self.now, &mut self.out).unwrap();
        let mut requests = Vec::new();
        let mut read = Cursor::new(&self.out[..]);
        while (read.position() as usize) < self.out.len() {
            let (number, command) = protocol::read_command_message(&mut read, protocol::MAX_VERSION).unwrap();
            assert_eq!(number, COMMANDS);
            let Command::Request(request) = command else { panic!("{command:?}") };
            requests.push((request.channel, request.length));
        }
        self.out.clear();
        requests
    }

    fn enter(&mut self) {
        let auth = AuthParams {
            version: protocol::MAX_VERSION,
            supports_shm: true,
            supports_memfd: true,
            cookie: COOKIE.to_vec(),
        };
        let reply: AuthReply = self.ask(&Command::Auth(auth));
        assert_eq!(reply, AuthReply { version: protocol::MAX_VERSION, use_memfd: false, use_shm: false });
    }
}

fn stream(format: SampleFormat, corked: bool) -> Command {
    let mut asked = PlaybackStreamParams {
        sample_spec: SampleSpec { format, channels: 2, sample_rate: 48_000 },
        channel_map: ChannelMap::stereo(),
        ..Default::default()
    };
    asked.flags.start_corked = corked;
    Command::CreatePlaybackStream(asked)
}

#[test]
fn chromiums_way_is_answered_by_the_clock() {
    let mut caller = Caller::new(false);
    caller.enter();
    caller.ask::<SetClientNameReply>(&Command::SetClientName(Props::new()));
    let server: ServerInfo = caller.ask(&Command::GetServerInfo);
    assert_eq!((server.default_sink_name, server.sample_spec.sample_rate), (Some(sink_name()), 48_000));
    let sinks: SinkInfoList = caller.ask(&Command::GetSinkInfoList);
    assert_eq!(sinks.len(), 1);
    let made: CreatePlaybackStreamReply = caller.ask(&stream(SampleFormat::Float32Le, true));
    assert_eq!((made.requested_bytes, made.buffer_attr.minimum_request_length), (7_680, 3_840));
    assert!(caller.requests().is_empty());

    caller.now = 1_000 * MS;
    caller.ack(&Command::CorkPlaybackStream(CorkStreamParams { channel: made.channel, cork: false }));
    let sample = 0.25f32.to_le_bytes().repeat(7_680 / 4);
    caller.message(made.channel, &sample).unwrap();
    caller.now = 1_012 * MS;
    // 12 ms of 8 bytes a sample.
    assert_eq!(caller.requests(), [(made.channel, 4_608)]);
    let asked = LatencyParams { channel: made.channel, now: SystemTime::UNIX_EPOCH };
    let latency: PlaybackLatency = caller.ask(&Command::GetPlaybackLatency(asked));
    assert_eq!((latency.playing, latency.write_offset, latency.read_offset), (true, 7_680, 4_608));
    assert_eq!(latency.local_time, SystemTime::UNIX_EPOCH);

    let heard = caller.mix.take(1_030 * MS as usize);
    let places: Vec<usize> = (0..heard.len() / 2).filter(|frame| heard[2 * frame] != 0.0).collect();
    assert_eq!((places.first(), places.last()), (Some(&(1_000 * MS as usize)), Some(&(1_020 * MS as usize - 1))));
}

#[test]
fn two_streams_of_a_client_are_mixed_and_a_deleted_one_is_heard() {
    let mut caller = Caller::new(true);
    caller.enter();
    let one: CreatePlaybackStreamReply = caller.ask(&stream(SampleFormat::Float32Le, false));
    let other: CreatePlaybackStreamReply = caller.ask(&stream(SampleFormat::S16Le, false));
    caller.message(one.channel, &0.25f32.to_le_bytes().repeat(4)).unwrap();
    caller.message(other.channel, &8_192i16.to_le_bytes().repeat(4)).unwrap();
    caller.ack(&Command::DeletePlaybackStream(one.channel));
    // Of a stream that is no more.
    caller.message(one.channel, &[1; 800]).unwrap();
    assert_eq!(caller.mix.take(2), [0.5; 4]);
    let asked = LatencyParams { channel: one.channel, now: SystemTime::UNIX_EPOCH };
    assert_eq!(caller.refusal(&Command::GetPlaybackLatency(asked)), PulseError::NoEntity);
}

#[test]
fn a_drain_is_answered_once_all_is_heard() {
    let mut caller = Caller::new(true);
    caller.enter();
    let made: CreatePlaybackStreamReply = caller.ask(&stream(SampleFormat::S16Le, false));
    // 20 ms of 4 bytes a sample.
    caller.message(made.channel, &[1; 3_840]).unwrap();
    caller.send(80, &Command::DrainPlaybackStream(made.channel)).unwrap();
    assert!(caller.out.is_empty());
    caller.now = 9 * MS;
    assert!(caller.requests().is_empty());
    caller.now = 20 * MS;
    caller.session.tick(caller.now, &mut caller.out).unwrap();
    let mut read = Cursor::new(&caller.out[..]);
    let (_, request) = protocol::read_command_message(&mut read, protocol::MAX_VERSION).unwrap();
    assert!(matches!(request, Command::Request(_)));
    assert_eq!(protocol::read_ack_message(&mut read).unwrap(), 80);
}

#[test]
fn a_stranger_is_sent_away() {
    let auth = |version, cookie: &[u8]| {
        Command::Auth(AuthParams { version, supports_shm: false, supports_memfd: false, cookie: cookie.to_vec() })
    };
    let mut caller = Caller::new(false);
    assert!(matches!(caller.send(1, &Command::GetServerInfo), Err(SessionError::Refused)));
    assert!(matches!(caller.send(1, &auth(35, &[0; 256])), Err(SessionError::Refused)));
    assert!(!caller.out.is_empty(), "it is told why");
    let mut caller = Caller::new(true);
    assert!(matches!(caller.send(1, &auth(8, COOKIE)), Err(SessionError::Refused)), "too old");
    caller.out.clear();
    // A process of ours needs no cookie.
    let old: Result<(), SessionError> = caller.send(1, &auth(32, &[]));
    assert!(old.is_ok());
    let (_, reply): (u32, AuthReply) = caller.answer();
    assert_eq!(reply.version, 32);
}

#[test]
fn what_cannot_be_done_is_refused_and_the_client_stays() {
    let mut caller = Caller::new(true);
    caller.enter();
    assert_eq!(caller.refusal(&stream(SampleFormat::S24Le, false)), PulseError::NotSupported);
    assert_eq!(caller.refusal(&Command::GetSinkInputInfo(5)), PulseError::NoEntity);
    assert_eq!(caller.refusal(&Command::DrainPlaybackStream(9)), PulseError::NoEntity);
    assert_eq!(caller.refusal(&Command::FlushPlaybackStream(9)), PulseError::NoEntity);
    // A tag, a command that does not exist, a tag, its number.
    let unknown = [b'L', 0, 0, 0, 200, b'L', 0, 0, 0, 42];
    caller.message(COMMANDS, &unknown).unwrap();
    let mut read = Cursor::new(&caller.out[..]);
    let length = read_descriptor(&mut read).unwrap().length as usize;
    assert_eq!(caller.out[DESCRIPTOR_SIZE..].len(), length);
    assert_eq!(caller.out[DESCRIPTOR_SIZE + 6..DESCRIPTOR_SIZE + 10], [0, 0, 0, 42]);
    caller.out.clear();
    let garbage: [&[u8]; 4] = [&[], b"L", &[0; 12], &[255; 300]];
    for garbage in garbage {
        caller.message(COMMANDS, garbage).unwrap();
    }
    caller.out.clear();
    caller.ask::<SinkInfo>(&Command::GetSinkInfo(GetSinkInfo { index: None, name: Some(sink_name()) }));
}
