//! A program that plays runner, the places it is started in, and what tests do to those.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use spillway_launchers::conformance::Subject;
use spillway_launchers::{Launcher, TaskRef};
use spillway_tests::clouds::fault::Fault;
use spillway_tests::clouds::{Fake, Place, Vendor};
use spillway_tests::process::eventually;

use crate::faults::Faulty;

/// One launcher, the same for a dispatcher that was started again, and their platform.
pub struct On<C, L> {
    pub cloud: Fake<C>,
    pub launcher: Arc<L>,
    pub again: Arc<L>,
    _swept: Swept,
}

impl<C, L> On<C, L> {
    pub fn new(mark: String, cloud: Fake<C>, [launcher, again]: [L; 2]) -> Self {
        Self { cloud, launcher: Arc::new(launcher), again: Arc::new(again), _swept: Swept(mark) }
    }
}

#[async_trait]
impl<C: Send + Sync, L: Launcher> Subject for On<C, L>
where
    Fake<C>: Vendor,
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

impl<C: Send + Sync, L: Launcher> Faulty for On<C, L>
where
    Fake<C>: Vendor,
{
    fn script_launches(&self, faults: &[Option<Fault>]) {
        self.cloud.script(Fake::<C>::LAUNCH, faults);
    }

    fn script_looks(&self, faults: &[Option<Fault>]) {
        self.cloud.script(Fake::<C>::LOOK, faults);
    }

    fn made(&self, egress_id: &str) -> usize {
        self.cloud.made(egress_id)
    }

    fn called(&self, fault: Fault) -> Option<&'static str> {
        Fake::<C>::called(fault)
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
pub fn place(folder: &Path) -> Place {
    Place {
        environment: [("SPILLWAY_TICKET_KEY".to_owned(), "from-the-secret-store".to_owned())].into(),
        mark: format!("launchers-{}", folder.display()),
        grace: Duration::from_secs(2),
        ..Place::new(program(folder), folder.to_owned())
    }
}

/// What it knows of a task comes late.
pub fn slow_of_mind(folder: &Path) -> Place {
    Place { unseen: Duration::from_millis(400), ..place(folder) }
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
