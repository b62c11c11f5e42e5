//! `StartEgress` of the second API with a media source, and egresses that livekit-server starts by itself.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use spillway_tests::analyser::copied::compare;
use spillway_tests::analyser::sound::BeepSide::{Both, Left, Right};
use spillway_tests::assets::clip;
use spillway_tests::egress::Egress;
use spillway_tests::process::eventually;
use spillway_tests::publisher::{Publisher, PublisherOptions, SourceKind};

use crate::harness::{E2eHarness, case};
use crate::publishers::person;
use crate::recording_probe::RecordingProbe;

pub fn cases() -> Vec<Trial> {
    vec![
        case("media::audio_by_routes", routes),
        case("media::passthrough", passthrough),
        case("media::goes_on_without_its_participant", goes_on),
        case("media::auto_egress", auto),
    ]
}

fn start(harness: &E2eHarness, room: &str, name: &str, source: Value, preset: Option<u32>) -> Value {
    let path = harness.file(name).to_string_lossy().into_owned();
    let mut request = json!({ "room_name": room, "media": source, "outputs": [{ "file": { "filepath": path } }] });
    if let Some(preset) = preset {
        // livekit-server 1.13.5 does not know the name of PASSTHROUGH.
        request["preset"] = json!(preset);
    }
    request
}

/// Records for some seconds all of these at once; one probe for each.
async fn recorded(harness: &E2eHarness, requests: Vec<Value>) -> Result<Vec<RecordingProbe>> {
    let mut started = Vec::new();
    for request in requests {
        started.push(Egress::start(harness.api(), "StartEgress", request).await?);
    }
    for egress in &started {
        egress.active().await?;
    }
    tokio::time::sleep(Duration::from_secs(7)).await;
    let mut infos = Vec::new();
    for egress in &started {
        infos.push(egress.complete().await?);
    }
    infos.iter().map(RecordingProbe::open).collect()
}

/// Three people, p1 an agent, heard as livekit/egress' own cases "Media" ask for.
async fn routes(harness: Arc<E2eHarness>) -> Result<()> {
    let room = harness.room("routes");
    let mut people = Vec::new();
    let mut sids = Vec::new();
    for (who, agent) in [("p0", false), ("p1", true), ("p2", false)] {
        let (picture, sound) = (clip(&format!("{who}-360.h264"))?, clip(&format!("{who}.opus"))?);
        let options = PublisherOptions { agent, ..PublisherOptions::default() };
        let publisher = Publisher::join(harness.api(), &room, who, options).await?;
        let video = publisher.publish(&picture, SourceKind::Camera).await?;
        sids.push((video, publisher.publish(&sound, SourceKind::Microphone).await?));
        people.push(publisher);
    }
    let (video, audio) = &sids[0];
    let full = json!({
        "participant_video": { "identity": "p2" },
        "audio": { "routes": [
            { "track_id": audio, "channel": "AUDIO_CHANNEL_LEFT" },
            { "participant_identity": "p1", "channel": "AUDIO_CHANNEL_RIGHT" },
        ] },
    });
    let kinds = json!({ "audio": { "routes": [
        { "participant_kind": "STANDARD", "channel": "AUDIO_CHANNEL_LEFT" },
        { "participant_kind": "AGENT", "channel": "AUDIO_CHANNEL_RIGHT" },
    ] } });
    let all = json!({
        "video_track_id": video,
        "audio": { "capture_all": true, "routes": [
            { "participant_identity": "p1", "channel": "AUDIO_CHANNEL_RIGHT" },
        ] },
    });
    let probes = recorded(
        &harness,
        vec![
            start(&harness, &room, "media_full_{room_name}_{time}", full, None),
            start(&harness, &room, "media_kinds_{time}", kinds, None),
            start(&harness, &room, "media_all_{time}", all, None),
        ],
    )
    .await?;
    let [full, kinds, all] = &probes[..] else { unreachable!("three were asked for") };

    ensure!(full.name().starts_with(&format!("media_full_{room}_")), "named {}", full.name());
    ensure!(full.info["source_type"] == "EGRESS_SOURCE_TYPE_SDK", "{}", full.info["source_type"]);
    ensure!(full.info["egress"]["media"].is_object(), "the request is not told: {}", full.info);
    full.shows("p2", &full.whole(), &[])?;
    full.shows("p0", &[], &full.whole())?;
    full.sounds("p0", Left, &full.whole(), &[])?;
    full.sounds("p1", Right, &full.whole(), &[])?;
    full.sounds("p2", Both, &[], &full.whole())?;

    kinds.is_audio("opus", "48000", 2)?;
    ensure!(kinds.pictures.is_none(), "a picture where none was asked for");
    kinds.sounds("p0", Left, &kinds.whole(), &[])?;
    kinds.sounds("p1", Right, &kinds.whole(), &[])?;
    kinds.sounds("p2", Left, &kinds.whole(), &[])?;

    all.shows("p0", &all.whole(), &[])?;
    all.in_sync("p0")?;
    all.sounds("p0", Both, &all.whole(), &[])?;
    all.sounds("p1", Right, &all.whole(), &[])?;
    all.sounds("p2", Both, &all.whole(), &[])
}

async fn passthrough(harness: Arc<E2eHarness>) -> Result<()> {
    let room = harness.room("passthrough");
    let (_p0, video, audio) = person(&harness, &room, "p0", "p0-360.h264").await?;
    let of_video = json!({ "video_track_id": video });
    let of_audio = json!({ "audio": { "routes": [{ "track_id": audio }] } });
    let requests = vec![
        start(&harness, &room, "pt_{track_id}_{time}.mp4", of_video, Some(8)),
        start(&harness, &room, "pt_{track_source}_{publisher_identity}_{time}", of_audio, Some(8)),
    ];
    let probes = recorded(&harness, requests).await?;
    let [picture, sound] = &probes[..] else { unreachable!("two were asked for") };
    ensure!(picture.name().starts_with(&format!("pt_{video}_")), "named {}", picture.name());
    ensure!(sound.name().starts_with("pt_microphone_p0_"), "named {}", sound.name());
    ensure!(sound.name().ends_with(".ogg"), "named {}", sound.name());
    for (probe, published) in [(picture, "p0-360.h264"), (sound, "p0.opus")] {
        let comparison = compare(&probe.path, &*clip(published)?)?;
        println!("{} {comparison}", probe.name());
        ensure!(comparison.perfect(), "{comparison:?}");
    }
    Ok(())
}

/// A media source ends with the room, not with the participant whose video it shows.
async fn goes_on(harness: Arc<E2eHarness>) -> Result<()> {
    let room = harness.room("goes-on");
    let (p0, ..) = person(&harness, &room, "p0", "p0-360.h264").await?;
    let (_p1, ..) = person(&harness, &room, "p1", "p1-360.h264").await?;
    let source = json!({ "participant_video": { "identity": "p0" }, "audio": { "capture_all": true } });
    let egress =
        Egress::start(harness.api(), "StartEgress", start(&harness, &room, "media_on_{time}.mp4", source, None))
            .await?;
    egress.active().await?;
    tokio::time::sleep(Duration::from_secs(4)).await;
    p0.leave().await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let info = egress.info().await?;
    ensure!(info["status"] == "EGRESS_ACTIVE", "ended with a participant: {info}");
    let probe = RecordingProbe::open(&egress.complete().await?)?;
    probe.shows("p0", &[(0.5, 3.0)], &[])?;
    probe.sounds("p1", Both, &probe.whole(), &[])
}

/// `CreateRoom.egress`: one composite, a participant egress and two track egresses of the one who publishes.
async fn auto(harness: Arc<E2eHarness>) -> Result<()> {
    let room = harness.room("auto");
    let path = |name: &str| harness.file(name).to_string_lossy().into_owned();
    let egress = json!({
        "room": { "layout": "grid", "file_outputs": [{ "filepath": path("auto_room_{time}.mp4") }] },
        "participant": { "file_outputs": [{ "filepath": path("auto_{publisher_identity}_{time}.mp4") }] },
        "tracks": { "filepath": path("auto_{track_id}_{time}") },
    });
    harness.api().rooms("CreateRoom", json!({ "name": room, "departure_timeout": 20, "egress": egress })).await?;
    let (_p0, video, audio) = person(&harness, &room, "p0", "p0-360.h264").await?;
    let items = eventually("four egresses are listed", Duration::from_secs(20), || async {
        let list = harness.api().egress("ListEgress", json!({ "room_name": room })).await?;
        let items = list["items"].as_array().cloned().unwrap_or_default();
        Ok((items.len() == 4).then_some(items))
    })
    .await?;
    let mut started = Vec::new();
    for info in &items {
        started.push(Egress::of(harness.api(), info["egress_id"].as_str().context("an id")?));
    }
    for egress in &started {
        egress.active().await?;
    }
    tokio::time::sleep(Duration::from_secs(6)).await;
    let mut names = Vec::new();
    for egress in &started {
        let probe = RecordingProbe::open(&egress.complete().await?)?;
        if probe.pictures.is_some() {
            probe.shows("p0", &probe.whole(), &[])?;
        }
        if probe.sound.is_some() {
            probe.sounds("p0", Both, &probe.whole(), &[])?;
        }
        names.push(probe.name());
    }
    for wanted in ["auto_room_".to_owned(), "auto_p0_".into(), format!("auto_{video}_"), format!("auto_{audio}_")] {
        ensure!(names.iter().filter(|name| name.starts_with(&wanted)).count() == 1, "{wanted} among {names:?}");
    }
    Ok(())
}
