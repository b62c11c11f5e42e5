//! Four people for twelve hours, in virtual time: their packets go through the receiver, a compositor with its encoders and an
//! MP4, and, of one of them, copied into another MP4, as fast as this machine can. Memory as it goes on is this process's.
//!
//! Pictures are small (180p at 15 a second), so that the hours take minutes; what could grow with time is the same: streams
//! and tracks that come and go, queues, the indices of both files. Twelve hours need 2.5 GB in the temporary folder.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use spillway_ipc::SpoolFile;
use spillway_media::compositor::{
    Arrangement, AudioMixerOptions, Compositor, CompositorOptions, DegradationBounds, Size, StartRule,
    VideoMixerOptions, encoder_delay,
};
use spillway_media::encode::{AudioInputFormat, Colour, VideoInputFormat};
use spillway_media::encoded::StreamNumber;
use spillway_media::output::{
    Fanout, Feeds, FileTakerOptions, Pipeline, PipelineEvent, PipelinePlan, RawSink, add_file,
};
use spillway_media::passthrough::Passthrough;
use spillway_media::receive::{ReceiveOptions, TrackReceiver};
use spillway_media::track::{Codec, TimelineEvent, TrackId};
use spillway_media::units::MediaTime;
use spillway_plan::{AudioCodec, Container, H264Profile, LayoutName, Mixing, VideoEncoding};
use spillway_tests::analyser::{duration, probe};

use crate::processes::resident_mb;
use crate::replayed_room::ReplayedRoom;

const PEOPLE: usize = 4;
const SIZE: (u32, u32) = (320, 180);
const FRAMERATE: u32 = 15;
const FREQUENCY: u32 = 48_000;
/// Memory is compared with what it was then; in a shorter run with a third of it.
const WARM_S: f64 = 600.0;
const LOOKS: f64 = 48.0;
/// The room waits while the mixers are so far behind it.
const MAX_LAG_NS: u64 = 3_000_000_000;
/// By then the mixers have begun.
const BEGINS: Duration = Duration::from_secs(10);
/// For the mixers to make anything, and for the files' ends.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Figures of one run.
#[derive(Debug, Serialize)]
pub struct TwelveHours {
    seconds: f64,
    /// Seconds of the room per second.
    speed: f64,
    memory: Vec<MemoryAt>,
    /// From ten minutes on (a third of a shorter run): the most above what it was then.
    grown_mb: f64,
    /// By their containers, seconds.
    composed_s: f64,
    copied_s: f64,
}

/// Memory at a moment of the room.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct MemoryAt {
    at_s: f64,
    resident_mb: f64,
    /// Packets and frames that wait in the receiver.
    held_mb: f64,
}

/// So many seconds of the room.
pub async fn measure(length_s: f64) -> Result<TwelveHours> {
    let figures = tokio::task::spawn_blocking(move || replayed(length_s)).await.context("replay")??;
    println!(
        "{:.1} h of {PEOPLE} people at {:.0}-fold speed: memory {:+.1} MB since it was warm; files of {:.1} and {:.1} s",
        length_s / 3600.0,
        figures.speed,
        figures.grown_mb,
        figures.composed_s,
        figures.copied_s
    );
    for look in &figures.memory {
        println!("  {:>7.0} s: {:.1} MB, {:.2} MB held", look.at_s, look.resident_mb, look.held_mb);
    }
    Ok(figures)
}

/// A pipeline with one MP4.
struct OneFile {
    pipeline: Pipeline,
    events: Receiver<PipelineEvent>,
    path: PathBuf,
}

impl OneFile {
    fn start(plan: &PipelinePlan, path: &Path) -> Result<(Self, Feeds)> {
        let (tell, events) = channel();
        let fanout = Fanout::new(plan.formats(), move |event| {
            // Refused only when this run is over.
            let _ = tell.send(event);
        });
        let options = FileTakerOptions {
            streams: vec![StreamNumber(0), StreamNumber(1)],
            container: Container::Mp4,
            fragment_ms: 1000,
        };
        add_file(&fanout, SpoolFile::create(path, Container::Mp4)?, &options)?;
        let (pipeline, feeds) = Pipeline::start(plan, fanout)?;
        Ok((Self { pipeline, events, path: path.to_owned() }, feeds))
    }

    /// Nothing of it has broken.
    fn is_whole(&self) -> Result<()> {
        for event in self.events.try_iter() {
            match event {
                PipelineEvent::Broke(error) => return Err(error).context("an encoder broke"),
                PipelineEvent::TakerFailed(_, error) => return Err(error).context("the file broke"),
                PipelineEvent::Flowing | PipelineEvent::TakerEnded(_) | PipelineEvent::Drained => {}
            }
        }
        Ok(())
    }

    /// Its inputs have ended; its length, seconds.
    fn finish(self) -> Result<f64> {
        ensure!(self.pipeline.wait_drained(TIMEOUT), "{} does not end", self.path.display());
        self.is_whole()?;
        drop(self.pipeline);
        Ok(duration(&probe(&self.path)?))
    }
}

/// Both tracks of the first of the people, copied.
struct CopiedPerson {
    picture: Passthrough,
    sound: Passthrough,
    tracks: [Option<TrackId>; 2],
}

impl CopiedPerson {
    fn new(feeds: Feeds) -> Result<Self> {
        let picture = Passthrough::new(feeds.video.context("no way for pictures")?, Codec::H264, MediaTime::ZERO);
        let sound = feeds.audio.into_iter().next().context("no way for sound")?;
        Ok(Self { picture, sound: Passthrough::new(sound, Codec::Opus, MediaTime::ZERO), tracks: [None; 2] })
    }

    fn take(&mut self, event: &TimelineEvent) -> Result<()> {
        match event {
            TimelineEvent::Joined { track, .. } if track.identity == "p0" => {
                self.tracks[usize::from(!track.codec.is_video())] = Some(track.id);
            }
            TimelineEvent::Frame(frame) if self.tracks[0] == Some(frame.track) => {
                self.picture.frame(frame)?;
            }
            TimelineEvent::Frame(frame) if self.tracks[1] == Some(frame.track) => {
                self.sound.frame(frame)?;
            }
            TimelineEvent::Watermark { at } => {
                self.picture.complete_to(*at)?;
                self.sound.complete_to(*at)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn end(mut self, at: MediaTime) -> Result<()> {
        for copy in [&mut self.picture, &mut self.sound] {
            copy.lasts_to(at)?;
            copy.end();
        }
        Ok(())
    }
}

fn replayed(length_s: f64) -> Result<TwelveHours> {
    gstreamer::init().context("start GStreamer")?;
    let folder = tempfile::tempdir().context("make a folder")?;
    let (composed, feeds) = OneFile::start(&composed_plan(), &folder.path().join("composed.mp4"))?;
    let compositor = compositor(feeds, folder.path())?;
    let (copied, feeds) = OneFile::start(&copied_plan(), &folder.path().join("copied.mp4"))?;
    let mut copy = CopiedPerson::new(feeds)?;
    let options = ReceiveOptions { reorder_wait: Duration::from_secs(2), late: Duration::from_secs(10) };
    let (mut room, mut receiver) = (ReplayedRoom::new(PEOPLE)?, TrackReceiver::new(options));
    let pid = i32::try_from(std::process::id()).context("a pid")?;
    let (begun, end) = (Instant::now(), Duration::from_secs_f64(length_s));
    let (mut memory, mut complete, mut next_look_s) = (vec![], MediaTime::ZERO, 0.0);
    loop {
        let (events, at) = room.step();
        for (arrived, event) in events {
            receiver.push(event, arrived);
        }
        receiver.tick(at);
        let is_over = at >= end;
        if is_over {
            receiver.finish(at);
        }
        for event in receiver.drain() {
            if let TimelineEvent::Watermark { at } = &event {
                complete = *at;
            }
            copy.take(&event)?;
            compositor.take(event);
        }
        receiver.keyframes_wanted();
        receiver.take_notes();
        if at.as_secs_f64() >= next_look_s || is_over {
            next_look_s += length_s / LOOKS;
            let (at_s, held_mb) = (at.as_secs_f64(), receiver.held_bytes() as f64 / f64::from(1 << 20));
            memory.push(MemoryAt { at_s, resident_mb: resident_mb(pid).context("no memory of ours")?, held_mb });
            composed.is_whole()?;
            copied.is_whole()?;
        }
        if is_over {
            break;
        }
        wait_for(&compositor, at)?;
    }
    let speed = length_s / begun.elapsed().as_secs_f64();
    copy.end(complete)?;
    compositor.end_at(complete);
    compositor.wait();
    Ok(TwelveHours {
        seconds: length_s,
        speed,
        grown_mb: grown(&memory, length_s),
        memory,
        composed_s: composed.finish()?,
        copied_s: copied.finish()?,
    })
}

/// Virtual time goes no faster than the mixers, which begin within its first seconds.
fn wait_for(compositor: &Compositor, at: Duration) -> Result<()> {
    let begun = Instant::now();
    loop {
        let stats = compositor.stats();
        let has_begun = stats.started.is_some() || at < BEGINS;
        if has_begun && stats.lag_ns <= MAX_LAG_NS {
            return Ok(());
        }
        if begun.elapsed() > TIMEOUT {
            bail!("the mixers began at {:?} and are {} ms behind", stats.started, stats.lag_ns / 1_000_000);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn composed_plan() -> PipelinePlan {
    let encoding = VideoEncoding {
        width: SIZE.0,
        height: SIZE.1,
        framerate: FRAMERATE,
        bitrate: 150,
        profile: H264Profile::Main,
        key_frame_interval: None,
    };
    let sound = AudioInputFormat::Raw { codec: AudioCodec::Aac, bitrate: 64, frequency: FREQUENCY, separate: false };
    let video = VideoInputFormat::Raw { encoding, colour: Colour::default() };
    PipelinePlan { video: Some(video), audio: vec![sound], key_grid: None }
}

fn copied_plan() -> PipelinePlan {
    PipelinePlan {
        video: Some(VideoInputFormat::Copied { codec: Codec::H264, size: SIZE }),
        audio: vec![AudioInputFormat::Copied { codec: Codec::Opus, channels: 2 }],
        key_grid: None,
    }
}

fn compositor(feeds: Feeds, spill_dir: &Path) -> Result<Compositor> {
    let grid = LayoutName::parse("grid").context("a layout")?;
    let options = CompositorOptions {
        picture: Some(VideoMixerOptions {
            size: Size { width: SIZE.0, height: SIZE.1 },
            framerate: FRAMERATE,
            arrangement: Arrangement::Tiles(grid),
            key_grid: None,
        }),
        sound: Some(AudioMixerOptions { mixing: Mixing::Both, lead: encoder_delay(AudioCodec::Aac, FREQUENCY) }),
        start: StartRule::Composite,
        degradation: DegradationBounds::NEVER,
        backlog_bytes: 256 << 20,
        spill_dir: Some(spill_dir.to_owned()),
    };
    let video = feeds.video.map(|feed| Box::new(feed) as Box<dyn RawSink>);
    let audio = feeds.audio.into_iter().next().map(|feed| Box::new(feed) as Box<dyn RawSink>);
    // Layers and key frames are asked of nobody here.
    Ok(Compositor::start(options, video, audio, |_| {})?)
}

/// The most memory after the warm-up, above what it was at its end.
fn grown(memory: &[MemoryAt], length_s: f64) -> f64 {
    let warm_s = WARM_S.min(length_s / 3.0);
    let mut after = memory.iter().filter(|look| look.at_s >= warm_s).map(|look| look.resident_mb);
    let Some(warm) = after.next() else { return 0.0 };
    after.map(|resident_mb| resident_mb - warm).fold(0.0, f64::max)
}
