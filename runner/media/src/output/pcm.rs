//! Mixed sound that is not encoded: samples of F32 become S16, in blocks as a websocket sends them. Pure; runs in the
//! mixer's thread.

use bytes::Bytes;

/// Samples of a channel in a block: 20 ms at 48 kHz.
const BLOCK_SAMPLES: usize = 960;
/// A stereo sample of F32LE.
const RAW_BYTES: usize = 8;
const RATE: u64 = 48_000;

/// Interleaved stereo of S16LE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PcmBlock {
    /// Since output time 0.
    pub at_ns: u64,
    /// 20 ms, or less at the end.
    pub duration_ns: u64,
    /// Its samples.
    pub data: Bytes,
}

/// Blocks of `samples` (interleaved stereo of F32LE at 48 kHz), of which the first is at `at_ns`.
pub fn pcm_blocks(samples: &[u8], at_ns: u64) -> impl Iterator<Item = PcmBlock> {
    let blocks = samples.chunks(BLOCK_SAMPLES * RAW_BYTES).zip(0u64..);
    blocks.map(move |(block, number)| {
        let at_ns = at_ns + duration_ns(BLOCK_SAMPLES as u64 * number);
        let length = block.len() / RAW_BYTES;
        let (floats, _) = block[..length * RAW_BYTES].as_chunks::<4>();
        let data = floats.iter().flat_map(|bytes| s16(f32::from_le_bytes(*bytes)).to_le_bytes()).collect();
        PcmBlock { at_ns, duration_ns: duration_ns(length as u64), data }
    })
}

const fn duration_ns(samples: u64) -> u64 {
    samples * 1_000_000_000 / RATE
}

/// A cast saturates; what is no number is silence.
fn s16(sample: f32) -> i16 {
    (sample * 32_768.0).round() as i16
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(samples: &[f32]) -> Vec<u8> {
        samples.iter().flat_map(|sample| sample.to_le_bytes()).collect()
    }

    #[test]
    fn samples_keep_their_value_and_never_wrap() {
        for (sample, expected) in [
            (0.0, 0),
            (0.5, 16_384),
            (-1.0, -32_768),
            (1.0, 32_767),
            (7.0, 32_767),
            (-7.0, -32_768),
            (0.4 / 32_768.0, 0),
            (-0.6 / 32_768.0, -1),
            (f32::NAN, 0),
        ] {
            assert_eq!(s16(sample), expected, "{sample}");
        }
    }

    #[test]
    fn a_parcel_of_the_mixer_is_five_blocks() {
        let blocks: Vec<PcmBlock> = pcm_blocks(&bytes(&[0.25; 2 * 4800]), 1_000_000_000).collect();
        let at_ms: Vec<u64> = blocks.iter().map(|block| block.at_ns / 1_000_000).collect();
        assert_eq!(at_ms, [1000, 1020, 1040, 1060, 1080]);
        assert!(blocks.iter().all(|block| block.data.len() == 3840 && block.duration_ns == 20_000_000));
        assert_eq!(blocks[0].data[..4], [0, 32, 0, 32]);
        let rest: Vec<PcmBlock> = pcm_blocks(&bytes(&[0.0; 2 * 970]), 0).collect();
        assert_eq!((rest.len(), rest[1].data.len(), rest[1].duration_ns), (2, 40, 208_333));
        assert_eq!(pcm_blocks(&[], 0).count(), 0);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_but_half_a_sample(length in 0usize..20_000) {
            let blocks: Vec<PcmBlock> = pcm_blocks(&vec![0; length], 0).collect();
            let bytes: usize = blocks.iter().map(|block| block.data.len()).sum();
            prop_assert_eq!(bytes, length / RAW_BYTES * 4);
        }
    }
}
