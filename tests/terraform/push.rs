//! `terraform/push` logs in where the registry is, pushes under the names that the modules start, and pushes nothing that the cloud
//! cannot run. The vendors' own programs are not on this machine: small scripts write down what they were asked.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;

use crate::{executable, failed, tree};

/// Registry, what logs in there, and the names of the three images.
const REGISTRIES: &[(&str, &str, [&str; 3])] = &[
    (
        "111122223333.dkr.ecr.eu-central-1.amazonaws.com/spillway-dev",
        "aws ecr get-login-password --region eu-central-1",
        [
            "111122223333.dkr.ecr.eu-central-1.amazonaws.com/spillway-dev:dispatcher",
            "111122223333.dkr.ecr.eu-central-1.amazonaws.com/spillway-dev:runner",
            "111122223333.dkr.ecr.eu-central-1.amazonaws.com/spillway-dev:page",
        ],
    ),
    (
        "europe-west3-docker.pkg.dev/my-project/spillway-dev",
        "gcloud auth print-access-token",
        [
            "europe-west3-docker.pkg.dev/my-project/spillway-dev/dispatcher:latest",
            "europe-west3-docker.pkg.dev/my-project/spillway-dev/runner:latest",
            "europe-west3-docker.pkg.dev/my-project/spillway-dev/page:latest",
        ],
    ),
    (
        "spillwaydev01234567.azurecr.io",
        "az acr login --name spillwaydev01234567",
        [
            "spillwaydev01234567.azurecr.io/dispatcher:latest",
            "spillwaydev01234567.azurecr.io/runner:latest",
            "spillwaydev01234567.azurecr.io/page:latest",
        ],
    ),
];

/// What `cargo images` calls them.
const BUILT: [&str; 3] = ["spillway-dispatcher:latest", "spillway-runner:latest", "spillway-runner-page:latest"];

pub fn case() -> Trial {
    Trial::test("push::goes_where_the_modules_look", || check().map_err(|error| failed(&error)))
}

fn check() -> Result<()> {
    for (registry, login, names) in REGISTRIES {
        let pushed = push(registry, "amd64", &[])?;
        ensure!(pushed.0, "{registry}: {}", pushed.1);
        ensure!(pushed.1.lines().any(|line| line == *login), "{registry}: nobody logged in: {}", pushed.1);
        for (built, name) in BUILT.iter().zip(names) {
            ensure!(pushed.1.contains(&format!("docker tag {built} {name}\n")), "{name} is no {built}: {}", pushed.1);
            ensure!(pushed.1.contains(&format!("docker push --quiet {name}\n")), "{name} was not pushed: {}", pushed.1);
        }
    }
    let wrong = push(REGISTRIES[0].0, "arm64", &[])?;
    ensure!(!wrong.0 && !wrong.1.contains("docker push"), "an image for another processor was pushed: {}", wrong.1);
    let meant = push(REGISTRIES[0].0, "arm64", &[("SPILLWAY_ARCH", "arm64")])?;
    ensure!(meant.0 && meant.1.contains("docker push"), "{}", meant.1);
    let nowhere = push("", "amd64", &[])?;
    ensure!(!nowhere.0 && !nowhere.1.contains("docker push"), "pushed to no registry: {}", nowhere.1);
    Ok(())
}

/// Whether it succeeded, and what it asked of other programs, a line each.
fn push(registry: &str, built_for: &str, environment: &[(&str, &str)]) -> Result<(bool, String)> {
    let folder = tempfile::tempdir().context("make a folder")?;
    let asked = folder.path().join("asked");
    let note = format!("#!/bin/sh\necho \"$(basename \"$0\") $*\" >>'{}'\n", asked.display());
    for (program, more) in [
        ("aws", "echo password"),
        ("az", ""),
        ("gcloud", "echo token"),
        ("docker", &*format!("case \"$*\" in *Architecture*) echo {built_for} ;; *stdin*) cat >/dev/null ;; esac")),
        ("terraform", &*format!("printf %s '{registry}'")),
    ] {
        executable(&folder.path().join(program), &format!("{note}{more}\n"))?;
    }
    let path = format!("{}:/usr/bin:/bin", folder.path().display());
    let mut command = Command::new("sh");
    command.arg(tree().join("push")).current_dir(folder.path()).env_clear().env("PATH", path);
    let out = command.envs(environment.iter().copied()).output().context("start sh")?;
    let asked = std::fs::read_to_string(&asked).unwrap_or_default();
    Ok((out.status.success(), format!("{asked}{}", String::from_utf8_lossy(&out.stderr))))
}
