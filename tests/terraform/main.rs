//! The Terraform code, offline: terraform itself over stand-in providers (`standin/`), applied in an account that is a file,
//! checkov, and our own rules.
//!
//! Two cases run at a time: each is a process that takes a core. `SPILLWAY_WRITE_REFERENCE=1` writes the tables of
//! the modules' README files instead of comparing them.

mod applied;
mod bench;
mod checkov;
mod config;
mod events;
mod policies;
mod push;
mod roots;
mod sizes;
mod tables;
mod targets;

use std::path::{Path, PathBuf};

use anyhow::Context;
use libtest_mimic::{Arguments, Failed, Trial};

/// A case says what it found wrong; `Debug` of an error chain is for people.
type CheckResult = Result<(), Failed>;

fn main() {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(2);
    let mut trials = vec![Trial::test("format", bench::format)];
    for module in bench::modules().expect("the tree has a folder terraform") {
        let (name, path) = (module.name.clone(), module.path.clone());
        trials.push(Trial::test(format!("{name}::is_valid"), move || bench::validate(&path)));
        if module.has_tests {
            trials.push(Trial::test(format!("{name}::tests"), move || bench::test(&module.path)));
        }
    }
    trials.push(Trial::test("standin::rules_find_what_they_are_for", bench::rules));
    trials.extend(applied::cases());
    trials.push(Trial::test("roots::hand_every_variable_on", roots::compare));
    trials.push(Trial::test("config::is_one_that_the_dispatcher_reads", config::read));
    trials.extend(policies::cases());
    trials.push(events::case());
    trials.push(push::case());
    trials.extend(sizes::cases());
    trials.push(Trial::test("checkov::finds_what_we_gave_reasons_for", checkov::findings));
    trials.push(Trial::test("tables::are_those_of_the_variables", tables::compare));
    libtest_mimic::run(&arguments, trials).exit();
}

fn tree() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../terraform")
}

/// Writes a script that can be started.
fn executable(path: &Path, script: &str) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, script).with_context(|| format!("write {}", path.display()))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).context("make it executable")
}

fn failed(error: &anyhow::Error) -> Failed {
    format!("{error:#}").into()
}
