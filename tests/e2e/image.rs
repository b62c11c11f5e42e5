//! The runner's image as `cargo images` and `cargo verify` make it, started as a launcher would: an ordinary user, a root
//! that cannot be written, no capability. Every kind of output of every codec is recorded in it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use spillway_tests::analyser::{played, probe, stream};
use spillway_tests::assets::{clip, runner_image};
use spillway_tests::clouds::dockerd::Dockerd;
use spillway_tests::egress::nanos;
use spillway_tests::every_output::TestRoom;
use spillway_tests::process::eventually;
use spillway_tests::publisher::{Publisher, PublisherOptions, SourceKind};
use spillway_tests::servers::TestServers;
use spillway_tests::servers::bucket::TestBucket;
use spillway_tests::twirp::Api;

use crate::harness::{alone, block_on, unless};

pub fn cases() -> Vec<Trial> {
    vec![unless(Dockerd::left_out(), alone("image::every_output_is_recorded_inside", || block_on(every_output())))]
}

const IMAGE: &str = "spillway-runner";
const SECONDS: u64 = 8;
const USER: &str = "10001";

async fn every_output() -> Result<()> {
    let archive = runner_image()?;
    let dockerd = Dockerd::start()?;
    dockerd.load(&archive)?;
    let servers = TestServers::start("").await?;
    let bucket = TestBucket::s3().await?;
    let output = |name: &str| {
        let (provider, upload) = bucket.upload().unwrap_or_default();
        json!({ "filepath": format!("calls/{name}"), provider: upload })
    };
    let room = TestRoom::open(&servers.api, "image").await?;
    run_all(&dockerd, &servers, &bucket, room.requests(output)).await?;
    drop(room);
    let people = People::join(&servers.api).await?;
    run_all(&dockerd, &servers, &bucket, people.requests(output)).await
}

/// What `TestRoom` leaves out: a person for each of the other codecs.
struct People {
    tracks: BTreeMap<&'static str, String>,
    _people: Vec<Publisher>,
}

impl People {
    const ROOM: &'static str = "codecs-of-the-image";

    async fn join(api: &Api) -> Result<Self> {
        let (mut tracks, mut people) = (BTreeMap::new(), Vec::new());
        for (name, picture) in
            [("vp8", "p1-360.vp8.ivf"), ("vp9", "p0-180.vp9.ivf"), ("av1", "p0-180.av1.ivf"), ("h265", "p0-180.h265")]
        {
            let person = Publisher::join(api, Self::ROOM, name, PublisherOptions::default()).await?;
            tracks.insert(name, person.publish(&clip(picture)?, SourceKind::Camera).await?);
            people.push(person);
        }
        for (name, sound) in [("opus", "p0.opus"), ("pcmu", "p0.pcmu"), ("pcma", "p0.pcma")] {
            let person = Publisher::join(api, Self::ROOM, name, PublisherOptions::default()).await?;
            tracks.insert(name, person.publish(&clip(sound)?, SourceKind::Microphone).await?);
            people.push(person);
        }
        Ok(Self { tracks, _people: people })
    }

    fn requests(&self, output: impl Fn(&str) -> Value) -> Vec<(&'static str, &'static str, Value)> {
        let track = |codec: &str, name| {
            let request = json!({ "room_name": Self::ROOM, "track_id": self.tracks[codec], "file": output(name) });
            ("StartTrackEgress", name, request)
        };
        let encoded = |video: &str, audio: &str, name| {
            let (video, audio) = (&self.tracks[video], &self.tracks[audio]);
            let request = json!({ "video_track_id": video, "audio_track_id": audio, "file_outputs": [output(name)] });
            ("StartTrackCompositeEgress", name, request)
        };
        let mut requests = vec![
            track("vp8", "vp8.ivf"),
            track("vp9", "vp9.webm"),
            track("av1", "av1.webm"),
            track("h265", "h265.mp4"),
            track("pcmu", "pcmu.ogg"),
            track("pcma", "pcma.ogg"),
            encoded("vp8", "opus", "vp8-opus.mp4"),
            encoded("vp9", "pcmu", "vp9-pcmu.mp4"),
            encoded("av1", "pcma", "av1-pcma.mp4"),
            encoded("h265", "opus", "h265-opus.mp4"),
        ];
        let person = json!({ "identity": "vp8", "file_outputs": [output("person.mp4")] });
        requests.push(("StartParticipantEgress", "person.mp4", person));
        for (_, _, request) in &mut requests {
            request["room_name"] = json!(Self::ROOM);
        }
        requests
    }
}

async fn run_all(
    dockerd: &Dockerd,
    servers: &TestServers,
    bucket: &TestBucket,
    requests: Vec<(&'static str, &'static str, Value)>,
) -> Result<()> {
    let mut containers = Vec::new();
    for (method, name, request) in requests {
        containers.push(RunnerContainer::run(dockerd, servers, method, name, &request)?);
    }
    for container in &containers {
        container.is_alone(dockerd).await?;
    }
    // The one without an end of its own is told to stop, as `docker stop` does, when the others are over.
    for container in containers.iter_mut().filter(|container| container.bounded) {
        container.over().await?;
    }
    for container in containers.iter_mut().filter(|container| !container.bounded) {
        dockerd.docker().args(["kill", "--signal", "TERM", container.name]).output().context("start docker kill")?;
        container.over().await?;
    }
    for container in &containers {
        let info = container.info()?;
        let expected = if container.bounded { "EGRESS_LIMIT_REACHED" } else { "EGRESS_COMPLETE" };
        ensure!(info["status"] == expected, "{}: {info}", container.name);
        let bytes = bucket.read(&format!("calls/{}", container.name)).await?;
        let path = servers.folder().join(container.name);
        std::fs::write(&path, bytes.with_context(|| format!("nothing stored: {info}"))?).context("write an object")?;
        let seconds = played(&path)?;
        let (began, ended) = (nanos(&info["fileResults"][0]["startedAt"]), nanos(&info["endedAt"]));
        let first = began as f64 / 1e9 - container.started_at;
        // The limit counts from the runner's start: a join on a busy machine takes seconds of it. A COMPLETE ends when all is stored.
        let lasted = (ended - began) as f64 / 1e9;
        println!("{}: {seconds:.2} of {lasted:.2} s play; docker run → first frame {first:.2} s", container.name);
        ensure!((0.0..30.0).contains(&first), "{}: {info}", container.name);
        ensure!(
            seconds > lasted - 1.0 && seconds > SECONDS as f64 / 2.0,
            "{}: {seconds} of {lasted} s",
            container.name
        );
        let probe = probe(&path)?;
        let kinds = (stream(&probe, "video").is_some(), stream(&probe, "audio").is_some());
        let expected = match container.name {
            "room.mp4" => (true, true),
            "track.mp4" | "h265.mp4" => (true, false),
            name if name.ends_with(".ivf") || name.ends_with(".webm") => (true, false),
            name if name.ends_with(".mp4") => (true, true),
            _ => (false, true),
        };
        ensure!(kinds == expected, "{}: {probe}", container.name);
        let written = dockerd.docker().args(["diff", container.name]).output().context("start docker diff")?;
        ensure!(written.stdout.is_empty(), "{}: {}", container.name, String::from_utf8_lossy(&written.stdout));
    }
    Ok(())
}

/// One recording in a container of its own, by `docker run`.
struct RunnerContainer {
    name: &'static str,
    client: Child,
    said: PathBuf,
    log: PathBuf,
    bounded: bool,
    /// Seconds since 1970.
    started_at: f64,
}

impl RunnerContainer {
    fn run(
        dockerd: &Dockerd,
        servers: &TestServers,
        method: &str,
        name: &'static str,
        request: &Value,
    ) -> Result<Self> {
        let kind = match method {
            "StartTrackEgress" => "track",
            "StartTrackCompositeEgress" => "track_composite",
            "StartParticipantEgress" => "participant",
            _ => "room_composite",
        };
        let bounded = name != "track.mp4";
        let (said, log) =
            (servers.folder().join(format!("{name}.json")), servers.folder().join(format!("{name}.container.log")));
        let mut run = dockerd.docker();
        run.args(["run", "--interactive", "--name", name, "--network", "host", "--read-only", "--tmpfs", "/tmp:exec"]);
        run.args(["--cap-drop", "ALL", "--security-opt", "no-new-privileges"]);
        for (variable, value) in [
            ("LIVEKIT_URL", servers.api.ws_url()),
            ("LIVEKIT_API_KEY", servers.api.key.clone()),
            ("LIVEKIT_API_SECRET", servers.api.secret.clone()),
        ] {
            run.args(["--env", variable]).env(variable, value);
        }
        // The bucket is on this machine.
        run.args([IMAGE, "--request", "-", "--allow-host", "127.0.0.1"]);
        if bounded {
            run.args(["--max-duration", &SECONDS.to_string()]);
        }
        run.stdin(Stdio::piped()).stdout(File::create(&said)?).stderr(File::create(&log)?);
        let started_at = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
        let mut client = run.spawn().context("start docker run")?;
        let mut input = client.stdin.take().context("docker run has an input")?;
        input.write_all(json!({ kind: request }).to_string().as_bytes()).context("hand the request over")?;
        Ok(Self { name, client, said, log, bounded, started_at })
    }

    /// Runner and media, both an ordinary user's, and no other process: no init, no zombie.
    async fn is_alone(&self, dockerd: &Dockerd) -> Result<()> {
        let top = || async {
            let out = dockerd.docker().args(["top", self.name, "-o", "pid,uid,args"]).output()?;
            let text = String::from_utf8_lossy(&out.stdout).into_owned();
            // livekit-signaling asks for `lsb_release` while it connects: for a moment a child of the media process looks
            // for a program that the image does not have.
            Ok((text.contains("spillway-media") && text.lines().count() == 3).then_some(text))
        };
        let top = eventually("runner and media process, and no other", Duration::from_secs(30), top)
            .await
            .with_context(|| format!("{}: {}", self.name, self.logged()))?;
        let processes: Vec<Vec<&str>> = top.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
        ensure!(processes.iter().all(|process| process.get(1) == Some(&USER)), "{top}");
        Ok(())
    }

    async fn over(&mut self) -> Result<()> {
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = self.client.try_wait().context("watch docker run")? {
                break status;
            }
            ensure!(begun.elapsed() < Duration::from_secs(60), "{} does not end: {}", self.name, self.logged());
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        ensure!(status.success(), "{}: {status}: {}", self.name, self.logged());
        Ok(())
    }

    fn info(&self) -> Result<Value> {
        let said = std::fs::read_to_string(&self.said).context("read what the runner said")?;
        serde_json::from_str(&said).with_context(|| format!("no EgressInfo: {said}"))
    }

    fn logged(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}
