//! The patterns by which EventBridge calls the Lambda (`terraform/modules/aws/events`) match the events of our runners and no
//! others. Events are those of AWS' guide and of reports of 2026, shortened to what a pattern may look at.

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::{failed, tree};

const CLUSTER: &str = "arn:aws:ecs:eu-central-1:111122223333:cluster/spillway-prod-runners";
const DEFINITION: &str = "arn:aws:ecs:eu-central-1:111122223333:task-definition/spillway-prod-runner";

pub fn case() -> Trial {
    Trial::test("events::reach_the_lambda", || check().map_err(|error| failed(&error)))
}

fn check() -> Result<()> {
    let runner = format!("{DEFINITION}:7");
    let event = |definition: &str, last_status: &str, stop_code: &str| {
        json!({ "source": "aws.ecs", "detail-type": "ECS Task State Change", "detail": {
            "clusterArn": CLUSTER, "taskDefinitionArn": definition, "lastStatus": last_status,
            "desiredStatus": "STOPPED", "stopCode": stop_code } })
    };
    let (stopped, reclaimed) = (pattern("stopped")?, pattern("reclaimed")?);
    for code in ["EssentialContainerExited", "SpotInterruption", "TaskFailedToStart", "UserInitiated"] {
        ensure!(matches(&stopped, &event(&runner, "STOPPED", code)), "a task that stopped by {code} is not settled");
    }
    // Two minutes before the machine is taken, by both stop codes that ECS has for it.
    for code in ["SpotInterruption", "TerminationNotice"] {
        ensure!(matches(&reclaimed, &event(&runner, "RUNNING", code)), "a warning by {code} is not heard");
        ensure!(!matches(&reclaimed, &event(&runner, "STOPPED", code)), "one end by {code} is two events");
    }
    ensure!(!matches(&reclaimed, &event(&runner, "RUNNING", "UserInitiated")), "a stop of ours is taken for a warning");
    let page = event(&format!("{DEFINITION}-page:1"), "STOPPED", "UserInitiated");
    ensure!(matches(&stopped, &page), "the end of a page's task is not settled");
    let dispatcher = event(&DEFINITION.replace("-runner", "-dispatcher"), "STOPPED", "UserInitiated");
    let other = event("arn:aws:ecs:eu-central-1:111122223333:task-definition/spillway-prod-runner2:1", "STOPPED", "");
    for event in [dispatcher, other] {
        ensure!(!matches(&stopped, &event), "the end of another task is settled: {event}");
    }
    Ok(())
}

fn pattern(name: &str) -> Result<Value> {
    let path = tree().join(format!("modules/aws/events/{name}.json.tftpl"));
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let text = text.replace("${cluster_arn}", CLUSTER).replace("${definition_arn}", DEFINITION);
    ensure!(!text.contains("${"), "{}: a value is missing", path.display());
    serde_json::from_str(&text).with_context(|| format!("{} is no pattern", path.display()))
}

/// EventBridge's own rule, as far as our patterns use it: each key must match, by one of its list.
fn matches(pattern: &Value, event: &Value) -> bool {
    match pattern {
        Value::Object(keys) => keys.iter().all(|(key, inner)| matches(inner, &event[key])),
        Value::Array(any) => any.iter().any(|one| match one {
            Value::Object(_) if one["prefix"].is_string() => {
                one["prefix"].as_str().zip(event.as_str()).is_some_and(|(prefix, text)| text.starts_with(prefix))
            }
            Value::Object(_) => !event.is_null() && one["anything-but"] != *event,
            exact => exact == event,
        }),
        _ => false,
    }
}
