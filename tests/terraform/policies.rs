//! What is written down for each part is what its code does, and nothing that would let it do more.

use std::collections::BTreeSet;

use libtest_mimic::{Failed, Trial};
use spillway_tests::grants::{self, AwsPolicy};

use crate::{Finding, failed};

pub fn cases() -> Vec<Trial> {
    vec![
        Trial::test("policies::aws_names_every_action", aws),
        Trial::test("policies::google_names_every_permission", google),
        Trial::test("policies::azure_names_every_action", azure),
    ]
}

fn google() -> Finding {
    for name in ["dispatcher", "runner"] {
        named(name, &grants::google(name).map_err(|error| failed(&error))?)?;
    }
    Ok(())
}

fn azure() -> Finding {
    for name in ["dispatcher", "attach", "runner"] {
        let (actions, data_actions) = grants::azure(name).map_err(|error| failed(&error))?;
        named(name, &actions.union(&data_actions).cloned().collect())?;
    }
    Ok(())
}

fn aws() -> Finding {
    let arn = "arn:aws:x:r:1:y";
    let list = "[\"arn:aws:x:r:1:y\"]";
    let values = [
        ("cluster_arn", arn),
        ("task_arn", arn),
        ("runner_definition_arn", arn),
        ("runner_role_arn", arn),
        ("runner_execution_role_arn", arn),
        ("bucket_arn", arn),
        ("key_prefix", ""),
        ("repository_arn", arn),
        ("log_group_arn", arn),
        ("secret_arns", list),
        ("queue_arn", arn),
        ("key_arn", arn),
    ];
    for name in ["dispatcher", "runner", "execution", "settle", "bucket-key", "secrets-key"] {
        let policy = AwsPolicy::of(name, &values).map_err(|error| failed(&error))?;
        named(name, &policy.actions())?;
    }
    Ok(())
}

/// A pattern allows what its vendor will invent tomorrow.
fn named(part: &str, actions: &BTreeSet<String>) -> Finding {
    let patterns: Vec<_> = actions.iter().filter(|action| action.contains('*')).collect();
    if actions.is_empty() || !patterns.is_empty() {
        return Err(Failed::from(format!("{part} is allowed {patterns:?} of {actions:?}")));
    }
    Ok(())
}
