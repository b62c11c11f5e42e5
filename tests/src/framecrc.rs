//! Pictures as ffmpeg's `framecrc` lists them, a line each: stream, DTS, PTS, length, size, checksum, and flags where it is no
//! key frame. What is in a picture says which one it is, also in two files or streams of one encoder.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// For ffmpeg before `-f framecrc`: of H264 only slices are counted, as containers and protocols keep parameter sets and
/// delimiters (units 6 to 9) or do not.
pub const SLICES_ONLY: [&str; 2] = ["-bsf:v", "h264_mp4toannexb,filter_units=remove_types=6-9"];

/// Size and checksum.
pub type PictureContent = (u32, u32);

/// One line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListedPicture {
    /// PTS in the list's time base.
    pub time: i64,
    /// What is in it.
    pub content: PictureContent,
    /// It can be decoded alone.
    pub key: bool,
}

impl ListedPicture {
    /// Of a line that is no comment.
    pub fn read(line: &str) -> Result<Self> {
        let fields: Vec<&str> = line.split(',').map(str::trim).collect();
        let [_, _, pts, _, size, checksum, ref flags @ ..] = fields[..] else { bail!("no picture: {line}") };
        let checksum = checksum.strip_prefix("0x").unwrap_or(checksum);
        let read = || -> Result<(i64, PictureContent)> {
            Ok((pts.parse()?, (size.parse()?, u32::from_str_radix(checksum, 16)?)))
        };
        let (time, content) = read().with_context(|| format!("no picture: {line}"))?;
        Ok(Self { time, content, key: !flags.iter().any(|flag| flag.starts_with("F=")) })
    }
}

/// The time base of the first stream, if this line says it: such as `1/1000`.
pub fn time_base(line: &str) -> Option<&str> {
    line.strip_prefix("#tb 0: ").map(str::trim)
}

/// When each picture of a file with H264 is shown, milliseconds. Pictures that are there twice are left out.
pub fn picture_times_ms(file: &Path) -> Result<BTreeMap<PictureContent, f64>> {
    let out = Command::new("ffmpeg")
        .args(["-v", "error", "-nostdin", "-copyts", "-i"])
        .arg(file)
        .args(["-map", "0:v", "-c", "copy"])
        .args(SLICES_ONLY)
        .args(["-f", "framecrc", "pipe:1"])
        .output()
        .context("start ffmpeg")?;
    ensure!(out.status.success(), "ffmpeg {}: {}", file.display(), String::from_utf8_lossy(&out.stderr));
    times_ms(&String::from_utf8_lossy(&out.stdout)).with_context(|| format!("read {}", file.display()))
}

fn times_ms(list: &str) -> Result<BTreeMap<PictureContent, f64>> {
    let (over, under) =
        list.lines().find_map(time_base).and_then(|base| base.split_once('/')).context("no time base")?;
    let tick_ms = over.parse::<f64>()? / under.parse::<f64>()? * 1e3;
    let mut times = BTreeMap::<PictureContent, Option<f64>>::new();
    for line in list.lines().filter(|line| !line.starts_with('#')) {
        let picture = ListedPicture::read(line)?;
        let at_ms = picture.time as f64 * tick_ms;
        times.entry(picture.content).and_modify(|at| *at = None).or_insert(Some(at_ms));
    }
    Ok(times.into_iter().filter_map(|(content, at_ms)| Some((content, at_ms?))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_read_and_those_that_are_there_twice_are_left_out() {
        let list = "#software: Lavf59.27.100\n#tb 0: 1/90000\n\
                    0,       3000,       6000,     3000,    90145, 0x1d3f8154\n\
                    0,       6000,       9000,     3000,     8572, 0x4fb9aead, F=0x0, S=1\n\
                    0,       9000,      12000,     3000,       12, 0x00000001, F=0x0\n\
                    0,      12000,      15000,     3000,       12, 0x00000001, F=0x0\n";
        let times = times_ms(list).unwrap();
        let (key, other) = ((90145, 0x1d3f_8154), (8572, 0x4fb9_aead));
        assert_eq!(times.keys().copied().collect::<Vec<_>>(), [other, key]);
        assert!((times[&key] - 200.0 / 3.0).abs() < 1e-9 && (times[&other] - 100.0).abs() < 1e-9, "{times:?}");
        let line = list.lines().nth(3).unwrap();
        assert_eq!(ListedPicture::read(line).unwrap(), ListedPicture { time: 9000, content: other, key: false });
        assert!(ListedPicture::read("0, x").is_err() && times_ms("").is_err());
    }
}
