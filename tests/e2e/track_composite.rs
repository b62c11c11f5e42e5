use anyhow::ensure;
use libtest_mimic::Trial;
use spillway_tests::analyser::copied::compare;
use spillway_tests::analyser::sound::BeepSide;
use spillway_tests::assets::clip;

use crate::codecs::codecs;
use crate::harness::alone;
use crate::publishers::shared_recordings;
use crate::recording_probe::RecordingProbe;

pub fn cases() -> Vec<Trial> {
    let mut cases = vec![
        alone("track_composite::h264_is_copied", || {
            let probe = shared_recordings()?.probe("track_composite")?;
            ensure!(probe.name().starts_with("tc_p0_"), "named {}", probe.name());
            probe.is_audio("aac", "44100", 2)?;
            probe.shows("p0", &probe.whole(), &[])?;
            probe.sounds("p0", BeepSide::Both, &probe.whole(), &[])?;
            probe.in_sync("p0")?;
            let comparison = compare(&probe.path, &*clip("p0-720.h264")?)?;
            println!("{} {comparison}", probe.name());
            ensure!(comparison.perfect(), "{comparison:?}");
            Ok(())
        }),
        alone("track_composite::video_only", || {
            let probe = shared_recordings()?.probe("video_only")?;
            ensure!(probe.sound.is_none(), "sound where none was asked for");
            probe.shows("p0", &probe.whole(), &[])?;
            probe.moves("p0", 29.5)
        }),
        alone("track_composite::vp8", || {
            let probe = RecordingProbe::open(&codecs()?.info("tc_vp8")?)?;
            ensure!(probe.video()?["codec_name"] == "h264", "{}", probe.video()?);
            probe.shows("p0", &probe.whole(), &[])?;
            probe.sounds("p0", BeepSide::Both, &probe.whole(), &[])?;
            probe.moves("p0", 29.0)
        }),
        alone("track_composite::vp8_is_copied_into_a_webm", || {
            let probe = RecordingProbe::open(&codecs()?.info("tc_webm")?)?;
            ensure!(probe.name().ends_with(".webm"), "named {}", probe.name());
            probe.is_audio("opus", "48000", 2)?;
            probe.shows("p0", &probe.whole(), &[])?;
            probe.sounds("p0", BeepSide::Both, &probe.whole(), &[])?;
            let comparison = compare(&probe.path, &*clip("p0-360.vp8.ivf")?)?;
            println!("{} {comparison}", probe.name());
            ensure!(comparison.perfect(), "{comparison:?}");
            Ok(())
        }),
    ];
    for (name, codec) in [("tc_mp3", "mp3"), ("tc_pcmu", "aac"), ("tc_pcma", "aac")] {
        cases.push(alone(&format!("track_composite::audio_only_{name}"), move || {
            let probe = RecordingProbe::open(&codecs()?.info(name)?)?;
            probe.is_audio(codec, "44100", 2)?;
            probe.sounds("p0", BeepSide::Both, &probe.whole(), &[])
        }));
    }
    cases
}
