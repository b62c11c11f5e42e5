//! `spillway-replay`: takes the place of the media process (`SPILLWAY_MEDIA`) and feeds clips instead of a room, faster
//! than real time. Mux, spool and everything the runner does with them are the real ones. For recordings of hours.
//!
//! The room's name is the script: `replay 3600s 60x 3000k` is an hour in a minute at 3000 kbit/s; after it the
//! recording continues in real time until it is stopped.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use spillway_ipc::framing::{EventWriter, media_endpoint};
use spillway_ipc::{
    MediaCommand, MediaEndReason, MediaEvent, Quality, SpoolFile, StartCommand, TrackFacts, WriteProgress,
};
use spillway_media::encode::{AudioInputFormat, VideoInputFormat};
use spillway_media::encoded::StreamNumber;
use spillway_media::output::{Fanout, Feed, FileTakerOptions, Pipeline, PipelineEvent, PipelinePlan, add_file};
use spillway_media::passthrough::Passthrough;
use spillway_media::track::{Codec, Frame, TrackId};
use spillway_media::units::MediaTime;
use spillway_plan::Container;
use spillway_tests::assets::clip;
use spillway_tests::clip::Clip;

/// How often frames are given and progress is told.
const STEP: Duration = Duration::from_millis(50);
const REPORT_INTERVAL: Duration = Duration::from_millis(250);
const PICTURE: TrackId = TrackId(1);
const SOUND: TrackId = TrackId(2);

/// What the room's name asks for.
#[derive(Clone, Copy)]
struct ReplayScript {
    fast: Duration,
    speed: f64,
    bytes_per_second: f64,
}

impl ReplayScript {
    fn parse(room: &str) -> Option<Self> {
        let mut fields = room.strip_prefix("replay ")?.split(' ');
        let mut number = |unit: &str| fields.next()?.strip_suffix(unit)?.parse::<f64>().ok();
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
    let (mut commands, events_tx) = media_endpoint().context("this is no program for people: the runner starts it")?;
    let (tx, inbox) = channel();
    std::thread::spawn(move || {
        while let Ok(Some(command)) = commands.recv() {
            if tx.send(command).is_err() {
                return;
            }
        }
    });
    let MediaCommand::Start(start) = inbox.recv().context("no command")? else {
        bail!("another command before the start")
    };
    let script = ReplayScript::parse(&start.plan.room_name).context("the room's name is no script")?;
    let (room_id, room_name) = (start.plan.room_id.clone(), start.plan.room_name.clone());
    events_tx.send(&MediaEvent::Joined { room_id, room_name })?;
    let facts = TrackFacts::default();
    events_tx.send(&MediaEvent::Opening { file: 0, output: Some(0), container: Container::Mp4, facts })?;
    let path = loop {
        match inbox.recv_timeout(REPORT_INTERVAL) {
            Ok(MediaCommand::WriteTo { path, .. }) => break path,
            Ok(MediaCommand::Stop) => return Ok(events_tx.send(&MediaEvent::Ended { why: MediaEndReason::Stopped })?),
            Ok(_) => {}
            Err(RecvTimeoutError::Timeout) => {
                events_tx.send(&MediaEvent::Alive { media_ns: 0, lag_ms: 0, backlog_bytes: 0, streams: vec![] })?;
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    };
    let mut file = ReplayFile::open(&start, script, SpoolFile::create(&path, Container::Mp4)?)?;
    let begun = Instant::now();
    let mut reported_at = begun;
    events_tx.send(&MediaEvent::Started { at: unix_ns(), facts: None })?;
    loop {
        match inbox.recv_timeout(STEP) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(MediaCommand::Stop) | Err(RecvTimeoutError::Disconnected) => break,
            Ok(_) => {}
        }
        file.play_to(script.media_at(begun.elapsed()))?;
        if reported_at.elapsed() >= REPORT_INTERVAL {
            reported_at = Instant::now();
            file.report_progress(&events_tx)?;
        }
    }
    let (bytes, media_ns) = file.finish(&events_tx)?;
    let ended_at = unix_ns();
    events_tx.send(&MediaEvent::Closed {
        file: 0,
        bytes,
        started_at: ended_at - i64::try_from(media_ns)?,
        ended_at,
        quality: Quality::default(),
    })?;
    Ok(events_tx.send(&MediaEvent::Ended { why: MediaEndReason::Stopped })?)
}

/// A file being made of two clips in a loop.
struct ReplayFile {
    pipeline: Pipeline,
    written: Arc<WriteProgress>,
    events: std::sync::mpsc::Receiver<PipelineEvent>,
    tracks: [ReplayTrack; 2],
    /// Bytes each picture is filled up to on average.
    picture_bytes: f64,
    owed: f64,
}

struct ReplayTrack {
    clip: Arc<Clip>,
    copy: Passthrough,
    id: TrackId,
    given: usize,
}

impl ReplayFile {
    fn open(start: &StartCommand, script: ReplayScript, file: SpoolFile) -> Result<Self> {
        gstreamer::init().context("start GStreamer")?;
        let (picture, sound) = (clip("p0-360.h264")?, clip("p0.opus")?);
        let plan = PipelinePlan {
            video: Some(VideoInputFormat::Copied { codec: Codec::H264, size: picture.size }),
            audio: vec![AudioInputFormat::Copied { codec: Codec::Opus, channels: 2 }],
            key_grid: None,
        };
        let (tx, events) = channel();
        let written = file.written();
        let fanout = Fanout::new(plan.formats(), move |event| {
            let _ = tx.send(event);
        });
        let options = FileTakerOptions {
            streams: vec![StreamNumber(0), StreamNumber(1)],
            container: Container::Mp4,
            fragment_ms: start.settings.fragment_ms,
        };
        add_file(&fanout, file, &options)?;
        let (pipeline, feeds) = Pipeline::start(&plan, fanout)?;
        let sound_bytes: usize = sound.frames.iter().map(|frame| frame.data.len()).sum();
        let sound_rate = sound_bytes as f64 / sound.length.as_secs_f64();
        let track = |clip, feed: Option<Feed>, id| -> Result<ReplayTrack> {
            let codec = if id == PICTURE { Codec::H264 } else { Codec::Opus };
            let copy = Passthrough::new(feed.context("no way in")?, codec, MediaTime::ZERO);
            Ok(ReplayTrack { clip, copy, id, given: 0 })
        };
        let tracks = [track(picture, feeds.video, PICTURE)?, track(sound, feeds.audio.into_iter().next(), SOUND)?];
        let picture_bytes = (script.bytes_per_second - sound_rate).max(0.0) / 30.0;
        Ok(Self { pipeline, written, events, tracks, picture_bytes, owed: 0.0 })
    }

    /// Everything that has happened before `end`, in the order of time.
    fn play_to(&mut self, end: Duration) -> Result<()> {
        loop {
            let at = |track: &ReplayTrack| {
                let (round, index) = (track.given / track.clip.frames.len(), track.given % track.clip.frames.len());
                track.clip.length * round as u32 + track.clip.frames[index].at
            };
            let next = usize::from(at(&self.tracks[1]) < at(&self.tracks[0]));
            let at = at(&self.tracks[next]);
            if at >= end {
                return Ok(());
            }
            let track = &mut self.tracks[next];
            let frame = &track.clip.frames[track.given % track.clip.frames.len()];
            track.given += 1;
            let mut data = frame.data.to_vec();
            if track.id == PICTURE {
                self.owed += self.picture_bytes - data.len() as f64;
                self.owed -= fill(&mut data, self.owed) as f64;
            }
            let size = (track.id == PICTURE && frame.key).then_some(track.clip.size);
            let at = MediaTime::from(at);
            track.copy.frame(&Frame {
                track: track.id,
                at,
                offset_ns: 0,
                key: frame.key,
                size,
                data: Bytes::from(data),
            })?;
        }
    }

    fn report_progress(&self, events_tx: &EventWriter) -> Result<()> {
        let media_ns = self.pipeline.progress().media_ns();
        let (end, sealed_to) = (self.written.end(), self.written.sealed_to());
        events_tx.send(&MediaEvent::Wrote { file: 0, end, sealed_to, media_ns })?;
        events_tx.send(&MediaEvent::Alive { media_ns, lag_ms: 0, backlog_bytes: 0, streams: vec![] })?;
        Ok(())
    }

    /// Closes the file; its length in bytes and nanoseconds.
    fn finish(self, events_tx: &EventWriter) -> Result<(u64, u64)> {
        self.tracks.iter().for_each(|track| track.copy.end());
        loop {
            match self.events.recv_timeout(Duration::from_secs(20)).context("the file does not end")? {
                PipelineEvent::Flowing | PipelineEvent::TakerEnded(_) => {}
                PipelineEvent::Drained => break,
                PipelineEvent::TakerFailed(_, error) => return Err(error).context("the file broke"),
                PipelineEvent::Broke(error) => return Err(error).context("the file broke"),
            }
        }
        self.report_progress(events_tx)?;
        Ok((self.written.end(), self.pipeline.progress().media_ns()))
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
