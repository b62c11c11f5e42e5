//! "ECS Task State Change" of EventBridge: an event's JSON goes in, what it says about a runner comes out. EventBridge delivers
//! at least once and in any order. Pure.

use serde::Deserialize;
use spillway_protocol::ids::EgressId;

use super::api::{self, DescribedTask, NAME};
use crate::launcher::{ATTEMPT, EGRESS_ID, INSTALLATION, OwnedTask, STACK, TaskRef, TaskStatus};

/// A change of one of our tasks.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskStateEvent {
    /// Id of the event; repeated deliveries have the same.
    pub id: String,
    /// The runner's egress, attempt and ARN.
    pub task: OwnedTask,
    /// Stack that the task belongs to.
    pub stack: String,
    /// Grows with each change of the task; an event with a smaller one than seen before is out of date.
    pub version: i64,
    /// Status at the time of the event.
    pub task_status: TaskStatus,
    /// The task still runs, and the platform has announced its stop.
    pub warned: bool,
}

/// Reads an event; `None` for another kind, or for a task that no dispatcher started.
pub fn read(event: &serde_json::Value) -> Option<TaskStateEvent> {
    let envelope = Envelope::deserialize(event).ok().filter(|it| it.detail_type == "ECS Task State Change")?;
    let detail = envelope.detail;
    let variable = |name: &str| {
        let all = detail.overrides.container_overrides.iter().flat_map(|container| &container.environment);
        all.rev().find(|variable| variable.name == name).map(|variable| variable.value.as_str())
    };
    let egress_id = EgressId::parse(variable(EGRESS_ID)?).ok()?;
    let attempt = variable(ATTEMPT)?.parse().ok()?;
    let stack = variable(STACK).unwrap_or_default().to_owned();
    let installation = variable(INSTALLATION).unwrap_or_default().to_owned();
    let container = detail.containers.first().cloned().unwrap_or_default();
    let described = DescribedTask {
        last_status: detail.last_status,
        stop_code: detail.stop_code,
        stopped_reason: detail.stopped_reason,
        capacity_provider: detail.capacity_provider_name,
        cpu: detail.cpu,
        memory: detail.memory,
        disk_gib: detail.ephemeral_storage.map(|disk| disk.size_in_gib),
        exit_code: container.exit_code,
        container_reason: container.reason,
        container_status: container.last_status,
        pull_started: milliseconds(&detail.pull_started_at),
        stopped: milliseconds(&detail.stopped_at),
    };
    let task_status = api::task_status(&described);
    Some(TaskStateEvent {
        id: envelope.id,
        stack,
        version: detail.version,
        warned: task_status == TaskStatus::Alive && detail.desired_status == "STOPPED",
        task_status,
        task: OwnedTask {
            egress_id,
            attempt,
            task: TaskRef { launcher: NAME.to_owned(), id: detail.task_arn },
            installation,
            started_ms: milliseconds(&detail.created_at),
        },
    })
}

fn milliseconds(text: &str) -> Option<i64> {
    use aws_smithy_types::date_time::{DateTime, Format};
    DateTime::from_str(text, Format::DateTime).ok()?.to_millis().ok()
}

#[derive(Deserialize)]
struct Envelope {
    #[serde(default)]
    id: String,
    #[serde(rename = "detail-type")]
    detail_type: String,
    detail: Detail,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Detail {
    task_arn: String,
    #[serde(default)]
    last_status: String,
    #[serde(default)]
    desired_status: String,
    #[serde(default)]
    stop_code: String,
    #[serde(default)]
    stopped_reason: String,
    #[serde(default)]
    capacity_provider_name: String,
    #[serde(default)]
    cpu: String,
    #[serde(default)]
    memory: String,
    #[serde(default)]
    ephemeral_storage: Option<EventDisk>,
    #[serde(default)]
    version: i64,
    #[serde(default)]
    created_at: String,
    #[serde(default)]
    pull_started_at: String,
    #[serde(default)]
    stopped_at: String,
    #[serde(default)]
    overrides: Overrides,
    #[serde(default)]
    containers: Vec<EventContainer>,
}

#[derive(Deserialize)]
struct EventDisk {
    #[serde(rename = "sizeInGiB")]
    size_in_gib: u32,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Overrides {
    #[serde(default)]
    container_overrides: Vec<ContainerOverride>,
}

#[derive(Deserialize)]
struct ContainerOverride {
    #[serde(default)]
    environment: Vec<Variable>,
}

#[derive(Deserialize)]
struct Variable {
    name: String,
    #[serde(default)]
    value: String,
}

#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct EventContainer {
    last_status: String,
    exit_code: Option<i32>,
    reason: String,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::exit::TaskExit;

    fn event() -> serde_json::Value {
        json!({
            "version": "0", "id": "e1", "detail-type": "ECS Task State Change", "source": "aws.ecs",
            "account": "111122223333", "time": "2026-11-22T10:00:00Z", "region": "us-east-1",
            "resources": ["arn:aws:ecs:us-east-1:111122223333:task/egress/1dc5"],
            "detail": {
                "taskArn": "arn:aws:ecs:us-east-1:111122223333:task/egress/1dc5", "version": 5, "group": "egress",
                "lastStatus": "STOPPED", "desiredStatus": "STOPPED", "stopCode": "SpotInterruption",
                "stoppedReason": "Your Spot Task was interrupted.", "capacityProviderName": "FARGATE_SPOT",
                "cpu": "256", "memory": "512", "ephemeralStorage": {"sizeInGiB": 20},
                "createdAt": "2026-11-22T10:00:00.5Z", "pullStartedAt": "2026-11-22T10:00:17Z",
                "stoppedAt": "2026-11-22T10:05:17.123Z",
                "overrides": {"containerOverrides": [{"name": "runner", "environment": [
                    {"name": "SPILLWAY_EGRESS_ID", "value": "EG_1"}, {"name": "SPILLWAY_ATTEMPT", "value": "2"},
                    {"name": "SPILLWAY_STACK", "value": "prod"}]}]},
                "containers": [{"name": "runner", "lastStatus": "STOPPED", "exitCode": 137}]
            }
        })
    }

    #[test]
    fn an_event_names_the_egress_and_the_exit_of_its_task() {
        let read = read(&event()).unwrap();
        assert_eq!((read.task.egress_id.as_str(), read.task.attempt, read.stack.as_str()), ("EG_1", 2, "prod"));
        let TaskStatus::Gone(exit_report) = read.task_status else { panic!("stopped is gone") };
        assert_eq!(exit_report.how, TaskExit::CapacityReclaimed);
        let billed = exit_report.billed.unwrap();
        assert_eq!(billed.to - billed.from, 300_123);
    }

    #[test]
    fn a_warning_is_no_exit_and_other_tasks_are_ignored() {
        let mut warning = event();
        warning["detail"]["lastStatus"] = "RUNNING".into();
        warning["detail"]["stopCode"] = "TerminationNotice".into();
        let read_warning = read(&warning).unwrap();
        assert!(read_warning.warned);
        assert_eq!(read_warning.task_status, TaskStatus::Alive);

        let mut foreign = event();
        foreign["detail"]["overrides"] = json!({"containerOverrides": []});
        assert_eq!(read(&foreign), None);
        assert_eq!(read(&json!({"detail-type": "other", "detail": {}})), None);

        // A container that was never created is not in the list.
        let mut never_created = event();
        never_created["detail"]["containers"] = json!([]);
        never_created["detail"]["stopCode"] = "TaskFailedToStart".into();
        never_created["detail"]["stoppedReason"] = "CannotPullContainerError: no such tag".into();
        let TaskStatus::Gone(exit_report) = read(&never_created).unwrap().task_status else {
            panic!("stopped is gone")
        };
        assert_eq!(exit_report.how, TaskExit::ImageNotPulled("no such tag".into()));
    }
}
