//! Every kind of request to RTMP servers and as HLS: rows Stream, Segments and Multi of livekit/egress' own tests, several from
//! one room. Most are encoded in 360p, so that they run side by side.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use spillway_tests::analyser::sound::BeepSide;
use spillway_tests::assets::clip;
use spillway_tests::egress::{Egress, complete_all, connected, nanos, streams_are, until};
use spillway_tests::publisher::{Publisher, PublisherOptions, SourceKind};
use spillway_tests::servers::rtmp_server::{CLOSED, LIVE, RtmpServer};

use crate::harness::{E2eHarness, case, exclusive_case};
use crate::hls::{PICTURE, SOUND, finished, folder, of_disk, probe, recorded};
use crate::publishers::person;
use crate::recording_probe::RecordingProbe;
use crate::rtmp::{KEY, OTHER, ended, is_good, seen, streams};

/// Keys of further streams.
const THIRD: &str = "canaryOfTheThirdStream-key";
const BAD: &str = "canaryOfTheBadStream-key";

pub fn cases() -> Vec<Trial> {
    vec![
        case("kinds::streams_of_a_room_and_of_tracks", room_and_tracks),
        case("kinds::streams_of_a_participant_and_a_media_source", participant_and_media),
        case("kinds::templates", templates),
        case("kinds::hls_of_people_whose_tracks_come_and_go", come_and_go),
        exclusive_case("kinds::hls_in_1080p_baseline", baseline),
    ]
}

/// An encoding that costs little.
pub fn small() -> Value {
    json!({ "width": 640, "height": 360, "video_bitrate": 800 })
}

/// A file, a playlist, or what a player has of a stream.
fn is_small(probe: &RecordingProbe, people: &[&str]) -> Result<()> {
    probe.is_streamed_h264("Main", 640, 360)?;
    probe.is_audio("aac", "44100", 2)?;
    for who in people {
        probe.shows(who, &probe.whole(), &[])?;
        probe.sounds(who, BeepSide::Both, &probe.whole(), &[])?;
    }
    probe.all_in_sync(people)
}

/// Starts them one after the other, and waits until all are ACTIVE.
async fn started<const COUNT: usize>(
    harness: &E2eHarness,
    room: &str,
    requests: [(&str, Value); COUNT],
) -> Result<[Egress; COUNT]> {
    let mut egresses = vec![];
    for (method, mut request) in requests {
        request["room_name"] = json!(room);
        egresses.push(Egress::start(harness.api(), method, request).await?);
    }
    for egress in &egresses {
        egress.active().await?;
    }
    <[Egress; COUNT]>::try_from(egresses).ok().context("one egress for each request")
}

/// RoomComposite with a fixed key interval, whose streams come, go and are refused; TrackComposite to a server and as HLS.
async fn room_and_tracks(harness: Arc<E2eHarness>) -> Result<()> {
    let server = RtmpServer::start()?;
    let (room, folder) = (harness.room("kinds"), folder(&harness, "kinds"));
    let (_p0, video, audio) = person(&harness, &room, "p0", "p0-360.vp8.ivf").await?;
    let _p1 = person(&harness, &room, "p1", "p1-360.vp8.ivf").await?;
    let _p2 = person(&harness, &room, "p2", "p2-360.h264").await?;
    let (good, added) = (server.url(LIVE, KEY), server.url(LIVE, OTHER));
    let [bad, bad_added] = [server.url(CLOSED, KEY), server.url(CLOSED, BAD)];
    let [composite, tracks] = started(
        &harness,
        &room,
        [
            (
                "StartRoomCompositeEgress",
                json!({
                    "layout": "speaker", "advanced": { "key_frame_interval": 2.0 },
                    "stream_outputs": streams(&[&good, &bad]),
                }),
            ),
            (
                "StartTrackCompositeEgress",
                json!({
                    "video_track_id": video, "audio_track_id": audio, "advanced": small(),
                    "stream_outputs": streams(&[&server.url(LIVE, THIRD)]), "segment_outputs": of_disk(&folder, 2),
                }),
            ),
        ],
    )
    .await?;
    connected(&tracks, 1).await?;
    until(&composite, "one of two has failed", 20, |info| streams_are(info, &["ACTIVE", "FAILED"])).await?;
    composite.update_streams(&[&added, &bad_added], &[]).await?;
    let is = |info: &Value| streams_are(info, &["ACTIVE", "FAILED", "ACTIVE", "FAILED"]);
    until(&composite, "one of two more has failed", 20, is).await?;
    let info = connected(&composite, 4).await?;
    let shown = info["stream_results"][0]["url"].as_str().unwrap_or_default();
    ensure!(shown.ends_with("/live/{can...key}"), "shown as {shown}");
    let seconds = 7;
    let watched =
        tokio::try_join!(server.watch(KEY, seconds), server.watch(OTHER, seconds), server.watch(THIRD, seconds))?;
    let info = composite.update_streams(&[], &[&good]).await?;
    ensure!(streams_are(&info, &["FINISHED", "FAILED", "ACTIVE", "FAILED"]), "{info}");
    let (info, of_tracks) = (composite.complete().await?, tracks.complete().await?);
    ended(&info, &["FINISHED", "FAILED", "FINISHED", "FAILED"])?;
    ensure!(info["error"] == "" && info["source_type"] == "EGRESS_SOURCE_TYPE_WEB", "{info}");
    ensure!(info["file_results"].as_array().is_none_or(Vec::is_empty), "no file was asked for: {info}");
    let lasted = nanos(&info["stream_results"][0]["duration"]) as f64 / 1e9;
    ensure!(lasted > 6.0, "it lasted {lasted:.1} s: {info}");
    ended(&of_tracks, &["FINISHED"])?;

    key_frames_each(&watched.0, 2.0)?;
    for path in [watched.0, watched.1] {
        let stream = seen(path, seconds)?;
        is_good(&stream)?;
        for who in ["p1", "p2"] {
            stream.shows(who, &stream.whole(), &[])?;
            stream.sounds(who, BeepSide::Both, &stream.whole(), &[])?;
        }
    }
    is_small(&seen(watched.2, seconds)?, &["p0"])?;
    let hls = finished(&folder, &of_tracks, 2, PICTURE)?;
    hls.begins_with_key_frames()?;
    is_small(&probe(&hls, &of_tracks)?, &["p0"])
}

/// At most 20 ms off, as livekit/egress' own test asks for. The player's first one may be of a stream that was added just before.
fn key_frames_each(stream: &Path, seconds: f64) -> Result<()> {
    let out = Command::new("ffprobe")
        .args(["-v", "error", "-select_streams", "v:0", "-show_entries", "packet=pts_time,flags", "-of", "csv=p=0"])
        .arg(stream)
        .output()
        .context("start ffprobe")?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let key = |line: &str| {
        let (time, flags) = line.split_once(',')?;
        flags.contains('K').then(|| time.parse::<f64>().ok()).flatten()
    };
    let keys: Vec<f64> = text.lines().filter_map(key).skip(1).collect();
    println!("key frames at {keys:.3?}");
    ensure!(keys.len() >= 3, "{keys:?}");
    ensure!(
        keys.windows(2).all(|pair| (pair[1] - pair[0] - seconds).abs() <= 0.02),
        "not each {seconds} s: {keys:.3?}"
    );
    Ok(())
}

/// A participant whose sound comes later, also as HLS, and the video of another with the sound of one track.
async fn participant_and_media(harness: Arc<E2eHarness>) -> Result<()> {
    let server = RtmpServer::start()?;
    let (room, folder) = (harness.room("kinds-people"), folder(&harness, "people"));
    let (picture, sound) = (clip("p0-360.vp8.ivf")?, clip("p0.opus")?);
    let p0 = Publisher::join(harness.api(), &room, "p0", PublisherOptions::default()).await?;
    p0.publish(&picture, SourceKind::Camera).await?;
    let (_p1, _, audio) = person(&harness, &room, "p1", "p1-360.vp8.ivf").await?;
    let source = json!({
        "participant_video": { "identity": "p1" },
        "audio": { "routes": [{ "track_id": audio }] },
    });
    let stream = json!({ "protocol": "RTMP", "urls": [server.url(LIVE, OTHER)] });
    let [participant, media] = started(
        &harness,
        &room,
        [
            (
                "StartParticipantEgress",
                json!({
                    "identity": "p0", "advanced": small(), "stream_outputs": streams(&[&server.url(LIVE, KEY)]),
                    "segment_outputs": of_disk(&folder, 2),
                }),
            ),
            ("StartEgress", json!({ "media": source, "advanced": small(), "outputs": [{ "stream": stream }] })),
        ],
    )
    .await?;
    connected(&participant, 1).await?;
    connected(&media, 1).await?;
    // A player may wait for its first key frame for some seconds: it begins in silence all the same.
    let seconds = 13;
    let late = async {
        tokio::time::sleep(Duration::from_secs(6)).await;
        p0.publish(&sound, SourceKind::Microphone).await
    };
    let (of_participant, of_media, _) = tokio::try_join!(server.watch(KEY, seconds), server.watch(OTHER, 7), late)?;
    let infos = complete_all(&[participant, media]).await?;
    for info in &infos {
        ended(info, &["FINISHED"])?;
        ensure!(info["source_type"] == "EGRESS_SOURCE_TYPE_SDK", "{info}");
    }
    is_small(&seen(of_media, 7)?, &["p1"])?;
    let stream = seen(of_participant, seconds)?;
    stream.is_streamed_h264("Main", 640, 360)?;
    stream.is_audio("aac", "44100", 2)?;
    stream.shows("p0", &stream.whole(), &[])?;
    let beeps: Vec<f64> = stream.beeps("p0")?.iter().map(|beep| beep.at).collect();
    let Some(first) = beeps.first().filter(|first| **first > 1.0) else { bail!("no silence before {beeps:.2?}") };
    stream.sounds("p0", BeepSide::Both, &[(first - 0.1, stream.seconds() - 0.7)], &[])?;
    stream.in_sync("p0")?;
    let hls = finished(&folder, &infos[0], 2, PICTURE)?;
    hls.begins_with_key_frames()?;
    let playlist = probe(&hls, &infos[0])?;
    playlist.is_h264("Main", 640, 360)?;
    playlist.shows("p0", &playlist.whole(), &[])?;
    playlist.in_sync("p0").map(drop)
}

/// `StartEgress` with a built-in layout: beside a file to a server, sound alone, pictures alone.
async fn templates(harness: Arc<E2eHarness>) -> Result<()> {
    let server = RtmpServer::start()?;
    let room = harness.room("kinds-templates");
    let people = ["p0", "p1", "p2"];
    let _p0 = person(&harness, &room, "p0", "p0-360.h264").await?;
    let _p1 = person(&harness, &room, "p1", "p1-360.h264").await?;
    let _p2 = person(&harness, &room, "p2", "p2-360.h264").await?;
    let path = |name: &str| harness.file(name).to_string_lossy().into_owned();
    let file = |name: &str| json!({ "file": { "filepath": path(name) } });
    let mut high = small();
    high["video_codec"] = json!("H264_HIGH");
    let stream = json!({ "stream": { "protocol": "RTMP", "urls": [server.url(LIVE, KEY)] } });
    let egresses = started(
        &harness,
        &room,
        [
            (
                "StartEgress",
                json!({
                    "template": { "layout": "speaker" }, "advanced": small(),
                    "outputs": [file("template_{room_name}_{time}"), stream],
                }),
            ),
            ("StartEgress", json!({ "template": { "audio_only": true }, "outputs": [file("template_audio_{time}")] })),
            (
                "StartEgress",
                json!({
                    "template": { "layout": "speaker", "video_only": true }, "advanced": high,
                    "outputs": [file("template_video_{time}")],
                }),
            ),
        ],
    )
    .await?;
    let info = connected(&egresses[0], 1).await?;
    ensure!(info["egress"]["template"]["layout"] == "speaker", "the request is not told: {info}");
    let watched = server.watch(KEY, 7).await?;
    let infos = complete_all(&egresses).await?;
    ended(&infos[0], &["FINISHED"])?;
    for (info, source) in infos.iter().zip(["WEB", "SDK", "WEB"]) {
        ensure!(info["source_type"] == format!("EGRESS_SOURCE_TYPE_{source}").as_str(), "not {source}: {info}");
    }
    is_small(&seen(watched, 7)?, &people)?;
    let [base, sound, picture] = [&infos[0], &infos[1], &infos[2]].map(RecordingProbe::open);
    let (base, sound, picture) = (base?, sound?, picture?);
    ensure!(base.name().starts_with(&format!("template_{room}_")) && base.name().ends_with(".mp4"), "{}", base.name());
    is_small(&base, &people)?;
    base.has_manifest()?;
    ensure!(sound.name().ends_with(".ogg") && sound.pictures.is_none(), "{}", sound.name());
    sound.is_audio("opus", "48000", 2)?;
    picture.is_h264("High", 640, 360)?;
    ensure!(picture.sound.is_none(), "sound in a file of pictures");
    for who in people {
        sound.sounds(who, BeepSide::Both, &sound.whole(), &[])?;
        picture.shows(who, &picture.whole(), &[])?;
    }
    Ok(())
}

/// p0 has no camera; p1's microphone comes and goes. Sound of a participant has a black picture, that of a track has none.
async fn come_and_go(harness: Arc<E2eHarness>) -> Result<()> {
    let room = harness.room("kinds-hls");
    let [first, second] = [clip("p0.opus")?, clip("p1.opus")?];
    let p0 = Publisher::join(harness.api(), &room, "p0", PublisherOptions::default()).await?;
    let audio = p0.publish(&first, SourceKind::Microphone).await?;
    let p1 = Publisher::join(harness.api(), &room, "p1", PublisherOptions::default()).await?;
    p1.publish(&clip("p1-360.h264")?, SourceKind::Camera).await?;
    let [black, late, track] = ["kinds-black", "kinds-late", "kinds-track"].map(|kind| folder(&harness, kind));
    let [of_p0, of_p1, of_track] = started(
        &harness,
        &room,
        [
            (
                "StartParticipantEgress",
                json!({ "identity": "p0", "advanced": small(), "segment_outputs": of_disk(&black, 6) }),
            ),
            (
                "StartParticipantEgress",
                json!({ "identity": "p1", "advanced": small(), "segment_outputs": of_disk(&late, 2) }),
            ),
            ("StartTrackCompositeEgress", json!({ "audio_track_id": audio, "segment_outputs": of_disk(&track, 2) })),
        ],
    )
    .await?;
    let wait = |seconds| tokio::time::sleep(Duration::from_secs(seconds));
    wait(3).await;
    let on = SystemTime::now();
    let microphone = p1.publish(&second, SourceKind::Microphone).await?;
    wait(6).await;
    let off = SystemTime::now();
    p1.unpublish(&microphone);
    wait(4).await;
    let (of_p0, of_p1, of_track) = (of_p0.complete().await?, of_p1.complete().await?, of_track.complete().await?);

    let hls = finished(&black, &of_p0, 6, PICTURE)?;
    ensure!(hls.playlist.segments.len() >= 2, "{:?}", hls.playlist);
    let playlist = probe(&hls, &of_p0)?;
    playlist.is_h264_with_pauses("Main", 640, 360)?;
    let lumas = playlist.pictures.iter().flat_map(|pictures| pictures.all.iter().map(|picture| picture.luma));
    let brightest = lumas.fold(0.0, f64::max);
    ensure!(brightest < 20.0, "the picture is not black but {brightest}");
    playlist.sounds("p0", BeepSide::Both, &playlist.whole(), &[])?;
    playlist.sounds("p1", BeepSide::Both, &[], &playlist.whole())?;

    let hls = finished(&late, &of_p1, 2, PICTURE)?;
    hls.begins_with_key_frames()?;
    let playlist = probe(&hls, &of_p1)?;
    playlist.is_h264("Main", 640, 360)?;
    playlist.is_audio("aac", "44100", 2)?;
    playlist.shows("p1", &playlist.whole(), &[])?;
    let (on, off, end) = (playlist.at(on), playlist.at(off), playlist.seconds());
    playlist.sounds("p1", BeepSide::Both, &[(on + 1.0, off - 0.2)], &[(0.0, on - 0.2), (off + 1.0, end)])?;
    playlist.in_sync("p1")?;

    let hls = finished(&track, &of_track, 2, SOUND)?;
    let playlist = probe(&hls, &of_track)?;
    playlist.is_audio("aac", "44100", 2)?;
    ensure!(playlist.pictures.is_none(), "a picture in an output of sound");
    playlist.sounds("p0", BeepSide::Both, &playlist.whole(), &[])
}

/// The largest picture of the rows, with no case beside it. How many pictures a second it has is the machine's.
async fn baseline(harness: Arc<E2eHarness>) -> Result<()> {
    let (room, folder) = (harness.room("kinds-1080"), folder(&harness, "1080"));
    let _p0 = person(&harness, &room, "p0", "p0-720.h264").await?;
    let request = json!({
        "room_name": room, "layout": "speaker", "segment_outputs": of_disk(&folder, 2),
        "advanced": {
            "width": 1920, "height": 1080, "video_bitrate": 4500, "video_codec": "H264_BASELINE", "audio_codec": "AAC",
        },
    });
    let info = recorded(&harness, "StartRoomCompositeEgress", request, 5).await?;
    let hls = finished(&folder, &info, 2, PICTURE)?;
    hls.begins_with_key_frames()?;
    let playlist = probe(&hls, &info)?;
    let video = playlist.video()?;
    ensure!(video["profile"].as_str().is_some_and(|profile| profile.ends_with("Baseline")), "{video}");
    ensure!(video["width"] == 1920 && video["height"] == 1080, "{video}");
    playlist.is_audio("aac", "44100", 2)?;
    playlist.shows("p0", &playlist.whole(), &[])?;
    playlist.in_sync("p0").map(drop)
}
