//! The edge rows of the acceptance matrix: comings and goings that other recorders trip over.

use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use spillway_tests::analyser::sound::BeepSide;
use spillway_tests::assets::clip;
use spillway_tests::publisher::{Publisher, PublisherOptions, RtpInPause, SourceKind};

use crate::harness::{E2eHarness, case, waiting_case};
use crate::publishers::person;
use crate::recording_probe::RecordingProbe;
use spillway_tests::egress::{Egress, nanos};

pub fn cases() -> Vec<Trial> {
    vec![
        waiting_case("edges::participant_no_publish", |harness| async move { participant_no_publish(&harness).await }),
        case("edges::room_composite_stays_open", |harness| async move { room_composite_stays_open(&harness).await }),
        case("edges::room_composite_disconnect_duration", |harness| async move { disconnect_duration(&harness).await }),
        case("edges::room_composite_late_track_duration", |harness| async move { late_track_duration(&harness).await }),
        case("edges::track_disconnection", |harness| async move { track_disconnection(&harness).await }),
        case("edges::duplicate_identity", |harness| async move { duplicate_identity(&harness).await }),
        case("edges::audio_mixing", |harness| async move { audio_mixing(&harness).await }),
        case("edges::resolution_change", |harness| async move { resolution_change(&harness).await }),
        case("edges::rtp_that_stands_still", |harness| async move { rtp_that_stands_still(&harness).await }),
        case("edges::upright_camera", |harness| async move { upright_camera(&harness).await }),
        case("edges::first_picture", |harness| async move { first_picture(&harness).await }),
        case("edges::still_camera", |harness| async move { still_camera(&harness).await }),
        case("edges::everything_is_muted", |harness| async move { everything_is_muted(&harness).await }),
        case("edges::update_layout", |harness| async move { update_layout(&harness).await }),
    ]
}

fn output(harness: &E2eHarness, name: &str, kind: &str) -> Value {
    json!([{ "filepath": harness.file(name).to_string_lossy(), "file_type": kind }])
}

async fn seconds(seconds: f64) {
    // Real time is what is tested here: so long a participant is away.
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
}

async fn participant_no_publish(harness: &E2eHarness) -> Result<()> {
    let room = harness.room("no-publish");
    let p0 = Publisher::join(harness.api(), &room, "p0", PublisherOptions::default()).await?;
    let request =
        json!({ "room_name": room, "identity": "p0", "file_outputs": output(harness, "none_{time}.mp4", "MP4") });
    let egress = Egress::start(harness.api(), "StartParticipantEgress", request).await?;
    seconds(4.0).await;
    ensure!(egress.info().await?["status"] == "EGRESS_STARTING", "{}", egress.info().await?);
    p0.leave().await;
    let info = egress.over(Duration::from_secs(15)).await?;
    ensure!(info["status"] == "EGRESS_ABORTED", "{info}");
    Ok(())
}

async fn room_composite_stays_open(harness: &E2eHarness) -> Result<()> {
    let room = harness.room("stays-open");
    harness.api().create_room(&room, 20).await?;
    let (p0, ..) = person(harness, &room, "p0", "p0-360.h264").await?;
    let request =
        json!({ "room_name": room, "layout": "grid", "file_outputs": output(harness, "r_open_{time}.mp4", "MP4") });
    let egress = Egress::start(harness.api(), "StartRoomCompositeEgress", request).await?;
    egress.active().await?;
    seconds(4.0).await;
    let gone = SystemTime::now();
    p0.leave().await;
    seconds(4.0).await;
    ensure!(egress.info().await?["status"] == "EGRESS_ACTIVE", "{}", egress.info().await?);
    let back = SystemTime::now();
    let (_p0, ..) = person(harness, &room, "p0", "p0-360.h264").await?;
    seconds(5.0).await;
    let probe = RecordingProbe::open(&egress.complete().await?)?;
    let (gone, back) = (probe.at(gone), probe.at(back));
    let wanted = [(0.5, gone - 0.2), (back + 2.0, probe.seconds() - 0.7)];
    let forbidden = [(gone + 1.0, back - 0.1)];
    probe.shows("p0", &wanted, &forbidden)?;
    probe.sounds("p0", BeepSide::Both, &wanted, &forbidden)?;
    probe.in_sync("p0")?;
    Ok(())
}

async fn disconnect_duration(harness: &E2eHarness) -> Result<()> {
    let room = harness.room("departure");
    harness.api().create_room(&room, 4).await?;
    let (p0, ..) = person(harness, &room, "p0", "p0-360.h264").await?;
    let request =
        json!({ "room_name": room, "layout": "grid", "file_outputs": output(harness, "r_left_{time}.mp4", "MP4") });
    let egress = Egress::start(harness.api(), "StartRoomCompositeEgress", request).await?;
    egress.active().await?;
    seconds(4.0).await;
    p0.leave().await;
    let info = egress.over(Duration::from_secs(30)).await?;
    ensure!(info["status"] == "EGRESS_COMPLETE", "{info}");
    ensure!(info["details"].as_str().is_some_and(|text| text.contains("Source closed")), "{}", info["details"]);
    let lasted = nanos(&info["file_results"][0]["duration"]) as f64 / 1e9;
    ensure!(lasted >= 4.0 + 4.0 - 2.0, "the file lasts {lasted:.1} s");
    RecordingProbe::open(&info).map(drop)
}

async fn late_track_duration(harness: &E2eHarness) -> Result<()> {
    let room = harness.room("late");
    let sounds = [clip("p0.opus")?, clip("p1.opus")?];
    let p0 = Publisher::join(harness.api(), &room, "p0", PublisherOptions::default()).await?;
    p0.publish(&sounds[0], SourceKind::Microphone).await?;
    let request =
        json!({ "room_name": room, "audio_only": true, "file_outputs": output(harness, "r_late_{time}.ogg", "OGG") });
    let begun = Instant::now();
    let egress = Egress::start(harness.api(), "StartRoomCompositeEgress", request).await?;
    egress.active().await?;
    seconds(5.0).await;
    let joined = SystemTime::now();
    let p1 = Publisher::join(harness.api(), &room, "p1", PublisherOptions::default()).await?;
    p1.publish(&sounds[1], SourceKind::Microphone).await?;
    seconds(4.0).await;
    let info = egress.complete().await?;
    let probe = RecordingProbe::open(&info)?;
    let lasted = nanos(&info["file_results"][0]["duration"]) as f64 / 1e9;
    ensure!(lasted <= begun.elapsed().as_secs_f64() + 3.0, "said to last {lasted:.1} s");
    ensure!(probe.seconds() <= begun.elapsed().as_secs_f64(), "lasts {:.1} s", probe.seconds());
    probe.sounds("p0", BeepSide::Both, &probe.whole(), &[])?;
    let joined = probe.at(joined);
    probe.sounds("p1", BeepSide::Both, &[(joined + 1.5, probe.seconds() - 0.7)], &[(0.0, joined)])
}

async fn track_disconnection(harness: &E2eHarness) -> Result<()> {
    let room = harness.room("dark");
    let (p0, video, audio) = person(harness, &room, "p0", "p0-360.h264").await?;
    let request = json!({
        "room_name": room, "video_track_id": video, "audio_track_id": audio,
        "file_outputs": output(harness, "tc_dark_{time}.mp4", "MP4"),
    });
    let egress = Egress::start(harness.api(), "StartTrackCompositeEgress", request).await?;
    egress.active().await?;
    seconds(4.5).await;
    let off = SystemTime::now();
    p0.blackout(true);
    seconds(7.0).await;
    p0.blackout(false);
    let on = SystemTime::now();
    seconds(6.0).await;
    let probe = RecordingProbe::open(&egress.complete().await?)?;
    let (off, on) = (probe.at(off), probe.at(on));
    // What was sent into the dark may come again by retransmission: only silence right after the loss is not asked for.
    let wanted = [(0.5, off - 0.2), (on + 3.0, probe.seconds() - 0.7)];
    probe.sounds("p0", BeepSide::Both, &wanted, &[])?;
    let flashes = probe.flashes("p0")?;
    let missing = spillway_tests::analyser::sync::presence(spillway_tests::analyser::sync::Marks {
        seen: &flashes,
        wanted: &wanted,
        forbidden: &[],
    });
    ensure!(missing.good(), "{missing}: {flashes:.2?}");
    probe.in_sync("p0")?;
    Ok(())
}

async fn duplicate_identity(harness: &E2eHarness) -> Result<()> {
    let room = harness.room("twin");
    let (_p0, ..) = person(harness, &room, "p0", "p0-360.h264").await?;
    let request =
        json!({ "room_name": room, "layout": "grid", "file_outputs": output(harness, "r_twin_{time}.mp4", "MP4") });
    let egress = Egress::start(harness.api(), "StartRoomCompositeEgress", request).await?;
    egress.active().await?;
    seconds(4.0).await;
    let _stranger = Publisher::join(harness.api(), &room, &egress.id, PublisherOptions::default()).await?;
    let info = egress.over(Duration::from_secs(30)).await?;
    ensure!(info["status"] == "EGRESS_FAILED", "{info}");
    ensure!(info["error"].as_str().is_some_and(|error| error.contains("identity")), "the reason is not told: {info}");
    let probe = RecordingProbe::open(&info)?;
    probe.shows("p0", &[(0.5, 3.0)], &[])
}

async fn audio_mixing(harness: &E2eHarness) -> Result<()> {
    let room = harness.room("mixing");
    let mut people = Vec::new();
    for (who, agent) in [("p0", true), ("p1", false), ("p2", false)] {
        let sound = clip(&format!("{who}.opus"))?;
        let person =
            Publisher::join(harness.api(), &room, who, PublisherOptions { agent, ..PublisherOptions::default() })
                .await?;
        person.publish(&sound, SourceKind::Microphone).await?;
        people.push(person);
    }
    let request = json!({
        "room_name": room, "audio_only": true, "audio_mixing": "DUAL_CHANNEL_AGENT",
        "file_outputs": output(harness, "r_mixing_{time}.ogg", "OGG"),
    });
    let egress = Egress::start(harness.api(), "StartRoomCompositeEgress", request).await?;
    egress.active().await?;
    seconds(6.0).await;
    let probe = RecordingProbe::open(&egress.complete().await?)?;
    probe.sounds("p0", BeepSide::Left, &probe.whole(), &[])?;
    probe.sounds("p1", BeepSide::Right, &probe.whole(), &[])?;
    probe.sounds("p2", BeepSide::Right, &probe.whole(), &[])
}

async fn resolution_change(harness: &E2eHarness) -> Result<()> {
    let room = harness.room("sizes");
    let (p0, video, _) = person(harness, &room, "p0", "p0-720.h264").await?;
    let request = json!({
        "room_name": room, "identity": "p0", "preset": "H264_720P_30",
        "file_outputs": output(harness, "p_sizes_{time}.mp4", "MP4"),
    });
    let egress = Egress::start(harness.api(), "StartParticipantEgress", request).await?;
    egress.active().await?;
    seconds(4.0).await;
    p0.switch(&video, &clip("p0-180.h264")?);
    seconds(3.0).await;
    p0.switch(&video, &clip("p0-720.h264")?);
    seconds(3.0).await;
    let probe = RecordingProbe::open(&egress.complete().await?)?;
    probe.is_h264("Main", 1280, 720)?;
    probe.shows("p0", &probe.whole(), &[])?;
    probe.moves("p0", 29.0)?;
    probe.in_sync("p0")?;
    Ok(())
}

/// A telephone is held upright and then turned: its whole picture is to be seen.
async fn upright_camera(harness: &E2eHarness) -> Result<()> {
    let room = harness.room("upright");
    let (p0, video, _) = person(harness, &room, "p0", "p0-360x640.h264").await?;
    let request =
        json!({ "room_name": room, "layout": "grid", "file_outputs": output(harness, "r_upright_{time}.mp4", "MP4") });
    let egress = Egress::start(harness.api(), "StartRoomCompositeEgress", request).await?;
    egress.active().await?;
    seconds(4.0).await;
    let turned = SystemTime::now();
    p0.switch(&video, &clip("p0-360.h264")?);
    seconds(4.0).await;
    let probe = RecordingProbe::open(&egress.complete().await?)?;
    let turned = probe.at(turned);
    let tile = |from: f64, to: f64| {
        let pictures = probe.pictures.iter().flat_map(|all| all.of(spillway_tests::assets::person("p0")));
        let tiles: Vec<_> =
            pictures.filter(|(at, _)| (from..to).contains(at)).filter_map(|(_, reading)| Some(reading?.tile)).collect();
        let median = |of: fn(&spillway_tests::analyser::picture::TileRect) -> f64| {
            spillway_tests::analyser::median(&tiles.iter().map(of).collect::<Vec<_>>())
        };
        (median(|tile| tile.w), median(|tile| tile.h))
    };
    let (upright, lying) = (tile(0.5, turned), tile(turned + 1.5, probe.seconds()));
    println!("{} upright {upright:.2?}, lying {lying:.2?}", probe.name());
    // 9:16 of the height of a 16:9 picture.
    ensure!((upright.0 - 0.316).abs() < 0.03 && upright.1 > 0.97, "an upright camera takes {upright:.2?}");
    ensure!(lying.0 > 0.97 && lying.1 > 0.97, "a lying camera takes {lying:.2?}");
    Ok(())
}

/// A publisher with a key frame each 3 s that answers no request for one: every file begins with a picture, and with the
/// sound of the same moment.
async fn first_picture(harness: &E2eHarness) -> Result<()> {
    let room = harness.room("first-picture");
    let (_p0, ..) = person(harness, &room, "p0", "p0-360-sparse.h264").await?;
    // Its first packet is a key frame: before the recordings begin it has sent one.
    seconds(3.0).await;
    let small = json!({ "width": 640, "height": 360, "framerate": 30, "video_bitrate": 800 });
    let kinds = [
        ("r", "StartRoomCompositeEgress", json!({ "layout": "grid", "advanced": small })),
        ("p", "StartParticipantEgress", json!({ "identity": "p0" })),
        ("pp", "StartParticipantEgress", json!({ "identity": "p0", "advanced": small })),
    ];
    let mut running = Vec::new();
    for (kind, method, mut request) in kinds {
        request["room_name"] = json!(room);
        request["file_outputs"] = output(harness, &format!("first_{kind}_{{time}}.mp4"), "MP4");
        running.push(Egress::start(harness.api(), method, request).await?);
        // A third of the distance of key frames: at least one of the three waits for longer than a second.
        seconds(1.0).await;
    }
    seconds(9.0).await;
    for egress in running {
        let probe = RecordingProbe::open(&egress.complete().await?)?;
        let first = probe.pictures.as_ref().and_then(|all| all.all.first().cloned());
        let first = first.ok_or_else(|| anyhow::anyhow!("{} has no picture", probe.name()))?;
        let begins = |stream: &Value| stream["start_time"].as_str().and_then(|text| text.parse::<f64>().ok());
        let (picture, sound) = (begins(probe.video()?), begins(probe.audio()?));
        println!("{}: luma {:.0} first, picture from {picture:?}, sound from {sound:?}", probe.name(), first.luma);
        ensure!(first.people[0].is_some(), "{} begins without p0: {first:?}", probe.name());
        for begins in [picture, sound] {
            ensure!(begins.is_some_and(|at| at < 0.1), "{}: a stream begins at {begins:?}", probe.name());
        }
        probe.in_sync("p0")?;
    }
    Ok(())
}

/// A camera stands still for 12 s before the stop, and is neither muted nor gone: every file lasts until the stop, and a
/// composite keeps the last picture, as a web client does.
async fn still_camera(harness: &E2eHarness) -> Result<()> {
    let room = harness.room("still");
    let (p0, video, audio) = person(harness, &room, "p0", "p0-360.h264").await?;
    let small = json!({ "width": 640, "height": 360, "framerate": 30, "video_bitrate": 800 });
    let file = json!({ "filepath": harness.file("still_t_{time}.mp4").to_string_lossy() });
    let tracks = json!({
        "video_track_id": video, "audio_track_id": audio, "file_outputs": output(harness, "still_tc_{time}.mp4", "MP4"),
    });
    let composite = json!({
        "layout": "grid", "advanced": small, "file_outputs": output(harness, "still_r_{time}.mp4", "MP4"),
    });
    let mut running = Vec::new();
    for (method, mut request) in [
        ("StartTrackEgress", json!({ "track_id": video, "file": file })),
        ("StartTrackCompositeEgress", tracks),
        ("StartRoomCompositeEgress", composite),
    ] {
        request["room_name"] = json!(room);
        running.push((method, Egress::start(harness.api(), method, request).await?));
    }
    for (_, egress) in &running {
        egress.active().await?;
    }
    seconds(3.0).await;
    p0.pause(&video, RtpInPause::GoesOn);
    let still = SystemTime::now();
    seconds(12.0).await;
    for (method, egress) in running {
        let stopped = SystemTime::now();
        let probe = RecordingProbe::open(&egress.complete().await?)?;
        let (still, took) = (probe.at(still), probe.at(stopped));
        println!("{} stands still at {still:.2} s and lasts {:.2} s of {took:.2} s", probe.name(), probe.seconds());
        ensure!((probe.seconds() - took).abs() < 0.7, "{} lasts {:.2} s of {took:.2} s", probe.name(), probe.seconds());
        if method == "StartRoomCompositeEgress" {
            let last = probe.pictures.as_ref().and_then(|all| all.all.last().cloned());
            ensure!(last.is_some_and(|last| last.people[0].is_some()), "{} ends without p0", probe.name());
        }
    }
    Ok(())
}

/// Everybody has joined muted: a recording begins 5 s after it has subscribed, and what is heard later is in it.
async fn everything_is_muted(harness: &E2eHarness) -> Result<()> {
    let room = harness.room("all-muted");
    let (p0, video, audio) = person(harness, &room, "p0", "p0-360.h264").await?;
    p0.mute(&video, true);
    p0.mute(&audio, true);
    seconds(2.0).await;
    let small = json!({ "width": 640, "height": 360, "framerate": 30, "video_bitrate": 800 });
    let mut running = Vec::new();
    for (kind, method, mut request) in [
        ("r", "StartRoomCompositeEgress", json!({ "layout": "grid", "advanced": small })),
        ("p", "StartParticipantEgress", json!({ "identity": "p0", "advanced": small })),
        (
            "t",
            "StartTrackCompositeEgress",
            json!({ "video_track_id": video, "audio_track_id": audio, "advanced": small }),
        ),
    ] {
        request["room_name"] = json!(room);
        request["file_outputs"] = output(harness, &format!("muted_{kind}_{{time}}.mp4"), "MP4");
        running.push(Egress::start(harness.api(), method, request).await?);
    }
    for egress in &running {
        let took = egress.active().await?;
        ensure!(took < Duration::from_secs(12), "ACTIVE after {took:.1?}");
    }
    seconds(1.0).await;
    let heard = SystemTime::now();
    p0.mute(&audio, false);
    seconds(5.0).await;
    for egress in running {
        let probe = RecordingProbe::open(&egress.complete().await?)?;
        let from = probe.at(heard);
        probe.sounds("p0", BeepSide::Both, &[(from + 1.0, probe.seconds() - 0.7)], &[(0.0, from - 0.2)])?;
    }
    Ok(())
}

/// A running recording changes its layout: two equal tiles become a large and a small one.
async fn update_layout(harness: &E2eHarness) -> Result<()> {
    let room = harness.room("layout");
    let (_p0, ..) = person(harness, &room, "p0", "p0-360.h264").await?;
    let (_p1, ..) = person(harness, &room, "p1", "p1-360.h264").await?;
    let request =
        json!({ "room_name": room, "layout": "grid", "file_outputs": output(harness, "r_layout_{time}.mp4", "MP4") });
    let egress = Egress::start(harness.api(), "StartRoomCompositeEgress", request).await?;
    egress.active().await?;
    seconds(4.0).await;
    let changed = SystemTime::now();
    harness.api().egress("UpdateLayout", json!({ "egress_id": egress.id, "layout": "speaker" })).await?;
    seconds(4.0).await;
    let probe = RecordingProbe::open(&egress.complete().await?)?;
    let changed = probe.at(changed);
    let pictures = probe.pictures.as_ref().expect("a room composite has pictures");
    let width = |who: &str, from: f64, to: f64| {
        let widths: Vec<f64> = pictures
            .of(spillway_tests::assets::person(who))
            .filter(|(at, _)| (from..to).contains(at))
            .filter_map(|(_, reading)| Some(reading?.tile.w))
            .collect();
        spillway_tests::analyser::median(&widths)
    };
    let before = [width("p0", 0.5, changed), width("p1", 0.5, changed)];
    let after = [width("p0", changed + 1.5, probe.seconds()), width("p1", changed + 1.5, probe.seconds())];
    println!("{} tile widths {before:.2?}, then {after:.2?}", probe.name());
    ensure!((before[0] - before[1]).abs() < 0.02, "a grid of two is not even: {before:.2?}");
    ensure!((after[0] - after[1]).abs() > 0.2, "speaker and audience are alike: {after:.2?}");
    Ok(())
}

/// p0 captures nothing for a while and does not say so; its RTP time stands still. Everything after it is in its place:
/// in a composite, in copies, and picture beside sound.
async fn rtp_that_stands_still(harness: &E2eHarness) -> Result<()> {
    let room = harness.room("still");
    let (p0, video, audio) = person(harness, &room, "p0", "p0-360.h264").await?;
    let (_p1, ..) = person(harness, &room, "p1", "p1-360.h264").await?;
    let requests = [
        (
            "StartRoomCompositeEgress",
            json!({ "room_name": room, "layout": "grid", "file_outputs": output(harness, "r_still_{time}.mp4", "MP4") }),
        ),
        (
            "StartTrackCompositeEgress",
            json!({
                "room_name": room, "video_track_id": video, "audio_track_id": audio,
                "file_outputs": output(harness, "tc_still_{time}.mp4", "MP4"),
            }),
        ),
        (
            "StartTrackEgress",
            json!({
                "room_name": room, "track_id": audio,
                "file": { "filepath": harness.file("t_still_{time}.ogg").to_string_lossy() },
            }),
        ),
    ];
    let mut egresses = Vec::new();
    for (method, request) in requests {
        egresses.push(Egress::start(harness.api(), method, request).await?);
    }
    for egress in &egresses {
        egress.active().await?;
    }
    let mut pauses = Vec::new();
    // Sound as of a microphone that was exchanged, a picture as of a bot, and both.
    for (quiet, length) in [(vec![&audio], 3.0), (vec![&video], 1.0), (vec![&audio, &video], 1.0)] {
        seconds(4.0).await;
        let from = SystemTime::now();
        quiet.iter().for_each(|sid| p0.pause(sid, RtpInPause::StandsStill));
        seconds(length).await;
        quiet.iter().for_each(|sid| p0.resume(sid));
        pauses.push((from, SystemTime::now(), quiet.contains(&&audio), quiet.contains(&&video)));
    }
    seconds(5.0).await;
    let mut infos = Vec::new();
    for egress in &egresses {
        infos.push(egress.complete().await?);
    }
    for info in &infos {
        let probe = RecordingProbe::open(info)?;
        // A picture comes back with its next key frame, at most 1 s later.
        let during = |sound: bool| -> Vec<(f64, f64)> {
            let of = pauses.iter().filter(|(.., heard, seen)| if sound { *heard } else { *seen });
            let back = if sound { 0.0 } else { 1.0 };
            of.map(|(from, to, ..)| (probe.at(*from) - 0.1, probe.at(*to) + back)).collect()
        };
        let beeps: Vec<f64> = probe.beeps("p0")?.iter().map(|beep| beep.at).collect();
        in_place(&probe, "beeps", &beeps, &during(true))?;
        if probe.pictures.is_some() {
            in_place(&probe, "flashes", &probe.flashes("p0")?, &during(false))?;
            probe.in_sync("p0")?;
        }
    }
    Ok(())
}

/// A mark at every whole second since the first one, except in the pauses, and each within 100 ms.
pub fn in_place(probe: &RecordingProbe, what: &str, marks: &[f64], pauses: &[(f64, f64)]) -> Result<()> {
    let first = *marks.first().context("nothing at all")?;
    let last = probe.seconds() - 0.7;
    let wanted: Vec<f64> = (0..)
        .map(|n| first + f64::from(n))
        .take_while(|at| *at < last)
        .filter(|at| !pauses.iter().any(|(from, to)| (*from..*to).contains(at)))
        .collect();
    let near = |at: f64| marks.iter().map(|mark| mark - at).min_by(|a, b| a.abs().total_cmp(&b.abs())).unwrap_or(9.9);
    let off: Vec<f64> = wanted.iter().map(|at| near(*at)).collect();
    let present = off.iter().filter(|off| off.abs() <= 0.1).count();
    let worst = off.iter().fold(0.0f64, |worst, off| worst.max(off.abs()));
    println!("{} {what}: {present} of {} in their place, worst {:.0} ms", probe.name(), wanted.len(), worst * 1000.0);
    ensure!(present == wanted.len(), "{what} of {}: wanted {wanted:.2?}, found {marks:.2?}", probe.name());
    Ok(())
}

/// All beeps stand on the seconds of one clock, and no two of them are further apart than a pause makes them.
pub fn without_what_was_not_said(probe: &RecordingProbe, who: &str, beeps: &[f64]) -> Result<()> {
    let apart: Vec<f64> = beeps.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let pauses: Vec<(f64, f64)> =
        beeps.windows(2).filter(|pair| pair[1] - pair[0] > 1.5).map(|pair| (pair[0] + 0.5, pair[1] - 0.5)).collect();
    in_place(probe, &format!("beeps of {who}"), beeps, &pauses)?;
    let longest = apart.iter().fold(0.0, |longest: f64, apart| longest.max(*apart));
    ensure!(longest < 6.2, "{who} in {} is not heard for {longest:.1} s: {beeps:.2?}", probe.name());
    // Pauses of 0.25 to 5 s leave out at most 10 beeps.
    let missing = apart.iter().map(|apart| (apart.round() as usize).saturating_sub(1)).sum::<usize>();
    ensure!(missing <= 10, "{missing} beeps of {who} are missing in {}: {beeps:.2?}", probe.name());
    Ok(())
}
