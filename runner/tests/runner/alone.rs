use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::{scripted_media, until};

pub struct RunnerProcess {
    pub folder: Arc<tempfile::TempDir>,
    pub child: Child,
}

/// What it said in the end.
pub struct RunResult {
    pub info: Value,
    pub code: Option<i32>,
    pub log: String,
}

/// Below the folder `out`.
fn start(script: &str, filepath: &str, arguments: &[&str]) -> RunnerProcess {
    let arguments: Vec<&str> = ["--local-root", "out"].iter().chain(arguments).copied().collect();
    start_in(Arc::new(tempfile::tempdir().unwrap()), "EG_1", script, json!({ "filepath": filepath }), &arguments)
}

pub fn start_in(
    folder: Arc<tempfile::TempDir>,
    id: &str,
    script: &str,
    file: Value,
    arguments: &[&str],
) -> RunnerProcess {
    let request = folder.path().join(format!("{id}.request.json"));
    let body = json!({"track": {"room_name": script, "track_id": "TR_1", "file": file}, "egress_id": id});
    std::fs::write(&request, body.to_string()).unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_spillway-runner"))
        .arg("--request")
        .arg(&request)
        .args(["--ws-url", "ws://127.0.0.1:1"])
        .args(arguments)
        .env("LIVEKIT_API_KEY", "devkey")
        .env("LIVEKIT_API_SECRET", "canary-secret-canary-secret-canary")
        .env("SPILLWAY_MEDIA", scripted_media())
        .current_dir(folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    RunnerProcess { folder, child }
}

impl RunnerProcess {
    pub fn out(&self) -> PathBuf {
        self.folder.path().join("out")
    }

    pub fn signal(&self, pid: u32, signal: Signal) {
        kill_process(Pid::from_raw(pid as i32).unwrap(), signal).unwrap();
    }

    /// The media process, once it exists.
    fn media(&self) -> u32 {
        let children = format!("/proc/{0}/task/{0}/children", self.child.id());
        until("a media process", || {
            // Threads of the runner start it too: look at all of them.
            let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).ok()?;
            let lists = tasks.flatten().map(|task| task.path().join("children")).chain([PathBuf::from(&children)]);
            lists.flat_map(std::fs::read_to_string).find_map(|pids| pids.split_whitespace().next()?.parse().ok())
        })
    }

    pub fn recorded(&self, file: &Path) {
        until("bytes in the file", || std::fs::metadata(file).ok().filter(|metadata| metadata.len() > 500));
    }

    pub fn finished(self) -> (RunResult, Arc<tempfile::TempDir>) {
        let Output { status, stdout, stderr } = self.child.wait_with_output().unwrap();
        let log = String::from_utf8_lossy(&stderr).into_owned();
        let info = serde_json::from_slice(&stdout).unwrap_or_else(|error| panic!("{error}: {log}"));
        assert!(!log.contains("canary"), "{log}");
        (RunResult { info, code: status.code(), log }, self.folder)
    }
}

fn ns(value: &Value) -> i64 {
    value.as_str().unwrap_or_default().parse().unwrap_or_default()
}

#[test]
fn a_recording_ends_at_its_limit_and_everything_about_it_is_told() {
    let run = start("record", "a/{publisher_identity}-{track_id}.ogg", &["--max-duration", "1"]);
    let file = run.out().join("a/ann-TR_1.ogg");
    let (finished, _folder) = run.finished();
    assert_eq!(finished.info["status"], "EGRESS_LIMIT_REACHED", "{}", finished.log);
    assert_eq!(finished.code, Some(0));
    assert_eq!(finished.info["error"], "Session limit reached");
    let result = &finished.info["fileResults"][0];
    assert_eq!(result["filename"], "a/ann-TR_1.ogg");
    assert_eq!(result["location"], file.display().to_string());
    assert_eq!(ns(&result["size"]) as u64, std::fs::metadata(&file).unwrap().len());
    assert!((500_000_000..1_500_000_000).contains(&ns(&result["duration"])), "{result}");
    assert_eq!(finished.info["file"], *result, "the deprecated single result");
    let manifest = std::fs::read_to_string(file.with_file_name("EG_1.json")).unwrap();
    let manifest: Value = serde_json::from_str(&manifest).unwrap();
    assert_eq!(manifest["files"][0]["location"], result["location"]);
    assert_eq!(manifest["publisher_identity"], "ann");
    assert!(manifest["quality"]["media_ms"].as_u64().unwrap() > 500);
    assert!(finished.log.contains("egress_id=EG_1"), "{}", finished.log);
}

#[test]
fn sigterm_finishes_the_file() {
    let run = start("record-nonsense", "a.ogg", &[]);
    run.recorded(&run.out().join("a.ogg"));
    run.signal(run.child.id(), Signal::TERM);
    let (finished, _folder) = run.finished();
    assert_eq!(finished.info["status"], "EGRESS_COMPLETE", "{}", finished.log);
    assert_eq!(finished.info["details"], "End reason: Process killed");
    assert_eq!(finished.code, Some(0));
}

#[test]
fn a_killed_media_process_is_told_at_once_and_its_file_stays() {
    for (signal, message) in [
        (Signal::KILL, "media process was killed by signal 9 (SIGKILL)"),
        (Signal::ILL, "media process was killed by signal 4 (SIGILL)"),
    ] {
        let run = start("record", "a.ogg", &["--media-restarts", "0"]);
        let file = run.out().join("a.ogg");
        run.recorded(&file);
        run.signal(run.media(), signal);
        let killed = Instant::now();
        let (finished, _folder) = run.finished();
        assert!(killed.elapsed() < Duration::from_secs(1), "{:?}", killed.elapsed());
        assert_eq!(finished.info["status"], "EGRESS_FAILED");
        assert_eq!(finished.info["error"], message);
        assert_eq!(finished.info["errorCode"], 500);
        assert_eq!(finished.code, Some(1));
        let result = &finished.info["fileResults"][0];
        assert_eq!(ns(&result["size"]) as u64, std::fs::metadata(&file).unwrap().len());
        assert!(ns(&result["duration"]) > 10_000_000, "{result}");
        assert!(!file.with_file_name("EG_1.json").exists(), "no manifest of a failure");
    }
}

#[test]
fn a_crash_and_a_nonzero_exit_have_a_message() {
    for (script, message) in [
        ("record-die", "media process was killed by signal 6 (SIGABRT)"),
        ("record-exit3", "media process ended with exit code 3"),
    ] {
        let (finished, _folder) = start(script, "a.ogg", &[]).finished();
        assert_eq!(finished.info["error"], message);
        assert_eq!(finished.info["status"], "EGRESS_FAILED");
        assert_eq!(finished.log.matches("another one goes on").count(), 3, "{}", finished.log);
    }
}

#[test]
fn a_killed_media_process_is_replaced_and_the_recording_is_complete() {
    let run = start("record", "a.ogg", &[]);
    let (first, second) = (run.out().join("a.ogg"), run.out().join("a-2.ogg"));
    run.recorded(&first);
    // A player finds nothing in less than a second of some containers.
    std::thread::sleep(Duration::from_millis(1200));
    let media = run.media();
    run.signal(media, Signal::KILL);
    let killed = Instant::now();
    run.recorded(&second);
    assert!(killed.elapsed() < Duration::from_secs(2), "{:?}", killed.elapsed());
    assert_ne!(run.media(), media);
    run.signal(run.child.id(), Signal::TERM);
    let (finished, _folder) = run.finished();
    assert_eq!(
        (finished.info["status"].as_str(), finished.code),
        (Some("EGRESS_COMPLETE"), Some(0)),
        "{}",
        finished.log
    );
    let details = finished.info["details"].as_str().unwrap();
    let gap = "media process was killed by signal 9 (SIGKILL); the recording goes on after a gap of 0.";
    assert!(details.contains(gap), "{details}");
    let results = &finished.info["fileResults"];
    for (index, file) in [&first, &second].into_iter().enumerate() {
        assert_eq!(results[index]["location"], file.display().to_string());
        assert_eq!(ns(&results[index]["size"]) as u64, std::fs::metadata(file).unwrap().len());
    }
    assert!(ns(&results[0]["endedAt"]) < ns(&results[1]["startedAt"]), "{results}");
    let manifest = std::fs::read_to_string(first.with_file_name("EG_1.json")).unwrap();
    let manifest: Value = serde_json::from_str(&manifest).unwrap();
    assert_eq!((manifest["quality"]["gaps"].as_u64(), manifest["files"].as_array().unwrap().len()), (Some(1), 2));
    assert!(manifest["quality"]["degraded"][0].as_str().unwrap().contains("after a gap"), "{manifest}");
}

#[test]
fn a_stop_before_the_first_media_leaves_nothing_behind() {
    for script in ["wait", "wait-deaf"] {
        let run = start(script, "a.ogg", &[]);
        run.media();
        let pid = run.media();
        run.signal(run.child.id(), Signal::TERM);
        let out = run.out();
        let (finished, _folder) = run.finished();
        assert_eq!(finished.info["status"], "EGRESS_ABORTED", "{}", finished.log);
        assert_eq!((finished.info["errorCode"].as_i64(), finished.code), (Some(412), Some(1)));
        assert!(!out.join("a.ogg").exists());
        assert!(!Path::new(&format!("/proc/{pid}")).exists(), "no orphan");
    }
}

#[test]
fn without_a_publisher_it_ends_at_the_start_timeout() {
    let (finished, _folder) = start("wait", "a.ogg", &["--start-timeout", "1"]).finished();
    assert_eq!(finished.info["status"], "EGRESS_ABORTED");
    assert!(finished.info["details"].as_str().unwrap().contains("waiting for the first track"), "{}", finished.info);
}

#[test]
fn ends_are_told_as_they_are() {
    for (script, status, code, error) in [
        ("record-full", "EGRESS_FAILED", 429, "no space left on the disk"),
        ("refused", "EGRESS_FAILED", 401, "server refuses the token"),
        ("record-evicted", "EGRESS_FAILED", 409, "another participant joined"),
        ("record-closed", "EGRESS_COMPLETE", 0, ""),
    ] {
        let (finished, _folder) = start(script, "a.ogg", &[]).finished();
        assert_eq!(finished.info["status"], status, "{script}");
        assert_eq!(finished.info["errorCode"].as_i64().unwrap_or_default(), code, "{script}");
        assert!(finished.info["error"].as_str().unwrap_or_default().contains(error), "{}", finished.info);
        let recorded = script.starts_with("record");
        assert_eq!(ns(&finished.info["fileResults"][0]["size"]) > 0, recorded, "{}", finished.info);
    }
}

#[test]
fn a_degraded_recording_is_complete_and_says_so() {
    let (finished, _folder) = start("record-closed-degraded", "a.ogg", &[]).finished();
    assert_eq!(finished.info["status"], "EGRESS_COMPLETE");
    let details = finished.info["details"].as_str().unwrap();
    assert!(details.starts_with("End reason: Source closed") && details.contains("frozen for 3.0 s"), "{details}");
}

#[test]
fn a_place_that_cannot_be_written_is_one_clear_error() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let run = start_in(folder, "EG_1", "record", json!({ "filepath": "/proc/nowhere/a.ogg" }), &[]);
    let (finished, _folder) = run.finished();
    assert_eq!(finished.info["status"], "EGRESS_FAILED");
    assert_eq!(finished.info["errorCode"], 400);
    assert!(
        finished.info["error"].as_str().unwrap().starts_with("cannot create the folder /proc/nowhere"),
        "{}",
        finished.info
    );
}

#[test]
fn an_older_recording_of_that_name_survives_an_aborted_one() {
    let run = start("wait", "a.ogg", &[]);
    std::fs::create_dir_all(run.out()).unwrap();
    std::fs::write(run.out().join("a.ogg"), "older").unwrap();
    run.media();
    run.signal(run.child.id(), Signal::TERM);
    let out = run.out();
    let (finished, _folder) = run.finished();
    assert_eq!(finished.info["status"], "EGRESS_ABORTED");
    assert_eq!(std::fs::read(out.join("a.ogg")).unwrap(), b"older");
}

#[test]
fn the_media_process_gets_no_secret_and_dies_first_of_hunger() {
    let (finished, _folder) = start("record-closed-environment", "a.ogg", &[]).finished();
    let details = finished.info["details"].as_str().unwrap();
    assert!(details.contains("environment") && details.contains("PATH"), "{details}");
    assert!(!details.contains("LIVEKIT") && !details.contains("SPILLWAY_MEDIA"), "{details}");
    assert!(details.contains("oom 800;"), "{details}");
}

#[test]
fn a_killed_runner_leaves_no_media_process() {
    let mut run = start("record", "a.ogg", &[]);
    run.recorded(&run.out().join("a.ogg"));
    let media = run.media();
    run.signal(run.child.id(), Signal::KILL);
    run.child.wait().unwrap();
    until("the media process leaves", || {
        let stat = std::fs::read_to_string(format!("/proc/{media}/stat"));
        stat.map_or(true, |stat| stat.contains(") Z ")).then_some(())
    });
}

#[test]
fn a_wrong_request_is_refused_with_its_reason() {
    let folder = tempfile::tempdir().unwrap();
    for (request, message) in [
        (r#"{"trak": {}}"#, "\"trak\" is not known"),
        (r#"{"track": {"room_name": "r", "file": {"filepath": "a"}}}"#, "track_id"),
        ("{]", "neither JSON nor YAML"),
        (r#"{"web": {"url": "http://x"}}"#, "missing or invalid field: output"),
    ] {
        let file = folder.path().join("r.json");
        std::fs::write(&file, request).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_spillway-runner"))
            .arg("--request")
            .arg(&file)
            .args(["--ws-url", "ws://127.0.0.1:1", "--api-key", "k"])
            .env("LIVEKIT_API_SECRET", "s".repeat(32))
            .env("SPILLWAY_MEDIA", scripted_media())
            .output()
            .unwrap();
        let log = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{log}");
        assert!(log.contains(message) && !log.contains("panicked"), "{log}");
    }
}
