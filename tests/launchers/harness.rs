//! A program that plays runner, the places it is started in, and what tests do to those.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use spillway_launchers::conformance::LauncherSubject;
use spillway_launchers::{Launcher, TaskRef};
use spillway_tests::clouds::fault::CloudFault;
use spillway_tests::clouds::{CloudApi, CloudSetup, FakeCloud, Vendor};
use spillway_tests::process::eventually;

use crate::faults::FaultyLauncher;

/// One launcher, the same for a dispatcher that was started again, and their platform.
pub struct LauncherUnderTest<C, L> {
    pub cloud: FakeCloud<C>,
    pub launcher: Arc<L>,
    pub again: Arc<L>,
    _swept: Swept,
}

impl<C, L> LauncherUnderTest<C, L> {
    pub fn new(mark: String, cloud: FakeCloud<C>, [launcher, again]: [L; 2]) -> Self {
        Self { cloud, launcher: Arc::new(launcher), again: Arc::new(again), _swept: Swept(mark) }
    }
}

#[async_trait]
impl<C: Send + Sync, L: Launcher> LauncherSubject for LauncherUnderTest<C, L>
where
    FakeCloud<C>: Vendor,
{
    fn launcher(&self) -> Arc<dyn Launcher> {
        self.launcher.clone()
    }

    fn restarted(&self) -> Arc<dyn Launcher> {
        self.again.clone()
    }

    async fn strike(&self, task: &TaskRef) {
        self.cloud.strike(&task.id);
    }
}

impl<C: CloudApi, L: Launcher> FaultyLauncher for LauncherUnderTest<C, L>
where
    FakeCloud<C>: Vendor,
{
    fn script_launches(&self, faults: &[Option<CloudFault>]) {
        self.cloud.faults().script(FakeCloud::<C>::LAUNCH, faults.iter().copied());
    }

    fn script_status_calls(&self, faults: &[Option<CloudFault>]) {
        self.cloud.faults().script(FakeCloud::<C>::STATUS, faults.iter().copied());
    }

    fn task_count(&self, egress_id: &str) -> usize {
        self.cloud.task_count(egress_id)
    }

    fn error_kind(&self, fault: CloudFault) -> Option<&'static str> {
        FakeCloud::<C>::error_kind(fault)
    }
}

/// Writes what it was given beside its log, then stays until it is told to leave.
const PLAYS_RUNNER: &str = r#"#!/bin/sh
trap 'kill "$nap"; exit 0' TERM
env >"part-$$"
mv "part-$$" "given-$SPILLWAY_EGRESS_ID-$SPILLWAY_ATTEMPT-$$"
sleep 300 & nap=$!
wait "$nap"
"#;

/// A platform on which a program that plays runner lies in the image.
pub fn setup(folder: &Path) -> CloudSetup {
    CloudSetup {
        environment: [("SPILLWAY_TICKET_KEY".to_owned(), "from-the-secret-store".to_owned())].into(),
        mark: format!("launchers-{}", folder.display()),
        grace: Duration::from_secs(2),
        ..CloudSetup::new(program(folder), folder.to_owned())
    }
}

/// What it knows of a task comes late.
pub fn eventually_consistent(folder: &Path) -> CloudSetup {
    CloudSetup { unseen: Duration::from_millis(400), ..setup(folder) }
}

fn program(folder: &Path) -> PathBuf {
    let path = folder.join("plays-runner");
    std::fs::write(&path, PLAYS_RUNNER).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// What the one runner of an egress was given, once it is up.
pub async fn given(folder: &Path, egress_id: &str) -> String {
    let begin = format!("given-{egress_id}-");
    let look = || async {
        let entries = std::fs::read_dir(folder)?.flatten();
        let mut ours = entries.filter(|entry| entry.file_name().to_str().is_some_and(|name| name.starts_with(&begin)));
        Ok(ours.next().map(|entry| std::fs::read_to_string(entry.path())).transpose()?)
    };
    eventually("a runner that says what it was given", Duration::from_secs(20), look).await.unwrap()
}

/// Everything that was started there.
struct Swept(String);

impl Drop for Swept {
    fn drop(&mut self) {
        spillway_tests::process::kill_marked(&self.0);
    }
}
