//! What the caller may do: IAM's JSON as Terraform renders it, or a plain list of actions.

use anyhow::{Context, Result};
use serde_json::Value;

#[derive(Clone, Debug)]
pub struct Policy(Vec<Statement>);

/// One permission that a call takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permission {
    pub action: String,
    pub resource: String,
    /// What the conditions of a policy may ask about.
    pub context: Vec<(&'static str, String)>,
}

impl Permission {
    pub fn new(action: impl Into<String>, resource: impl Into<String>) -> Self {
        Self { action: action.into(), resource: resource.into(), context: Vec::new() }
    }

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
    /// Key of the request's context, and what it must look like.
    conditions: Vec<(String, Vec<String>)>,
}

impl Policy {
    pub fn everything() -> Self {
        Self::actions(["*"])
    }

    /// These on everything.
    pub fn actions<'a>(actions: impl IntoIterator<Item = &'a str>) -> Self {
        Self::on(actions, ["*"])
    }

    /// These on what looks like one of `resources`.
    pub fn on<'a>(
        actions: impl IntoIterator<Item = &'a str>,
        resources: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        let actions = actions.into_iter().map(str::to_owned).collect();
        let resources = resources.into_iter().map(Into::into).collect();
        Self(vec![Statement { allows: true, actions, resources, conditions: vec![] }])
    }

    pub fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// The first of what is needed that it does not allow.
    pub fn lacks<'a>(&self, needed: &'a [Permission]) -> Option<&'a Permission> {
        needed.iter().find(|need| {
            let context: Vec<(&str, &str)> = need.context.iter().map(|(key, value)| (*key, value.as_str())).collect();
            !self.allows(&need.action, &need.resource, &context)
        })
    }

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

    /// Every condition of every operator is taken as "is like", which is what ours say; a key the request does not bring
    /// is not met.
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

/// `*` stands for anything.
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
