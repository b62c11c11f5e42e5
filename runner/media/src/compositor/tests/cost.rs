//! What the compositor costs without an encoder: prints, asserts only that nothing is lost.
//! `cargo test --workspace --lib --release -- --ignored --nocapture compositor_cost`

use super::*;

fn clip(size: (u32, u32), kilobits: u32, seconds: u64) -> Vec<(u64, bool, Bytes)> {
    let (w, h) = size;
    let chain = format!(
        "videotestsrc num-buffers={} pattern=zone-plate kx2=6 ky2=4 kt=2 ! video/x-raw,format=I420,width={w},height={h},framerate=30/1 \
         ! x264enc speed-preset=superfast bframes=0 key-int-max=120 bitrate={kilobits} \
         ! video/x-h264,profile=constrained-baseline,stream-format=byte-stream,alignment=au ! appsink name=out sync=false",
        seconds * 30
    );
    media::drained(&chain).into_iter().zip(0u64..).map(|((key, data), n)| (n * 1_000_000_000 / 30, key, data)).collect()
}

/// Processor seconds by thread name, and of the whole process.
fn spent() -> std::collections::BTreeMap<String, f64> {
    let mut by_name = std::collections::BTreeMap::new();
    let seconds = |stat: &str| {
        let (name, rest) = stat.split_once('(').unwrap().1.rsplit_once(')').unwrap();
        let fields: Vec<f64> = rest.split_whitespace().map(|field| field.parse().unwrap_or(0.0)).collect();
        (name.to_owned(), (fields[11] + fields[12]) / 100.0)
    };
    for task in std::fs::read_dir("/proc/self/task").unwrap().flatten() {
        let Ok(stat) = std::fs::read_to_string(task.path().join("stat")) else { continue };
        let (name, spent) = seconds(&stat);
        *by_name.entry(name).or_insert(0.0) += spent;
    }
    by_name.insert("(all)".into(), seconds(&std::fs::read_to_string("/proc/self/stat").unwrap()).1);
    by_name
}

struct Nowhere;

impl RawSink for Nowhere {
    fn push(&self, _: gst::Buffer) -> Result<(), FeedError> {
        Ok(())
    }

    fn end(&self) {}
}

/// `paced`: fed as a room feeds it; else as fast as it goes.
fn cost(name: &str, canvas: Size, size: (u32, u32), kilobits: u32, tracks: u32, paced: bool) {
    const SECONDS: u64 = 20;
    let (camera, microphone) = (clip(size, kilobits, SECONDS), sound(Codec::Opus, SECONDS));
    let end = ms(SECONDS * 1000);
    let mut script = TestScript::default();
    for n in 0..tracks {
        script = script
            .joins(ms(0), track(2 * n, Codec::H264, &format!("p{n}"), TrackSource::Camera))
            .joins(ms(0), track(2 * n + 1, Codec::Opus, &format!("p{n}"), TrackSource::Microphone))
            .sends(2 * n, &camera, ms(0), end)
            .sends(2 * n + 1, &microphone, ms(0), end);
    }
    let script = script.ticking(ms(20), end);
    let picture =
        VideoMixerOptions { size: canvas, framerate: 30, arrangement: tiles(LayoutShape::Grid), key_grid: None };
    let options = CompositorOptions { picture: Some(picture), ..options(Arrangement::Single) };
    let before = spent();
    let clock = std::time::Instant::now();
    let compositor = Compositor::start(options, Some(Box::new(Nowhere)), Some(Box::new(Nowhere)), |_| {}).unwrap();
    let mut last = before.clone();
    for timed in script {
        let tick = matches!(timed, TimelineEvent::Watermark { .. });
        compositor.take(timed);
        if tick && paced {
            std::thread::sleep(Duration::from_millis(20));
        }
        // As a source that is one second ahead at most.
        while tick && compositor.stats().lag_ns > 1000 * MS {
            std::thread::sleep(Duration::from_millis(1));
        }
        if tick {
            last = spent();
        }
    }
    compositor.end_at(end);
    compositor.wait();
    let all = (spent()["(all)"] - before["(all)"]) / SECONDS as f64;
    let by_thread: Vec<_> = ["picture", "video", "sound", "voice"]
        .map(|name| format!("{name} {:.3}", last.get(name).copied().unwrap_or(0.0) / SECONDS as f64))
        .into();
    let speed = SECONDS as f64 / clock.elapsed().as_secs_f64();
    println!("{name}: {all:.3} core ({}), {speed:.1} times real time", by_thread.join(", "));
    let stats = compositor.stats();
    assert_eq!((stats.pictures, stats.distinct_frames), (SECONDS * 30, SECONDS * 30));
}

#[test]
#[ignore = "prints figures; run it alone"]
fn compositor_cost() {
    gst::init().unwrap();
    let hd = Size { width: 1280, height: 720 };
    cost("1 x 720p in 720p", hd, (1280, 720), 1700, 1, false);
    cost("4 x 360p in 720p", hd, (640, 360), 600, 4, false);
    cost("4 x 360p in 720p, in real time", hd, (640, 360), 600, 4, true);
    cost("4 x 720p in 720p", hd, (1280, 720), 1700, 4, false);
    cost("9 x 360p in 720p", hd, (640, 360), 600, 9, false);
    cost("4 x 720p in 1080p", Size { width: 1920, height: 1080 }, (1280, 720), 1700, 4, false);
}
