//! Eyes and ears: what a recording shows, held against what was published.
//!
//! `picture` finds each person's tile by its colour in every picture and reads flash and bar code there; `sound` finds
//! each person's beeps by their tone; `sync` holds the two against each other and against the seconds in which somebody
//! was there; `copied` compares what must not have been changed, byte by byte.

pub mod copied;
pub mod picture;
pub mod sound;
pub mod sync;

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// What ffprobe says of a file: `streams` and `format`.
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

/// Seconds, as the container says.
pub fn duration(probe: &Value) -> f64 {
    probe["format"]["duration"].as_str().and_then(|text| text.parse().ok()).unwrap_or(0.0)
}

/// Seconds from the beginning to the last packet, by reading all of them: a file whose writer was killed may not say.
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

/// Middle value; 0 of nothing.
pub fn median(values: &[f64]) -> f64 {
    percentile(values, 0.5)
}

/// Nearest rank; 0 of nothing.
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
