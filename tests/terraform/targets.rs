//! The targets that Terraform writes into the dispatcher's configuration have the words that the launchers take.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Launcher, the options without which it cannot work, and those it may be given.
const OPTIONS: &[(&str, &[&str], &[&str])] = &[
    (
        "ecs",
        &["region", "cluster", "task_definition", "container", "subnets", "security_groups"],
        &["assign_public_ip", "stop_seconds"],
    ),
    ("cloud-run", &["project", "location", "container", "jobs"], &[]),
    (
        "aci",
        &["subscription", "resource_group", "location", "image", "identities", "subnet", "client_id"],
        &["environment", "registry"],
    ),
];

/// Nothing to do for a module that starts no runners.
pub fn understand(outputs: &Value) -> Result<()> {
    let Some(config) = outputs.get("dispatcher_config") else { return Ok(()) };
    let targets = config["value"]["targets"].as_array().context("no targets")?;
    ensure!(!targets.is_empty(), "no target");
    targets.iter().try_for_each(|target| check(target).with_context(|| target.to_string()))
}

fn check(target: &Value) -> Result<()> {
    let launcher = target["launcher"].as_str().context("no launcher")?;
    let (_, needed, allowed) = OPTIONS
        .iter()
        .find(|(name, ..)| *name == launcher)
        .with_context(|| format!("nobody launches on {launcher}"))?;
    let options = target["options"].as_object().context("no options")?;
    let is_empty = |value: &Value| match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    };
    let empty: Vec<_> = needed.iter().filter(|key| options.get(**key).is_none_or(is_empty)).collect();
    ensure!(empty.is_empty(), "nothing is said of {empty:?}");
    let known: BTreeSet<&str> = needed.iter().chain(*allowed).copied().collect();
    let unknown: Vec<_> = options.keys().filter(|key| !known.contains(key.as_str())).collect();
    ensure!(unknown.is_empty(), "{launcher} has no {unknown:?}");
    Ok(())
}
