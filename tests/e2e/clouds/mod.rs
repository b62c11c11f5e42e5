//! StartEgress through livekit-server, a dispatcher whose target is a cloud, and that cloud on this machine: it starts the
//! real runner with what the call and the definition give, refuses what Terraform's policies do not allow, and kills it
//! as the vendor would. Clouds are recorded on side by side.

mod scenario;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use libtest_mimic::Trial;
use rustix::process::{Pid, Signal, kill_process};
use spillway_tests::analyser::sound::BeepSide;
use spillway_tests::analyser::{played, stream};
use spillway_tests::clouds::arm;
use spillway_tests::clouds::billing_audit::{self, KnownTask};
use spillway_tests::clouds::metadata::MetadataServer;
use spillway_tests::clouds::provider::CloudKind;
use spillway_tests::egress::nanos;
use spillway_tests::process::eventually;

use self::scenario::{CHECKPOINT, CloudRecording, CloudScenario, ROOM, STACK, TENANT, unix_s};
use crate::harness::{alone, block_on, exclusive, unless};
use crate::recording_probe::RecordingProbe;

pub fn cases() -> Vec<Trial> {
    let case = |name: &str, clouds: &'static [CloudKind], end: EndCause| {
        alone(&format!("clouds::{name}"), move || block_on(side_by_side(clouds, end)))
    };
    // Together where both can be: a recording is real time.
    let by_containers = match CloudKind::Docker.left_out() {
        None => vec![case(
            "aci_and_docker_record_a_room_and_a_track",
            &[CloudKind::Aci, CloudKind::Docker],
            EndCause::Asked,
        )],
        left_out => vec![
            case("aci_records_a_room_and_a_track", &[CloudKind::Aci], EndCause::Asked),
            unless(left_out, case("docker_records_a_room_and_a_track", &[CloudKind::Docker], EndCause::Asked)),
        ],
    };
    let mut cases = vec![
        case("ecs_and_cloud_run_record_a_room_and_a_track", &[CloudKind::Ecs, CloudKind::Run], EndCause::Asked),
        exclusive("clouds::machines_are_taken_away_while_they_record", || {
            block_on(side_by_side(&[CloudKind::Ecs, CloudKind::Run, CloudKind::Aci], EndCause::Taken))
        }),
        alone("clouds::spot_capacity_is_reclaimed_and_another_machine_goes_on", || block_on(went_on(CloudKind::Ecs))),
        unless(
            CloudKind::Docker.left_out(),
            alone("clouds::a_container_is_killed_and_another_goes_on", || block_on(went_on(CloudKind::Docker))),
        ),
        alone("clouds::a_salvage_that_dies_is_followed_by_another", || {
            block_on(async {
                let died = [CloudKind::Ecs, CloudKind::Aci]
                    .map(|cloud| async move { died_saving(cloud).await.with_context(|| format!("{cloud:?}")) });
                try_join_all(died).await.map(|_| ())
            })
        }),
        exclusive("clouds::runners_use_the_identity_of_their_machine", || {
            block_on(async {
                let known = [CloudKind::Ecs, CloudKind::Run, CloudKind::Aci]
                    .map(|cloud| async move { by_role(cloud).await.with_context(|| format!("{cloud:?}")) });
                try_join_all(known).await.map(|_| ())
            })
        }),
        alone("clouds::what_a_runner_may_not_write_is_refused_and_named", || {
            block_on(async {
                let denied = [CloudKind::Ecs, CloudKind::Aci]
                    .map(|cloud| async move { denied(cloud).await.with_context(|| format!("{cloud:?}")) });
                try_join_all(denied).await.map(|_| ())
            })
        }),
    ];
    cases.extend(by_containers);
    cases
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EndCause {
    /// By its caller.
    Asked,
    /// The vendor takes the machine away, with the grace it gives.
    Taken,
}

const SECONDS: Duration = Duration::from_secs(8);
/// Of a machine's own keys and tokens; the libraries ask anew when they are nearly over, and stores refuse what is over.
const GIVEN_FOR: Duration = Duration::from_secs(10);
/// What a machine that is killed may cost: the time since the last checkpoint, a fragment, and the request on its way.
const LOST_WITH_THE_TASK: f64 = CHECKPOINT + 5.0;
/// What a machine that is told to leave may: what was on its way to the muxer.
const LOST_WHEN_TOLD: f64 = 1.5;

async fn side_by_side(clouds: &[CloudKind], end: EndCause) -> Result<()> {
    let one = |cloud: CloudKind| async move {
        let recorded = recorded(cloud, end).await;
        recorded.with_context(|| format!("{cloud:?}"))
    };
    try_join_all(clouds.iter().copied().map(one)).await.map(|_| ())
}

async fn recorded(cloud: CloudKind, end: EndCause) -> Result<()> {
    let scenario = match end {
        EndCause::Asked => CloudScenario::start(cloud).await?,
        EndCause::Taken => CloudScenario::without_resumption(cloud).await?,
    };
    let recordings = scenario.recording().await?;
    scenario.hidden(&recordings)?;
    // The recording itself is real time.
    tokio::time::sleep(SECONDS).await;
    let ended_at = unix_s();
    if end == EndCause::Taken {
        for recording in &recordings {
            scenario.provider.take(&recording.task).await?;
        }
        if cloud == CloudKind::Aci {
            // As a kill of a container is: no process in it lives on for a moment.
            scenario.runners().iter().for_each(kill);
        }
    }
    let finals = recordings.iter().map(|recording| async move {
        match end {
            EndCause::Asked => recording.egress.complete().await,
            EndCause::Taken => recording.egress.over(Duration::from_secs(60)).await,
        }
    });
    let infos = try_join_all(finals).await?;
    for (recording, info) in recordings.iter().zip(&infos) {
        let probe = scenario.probe(recording, info).await?;
        looks_whole(&probe, recording.kind)?;
        let kept = played(&probe.path)?;
        let begun = nanos(&info["file_results"][0]["started_at"]) as f64 / 1e9;
        let lost = ended_at - (begun + kept);
        let shown = scenario.provider.shown(&recording.task)?;
        labelled(cloud, recording, &scenario.provider.labels(&shown))?;
        println!(
            "{cloud:?} {end:?} {}: {} {}; {kept:.2} s play, {lost:.2} s lost",
            recording.kind, info["status"], info["error"]
        );
        let bound = if end == EndCause::Taken && cloud == CloudKind::Aci { LOST_WITH_THE_TASK } else { LOST_WHEN_TOLD };
        ensure!(lost < bound, "{}: {lost:.2} s lost", recording.kind);
        // A runner that was killed has not said how it ended; one that was told to leave has.
        let killed = end == EndCause::Taken && cloud == CloudKind::Aci;
        let status = match end {
            EndCause::Asked => "EGRESS_COMPLETE",
            EndCause::Taken if killed => "EGRESS_FAILED",
            EndCause::Taken => "EGRESS_ABORTED",
        };
        ensure!(info["status"] == status, "{}: {info}", recording.kind);
        let line = scenario.line(&recording.egress.id, false).await?;
        // The window is closed by now.
        let shown = scenario.provider.shown(&recording.task)?;
        let bytes = std::fs::metadata(&probe.path).context("measure the object")?.len();
        let known = KnownTask {
            cloud,
            room: ROOM,
            tenant: TENANT,
            kind: recording.kind,
            info,
            stored: (!killed).then_some((bytes, kept)),
            billed: scenario.provider.billed(&shown)?,
        };
        let amount = billing_audit::audit(&line, &known).with_context(|| format!("{}: {line}", recording.kind))?;
        println!("{cloud:?} {}: {} s billed, {amount:.6} dollars", recording.kind, line["seconds"]);
        if killed {
            // What was saved stands where it is known.
            let saved = scenario.line(&recording.egress.id, true).await?;
            let (got, seconds) = (saved["bytes"].as_u64(), saved["recorded_s"].as_f64().unwrap_or_default());
            ensure!(got == Some(bytes) && (seconds - kept).abs() < 4.0, "{bytes} bytes, {kept} s: {saved}");
            ensure!(saved["amount"].as_f64().is_some_and(|amount| amount > 0.0), "{saved}");
        }
    }
    scenario.leave().await
}

fn kill((pid, _): &(i32, String)) {
    if let Some(pid) = Pid::from_raw(*pid) {
        // It may be gone meanwhile.
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// The machine is taken while it records, and another one goes on.
async fn went_on(cloud: CloudKind) -> Result<()> {
    let scenario = CloudScenario::start(cloud).await?;
    let recordings = scenario.recording().await?;
    tokio::time::sleep(SECONDS).await;
    for recording in &recordings {
        scenario.provider.take(&recording.task).await?;
    }
    for recording in &recordings {
        let another = || async {
            let tasks = scenario.provider.tasks_of(&recording.egress.id)?.len();
            Ok((tasks == 2).then_some(()))
        };
        eventually("another task goes on", Duration::from_secs(30), another).await?;
    }
    tokio::time::sleep(SECONDS * 2).await;
    for recording in &recordings {
        let info = recording.egress.complete().await?;
        let files = info["file_results"].as_array().context("no files")?;
        let details = info["details"].as_str().unwrap_or_default();
        ensure!(files.len() == 2 && details.contains("the recording goes on after a gap of"), "{info}");
        let gap = (nanos(&files[1]["started_at"]) - nanos(&files[0]["ended_at"])) as f64 / 1e9;
        let mut seconds = vec![];
        for file in files {
            seconds.push(scenario.plays(file["filename"].as_str().unwrap_or_default()).await?);
        }
        println!("{cloud:?} {}: {seconds:.2?} s play, a gap of {gap:.2} s: {details}", recording.kind);
        ensure!(gap > 0.0 && seconds[0] > 3.0 && seconds[1] > 3.0, "{info}");
        for attempt in [1, 2] {
            let line = scenario.line_of(&recording.egress.id, attempt, false).await?;
            ensure!(line["amount"].is_number(), "{line}");
        }
    }
    scenario.leave().await
}

/// The machines are gone with their disks, and those that were to complete the uploads follow them as soon as they run.
async fn died_saving(cloud: CloudKind) -> Result<()> {
    let scenario = CloudScenario::without_resumption(cloud).await?;
    let recordings = scenario.recording().await?;
    tokio::time::sleep(SECONDS).await;
    let ended_at = unix_s();
    let known = scenario.runners();
    known.iter().for_each(kill);
    let mut saving = BTreeSet::new();
    let all_died = || {
        for runner in scenario.runners().into_iter().filter(|runner| !known.contains(runner)) {
            kill(&runner);
            saving.insert(runner.0);
        }
        saving.len() >= recordings.len()
    };
    poll(all_died, Duration::from_secs(30)).await.context("no runner came to save them")?;
    for recording in &recordings {
        let info = recording.egress.over(Duration::from_secs(60)).await?;
        let tasks = scenario.provider.tasks_of(&recording.egress.id)?.len();
        let probe = scenario.probe(recording, &info).await?;
        let begun = nanos(&info["file_results"][0]["started_at"]) as f64 / 1e9;
        let lost = ended_at - (begun + played(&probe.path)?);
        println!("{cloud:?} {}: {tasks} tasks, {lost:.2} s lost, {}", recording.kind, info["error"]);
        ensure!(tasks >= 3, "no runner died while saving");
        ensure!(lost < LOST_WITH_THE_TASK, "{}: {lost:.2} s lost", recording.kind);
        let error = info["error"].as_str().unwrap_or_default();
        ensure!(error.starts_with("the runner died") && !error.contains("could not be completed"), "{info}");
    }
    scenario.leave().await
}

async fn poll(mut holds: impl FnMut() -> bool, limit: Duration) -> Result<()> {
    let begun = std::time::Instant::now();
    while !holds() {
        ensure!(begun.elapsed() < limit, "not after {limit:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(())
}

/// No key anywhere, as Terraform sets it up; what the machine is given holds for a moment, and is asked for anew.
async fn by_role(cloud: CloudKind) -> Result<()> {
    let metadata = MetadataServer::start_user_assigned(GIVEN_FOR, arm::CLIENT_ID).await?;
    let scenario = CloudScenario::start_as(cloud, Some(&metadata), "").await?;
    let recordings = scenario.recording().await?;
    // Before the clip begins anew: its first beep is a faint one.
    tokio::time::sleep(GIVEN_FOR + SECONDS / 4).await;
    for recording in &recordings {
        let info = recording.egress.complete().await?;
        looks_whole(&scenario.probe(recording, &info).await?, recording.kind)?;
    }
    let given = metadata.issued.count();
    println!("{cloud:?}: {given} times a process was told who it is");
    ensure!(given >= 2 * recordings.len(), "{given} times");
    scenario.leave().await
}

/// Beside the prefix that Terraform gives to runners.
async fn denied(cloud: CloudKind) -> Result<()> {
    let scenario = CloudScenario::start(cloud).await?;
    let egress = scenario.track_into("elsewhere/track.mp4").await?;
    let info = egress.over(Duration::from_secs(60)).await?;
    let error = info["error"].as_str().unwrap_or_default();
    println!("{cloud:?}: {error}");
    let refused = scenario.provider.policy_proxy.refused();
    ensure!(!refused.is_empty() && refused.iter().all(|it| it.contains("/elsewhere/")), "refused were {refused:?}");
    ensure!(info["status"] == "EGRESS_FAILED" && error.contains("/elsewhere/"), "{info}");
    let code = if cloud == CloudKind::Aci { "AuthorizationPermissionMismatch" } else { "AccessDenied" };
    ensure!(error.contains(code) || error.contains("not authorized"), "{error}");
    Ok(())
}

fn looks_whole(probe: &RecordingProbe, kind: &str) -> Result<()> {
    ensure!(stream(&probe.probed, "video").is_some(), "no picture: {}", probe.probed);
    probe.shows("p0", &probe.whole(), &[])?;
    if kind == "room_composite" {
        let video = probe.video()?;
        ensure!(video["width"] == 640 && video["height"] == 360, "{video}");
        probe.shows("p1", &probe.whole(), &[])?;
        probe.sounds("p0", BeepSide::Both, &probe.whole(), &[])?;
        probe.in_sync("p0")?;
    }
    Ok(())
}

/// What each console makes of names that no console takes.
fn labelled(cloud: CloudKind, recording: &CloudRecording, labels: &BTreeMap<String, String>) -> Result<()> {
    let (room, tenant) = match cloud {
        // No signs but a few, no vowel signs.
        CloudKind::Ecs => {
            ("ACME Corp./Küche _ Söhne __1_ _ ह_न_द_: what was said in every Quarterly Review of the Year 2026", TENANT)
        }
        // Small, and sixty-three characters.
        CloudKind::Run => ("acme_corp__k_che___s_hne___1____________what_was_said_in_every_", "acme_corp_"),
        CloudKind::Aci | CloudKind::Docker => (ROOM, TENANT),
    };
    let expected = [
        ("egress_id", recording.egress.id.as_str()),
        ("room", room),
        ("type", recording.kind),
        ("tenant", tenant),
        ("stack", STACK),
        ("attempt", "1"),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let found: BTreeMap<_, _> =
        labels.iter().filter(|(name, _)| expected.iter().any(|(wanted, _)| wanted == *name)).collect();
    let expected = BTreeMap::from(expected);
    let expected: BTreeMap<_, _> = expected.iter().collect();
    ensure!(found == expected, "{} is labelled {labels:?}, not {expected:?}", recording.kind);
    Ok(())
}
