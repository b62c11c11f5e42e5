//! The sum of all streams of a page, by sample number. In: samples at their numbers, late and early ones too. Out: whole
//! blocks in order. Pure: no clock.

use std::collections::VecDeque;

/// Sample frames a second.
pub const RATE: i64 = 48_000;
/// What is kept of the time after the first frame that was not taken yet: half a second until it is taken, and what a client
/// writes ahead. 1.2 MB.
const MAX_FRAMES: i64 = 3 * RATE;

/// The sound from `first` on. A frame is a left and a right sample.
#[derive(Debug, Default)]
pub struct SoundMix {
    first: i64,
    sums: VecDeque<[f32; 2]>,
}

impl SoundMix {
    /// The number of the first frame that was not taken yet; earlier ones cannot be changed any more.
    pub fn first(&self) -> i64 {
        self.first
    }

    /// Adds frames from number `at` on. Gives how many came too late, or more than three seconds early.
    pub fn add(&mut self, at: i64, frames: impl Iterator<Item = [f32; 2]>) -> u64 {
        let mut lost = 0;
        for (frame, number) in frames.zip(at..) {
            let index = number - self.first;
            if !(0..MAX_FRAMES).contains(&index) {
                lost += 1;
                continue;
            }
            let index = index as usize;
            if index >= self.sums.len() {
                self.sums.resize(index + 1, [0.0; 2]);
            }
            if let Some(sum) = self.sums.get_mut(index) {
                for (sum, sample) in sum.iter_mut().zip(frame) {
                    // A page can make infinite samples; their sum would be no number for encoders.
                    *sum += if sample.is_finite() { sample } else { 0.0 };
                }
            }
        }
        lost
    }

    /// So many frames, interleaved, within -1 to 1; silence where nothing was added.
    pub fn take(&mut self, frames: usize) -> Vec<f32> {
        let there = frames.min(self.sums.len());
        let mut taken: Vec<f32> = self.sums.drain(..there).flatten().map(|sample| sample.clamp(-1.0, 1.0)).collect();
        taken.resize(2 * frames, 0.0);
        self.first += frames as i64;
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_summed_at_their_places() {
        let mut mix = SoundMix::default();
        assert_eq!(mix.add(2, [[0.5, -0.5]; 2].into_iter()), 0);
        assert_eq!(mix.add(3, [[0.25, -0.75]; 2].into_iter()), 0);
        assert_eq!(mix.take(3), [0.0, 0.0, 0.0, 0.0, 0.5, -0.5]);
        assert_eq!(mix.take(4), [0.75, -1.0, 0.25, -0.75, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(mix.first(), 7);
    }

    #[test]
    fn what_comes_too_late_or_far_too_early_is_lost_and_counted() {
        let mut mix = SoundMix::default();
        mix.take(10);
        assert_eq!(mix.add(8, [[0.5, 0.5]; 4].into_iter()), 2);
        assert_eq!(mix.add(10 + MAX_FRAMES - 1, [[0.5, 0.5]; 2].into_iter()), 1);
        assert_eq!(mix.add(i64::MIN / 2, [[0.5, 0.5]; 2].into_iter()), 2);
        assert_eq!(mix.take(3), [0.5, 0.5, 0.5, 0.5, 0.0, 0.0]);
    }

    #[test]
    fn no_sample_is_infinite() {
        let mut mix = SoundMix::default();
        mix.add(0, [[f32::NAN, f32::INFINITY], [9.0, -9.0]].into_iter());
        assert_eq!(mix.take(2), [0.0, 0.0, 1.0, -1.0]);
    }
}
