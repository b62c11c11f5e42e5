use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use spillway_tests::analyser::copied::compare;
use spillway_tests::analyser::sound::BeepSide;
use spillway_tests::analyser::{probe, stream};
use spillway_tests::assets::clip;

use crate::codecs::codecs;
use crate::harness::alone;
use crate::publishers::shared_recordings;
use crate::recording_probe::RecordingProbe;
use spillway_tests::egress::file_of;

pub fn cases() -> Vec<Trial> {
    let mut cases = vec![
        alone("track::h264", || {
            let shared_recordings = shared_recordings()?;
            let probe = shared_recordings.probe("track_h264")?;
            ensure!(probe.name().starts_with(&format!("t_{}_", shared_recordings.video)), "named {}", probe.name());
            ensure!(probe.info["source_type"] == "EGRESS_SOURCE_TYPE_SDK", "{}", probe.info["source_type"]);
            probe.shows("p0", &probe.whole(), &[])?;
            probe.moves("p0", 29.5)?;
            untouched(&probe.info, "p0-720.h264", "h264")
        }),
        alone("track::opus", || {
            let probe = shared_recordings()?.probe("track_opus")?;
            ensure!(probe.name().starts_with("t_microphone_"), "named {}", probe.name());
            probe.is_audio("opus", "48000", 2)?;
            probe.sounds("p0", BeepSide::Both, &probe.whole(), &[])?;
            untouched(&probe.info, "p0.opus", "opus")
        }),
    ];
    for (name, published, codec) in [
        ("vp8", "p0-360.vp8.ivf", "vp8"),
        ("vp8_ivf", "p0-360.vp8.ivf", "vp8"),
        ("vp9", "p0-180.vp9.ivf", "vp9"),
        ("av1", "p0-180.av1.ivf", "av1"),
        ("h265", "p0-180.h265", "hevc"),
    ] {
        cases.push(alone(&format!("track::{name}"), move || untouched(&codecs()?.info(name)?, published, codec)));
    }
    cases.push(alone("track::h264_over_a_lossy_path", || untouched(&codecs()?.info("lossy")?, "p1-360.h264", "h264")));
    for name in ["pcmu", "pcma"] {
        cases.push(alone(&format!("track::{name}"), move || {
            let probe = RecordingProbe::open(&codecs()?.info(name)?)?;
            probe.audio()?;
            probe.sounds("p0", BeepSide::Both, &probe.whole(), &[])
        }));
    }
    cases
}

/// 0 lost, 0 changed, from the first key frame on.
fn untouched(info: &serde_json::Value, published: &str, codec: &str) -> Result<()> {
    let path = file_of(info)?;
    let probed = probe(&path)?;
    let kind = if codec == "opus" { "audio" } else { "video" };
    let found = stream(&probed, kind).map(|stream| stream["codec_name"].clone()).unwrap_or_default();
    ensure!(found == codec, "{} holds {found}", path.display());
    let comparison = compare(&path, &*clip(published)?)?;
    println!("{} against {published}: {comparison}", path.display());
    ensure!(comparison.perfect(), "{} against {published}: {comparison:?}", path.display());
    Ok(())
}
