//! A long recording with RTMP, HLS and an MP4: memory as it goes on, and pictures against sound at both ends of each output.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde_json::json;
use spillway_tests::analyser::hls::HlsFolder;
use spillway_tests::analyser::sync::offset;
use spillway_tests::analyser::{duration, picture, probe, sound};
use spillway_tests::assets::person;
use spillway_tests::egress::{Egress, connected, file_of};
use spillway_tests::servers::TestServers;
use spillway_tests::servers::rtmp_server::{LIVE, RtmpServer};

use crate::kills::pids_of;
use crate::live::{mp4, people, rtmp};
use crate::processes::resident_mb;
use crate::stores::{PLAYLIST, StoreTarget};

const ROOM: &str = "soak";
const SEGMENT_S: u64 = 4;
/// Of each end that is looked at: enough for ten flashes and beeps.
const END_S: u32 = 12;
/// Memory is compared with what it was then; in a shorter run with a third of it.
const WARM_S: f64 = 600.0;
const MINUTE_S: f64 = 60.0;

/// Figures of one recording.
#[derive(Debug, Serialize)]
pub struct Soak {
    seconds: f64,
    /// Each minute; in a short run, ten times.
    memory: Vec<MemoryLook>,
    /// From ten minutes on (a third of a shorter run) to the end, both processes: the most above what it was then.
    grown_mb: f64,
    ends: Vec<SoakEnd>,
}

/// Memory of both processes at one moment.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct MemoryLook {
    at_s: f64,
    runner_mb: f64,
    media_mb: f64,
}

/// One end of one output.
#[derive(Debug, Serialize)]
pub struct SoakEnd {
    output: &'static str,
    end: &'static str,
    /// Flashes with a beep.
    pairs: usize,
    /// Picture less sound; positive: the picture is late.
    median_ms: f64,
    p99_ms: f64,
}

/// A composite of one camera at 720p30, of so many seconds.
pub async fn measure(seconds: f64) -> Result<Soak> {
    let server = RtmpServer::start()?;
    let servers = TestServers::start("").await?;
    let _dispatcher = servers.dispatcher("dispatcher", "").await?;
    let _people = people(&servers, ROOM, 1, 360).await?;
    let hls = servers.folder().join("hls");
    let url = server.url(LIVE, ROOM);
    let request = json!({
        "room_name": ROOM, "layout": "speaker", "file_outputs": [mp4(servers.folder())],
        "segment_outputs": [StoreTarget::Disk.segments(&hls, SEGMENT_S)], "stream_outputs": [rtmp(&[&url])],
    });
    let egress = Egress::start(&servers.api, "StartRoomCompositeEgress", request).await?;
    egress.active().await?;
    connected(&egress, 1).await?;
    let (runner, media) = pids_of(&servers, &egress.id)?;
    let pids = [runner.as_raw_nonzero().get(), media.as_raw_nonzero().get()];
    let begun = Instant::now();
    let until = begun + Duration::from_secs_f64(seconds);
    let first = server.watch(ROOM, END_S);
    let (memory, first) = tokio::join!(remember(pids, begun, until, seconds), first);
    let last = server.watch(ROOM, END_S).await?;
    let (first, memory) = (first?, memory?);
    let info = egress.complete().await?;
    let file = file_of(&info)?;
    let grown_mb = grown(&memory, seconds);
    let ends = tokio::task::spawn_blocking(move || ends(&first, &last, &file, &hls)).await.context("look")??;
    println!("soak of {seconds:.0} s: memory {grown_mb:+.1} MB since it was warm");
    for look in &memory {
        println!("  {:>6.0} s: runner {:.1} MB, media process {:.1} MB", look.at_s, look.runner_mb, look.media_mb);
    }
    for end in &ends {
        println!(
            "  {} at its {}: picture less sound {:+.1} ms, p99 {:.1} ms of {} pairs",
            end.output, end.end, end.median_ms, end.p99_ms, end.pairs
        );
    }
    Ok(Soak { seconds, memory, grown_mb, ends })
}

/// Looks at the memory of both processes until then.
async fn remember(pids: [i32; 2], begun: Instant, until: Instant, seconds: f64) -> Result<Vec<MemoryLook>> {
    let step = Duration::from_secs_f64((seconds / 10.0).clamp(1.0, MINUTE_S));
    let mut all = vec![];
    loop {
        let [runner_mb, media_mb] = pids.map(resident_mb);
        let gone = "a process of the recording is gone";
        let (runner_mb, media_mb) = (runner_mb.context(gone)?, media_mb.context(gone)?);
        all.push(MemoryLook { at_s: begun.elapsed().as_secs_f64(), runner_mb, media_mb });
        if Instant::now() + step > until {
            return Ok(all);
        }
        tokio::time::sleep(step).await;
    }
}

/// The most memory after the warm-up, above what it was at its end.
fn grown(memory: &[MemoryLook], seconds: f64) -> f64 {
    let warm_s = WARM_S.min(seconds / 3.0);
    let mut after = memory.iter().filter(|look| look.at_s >= warm_s).map(|look| look.runner_mb + look.media_mb);
    let Some(warm) = after.next() else { return 0.0 };
    after.map(|all| all - warm).fold(0.0, f64::max)
}

fn ends(first: &Path, last: &Path, file: &Path, hls: &Path) -> Result<Vec<SoakEnd>> {
    let whole = HlsFolder::open(&hls.join(PLAYLIST))?;
    let segments = whole.files();
    let count = (END_S as usize).div_ceil(SEGMENT_S as usize).min(segments.len());
    // The last segment is as long as it happens to be.
    let tail = &segments[segments.len().saturating_sub(count + 1)..];
    let length = END_S.to_string();
    let from_the_end = format!("-{length}");
    let file_name = file.to_string_lossy();
    let parts = [
        ("RTMP", "begin", first.to_owned()),
        ("RTMP", "end", last.to_owned()),
        ("MP4", "begin", cut(&["-t", &length, "-i", &file_name], &file.with_extension("begin.mkv"))?),
        ("MP4", "end", cut(&["-sseof", &from_the_end, "-i", &file_name], &file.with_extension("end.mkv"))?),
        ("HLS", "begin", cut(&["-i", &joined(&segments[..count])], &hls.join("begin.mkv"))?),
        ("HLS", "end", cut(&["-i", &joined(tail)], &hls.join("end.mkv"))?),
    ];
    parts.into_iter().map(|(output, end, part)| looked_at(output, end, &part)).collect()
}

fn looked_at(output: &'static str, end: &'static str, part: &Path) -> Result<SoakEnd> {
    let seconds = duration(&probe(part)?);
    let (pictures, sound) = (picture::analyse(part)?, sound::analyse(part)?);
    // A mark at an end may be cut.
    let flashes: Vec<f64> =
        pictures.flashes(person("p0")).into_iter().filter(|at| (0.3..seconds - 0.3).contains(at)).collect();
    let beeps: Vec<f64> = sound.beeps(person("p0")).iter().map(|beep| beep.at).collect();
    let offset = offset(&flashes, &beeps);
    ensure!(offset.pairs > 2, "{output} at its {end}: {} flashes, {} beeps", flashes.len(), beeps.len());
    Ok(SoakEnd { output, end, pairs: offset.pairs, median_ms: offset.median_ms, p99_ms: offset.p99_ms })
}

/// Segments as one input of ffmpeg.
fn joined(segments: &[PathBuf]) -> String {
    let paths: Vec<_> = segments.iter().map(|segment| segment.to_string_lossy()).collect();
    format!("concat:{}", paths.join("|"))
}

/// A part of a recording as a file whose time begins at 0, nothing encoded again.
fn cut(input: &[&str], to: &Path) -> Result<PathBuf> {
    let out = Command::new("ffmpeg")
        .args(["-v", "error", "-nostdin", "-y"])
        .args(input)
        .args(["-c", "copy"])
        .arg(to)
        .output()
        .context("start ffmpeg")?;
    ensure!(out.status.success(), "ffmpeg {}: {}", to.display(), String::from_utf8_lossy(&out.stderr));
    Ok(to.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_the_warm_up_does_not_count() {
        let look = |(at_s, media_mb)| MemoryLook { at_s, runner_mb: 20.0, media_mb };
        let memory = [(0.0, 50.0), (300.0, 90.0), (600.0, 100.0), (1200.0, 103.0), (1800.0, 101.0)].map(look);
        assert_eq!(grown(&memory, 1800.0), 3.0);
        assert_eq!(grown(&memory[..1], 1800.0), 0.0);
    }
}
