//! What an AAC-LC stereo stream says about itself: AudioSpecificConfig for MP4, ADTS headers for MPEG-TS (ISO/IEC 14496-3
//! 1.6.2 and 1.A.2). Pure.

/// Samples of a frame.
pub const FRAME_SAMPLES: u64 = 1024;
/// Bytes of an ADTS header without a checksum.
pub const ADTS_BYTES: usize = 7;
/// Largest frame with its header: the length has 13 bits.
const MAX_ADTS_FRAME: usize = (1 << 13) - 1;

const RATES: [u32; 13] =
    [96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8000, 7350];

/// Number of a sampling rate; `None` for a rate without one.
pub fn rate_index(rate: u32) -> Option<u8> {
    RATES.iter().position(|known| *known == rate).map(|index| index as u8)
}

/// AudioSpecificConfig: AAC-LC, stereo.
pub fn config(rate: u32) -> Vec<u8> {
    match rate_index(rate) {
        Some(index) => ((2 << 11) | (u16::from(index) << 7) | (2 << 3)).to_be_bytes().to_vec(),
        None => {
            // The rate itself, 24 bits.
            let bits: u64 = (2 << 35) | (15 << 31) | (u64::from(rate) << 7) | (2 << 3);
            bits.to_be_bytes()[3..].to_vec()
        }
    }
}

/// Header in front of a raw frame of `frame_bytes`: AAC-LC, stereo, variable rate. `None` when the frame is too long.
pub fn adts_header(rate_index: u8, frame_bytes: usize) -> Option<[u8; ADTS_BYTES]> {
    let size = frame_bytes + ADTS_BYTES;
    (size <= MAX_ADTS_FRAME).then_some([
        0xff,
        // MPEG-4, no checksum.
        0xf1,
        // Object type 2 less 1, rate, upper bit of the channels.
        0x40 | (rate_index << 2),
        // Two channels, upper bits of the length.
        0x80 | (size >> 11) as u8,
        (size >> 3) as u8,
        // Buffer fullness of all ones: variable rate.
        ((size & 7) << 5) as u8 | 0x1f,
        0xfc,
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_says_rate_channels_and_length() {
        let header = adts_header(rate_index(44_100).unwrap(), 371).unwrap();
        assert_eq!((header[0], header[1] & 0xf6), (0xff, 0xf0));
        assert_eq!((header[2] >> 6, (header[2] >> 2) & 15), (1, 4));
        assert_eq!(((header[2] & 1) << 2) | (header[3] >> 6), 2);
        let size = usize::from(header[3] & 3) << 11 | usize::from(header[4]) << 3 | usize::from(header[5] >> 5);
        assert_eq!(size, 378);
        assert_eq!(adts_header(3, MAX_ADTS_FRAME), None);
    }

    #[test]
    fn a_rate_without_a_number_is_spelled_out_in_mp4_only() {
        assert_eq!(config(48_000), [0x11, 0x90]);
        assert_eq!(config(44_101).len(), 5);
        assert_eq!(rate_index(44_101), None);
    }
}
