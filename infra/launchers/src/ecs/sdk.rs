//! Tasks and errors of AWS' SDK as the plain values that `api` reads. Pure.

use aws_sdk_ecs::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_ecs::types::Task;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use spillway_process::chain;

use super::api::{self, DescribedTask};
use crate::launcher::LaunchError;

/// A task of an answer. `container`: name of the runner's container.
pub(super) fn described(task: &Task, container: &str) -> DescribedTask {
    let containers = task.containers();
    let container = containers.iter().find(|it| it.name() == Some(container)).or(containers.first());
    let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
    let milliseconds = |at: Option<&aws_smithy_types::DateTime>| at.and_then(|at| at.to_millis().ok());
    DescribedTask {
        last_status: text(task.last_status()),
        stop_code: text(task.stop_code().map(|code| code.as_str())),
        stopped_reason: text(task.stopped_reason()),
        capacity_provider: text(task.capacity_provider_name()),
        cpu: text(task.cpu()),
        memory: text(task.memory()),
        disk_gib: task.ephemeral_storage().and_then(|disk| disk.size_in_gib().try_into().ok()),
        exit_code: container.and_then(|container| container.exit_code()),
        container_reason: text(container.and_then(|container| container.reason())),
        container_status: text(container.and_then(|container| container.last_status())),
        pull_started: milliseconds(task.pull_started_at()),
        stopped: milliseconds(task.stopped_at()),
    }
}

/// The error of a failed request. Without an answer the order may have been taken; then the client token finds the task.
pub(super) fn refusal<E>(error: SdkError<E, HttpResponse>) -> LaunchError
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    let status = error.raw_response().map(|response| response.status().as_u16());
    let Some(status) = status else {
        // A retry cannot help without credentials.
        let message = chain(&error).to_string();
        if message.contains("credentials") {
            // Without its source, which quotes profiles and metadata services.
            return LaunchError::Misconfigured { message: "no credentials for ECS".to_owned(), source: None };
        }
        return LaunchError::Transient { message: "ECS did not answer".to_owned(), source: Some(error.into()) };
    };
    let (code, message) = (error.code().unwrap_or_default().to_owned(), error.message().unwrap_or_default().to_owned());
    api::refused(&code, &message, status, error.into())
}
