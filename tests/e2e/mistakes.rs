//! What callers get for their mistakes: one clear error each, soon, and nothing left behind.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use spillway_tests::assets::clip;
use spillway_tests::publisher::{Publisher, PublisherOptions, SourceKind};
use spillway_tests::servers::TestServers;
use spillway_tests::twirp::TwirpError;

use crate::harness::{E2eHarness, alone, block_on, case, waiting, waiting_case};
use crate::publishers::person;
use spillway_tests::egress::Egress;

pub fn cases() -> Vec<Trial> {
    let mut cases = vec![
        case("mistakes::unknown_room", |harness| async move {
            let request =
                json!({ "room_name": "nobody-here", "layout": "grid", "file_outputs": output(&harness, "x.mp4") });
            refused(&harness, "StartRoomCompositeEgress", request, "not_found", "room").await
        }),
        waiting_case("mistakes::unknown_track", |harness| async move { unknown_track(&harness).await }),
        case(
            "mistakes::stop_of_an_ended_egress_is_answered_at_once",
            |harness| async move { stop_twice(&harness).await },
        ),
        waiting_case("mistakes::an_end_to_end_encrypted_room", |harness| async move { encrypted(&harness).await }),
        alone("mistakes::broken_yaml", broken_yaml),
        alone("mistakes::a_server_that_refuses_the_token", || block_on(refused_token())),
        waiting("mistakes::no_way_for_media", || block_on(no_way_for_media())),
        alone("mistakes::full_disk", || block_on(full_disk())),
    ];
    for (name, change, code, needle) in [
        ("bad_preset", json!({ "preset": 99 }), "invalid_argument", "preset"),
        ("no_output", json!({ "file_outputs": [] }), "invalid_argument", "output"),
        ("unknown_layout", json!({ "layout": "nosuch" }), "invalid_argument", "layout"),
        (
            "video_in_ogg",
            json!({ "file_outputs": [{ "filepath": "x.ogg", "file_type": "OGG" }] }),
            "invalid_argument",
            "",
        ),
        (
            "unwritable_path",
            json!({ "file_outputs": [{ "filepath": "/proc/x.mp4", "file_type": "MP4" }] }),
            "",
            "/proc",
        ),
        (
            "credentials_that_read_files",
            json!({ "file_outputs": [{ "filepath": "x.mp4", "file_type": "MP4", "gcp": { "bucket": "b", "credentials":
                "{\"type\":\"external_account\",\"credential_source\":{\"file\":\"/proc/self/fd/0\"}}" } }] }),
            "invalid_argument",
            "gcp credentials",
        ),
        ("audio_and_video_only", json!({ "audio_only": true, "video_only": true }), "invalid_argument", "only"),
        (
            "a_stream_without_a_key",
            json!({ "stream_outputs": [{ "protocol": "RTMP", "urls": ["rtmp://x/y"] }] }),
            "invalid_argument",
            "rtmp urls must be of format",
        ),
        (
            "a_short_passphrase",
            json!({ "stream_outputs": [{ "protocol": "SRT", "urls": ["srt://x:1?passphrase=short"] }] }),
            "invalid_argument",
            "passphrase must have 10 to 79 characters",
        ),
    ] {
        let change = change.clone();
        cases.push(case(&format!("mistakes::{name}"), move |harness| async move {
            let room = harness.room("mistake");
            harness.api().create_room(&room, 20).await?;
            let mut request =
                json!({ "room_name": room, "layout": "grid", "file_outputs": output(&harness, "m_{time}.mp4") });
            for (key, value) in change.as_object().into_iter().flatten() {
                request[key] = value.clone();
            }
            refused(&harness, "StartRoomCompositeEgress", request, code, needle).await
        }));
    }
    cases
}

fn output(harness: &E2eHarness, name: &str) -> Value {
    json!([{ "filepath": harness.file(name).to_string_lossy(), "file_type": "MP4" }])
}

/// The call itself is refused within half a second, with the code and a word that helps.
async fn refused(harness: &E2eHarness, method: &str, request: Value, code: &str, needle: &str) -> Result<()> {
    let error = match harness.api().egress(method, request).await {
        Ok(info) => bail!("accepted: {info}"),
        Err(error) => error.downcast::<TwirpError>().context("not an answer")?,
    };
    println!("{method}: {} {} in {:.0?}", error.code, error.message, error.took);
    ensure!(code.is_empty() || error.code == code, "{error}");
    ensure!(error.message.to_lowercase().contains(needle), "{needle} is not in it: {error}");
    ensure!(error.took < Duration::from_millis(500), "answered after {:?}: {error}", error.took);
    Ok(())
}

async fn unknown_track(harness: &E2eHarness) -> Result<()> {
    let room = harness.room("no-track");
    let (_p0, ..) = person(harness, &room, "p0", "p0-360.h264").await?;
    let path = harness.file("t_none.mp4");
    let request = json!({ "room_name": room, "track_id": "TR_nope", "file": { "filepath": path.to_string_lossy() } });
    // It may be refused at once; else it must fail when no participant published it in time.
    match Egress::start(harness.api(), "StartTrackEgress", request).await {
        Ok(egress) => {
            let info = egress.over(Duration::from_secs(45)).await?;
            ensure!(info["status"] == "EGRESS_FAILED" && info["error_code"] == 404, "{info}");
            ensure!(info["error"].as_str().is_some_and(|error| error.contains("TR_nope")), "{info}");
        }
        Err(error) => {
            let refused = error.downcast::<TwirpError>()?;
            ensure!(refused.code == "not_found" && refused.message.contains("TR_nope"), "{refused}");
        }
    }
    ensure!(!path.exists(), "an empty file is left");
    Ok(())
}

/// A recorder without the key can do nothing there, and says so at once instead of waiting.
async fn encrypted(harness: &E2eHarness) -> Result<()> {
    let room = harness.room("encrypted");
    let options = PublisherOptions { encrypted: true, ..PublisherOptions::default() };
    let p0 = Publisher::join(harness.api(), &room, "p0", options).await?;
    let sound = p0.publish(&clip("p0.opus")?, SourceKind::Microphone).await?;
    let kinds = [
        ("StartRoomCompositeEgress", json!({ "layout": "grid" })),
        ("StartParticipantEgress", json!({ "identity": "p0" })),
    ];
    for (method, mut request) in kinds {
        request["room_name"] = json!(room);
        request["file_outputs"] = output(harness, "encrypted_{time}.mp4");
        let egress = Egress::start(harness.api(), method, request).await?;
        let info = egress.over(Duration::from_secs(10)).await?;
        ensure!(info["status"] == "EGRESS_FAILED" && info["error_code"] == 412, "{method}: {info}");
        let error = info["error"].as_str().unwrap_or_default();
        ensure!(error.contains("end-to-end encrypted") && error.contains(&sound), "{method}: {error}");
    }
    Ok(())
}

async fn stop_twice(harness: &E2eHarness) -> Result<()> {
    let room = harness.room("stop-twice");
    let (_p0, _, audio) = person(harness, &room, "p0", "p0-360.h264").await?;
    let path = harness.file("t_stop_twice.ogg");
    let request = json!({ "room_name": room, "track_id": audio, "file": { "filepath": path.to_string_lossy() } });
    let egress = Egress::start(harness.api(), "StartTrackEgress", request).await?;
    egress.active().await?;
    egress.complete().await?;
    let begun = Instant::now();
    let again = harness.api().egress("StopEgress", json!({ "egress_id": egress.id })).await;
    ensure!(begun.elapsed() < Duration::from_secs(1), "answered after {:?}", begun.elapsed());
    if let Err(error) = again {
        let refused = error.downcast::<TwirpError>()?;
        ensure!(refused.status == 412, "{refused}");
    }
    Ok(())
}

fn broken_yaml() -> Result<()> {
    let servers = block_on(TestServers::start(""))?;
    for (config, needle) in [("redis: { address: [\n", "line"), ("rediss:\n  address: x\n", "redis")] {
        let mut dispatcher = servers.spawn_dispatcher("broken", config)?;
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = dispatcher.over()? {
                break status;
            }
            ensure!(begun.elapsed() < Duration::from_secs(5), "it runs with {config:?}");
            std::thread::sleep(Duration::from_millis(20));
        };
        let said = dispatcher.tail();
        ensure!(!status.success() && said.contains(needle) && !said.contains("panicked"), "{status}: {said}");
    }
    Ok(())
}

async fn refused_token() -> Result<()> {
    let servers = TestServers::start("").await?;
    let config = format!(
        "redis: {{ address: \"{}\" }}\napi_key: {}\napi_secret: not-the-secret-not-the-secret-not-it\nws_url: {}\n",
        servers.redis_address,
        servers.api.key,
        servers.api.ws_url(),
    );
    let _dispatcher = servers.dispatcher_from("wrong-secret", &config).await?;
    servers.api.create_room("locked", 20).await?;
    let request = json!({
        "room_name": "locked", "layout": "grid",
        "file_outputs": [{ "filepath": servers.folder().join("x.mp4").to_string_lossy(), "file_type": "MP4" }],
    });
    let egress = Egress::start(&servers.api, "StartRoomCompositeEgress", request).await?;
    let info = egress.over(Duration::from_secs(20)).await?;
    ensure!(info["status"] == "EGRESS_FAILED", "{info}");
    println!("{} {}", info["error_code"], info["error"]);
    // livekit-server's answer repeats the token it refused; every JWT begins like this.
    ensure!(!info.to_string().contains("eyJ"), "a token is shown to the caller: {info}");
    servers.nothing_runs(Duration::from_secs(5)).await
}

/// A wrong node IP, or ports that are closed: signalling works, media does not.
async fn no_way_for_media() -> Result<()> {
    let servers = TestServers::without_media().await?;
    let _dispatcher = servers.dispatcher("no-media", "").await?;
    servers.api.create_room("no-way", 60).await?;
    let path = servers.folder().join("x.mp4");
    let request = json!({
        "room_name": "no-way", "layout": "grid",
        "file_outputs": [{ "filepath": path.to_string_lossy(), "file_type": "MP4" }],
    });
    let egress = Egress::start(&servers.api, "StartRoomCompositeEgress", request).await?;
    let info = egress.over(Duration::from_secs(45)).await?;
    println!("{} {}", info["error_code"], info["error"]);
    ensure!(info["status"] == "EGRESS_FAILED" && info["error_code"] == 503, "{info}");
    let error = info["error"].as_str().unwrap_or_default();
    ensure!(
        error.contains("no media connection") && error.contains("192.0.2.1:"),
        "what was tried is not told: {info}"
    );
    ensure!(!path.exists(), "an empty file is left");
    servers.nothing_runs(Duration::from_secs(5)).await
}

async fn full_disk() -> Result<()> {
    let servers = TestServers::start("").await?;
    let disk = servers.folder().join("disk");
    std::fs::create_dir_all(&disk)?;
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=600k", "tmpfs"])
        .arg(&disk)
        .status()
        .is_ok_and(|status| status.success());
    if !mounted {
        println!("not run: this user may not mount a tmpfs");
        return Ok(());
    }
    let result = fill(&servers, &disk).await;
    let unmounted = std::process::Command::new("umount").arg("-l").arg(&disk).status().context("umount")?;
    ensure!(unmounted.success(), "the tmpfs stays mounted at {}", disk.display());
    result
}

async fn fill(servers: &TestServers, disk: &std::path::Path) -> Result<()> {
    let _dispatcher = servers.dispatcher("dispatcher", "").await?;
    let clip = spillway_tests::assets::clip("p0-720.h264")?;
    let p0 = spillway_tests::publisher::Publisher::join(&servers.api, "full", "p0", Default::default()).await?;
    let video = p0.publish(&clip, spillway_tests::publisher::SourceKind::Camera).await?;
    let path = disk.join("full.mp4");
    let request = json!({ "room_name": "full", "track_id": video, "file": { "filepath": path.to_string_lossy() } });
    let egress = Egress::start(&servers.api, "StartTrackEgress", request).await?;
    let info = egress.over(Duration::from_secs(30)).await?;
    println!("{} {} {}", info["status"], info["error_code"], info["error"]);
    ensure!(info["status"] != "EGRESS_COMPLETE", "{info}");
    let kept = spillway_tests::analyser::probe(&path)?;
    ensure!(spillway_tests::analyser::duration(&kept) > 0.5, "nothing playable is kept: {kept}");
    servers.nothing_runs(Duration::from_secs(5)).await
}
