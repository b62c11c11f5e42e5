//! Keeps a loud mix below full scale without a crack: the gain moves in straight lines between blocks, and is low
//! enough on both sides of a loud one. In: interleaved blocks. Out: the same blocks, one later. Pure.

const CEILING: f32 = 0.97;
/// How fast the gain comes back: from nothing to full in half a second.
const RELEASE_PER_BLOCK: f32 = 0.04;

/// Holds one block; a mix that never exceeds the ceiling passes unchanged, one block late.
pub struct Limiter {
    /// Gain where the held block begins.
    gain: f32,
    held: Option<(Vec<f32>, f32)>,
}

impl Default for Limiter {
    fn default() -> Self {
        Self { gain: 1.0, held: None }
    }
}

impl Limiter {
    /// Takes the next block, gives the one before it.
    pub fn push(&mut self, block: Vec<f32>) -> Option<Vec<f32>> {
        let most = most_gain(&block);
        let held = self.held.replace((block, most));
        match held {
            Some(held) => Some(self.release(held, most)),
            None => {
                self.gain = most;
                None
            }
        }
    }

    /// The last block.
    pub fn finish(&mut self) -> Option<Vec<f32>> {
        let held = self.held.take()?;
        Some(self.release(held, 1.0))
    }

    fn release(&mut self, (mut block, most): (Vec<f32>, f32), next_most: f32) -> Vec<f32> {
        let from = self.gain;
        let to = (from + RELEASE_PER_BLOCK).min(most).min(next_most).min(1.0);
        self.gain = to;
        if from == 1.0 && to == 1.0 {
            return block;
        }
        let frames = (block.len() / 2).max(1) as f32;
        for (index, frame) in block.chunks_exact_mut(2).enumerate() {
            let gain = from + (to - from) * (index as f32 / frames);
            frame[0] *= gain;
            frame[1] *= gain;
        }
        block
    }
}

fn most_gain(block: &[f32]) -> f32 {
    let peak = peak(block);
    if peak > CEILING { CEILING / peak } else { 1.0 }
}

/// The largest absolute sample. Eight at a time: one after the other each comparison would wait for the one before.
pub fn peak(block: &[f32]) -> f32 {
    let (eights, rest) = block.as_chunks::<8>();
    let mut peaks = [0.0f32; 8];
    for eight in eights {
        for (peak, sample) in peaks.iter_mut().zip(eight) {
            *peak = peak.max(sample.abs());
        }
    }
    peaks.iter().chain(rest).fold(0.0, |peak: f32, sample| peak.max(sample.abs()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(blocks: &[Vec<f32>]) -> Vec<Vec<f32>> {
        let mut limiter = Limiter::default();
        let mut out: Vec<_> = blocks.iter().filter_map(|block| limiter.push(block.clone())).collect();
        out.extend(limiter.finish());
        out
    }

    #[test]
    fn what_is_not_loud_passes_untouched() {
        let blocks = vec![vec![0.5, -0.9, 0.1, 0.97]; 5];
        assert_eq!(run(&blocks), blocks);
    }

    proptest! {
        #[test]
        fn nothing_leaves_above_full_scale(blocks in prop::collection::vec(prop::collection::vec(-8.0f32..8.0, 8), 1..20)) {
            let out = run(&blocks);
            prop_assert_eq!(out.len(), blocks.len());
            for block in &out {
                prop_assert!(peak(block) <= CEILING + 1e-4, "{:?}", block);
            }
        }

        #[test]
        fn the_gain_has_no_step(loud in 0.0f32..4.0) {
            let blocks = vec![vec![0.5; 1920], vec![loud; 1920], vec![0.5; 1920]];
            let out: Vec<f32> = run(&blocks).concat();
            let input: Vec<f32> = blocks.concat();
            let gains: Vec<f32> = out.iter().zip(&input).filter(|(_, i)| **i != 0.0).map(|(o, i)| o / i).collect();
            prop_assert!(gains.windows(2).all(|pair| (pair[0] - pair[1]).abs() < 0.002));
        }
    }
}
