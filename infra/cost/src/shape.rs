//! The machine for a plan: an estimate of what the plan needs, from its kind, canvas and rates ([`load`]), and the smallest
//! machine of a platform for it ([`shape`]). Deliberately coarse: on a busy CPU a recording lags and does not lose frames.

use spillway_model::{Load, Platform, Shape};
use spillway_plan::{AudioCodec, AudioPlan, EgressPlan, Output, PageKind, VideoEncoding, VideoPlan};

/// Cores of a composition, measured with one to four tiles: 0.36 to 0.57 at 1280×720 and 30/s, 0.83 at 1920×1080. One part
/// is for the tiles, one for the pixels of the canvas; the rest is a margin for slower cores than the measured ones.
const COMPOSED: f64 = 0.30;
const CORES_PER_720P30: f64 = 0.35;
/// Of a composition's cores: decoding and composing without an encoder (measured: decoding is 38 %).
const WITHOUT_ENCODER: f64 = 0.5;
const PIXELS_PER_720P30: f64 = 1280.0 * 720.0 * 30.0;
/// Cores of Chromium and its display at 1280×720 and 30/s: 0.22 measured for an animated page, 0.56 for a room of four that
/// are all published in 720p. Half of it is for the page, half for the pixels.
const WEB_PAGE: f64 = 0.30;
const ROOM_PAGE: f64 = 0.70;
const MIXED_SOUND: f64 = 0.08;
/// Each output beside the first; measured 0.001 (HLS) to 0.027 (SRT) beside the encoder they share.
const FURTHER_OUTPUT: f64 = 0.02;
/// Room connection, muxing, upload.
const ANY: f64 = 0.03;

/// Both processes with nothing to encode, parts of an upload in flight included (measured peak: 60 MB).
const BASE_MIB: f64 = 192.0;
/// Decoders, canvas and encoder for each million pixels of the canvas (measured: 224 MB at 1080p of four tiles), and
/// encoded frames that wait while the CPU is busy elsewhere.
const MIB_PER_MEGAPIXEL: f64 = 192.0;
const BACKLOG_MIB: f64 = 256.0;
/// Chromium, its display, and pictures that wait for the encoder (measured: 540 MiB); pages differ.
const PAGE_MIB: f64 = 1024.0;

/// Assumed bit rate of a published camera and microphone, bits per second.
const PUBLISHED: f64 = 2_000_000.0;
const PUBLISHED_SOUND: f64 = 48_000.0;
/// S16 at 48 kHz in stereo.
const RAW_SOUND: f64 = 1_536_000.0;
/// Bytes of an image for each pixel: JPEG of quality 85, 55 kB at 1280×720.
const BYTES_PER_PIXEL: f64 = 0.06;
const PIXELS_720P: f64 = 1280.0 * 720.0;

/// Estimates the needs of a plan.
pub fn load(plan: &EgressPlan) -> Load {
    let has_images = plan.images().next().is_some() || plan.sheets.is_some();
    let (picture, pixels, video_bits) = match &plan.picture {
        None => (0.0, 0.0, 0.0),
        Some(VideoPlan::Copied) => (0.0, 0.0, PUBLISHED),
        // Images and sheets are made of decoded pictures, beside a copy or alone.
        Some(VideoPlan::CopiedIfPossible(encoding)) if has_images => {
            ((sometimes_encoded(plan) + WITHOUT_ENCODER) * encoded(encoding), area(encoding), PUBLISHED)
        }
        Some(VideoPlan::CopiedIfPossible(encoding)) => (sometimes_encoded(plan) * encoded(encoding), 0.0, PUBLISHED),
        Some(VideoPlan::Single(encoding) | VideoPlan::Composed { encoding, .. })
            if has_images && !plan.encoder_needed() =>
        {
            (WITHOUT_ENCODER * encoded(encoding), area(encoding), 0.0)
        }
        // The display's pictures are encoded as they are.
        Some(VideoPlan::Single(encoding)) if plan.page().is_some() => {
            (CORES_PER_720P30 * rate(encoding), area(encoding), bits(encoding))
        }
        Some(VideoPlan::Single(encoding)) => (0.7 * encoded(encoding), area(encoding), bits(encoding)),
        Some(VideoPlan::Composed { encoding, .. }) => (encoded(encoding), area(encoding), bits(encoding)),
    };
    let (sound, audio_bits) = match &plan.sound {
        None => (0.0, 0.0),
        Some(AudioPlan::Copied) => (0.0, PUBLISHED_SOUND),
        Some(AudioPlan::Mixed { bitrate, codec, .. }) => {
            (MIXED_SOUND, f64::from(*bitrate) * 1000.0 + if *codec == AudioCodec::Mp3 { 0.0 } else { 4000.0 })
        }
        Some(AudioPlan::Raw { .. }) => (MIXED_SOUND, RAW_SOUND),
    };
    let page = plan.page().map(|page| page.kind);
    let backlog = match page {
        Some(_) => PAGE_MIB,
        None if pixels > 0.0 => BACKLOG_MIB,
        None => 0.0,
    };
    let picture = picture + page.map_or(0.0, |kind| chromium(kind, plan.picture.as_ref()));
    let received = if plan.picture.is_some() { PUBLISHED + PUBLISHED_SOUND } else { 3.0 * PUBLISHED_SOUND };
    let media = (video_bits + audio_bits) / 8.0;
    let mut load = Load {
        cores: ANY + picture + sound,
        memory_mib: BASE_MIB + backlog + MIB_PER_MEGAPIXEL * pixels / 1e6,
        received: received / 8.0,
        page: page.is_some(),
        ..Load::default()
    };
    for output in &plan.outputs {
        match output {
            Output::File(file) => {
                load.files += 1;
                load.local_files += u32::from(!file.stored);
                load.written += media;
            }
            Output::Segments(segments) => {
                load.written += media;
                load.written_objects += media;
                if segments.stored {
                    // Each with its playlists.
                    let playlists = if segments.naming.live_playlist.is_empty() { 1.0 } else { 2.0 };
                    load.objects += per_second(segments.segment_ns) * (1.0 + playlists);
                }
            }
            Output::Images(images) => {
                let pixels = images.size.map_or(if pixels > 0.0 { pixels } else { PIXELS_720P }, |(width, height)| {
                    f64::from(width) * f64::from(height)
                });
                let images_per_second = per_second(images.interval_ns);
                load.written += images_per_second * pixels * BYTES_PER_PIXEL;
                load.written_objects += images_per_second * pixels * BYTES_PER_PIXEL;
                if images.stored {
                    load.objects += images_per_second;
                }
            }
            Output::Streams(streams) => load.streamed += media * f64::from(streams.count),
        }
        load.stored |= output.is_stored();
        load.local |= output.stays_local();
    }
    load.cores += FURTHER_OUTPUT * (takers(plan) - 1.0).max(0.0);
    load
}

/// Of the cores of a composition, for a picture that is nearly always copied. Whatever its codec is, but for H265 and a
/// participant without a camera; into an MP4 only H264: another source is encoded, at half the cost of a composition.
fn sometimes_encoded(plan: &EgressPlan) -> f64 {
    if plan.container_follows_codec() { 0.1 } else { 0.2 }
}

/// Outputs, and each stream, that take what is encoded once.
fn takers(plan: &EgressPlan) -> f64 {
    let streams = plan.outputs.iter().map(|output| match output {
        Output::Streams(streams) => f64::from(streams.count),
        Output::File(_) | Output::Segments(_) | Output::Images(_) => 1.0,
    });
    streams.sum()
}

/// How often something happens that happens each `interval_ns`; 0: never.
fn per_second(interval_ns: u64) -> f64 {
    if interval_ns > 0 { 1e9 / interval_ns as f64 } else { 0.0 }
}

fn area(encoding: &VideoEncoding) -> f64 {
    f64::from(encoding.width) * f64::from(encoding.height)
}

fn bits(encoding: &VideoEncoding) -> f64 {
    f64::from(encoding.bitrate) * 1000.0
}

fn encoded(encoding: &VideoEncoding) -> f64 {
    COMPOSED + CORES_PER_720P30 * rate(encoding)
}

/// Pixels a second, in those of 1280×720 at 30/s.
fn rate(encoding: &VideoEncoding) -> f64 {
    area(encoding) * f64::from(encoding.framerate) / PIXELS_PER_720P30
}

/// Cores of Chromium and its display. A page that is only heard is painted all the same.
fn chromium(kind: PageKind, picture: Option<&VideoPlan>) -> f64 {
    let pixels = match picture {
        Some(VideoPlan::Single(encoding)) => rate(encoding),
        _ => 1.0,
    };
    let page = match kind {
        PageKind::Web => WEB_PAGE,
        PageKind::Template => ROOM_PAGE,
    };
    page * (0.5 + 0.5 * pixels)
}

/// Factor on the cores, so that a recording that fell behind catches up.
const HEADROOM: f64 = 1.3;

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
            sheets: None,
        }
    }

    pub(crate) fn track() -> EgressPlan {
        EgressPlan { outputs: vec![file(false)], ..plan(Some(VideoPlan::Copied), Some(AudioPlan::Copied)) }
    }

    fn file(stored: bool) -> Output {
        Output::File(FileOutput { container: None, audio: None, path: String::new(), manifest: false, stored })
    }

    pub(crate) fn composed(width: u32, height: u32, framerate: u32, bitrate: u32) -> EgressPlan {
        let encoding =
            VideoEncoding { width, height, framerate, bitrate, profile: H264Profile::Main, key_frame_interval: None };
        let layout = LayoutName { shape: LayoutShape::Grid, light: false };
        let (codec, mixing) = (AudioCodec::Aac, Mixing::Both);
        let sound = AudioPlan::Mixed { codec, bitrate: 128, frequency: 44100, mixing, also: vec![] };
        EgressPlan { outputs: vec![file(false)], ..plan(Some(VideoPlan::Composed { layout, encoding }), Some(sound)) }
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

    #[test]
    fn a_picture_that_is_copied_whatever_its_codec_is_costs_less_than_one_for_an_mp4() {
        let composed = composed(1280, 720, 30, 3000);
        let Some(VideoPlan::Composed { encoding, .. }) = composed.picture.clone() else { panic!("{composed:?}") };
        let copied = |container| {
            let Output::File(file) = file(false) else { panic!("no file") };
            let outputs = vec![Output::File(FileOutput { container, ..file })];
            let picture = Some(VideoPlan::CopiedIfPossible(encoding.clone()));
            EgressPlan { kind: EgressKind::TrackComposite, picture, outputs, ..composed.clone() }
        };
        let (webm, mp4) = (load(&copied(None)), load(&copied(Some(Container::Mp4))));
        assert!((mp4.cores - webm.cores - 0.1 * 0.65).abs() < 1e-9, "{webm:?} {mp4:?}");
        assert_eq!((webm.written, webm.memory_mib), (mp4.written, mp4.memory_mib));
        assert_eq!(shape(&copied(None), Platform::Fargate).unwrap().cpu_milli, 250);
        assert_eq!(shape(&copied(Some(Container::Mp4)), Platform::Fargate).unwrap().cpu_milli, 500);
    }

    #[test]
    fn each_kind_of_output_counts_where_it_costs() {
        let one = composed(1280, 720, 30, 3000);
        let alone = load(&one);
        assert_eq!((alone.files, alone.stored, alone.local, alone.streamed, alone.objects), (1, false, true, 0.0, 0.0));
        let with = |outputs: Vec<Output>| load(&EgressPlan { outputs, ..one.clone() });

        let two = with(vec![file(true), file(false)]);
        assert_eq!((two.files, two.stored, two.local, two.is_local()), (2, true, true, true));
        assert!((two.written - 2.0 * alone.written).abs() < 1e-9 && (two.cores - alone.cores - 0.02).abs() < 1e-9);

        let streams = |count| Output::Streams(StreamsOutput { protocol: StreamProtocol::Rtmp, count });
        let streamed = with(vec![streams(3)]);
        assert_eq!((streamed.files, streamed.stored, streamed.is_local(), streamed.written), (0, false, false, 0.0));
        assert!((streamed.streamed - 3.0 * alone.written).abs() < 1e-6);
        assert!((streamed.cores - alone.cores - 0.04).abs() < 1e-9);
        assert_eq!(with(vec![streams(0)]).cores, alone.cores, "streams may come later");

        let naming = spillway_plan::segment_name::SegmentNaming::default();
        let segments = |stored| {
            let (naming, segment_ns) = (naming.clone(), 4_000_000_000);
            Output::Segments(SegmentsOutput { naming, segment_ns, manifest: true, stored })
        };
        let hls = with(vec![segments(true)]);
        assert_eq!((hls.files, hls.stored, hls.is_local(), hls.objects), (0, true, false, 0.5));
        let hls = with(vec![segments(false)]);
        assert_eq!((hls.stored, hls.is_local(), hls.objects), (false, true, 0.0));
        assert_eq!((hls.written, hls.written_objects), (alone.written, alone.written));
        let live = segment_name::SegmentNaming::new("", "a", "live", segment_name::SegmentSuffix::Index);
        let live = with(vec![Output::Segments(SegmentsOutput {
            naming: live,
            segment_ns: 4_000_000_000,
            manifest: true,
            stored: true,
        })]);
        assert_eq!(live.objects, 0.75, "two playlists");

        let image = Output::Images(ImagesOutput {
            prefix: String::new(),
            interval_ns: 5_000_000_000,
            size: Some((640, 360)),
            suffix: ImageSuffix::Index,
            codec: ImageCodec::Jpeg,
            manifest: true,
            stored: true,
        });
        let images = with(vec![file(true), image.clone()]);
        assert_eq!((images.files, images.is_local(), images.objects), (1, false, 0.2));
        assert!((images.written - alone.written - 0.2 * 640.0 * 360.0 * 0.06).abs() < 1e-6);
        let without_encoder = with(vec![image.clone()]);
        assert!((alone.cores - without_encoder.cores - 0.5 * 0.65).abs() < 1e-9, "{without_encoder:?}");
        // Beside a copied file, pictures are decoded.
        let Some(VideoPlan::Composed { encoding, .. }) = &one.picture else { panic!("{one:?}") };
        let copied = EgressPlan { picture: Some(VideoPlan::CopiedIfPossible(encoding.clone())), ..one.clone() };
        let sheets = Some(SheetsPlan { output: 0, rules: SheetRules { poster: true, ..SheetRules::default() } });
        let decoded = load(&EgressPlan { sheets, ..copied.clone() });
        assert!(decoded.cores > load(&copied).cores && decoded.memory_mib > load(&copied).memory_mib);
        let beside = load(&EgressPlan { outputs: vec![file(true), image], ..copied.clone() });
        assert!((beside.cores - load(&copied).cores - 0.02 - 0.5 * 0.65).abs() < 1e-9, "{beside:?}");
    }

    #[test]
    fn a_page_costs_a_browser_and_a_room_in_one_costs_more() {
        let one = composed(1280, 720, 30, 3000);
        let Some(VideoPlan::Composed { encoding, .. }) = one.picture.clone() else { panic!("{one:?}") };
        let of = |kind, picture: Option<VideoPlan>| {
            let source = Source::Page(PagePlan { kind, awaits_start: true });
            load(&EgressPlan { source, picture, ..one.clone() })
        };
        let seen = || Some(VideoPlan::Single(encoding.clone()));
        let (web, room, heard) = (of(PageKind::Web, seen()), of(PageKind::Template, seen()), of(PageKind::Web, None));
        assert!(web.page && room.page && heard.page && !load(&one).page);
        assert!((web.cores - (0.03 + 0.30 + 0.35 + 0.08)).abs() < 1e-9, "{web:?}");
        assert!((room.cores - web.cores - 0.40).abs() < 1e-9, "{room:?}");
        assert!((web.cores - heard.cores - 0.35).abs() < 1e-9, "{heard:?}");
        assert!(web.memory_mib > 1024.0 && heard.memory_mib > 1024.0);
        let shape_of = |load: &Load| shape_for(load, Platform::Fargate).unwrap().cpu_milli;
        assert_eq!((shape_of(&web), shape_of(&room)), (1000, 2000));
        let large = VideoEncoding { width: 1920, height: 1080, ..encoding.clone() };
        assert!(of(PageKind::Web, Some(VideoPlan::Single(large))).cores > web.cores + 0.5);
    }

    #[test]
    fn a_record_of_an_older_version_says_by_its_files_whether_they_stay() {
        let read = |stored: bool| {
            let text = format!(
                r#"{{"cores":0.1,"memory_mib":200.0,"written":1.0,"received":2.0,"files":1,"stored":{stored}}}"#
            );
            serde_json::from_str::<Load>(&text).unwrap()
        };
        assert!(read(false).is_local() && !read(true).is_local() && !read(false).local);
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
