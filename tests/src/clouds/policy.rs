//! Permissions of a caller: IAM policies in JSON as Terraform renders them, or plain lists of actions. Pure.

use anyhow::{Context, Result};
use serde_json::Value;

/// Statements; a call is allowed by one and denied by none.
#[derive(Clone, Debug)]
pub struct Policy(Vec<Statement>);

/// A permission that a call needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permission {
    /// E.g. `ecs:RunTask`.
    pub action: String,
    /// ARN or path.
    pub resource: String,
    /// Values for the conditions of a policy.
    pub context: Vec<(&'static str, String)>,
}

impl Permission {
    /// Without context.
    pub fn new(action: impl Into<String>, resource: impl Into<String>) -> Self {
        Self { action: action.into(), resource: resource.into(), context: Vec::new() }
    }

    /// Adds a value to the context.
    pub fn with(mut self, key: &'static str, value: impl Into<String>) -> Self {
        self.context.push((key, value.into()));
        self
    }
}

#[derive(Clone, Debug)]
struct Statement {
    allows: bool,
    actions: Vec<String>,
    resources: Vec<String>,
    /// Key of the context, and patterns for its value.
    conditions: Vec<(String, Vec<String>)>,
}

impl Policy {
    /// Allows everything.
    pub fn everything() -> Self {
        Self::actions(["*"])
    }

    /// Allows these actions on every resource.
    pub fn actions<'a>(actions: impl IntoIterator<Item = &'a str>) -> Self {
        Self::on(actions, ["*"])
    }

    /// Allows these actions on resources that match one of the patterns.
    pub fn on<'a>(
        actions: impl IntoIterator<Item = &'a str>,
        resources: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        let actions = actions.into_iter().map(str::to_owned).collect();
        let resources = resources.into_iter().map(Into::into).collect();
        Self(vec![Statement { allows: true, actions, resources, conditions: vec![] }])
    }

    /// Both together.
    pub fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// The first permission that is not allowed.
    pub fn lacks<'a>(&self, needed: &'a [Permission]) -> Option<&'a Permission> {
        needed.iter().find(|need| {
            let context: Vec<(&str, &str)> = need.context.iter().map(|(key, value)| (*key, value.as_str())).collect();
            !self.allows(&need.action, &need.resource, &context)
        })
    }

    /// Reads a policy of AWS IAM.
    pub fn iam(json: &str) -> Result<Self> {
        let policy: Value = serde_json::from_str(json).context("read the policy")?;
        let statements = policy["Statement"].as_array().context("a policy has statements")?;
        let conditions = |statement: &Value| {
            let operators = statement["Condition"].as_object().into_iter().flatten();
            let keys = operators.flat_map(|(_, keys)| keys.as_object().into_iter().flatten());
            keys.map(|(key, values)| (key.clone(), texts(values))).collect()
        };
        let read = |statement: &Value| Statement {
            allows: statement["Effect"] == "Allow",
            actions: texts(&statement["Action"]),
            resources: texts(&statement["Resource"]),
            conditions: conditions(statement),
        };
        Ok(Self(statements.iter().map(read).collect()))
    }

    /// Every condition operator is taken as "matches the pattern", which is what our policies use; a key that the
    /// context lacks does not match.
    pub fn allows(&self, action: &str, resource: &str, context: &[(&str, &str)]) -> bool {
        let holds = |statement: &&Statement| {
            let met = |(key, wanted): &(String, Vec<String>)| {
                context.iter().any(|(given, value)| given == key && wanted.iter().any(|wanted| like(wanted, value)))
            };
            statement.actions.iter().any(|wanted| like(&wanted.to_lowercase(), &action.to_lowercase()))
                && statement.resources.iter().any(|wanted| like(wanted, resource))
                && statement.conditions.iter().all(met)
        };
        let mut said = self.0.iter().filter(holds).peekable();
        said.peek().is_some() && said.all(|statement| statement.allows)
    }
}

fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(all) => all.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => vec![],
    }
}

/// `*` matches any text.
fn like(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((begin, rest)) => {
            let Some(text) = text.strip_prefix(begin) else { return false };
            (0..=text.len()).filter(|at| text.is_char_boundary(*at)).any(|at| like(rest, &text[at..]))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_allows_what_it_names_on_what_it_names_under_its_conditions() {
        let policy = Policy::iam(
            r#"{"Statement": [
                {"Effect": "Allow", "Action": "ecs:RunTask", "Resource": "arn:def/runner:*",
                 "Condition": {"ArnEquals": {"ecs:cluster": "arn:cluster"}}},
                {"Effect": "Allow", "Action": ["ecs:Describe*"], "Resource": "*"},
                {"Effect": "Deny", "Action": "ecs:DescribeSecret", "Resource": "*"}]}"#,
        )
        .unwrap();
        let here = [("ecs:cluster", "arn:cluster")];
        assert!(policy.allows("ecs:RunTask", "arn:def/runner:3", &here));
        assert!(!policy.allows("ecs:RunTask", "arn:def/runner:3", &[("ecs:cluster", "arn:other")]));
        assert!(!policy.allows("ecs:RunTask", "arn:def/runner:3", &[]));
        assert!(!policy.allows("ecs:RunTask", "arn:def/other:3", &here));
        assert!(policy.allows("ecs:DescribeTasks", "arn:x", &[]));
        assert!(!policy.allows("ecs:DescribeSecret", "arn:x", &[]));
        assert!(!policy.allows("ecs:StopTask", "arn:x", &here));
    }
}
