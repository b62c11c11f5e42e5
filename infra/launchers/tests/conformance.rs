//! The launchers without a cloud pass the suite; `process` with a small program in the runner's place.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in its helpers too")]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rustix::process::{Pid, Signal, kill_process};
use spillway_cost::Platform;
use spillway_launchers::conformance::{self, LauncherSubject};
use spillway_launchers::process::ProcessOptions;
use spillway_launchers::simulated::SimulatedOptions;
use spillway_launchers::{
    LaunchError, LaunchOrder, Launcher, ProcessLauncher, SimulatedLauncher, StopMode, StopOutcome, TaskExit, TaskLog,
    TaskRef, TaskStatus,
};

struct SimulatedSubject(SimulatedLauncher);

#[async_trait]
impl LauncherSubject for SimulatedSubject {
    fn launcher(&self) -> Arc<dyn Launcher> {
        Arc::new(self.0.clone())
    }

    fn restarted(&self) -> Arc<dyn Launcher> {
        Arc::new(self.0.clone())
    }

    async fn strike(&self, task: &TaskRef) {
        assert!(self.0.leave(task, Duration::ZERO, TaskExit::Signalled(9)));
    }
}

#[tokio::test(start_paused = true)]
async fn simulated_conforms() {
    let options = SimulatedOptions {
        latency: Duration::from_millis(800),
        provisioning: Duration::from_secs(3),
        ..SimulatedOptions::default()
    };
    conformance::all(&SimulatedSubject(SimulatedLauncher::new(options))).await;
}

/// Children of a launcher that is asked again after its "restart" are still children of this test, so how they left is
/// read by the first launcher.
struct Children {
    options: ProcessOptions,
    launcher: Arc<ProcessLauncher>,
}

#[async_trait]
impl LauncherSubject for Children {
    fn launcher(&self) -> Arc<dyn Launcher> {
        self.launcher.clone()
    }

    fn restarted(&self) -> Arc<dyn Launcher> {
        Arc::new(ProcessLauncher::new(self.options.clone()))
    }

    async fn strike(&self, task: &TaskRef) {
        let pid = task.id.rsplit('/').nth(1).and_then(|pid| pid.parse().ok()).and_then(Pid::from_raw).unwrap();
        kill_process(pid, Signal::KILL).unwrap();
    }
}

/// Writes what it was given beside its log, then stays until it is told to leave.
const PLAYS_RUNNER: &str = r#"#!/bin/sh
trap 'kill "$nap"; exit 0' TERM
{ env; printf 'stdin:'; cat; echo "session:$(ps -o sid= -p $$ | tr -d ' ')=$$"; } >"$SEEN_DIR/given-$SPILLWAY_EGRESS_ID.part"
mv "$SEEN_DIR/given-$SPILLWAY_EGRESS_ID.part" "$SEEN_DIR/given-$SPILLWAY_EGRESS_ID"
echo "runner of $SPILLWAY_EGRESS_ID speaks" >&2
sleep 60 & nap=$!
wait "$nap"
"#;

fn program(dir: &Path, text: &str) -> PathBuf {
    let path = dir.join("plays-runner");
    std::fs::write(&path, text.replace("$SEEN_DIR", dir.to_str().unwrap())).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn options(dir: &Path) -> ProcessOptions {
    ProcessOptions {
        program: program(dir, PLAYS_RUNNER),
        args: Vec::new(),
        log_dir: Some(dir.join("logs")),
        stack: format!("test-{}", dir.display()),
    }
}

fn order(name: &str) -> LaunchOrder {
    LaunchOrder {
        claim: "claim-1".to_owned(),
        ..conformance::order(Platform::Host, name.strip_prefix("EG_").unwrap(), 1)
    }
}

async fn text_of(path: &Path) -> String {
    let text = async {
        loop {
            match std::fs::read_to_string(path) {
                Ok(text) if !text.is_empty() => return text,
                _ => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), text).await.expect("the file comes")
}

#[tokio::test]
async fn processes_conform() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path());
    let launcher = Arc::new(ProcessLauncher::new(options.clone()));
    conformance::all(&Children { options, launcher }).await;
}

#[tokio::test]
async fn a_child_gets_names_in_the_open_and_secrets_by_pipe() {
    let dir = tempfile::tempdir().unwrap();
    let launcher = ProcessLauncher::new(options(dir.path()));
    let task = launcher.launch(&order("EG_given")).await.unwrap();

    let given = text_of(&dir.path().join("given-EG_given")).await;
    for line in ["SPILLWAY_EGRESS_ID=EG_given", "SPILLWAY_ATTEMPT=1", "SPILLWAY_CLAIM=claim-1"] {
        assert!(given.lines().any(|given| given == line), "{line} in {given}");
    }
    let (environment, stdin) = given.split_once("stdin:").unwrap();
    assert!(stdin.starts_with("{\"ticket_key\":\"canary\"}\n"), "{stdin}");
    assert!(!environment.contains("canary"));
    assert!(!environment.lines().any(|line| line.starts_with("CARGO")), "our environment stays ours: {environment}");
    let (session, pid) = stdin.trim().rsplit_once("session:").unwrap().1.split_once('=').unwrap();
    assert_eq!(session, pid, "a session of its own");

    let log = text_of(&dir.path().join("logs/EG_given-1.log")).await;
    assert_eq!(log, "runner of EG_given speaks\n");
    assert_eq!(launcher.log(&task).await, TaskLog::Tail(log));
    assert_eq!(launcher.end(&task, StopMode::Immediate).await, StopOutcome::Requested);
}

#[tokio::test]
async fn runners_of_another_stack_are_not_ours() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (ours, theirs) = (options(dir.path()), options(other.path()));
    let launcher = ProcessLauncher::new(ours.clone());
    let task = launcher.launch(&order("EG_stack")).await.unwrap();
    for (options, sees) in
        [(ours.clone(), true), (theirs, false), (ProcessOptions { stack: String::new(), ..ours }, false)]
    {
        let listed = ProcessLauncher::new(options).tasks().await.unwrap();
        assert_eq!(listed.iter().any(|owned| owned.task == task), sees, "{listed:?}");
    }
    launcher.end(&task, StopMode::Immediate).await;
}

#[tokio::test]
async fn a_recycled_pid_is_not_ours() {
    let dir = tempfile::tempdir().unwrap();
    let launcher = ProcessLauncher::new(options(dir.path()));
    let task = launcher.launch(&order("EG_recycled")).await.unwrap();
    let (rest, born) = task.id.rsplit_once('/').unwrap();
    let earlier = TaskRef { id: format!("{rest}/{}", born.parse::<u64>().unwrap() - 1), ..task.clone() };
    assert_eq!(launcher.status(&earlier).await, TaskStatus::Gone(TaskExit::Unknown.into()));
    assert_eq!(launcher.end(&earlier, StopMode::Immediate).await, StopOutcome::AlreadyGone);
    assert_eq!(launcher.status(&task).await, TaskStatus::Alive);
    let elsewhere = TaskRef {
        id: format!("another-boot+pid:[1]/{}", rest.rsplit_once('/').unwrap().1) + "/" + born,
        ..task.clone()
    };
    assert!(matches!(launcher.status(&elsewhere).await, TaskStatus::Unknown(_)));
    launcher.end(&task, StopMode::Immediate).await;
}

#[tokio::test]
async fn a_program_that_is_not_there_is_said_before_anything_starts() {
    let dir = tempfile::tempdir().unwrap();
    let options = ProcessOptions { program: dir.path().join("nothing"), ..options(dir.path()) };
    let error = ProcessLauncher::new(options).launch(&order("EG_nothing")).await.unwrap_err();
    assert!(
        matches!(&error, LaunchError::Misconfigured { message, .. } if message.contains("nothing is not an executable")),
        "{error}"
    );
}
