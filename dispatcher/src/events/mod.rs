//! `POST /events/cloudrun`: the end of a Cloud Run execution, as Cloud Logging writes it and Pub/Sub pushes it. Runs in
//! the HTTP server's tasks.
//!
//! A push is only a hint: it names an execution, and its outcome is asked of the platform. A forged push makes us look
//! at a task of ours and never ends one. On Cloud Run, IAM refuses foreign tokens before they get here (and removes the
//! signature from those it accepts); elsewhere `push` names whose tokens are accepted, and `token` checks them.

mod token;

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::StatusCode;
use serde::Deserialize;
use spillway_bus::{BusError, Record};
use spillway_launchers::{TaskRef, TaskStatus};
use spillway_process::chain;
use tracing::{debug, warn};

pub use self::token::TokenVerifier;
use crate::reconcile::task_exit::{ExitEvents, TaskExitEvent};

/// Size of a push; those of executions have about 10 kB.
pub const MAX_BYTES: usize = 1 << 20;
/// The push may arrive before the platform's own API knows of the end.
const POLLS: u32 = 5;
const POLL_INTERVAL: Duration = Duration::from_millis(500);

#[derive(Deserialize)]
struct Push {
    message: Message,
}

#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    data: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LogEntry {
    proto_payload: Payload,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Payload {
    #[serde(default)]
    method_name: String,
    #[serde(default)]
    resource_name: String,
}

/// Name of the execution; `None`: another message, which does not have to be delivered again.
fn execution_of(body: &[u8]) -> Option<String> {
    let push: Push = serde_json::from_slice(body).ok()?;
    let entry: LogEntry = serde_json::from_slice(&STANDARD.decode(push.message.data).ok()?).ok()?;
    let payload = entry.proto_payload;
    // namespaces/<project>/executions/<name>, or projects/<project>/locations/…/executions/<name> of the newer API
    let name = payload.resource_name.rsplit_once("/executions/").map(|(_, name)| name.to_owned());
    name.filter(|name| payload.method_name == "/Jobs.RunJob" && !name.is_empty() && !name.contains('/'))
}

/// The status for Pub/Sub, which delivers the message again after anything but 2xx. `bearer`: the `Authorization`
/// header.
pub async fn receive(
    exits: &ExitEvents,
    verifier: Option<&TokenVerifier>,
    bearer: Option<&str>,
    body: &[u8],
) -> StatusCode {
    if let Some(verifier) = verifier
        && let Err(refusal) =
            verifier.check(bearer.unwrap_or_default(), exits.actions.instance.clock.unix_ms() / 1000).await
    {
        warn!(%refusal, "push refused");
        return if refusal.is_ours() { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::UNAUTHORIZED };
    }
    let Some(execution) = execution_of(body) else {
        debug!("a push that names no execution");
        return StatusCode::NO_CONTENT;
    };
    match handle(exits, &execution).await {
        Ok(true) => StatusCode::NO_CONTENT,
        Ok(false) => StatusCode::SERVICE_UNAVAILABLE,
        Err(error) => {
            warn!(execution, error = %chain(&error), "event not handled; it comes again");
            StatusCode::SERVICE_UNAVAILABLE
        }
    }
}

/// False: the execution has not ended yet, and the message has to come again.
async fn handle(exits: &ExitEvents, execution: &str) -> Result<bool, BusError> {
    for record in exits.actions.records.registry.list_live().await? {
        let Some((attempt, task)) = task_named(&record, execution) else { continue };
        let targets = exits.actions.launcher.targets.known();
        let Some(target) = targets.iter().find(|target| target.launcher.name() == task.launcher) else {
            return Ok(true);
        };
        for poll in 1..=POLLS {
            match target.launcher.status(&task).await {
                TaskStatus::Gone(exit_report) => {
                    let event =
                        TaskExitEvent { egress_id: record.egress_id.clone(), attempt, task: task.id, exit_report };
                    exits.handle(&event).await?;
                    return Ok(true);
                }
                _ if poll == POLLS => return Ok(false),
                _ => tokio::time::sleep(POLL_INTERVAL).await,
            }
        }
    }
    debug!(execution, "an execution that no record names");
    Ok(true)
}

fn task_named(record: &Record, execution: &str) -> Option<(u32, TaskRef)> {
    let is_it = |task: &TaskRef| task.id.rsplit_once("/executions/").is_some_and(|(_, name)| name == execution);
    let current = record.task().map(|task| (record.attempt, task));
    let earlier = record.dispatch.earlier.iter().map(|(attempt, task)| (*attempt, task));
    current.into_iter().chain(earlier).find(|(_, task)| is_it(task)).map(|(attempt, task)| (attempt, task.clone()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pushed(entry: &serde_json::Value) -> Vec<u8> {
        let message = json!({ "messageId": "1", "publishTime": "2026-11-22T10:00:00Z", "data": STANDARD.encode(entry.to_string()) });
        json!({ "message": message, "subscription": "projects/p/subscriptions/ended" }).to_string().into_bytes()
    }

    #[test]
    fn an_entry_names_its_execution_and_anything_else_names_none() {
        let entry = |method: &str, resource: &str| {
            pushed(
                &json!({ "protoPayload": { "methodName": method, "resourceName": resource, "status": { "code": 10 } } }),
            )
        };
        let named = |body: &[u8]| execution_of(body);
        assert_eq!(named(&entry("/Jobs.RunJob", "namespaces/p/executions/egress-1-x7k2p")).unwrap(), "egress-1-x7k2p");
        let long = "projects/p/locations/l/jobs/egress-1/executions/egress-1-x7k2p";
        assert_eq!(named(&entry("/Jobs.RunJob", long)).unwrap(), "egress-1-x7k2p");
        assert_eq!(named(&entry("/Services.ReplaceService", long)), None);
        assert_eq!(named(&entry("/Jobs.RunJob", "namespaces/p/jobs/egress-1")), None);
        assert_eq!(named(&pushed(&json!({}))), None);
        assert_eq!(named(b"{}"), None);
        assert_eq!(named(b"\xff"), None);
    }
}
