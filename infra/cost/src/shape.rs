//! Machine sizes of the platforms, and the smallest one for a load.

use serde::{Deserialize, Serialize};
use spillway_plan::EgressPlan;

use crate::load::{Load, load};

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
/// Included in every Fargate task.
const FARGATE_DISK: u32 = 20;
/// (vCPU/1000, smallest, largest memory in MiB): limits of Cloud Run jobs, which take whole vCPUs.
const CLOUD_RUN: &[(u32, u32, u32)] =
    &[(1000, 512, 4096), (2000, 512, 8192), (4000, 2048, 16384), (6000, 4096, 24576), (8000, 4096, 32768)];
/// The file system of Cloud Run is memory: room for what an outage of the store keeps there.
const CLOUD_RUN_SPOOL_MIB: u32 = 256;
/// Azure Container Instances: halves of a vCPU and of a GB, up to what every region has.
const ACI_STEP_MILLI: u32 = 500;
const ACI_STEP_MIB: u32 = 512;
const ACI_MAX: Shape = Shape { cpu_milli: 4000, memory_mib: 16384, disk_gib: 50 };

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
                disk_gib: ACI_MAX.disk_gib,
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
