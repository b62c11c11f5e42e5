//! How near a person's tile is to what the person published: SSIM, and VMAF where this ffmpeg has it. The bar codes say
//! which picture of the clip each picture of the recording shows. Blocks.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use super::picture::{DecodedVideo, TileRect};
use crate::assets::TestPerson;

/// Pictures in a row that are compared.
const PICTURES: usize = 90;
/// The same of what stands still, of which two a second are encoded.
const STILL_PICTURES: usize = 10;
/// Of a clip.
const LOOP: usize = 600;
/// A tile is found by its colour at half the resolution of a picture of 640: it may be this far off, in pixels of 1280.
const NEAR: [i64; 5] = [-4, -2, 0, 2, 4];

/// Of a stretch of a recording.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Similarity {
    /// Structural similarity of all planes, 1 where nothing differs.
    pub ssim: f64,
    /// 0 to 100; `None` where ffmpeg was built without it.
    pub vmaf: Option<f64>,
}

/// What is compared with what.
#[derive(Clone, Copy, Debug)]
pub struct Compared<'a> {
    /// The recording.
    pub file: &'a Path,
    /// It, decoded.
    pub video: &'a DecodedVideo,
    /// Whose tile.
    pub person: TestPerson,
    /// H264 of 30 pictures a second, as published in its best size.
    pub clip: &'a Path,
    /// Pixels of the tile; that of the whole picture where there is no other.
    pub tile: (u32, u32),
    /// All pictures of the clip are the same.
    pub is_still: bool,
}

/// `None` where no three seconds of the recording show each picture of the clip once, and where too few are encoded of one that
/// stands still.
pub fn similarity(compared: Compared<'_>) -> Result<Option<Similarity>> {
    let Some(stretch) = stretch(&compared) else { return Ok(None) };
    let place = place(&compared, stretch.0, stretch.1)?;
    let ssim = score(&compared, place, stretch, "ssim", "All:")?;
    let vmaf =
        has_filter("libvmaf")?.then(|| score(&compared, place, stretch, "libvmaf", "VMAF score:")).transpose()?;
    Ok(Some(Similarity { ssim, vmaf }))
}

/// Numbers of the first picture in the recording and in the clip, and how many there are.
fn stretch(compared: &Compared<'_>) -> Option<(usize, usize, usize)> {
    let pictures = compared.video.all.len();
    if compared.is_still {
        let enough = pictures >= 2 * STILL_PICTURES;
        return enough.then(|| (pictures - STILL_PICTURES - STILL_PICTURES / 2, 0, STILL_PICTURES));
    }
    let numbers: Vec<Option<u16>> =
        compared.video.of(compared.person).map(|(_, reading)| reading.and_then(|reading| reading.number)).collect();
    let goes_on = |numbers: &[Option<u16>]| numbers.windows(2).all(|pair| pair[0].map(|number| number + 1) == pair[1]);
    // Not from the beginning on: an encoder settles.
    let from = (pictures / 3).min(PICTURES);
    let windows = numbers.get(from..)?.windows(PICTURES);
    windows.zip(from..).find_map(|(window, index)| {
        let first = usize::from(window[0]?);
        (goes_on(window) && first + PICTURES <= LOOP).then_some((index, first, PICTURES))
    })
}

/// Left and upper edge of the tile, where it fits best.
fn place(compared: &Compared<'_>, shown: usize, published: usize) -> Result<(i64, i64)> {
    let (width, height) = compared.video.size;
    if compared.tile == (width, height) {
        return Ok((0, 0));
    }
    let reading = compared.video.of(compared.person).nth(shown).and_then(|(_, reading)| reading);
    let TileRect { x, y, .. } = reading.context("the tile is gone")?.tile;
    let even = |at: f64, length: u32| (at * f64::from(length) / 2.0).round() as i64 * 2;
    let mut best = (even(x, width), even(y, height));
    let furthest = (i64::from(width - compared.tile.0), i64::from(height - compared.tile.1));
    for upright in [false, true] {
        let mut scores = vec![];
        for by in NEAR {
            let (x, y) = if upright { (best.0, best.1 + by) } else { (best.0 + by, best.1) };
            if (0..=furthest.0).contains(&x) && (0..=furthest.1).contains(&y) {
                scores.push((score(compared, (x, y), (shown, published, 1), "ssim", "All:")?, (x, y)));
            }
        }
        let best_score = scores.into_iter().max_by(|one, other| one.0.total_cmp(&other.0));
        best = best_score.context("the tile is out of the picture")?.1;
    }
    Ok(best)
}

/// What a filter of ffmpeg that compares two videos says behind `label`.
fn score(
    compared: &Compared<'_>,
    (x, y): (i64, i64),
    (shown, published, pictures): (usize, usize, usize),
    filter: &str,
    label: &str,
) -> Result<f64> {
    let (width, height) = compared.tile;
    let graph = format!(
        "[0:v]trim=start_frame={shown}:end_frame={},setpts=N/30/TB,crop={width}:{height}:{x}:{y}[shown];\
         [1:v]trim=start_frame={published}:end_frame={},setpts=N/30/TB,\
         scale={width}:{height}:force_original_aspect_ratio=increase:flags=bicubic,crop={width}:{height}[published];\
         [shown][published]{filter}",
        shown + pictures,
        published + pictures,
    );
    let out = Command::new("ffmpeg")
        .args(["-v", "info", "-nostats", "-nostdin", "-i"])
        .arg(compared.file)
        .args(["-r", "30", "-f", "h264", "-i"])
        .arg(compared.clip)
        .args(["-lavfi", &graph, "-f", "null", "-"])
        .output()
        .context("start ffmpeg")?;
    let said = String::from_utf8_lossy(&out.stderr);
    ensure!(out.status.success(), "ffmpeg {}: {said}", compared.file.display());
    let (_, behind) = said.rsplit_once(label).with_context(|| format!("{filter} says nothing: {said}"))?;
    let number = behind.split_whitespace().next().unwrap_or_default();
    number.parse::<f64>().with_context(|| format!("{filter} says {number}"))
}

fn has_filter(name: &str) -> Result<bool> {
    let out = Command::new("ffmpeg").args(["-v", "quiet", "-filters"]).output().context("start ffmpeg")?;
    Ok(String::from_utf8_lossy(&out.stdout).split_whitespace().any(|word| word == name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyser::picture::{DecodedFrame, TileReading};
    use crate::assets::{PEOPLE, person};

    fn shown(numbers: impl Iterator<Item = usize>) -> DecodedVideo {
        let tile = TileRect { x: 0.0, y: 0.0, w: 1.0, h: 1.0 };
        let frame = |(index, number): (usize, usize)| {
            let mut people = [None; PEOPLE.len()];
            people[0] = Some(TileReading { tile, flash: false, number: Some((number % LOOP) as u16) });
            DecodedFrame { at: index as f64 / 30.0, luma: 80.0, people }
        };
        DecodedVideo { size: (1280, 720), all: numbers.enumerate().map(frame).collect() }
    }

    #[test]
    fn a_stretch_has_every_picture_of_the_clip_once_and_no_end_of_its_loop() {
        let compared = |video: &DecodedVideo, is_still| {
            let (file, clip) = (Path::new("a.mp4"), Path::new("p0-720.h264"));
            stretch(&Compared { file, video, person: person("p0"), clip, tile: (1280, 720), is_still })
        };
        assert_eq!(compared(&shown(10..400), false), Some((90, 100, PICTURES)));
        // Of the clip 450 is missing.
        assert_eq!(compared(&shown((300..450).chain(451..900)), false), Some((150, 451, PICTURES)));
        assert_eq!(compared(&shown((0..300).map(|n| n / 2 * 2)), false), None, "each is shown twice");
        assert_eq!(compared(&shown((0..19).map(|_| 7)), true), None);
        assert_eq!(compared(&shown((0..300).map(|_| 7)), true), Some((285, 0, STILL_PICTURES)));
    }
}
