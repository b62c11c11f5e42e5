//! One good stream beside a dead, a silent and a slow one, with HLS and an MP4: what the good one and the files notice of it.
//!
//! Two live recordings never encode the same bytes, so this one is replayed: the same encoded units (H264 of a clip, AAC made
//! of it), each at its time, go through the fan-out, the takers of files and segments and the tasks of streams that the media
//! process has, once without the bad streams and once with them. The MP4s are equal when every packet is: stream, times,
//! length, flags and MD5 (ffprobe). Segments are compared byte by byte. The good stream's player is ffmpeg behind nginx.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use serde::Serialize;
use spillway_ipc::{MediaEvent, MediaSettings, SpoolFile, StreamStart, TrackFacts};
use spillway_media::encoded::EncodedUnit;
use spillway_media::output::segments::{SegmentsTaker, SegmentsTakerOptions};
use spillway_media::output::{
    Fanout, FileTakerOptions, PipelineEvent, RingTaker, StreamEnd, StreamEvent, Streams, TakerStart, UnitRing, add_file,
};
use spillway_plan::segment_name::SegmentFormat;
use spillway_plan::{Container, Secret};
use spillway_tests::analyser::{packets, percentile};
use spillway_tests::guard::loopback_rules;
use spillway_tests::servers::relay::TcpRelay;
use spillway_tests::servers::rtmp_server::{LIVE, RtmpServer};
use tokio::sync::oneshot;

use crate::encoded_clip::{AUDIO, PICTURES_PER_SECOND, VIDEO, formats, units};

const GOOD: u32 = 0;
const BAD: [&str; 3] = ["dead", "silent", "half speed"];
/// For the good stream to be accepted, and for its end.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Figures of both replays.
#[derive(Debug, Serialize)]
pub struct BadStreams {
    seconds: f64,
    /// From the moment when a picture is given to the fan-out to the player: the good stream alone, and beside the bad ones.
    alone: GoodStream,
    beside: GoodStream,
    /// What became of each bad stream, by its name.
    bad: BTreeMap<&'static str, String>,
    mp4_packets: usize,
    /// Packets of the MP4 that are not those of the replay without bad streams.
    mp4_different: usize,
    segments: usize,
    segments_different: usize,
}

/// The good stream in one replay.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct GoodStream {
    p50_ms: f64,
    p95_ms: f64,
    max_ms: f64,
    /// Frames that the ring dropped, and pictures that the player has not.
    dropped: u64,
    missing: usize,
}

/// Both replays, of so many seconds each; a slow stream fills its ring after ten.
pub async fn measure(seconds: f64) -> Result<BadStreams> {
    gstreamer::init().context("start GStreamer")?;
    let units = Arc::new(units(seconds)?);
    let bytes: usize = units.iter().map(|unit| unit.data.len()).sum();
    let half = (bytes as f64 / seconds / 2.0) as u64;
    let kept = tempfile::tempdir().context("make a folder")?;
    let server = RtmpServer::start()?;
    // Nothing listens there any more; and something that never answers.
    let dead = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).context("a free port")?;
    let silent = TcpListener::bind("127.0.0.1:0").context("bind what never answers")?;
    let slow = TcpRelay::start(server.address(), Some(half)).await?;
    let bad = [
        format!("rtmp://{dead}/{LIVE}/dead"),
        format!("rtmp://{}/{LIVE}/silent", silent.local_addr().context("its address")?),
        slow.in_front_of(&server.url(LIVE, "slow")),
    ];
    let alone = replayed(&server, kept.path().join("alone"), "alone", &units, &[], seconds).await?;
    let beside = replayed(&server, kept.path().join("beside"), "beside", &units, &bad, seconds).await?;
    let figures = compared(seconds, &alone, beside)?;
    println!(
        "good stream: p95 {:.1} ms alone, {:.1} ms beside three bad ones (max {:.0} ms), {} dropped, {} missing; MP4: {} of \
         {} packets differ; HLS: {} of {} segments differ",
        figures.alone.p95_ms,
        figures.beside.p95_ms,
        figures.beside.max_ms,
        figures.beside.dropped,
        figures.beside.missing,
        figures.mp4_different,
        figures.mp4_packets,
        figures.segments_different,
        figures.segments,
    );
    for (name, end) in &figures.bad {
        println!("  {name}: {end}");
    }
    Ok(figures)
}

fn compared(seconds: f64, alone: &Replay, beside: Replay) -> Result<BadStreams> {
    let [without, with] = [packets(&alone.outputs.mp4())?, packets(&beside.outputs.mp4())?];
    ensure!(without.len() > 100, "{} packets in {}", without.len(), alone.outputs.mp4().display());
    let [cut_without, cut_with] = [alone.outputs.segments()?, beside.outputs.segments()?];
    ensure!(!cut_without.is_empty(), "no segment in {}", alone.outputs.0.display());
    Ok(BadStreams {
        seconds,
        alone: alone.good,
        beside: beside.good,
        bad: beside.bad,
        mp4_packets: without.len(),
        mp4_different: different(&without, &with),
        segments: cut_without.len(),
        segments_different: different(&cut_without, &cut_with),
    })
}

/// How many places of two lists are not the same.
fn different<T: PartialEq>(one: &[T], other: &[T]) -> usize {
    let unequal = one.iter().zip(other).filter(|(one, other)| one != other).count();
    unequal + one.len().abs_diff(other.len())
}

/// What one replay left.
struct Replay {
    outputs: Outputs,
    good: GoodStream,
    bad: BTreeMap<&'static str, String>,
}

/// The folder of an MP4 and segments.
struct Outputs(PathBuf);

impl Outputs {
    fn mp4(&self) -> PathBuf {
        self.0.join("a.mp4")
    }

    /// Names and bytes, in order.
    fn segments(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let mut all = vec![];
        for entry in std::fs::read_dir(&self.0).context("look for segments")? {
            let path = entry.context("look for segments")?.path();
            if path.extension().is_some_and(|extension| extension == "ts") {
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                all.push((name, std::fs::read(&path).context("read a segment")?));
            }
        }
        all.sort();
        Ok(all)
    }
}

async fn replayed(
    server: &RtmpServer,
    into: PathBuf,
    key: &str,
    units: &Arc<Vec<EncodedUnit>>,
    bad: &[String],
    seconds: f64,
) -> Result<Replay> {
    std::fs::create_dir_all(&into).context("make a folder")?;
    let urls: Vec<String> = std::iter::once(server.url(LIVE, key)).chain(bad.iter().cloned()).collect();
    let (begun, begins) = oneshot::channel();
    let (given, outputs) = (units.clone(), Outputs(into));
    let folder = outputs.0.clone();
    let replay = tokio::task::spawn_blocking(move || replay(&folder, &urls, &given, begun));
    // An error of the replay drops the channel, and is told below.
    let Ok(start) = begins.await else {
        replay.await.context("replay")??;
        return Err(anyhow!("the replay ended before it began"));
    };
    // It ends before the stream does, which leaves a player waiting.
    let view = server.view(key, (seconds - 5.0).max(5.0) as u32).await;
    let (dropped, bad) = replay.await.context("replay")??;
    let view = view?;
    let lag_ms = |at: Instant, time_ms: i64| -> Result<f64> {
        let given = start + Duration::from_millis(u64::try_from(time_ms).context("a time before the first")?);
        let lag =
            at.checked_duration_since(given).context("a picture came before it was given: its time is another")?;
        Ok(lag.as_secs_f64() * 1e3)
    };
    let lags = view.settled().map(|picture| lag_ms(picture.at, picture.time_ms)).collect::<Result<Vec<f64>>>()?;
    ensure!(!lags.is_empty(), "the player had {} pictures", view.pictures.len());
    let good = GoodStream {
        p50_ms: percentile(&lags, 0.5),
        p95_ms: percentile(&lags, 0.95),
        max_ms: percentile(&lags, 1.0),
        dropped,
        missing: view.missing(PICTURES_PER_SECOND),
    };
    Ok(Replay { outputs, good, bad })
}

/// Events of all streams, by their ids.
type StreamLog = Arc<Mutex<Vec<(u32, StreamEvent)>>>;

/// The fan-out of a recording with all its outputs. `begun` is told the moment that stands for time 0 of the units. Gives
/// what the good stream's ring dropped, and what became of the others.
fn replay(
    folder: &Path,
    urls: &[String],
    units: &[EncodedUnit],
    begun: oneshot::Sender<Instant>,
) -> Result<(u64, BTreeMap<&'static str, String>)> {
    let failed = Arc::new(Mutex::new(None));
    let seen = failed.clone();
    let fanout = Fanout::new(formats()?, move |event| {
        if let PipelineEvent::TakerFailed(_, error) = event {
            seen.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error.to_string());
        }
    });
    add_files(&fanout, folder)?;
    let log = StreamLog::default();
    let (_streams, rings) = add_streams(&fanout, urls, &log)?;
    // The good stream's connection begins with the first key frame at hand, so that it asks for none and its times are ours.
    let (first, rest) = units.split_first().context("no units")?;
    push(&fanout, first)?;
    let accepted = Instant::now();
    while !has(&log, GOOD, |event| *event == StreamEvent::Active) {
        ensure!(accepted.elapsed() < TIMEOUT, "the good stream is not accepted");
        std::thread::sleep(Duration::from_millis(5));
    }
    let start = Instant::now();
    // The receiver is gone when the measurement has failed.
    let _ = begun.send(start);
    for unit in rest {
        std::thread::sleep((start + Duration::from_nanos(unit.at_ns)).saturating_duration_since(Instant::now()));
        push(&fanout, unit)?;
    }
    let stats: Vec<_> = rings.iter().map(|ring| ring.stats()).collect();
    // Files are whole when their streams have ended; those to servers have 2 s more.
    [VIDEO, AUDIO].into_iter().for_each(|stream| fanout.end_stream(stream));
    let ended = Instant::now();
    while !has(&log, GOOD, |event| matches!(event, StreamEvent::Ended(_))) && ended.elapsed() < TIMEOUT {
        std::thread::sleep(Duration::from_millis(20));
    }
    ensure!(has(&log, GOOD, |event| *event == StreamEvent::Ended(StreamEnd::Finished)), "the good stream: {:?}", log);
    rings.iter().for_each(|ring| ring.end());
    if let Some(error) = failed.lock().unwrap_or_else(PoisonError::into_inner).take() {
        return Err(anyhow!("an output failed: {error}"));
    }
    let mut bad = BTreeMap::new();
    for (index, name) in BAD.into_iter().enumerate().take(rings.len() - 1) {
        let (id, stats) = (index as u32 + 1, stats[index + 1]);
        bad.insert(name, format!("{}; {} frames dropped in {} jumps", last(&log, id), stats.dropped, stats.jumps));
    }
    Ok((stats[GOOD as usize].dropped, bad))
}

fn push(fanout: &Fanout, unit: &EncodedUnit) -> Result<()> {
    fanout.push(unit.clone()).map_err(|error| anyhow!("the fan-out takes nothing: {error:?}"))
}

fn add_files(fanout: &Arc<Fanout>, folder: &Path) -> Result<()> {
    let file = SpoolFile::create(&folder.join("a.mp4"), Container::Mp4).context("make the MP4")?;
    let options = FileTakerOptions { streams: vec![VIDEO, AUDIO], container: Container::Mp4, fragment_ms: 1000 };
    add_file(fanout, file, &options).context("add the MP4")?;
    let options = SegmentsTakerOptions {
        first_n: 0,
        output: 1,
        folder: folder.to_owned(),
        format: SegmentFormat::MpegTs,
        length_ns: 4_000_000_000,
        facts: TrackFacts::default(),
    };
    let (taker, streams) =
        SegmentsTaker::new(fanout.formats(), options, Arc::new(|_: MediaEvent| {})).context("add segments")?;
    let (id, _) = fanout.reserve();
    fanout.add(TakerStart { id, streams, taker: Box::new(taker), progress: Arc::default() });
    Ok(())
}

fn add_streams(fanout: &Arc<Fanout>, urls: &[String], log: &StreamLog) -> Result<(Streams, Vec<Arc<UnitRing>>)> {
    let told = log.clone();
    let tell = move |id: u32, event: StreamEvent| told.lock().unwrap_or_else(PoisonError::into_inner).push((id, event));
    // The units are what they are: no key frame can be asked for.
    let settings = MediaSettings { guard: loopback_rules(), ..MediaSettings::default() };
    let streams = Streams::start(fanout.formats().clone(), &settings, Arc::new(|| {}), Arc::new(tell));
    let mut streams = streams.context("start the streams' thread")?;
    let mut rings = vec![];
    for (id, url) in (0..).zip(urls) {
        let ring = streams.add(StreamStart { id, output: 2, url: Secret::new(url.clone()) });
        let (taker_id, _) = fanout.reserve();
        let taker = Box::new(RingTaker::new(ring.clone()));
        let progress = Arc::default();
        fanout.add(TakerStart { id: taker_id, streams: vec![VIDEO, AUDIO], taker, progress });
        rings.push(ring);
    }
    Ok((streams, rings))
}

fn has(log: &StreamLog, id: u32, is: impl Fn(&StreamEvent) -> bool) -> bool {
    log.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|(of, event)| *of == id && is(event))
}

/// The last event of a stream.
fn last(log: &StreamLog, id: u32) -> String {
    let log = log.lock().unwrap_or_else(PoisonError::into_inner);
    log.iter().rev().find(|(of, _)| *of == id).map_or("nothing".to_owned(), |(_, event)| format!("{event:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_packet_is_a_difference() {
        assert_eq!(
            (different(&[1, 2, 3], &[1, 2, 3]), different(&[1, 2, 3], &[1, 3]), different(&[1], &[])),
            (0, 2, 1)
        );
    }
}
