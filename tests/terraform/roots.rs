//! A root hands every variable of its module on and has no resource of its own.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::{CheckResult, failed, tree};

const ROOTS: [&str; 3] = ["aws", "azure", "gcp"];

pub fn compare() -> CheckResult {
    ROOTS.iter().try_for_each(|root| check(root)).map_err(|error| failed(&error))
}

fn check(root: &str) -> Result<()> {
    let main = read(&tree().join(root).join("main.tf"))?;
    let has_resources = main.lines().any(|line| line.starts_with("resource ") || line.starts_with("data "));
    ensure!(!has_resources, "{root}/main.tf has resources: they belong into the module, where checkov reads them");

    let own = variables(&tree().join(root).join("variables.tf"))?;
    let module = variables(&tree().join("modules").join(root).join("variables.tf"))?;
    let keys: BTreeSet<String> = module.difference(&own).cloned().collect();
    let listed = main.split_once("for key in [").and_then(|(_, rest)| rest.split_once(']'));
    let (listed, _) = listed.with_context(|| format!("{root}/main.tf has no list of keys"))?;
    let listed: BTreeSet<String> = listed.split('"').skip(1).step_by(2).map(str::to_owned).collect();
    ensure!(listed == keys, "{root}: keys of `spillway` are {listed:?}, the module's variables {keys:?}");

    let handed_on: BTreeSet<(&str, &str)> = main
        .lines()
        .filter_map(|line| line.split_once(" = "))
        .map(|(name, value)| (name.trim(), value.trim()))
        .collect();
    for name in &module {
        let object = if own.contains(name) { "var" } else { "local.spillway" };
        let value = format!("{object}.{name}");
        ensure!(handed_on.contains(&(name.as_str(), value.as_str())), "{root}/main.tf does not hand {name} on");
    }
    Ok(())
}

fn variables(file: &Path) -> Result<BTreeSet<String>> {
    let name = |line: &str| Some(line.strip_prefix("variable \"")?.split_once('"')?.0.to_owned());
    Ok(read(file)?.lines().filter_map(name).collect())
}

fn read(file: &Path) -> Result<String> {
    std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))
}
