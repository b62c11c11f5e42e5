//! The connection to one daemon, and what it tells about itself and its containers. Everything runs in the caller's task.

use bollard::errors::Error;
use bollard::query_parameters::{InspectContainerOptions, LogsOptions};
use bollard::{API_DEFAULT_VERSION, Docker};
use futures_util::TryStreamExt;
use tokio::sync::OnceCell;

use super::api::{status, task_status};
use crate::exit::TaskExit;
use crate::launcher::TaskStatus;

/// Timeout of a request to the daemon, seconds.
const ANSWER_S: u64 = 30;
/// Of a container's log, so many lines from its end are read.
const LOG_LINES: &str = "200";

/// A daemon, connected at the first call, with the API version negotiated.
pub(super) struct DockerDaemon {
    socket: String,
    docker: OnceCell<Docker>,
    info: OnceCell<DaemonInfo>,
}

/// What a daemon says about itself.
pub(super) struct DaemonInfo {
    /// Containers of another daemon cannot be seen from here.
    pub id: String,
    /// Cores of its machine; it refuses a container that asks for more.
    pub cores: Option<u32>,
}

impl DockerDaemon {
    /// `socket`: path of its Unix socket. Makes no request.
    pub(super) fn new(socket: String) -> Self {
        Self { socket, docker: OnceCell::new(), info: OnceCell::new() }
    }

    /// The connection, made at the first call.
    pub(super) async fn docker(&self) -> Result<&Docker, Error> {
        let connect = || async {
            Docker::connect_with_unix(&self.socket, ANSWER_S, API_DEFAULT_VERSION)?.negotiate_version().await
        };
        self.docker.get_or_try_init(connect).await
    }

    /// What the daemon says about itself, asked once.
    pub(super) async fn info(&self) -> Result<&DaemonInfo, Error> {
        let ask = || async {
            let info = self.docker().await?.info().await?;
            let cores = info.ncpu.and_then(|cores| u32::try_from(cores).ok()).filter(|cores| *cores > 0);
            Ok(DaemonInfo { id: info.id.unwrap_or_default(), cores })
        };
        self.info.get_or_try_init(ask).await
    }

    /// The end of a container's log.
    pub(super) async fn last_lines(&self, container: &str) -> Result<String, Error> {
        let asked = LogsOptions { stdout: true, stderr: true, tail: LOG_LINES.to_owned(), ..LogsOptions::default() };
        let parts: Vec<_> = self.docker().await?.logs(container, Some(asked)).try_collect().await?;
        Ok(parts.iter().map(ToString::to_string).collect())
    }

    /// Whether a container runs although its start failed or the answer was lost: then it waits for its orders.
    pub(super) async fn runs(&self, container: &str) -> bool {
        matches!(self.seen(container).await, Ok(TaskStatus::Alive))
    }

    /// Status of a container of this daemon.
    pub(super) async fn seen(&self, container: &str) -> Result<TaskStatus, Error> {
        match self.docker().await?.inspect_container(container, None::<InspectContainerOptions>).await {
            Ok(there) => {
                let limit = there.host_config.and_then(|host| host.memory).filter(|bytes| *bytes > 0);
                let limit_mib = limit.and_then(|bytes| u32::try_from(bytes >> 20).ok());
                Ok(task_status(&there.state.unwrap_or_default(), limit_mib))
            }
            // It was removed, by an operator or by Docker's cleanup.
            Err(error) if status(&error) == Some(404) => Ok(TaskStatus::Gone(TaskExit::Unknown.into())),
            Err(error) => Err(error),
        }
    }
}
