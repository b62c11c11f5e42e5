//! The permissions that the Terraform code gives each part of Spillway, read from the files that Terraform renders
//! (`terraform/modules/*/{policies,roles}`). Fake clouds check every call against them.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::clouds::policy::Policy;

/// `terraform/modules/aws/policies/{name}.json.tftpl` with its values filled in; a missing value is an error.
pub fn aws(name: &str, values: &[(&str, &str)]) -> Result<Value> {
    let path = modules().join(format!("aws/policies/{name}.json.tftpl"));
    let mut text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    for (name, value) in values {
        text = text.replace(&format!("${{{name}}}"), value);
    }
    ensure!(!text.contains("${"), "{}: a value is missing: {text}", path.display());
    serde_json::from_str(&text).with_context(|| format!("{} is no policy", path.display()))
}

/// ARN of the role that [`aws_dispatcher`] lets a dispatcher pass to tasks.
pub const RUNNER_ROLE: &str = "arn:aws:iam::111122223333:role/runner";
/// ARN of the execution role that [`aws_dispatcher`] lets a dispatcher pass to tasks.
pub const RUNNER_EXECUTION_ROLE: &str = "arn:aws:iam::111122223333:role/runner-execution";

/// A dispatcher's policy on AWS. `cluster` is an ARN, `definition` a task definition's ARN without its revision; that of pages is
/// `{definition}-page`.
pub fn aws_dispatcher(cluster: &str, definition: &str) -> Result<Policy> {
    let task = format!("{}/*", cluster.replacen(":cluster/", ":task/", 1));
    let values = [
        ("cluster_arn", cluster),
        ("task_arn", task.as_str()),
        ("runner_definition_arn", definition),
        ("runner_role_arn", RUNNER_ROLE),
        ("runner_execution_role_arn", RUNNER_EXECUTION_ROLE),
    ];
    Policy::iam(&aws("dispatcher", &values)?.to_string())
}

/// A runner's policy on S3: below this prefix of this bucket.
pub fn aws_runner(bucket: &str, prefix: &str) -> Result<Policy> {
    let arn = format!("arn:aws:s3:::{bucket}");
    Policy::iam(&aws("runner", &[("bucket_arn", &arn), ("key_prefix", prefix)])?.to_string())
}

/// Google's role for `dispatcher` or `runner`, granted on these resources.
pub fn google_on(name: &str, resources: impl IntoIterator<Item = String>) -> Result<Policy> {
    let permissions = google(name)?;
    Ok(Policy::on(permissions.iter().map(String::as_str), resources))
}

/// Azure's role for `dispatcher`, `attach` or `runner`, granted on these resources.
pub fn azure_on(name: &str, resources: impl IntoIterator<Item = String>) -> Result<Policy> {
    let actions = azure(name)?;
    Ok(Policy::on(actions.iter().map(String::as_str), resources))
}

/// Permissions of Google's custom role for `dispatcher` or `runner`.
pub fn google(name: &str) -> Result<BTreeSet<String>> {
    strings(&role("gcp", name)?, "permissions")
}

/// Actions and data actions of Azure's role for `dispatcher`, `attach` (a dispatcher's too) or `runner`.
pub fn azure(name: &str) -> Result<BTreeSet<String>> {
    let role = role("azure", name)?;
    Ok(strings(&role, "actions")?.union(&strings(&role, "data_actions")?).cloned().collect())
}

fn role(module: &str, name: &str) -> Result<Value> {
    let path = modules().join(format!("{module}/roles/{name}.json"));
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is no JSON", path.display()))
}

fn strings(role: &Value, key: &str) -> Result<BTreeSet<String>> {
    let list = role.get(key).and_then(Value::as_array).with_context(|| format!("a role without {key}"))?;
    list.iter().map(|one| one.as_str().map(str::to_owned).context("an action is text")).collect()
}

fn modules() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../terraform/modules")
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: &str = "arn:aws:ecs:r:1:cluster/spillway-prod";
    const RUNNER: &str = "arn:aws:ecs:r:1:task-definition/spillway-prod-runner:7";
    const TASK: &str = "arn:aws:ecs:r:1:task/spillway-prod/abc";

    fn dispatcher() -> Policy {
        aws_dispatcher(CLUSTER, "arn:aws:ecs:r:1:task-definition/spillway-prod-runner").unwrap()
    }

    #[test]
    fn a_dispatcher_runs_our_definitions_in_our_cluster_only() {
        let run = |definition, cluster| dispatcher().allows("ecs:RunTask", definition, &[("ecs:cluster", cluster)]);
        assert!(run(RUNNER, CLUSTER));
        assert!(run("arn:aws:ecs:r:1:task-definition/spillway-prod-runner-page:7", CLUSTER));
        assert!(!run("arn:aws:ecs:r:1:task-definition/somebody-else:7", CLUSTER));
        assert!(!run(RUNNER, "arn:aws:ecs:r:1:cluster/other"));
    }

    #[test]
    fn tags_are_given_at_the_launch_only() {
        assert!(dispatcher().allows("ecs:TagResource", TASK, &[("ecs:CreateAction", "RunTask")]));
        assert!(!dispatcher().allows("ecs:TagResource", TASK, &[]));
    }

    #[test]
    fn what_is_not_named_is_not_allowed() {
        assert!(dispatcher().allows("ecs:StopTask", TASK, &[]));
        assert!(!dispatcher().allows("ecs:StopTask", "arn:aws:ecs:r:1:task/other/abc", &[]));
        for action in ["ecs:UpdateService", "ecs:RegisterTaskDefinition", "s3:GetObject"] {
            assert!(!dispatcher().allows(action, "*", &[("ecs:cluster", CLUSTER)]), "{action}");
        }
    }

    #[test]
    fn a_missing_value_is_an_error() {
        assert!(aws("dispatcher", &[]).is_err());
    }
}
