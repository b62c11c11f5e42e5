//! What is written down for each part names every action; a pattern would allow what its vendor invents tomorrow.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use serde_json::Value;
use spillway_tests::grants;

use crate::failed;

pub fn cases() -> Vec<Trial> {
    type Check = fn() -> Result<()>;
    let checks: [(&str, Check); 3] = [("aws", aws), ("google", google), ("azure", azure)];
    let case = |(name, check): (&str, Check)| {
        Trial::test(format!("policies::{name}_names_every_action"), move || check().map_err(|error| failed(&error)))
    };
    checks.into_iter().map(case).collect()
}

fn aws() -> Result<()> {
    let arn = "arn:aws:x:r:1:y";
    let names = [
        "cluster_arn",
        "task_arn",
        "runner_definition_arn",
        "runner_role_arn",
        "runner_execution_role_arn",
        "bucket_arn",
        "key_prefix",
        "log_group_arn",
        "queue_arn",
        "key_arn",
        "region",
        "account",
    ];
    let values: Vec<_> = names
        .into_iter()
        .map(|name| (name, arn))
        .chain(["secret_arns", "log_group_arns", "repository_arns"].map(|name| (name, "[\"arn:aws:x\"]")))
        .collect();
    for part in ["dispatcher", "runner", "execution", "settle", "bucket-key", "secrets-key", "key"] {
        let policy = grants::aws(part, &values)?;
        let statements = policy["Statement"].as_array().context("a policy has statements")?;
        ensure!(statements.iter().all(|statement| statement["Effect"] == "Allow"), "{part} denies something");
        let actions = statements.iter().flat_map(|statement| match &statement["Action"] {
            Value::Array(all) => all.clone(),
            one => vec![one.clone()],
        });
        named(part, &actions.filter_map(|action| action.as_str().map(str::to_owned)).collect())?;
    }
    Ok(())
}

fn google() -> Result<()> {
    ["dispatcher", "runner"].into_iter().try_for_each(|part| named(part, &grants::google(part)?))
}

fn azure() -> Result<()> {
    ["dispatcher", "attach", "runner"].into_iter().try_for_each(|part| named(part, &grants::azure(part)?))
}

fn named(part: &str, actions: &BTreeSet<String>) -> Result<()> {
    ensure!(!actions.is_empty(), "{part} is allowed nothing");
    let patterns: Vec<_> = actions.iter().filter(|action| action.contains('*')).collect();
    ensure!(patterns.is_empty(), "{part} is allowed {patterns:?}");
    Ok(())
}
