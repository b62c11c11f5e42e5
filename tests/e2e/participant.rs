use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use serde_json::json;
use spillway_tests::analyser::copied::compare;
use spillway_tests::analyser::sound::BeepSide;
use spillway_tests::assets::clip;
use spillway_tests::publisher::{Publisher, PublisherOptions, SourceKind};

use crate::harness::{E2eHarness, alone, case, waiting_case};
use crate::publishers::{person, shared_recordings};
use crate::recording_probe::{RecordingProbe, one_result};
use spillway_tests::egress::Egress;

pub fn cases() -> Vec<Trial> {
    vec![
        alone("participant::base", || {
            let probe = shared_recordings()?.probe("participant")?;
            ensure!(probe.name().starts_with("p_p1_"), "named {}", probe.name());
            ensure!(probe.info["source_type"] == "EGRESS_SOURCE_TYPE_SDK", "{}", probe.info["source_type"]);
            probe.is_audio("aac", "44100", 2)?;
            probe.shows("p1", &probe.whole(), &[])?;
            probe.sounds("p1", BeepSide::Both, &probe.whole(), &[])?;
            probe.in_sync("p1")?;
            probe.moves("p1", 29.0)
        }),
        case("participant::vp8_with_sound_that_comes_and_goes", vp8),
        case("participant::h264_that_goes_and_comes_back", h264),
        case("participant::h264_that_comes_back_as_vp8_goes_on_in_another_file", other_codec),
        case("participant::vp8_in_a_webm_that_comes_back_as_h264_goes_on_in_an_mp4", webm),
        case("participant::audio_only_has_a_black_picture", audio_only),
        case("participant::that_leaves_and_returns_goes_on_in_one_file", returns),
        waiting_case("participant::that_does_not_return_ends_the_recording", does_not_return),
    ]
}

async fn start(harness: &E2eHarness, room: &str) -> Result<Egress> {
    let request = json!({
        "room_name": room, "identity": "p0",
        "file_outputs": [{ "filepath": harness.file("p_{room_name}_{time}.mp4").to_string_lossy(), "file_type": "MP4" }],
    });
    let egress = Egress::start(harness.api(), "StartParticipantEgress", request).await?;
    egress.active().await?;
    Ok(egress)
}

/// Waits for a place on a case's own timetable.
async fn at(begun: Instant, seconds: f64) -> SystemTime {
    tokio::time::sleep_until((begun + Duration::from_secs_f64(seconds)).into()).await;
    SystemTime::now()
}

async fn vp8(harness: Arc<E2eHarness>) -> Result<()> {
    let room = harness.room("participant-vp8");
    let (picture, sound) = (clip("p0-360.vp8.ivf")?, clip("p0.opus")?);
    let p0 = Publisher::join(harness.api(), &room, "p0", PublisherOptions::default()).await?;
    p0.publish(&picture, SourceKind::Camera).await?;
    let egress = start(&harness, &room).await?;
    let begun = Instant::now();
    let on = at(begun, 3.0).await;
    let audio = p0.publish(&sound, SourceKind::Microphone).await?;
    let off = at(begun, 7.5).await;
    p0.unpublish(&audio);
    let on_again = at(begun, 10.0).await;
    p0.publish(&sound, SourceKind::Microphone).await?;
    at(begun, 13.0).await;
    let probe = RecordingProbe::open(&egress.complete().await?)?;
    probe.is_h264("Main", 1280, 720)?;
    probe.shows("p0", &probe.whole(), &[])?;
    probe.moves("p0", 29.0)?;
    let [on, off, on_again] = [on, off, on_again].map(|moment| probe.at(moment));
    let wanted = [(on + 1.0, off - 0.2), (on_again + 1.0, probe.seconds() - 0.7)];
    probe.sounds("p0", BeepSide::Both, &wanted, &[(0.0, on - 0.2), (off + 1.0, on_again - 0.2)])?;
    probe.in_sync("p0")?;
    Ok(())
}

async fn h264(harness: Arc<E2eHarness>) -> Result<()> {
    let room = harness.room("participant-h264");
    let (picture, sound) = (clip("p0-360.h264")?, clip("p0.opus")?);
    let p0 = Publisher::join(harness.api(), &room, "p0", PublisherOptions::default()).await?;
    let video = p0.publish(&picture, SourceKind::Camera).await?;
    p0.publish(&sound, SourceKind::Microphone).await?;
    let egress = start(&harness, &room).await?;
    let begun = Instant::now();
    let off = at(begun, 4.5).await;
    p0.unpublish(&video);
    let on = at(begun, 8.0).await;
    p0.publish(&picture, SourceKind::Camera).await?;
    at(begun, 12.0).await;
    let probe = RecordingProbe::open(&egress.complete().await?)?;
    probe.sounds("p0", BeepSide::Both, &probe.whole(), &[])?;
    let (off, on) = (probe.at(off), probe.at(on));
    // Black a second after it went; a key frame may take a second when it comes back.
    probe.shows("p0", &[(0.5, off - 0.2), (on + 2.0, probe.seconds() - 0.7)], &[(off + 1.0, on - 0.2)])?;
    probe.in_sync("p0")?;
    Ok(())
}

async fn other_codec(harness: Arc<E2eHarness>) -> Result<()> {
    let room = harness.room("participant-codecs");
    let (h264, vp8, sound) = (clip("p0-360.h264")?, clip("p0-360.vp8.ivf")?, clip("p0.opus")?);
    let p0 = Publisher::join(harness.api(), &room, "p0", PublisherOptions::default()).await?;
    let video = p0.publish(&h264, SourceKind::Camera).await?;
    p0.publish(&sound, SourceKind::Microphone).await?;
    let egress = start(&harness, &room).await?;
    let begun = Instant::now();
    let off = at(begun, 4.5).await;
    p0.unpublish(&video);
    at(begun, 6.0).await;
    p0.publish(&vp8, SourceKind::Camera).await?;
    at(begun, 12.0).await;
    let info = egress.complete().await?;
    let probe = |number: usize| RecordingProbe::open(&one_result(&info, &info["file_results"][number]));
    ensure!(info["file_results"].as_array().is_some_and(|files| files.len() == 2), "{info}");
    let (first, second) = (probe(0)?, probe(1)?);
    ensure!(second.name().ends_with("-2.mp4"), "named {}", second.name());
    first.shows("p0", &[(0.5, first.at(off) - 0.2)], &[])?;
    first.sounds("p0", BeepSide::Both, &[(0.5, first.at(off) - 0.2)], &[])?;
    second.is_h264("Main", 1280, 720)?;
    // A key frame may take a second.
    let wanted = [(2.0, second.seconds() - 0.7)];
    second.shows("p0", &wanted, &[])?;
    second.sounds("p0", BeepSide::Both, &wanted, &[])?;
    second.in_sync("p0")?;
    Ok(())
}

/// Without a file type, so that the codec decides.
async fn webm(harness: Arc<E2eHarness>) -> Result<()> {
    let room = harness.room("participant-webm");
    let (vp8, h264, sound) = (clip("p0-360.vp8.ivf")?, clip("p0-360.h264")?, clip("p0.opus")?);
    let p0 = Publisher::join(harness.api(), &room, "p0", PublisherOptions::default()).await?;
    let video = p0.publish(&vp8, SourceKind::Camera).await?;
    p0.publish(&sound, SourceKind::Microphone).await?;
    let path = harness.file("p_{room_name}_{time}.webm");
    let file = json!({ "filepath": path.to_string_lossy() });
    let request = json!({ "room_name": room, "identity": "p0", "file_outputs": [file] });
    let egress = Egress::start(harness.api(), "StartParticipantEgress", request).await?;
    egress.active().await?;
    let begun = Instant::now();
    let off = at(begun, 6.0).await;
    p0.unpublish(&video);
    at(begun, 8.0).await;
    p0.publish(&h264, SourceKind::Camera).await?;
    at(begun, 13.0).await;
    let info = egress.complete().await?;
    ensure!(info["file_results"].as_array().is_some_and(|files| files.len() == 2), "{info}");
    let probe = |number: usize| RecordingProbe::open(&one_result(&info, &info["file_results"][number]));
    let (first, second) = (probe(0)?, probe(1)?);
    ensure!(first.name().ends_with(".webm") && second.name().ends_with(".mp4"), "{} {}", first.name(), second.name());
    first.is_audio("opus", "48000", 2)?;
    let off = first.at(off);
    // Black a second after it went, until the other file begins.
    first.shows("p0", &[(0.5, off - 0.2)], &[(off + 1.0, first.seconds())])?;
    first.sounds("p0", BeepSide::Both, &first.whole(), &[])?;
    first.in_sync("p0")?;
    let copied = compare(&first.path, &vp8)?;
    ensure!(copied.matched > 100 && copied.lost == 0 && copied.begins_with_key, "{copied:?}");
    second.is_audio("aac", "44100", 2)?;
    let wanted = [(0.5, second.seconds() - 0.7)];
    second.shows("p0", &wanted, &[])?;
    second.sounds("p0", BeepSide::Both, &wanted, &[])?;
    second.in_sync("p0")?;
    let copied = compare(&second.path, &h264)?;
    ensure!(copied.perfect(), "{copied:?}");
    Ok(())
}

/// A page that is loaded anew: it leaves and joins with the same identity.
async fn returns(harness: Arc<E2eHarness>) -> Result<()> {
    let room = harness.room("participant-reload");
    let (p0, ..) = person(&harness, &room, "p0", "p0-360.h264").await?;
    let egress = start(&harness, &room).await?;
    let begun = Instant::now();
    let off = at(begun, 4.5).await;
    p0.leave().await;
    let on = at(begun, 7.0).await;
    let (_p0, ..) = person(&harness, &room, "p0", "p0-360.h264").await?;
    at(begun, 12.0).await;
    let info = egress.complete().await?;
    let details = info["details"].as_str().unwrap_or_default();
    ensure!(details.contains("participant p0 left at ") && details.contains(" s and returned "), "{details}");
    let probe = RecordingProbe::open(&info)?;
    let (off, on) = (probe.at(off), probe.at(on));
    // A key frame may take a second.
    let wanted = [(0.5, off - 0.2), (on + 2.5, probe.seconds() - 0.7)];
    let forbidden = [(off + 1.0, on - 0.1)];
    probe.shows("p0", &wanted, &forbidden)?;
    probe.sounds("p0", BeepSide::Both, &wanted, &forbidden)?;
    probe.in_sync("p0")?;
    Ok(())
}

async fn does_not_return(harness: Arc<E2eHarness>) -> Result<()> {
    let room = harness.room("participant-left");
    let (p0, ..) = person(&harness, &room, "p0", "p0-360.h264").await?;
    let egress = start(&harness, &room).await?;
    let left_at = at(Instant::now(), 3.0).await;
    p0.leave().await;
    let left = Instant::now();
    let info = egress.over(Duration::from_secs(20)).await?;
    ensure!(info["status"] == "EGRESS_COMPLETE", "{info}");
    ensure!(left.elapsed() > Duration::from_secs(8), "over {:?} after the participant left", left.elapsed());
    let details = info["details"].as_str().unwrap_or_default();
    ensure!(details.contains("participant p0 left and did not return within 10 s"), "{details}");
    let probe = RecordingProbe::open(&info)?;
    let left_at = probe.at(left_at);
    let after = probe.seconds() - left_at;
    ensure!((-0.5..1.5).contains(&after), "the file ends {after:.1} s after the participant left");
    let wanted = [(0.5, left_at.min(probe.seconds()) - 0.7)];
    probe.shows("p0", &wanted, &[])?;
    probe.sounds("p0", BeepSide::Both, &wanted, &[])
}

async fn audio_only(harness: Arc<E2eHarness>) -> Result<()> {
    let room = harness.room("participant-audio");
    let sound = clip("p0.opus")?;
    let p0 = Publisher::join(harness.api(), &room, "p0", PublisherOptions::default()).await?;
    let audio = p0.publish(&sound, SourceKind::Microphone).await?;
    let egress = start(&harness, &room).await?;
    let begun = Instant::now();
    let off = at(begun, 4.5).await;
    p0.mute(&audio, true);
    let on = at(begun, 7.0).await;
    p0.mute(&audio, false);
    at(begun, 10.0).await;
    let probe = RecordingProbe::open(&egress.complete().await?)?;
    probe.is_h264_with_pauses("Main", 1280, 720)?;
    let brightest =
        probe.pictures.as_ref().map_or(0.0, |all| all.all.iter().fold(0.0, |most: f64, p| most.max(p.luma)));
    ensure!(brightest < 20.0, "the picture is not black but {brightest}");
    let (off, on) = (probe.at(off), probe.at(on));
    probe.sounds("p0", BeepSide::Both, &[(0.5, off - 0.2), (on + 1.0, probe.seconds() - 0.7)], &[(off + 1.0, on - 0.2)])
}
