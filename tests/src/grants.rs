//! What the Terraform code allows each part of Spillway to do, read from the very files that Terraform renders
//! (`terraform/modules/*/{policies,roles}`): a fake cloud asks here before it obeys.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;

/// A question to AWS' policies: may this be done with that, when these facts hold?
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// `ecs:RunTask`.
    pub action: &'a str,
    /// An ARN, or `*` for calls that name none.
    pub resource: &'a str,
    /// Condition keys of the call, such as `ecs:cluster`.
    pub facts: &'a [(&'a str, &'a str)],
}

/// An IAM policy document of ours: statements that allow.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct AwsPolicy {
    statement: Vec<Statement>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Statement {
    #[serde(default, rename = "Sid")]
    _sid: String,
    effect: Effect,
    action: OneOrMore,
    resource: OneOrMore,
    #[serde(default)]
    condition: BTreeMap<Operator, BTreeMap<String, OneOrMore>>,
}

/// A document that denies is none of a role's.
#[derive(Clone, Copy, Debug, Deserialize)]
enum Effect {
    Allow,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
enum Operator {
    ArnEquals,
    StringEquals,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl OneOrMore {
    fn any(&self, mut fits: impl FnMut(&str) -> bool) -> bool {
        match self {
            Self::One(one) => fits(one),
            Self::More(more) => more.iter().any(|one| fits(one)),
        }
    }

    fn all(&self) -> Vec<String> {
        match self {
            Self::One(one) => vec![one.clone()],
            Self::More(more) => more.clone(),
        }
    }
}

impl AwsPolicy {
    /// `terraform/modules/aws/policies/{name}.json.tftpl` with its values filled in; one that is missing is an error.
    pub fn of(name: &str, values: &[(&str, &str)]) -> Result<Self> {
        let path = modules().join(format!("aws/policies/{name}.json.tftpl"));
        let mut text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        for (name, value) in values {
            text = text.replace(&format!("${{{name}}}"), value);
        }
        anyhow::ensure!(!text.contains("${"), "{}: a value is missing: {text}", path.display());
        serde_json::from_str(&text).with_context(|| format!("{} is no policy", path.display()))
    }

    pub fn allows(&self, ask: &Ask) -> bool {
        self.statement.iter().any(|statement| statement.allows(ask))
    }

    pub fn actions(&self) -> BTreeSet<String> {
        self.statement.iter().flat_map(|statement| statement.action.all()).collect()
    }
}

impl Statement {
    fn allows(&self, ask: &Ask) -> bool {
        let Effect::Allow = self.effect;
        self.action.any(|action| action.eq_ignore_ascii_case(ask.action))
            && self.resource.any(|pattern| matches(pattern, ask.resource))
            && self.condition.iter().all(|(operator, wanted)| {
                wanted.iter().all(|(key, values)| {
                    let fact = ask.facts.iter().find(|(name, _)| name == key).map(|(_, value)| *value);
                    fact.is_some_and(|fact| values.any(|value| operator.holds(value, fact)))
                })
            })
    }
}

impl Operator {
    fn holds(self, wanted: &str, fact: &str) -> bool {
        match self {
            Self::ArnEquals => matches(wanted, fact),
            Self::StringEquals => wanted == fact,
        }
    }
}

/// `*` stands for any text, as in IAM.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(text) = text.strip_prefix(head) else { return false };
    text.char_indices().map(|(at, _)| at).chain([text.len()]).any(|at| matches(rest, &text[at..]))
}

/// Permissions of the custom role that Google's module gives to `dispatcher` or `runner`.
pub fn google(name: &str) -> Result<BTreeSet<String>> {
    strings(&role("gcp", name)?, "permissions")
}

/// Actions on resources, and on data, of Azure's role for `dispatcher` or `runner`.
pub fn azure(name: &str) -> Result<(BTreeSet<String>, BTreeSet<String>)> {
    let role = role("azure", name)?;
    Ok((strings(&role, "actions")?, strings(&role, "data_actions")?))
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

    fn dispatcher() -> AwsPolicy {
        AwsPolicy::of(
            "dispatcher",
            &[
                ("cluster_arn", CLUSTER),
                ("task_arn", "arn:aws:ecs:r:1:task/spillway-prod/*"),
                ("runner_definition_arn", "arn:aws:ecs:r:1:task-definition/spillway-prod-runner"),
                ("runner_role_arn", "arn:aws:iam::1:role/runner"),
                ("runner_execution_role_arn", "arn:aws:iam::1:role/runner-execution"),
            ],
        )
        .unwrap()
    }

    #[test]
    fn a_dispatcher_runs_our_definition_in_our_cluster_only() {
        let run = |resource, cluster| {
            dispatcher().allows(&Ask { action: "ecs:RunTask", resource, facts: &[("ecs:cluster", cluster)] })
        };
        assert!(run("arn:aws:ecs:r:1:task-definition/spillway-prod-runner:7", CLUSTER));
        assert!(!run("arn:aws:ecs:r:1:task-definition/somebody-else:7", CLUSTER));
        assert!(!run("arn:aws:ecs:r:1:task-definition/spillway-prod-runner:7", "arn:aws:ecs:r:1:cluster/other"));
        let unsaid = Ask {
            action: "ecs:RunTask",
            resource: "arn:aws:ecs:r:1:task-definition/spillway-prod-runner:7",
            facts: &[],
        };
        assert!(!dispatcher().allows(&unsaid), "a fact that the call does not have is not taken for granted");
    }

    #[test]
    fn tags_are_given_at_the_launch_only() {
        let tag = |facts| {
            dispatcher().allows(&Ask {
                action: "ecs:TagResource",
                resource: "arn:aws:ecs:r:1:task/spillway-prod/abc",
                facts,
            })
        };
        assert!(tag(&[("ecs:CreateAction", "RunTask")]));
        assert!(!tag(&[]));
    }

    #[test]
    fn what_is_not_named_is_not_allowed() {
        for action in ["ecs:UpdateService", "ecs:RegisterTaskDefinition", "s3:GetObject"] {
            assert!(
                !dispatcher().allows(&Ask { action, resource: "*", facts: &[("ecs:cluster", CLUSTER)] }),
                "{action}"
            );
        }
    }

    #[test]
    fn a_value_that_nobody_gave_is_an_error() {
        assert!(AwsPolicy::of("dispatcher", &[]).is_err());
    }

    #[test]
    fn a_star_stands_for_any_text() {
        assert!(matches("a*c", "abbc") && matches("*", "") && matches("a*b*", "axbyb"));
        assert!(!matches("a*c", "abcd") && !matches("a", "ab"));
    }
}
