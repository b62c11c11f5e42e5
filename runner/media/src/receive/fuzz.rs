//! What no publisher sends: arbitrary packets, reports and signalling, by seed, into a whole receiver. Whatever comes, it holds a
//! bounded number of bytes, places nothing outside its window, never goes back, and does not panic. Feature `testing`.
//!
//! Half of it is nearly right (frames of each codec in order, some of them damaged), because what is plainly wrong is thrown
//! away at the first look. Time passes by chance, and not at all in floods.

mod stream;

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use spillway_plan::StereoSide;

use self::stream::FuzzStream;
use super::event::{Publication, RoomEvent, SourceTime};
use super::placement::ReceiveOptions;
use super::track_receiver::{EmptyStart, TrackReceiver};
use crate::track::{Codec, TimelineEvent, TrackId, TrackSource};
use crate::units::{MediaTime, Ssrc};

/// Streams and publications that come and go.
const STREAMS: usize = 6;
const PUBLICATIONS: u32 = 8;
const IDENTITIES: [&str; 3] = ["alice", "bob", "carol"];
const SOURCES: [TrackSource; 5] = [
    TrackSource::Camera,
    TrackSource::Microphone,
    TrackSource::ScreenShare,
    TrackSource::ScreenShareAudio,
    TrackSource::Unknown,
];
/// Three times 16 MiB (packets, frames without a place, frames of a lower layer), and what made the last of them too many.
const MAX_STREAM_BYTES: usize = 50 << 20;
/// A sentence may be heard 4 s after it came; times of one stream differ by a millisecond.
const MAX_AHEAD_NS: u64 = 4_001_000_000;
/// A track is muted up to half a second behind its last frame, and over as much behind that.
const MAX_END_AHEAD_NS: u64 = MAX_AHEAD_NS + 1_000_000_001;
/// Nanoseconds since 1970 that an NTP time stamp can say.
const NTP: std::ops::Range<i64> = -2_208_988_800_000_000_000..2_085_978_496_000_000_000;

/// What became of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FuzzFigures {
    /// Packets, reports, signals and ticks.
    pub inputs: u64,
    /// Frames that were placed.
    pub frames: u64,
    /// Most bytes that were held at a time.
    pub held_bytes: usize,
    /// The furthest that a frame was placed ahead of the moment at which it was, nanoseconds.
    pub ahead_ns: u64,
}

impl FuzzFigures {
    /// Of both runs.
    pub fn and(self, other: Self) -> Self {
        Self {
            inputs: self.inputs + other.inputs,
            frames: self.frames + other.frames,
            held_bytes: self.held_bytes.max(other.held_bytes),
            ahead_ns: self.ahead_ns.max(other.ahead_ns),
        }
    }
}

/// The receiver did what it must never do.
#[derive(Debug, thiserror::Error)]
#[error("seed {seed}, input {input}: {message}")]
pub struct FuzzFault {
    /// Of the run.
    pub seed: u64,
    /// Number of the input, from 0.
    pub input: u64,
    /// What it did.
    pub message: String,
}

/// Gives a new receiver so many inputs, and then the end.
///
/// # Errors
///
/// When it breaks one of its bounds. The same seed does so again. It panics where the receiver does.
pub fn fuzz(seed: u64, inputs: u64) -> Result<FuzzFigures, FuzzFault> {
    let mut session = FuzzSession::new(seed);
    for input in 0..inputs {
        session.input();
        session.check(false).map_err(|message| FuzzFault { seed, input, message })?;
    }
    session.receiver.finish(session.at);
    session.check(true).map_err(|message| FuzzFault { seed, input: inputs, message })?;
    Ok(FuzzFigures { inputs, ..session.figures })
}

struct FuzzSession {
    rng: SmallRng,
    receiver: TrackReceiver,
    at: SourceTime,
    streams: Vec<FuzzStream>,
    /// Newest place of each track, and the watermark.
    placed: BTreeMap<TrackId, MediaTime>,
    complete: MediaTime,
    figures: FuzzFigures,
}

impl FuzzSession {
    fn new(seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let reorder_wait = Duration::from_millis([500, 2000][rng.random_range(0..2usize)]);
        let late = Duration::from_millis([500, 2000, 10_000][rng.random_range(0..3usize)]);
        let begins_empty = [EmptyStart::Never, EmptyStart::Muted, EmptyStart::Always][rng.random_range(0..3usize)];
        let receiver = TrackReceiver::new(ReceiveOptions { reorder_wait, late })
            .begins_muted(rng.random_bool(0.5))
            .begins_without_media(begins_empty)
            .best_layer_of(if rng.random_bool(0.5) { &[Codec::H264, Codec::Vp8] } else { &[] });
        let streams = (1..=STREAMS as u32).map(|number| FuzzStream::new(Ssrc::new(number))).collect();
        Self {
            rng,
            receiver,
            at: SourceTime::ZERO,
            streams,
            placed: BTreeMap::new(),
            complete: MediaTime::ZERO,
            figures: FuzzFigures::default(),
        }
    }

    fn input(&mut self) {
        match self.rng.random_range(0..100) {
            0..80 => self.packet(),
            80..85 => self.report(),
            85..95 => {
                self.pass();
                self.receiver.tick(self.at);
            }
            _ => self.signal(),
        }
    }

    /// Time goes by.
    fn pass(&mut self) {
        let most_ms: u64 = match self.rng.random_range(0..1000) {
            0 => 60_000,
            1..10 => 2000,
            10..500 => 20,
            _ => 1,
        };
        self.at += Duration::from_micros(self.rng.random_range(0..most_ms * 1000));
    }

    fn packet(&mut self) {
        let index = self.rng.random_range(0..STREAMS);
        self.streams[index].go_on(&mut self.rng);
        // A flood is one stream's, and takes no time.
        let flood = self.streams.iter().position(FuzzStream::is_flooding);
        let index = flood.filter(|_| self.rng.random_bool(0.9)).unwrap_or(index);
        if flood.is_none() {
            self.pass();
        }
        let event = self.streams[index].packet(&mut self.rng);
        self.receiver.push(event, self.at);
    }

    fn report(&mut self) {
        let index = self.rng.random_range(0..STREAMS);
        let is_right = self.rng.random_bool(0.7);
        let (anywhere, wire_rtp) = (self.rng.random_range(NTP), self.rng.random::<u32>());
        let stream = &self.streams[index];
        let ntp = if is_right { 1_700_000_000_000_000_000 + self.at.as_nanos() as i64 } else { anywhere };
        let rtp = if is_right { stream.rtp.on_wire() } else { wire_rtp };
        self.receiver.push(RoomEvent::Report { stream: stream.ssrc, rtp, ntp }, self.at);
    }

    fn signal(&mut self) {
        let ssrc = self.streams[self.rng.random_range(0..STREAMS)].ssrc;
        let sid = format!("TR_{}", self.rng.random_range(0..PUBLICATIONS));
        let on = self.rng.random_bool(0.5);
        let identity = IDENTITIES[self.rng.random_range(0..IDENTITIES.len())].to_owned();
        let event = match self.rng.random_range(0..100) {
            0..40 => {
                let publication = Publication {
                    sid,
                    identity,
                    agent: on,
                    side: StereoSide::Both,
                    origin: SOURCES[self.rng.random_range(0..SOURCES.len())],
                    size: (self.rng.random_range(0..5000), self.rng.random_range(0..5000)),
                    muted: self.rng.random_bool(0.2),
                };
                RoomEvent::Opened { stream: ssrc, publication }
            }
            40..55 => RoomEvent::Closed { stream: ssrc },
            55..65 => RoomEvent::Published { sid, video: on, muted: self.rng.random_bool(0.2) },
            65..80 => RoomEvent::Muted { sid, muted: on },
            80..85 => RoomEvent::Left { sid },
            85..87 => RoomEvent::Refused { sid },
            87 => RoomEvent::Interrupted,
            88..90 => RoomEvent::Trouble { on },
            90..92 => RoomEvent::Held { on },
            92..94 => RoomEvent::Speakers { identities: vec![identity] },
            94 => RoomEvent::Layout { name: identity },
            _ => {
                let track = TrackId(self.rng.random_range(0..20));
                return self.receiver.ask_for(track, on);
            }
        };
        self.receiver.push(event, self.at);
    }

    /// What came of an input. `over`: nothing more comes, and all is complete.
    fn check(&mut self, over: bool) -> Result<(), String> {
        let now = MediaTime::from(self.at.saturating_sub(self.receiver.origin().unwrap_or(self.at)));
        let (placed, complete, figures) = (&mut self.placed, &mut self.complete, &mut self.figures);
        for event in self.receiver.drain() {
            match event {
                TimelineEvent::Frame(frame) => {
                    let ahead_ns = frame.at.ns_since(now);
                    figures.frames += 1;
                    figures.ahead_ns = figures.ahead_ns.max(ahead_ns);
                    if ahead_ns > MAX_AHEAD_NS {
                        return Err(format!("a frame of {:?} is placed {ahead_ns} ns ahead", frame.track));
                    }
                    let before = placed.insert(frame.track, frame.at);
                    if before.is_some_and(|before| before >= frame.at) {
                        return Err(format!("a frame of {:?} at {:?} behind {before:?}", frame.track, frame.at));
                    }
                }
                TimelineEvent::Muted { track, at, .. }
                | TimelineEvent::Left { track, at }
                | TimelineEvent::Lost { track, at, .. }
                    if at.ns_since(now) > MAX_END_AHEAD_NS.max(complete.ns_since(now)) =>
                {
                    return Err(format!("{track:?} ends {} ns ahead", at.ns_since(now)));
                }
                TimelineEvent::Watermark { at } => {
                    if at <= *complete && *complete > MediaTime::ZERO || !over && at > now {
                        return Err(format!("the watermark goes from {complete:?} to {at:?} at {now:?}"));
                    }
                    *complete = at;
                }
                _ => {}
            }
        }
        // As the room does: what is asked for, and what is said.
        self.receiver.keyframes_wanted();
        self.receiver.take_notes();
        let held = self.receiver.held_bytes();
        self.figures.held_bytes = self.figures.held_bytes.max(held);
        if held > STREAMS * MAX_STREAM_BYTES {
            return Err(format!("{held} bytes are held"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    /// Of `cargo verify`; `SPILLWAY_FUZZ_SECONDS` for more, `SPILLWAY_FUZZ_SEED` for one run.
    const SECONDS: u64 = 60;
    const INPUTS: u64 = 20_000;

    #[test]
    fn whatever_comes_is_held_within_bounds_and_placed_within_the_window() {
        let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let length = Duration::from_secs(number("SPILLWAY_FUZZ_SECONDS").unwrap_or(SECONDS));
        let seeds = match number("SPILLWAY_FUZZ_SEED") {
            Some(seed) => seed..seed + 1,
            None => 0..u64::MAX,
        };
        let (begun, mut all) = (Instant::now(), FuzzFigures::default());
        for seed in seeds {
            // Of a panic nothing else says it.
            println!("seed {seed}");
            match fuzz(seed, INPUTS) {
                Ok(figures) => all = all.and(figures),
                Err(fault) => panic!("{fault}"),
            }
            if begun.elapsed() > length {
                break;
            }
        }
        println!("{all:?}");
        assert!(all.frames * 100 > all.inputs, "hardly anything was placed: {all:?}");
    }

    #[test]
    fn the_same_seed_gives_the_same_run() {
        let run = |seed| fuzz(seed, 3000).map_err(|fault| fault.to_string());
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
    }
}
