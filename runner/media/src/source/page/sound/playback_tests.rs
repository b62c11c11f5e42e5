use super::*;

const STEREO: StreamFormat = StreamFormat { float: true, stereo: true };
const MS: i64 = RATE / 1000;

/// A client that sends frames numbered from 1 on.
struct Client {
    stream: PlaybackStream,
    mix: SoundMix,
    stats: SoundStats,
    sent: i64,
}

impl Client {
    fn new(corked: bool, now: i64) -> Self {
        let stream = PlaybackStream::new(STEREO, corked, now);
        Self { stream, mix: SoundMix::default(), stats: SoundStats::default(), sent: 0 }
    }

    fn send(&mut self, frames: i64, now: i64) {
        let numbered = (self.sent..self.sent + frames).map(|number| (number + 1) as f32 / 1e6);
        let bytes: Vec<u8> = numbered.flat_map(|sample| [sample.to_le_bytes(); 2].concat()).collect();
        self.sent += frames;
        self.stream.write(&bytes, now, &mut self.mix, &mut self.stats);
    }

    fn answer(&mut self, now: i64) -> i64 {
        let frames = self.stream.request(now).map_or(0, |bytes| i64::from(bytes) / STEREO.frame_bytes());
        if frames > 0 {
            self.send(frames, now);
        }
        frames
    }

    /// The numbers of the frames heard, 0 for silence.
    fn heard(&mut self, frames: i64) -> Vec<i64> {
        let samples = self.mix.take(frames as usize);
        samples.chunks_exact(2).map(|frame| (f64::from(frame[0]) * 1e6).round() as i64).collect()
    }
}

#[test]
fn samples_are_heard_at_their_count_however_late_they_come() {
    let mut client = Client::new(false, 100 * MS);
    client.send(TARGET_FRAMES, 100 * MS);
    let mut now = 100 * MS;
    // Answers at once, after 12 ms, after 63 ms, and after nearly half a second.
    for late in [0, 12, 63, 0, 480, 0, 0] {
        now += 10 * MS;
        let Some(bytes) = client.stream.request(now) else { panic!("not asked at {now}") };
        now += late * MS;
        client.send(i64::from(bytes) / STEREO.frame_bytes(), now);
    }
    assert_eq!(client.stats.lost_frames, 0);
    assert!(client.stats.worst_late_ms >= 460, "{:?}", client.stats);
    let heard = client.heard(100 * MS + client.sent);
    assert!(heard[..100 * MS as usize].iter().all(|number| *number == 0));
    assert!(heard[100 * MS as usize..].iter().copied().eq(1..=client.sent));
}

#[test]
fn it_is_asked_for_what_is_heard_and_no_more() {
    let mut client = Client::new(false, 0);
    client.send(TARGET_FRAMES, 0);
    assert_eq!(client.stream.request(0), None);
    assert_eq!(client.stream.request(10 * MS - 1), None);
    for second in 0..60 {
        for tick in 1..=100 {
            assert_eq!(client.answer((second * 100 + tick) * 10 * MS), 10 * MS);
        }
    }
    assert_eq!(client.sent, 60 * RATE + TARGET_FRAMES);
    // A thread that slept asks for everything at once.
    assert_eq!(client.answer(61 * RATE), RATE);
}

#[test]
fn what_is_written_while_corked_is_heard_when_it_goes_on() {
    let mut client = Client::new(true, 0);
    client.send(5 * MS, 3 * MS);
    client.send(5 * MS, 40 * MS);
    assert_eq!(client.stream.request(50 * MS), None);
    assert_eq!(client.stream.position(50 * MS), StreamPosition { playing: false, written: 80 * MS, heard: 0 });
    client.stream.uncork(100 * MS, &mut client.mix, &mut client.stats);
    client.send(10 * MS, 101 * MS);
    let position = client.stream.position(104 * MS);
    assert_eq!(position, StreamPosition { playing: true, written: 160 * MS, heard: 32 * MS });
    let heard = client.heard(120 * MS);
    assert_eq!(heard.iter().position(|number| *number != 0), Some(100 * MS as usize));
    assert!(heard[100 * MS as usize..].iter().copied().eq(1..=20 * MS));
}

#[test]
fn a_pause_moves_what_comes_after_it_and_loses_nothing() {
    let mut client = Client::new(false, 0);
    client.send(TARGET_FRAMES, 0);
    client.answer(10 * MS);
    assert_eq!(client.sent, 30 * MS);
    client.stream.cork();
    let paused = client.stream.position(200 * MS);
    assert_eq!(paused, StreamPosition { playing: false, written: 240 * MS, heard: 240 * MS });
    client.stream.uncork(200 * MS, &mut client.mix, &mut client.stats);
    // Nothing is ahead of it any more: it is asked for the whole target.
    assert_eq!(client.answer(200 * MS), TARGET_FRAMES);
    assert_eq!(client.answer(210 * MS), 10 * MS);
    assert_eq!(client.stream.position(210 * MS).heard, (240 + 80) * MS);
    let heard = client.heard(230 * MS);
    assert!(heard[..30 * MS as usize].iter().copied().eq(1..=30 * MS));
    assert!(heard[30 * MS as usize..200 * MS as usize].iter().all(|number| *number == 0));
    assert!(heard[200 * MS as usize..].iter().copied().eq(30 * MS + 1..=60 * MS));
}

#[test]
fn a_flush_forgets_what_waits_and_goes_on_from_now() {
    let mut client = Client::new(true, 0);
    client.send(TARGET_FRAMES, 0);
    client.stream.flush(10 * MS);
    client.stream.uncork(50 * MS, &mut client.mix, &mut client.stats);
    assert_eq!(client.answer(50 * MS), TARGET_FRAMES);
    let heard = client.heard(70 * MS);
    assert!(heard[..50 * MS as usize].iter().all(|number| *number == 0));
    assert!(heard[50 * MS as usize..].iter().copied().eq(20 * MS + 1..=40 * MS));
}

#[test]
fn a_stream_that_is_behind_for_seconds_goes_on_from_now() {
    let mut client = Client::new(false, 0);
    // It writes in real time, but began ten seconds late.
    let mut lost = Vec::new();
    for tick in 1_000..1_400 {
        let now = tick * 10 * MS;
        client.heard(now - RATE / 2 - client.mix.first());
        let before = client.stats.lost_frames;
        client.send(10 * MS, now);
        lost.push(client.stats.lost_frames - before);
    }
    let heard_from = lost.iter().position(|lost| *lost == 0).unwrap();
    assert!((190..=210).contains(&heard_from), "after {heard_from} writes");
    assert!(lost[heard_from..].iter().all(|lost| *lost == 0));
}

#[test]
fn a_drain_is_answered_when_everything_is_heard() {
    let mut client = Client::new(false, 0);
    client.send(TARGET_FRAMES, 0);
    client.stream.drain(7);
    assert_eq!(client.stream.drained(TARGET_FRAMES - 1), None);
    assert_eq!(client.stream.drained(TARGET_FRAMES), Some(7));
    assert_eq!(client.stream.drained(TARGET_FRAMES), None);
}

#[test]
fn formats_are_what_chromium_and_players_send() {
    let format = |format, channels, rate| StreamFormat::new(format, channels, rate);
    assert_eq!(format(SampleFormat::Float32Le, 2, 48_000), Some(STEREO));
    assert!(format(SampleFormat::S16Le, 1, 48_000).is_some_and(|mono| mono.frame_bytes() == 2));
    for (kind, channels, rate) in [
        (SampleFormat::Float32Le, 2, 44_100),
        (SampleFormat::Float32Le, 6, 48_000),
        (SampleFormat::Float32Le, 0, 48_000),
        (SampleFormat::S24Le, 2, 48_000),
    ] {
        assert_eq!(format(kind, channels, rate), None);
    }
    let mono = StreamFormat { float: false, stereo: false };
    let frames: Vec<_> = mono.frames(&[0, 64, 0, 192, 9]).collect();
    assert_eq!(frames, [[0.5, 0.5], [-0.5, -0.5]]);
}
