use anyhow::ensure;
use libtest_mimic::Trial;
use spillway_tests::analyser::copied::compare;
use spillway_tests::analyser::sound::Side;
use spillway_tests::assets::clip;

use crate::codecs::codecs;
use crate::stage::alone;
use crate::studio::studio;
use crate::tape::Tape;

pub fn cases() -> Vec<Trial> {
    let mut cases = vec![
        alone("track_composite::h264_is_copied", || {
            let tape = studio()?.tape("track_composite")?;
            ensure!(tape.name().starts_with("tc_p0_"), "named {}", tape.name());
            tape.is_audio("aac", "44100", 2)?;
            tape.shows("p0", &tape.whole(), &[])?;
            tape.sounds("p0", Side::Both, &tape.whole(), &[])?;
            tape.in_sync("p0")?;
            let comparison = compare(&tape.path, &*clip("p0-720.h264")?)?;
            println!("{} {comparison}", tape.name());
            ensure!(comparison.perfect(), "{comparison:?}");
            Ok(())
        }),
        alone("track_composite::video_only", || {
            let tape = studio()?.tape("video_only")?;
            ensure!(tape.sound.is_none(), "sound where none was asked for");
            tape.shows("p0", &tape.whole(), &[])?;
            tape.moves("p0", 29.5)
        }),
        alone("track_composite::vp8", || {
            let tape = Tape::open(&codecs()?.info("tc_vp8")?)?;
            ensure!(tape.video()?["codec_name"] == "h264", "{}", tape.video()?);
            tape.shows("p0", &tape.whole(), &[])?;
            tape.sounds("p0", Side::Both, &tape.whole(), &[])?;
            tape.moves("p0", 29.0)
        }),
    ];
    for (name, codec) in [("tc_mp3", "mp3"), ("tc_pcmu", "aac"), ("tc_pcma", "aac")] {
        cases.push(alone(&format!("track_composite::audio_only_{name}"), move || {
            let tape = Tape::open(&codecs()?.info(name)?)?;
            tape.is_audio(codec, "44100", 2)?;
            tape.sounds("p0", Side::Both, &tape.whole(), &[])
        }));
    }
    cases
}
