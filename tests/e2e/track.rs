use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use serde_json::json;
use spillway_tests::analyser::copied::compare;
use spillway_tests::analyser::sound::{BeepSide, heard_seconds};
use spillway_tests::analyser::{probe, stream};
use spillway_tests::assets::clip;
use spillway_tests::publisher::{Publisher, PublisherOptions, SourceKind};

use crate::codecs::codecs;
use crate::harness::{E2eHarness, alone, case};
use crate::publishers::shared_recordings;
use crate::recording_probe::RecordingProbe;
use spillway_tests::egress::{Egress, file_of};

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
        case("track::opus_that_is_muted_at_both_ends", muted_at_both_ends),
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

/// The file begins with the silence of the first mute and lasts until the stop, also for a decoder that counts samples.
async fn muted_at_both_ends(harness: Arc<E2eHarness>) -> Result<()> {
    let room = harness.room("track-muted");
    let p0 = Publisher::join(harness.api(), &room, "p0", PublisherOptions::default()).await?;
    let audio = p0.publish(&clip("p0.opus")?, SourceKind::Microphone).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    p0.mute(&audio, true);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let file = json!({ "filepath": harness.file("t_muted_{time}.ogg").to_string_lossy() });
    let request = json!({ "room_name": room, "track_id": audio, "file": file });
    let egress = Egress::start(harness.api(), "StartTrackEgress", request).await?;
    egress.active().await?;
    let on = SystemTime::now();
    p0.mute(&audio, false);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let off = SystemTime::now();
    p0.mute(&audio, true);
    tokio::time::sleep(Duration::from_secs(4)).await;
    let stopped = SystemTime::now();
    let probe = RecordingProbe::open(&egress.complete().await?)?;
    let (heard, took) = (heard_seconds(&probe.path)?, probe.at(stopped));
    println!("{} lasts {heard:.3} s, took {took:.3} s", probe.name());
    // The stop is on its way for a moment.
    ensure!((-0.02..0.5).contains(&(heard - took)), "{heard:.3} s are heard of {took:.3} s");
    let (on, off) = (probe.at(on), probe.at(off));
    ensure!(on > 4.5, "it begins {on:.1} s before the end of the mute");
    probe.sounds("p0", BeepSide::Both, &[(on + 1.0, off - 0.3)], &[(0.0, on - 0.2), (off + 1.0, heard)])
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
