//! What callers get for their mistakes: one clear error each, soon, and nothing left behind.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use spillway_tests::servers::Ground;
use spillway_tests::twirp::Refused;

use crate::stage::{Stage, alone, block_on, case};
use crate::studio::person;
use spillway_tests::egress::Egress;

pub fn cases() -> Vec<Trial> {
    let mut cases = vec![
        case("mistakes::unknown_room", |stage| async move {
            let request =
                json!({ "room_name": "nobody-here", "layout": "grid", "file_outputs": output(&stage, "x.mp4") });
            refused(&stage, "StartRoomCompositeEgress", request, "not_found", "room").await
        }),
        case("mistakes::unknown_track", |stage| async move { unknown_track(&stage).await }),
        case("mistakes::stop_of_an_ended_egress_is_answered_at_once", |stage| async move { stop_twice(&stage).await }),
        alone("mistakes::broken_yaml", broken_yaml),
        alone("mistakes::a_server_that_refuses_the_token", || block_on(refused_token())),
        alone("mistakes::full_disk", || block_on(full_disk())),
    ];
    for (name, change, code, word) in [
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
            "a_stream_is_for_later",
            json!({ "stream_outputs": [{ "protocol": "RTMP", "urls": ["rtmp://x/y"] }] }),
            "unimplemented",
            "",
        ),
    ] {
        let change = change.clone();
        cases.push(case(&format!("mistakes::{name}"), move |stage| async move {
            let room = stage.room("mistake");
            stage.api().create_room(&room, 20).await?;
            let mut request =
                json!({ "room_name": room, "layout": "grid", "file_outputs": output(&stage, "m_{time}.mp4") });
            for (key, value) in change.as_object().into_iter().flatten() {
                request[key] = value.clone();
            }
            refused(&stage, "StartRoomCompositeEgress", request, code, word).await
        }));
    }
    cases
}

fn output(stage: &Stage, name: &str) -> Value {
    json!([{ "filepath": stage.file(name).to_string_lossy(), "file_type": "MP4" }])
}

/// The call itself is refused within half a second, with the code and a word that helps.
async fn refused(stage: &Stage, method: &str, request: Value, code: &str, word: &str) -> Result<()> {
    let error = match stage.api().egress(method, request).await {
        Ok(info) => bail!("accepted: {info}"),
        Err(error) => error.downcast::<Refused>().context("not an answer")?,
    };
    println!("{method}: {} {} in {:.0?}", error.code, error.message, error.took);
    ensure!(code.is_empty() || error.code == code, "{error}");
    ensure!(error.message.to_lowercase().contains(word), "no word of {word}: {error}");
    ensure!(error.took < Duration::from_millis(500), "answered after {:?}: {error}", error.took);
    Ok(())
}

async fn unknown_track(stage: &Stage) -> Result<()> {
    let room = stage.room("no-track");
    let (_p0, ..) = person(stage, &room, "p0", "p0-360.h264").await?;
    let path = stage.file("t_none.mp4");
    let request = json!({ "room_name": room, "track_id": "TR_nope", "file": { "filepath": path.to_string_lossy() } });
    // It may be refused at once; else it must fail when nobody published it in time.
    match Egress::start(stage.api(), "StartTrackEgress", request).await {
        Ok(egress) => {
            let info = egress.over(Duration::from_secs(45)).await?;
            ensure!(info["status"] == "EGRESS_FAILED" && info["error_code"] == 404, "{info}");
            ensure!(info["error"].as_str().is_some_and(|error| error.contains("TR_nope")), "{info}");
        }
        Err(error) => {
            let refused = error.downcast::<Refused>()?;
            ensure!(refused.code == "not_found" && refused.message.contains("TR_nope"), "{refused}");
        }
    }
    ensure!(!path.exists(), "an empty file is left");
    Ok(())
}

async fn stop_twice(stage: &Stage) -> Result<()> {
    let room = stage.room("stop-twice");
    let (_p0, _, audio) = person(stage, &room, "p0", "p0-360.h264").await?;
    let path = stage.file("t_stop_twice.ogg");
    let request = json!({ "room_name": room, "track_id": audio, "file": { "filepath": path.to_string_lossy() } });
    let egress = Egress::start(stage.api(), "StartTrackEgress", request).await?;
    egress.active().await?;
    egress.complete().await?;
    let begun = Instant::now();
    let again = stage.api().egress("StopEgress", json!({ "egress_id": egress.id })).await;
    ensure!(begun.elapsed() < Duration::from_secs(1), "answered after {:?}", begun.elapsed());
    if let Err(error) = again {
        let refused = error.downcast::<Refused>()?;
        ensure!(refused.status == 412, "{refused}");
    }
    Ok(())
}

fn broken_yaml() -> Result<()> {
    let ground = block_on(Ground::start(""))?;
    for (config, word) in [("redis: { address: [\n", "line"), ("rediss:\n  address: x\n", "redis")] {
        let mut dispatcher = ground.spawn_dispatcher("broken", config)?;
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = dispatcher.over()? {
                break status;
            }
            ensure!(begun.elapsed() < Duration::from_secs(5), "it runs with {config:?}");
            std::thread::sleep(Duration::from_millis(20));
        };
        let said = dispatcher.tail();
        ensure!(!status.success() && said.contains(word) && !said.contains("panicked"), "{status}: {said}");
    }
    Ok(())
}

async fn refused_token() -> Result<()> {
    let ground = Ground::start("").await?;
    let config = format!(
        "redis: {{ address: \"{}\" }}\napi_key: {}\napi_secret: not-the-secret-not-the-secret-not-it\nws_url: {}\n",
        ground.redis_address,
        ground.api.key,
        ground.api.ws_url(),
    );
    let _dispatcher = ground.dispatcher_from("wrong-secret", &config).await?;
    ground.api.create_room("locked", 20).await?;
    let request = json!({
        "room_name": "locked", "layout": "grid",
        "file_outputs": [{ "filepath": ground.folder().join("x.mp4").to_string_lossy(), "file_type": "MP4" }],
    });
    let egress = Egress::start(&ground.api, "StartRoomCompositeEgress", request).await?;
    let info = egress.over(Duration::from_secs(20)).await?;
    ensure!(info["status"] == "EGRESS_FAILED", "{info}");
    println!("{} {}", info["error_code"], info["error"]);
    // livekit-server's answer repeats the token it refused; every JWT begins like this.
    ensure!(!info.to_string().contains("eyJ"), "a token is shown to the caller: {info}");
    ground.nothing_runs(Duration::from_secs(5)).await
}

async fn full_disk() -> Result<()> {
    let ground = Ground::start("").await?;
    let disk = ground.folder().join("disk");
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
    let result = fill(&ground, &disk).await;
    let unmounted = std::process::Command::new("umount").arg("-l").arg(&disk).status().context("umount")?;
    ensure!(unmounted.success(), "the tmpfs stays mounted at {}", disk.display());
    result
}

async fn fill(ground: &Ground, disk: &std::path::Path) -> Result<()> {
    let _dispatcher = ground.dispatcher("dispatcher", "").await?;
    let clip = spillway_tests::assets::clip("p0-720.h264")?;
    let p0 = spillway_tests::publisher::Publisher::join(&ground.api, "full", "p0", Default::default()).await?;
    let video = p0.publish(&clip, spillway_tests::publisher::From::Camera).await?;
    let path = disk.join("full.mp4");
    let request = json!({ "room_name": "full", "track_id": video, "file": { "filepath": path.to_string_lossy() } });
    let egress = Egress::start(&ground.api, "StartTrackEgress", request).await?;
    let info = egress.over(Duration::from_secs(30)).await?;
    println!("{} {} {}", info["status"], info["error_code"], info["error"]);
    ensure!(info["status"] != "EGRESS_COMPLETE", "{info}");
    let kept = spillway_tests::analyser::probe(&path)?;
    ensure!(spillway_tests::analyser::duration(&kept) > 0.5, "nothing playable is kept: {kept}");
    ground.nothing_runs(Duration::from_secs(5)).await
}
