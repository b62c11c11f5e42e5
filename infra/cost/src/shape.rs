//! The machine for a plan: an estimate of what the plan needs, from its kind, canvas and rates ([`load`]), and the smallest
//! machine of a platform for it ([`shape`]). Deliberately coarse: on a busy CPU a recording lags and does not lose frames.

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

/// Factor on the cores, so that a recording that fell behind catches up.
const HEADROOM: f64 = 1.3;

/// Size of a machine as it is requested from the platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Shape {
    /// Thousandths of a vCPU.
    pub cpu_milli: u32,
    /// Memory.
    pub memory_mib: u32,
    /// Ephemeral disk; 0 where the file system is memory, and on [`Platform::Host`].
    pub disk_gib: u32,
}

/// Where machines come from; each platform has its own sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Platform {
    /// AWS ECS on Fargate.
    Fargate,
    /// Google Cloud Run jobs.
    CloudRun,
    /// Azure Container Instances.
    Aci,
    /// Containers and processes on the operator's machines: any size.
    Host,
}

/// The platform has no machine for a load.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{platform:?} has no machine of {:.2} vCPU and {memory_mib} MiB; its largest is {max_shape:?}", *cpu_milli as f64 / 1000.0)]
pub struct TooLarge {
    /// Where the machine was looked for.
    pub platform: Platform,
    /// Needed, headroom included; thousandths of a vCPU.
    pub cpu_milli: u32,
    /// Needed.
    pub memory_mib: u32,
    /// The largest machine of the platform.
    pub max_shape: Shape,
}

/// (vCPU/1024, smallest and largest memory in MiB, step in MiB): `Task.memory` in the API reference of ECS.
const FARGATE: &[(u32, u32, u32, u32)] = &[
    // 1536 MiB do not exist with it.
    (256, 512, 1024, 512),
    (256, 2048, 2048, 512),
    (512, 1024, 4096, 1024),
    (1024, 2048, 8192, 1024),
    (2048, 4096, 16384, 1024),
    (4096, 8192, 30720, 1024),
    (8192, 16384, 61440, 4096),
];
/// Disk that is included in every Fargate task, GiB.
pub const FARGATE_DISK: u32 = 20;
/// (vCPU/1000, smallest, largest memory in MiB): limits of Cloud Run jobs, which take whole vCPUs.
const CLOUD_RUN: &[(u32, u32, u32)] =
    &[(1000, 512, 4096), (2000, 512, 8192), (4000, 2048, 16384), (6000, 4096, 24576), (8000, 4096, 32768)];
/// The file system of Cloud Run is memory: room for what an outage of the store keeps there.
const CLOUD_RUN_SPOOL_MIB: u32 = 256;
/// Azure Container Instances: halves of a vCPU and of a GB, up to what every region has.
const ACI_STEP_MILLI: u32 = 500;
const ACI_STEP_MIB: u32 = 512;
const ACI_MAX: Shape = Shape { cpu_milli: 4000, memory_mib: 16384, disk_gib: ACI_DISK };
/// Disk of every container group of Azure Container Instances, GiB; it cannot be chosen.
pub const ACI_DISK: u32 = 50;

/// The smallest machine of `platform` for a plan.
///
/// # Errors
///
/// No machine of the platform is large enough. A retry is useless.
pub fn shape(plan: &EgressPlan, platform: Platform) -> Result<Shape, TooLarge> {
    shape_for(&load(plan), platform)
}

/// The smallest machine of `platform` for a load.
///
/// # Errors
///
/// No machine of the platform is large enough. A retry is useless.
pub fn shape_for(load: &Load, platform: Platform) -> Result<Shape, TooLarge> {
    let cpu_milli = (load.cores * HEADROOM * 1000.0).ceil() as u32;
    fit(cpu_milli, load.memory_mib.ceil() as u32, platform)
}

fn fit(cpu_milli: u32, memory_mib: u32, platform: Platform) -> Result<Shape, TooLarge> {
    let too_large = |max_shape| TooLarge { platform, cpu_milli, memory_mib, max_shape };
    match platform {
        Platform::Fargate => FARGATE
            .iter()
            // ECS counts in 1024ths of a vCPU, a shape in thousandths.
            .find(|(cpu, _, max, _)| u64::from(*cpu) * 1000 / 1024 >= u64::from(cpu_milli) && *max >= memory_mib)
            .map(|(cpu, min, _, step)| Shape {
                cpu_milli: cpu * 1000 / 1024,
                memory_mib: memory_mib.max(*min).next_multiple_of(*step),
                disk_gib: FARGATE_DISK,
            })
            .ok_or_else(|| too_large(Shape { cpu_milli: 8000, memory_mib: 61440, disk_gib: FARGATE_DISK })),
        Platform::CloudRun => {
            let memory = memory_mib + CLOUD_RUN_SPOOL_MIB;
            CLOUD_RUN
                .iter()
                .find(|(cpu, _, max)| *cpu >= cpu_milli && *max >= memory)
                .map(|(cpu, min, _)| Shape {
                    cpu_milli: *cpu,
                    memory_mib: memory.max(*min).next_multiple_of(512),
                    disk_gib: 0,
                })
                .ok_or_else(|| too_large(Shape { cpu_milli: 8000, memory_mib: 32768, disk_gib: 0 }))
        }
        Platform::Aci => {
            let shape = Shape {
                cpu_milli: cpu_milli.max(1).next_multiple_of(ACI_STEP_MILLI),
                memory_mib: memory_mib.next_multiple_of(ACI_STEP_MIB),
                disk_gib: ACI_DISK,
            };
            let fits = shape.cpu_milli <= ACI_MAX.cpu_milli && shape.memory_mib <= ACI_MAX.memory_mib;
            if fits { Ok(shape) } else { Err(too_large(ACI_MAX)) }
        }
        Platform::Host => Ok(Shape { cpu_milli, memory_mib, disk_gib: 0 }),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;
    use spillway_plan::*;

    use super::*;

    pub(crate) fn plan(picture: Option<VideoPlan>, sound: Option<AudioPlan>) -> EgressPlan {
        EgressPlan {
            egress_id: "EG_1".to_owned(),
            room_name: "room".to_owned(),
            room_id: String::new(),
            kind: EgressKind::RoomComposite,
            source: Source::Room,
            picture,
            sound,
            outputs: vec![],
            limits: Limits::default(),
            retry_count: 0,
        }
    }

    pub(crate) fn track() -> EgressPlan {
        plan(Some(VideoPlan::Copied), Some(AudioPlan::Copied))
    }

    pub(crate) fn composed(width: u32, height: u32, framerate: u32, bitrate: u32) -> EgressPlan {
        let encoding =
            VideoEncoding { width, height, framerate, bitrate, profile: H264Profile::Main, key_frame_interval: None };
        let layout = LayoutName { shape: LayoutShape::Grid, light: false };
        let sound = AudioPlan::Mixed { codec: AudioCodec::Aac, bitrate: 128, frequency: 44100, mixing: Mixing::Both };
        plan(Some(VideoPlan::Composed { layout, encoding }), Some(sound))
    }

    #[test]
    fn a_track_takes_the_smallest_machine_everywhere() {
        let of = |platform| shape(&track(), platform).unwrap();
        assert_eq!(of(Platform::Fargate), Shape { cpu_milli: 250, memory_mib: 512, disk_gib: 20 });
        assert_eq!(of(Platform::CloudRun), Shape { cpu_milli: 1000, memory_mib: 512, disk_gib: 0 });
        assert_eq!(of(Platform::Aci), Shape { cpu_milli: 500, memory_mib: 512, disk_gib: 50 });
    }

    #[test]
    fn a_composite_takes_a_quarter_or_half_of_the_four_cores_the_peer_asks_for() {
        let hd = shape(&composed(1280, 720, 30, 3000), Platform::Fargate).unwrap();
        assert_eq!((hd.cpu_milli, hd.memory_mib), (1000, 2048));
        let full = shape(&composed(1920, 1080, 30, 4500), Platform::Fargate).unwrap();
        assert_eq!((full.cpu_milli, full.memory_mib), (2000, 4096));
        assert_eq!(shape(&composed(1280, 720, 30, 3000), Platform::CloudRun).unwrap().cpu_milli, 1000);
    }

    #[test]
    fn a_load_without_a_machine_is_refused_with_the_largest_one() {
        let error = shape(&composed(7680, 4320, 60, 80_000), Platform::Aci).unwrap_err();
        assert!(error.to_string().contains("largest"), "{error}");
    }

    #[test]
    fn copying_is_cheap_and_every_pixel_counts() {
        let copied = load(&track());
        assert!(copied.cores < 0.05 && copied.memory_mib < 256.0, "{copied:?}");
        let (hd, full_hd) = (load(&composed(1280, 720, 30, 3000)), load(&composed(1920, 1080, 30, 4500)));
        assert!((full_hd.cores - hd.cores - 1.25 * CORES_PER_720P30).abs() < 1e-9);
        assert!(full_hd.memory_mib > hd.memory_mib);
        assert!((hd.written - 3_132_000.0 / 8.0).abs() < 1.0, "{}", hd.written);
    }

    proptest! {
        #[test]
        fn a_machine_is_never_smaller_than_asked_and_always_legal(cpu in 1u32..8000, memory in 1u32..30_000) {
            for platform in [Platform::Fargate, Platform::CloudRun, Platform::Aci, Platform::Host] {
                let Ok(shape) = fit(cpu, memory, platform) else { continue };
                prop_assert!(shape.cpu_milli >= cpu && shape.memory_mib >= memory, "{platform:?} {shape:?}");
                if platform == Platform::Fargate {
                    let legal = FARGATE.iter().any(|(size, min, max, step)| {
                        size * 1000 / 1024 == shape.cpu_milli
                            && (*min..=*max).contains(&shape.memory_mib)
                            && shape.memory_mib % step == 0
                            && (*size, shape.memory_mib) != (256, 1536)
                    });
                    prop_assert!(legal, "{shape:?}");
                }
            }
        }
    }
}
