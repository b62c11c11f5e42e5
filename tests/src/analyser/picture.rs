//! Every video frame of a recording: where each person's tile is, whether it flashes, and which frame of the clip it
//! shows.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, ensure};

use super::{probe, stream};
use crate::assets::{PEOPLE, TestPerson};

/// Frames are scaled to this width: a tile of a 3×3 grid still shows its bar code.
const WIDTH: usize = 640;

/// Rectangle in shares of the frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TileRect {
    /// Left edge.
    pub x: f64,
    /// Top edge.
    pub y: f64,
    /// Width.
    pub w: f64,
    /// Height.
    pub h: f64,
}

/// One person in one frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TileReading {
    /// Where.
    pub tile: TileRect,
    /// The flash is on.
    pub flash: bool,
    /// Number of the clip's frame; `None` where the bar code cannot be read.
    pub number: Option<u16>,
}

/// One frame.
#[derive(Clone, Debug)]
pub struct DecodedFrame {
    /// Seconds in the file.
    pub at: f64,
    /// Mean luma; 16 is black.
    pub luma: f64,
    /// In the order of [`PEOPLE`]; `None`: no tile.
    pub people: [Option<TileReading>; PEOPLE.len()],
}

/// The video of a file.
#[derive(Clone, Debug)]
pub struct DecodedVideo {
    /// Width and height.
    pub size: (u32, u32),
    /// Every frame, in order.
    pub all: Vec<DecodedFrame>,
}

impl DecodedVideo {
    /// A person in every frame, with seconds in the file.
    pub fn of(&self, person: TestPerson) -> impl Iterator<Item = (f64, Option<TileReading>)> {
        let index = PEOPLE.iter().position(|other| *other == person).expect("one of the people");
        self.all.iter().map(move |picture| (picture.at, picture.people[index]))
    }

    /// Begin of each flash of a person, seconds in the file.
    pub fn flashes(&self, person: TestPerson) -> Vec<f64> {
        let (mut flashes, mut last) = (Vec::new(), f64::MIN);
        for (at, reading) in self.of(person) {
            if reading.is_some_and(|reading| reading.flash) {
                if at - last > 0.2 {
                    flashes.push(at);
                }
                last = at;
            }
        }
        flashes
    }

    /// Spans in which a person's tile is visible, seconds in the file.
    pub fn spans(&self, person: TestPerson) -> Vec<(f64, f64)> {
        let mut spans: Vec<(f64, f64)> = Vec::new();
        let mut there = false;
        for (at, reading) in self.of(person) {
            match (reading, spans.last_mut()) {
                (Some(_), Some(span)) if there => span.1 = at,
                (Some(_), _) => spans.push((at, at)),
                (None, _) => {}
            }
            there = reading.is_some();
        }
        spans
    }

    /// Which frames of the clip are shown of a person.
    pub fn identity(&self, person: TestPerson) -> FrameContinuity {
        let numbers: Vec<(f64, u16)> =
            self.of(person).filter_map(|(at, reading)| Some((at, reading?.number?))).collect();
        FrameContinuity::of(&numbers)
    }
}

/// Which frames of a clip a recording shows of a person.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FrameContinuity {
    /// Frames with a readable code.
    pub read: usize,
    /// Of them, with another number than the one before.
    pub different: usize,
    /// Rate of new numbers.
    pub different_per_second: f64,
    /// Frames of the clip between first and last that never appear.
    pub missing: usize,
    /// Seconds in the file of each frame after missing ones, and how many are missing.
    pub skips: Vec<(f64, usize)>,
    /// Steps back in the clip (the end of its loop is none).
    pub backwards: usize,
    /// Longest time without a new number, seconds.
    pub longest_freeze: f64,
}

impl FrameContinuity {
    /// From (time, number) in the order of the file. Clips have 600 frames.
    pub fn of(numbers: &[(f64, u16)]) -> Self {
        const LOOP: i32 = 600;
        let (Some(first), Some(last)) = (numbers.first(), numbers.last()) else { return Self::default() };
        let mut identity = Self { read: numbers.len(), different: 1, ..Self::default() };
        let mut changed_at = first.0;
        for pair in numbers.windows(2) {
            let step = (i32::from(pair[1].1) - i32::from(pair[0].1)).rem_euclid(LOOP);
            match step {
                0 => continue,
                1..300 => {
                    identity.different += 1;
                    identity.missing += step as usize - 1;
                    if step > 1 {
                        identity.skips.push((pair[1].0, step as usize - 1));
                    }
                }
                _ => identity.backwards += 1,
            }
            identity.longest_freeze = identity.longest_freeze.max(pair[1].0 - changed_at);
            changed_at = pair[1].0;
        }
        identity.longest_freeze = identity.longest_freeze.max(last.0 - changed_at);
        let seconds = last.0 - first.0;
        if seconds > 0.0 {
            // Both ends are counted, so it is one less than there are pictures.
            identity.different_per_second = (identity.different - 1) as f64 / seconds;
        }
        identity
    }
}

/// Decodes the video of a file and analyses every frame.
pub fn analyse(file: &Path) -> Result<DecodedVideo> {
    let probed = probe(file)?;
    let video = stream(&probed, "video").with_context(|| format!("{} has no video", file.display()))?;
    let side = |key: &str| video[key].as_u64().unwrap_or(0);
    let (full_width, full_height) = (side("width"), side("height"));
    ensure!(full_width > 0 && full_height > 0, "{}: a picture without size", file.display());
    let height = ((WIDTH as u64 * full_height / full_width) as usize).next_multiple_of(2);

    // `showinfo` tells the time of each picture: of a packet with several layers a decoder gives several, and for one whose
    // references are missing none.
    let mut decoder = Command::new("ffmpeg")
        .args(["-hide_banner", "-nostats", "-v", "info", "-nostdin", "-copyts", "-i"])
        .arg(file)
        .args(["-map", "0:v:0", "-vsync", "passthrough", "-enc_time_base", "-1", "-vf"])
        .arg(format!("scale={WIDTH}:{height}:flags=area,showinfo=checksum=0"))
        .args(["-pix_fmt", "yuv420p", "-f", "rawvideo", "-"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("start ffmpeg")?;
    let mut stdout = decoder.stdout.take().expect("asked for above");
    let stderr = decoder.stderr.take().expect("asked for above");
    let told = std::thread::spawn(move || picture_times(BufReader::new(stderr)));
    let mut canvas = GrayFrame { bytes: vec![0; WIDTH * height * 3 / 2], height };
    let mut all = Vec::new();
    while read_whole(&mut stdout, &mut canvas.bytes)? {
        all.push(DecodedFrame { at: 0.0, luma: canvas.luma(), people: PEOPLE.map(|person| canvas.find_tile(person)) });
    }
    decoder.wait().context("wait for ffmpeg")?;
    let times = told.join().map_err(|_| anyhow!("the times of {} were not read", file.display()))?;
    ensure!(times.len() == all.len(), "{}: {} pictures at {} times", file.display(), all.len(), times.len());
    all.iter_mut().zip(times).for_each(|(frame, at)| frame.at = at);
    Ok(DecodedVideo { size: (full_width as u32, full_height as u32), all })
}

fn read_whole(from: &mut impl Read, into: &mut [u8]) -> Result<bool> {
    let mut filled = 0;
    while filled < into.len() {
        let count = from.read(&mut into[filled..]).context("read pictures")?;
        if count == 0 {
            return Ok(false);
        }
        filled += count;
    }
    Ok(true)
}

/// Presentation times in seconds that ffmpeg's `showinfo` tells. Its errors are passed on.
fn picture_times(told: impl BufRead) -> Vec<f64> {
    let mut times = Vec::new();
    for line in told.lines().map_while(Result::ok) {
        let is_told = line.starts_with("[Parsed_showinfo");
        let time = line.split_once("pts_time:").and_then(|(_, rest)| rest.split_whitespace().next()?.parse().ok());
        match time {
            Some(time) if is_told => times.push(time),
            _ if line.contains("rror") => eprintln!("{line}"),
            _ => {}
        }
    }
    times
}

/// An I420 frame of [`WIDTH`].
struct GrayFrame {
    bytes: Vec<u8>,
    height: usize,
}

impl GrayFrame {
    fn luma(&self) -> f64 {
        let plane = &self.bytes[..WIDTH * self.height];
        plane.iter().step_by(7).map(|y| f64::from(*y)).sum::<f64>() / (plane.len() / 7) as f64
    }

    /// Mean luma of a rectangle in pixels.
    fn brightness(&self, x: f64, y: f64, w: f64, h: f64) -> f64 {
        let clamp = |value: f64, max: usize| (value.round().max(0.0) as usize).min(max);
        let (left, right) = (clamp(x, WIDTH - 1), clamp(x + w, WIDTH));
        let (top, bottom) = (clamp(y, self.height - 1), clamp(y + h, self.height));
        let (right, bottom) = (right.max(left + 1), bottom.max(top + 1));
        let rows = (top..bottom).map(|row| &self.bytes[row * WIDTH + left..row * WIDTH + right]);
        let sum: u64 = rows.flatten().map(|y| u64::from(*y)).sum();
        sum as f64 / ((right - left) * (bottom - top)) as f64
    }

    fn find_tile(&self, person: TestPerson) -> Option<TileReading> {
        const NEAR: i32 = 20;
        let (width, height) = (WIDTH / 2, self.height / 2);
        let u = &self.bytes[WIDTH * self.height..][..width * height];
        let v = &self.bytes[WIDTH * self.height + width * height..][..width * height];
        let (mut columns, mut rows) = (vec![0u32; width], vec![0u32; height]);
        let chroma = u.chunks_exact(width).zip(v.chunks_exact(width));
        for ((u, v), row) in chroma.zip(&mut rows) {
            for ((u, v), column) in u.iter().zip(v).zip(&mut columns) {
                let (du, dv) = (i32::from(*u) - i32::from(person.u), i32::from(*v) - i32::from(person.v));
                let near = u32::from(du * du + dv * dv < NEAR * NEAR);
                *column += near;
                *row += near;
            }
        }
        let total: u32 = rows.iter().sum();
        if (total as usize) < width * height / 500 {
            return None;
        }
        // A column through flash and bar code still has half of its pixels in the person's colour, a row a quarter.
        let span = |counts: &[u32]| {
            let enough = counts.iter().max().copied().unwrap_or(0) / 6;
            let first = counts.iter().position(|count| *count > enough)?;
            let last = counts.iter().rposition(|count| *count > enough)?;
            Some((2.0 * first as f64, 2.0 * (last + 1 - first) as f64))
        };
        let ((x, w), (y, h)) = (span(&columns)?, span(&rows)?);
        // The clip is 16:9; a tile of another shape shows its middle.
        let scale = (w / 16.0).max(h / 9.0);
        let (full_w, full_h) = (16.0 * scale, 9.0 * scale);
        let (left, top) = (x + (w - full_w) / 2.0, y + (h - full_h) / 2.0);
        let flash = self.brightness(left + full_w * 0.3, top + full_h * 0.17, full_w * 0.4, full_h * 0.16) > 180.0;
        let cell = full_w * 0.75 / 16.0;
        let bright = |index: usize| {
            let x = left + full_w / 8.0 + cell * (index as f64 + 0.3);
            self.brightness(x, top + full_h * 0.655, cell * 0.4, full_h * 0.065) > 126.0
        };
        let bits = (2..14).enumerate().map(|(bit, index)| u16::from(bright(index)) << bit).sum::<u16>();
        let whole = bright(0) && !bright(1) && !bright(15) && bright(14) == (bits.count_ones() % 2 == 1);
        let (all_w, all_h) = (WIDTH as f64, self.height as f64);
        Some(TileReading {
            tile: TileRect { x: x / all_w, y: y / all_h, w: w / all_w, h: h / all_h },
            flash,
            number: whole.then_some(bits),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skipped_and_a_repeated_picture_are_told_apart() {
        let numbers: Vec<(f64, u16)> =
            [597, 598, 598, 0, 1].iter().enumerate().map(|(i, number)| (i as f64 / 30.0, *number)).collect();
        let identity = FrameContinuity::of(&numbers);
        assert_eq!((identity.read, identity.different, identity.missing, identity.backwards), (5, 4, 1, 0));
        assert!((identity.longest_freeze - 2.0 / 30.0).abs() < 1e-9);
    }
}
