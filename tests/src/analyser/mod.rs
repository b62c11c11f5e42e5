//! Analyser of recordings: what a file contains, compared with what was published.
//!
//! `picture` finds each person's tile by its colour in every frame and reads flash and bar code there; `sound` finds
//! each person's beeps by their tone; `sync` compares the two with each other and with the seconds in which a person
//! was published; `copied` compares tracks that must not have been changed byte by byte; `similarity` says how near an
//! encoded picture is to the published one; `hls` looks at playlists and segments, `hlsdemux` plays them with GStreamer.
//! Elsewhere ffmpeg and ffprobe decode.

pub mod copied;
pub mod hls;
pub mod hlsdemux;
pub mod picture;
pub mod similarity;
pub mod sound;
pub mod sync;

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// ffprobe's `streams` and `format` of a file.
pub fn probe(file: &Path) -> Result<Value> {
    let out = Command::new("ffprobe")
        .args(["-v", "error", "-show_streams", "-show_format", "-of", "json"])
        .arg(file)
        .output()
        .context("start ffprobe")?;
    ensure!(out.status.success(), "ffprobe {}: {}", file.display(), String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).context("read ffprobe's answer")
}

/// The first stream of a kind (`video`, `audio`).
pub fn stream<'a>(probe: &'a Value, kind: &str) -> Option<&'a Value> {
    probe["streams"].as_array()?.iter().find(|stream| stream["codec_type"] == kind)
}

/// Duration in the container, seconds; 0 where it has none.
pub fn duration(probe: &Value) -> f64 {
    probe["format"]["duration"].as_str().and_then(|text| text.parse().ok()).unwrap_or(0.0)
}

/// Time of the last packet, seconds. Reads all packets: the container of a killed recording may have no duration.
pub fn played(file: &Path) -> Result<f64> {
    let out = Command::new("ffprobe")
        .args(["-v", "error", "-show_entries", "packet=pts_time", "-of", "csv=p=0"])
        .arg(file)
        .output()
        .context("start ffprobe")?;
    ensure!(out.status.success(), "ffprobe {}: {}", file.display(), String::from_utf8_lossy(&out.stderr));
    let times = String::from_utf8_lossy(&out.stdout);
    Ok(times.lines().filter_map(|line| line.trim_end_matches(',').parse::<f64>().ok()).fold(0.0, f64::max))
}

/// Time in seconds and size in pixels of each picture that ffmpeg decodes, in its order.
pub fn frame_sizes(file: &Path) -> Result<Vec<(f64, (u32, u32))>> {
    let out = Command::new("ffprobe")
        .args(["-v", "error", "-select_streams", "v:0"])
        .args(["-show_entries", "frame=best_effort_timestamp_time,width,height", "-of", "json"])
        .arg(file)
        .output()
        .context("start ffprobe")?;
    ensure!(out.status.success(), "ffprobe {}: {}", file.display(), String::from_utf8_lossy(&out.stderr));
    let decoded: Value = serde_json::from_slice(&out.stdout).context("read ffprobe's answer")?;
    let mut sizes: Vec<(f64, (u32, u32))> = Vec::new();
    for frame in decoded["frames"].as_array().context("ffprobe lists no pictures")? {
        let side = |key: &str| frame[key].as_u64().unwrap_or(0) as u32;
        let told = frame["best_effort_timestamp_time"].as_str().and_then(|text| text.parse().ok());
        // One without a time is shown with the one before.
        let at = told.or(sizes.last().map(|(at, _)| *at)).unwrap_or(0.0);
        sizes.push((at, (side("width"), side("height"))));
    }
    Ok(sizes)
}

/// A line for each packet of a file, in its order: stream, times, length, flags and a hash of its bytes.
pub fn packets(file: &Path) -> Result<Vec<String>> {
    let out = Command::new("ffprobe")
        .args(["-v", "error", "-show_data_hash", "md5"])
        .args(["-show_entries", "packet=stream_index,pts,dts,duration,flags,data_hash", "-of", "csv=p=0"])
        .arg(file)
        .output()
        .context("start ffprobe")?;
    ensure!(out.status.success(), "ffprobe {}: {}", file.display(), String::from_utf8_lossy(&out.stderr));
    Ok(String::from_utf8_lossy(&out.stdout).lines().map(str::to_owned).collect())
}

/// Median; 0 for no values.
pub fn median(values: &[f64]) -> f64 {
    percentile(values, 0.5)
}

/// Nearest-rank percentile, `share` 0 to 1; 0 for no values.
pub fn percentile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_occur() {
        let values = [4.0, 1.0, 3.0, 2.0];
        assert_eq!((median(&values), percentile(&values, 0.99), percentile(&[], 0.5)), (2.0, 4.0, 0.0));
    }
}
