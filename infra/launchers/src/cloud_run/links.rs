//! Pages of an execution in Google's console, and the command that reads its log. Pure.

use super::options::CloudRunOptions;
use crate::links::{TaskLinks, encoded};

/// `id`: `projects/…/jobs/<job>/executions/<execution>`. The addresses are those that `gcloud run jobs execute` prints.
pub(super) fn of(id: &str, options: &CloudRunOptions) -> TaskLinks {
    let CloudRunOptions { project, location, .. } = options;
    let [project, location, execution] = [project.as_str(), location.as_str(), execution(id)].map(encoded);
    let page = |tab| {
        format!(
            "https://console.cloud.google.com/run/jobs/executions/details/{location}/{execution}/{tab}?project={project}"
        )
    };
    TaskLinks { task_url: Some(page("tasks")), log_url: Some(page("logs")) }
}

/// Where people find the log of an execution.
pub(super) fn log_of(id: &str, options: &CloudRunOptions) -> String {
    format!(
        "Cloud Logging: gcloud logging read 'labels.\"run.googleapis.com/execution_name\"=\"{}\"' --project {}",
        execution(id),
        options.project
    )
}

fn execution(id: &str) -> &str {
    id.rsplit('/').next().unwrap_or_default()
}
