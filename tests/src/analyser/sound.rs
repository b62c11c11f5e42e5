//! Beeps in the audio of a recording: one tone for each person, on each channel.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::assets::TestPerson;

/// Sample rate of [`DecodedAudio`], hertz.
pub const RATE: usize = 48_000;

/// A beep of the clips has amplitude 0.15.
const LOUD: f32 = 0.06;

/// One beep.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Beep {
    /// Begin, seconds in the file.
    pub at: f64,
    /// Amplitude of the tone on the left channel.
    pub left: f32,
    /// Amplitude of the tone on the right channel.
    pub right: f32,
}

impl Beep {
    /// The channels on which the tone is loud.
    pub fn side(&self) -> BeepSide {
        match (self.left > LOUD * 0.7, self.right > LOUD * 0.7) {
            (true, false) => BeepSide::Left,
            (false, true) => BeepSide::Right,
            _ => BeepSide::Both,
        }
    }
}

/// Channels of a beep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BeepSide {
    /// Left only.
    Left,
    /// Right only.
    Right,
    /// Both, or neither clearly.
    Both,
}

/// The audio of a recording at 48 kHz; mono is on both channels.
#[derive(Clone, Debug)]
pub struct DecodedAudio {
    /// Samples, −1 to 1.
    pub left: Vec<f32>,
    /// As long as `left`.
    pub right: Vec<f32>,
    /// Time of the first sample, seconds in the file.
    pub begins: f64,
}

/// Decodes the first audio stream of a file. Gaps are filled with silence, so a sample's index is its time.
pub fn analyse(file: &Path) -> Result<DecodedAudio> {
    // `first_pts=0` puts silence where the file has none, so that a sample's index is its time.
    let out = Command::new("ffmpeg")
        .args(["-v", "error", "-nostdin", "-i"])
        .arg(file)
        .args([
            "-map",
            "0:a:0",
            "-af",
            "aresample=48000:async=1:min_hard_comp=0.005:first_pts=0",
            "-ac",
            "2",
            "-f",
            "f32le",
            "-",
        ])
        .output()
        .context("start ffmpeg")?;
    ensure!(out.status.success(), "ffmpeg {}: {}", file.display(), String::from_utf8_lossy(&out.stderr));
    let (mut left, mut right) = (Vec::new(), Vec::new());
    for pair in out.stdout.chunks_exact(8) {
        left.push(f32::from_le_bytes([pair[0], pair[1], pair[2], pair[3]]));
        right.push(f32::from_le_bytes([pair[4], pair[5], pair[6], pair[7]]));
    }
    Ok(DecodedAudio { left, right, begins: 0.0 })
}

/// Length of the first audio stream by its decoded samples, seconds: what a decoder makes of it that does not look at time
/// stamps, as most do.
pub fn heard_seconds(file: &Path) -> Result<f64> {
    let out = Command::new("ffmpeg")
        .args(["-v", "error", "-nostdin", "-i"])
        .arg(file)
        .args(["-map", "0:a:0", "-ac", "1", "-ar", "48000", "-f", "s16le", "-"])
        .output()
        .context("start ffmpeg")?;
    ensure!(out.status.success(), "ffmpeg {}: {}", file.display(), String::from_utf8_lossy(&out.stderr));
    Ok(out.stdout.len() as f64 / 2.0 / 48_000.0)
}

impl DecodedAudio {
    /// Length.
    pub fn seconds(&self) -> f64 {
        self.left.len() as f64 / RATE as f64
    }

    /// Every beep of a person's tone, ascending; accurate to about 4 ms.
    pub fn beeps(&self, person: TestPerson) -> Vec<Beep> {
        let both: Vec<f32> =
            self.left.iter().zip(&self.right).map(|(left, right)| left.abs().max(right.abs())).collect();
        if both.is_empty() {
            return Vec::new();
        }
        let (left, right) = (Tone::of(&self.left, person.tone), Tone::of(&self.right, person.tone));
        // 20 ms, shaped: other tones are not heard through it.
        let (hop, window) = (RATE / 1000 * 5, RATE / 1000 * 20);
        let level = |at: usize| left.shaped(at, window).max(right.shaped(at, window));
        let (mut beeps, mut quiet_since, mut at) = (Vec::<Beep>::new(), 0usize, 0usize);
        while at + window < both.len() {
            let loud = level(at);
            if loud < LOUD {
                at += hop;
                continue;
            }
            if at >= quiet_since {
                let strongest =
                    if left.shaped(at + hop * 3, window) > right.shaped(at + hop * 3, window) { &left } else { &right };
                let begins = strongest.onset(at.saturating_sub(window), at + window * 2);
                let middle = begins + RATE / 100;
                beeps.push(Beep {
                    at: self.begins + begins as f64 / RATE as f64,
                    left: left.shaped(middle, window),
                    right: right.shaped(middle, window),
                });
            }
            // One beep is 40 ms: whatever comes within 200 ms belongs to it.
            quiet_since = at + RATE / 5;
            at += hop;
        }
        beeps
    }

    /// Largest absolute sample of a span in seconds.
    pub fn peak(&self, from: f64, to: f64) -> f32 {
        let index = |at: f64| ((at - self.begins).max(0.0) * RATE as f64) as usize;
        let (from, to) = (index(from).min(self.left.len()), index(to).min(self.left.len()));
        self.left[from..to].iter().chain(&self.right[from..to]).fold(0.0, |most, sample| most.max(sample.abs()))
    }
}

/// Running sums of a channel turned down by a tone's frequency: the tone's level over any window is two look-ups.
struct Tone {
    sums: Vec<(f64, f64)>,
}

impl Tone {
    fn of(samples: &[f32], frequency: f64) -> Self {
        let mut sums = Vec::with_capacity(samples.len() + 1);
        let mut sum = (0.0, 0.0);
        sums.push(sum);
        let step = std::f64::consts::TAU * frequency / RATE as f64;
        for (index, sample) in samples.iter().enumerate() {
            let phase = (step * index as f64) % std::f64::consts::TAU;
            sum.0 += f64::from(*sample) * phase.cos();
            sum.1 -= f64::from(*sample) * phase.sin();
            sums.push(sum);
        }
        Self { sums }
    }

    /// Amplitude of the tone in a window, all samples alike.
    fn flat(&self, at: usize, window: usize) -> f64 {
        let (from, to) = (at.min(self.sums.len() - 1), (at + window).min(self.sums.len() - 1));
        let (re, im) = (self.sums[to].0 - self.sums[from].0, self.sums[to].1 - self.sums[from].1);
        2.0 * (re * re + im * im).sqrt() / window as f64
    }

    /// The same with soft ends (a stair of eight flat parts in Hann's shape).
    fn shaped(&self, at: usize, window: usize) -> f32 {
        let part = window / 8;
        let (mut re, mut im, mut weight) = (0.0, 0.0, 0.0);
        for index in 0..8 {
            let share = (std::f64::consts::PI * (index as f64 + 0.5) / 8.0).sin().powi(2);
            let (from, to) =
                ((at + index * part).min(self.sums.len() - 1), (at + (index + 1) * part).min(self.sums.len() - 1));
            re += share * (self.sums[to].0 - self.sums[from].0);
            im += share * (self.sums[to].1 - self.sums[from].1);
            weight += share * part as f64;
        }
        (2.0 * (re * re + im * im).sqrt() / weight) as f32
    }

    /// The sample at which the tone begins: there a 10 ms window that ends 5 ms later is half full.
    fn onset(&self, from: usize, to: usize) -> usize {
        let window = RATE / 100;
        let full = (from..to).step_by(48).map(|at| self.flat(at, window)).fold(0.0, f64::max);
        let half = (from..to).find(|at| self.flat(*at, window) > full / 2.0).unwrap_or(from);
        half + window / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::assets::{PEOPLE, person};

    fn beeping(people: &[(TestPerson, f64)]) -> Vec<f32> {
        (0..RATE * 4)
            .map(|index| {
                let at = index as f64 / RATE as f64;
                people
                    .iter()
                    .map(|(person, shift)| {
                        let phase = (at - shift).rem_euclid(1.0);
                        let beep =
                            if phase < 0.04 { 0.15 * (std::f64::consts::TAU * person.tone * phase).sin() } else { 0.0 };
                        beep as f32
                    })
                    .sum()
            })
            .collect()
    }

    #[test]
    fn every_tone_is_found_among_the_others() {
        let people: Vec<(TestPerson, f64)> = PEOPLE.iter().map(|person| (*person, 0.25)).collect();
        let sound = DecodedAudio { left: beeping(&people), right: vec![0.0; RATE * 4], begins: 0.0 };
        for person in PEOPLE {
            let beeps = sound.beeps(person);
            assert_eq!(beeps.len(), 4, "{}", person.name);
            for (second, beep) in beeps.iter().enumerate() {
                assert!((beep.at - second as f64 - 0.25).abs() < 0.004, "{} {beep:?}", person.name);
                assert_eq!(beep.side(), BeepSide::Left);
            }
        }
    }

    #[test]
    fn a_silent_person_is_not_detected() {
        let sound =
            DecodedAudio { left: beeping(&[(person("p0"), 0.5)]), right: beeping(&[(person("p3"), 0.5)]), begins: 0.0 };
        assert!(sound.beeps(person("p1")).is_empty());
        assert!(sound.beeps(person("p2")).is_empty());
        assert_eq!(sound.beeps(person("p3"))[0].side(), BeepSide::Right);
    }
}
