//! The docker launcher against a daemon of its own. Where no container can be run the case is skipped and says why; that
//! takes a harness of its own (libtest-mimic), because the standard one knows no case that is skipped at run time.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in its helpers too")]

#[allow(dead_code, reason = "the clouds' launchers use more of it")]
#[path = "../launchers/faults.rs"]
mod faults;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use libtest_mimic::{Arguments, Trial};
use spillway_cost::{Platform, Shape};
use spillway_launchers::conformance::{self, LauncherSubject, alive, exit_report, order};
use spillway_launchers::docker::{DockerLauncher, DockerOptions};
use spillway_launchers::{LaunchError, LaunchOrder, Launcher, StopMode, TaskExit, TaskRef};
use spillway_tests::clouds::docker_proxy::DockerProxy;
use spillway_tests::clouds::dockerd::Dockerd;
use spillway_tests::clouds::fault::CloudFault;
use spillway_tests::process::eventually;

use faults::FaultyLauncher;

/// Says what it was given, then stays until it is told to leave.
const PLAYS_RUNNER: &str = r#"#!/bin/sh
trap 'kill "$nap"; exit 0' TERM
read -r line
echo "stdin:$line"
/usr/bin/env
echo x >/written 2>/dev/null && echo "root is writable"
/usr/bin/sleep 300 & nap=$!
wait "$nap"
"#;

/// Takes more memory than any container here has.
const EATS_MEMORY: &str = r#"#!/bin/sh
text=xxxxxxxxxxxxxxxx
while :; do text="$text$text"; done
"#;

struct OnDocker {
    docker_proxy: DockerProxy,
    dockerd: Dockerd,
    options: DockerOptions,
    launcher: Arc<DockerLauncher>,
}

impl OnDocker {
    fn start() -> Self {
        let dockerd = Dockerd::start().unwrap();
        let programs = ["/bin/sh", "/usr/bin/env", "/usr/bin/sleep"];
        dockerd.image("plays-runner", &programs, &[("/runner", PLAYS_RUNNER)], "/runner").unwrap();
        let docker_proxy = DockerProxy::start(&dockerd.socket()).unwrap();
        let options = DockerOptions {
            stack: "test stack".to_owned(),
            socket: docker_proxy.socket.to_str().unwrap().to_owned(),
            image: "plays-runner".to_owned(),
            network: Some("host".to_owned()),
            environment: BTreeMap::from([("SPILLWAY_LOG_FORMAT".to_owned(), "json".to_owned())]),
            ..DockerOptions::default()
        };
        let launcher = Arc::new(DockerLauncher::new(options.clone()));
        Self { docker_proxy, dockerd, options, launcher }
    }

    fn said(&self, arguments: &[&str]) -> String {
        let out = self.dockerd.docker().args(arguments).output().unwrap();
        String::from_utf8_lossy(&out.stdout).into_owned()
    }
}

#[async_trait]
impl LauncherSubject for OnDocker {
    fn launcher(&self) -> Arc<dyn Launcher> {
        self.launcher.clone()
    }

    fn restarted(&self) -> Arc<dyn Launcher> {
        Arc::new(DockerLauncher::new(self.options.clone()))
    }

    async fn strike(&self, task: &TaskRef) {
        self.said(&["kill", "--signal", "KILL", task.id.rsplit('/').next().unwrap()]);
    }
}

impl FaultyLauncher for OnDocker {
    fn script_launches(&self, faults: &[Option<CloudFault>]) {
        self.docker_proxy.faults().script("create", faults.iter().copied());
    }

    fn script_status_calls(&self, faults: &[Option<CloudFault>]) {
        self.docker_proxy.faults().script("inspect", faults.iter().copied());
    }

    fn task_count(&self, egress_id: &str) -> usize {
        self.said(&["ps", "-aq", "--filter", &format!("label=egress_id={egress_id}")]).lines().count()
    }

    fn error_kind(&self, fault: CloudFault) -> Option<&'static str> {
        match fault {
            CloudFault::Broken | CloudFault::Lost => Some("passing"),
            // Of a name that no container has.
            CloudFault::Busy => Some("passing"),
            // A machine of one's own throttles no call.
            _ => None,
        }
    }
}

fn main() {
    let arguments = Arguments::from_args();
    let left_out = Dockerd::left_out();
    let case = Trial::test("docker_conforms_and_keeps_its_promises", || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(conforms_and_keeps_its_promises());
        Ok(())
    });
    let conclusion = libtest_mimic::run(&arguments, vec![case.with_ignored_flag(left_out.is_some())]);
    if let Some(reason) = left_out.filter(|_| !arguments.list && conclusion.num_ignored > 0) {
        println!("skipped docker_conforms_and_keeps_its_promises: {reason}");
    }
    conclusion.exit();
}

/// One daemon for all: it takes seconds to start.
async fn conforms_and_keeps_its_promises() {
    let subject = OnDocker::start();
    faults::in_time(conformance::all(&subject)).await;
    faults::in_time(faults::all(&subject)).await;
    secrets_go_by_standard_input(&subject).await;
    a_start_that_was_not_heard_of_has_its_orders(&subject).await;
    more_cores_than_there_are_is_all_of_them(&subject).await;
    a_container_that_was_only_made_is_replaced(&subject).await;
    memory_images_and_programs_are_named(&subject).await;
}

async fn secrets_go_by_standard_input(subject: &OnDocker) {
    let task = subject.launcher.launch(&order(Platform::Host, "given", 2)).await.unwrap();
    let container = task.id.rsplit('/').next().unwrap().to_owned();
    let look = || async {
        let said = subject.said(&["logs", &container]);
        Ok(said.contains("SPILLWAY_CLAIM").then_some(said))
    };
    let said = eventually("the container says what it was given", Duration::from_secs(20), look).await.unwrap();
    for line in [r#"stdin:{"ticket_key":"canary"}"#, "SPILLWAY_ATTEMPT=2", "SPILLWAY_LOG_FORMAT=json"] {
        assert!(said.lines().any(|given| given == line), "{line} in {said}");
    }
    assert!(!said.contains("root is writable"), "{said}");
    let shown = subject.said(&["inspect", &container]);
    assert!(shown.contains("SPILLWAY_CLAIM") && !shown.contains("canary"), "{shown}");
    subject.launcher.end(&task, StopMode::Immediate).await;
    exit_report(&*subject.launcher, &task).await;
}

/// It runs, whatever the daemon said or did not say: then it waits for what is written to it.
async fn a_start_that_was_not_heard_of_has_its_orders(subject: &OnDocker) {
    for fault in
        [CloudFault::BrokenAfter, CloudFault::LostAfter, CloudFault::Late, CloudFault::Broken, CloudFault::Lost]
    {
        let name = format!("start-{fault:?}");
        subject.docker_proxy.faults().script("start", [Some(fault)]);
        let (task, said) = faults::launch_with_retries(&*subject.launcher, &name).await;
        assert_eq!(said.concat(), if fault.before() { "passing" } else { "" }, "{name}");
        alive(&*subject.launcher, &task).await;
        has_its_orders(subject, &task).await;
        subject.launcher.end(&task, StopMode::Immediate).await;
        exit_report(&*subject.launcher, &task).await;
    }
}

async fn more_cores_than_there_are_is_all_of_them(subject: &OnDocker) {
    let larger = LaunchOrder {
        shape: Shape { cpu_milli: 1_000_000, memory_mib: 256, disk_gib: 0 },
        ..order(Platform::Host, "cores", 1)
    };
    let task = subject.launcher.launch(&larger).await.unwrap();
    alive(&*subject.launcher, &task).await;
    let container = task.id.rsplit('/').next().unwrap();
    let given = subject.said(&["inspect", "--format", "{{.HostConfig.NanoCpus}}", container]);
    let cores = subject.said(&["info", "--format", "{{.NCPU}}"]);
    assert_eq!(given.trim(), format!("{}000000000", cores.trim()));
    subject.launcher.end(&task, StopMode::Immediate).await;
    exit_report(&*subject.launcher, &task).await;
}

/// As a dispatcher leaves it that dies between the two steps: its standard input may be closed for ever.
async fn a_container_that_was_only_made_is_replaced(subject: &OnDocker) {
    let made = subject.said(&["create", "-i", "--name", "spillway-EG_made-1", "plays-runner"]);
    let task = subject.launcher.launch(&order(Platform::Host, "made", 1)).await.unwrap();
    assert!(!task.id.ends_with(made.trim()), "{task} {made}");
    assert_eq!(subject.said(&["ps", "-aq", "--filter", "name=spillway-EG_made-1"]).lines().count(), 1);
    alive(&*subject.launcher, &task).await;
    has_its_orders(subject, &task).await;
    subject.launcher.end(&task, StopMode::Immediate).await;
}

async fn has_its_orders(subject: &OnDocker, task: &TaskRef) {
    let container = task.id.rsplit('/').next().unwrap();
    let look = || async {
        let said = subject.said(&["logs", container]);
        Ok(said.contains("SPILLWAY_CLAIM").then_some(said))
    };
    let said = eventually("the container says what it was given", Duration::from_secs(20), look).await.unwrap();
    assert!(said.contains(r#"stdin:{"ticket_key":"canary"}"#), "{task}: {said}");
}

async fn memory_images_and_programs_are_named(subject: &OnDocker) {
    let with = |image: &str| DockerLauncher::new(DockerOptions { image: image.to_owned(), ..subject.options.clone() });
    let nowhere = with("registry.invalid/nothing:1");
    let error = nowhere.launch(&order(Platform::Host, "nowhere", 1)).await.unwrap_err();
    assert!(
        matches!(&error, LaunchError::Misconfigured { message, .. } if message.contains("could not be pulled")),
        "{error:?}"
    );

    subject.dockerd.image("eater", &["/bin/sh"], &[("/eater", EATS_MEMORY)], "/eater").unwrap();
    let small = LaunchOrder {
        shape: Shape { cpu_milli: 500, memory_mib: 32, disk_gib: 0 },
        ..order(Platform::Host, "memory", 1)
    };
    let eater = with("eater");
    let task = eater.launch(&small).await.unwrap();
    assert_eq!(exit_report(&eater, &task).await.how, TaskExit::OutOfMemory { limit_mib: Some(32) });
}
