//! checkov's findings are exactly those that `terraform/.checkov.yaml` gives a reason for: no more, and none out of date.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::bench::{copy, installed};
use crate::{CheckResult, failed, tree};

const REASONS: &str = ".checkov.yaml";

#[derive(Deserialize)]
struct CheckovReport {
    results: Results,
    summary: Summary,
}

#[derive(Deserialize)]
struct Results {
    failed_checks: Vec<Check>,
}

#[derive(Deserialize)]
struct Check {
    check_id: String,
    check_name: String,
    resource: String,
    file_path: String,
}

#[derive(Deserialize)]
struct Summary {
    passed: u32,
    parsing_errors: u32,
}

pub fn findings() -> CheckResult {
    check().map_err(|error| failed(&error))
}

fn check() -> Result<()> {
    let reasons = reasons(&std::fs::read_to_string(tree().join(REASONS)).context("read our reasons")?)?;
    let folder = tempfile::Builder::new().prefix("spillway-checkov-").tempdir().context("make a folder")?;
    copy(&tree(), &folder.path().join("terraform"))?;
    // Read by checkov wherever it finds it.
    std::fs::remove_file(folder.path().join("terraform").join(REASONS)).context("set our reasons aside")?;
    let mut command = Command::new(installed("venv-checkov/bin/checkov")?);
    // The modules alone, with their variables' defaults: checkov cannot follow what a root hands on, and roots have no
    // resources of their own (`roots`).
    command.current_dir(folder.path()).args(["--directory", "terraform/modules", "--framework", "terraform"]);
    // Its exit status would only say that there are findings.
    command.args(["--skip-download", "--soft-fail", "--compact", "--quiet", "--output", "json"]);
    let out = command.output().context("start checkov")?;
    let message = String::from_utf8_lossy(&out.stderr).into_owned();
    let report: CheckovReport =
        serde_json::from_slice(&out.stdout).with_context(|| format!("read checkov's answer: {message}"))?;
    ensure!(report.summary.parsing_errors == 0, "checkov could not read {} files", report.summary.parsing_errors);
    ensure!(report.summary.passed > 100, "checkov looked at next to nothing");

    let mut found: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for check in &report.results.failed_checks {
        let module = format!("{} ({}) {}", check.resource, check.file_path, check.check_name);
        found.entry(&check.check_id).or_default().push(module);
    }
    let unknown: Vec<_> = found.iter().filter(|(id, _)| !reasons.contains(**id)).collect();
    ensure!(unknown.is_empty(), "findings without a reason in {REASONS}: {unknown:#?}");
    let stale: Vec<_> = reasons.iter().filter(|id| !found.contains_key(id.as_str())).collect();
    ensure!(stale.is_empty(), "{REASONS} excuses what checkov does not find: {stale:?}");
    Ok(())
}

fn reasons(text: &str) -> Result<BTreeSet<String>> {
    let mut ids = BTreeSet::new();
    for line in text.lines().filter_map(|line| line.trim().strip_prefix("- ")) {
        let (id, reason) = line.split_once('#').unwrap_or((line, ""));
        ensure!(reason.trim().len() > 10, "{REASONS}: {} has no reason", id.trim());
        ids.insert(id.trim().to_owned());
    }
    Ok(ids)
}
