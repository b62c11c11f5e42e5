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
    decode(file, &["-af", "aresample=48000:async=1:min_hard_comp=0.005:first_pts=0"])
}

/// Decodes it as a decoder does that does not look at time stamps, as most: a sample's index says how much came before it.
pub fn untimed(file: &Path) -> Result<DecodedAudio> {
    decode(file, &["-ar", "48000"])
}

/// Length of the first audio stream by its decoded samples, seconds.
pub fn heard_seconds(file: &Path) -> Result<f64> {
    Ok(untimed(file)?.seconds())
}

fn decode(file: &Path, resampled: &[&str]) -> Result<DecodedAudio> {
    let out = Command::new("ffmpeg")
        .args(["-v", "error", "-nostdin", "-i"])
        .arg(file)
        .args(["-map", "0:a:0"])
        .args(resampled)
        .args(["-ac", "2", "-f", "f32le", "-"])
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
        let span = self.span(from, to);
        self.left[span.clone()].iter().chain(&self.right[span]).fold(0.0, |most, sample| most.max(sample.abs()))
    }

    /// Longest time within a span of which no sample is louder than `below`, seconds; in steps of 5 ms.
    pub fn longest_silence(&self, from: f64, to: f64, below: f32) -> f64 {
        const STEP: usize = RATE / 200;
        let span = self.span(from, to);
        let steps = self.left[span.clone()].chunks(STEP).zip(self.right[span].chunks(STEP));
        let (mut longest, mut silent) = (0usize, 0usize);
        for (left, right) in steps {
            let is_silent = left.iter().chain(right).all(|sample| sample.abs() <= below);
            silent = if is_silent { silent + 1 } else { 0 };
            longest = longest.max(silent);
        }
        (longest * STEP) as f64 / RATE as f64
    }

    /// Clicks larger than `above` in a span: when, and how large; of those within 20 ms the largest. A click is where the wave
    /// bends more than any tone does: a step of some size bends it by that size (second difference), the beep of p0 by 0.001,
    /// that of p1 by 0.002, those of p2 and p3 by up to 0.01.
    pub fn clicks(&self, from: f64, to: f64, above: f32) -> Vec<(f64, f32)> {
        const APART: f64 = 0.02;
        let span = self.span(from, to);
        let mut clicks: Vec<(f64, f32)> = Vec::new();
        for index in span.start + 2..span.end {
            let bend = |side: &[f32]| (side[index] - 2.0 * side[index - 1] + side[index - 2]).abs();
            let size = bend(&self.left).max(bend(&self.right));
            if size <= above {
                continue;
            }
            let at = self.begins + index as f64 / RATE as f64;
            match clicks.last_mut() {
                Some(last) if at - last.0 < APART => last.1 = last.1.max(size),
                _ => clicks.push((at, size)),
            }
        }
        clicks
    }

    /// Samples of a span in seconds.
    fn span(&self, from: f64, to: f64) -> std::ops::Range<usize> {
        let index = |at: f64| (((at - self.begins).max(0.0) * RATE as f64) as usize).min(self.left.len());
        index(from)..index(to).max(index(from))
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
    fn a_step_is_a_click_and_a_tone_is_none() {
        let mut left = beeping(&[(person("p0"), 0.5), (person("p1"), 0.25)]);
        let quiet = DecodedAudio { right: vec![0.0; left.len()], left: left.clone(), begins: 0.0 };
        // The begin of a beep bends by 0.0176.
        assert_eq!(quiet.clicks(0.0, 4.0, 0.02), []);
        // Two steps of 0.04, at 1 s and at 3 s.
        left[RATE..RATE * 3].iter_mut().for_each(|sample| *sample += 0.04);
        let stepped = DecodedAudio { left, ..quiet };
        let clicks = stepped.clicks(0.0, 4.0, 0.02);
        let at: Vec<f64> = clicks.iter().map(|(at, _)| (at * 100.0).round() / 100.0).collect();
        assert_eq!(at, [1.0, 3.0]);
        assert!(clicks.iter().all(|(_, size)| (0.036..0.05).contains(size)), "{clicks:?}");
        assert_eq!(stepped.clicks(1.5, 2.5, 0.02), []);
    }

    #[test]
    fn silence_is_measured_within_a_span() {
        let mut left = vec![0.1; RATE * 4];
        left[RATE..RATE * 2].fill(0.001);
        let sound = DecodedAudio { right: vec![0.0; left.len()], left, begins: 0.0 };
        assert!((sound.longest_silence(0.0, 4.0, 0.005) - 1.0).abs() < 0.006);
        assert!((sound.longest_silence(1.5, 4.0, 0.005) - 0.5).abs() < 0.006);
        assert_eq!(sound.longest_silence(2.5, 4.0, 0.005), 0.0);
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
