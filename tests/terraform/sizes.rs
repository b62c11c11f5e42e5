//! The sizes that Terraform knows hold whatever `infra/cost` may order.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use serde::Deserialize;
use spillway_cost::{Platform, Shape, shape};
use spillway_plan::*;

use crate::{failed, tree};

#[derive(Deserialize)]
struct Sizes {
    fargate: BTreeMap<u32, MemoryRange>,
    fargate_page: FargateTask,
    cloud_run: BTreeMap<u32, MemoryRange>,
    aci: Aci,
}

/// Of the definition for web pages: 1024ths of a vCPU, MiB.
#[derive(Deserialize)]
struct FargateTask {
    cpu: u32,
    memory: u32,
}

#[derive(Deserialize)]
struct MemoryRange {
    least: u32,
    most: u32,
    #[serde(default)]
    step: u32,
    #[serde(default)]
    except: Vec<u32>,
    #[serde(default)]
    default: u32,
}

#[derive(Deserialize)]
struct Aci {
    cpu_step: f64,
    memory_step_mib: u32,
    max_cpu: f64,
    max_memory_mib: u32,
}

pub fn cases() -> Vec<Trial> {
    type Check = fn(&Sizes) -> Result<()>;
    let checks: [(&str, Check); 3] = [("fargate", fargate), ("cloud_run", cloud_run), ("aci", aci)];
    let case = |(name, check): (&str, Check)| {
        Trial::test(format!("sizes::{name}_holds_every_plan"), move || {
            sizes().and_then(|sizes| check(&sizes)).map_err(|error| failed(&error))
        })
    };
    checks.into_iter().map(case).collect()
}

fn sizes() -> Result<Sizes> {
    let text = std::fs::read_to_string(tree().join("modules/common/sizes.json")).context("read the sizes")?;
    serde_json::from_str(&text).context("understand the sizes")
}

fn fargate(sizes: &Sizes) -> Result<()> {
    let room = shape(&page(PageKind::Template, encoding(1280, 720, 30)), Platform::Fargate)?;
    let FargateTask { cpu, memory } = sizes.fargate_page;
    ensure!((cpu * 1000 / 1024, memory) == (room.cpu_milli, room.memory_mib), "a room in a page needs {room:?}");
    each(Platform::Fargate, |shape| {
        // ECS counts 1024ths of a vCPU.
        let size = sizes.fargate.iter().find(|(cpu, _)| **cpu * 1000 / 1024 == shape.cpu_milli);
        let (_, memory) = size.with_context(|| format!("no such cpu: {shape:?}"))?;
        ensure!((memory.least..=memory.most).contains(&shape.memory_mib), "no such memory: {shape:?}");
        ensure!(shape.memory_mib.is_multiple_of(memory.step), "between two sizes: {shape:?}");
        ensure!(!memory.except.contains(&shape.memory_mib), "not sold: {shape:?}");
        Ok(())
    })
}

/// Every shape has a job of its cpu with at least its memory, as the module makes them by default.
fn cloud_run(sizes: &Sizes) -> Result<()> {
    for memory in sizes.cloud_run.values() {
        ensure!((memory.least..=memory.most).contains(&memory.default), "a default that is not sold");
    }
    each(Platform::CloudRun, |shape| {
        let job = sizes.cloud_run.get(&(shape.cpu_milli / 1000)).with_context(|| format!("no job: {shape:?}"))?;
        ensure!(shape.cpu_milli.is_multiple_of(1000), "not whole: {shape:?}");
        ensure!(job.default >= shape.memory_mib, "its job has only {} MiB: {shape:?}", job.default);
        Ok(())
    })
}

fn aci(sizes: &Sizes) -> Result<()> {
    let aci = &sizes.aci;
    each(Platform::Aci, |shape| {
        let cpu = f64::from(shape.cpu_milli) / 1000.0;
        ensure!(cpu <= aci.max_cpu && (cpu / aci.cpu_step).fract() == 0.0, "no such cpu: {shape:?}");
        ensure!(shape.memory_mib <= aci.max_memory_mib, "no such memory: {shape:?}");
        ensure!(shape.memory_mib.is_multiple_of(aci.memory_step_mib), "between two sizes: {shape:?}");
        Ok(())
    })
}

/// From a copied track to the largest picture that is still sold, each of them composed, as a page and as a room in a page.
fn each(platform: Platform, check: impl Fn(Shape) -> Result<()>) -> Result<()> {
    let mut shapes = vec![shape(&plan(Some(VideoPlan::Copied), Some(AudioPlan::Copied)), platform)?];
    for (width, height) in [(320, 180), (640, 360), (1280, 720), (1920, 1080), (2560, 1440), (3840, 2160)] {
        for framerate in [15, 30, 60] {
            let encoding = || encoding(width, height, framerate);
            let plans = [composed(encoding()), page(PageKind::Web, encoding()), page(PageKind::Template, encoding())];
            for plan in &plans {
                // The largest pictures are more than some platforms sell; the rest must fit.
                match shape(plan, platform) {
                    Ok(shape) => shapes.push(shape),
                    Err(error) => ensure!(width * height * framerate > 1920 * 1080 * 30, "{width}x{height}: {error}"),
                }
            }
        }
    }
    shapes.into_iter().try_for_each(check)
}

fn encoding(width: u32, height: u32, framerate: u32) -> VideoEncoding {
    VideoEncoding { width, height, framerate, bitrate: 4500, profile: H264Profile::Main, key_frame_interval: None }
}

fn composed(encoding: VideoEncoding) -> EgressPlan {
    let layout = LayoutName { shape: LayoutShape::Grid, light: false };
    plan(Some(VideoPlan::Composed { layout, encoding }), Some(mixed()))
}

fn page(kind: PageKind, encoding: VideoEncoding) -> EgressPlan {
    let source = Source::Page(PagePlan { kind, awaits_start: true });
    EgressPlan { source, ..plan(Some(VideoPlan::Single(encoding)), Some(mixed())) }
}

fn mixed() -> AudioPlan {
    let (codec, mixing) = (AudioCodec::Aac, Mixing::Both);
    AudioPlan::Mixed { codec, bitrate: 128, frequency: 44100, mixing, also: vec![] }
}

fn plan(picture: Option<VideoPlan>, sound: Option<AudioPlan>) -> EgressPlan {
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
