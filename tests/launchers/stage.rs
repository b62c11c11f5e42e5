//! A program that plays runner, and the places it is started in.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use spillway_tests::clouds::Place;
use spillway_tests::process::eventually;

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
pub struct Swept(pub String);

impl Drop for Swept {
    fn drop(&mut self) {
        spillway_tests::process::kill_marked(&self.0);
    }
}
