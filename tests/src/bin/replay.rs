//! `spillway-replay`: stands where a media process stands (`SPILLWAY_MEDIA`) and lets clips be the room, faster than
//! they happened. Mux, spool and all that the runner makes of it are the real ones. For hours that nobody waits for.
//!
//! The room's name says what: `replay 3600s 60x 3000k` is an hour in a minute, at 3000 kbit/s; then it goes on in real
//! time until it is stopped.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use spillway_media::copy::{Copy, Way};
use spillway_media::pipeline::{AudioIn, Pipeline, PipelineEvent, PipelinePlan, VideoIn};
use spillway_media::track::{Codec, Frame, SessionTime, TrackId};
use spillway_plan::Container;
use spillway_spool::framing::{HappeningWriter, media_end};
use spillway_spool::{EndReason, Happening, Order, Quality, SpoolFile, StartOrder, TrackFacts};
use spillway_tests::assets::clip;
use spillway_tests::clip::Clip;

/// How often frames are given and progress is told.
const STEP: Duration = Duration::from_millis(50);
const TELL: Duration = Duration::from_millis(250);
const PICTURE: TrackId = TrackId(1);
const SOUND: TrackId = TrackId(2);

/// What the room's name asks for.
#[derive(Clone, Copy)]
struct Script {
    fast: Duration,
    speed: f64,
    bytes_per_second: f64,
}

impl Script {
    fn parse(room: &str) -> Option<Self> {
        let mut words = room.strip_prefix("replay ")?.split(' ');
        let mut number = |unit: &str| words.next()?.strip_suffix(unit)?.parse::<f64>().ok();
        let (seconds, speed, kbits) = (number("s")?, number("x")?, number("k")?);
        Some(Self { fast: Duration::from_secs_f64(seconds), speed, bytes_per_second: kbits * 1000.0 / 8.0 })
    }

    /// How much of the room has happened by now.
    fn media_at(self, elapsed: Duration) -> Duration {
        let running = self.fast.div_f64(self.speed);
        if elapsed < running { elapsed.mul_f64(self.speed) } else { self.fast + (elapsed - running) }
    }
}

fn main() -> Result<()> {
    let (mut orders, say) = media_end().context("this is no program for people: the runner starts it")?;
    let (tell, inbox) = channel();
    std::thread::spawn(move || {
        while let Ok(Some(order)) = orders.hear() {
            if tell.send(order).is_err() {
                return;
            }
        }
    });
    let Order::Start(start) = inbox.recv().context("no order")? else { bail!("another order before the start") };
    let script = Script::parse(&start.plan.room_name).context("the room's name is no script")?;
    let (room_id, room_name) = (start.plan.room_id.clone(), start.plan.room_name.clone());
    say.say(&Happening::Joined { room_id, room_name })?;
    say.say(&Happening::Opening { file: 0, container: Container::Mp4, facts: TrackFacts::default() })?;
    let path = loop {
        match inbox.recv_timeout(TELL) {
            Ok(Order::WriteTo { path, .. }) => break path,
            Ok(Order::Stop) => return Ok(say.say(&Happening::Ended { why: EndReason::Stopped })?),
            Ok(Order::Start(_)) => {}
            Err(RecvTimeoutError::Timeout) => {
                say.say(&Happening::Alive { media_ns: 0, lag_ms: 0, backlog_bytes: 0 })?;
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    };
    let mut tape = Tape::open(&start, script, SpoolFile::create(&path, Container::Mp4)?)?;
    let begun = Instant::now();
    let mut told = begun;
    say.say(&Happening::Started { at: unix_ns() })?;
    loop {
        match inbox.recv_timeout(STEP) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(Order::Stop) | Err(RecvTimeoutError::Disconnected) => break,
            Ok(_) => {}
        }
        tape.play_to(script.media_at(begun.elapsed()))?;
        if told.elapsed() >= TELL {
            told = Instant::now();
            tape.tell(&say)?;
        }
    }
    let (bytes, media_ns) = tape.finish(&say)?;
    let ended_at = unix_ns();
    say.say(&Happening::Closed {
        file: 0,
        bytes,
        started_at: ended_at - i64::try_from(media_ns)?,
        ended_at,
        quality: Quality::default(),
    })?;
    Ok(say.say(&Happening::Ended { why: EndReason::Stopped })?)
}

/// A file being made of two clips in a loop.
struct Tape {
    pipeline: Pipeline,
    events: std::sync::mpsc::Receiver<PipelineEvent>,
    lanes: [Lane; 2],
    /// Bytes each picture is filled up to on average.
    picture_bytes: f64,
    owed: f64,
}

struct Lane {
    clip: Arc<Clip>,
    copy: Copy,
    id: TrackId,
    given: usize,
}

impl Tape {
    fn open(start: &StartOrder, script: Script, file: SpoolFile) -> Result<Self> {
        gstreamer::init().context("start GStreamer")?;
        let (picture, sound) = (clip("p0-360.h264")?, clip("p0.opus")?);
        let plan = PipelinePlan {
            video: Some(VideoIn::Copied { codec: Codec::H264, size: picture.size }),
            audio: Some(AudioIn::Copied { codec: Codec::Opus, channels: 2 }),
            container: Container::Mp4,
            fragment_ms: start.settings.fragment_ms,
        };
        let (tell, events) = channel();
        let (pipeline, feeds) = Pipeline::start(&plan, file, move |event| {
            let _ = tell.send(event);
        })?;
        let sound_bytes: usize = sound.frames.iter().map(|frame| frame.data.len()).sum();
        let sound_rate = sound_bytes as f64 / sound.length.as_secs_f64();
        let lane = |clip, feed: Option<_>, id| -> Result<Lane> {
            let copy = Copy::new(Way::Feed(feed.context("no way in")?), id == PICTURE, SessionTime(0));
            Ok(Lane { clip, copy, id, given: 0 })
        };
        let lanes = [lane(picture, feeds.video, PICTURE)?, lane(sound, feeds.audio, SOUND)?];
        let picture_bytes = (script.bytes_per_second - sound_rate).max(0.0) / 30.0;
        Ok(Self { pipeline, events, lanes, picture_bytes, owed: 0.0 })
    }

    /// Everything that has happened before `end`, in the order of time.
    fn play_to(&mut self, end: Duration) -> Result<()> {
        loop {
            let at = |lane: &Lane| {
                let (round, index) = (lane.given / lane.clip.frames.len(), lane.given % lane.clip.frames.len());
                lane.clip.length * round as u32 + lane.clip.frames[index].at
            };
            let next = usize::from(at(&self.lanes[1]) < at(&self.lanes[0]));
            let at = at(&self.lanes[next]);
            if at >= end {
                return Ok(());
            }
            let lane = &mut self.lanes[next];
            let frame = &lane.clip.frames[lane.given % lane.clip.frames.len()];
            lane.given += 1;
            let mut data = frame.data.to_vec();
            if lane.id == PICTURE {
                self.owed += self.picture_bytes - data.len() as f64;
                self.owed -= fill(&mut data, self.owed) as f64;
            }
            let size = (lane.id == PICTURE && frame.key).then_some(lane.clip.size);
            let at = SessionTime(u64::try_from(at.as_nanos())?);
            lane.copy.frame(&Frame { track: lane.id, at, key: frame.key, size, data: Bytes::from(data) })?;
        }
    }

    fn tell(&self, say: &HappeningWriter) -> Result<()> {
        let (written, media_ns) = (self.pipeline.written(), self.pipeline.progress().media_ns());
        say.say(&Happening::Wrote { file: 0, end: written.end(), sealed_to: written.sealed_to(), media_ns })?;
        say.say(&Happening::Alive { media_ns, lag_ms: 0, backlog_bytes: 0 })?;
        Ok(())
    }

    /// Closes the file; its length in bytes and nanoseconds.
    fn finish(mut self, say: &HappeningWriter) -> Result<(u64, u64)> {
        for lane in &mut self.lanes {
            lane.copy.end()?;
        }
        loop {
            match self.events.recv_timeout(Duration::from_secs(20)).context("the file does not end")? {
                PipelineEvent::Flowing => {}
                PipelineEvent::Drained => break,
                PipelineEvent::Broke(error) => return Err(error).context("the file broke"),
            }
        }
        self.tell(say)?;
        Ok((self.pipeline.written().end(), self.pipeline.progress().media_ns()))
    }
}

/// Appends filler data (H264, 7.3.2.7), which decoders drop; how much.
fn fill(picture: &mut Vec<u8>, wanted: f64) -> usize {
    const FRAME: usize = 6;
    if wanted < (FRAME + 1) as f64 {
        return 0;
    }
    let before = picture.len();
    picture.extend([0, 0, 0, 1, 12]);
    picture.resize(before + wanted as usize - 1, 0xFF);
    picture.push(0x80);
    picture.len() - before
}

fn unix_ns() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i64)
}
