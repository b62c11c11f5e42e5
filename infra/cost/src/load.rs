//! Estimate of what a plan needs, from its kind, canvas and rates. Deliberately coarse: on a busy CPU a recording lags and
//! does not lose frames.

use serde::{Deserialize, Serialize};
use spillway_plan::{AudioCodec, AudioPlan, EgressPlan, Output, VideoEncoding, VideoPlan};

/// Cores of a composition, measured with one to four tiles: 0.36 to 0.57 at 1280×720 and 30/s, 0.83 at 1920×1080. One part
/// is for the tiles, one for the pixels of the canvas; the rest is a margin for slower cores than the measured ones.
const COMPOSED: f64 = 0.30;
const CORES_PER_720P30: f64 = 0.35;
const PIXELS_PER_720P30: f64 = 1280.0 * 720.0 * 30.0;
const MIXED_SOUND: f64 = 0.08;
/// Room connection, muxing, upload.
const ANY: f64 = 0.03;

/// Both processes with nothing to encode, parts of an upload in flight included (measured peak: 60 MB).
const BASE_MIB: f64 = 192.0;
/// Decoders, canvas and encoder for each million pixels of the canvas (measured: 224 MB at 1080p of four tiles), and
/// encoded frames that wait while the CPU is busy elsewhere.
const MIB_PER_MEGAPIXEL: f64 = 192.0;
const BACKLOG_MIB: f64 = 256.0;

/// Assumed bit rate of a published camera and microphone, bits per second.
const PUBLISHED: f64 = 2_000_000.0;
const PUBLISHED_SOUND: f64 = 48_000.0;

/// Needs of a recording: all that its machine and its price depend on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Load {
    /// CPU cores kept busy, without headroom.
    pub cores: f64,
    /// Peak of both processes of the runner.
    pub memory_mib: f64,
    /// Bytes per second into the files.
    pub written: f64,
    /// Bytes per second from livekit-server.
    pub received: f64,
    /// Number of files.
    pub files: u32,
    /// The files are uploaded to an object store.
    pub stored: bool,
}

/// Estimates the needs of a plan.
pub fn load(plan: &EgressPlan) -> Load {
    let (picture, pixels, video_bits) = match &plan.picture {
        None => (0.0, 0.0, 0.0),
        Some(VideoPlan::Copied) => (0.0, 0.0, PUBLISHED),
        // Nearly always copied. A source that is not H264 is encoded, at half the cost of a composition.
        Some(VideoPlan::CopiedIfPossible(encoding)) => (0.2 * encoded(encoding), 0.0, PUBLISHED),
        Some(VideoPlan::Single(encoding)) => (0.7 * encoded(encoding), area(encoding), bits(encoding)),
        Some(VideoPlan::Composed { encoding, .. }) => (encoded(encoding), area(encoding), bits(encoding)),
    };
    let (sound, audio_bits) = match &plan.sound {
        None => (0.0, 0.0),
        Some(AudioPlan::Copied) => (0.0, PUBLISHED_SOUND),
        Some(AudioPlan::Mixed { bitrate, codec, .. }) => {
            (MIXED_SOUND, f64::from(*bitrate) * 1000.0 + if *codec == AudioCodec::Mp3 { 0.0 } else { 4000.0 })
        }
    };
    let backlog = if pixels > 0.0 { BACKLOG_MIB } else { 0.0 };
    let received = if plan.picture.is_some() { PUBLISHED + PUBLISHED_SOUND } else { 3.0 * PUBLISHED_SOUND };
    Load {
        cores: ANY + picture + sound,
        memory_mib: BASE_MIB + backlog + MIB_PER_MEGAPIXEL * pixels / 1e6,
        written: (video_bits + audio_bits) / 8.0,
        received: received / 8.0,
        files: u32::try_from(plan.outputs.len()).unwrap_or(u32::MAX),
        stored: plan.outputs.iter().any(|Output::File(file)| file.stored),
    }
}

fn area(encoding: &VideoEncoding) -> f64 {
    f64::from(encoding.width) * f64::from(encoding.height)
}

fn bits(encoding: &VideoEncoding) -> f64 {
    f64::from(encoding.bitrate) * 1000.0
}

fn encoded(encoding: &VideoEncoding) -> f64 {
    COMPOSED + CORES_PER_720P30 * area(encoding) * f64::from(encoding.framerate) / PIXELS_PER_720P30
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::tests::{composed, track};

    #[test]
    fn copying_is_cheap_and_every_pixel_counts() {
        let copied = load(&track());
        assert!(copied.cores < 0.05 && copied.memory_mib < 256.0, "{copied:?}");
        let (hd, full_hd) = (load(&composed(1280, 720, 30, 3000)), load(&composed(1920, 1080, 30, 4500)));
        assert!((full_hd.cores - hd.cores - 1.25 * CORES_PER_720P30).abs() < 1e-9);
        assert!(full_hd.memory_mib > hd.memory_mib);
        assert!((hd.written - 3_132_000.0 / 8.0).abs() < 1.0, "{}", hd.written);
    }
}
