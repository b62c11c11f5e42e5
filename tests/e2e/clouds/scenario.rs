//! A dispatcher whose only target is one cloud, and a room that is recorded there as a whole and by a track.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use spillway_tests::analyser::played;
use spillway_tests::clouds::metadata::MetadataServer;
use spillway_tests::clouds::provider::{CloudKind, CloudProvider, KEY, PREFIX, StartupDelay};
use spillway_tests::egress::{Egress, nanos};
use spillway_tests::every_output::TestRoom;
use spillway_tests::process::eventually;
use spillway_tests::servers::{DispatcherProcess, TestServers};

use crate::recording_probe::RecordingProbe;

/// A tenant's, before the slash; and nothing that every console would take as it is.
pub const ROOM: &str =
    "ACME Corp./Küche & Söhne <№1> 🎬 हिन्दी: what was said in every Quarterly Review of the Year 2026";
pub const TENANT: &str = "ACME Corp.";
pub const STACK: &str = "prod";
pub const CHECKPOINT: f64 = 2.0;

pub struct CloudScenario {
    pub provider: CloudProvider,
    dispatcher: DispatcherProcess,
    room: TestRoom,
    servers: TestServers,
}

/// One recording on its way, and the one task that makes it.
pub struct CloudRecording {
    pub egress: Egress,
    pub kind: &'static str,
    name: &'static str,
    pub task: String,
}

impl CloudScenario {
    pub async fn start(cloud: CloudKind) -> Result<Self> {
        Self::start_as(cloud, None, "").await
    }

    /// A recording ends with its task.
    pub async fn without_resumption(cloud: CloudKind) -> Result<Self> {
        Self::start_as(cloud, None, "resume: off\n").await
    }

    /// With `identity`, runners are told no credentials, and are who their machine says they are.
    pub async fn start_as(cloud: CloudKind, identity: Option<&MetadataServer>, more: &str) -> Result<Self> {
        let mut servers = TestServers::start("").await?;
        let provider = CloudProvider::start_as(cloud, &mut servers, StartupDelay::AT_ONCE, identity).await?;
        let more = format!(
            "stack: {STACK}\nticket_key: \"{KEY}\"\nrunner: {{ checkpoint: {CHECKPOINT}s }}\n\
             tenants: {{ by: room_prefix }}\n{more}targets: [{}]\n{}",
            provider.target,
            provider.bucket.configuration()
        );
        let dispatcher = servers.dispatcher("dispatcher", &more).await?;
        let room = TestRoom::open(&servers.api, ROOM).await?;
        Ok(Self { provider, dispatcher, room, servers })
    }

    /// The room in one small picture, and its first camera as it comes.
    pub async fn recording(&self) -> Result<Vec<CloudRecording>> {
        let requests = self.room.requests(|name| self.output(&format!("{PREFIX}{name}")));
        let mut started = Vec::new();
        for (method, name, mut request) in requests {
            let kind = match name {
                "room.mp4" => "room_composite",
                "track.mp4" => "track",
                _ => continue,
            };
            if kind == "room_composite" {
                request["advanced"] = json!({ "width": 640, "height": 360, "framerate": 30,
                    "video_codec": "H264_MAIN", "video_bitrate": 1500 });
            }
            started.push((Egress::start(&self.servers.api, method, request).await?, kind, name));
        }
        let mut recordings = Vec::new();
        for (egress, kind, name) in started {
            let took = egress.active().await?;
            println!("{:?} {kind}: ACTIVE after {took:.2?}", self.provider.cloud);
            let tasks = self.provider.tasks_of(&egress.id)?;
            let [task] = &tasks[..] else { bail!("{} tasks for {kind}: {tasks:?}", tasks.len()) };
            recordings.push(CloudRecording { kind, name, task: task.clone(), egress });
        }
        Ok(recordings)
    }

    fn output(&self, key: &str) -> Value {
        let mut output = json!({ "filepath": key });
        if let Some((provider, upload)) = self.provider.bucket.upload() {
            output[provider] = upload;
        }
        output
    }

    /// The first camera, wherever it is wanted.
    pub async fn track_into(&self, key: &str) -> Result<Egress> {
        let request = self.room.track_request(|_| self.output(key));
        Egress::start(&self.servers.api, "StartTrackEgress", request).await
    }

    /// Seconds that an object plays.
    pub async fn plays(&self, key: &str) -> Result<f64> {
        let bytes = self.provider.bucket.read(key).await?.with_context(|| format!("no object {key}"))?;
        let path = self.servers.folder().join(key.replace('/', "-"));
        std::fs::write(&path, &bytes).context("write what was fetched")?;
        played(&path)
    }

    /// The object, decoded.
    pub async fn probe(&self, recording: &CloudRecording, info: &Value) -> Result<RecordingProbe> {
        let key = format!("{PREFIX}{}", recording.name);
        let bytes = self.provider.bucket.read(&key).await?.with_context(|| format!("no object {key}: {info}"))?;
        let file = &info["file_results"][0];
        ensure!(nanos(&file["size"]) as usize == bytes.len(), "{key} has {} bytes, said was {file}", bytes.len());
        let path = self.servers.folder().join(recording.name);
        std::fs::write(&path, &bytes).context("write what was fetched")?;
        RecordingProbe::fetched(info, path)
    }

    /// The ledger's line about the task that recorded, or that saved the recording, from the dispatcher's standard output.
    pub async fn line(&self, egress_id: &str, saved: bool) -> Result<Value> {
        self.line_of(egress_id, if saved { 2 } else { 1 }, saved).await
    }

    /// That of the task of one attempt.
    pub async fn line_of(&self, egress_id: &str, attempt: u32, saved: bool) -> Result<Value> {
        let look = || async {
            let said =
                std::fs::read_to_string(&self.dispatcher.process.log).context("read what the dispatcher said")?;
            let mut lines = said.lines().filter(|line| line.starts_with("{\"egress_id\""));
            Ok(lines.find_map(|line| {
                let line: Value = serde_json::from_str(line).ok()?;
                (line["egress_id"] == egress_id && line["attempt"] == attempt && line["salvage"] == saved)
                    .then_some(line)
            }))
        };
        eventually("the bill is written", Duration::from_secs(45), look).await
    }

    /// The ticket key is in no environment but that of the first moment, and in nothing the console shows.
    pub fn hidden(&self, recordings: &[CloudRecording]) -> Result<()> {
        let holds = |bytes: &[u8]| bytes.windows(KEY.len()).any(|window| window == KEY.as_bytes());
        for recording in recordings {
            let shown = self.provider.shown(&recording.task)?.to_string();
            ensure!(!holds(shown.as_bytes()), "the console shows the ticket key");
        }
        let runners = self.runners();
        for (pid, command) in &runners {
            for file in ["cmdline", "environ"] {
                let bytes = std::fs::read(Path::new("/proc").join(pid.to_string()).join(file)).unwrap_or_default();
                ensure!(!holds(&bytes), "{file} of {command}");
            }
        }
        // A container's are not marked as ours.
        let expected = if self.provider.cloud == CloudKind::Docker { 0 } else { 2 * recordings.len() };
        ensure!(runners.len() == expected, "runners and media were to be looked at: {runners:?}");
        Ok(())
    }

    /// Runners and their media, with their command line.
    pub fn runners(&self) -> Vec<(i32, String)> {
        let ours = |command: &str| command.contains("spillway-runner") || command.contains("spillway-media");
        self.servers.left_behind().into_iter().filter(|(_, command)| ours(command)).collect()
    }

    /// Nothing is left of it anywhere, and nothing was tried that a runner may not do.
    pub async fn leave(mut self) -> Result<()> {
        self.servers.nothing_runs(Duration::from_secs(15)).await?;
        let unfinished = self.provider.bucket.unfinished().await?;
        ensure!(unfinished.is_empty(), "unfinished uploads: {unfinished:?}");
        let (refused, used) = (self.provider.policy_proxy.refused(), self.provider.policy_proxy.used());
        println!("{:?}: runners made use of {used:?}", self.provider.cloud);
        ensure!(refused.is_empty() && !used.is_empty(), "runners asked for {refused:?}");
        self.dispatcher.process.stop(Duration::from_secs(15)).context("stop the dispatcher")?;
        Ok(())
    }
}

pub fn unix_s() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}
