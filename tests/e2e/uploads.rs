//! Recordings that end in a store. Each case has servers of its own.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use libtest_mimic::Trial;
use rustix::process::Signal;
use serde_json::{Value, json};
use spillway_tests::analyser::played;
use spillway_tests::browser::watch;
use spillway_tests::egress::{Egress, nanos};
use spillway_tests::every_output::TestRoom;
use spillway_tests::servers::bucket::TestBucket;
use spillway_tests::servers::fault_proxy::FaultProxy;
use spillway_tests::servers::{DispatcherProcess, TestServers};

use crate::harness::{alone, block_on, signal, tidy};

pub fn cases() -> Vec<Trial> {
    vec![
        alone("uploads::s3_of_the_request_gets_every_container", || {
            block_on(async { every_container(TestBucket::s3().await?).await })
        }),
        alone("uploads::azure_of_the_configuration_gets_every_container", || {
            block_on(async { every_container(TestBucket::azure().await?).await })
        }),
        alone("uploads::google_of_the_configuration_gets_every_container", || {
            block_on(async { every_container(TestBucket::google().await?).await })
        }),
        alone("uploads::an_upload_that_others_abort_is_begun_again", || block_on(swept())),
        alone("uploads::kill_of_the_media_process", || {
            block_on(async { killed("spillway-media", TestBucket::s3().await?).await })
        }),
        alone("uploads::kill_of_the_task_with_its_disk_on_s3", || {
            block_on(async { killed("spillway-runner", TestBucket::s3().await?).await })
        }),
        alone("uploads::kill_of_the_task_with_its_disk_on_azure", || {
            block_on(async { killed("spillway-runner", TestBucket::azure().await?).await })
        }),
        alone("uploads::a_wrong_bucket_fails_in_the_first_second", || block_on(wrong_bucket())),
        alone("uploads::credentials_of_s3_are_nowhere_to_be_seen", || {
            block_on(async { secrets(TestBucket::s3().await?).await })
        }),
        alone("uploads::credentials_of_azure_are_nowhere_to_be_seen", || {
            block_on(async { secrets(TestBucket::azure().await?).await })
        }),
        alone("uploads::credentials_of_google_are_nowhere_to_be_seen", || {
            block_on(async { secrets(TestBucket::google().await?).await })
        }),
        alone("uploads::a_zombie_writes_nothing_and_reports_nothing", || {
            block_on(async {
                let buckets = (TestBucket::s3().await?, TestBucket::azure().await?, TestBucket::google().await?);
                tokio::try_join!(zombie(buckets.0), zombie(buckets.1), zombie(buckets.2)).map(|_| ())
            })
        }),
    ]
}

/// What the loss of a whole task may cost in these cases: checkpoint, fragment and 2 s for the request.
const CHECKPOINT: u64 = 2;
const LOST_WITH_THE_TASK: f64 = CHECKPOINT as f64 + 1.0 + 2.0;

struct UploadScenario {
    servers: TestServers,
    dispatcher: DispatcherProcess,
    /// Of the dispatcher's YAML.
    more: String,
    bucket: TestBucket,
    _room: TestRoom,
    egresses: Vec<(Egress, &'static str)>,
    recording_since: Instant,
}

impl UploadScenario {
    /// One recording of each container on its way into `bucket`.
    async fn recording(bucket: TestBucket) -> Result<Self> {
        Self::recording_on(TestServers::start("").await?, bucket, "").await
    }

    /// `more`: of the dispatcher's YAML.
    async fn recording_on(servers: TestServers, bucket: TestBucket, more: &str) -> Result<Self> {
        let spool = servers.folder().join("spool");
        let more = format!(
            "{more}runner: {{ checkpoint: {CHECKPOINT}s, spool_dir: {} }}\n{}",
            spool.display(),
            bucket.configuration()
        );
        let dispatcher = servers.dispatcher("dispatcher", &more).await?;
        let room = TestRoom::open(&servers.api, "stored").await?;
        let output = |name: &str| {
            let mut output = json!({ "filepath": format!("calls/{name}") });
            if let Some((provider, upload)) = bucket.upload() {
                output[provider] = upload;
            }
            output
        };
        let egresses = room.record(&servers.api, output).await?;
        Ok(Self { servers, dispatcher, more, bucket, _room: room, egresses, recording_since: Instant::now() })
    }

    fn spool(&self) -> PathBuf {
        self.servers.folder().join("spool")
    }

    fn signal(&self, name: &str, kind: Signal) -> Result<()> {
        let pids = self.servers.pids(name);
        ensure!(pids.len() == self.egresses.len(), "{} processes called {name}", pids.len());
        pids.into_iter().try_for_each(|pid| signal(pid, kind))
    }

    /// The object of this result, as a file that was looked at: how much of it plays.
    async fn fetched(&self, info: &Value, name: &str) -> Result<f64> {
        let file = &info["file_results"][0];
        let key = format!("calls/{name}");
        ensure!(file["filename"] == key.as_str(), "{file}");
        let location = file["location"].as_str().unwrap_or_default();
        let expected = self.bucket.as_told(&self.bucket.store().await?.location(&key));
        ensure!(location == expected, "{location} is not {expected}");
        let bytes = self.bucket.read(&key).await?.with_context(|| format!("no object {key}: {info}"))?;
        ensure!(nanos(&file["size"]) as usize == bytes.len(), "{key} has {} bytes, said was {file}", bytes.len());
        let path = self.servers.folder().join(name);
        std::fs::write(&path, &bytes).context("write what was fetched")?;
        plays(&path)?;
        let seconds = played(&path)?;
        let said = nanos(&file["duration"]) as f64 / 1e9;
        ensure!((said - seconds).abs() < 1.5, "{key} plays {seconds:.2} s, said was {said:.2} s");
        Ok(seconds)
    }

    /// What was fetched plays there from the beginning and from anywhere else.
    async fn play_in_a_browser(&self) -> Result<()> {
        let files: Vec<PathBuf> = self.egresses.iter().map(|(_, name)| self.servers.folder().join(name)).collect();
        let seen = watch(&files.iter().map(PathBuf::as_path).collect::<Vec<_>>()).await?;
        for (file, watched) in files.iter().zip(seen) {
            watched.is_fine().with_context(|| format!("{} in Chromium", file.display()))?;
        }
        Ok(())
    }
}

/// Every packet decodes.
fn plays(path: &Path) -> Result<()> {
    let out = std::process::Command::new("ffmpeg")
        .args(["-v", "error", "-xerror", "-nostdin", "-i"])
        .arg(path)
        .args(["-f", "null", "-"])
        .output()
        .context("run ffmpeg")?;
    ensure!(out.status.success(), "{}: {}", path.display(), String::from_utf8_lossy(&out.stderr));
    Ok(())
}

async fn every_container(bucket: TestBucket) -> Result<()> {
    let scenario = UploadScenario::recording(bucket).await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    for (egress, name) in &scenario.egresses {
        let (info, took) = egress.stop().await?;
        ensure!(info["status"] == "EGRESS_COMPLETE" && info["backup_storage_used"] == false, "{info}");
        let seconds = scenario.fetched(&info, name).await?;
        println!("{name}: {seconds:.2} s in the store, COMPLETE {took:.2?} after the stop");
        ensure!(seconds > 4.0, "{name} has {seconds:.2} s");
        let manifest = info["manifest_location"].as_str().unwrap_or_default();
        let key = format!("calls/{}.json", egress.id);
        ensure!(manifest == scenario.bucket.store().await?.location(&key), "{manifest}");
        let manifest = scenario.bucket.read(&key).await?.context("no manifest")?;
        let manifest: Value = serde_json::from_slice(&manifest).context("read the manifest")?;
        ensure!(manifest["egress_id"] == egress.id.as_str(), "{manifest}");
    }
    scenario.play_in_a_browser().await?;
    tidy(&scenario.servers, Some(&scenario.bucket)).await
}

/// A life-cycle rule of S3, or MinIO's sweep, in the middle of recordings of every container. Their spools still have all
/// of it: parts of five megabytes are whole only later.
async fn swept() -> Result<()> {
    let mut bucket = TestBucket::s3().await?;
    let way = FaultProxy::start(&bucket.address(), 7).await?;
    bucket.reached_through(&way);
    let scenario = UploadScenario::recording(bucket).await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let swept = way.sweep();
    ensure!(swept >= scenario.egresses.len(), "{swept} uploads were there");
    tokio::time::sleep(Duration::from_secs(6)).await;
    for (egress, name) in &scenario.egresses {
        let (info, _) = egress.stop().await?;
        ensure!(info["status"] == "EGRESS_COMPLETE", "{info}");
        let details = info["details"].as_str().unwrap_or_default();
        ensure!(details.contains("NoSuchUpload") && details.contains("nothing of it is lost"), "{details}");
        let seconds = scenario.fetched(&info, name).await?;
        println!("{name}: {seconds:.2} s in the store; {details}");
        ensure!(seconds > 9.5, "{name} has {seconds:.2} s");
    }
    scenario.play_in_a_browser().await?;
    tidy(&scenario.servers, Some(&scenario.bucket)).await
}

async fn killed(name: &str, bucket: TestBucket) -> Result<()> {
    let whole_task = name == "spillway-runner";
    let scenario = UploadScenario::recording_on(TestServers::start("").await?, bucket, "resume: off\n").await?;
    tokio::time::sleep(Duration::from_secs_f64(rand::random_range(5.0..7.0))).await;
    if whole_task {
        // Its media processes see their pipe close; they must not find time to write on.
        scenario.signal("spillway-media", Signal::STOP)?;
    }
    scenario.signal(name, Signal::KILL)?;
    let (killed, recorded) = (Instant::now(), scenario.recording_since.elapsed().as_secs_f64());
    if whole_task {
        // Those that were not stopped in time are gone already.
        for pid in scenario.servers.pids("spillway-media") {
            let _ = signal(pid, Signal::KILL);
        }
        std::fs::remove_dir_all(scenario.spool()).context("remove the task's disk")?;
    }
    let (limit, most_lost) = if whole_task { (15.0, LOST_WITH_THE_TASK) } else { (2.0, 2.0) };
    let ends = scenario.egresses.iter().map(|(egress, name)| async move {
        let info = egress.over(Duration::from_secs(30)).await?;
        anyhow::Ok((name, info, killed.elapsed().as_secs_f64()))
    });
    for (name, info, took) in try_join_all(ends).await? {
        ensure!(info["status"] == "EGRESS_FAILED", "{info}");
        let seconds = scenario.fetched(&info, name).await?;
        println!("{name}: {seconds:.2} of {recorded:.2} s kept, terminal after {took:.2} s: {}", info["error"]);
        ensure!(recorded - seconds < most_lost, "{name}: {:.2} s lost", recorded - seconds);
        ensure!(took < limit + 2.0, "{name}: terminal after {took:.1} s");
    }
    scenario.play_in_a_browser().await?;
    tidy(&scenario.servers, Some(&scenario.bucket)).await
}

async fn wrong_bucket() -> Result<()> {
    let bucket = TestBucket::s3().await?;
    let servers = TestServers::start("").await?;
    let _dispatcher = servers.dispatcher("dispatcher", "").await?;
    let room = TestRoom::open(&servers.api, "stored").await?;
    let asked = Instant::now();
    let request = room.track_request(|name| {
        let (provider, mut upload) = bucket.upload().unwrap_or_default();
        upload["bucket"] = json!("no-such-bucket");
        json!({ "filepath": name, provider: upload })
    });
    let egress = Egress::start(&servers.api, "StartTrackEgress", request).await?;
    let info = egress.over(Duration::from_secs(10)).await?;
    let took = asked.elapsed();
    println!("{} after {took:.2?}: {}", info["status"], info["error"]);
    let message = info["error"].as_str().unwrap_or_default();
    ensure!(info["status"] == "EGRESS_FAILED" && message.contains("S3 upload failed"), "{info}");
    ensure!(message.contains("NoSuchBucket") || message.contains("bucket does not exist"), "{message}");
    ensure!(took < Duration::from_secs(3), "it took {took:?}");
    servers.nothing_runs_but("spillway-dispatcher", Duration::from_secs(10)).await
}

/// Credentials are looked for wherever anybody could read: they are nowhere.
async fn secrets(bucket: TestBucket) -> Result<()> {
    let mut servers = TestServers::start("").await?;
    servers.set("SPILLWAY_LOG", "trace");
    let mut secrets = bucket.secrets();
    secrets.push(servers.api.secret.clone());
    let found = |bytes: &[u8]| {
        let holds = |secret: &&String| bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
        secrets.iter().position(|secret| holds(&secret)).map(|index| format!("secret {index} of {}", secrets.len()))
    };
    let nothing_in = |what: &str, bytes: &[u8]| match found(bytes) {
        Some(secret) => Err(anyhow::anyhow!("{secret} stands in {what}")),
        None => Ok(()),
    };
    let scenario = UploadScenario::recording_on(servers, bucket, "").await?;
    tokio::time::sleep(Duration::from_secs(4)).await;
    for (pid, command) in scenario.servers.left_behind() {
        for file in ["cmdline", "environ"] {
            let bytes = std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            nothing_in(&format!("{file} of {command}"), &bytes)?;
        }
    }
    nothing_in("Redis", &scenario.servers.redis_dump()?)?;
    for entry in walk(&scenario.spool())? {
        nothing_in(&entry.display().to_string(), &std::fs::read(&entry)?)?;
    }
    for (egress, name) in &scenario.egresses {
        let (info, _) = egress.stop().await?;
        ensure!(info["status"] == "EGRESS_COMPLETE", "{name}: {info}");
        nothing_in("EgressInfo", info.to_string().as_bytes())?;
    }
    // They can be found: the dispatcher was told by its configuration, or by the request.
    let told = std::fs::read(scenario.servers.folder().join("dispatcher.yaml"))?;
    ensure!(found(&told).is_some() || scenario.bucket.upload().is_some(), "nothing was looked for");
    let mut looked = 0;
    for entry in walk(scenario.servers.folder())? {
        if entry.extension().is_some_and(|extension| extension == "log") {
            let livekits_own = entry.file_name().is_some_and(|name| name == "livekit.log");
            let bytes = std::fs::read(&entry)?;
            looked += usize::from(!bytes.is_empty());
            if !livekits_own {
                nothing_in(&entry.display().to_string(), &bytes)?;
            }
        }
    }
    ensure!(looked > 1, "no log was looked at");
    tidy(&scenario.servers, Some(&scenario.bucket)).await
}

/// A task that was only away: another has been sent after it and has completed its upload; then it comes back.
async fn zombie(bucket: TestBucket) -> Result<()> {
    let mut scenario = UploadScenario::recording(bucket).await?;
    tokio::time::sleep(Duration::from_secs(6)).await;
    scenario.signal("spillway-runner", Signal::STOP)?;
    scenario.signal("spillway-media", Signal::STOP)?;
    // To a dispatcher on another machine a task that is stopped and one whose machine is gone look alike.
    scenario.dispatcher.process.kill()?;
    // Silence is all that it knows of them: the platform of another machine says nothing.
    let more = format!("{}heartbeat_timeout: 15s\n", scenario.more);
    let _elsewhere = scenario.servers.dispatcher_elsewhere("elsewhere", &more).await?;
    let mut settled = Vec::new();
    for (egress, name) in &scenario.egresses {
        let info = egress.over(Duration::from_secs(60)).await?;
        ensure!(info["status"] == "EGRESS_FAILED", "{info}");
        let seconds = scenario.fetched(&info, name).await?;
        ensure!(seconds > 6.0 - LOST_WITH_THE_TASK, "{name}: {seconds:.2} s");
        settled.push((info, scenario.bucket.read(&format!("calls/{name}")).await?));
    }
    scenario.signal("spillway-media", Signal::CONT)?;
    scenario.signal("spillway-runner", Signal::CONT)?;
    scenario.servers.nothing_runs_but("spillway-dispatcher", Duration::from_secs(20)).await?;
    for ((egress, name), (info, object)) in scenario.egresses.iter().zip(settled) {
        let after = egress.info().await?;
        ensure!(after == info, "{name}: the zombie reported {after} after {info}");
        let untouched = scenario.bucket.read(&format!("calls/{name}")).await? == object;
        ensure!(untouched, "{name}: the zombie wrote into the object");
    }
    let unfinished = scenario.bucket.unfinished().await?;
    ensure!(unfinished.is_empty(), "unfinished uploads: {unfinished:?}");
    Ok(())
}

fn walk(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    Ok(files)
}
