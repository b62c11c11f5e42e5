//! A container on a machine with Docker, over the daemon's socket. The container's name is made of egress and attempt; the
//! handover goes through the container's standard input, so that it is not in the container's configuration. Everything runs
//! in the caller's task.
//!
//! The launcher attaches before it starts the container: what it writes is buffered until the program reads. Detaching before
//! the start closes standard input for good, so a container that was created and never started is replaced by the next launch.

mod api;
mod options;

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use bollard::errors::Error;
use bollard::models::{ContainerCreateBody, ContainerStateStatusEnum, HostConfig};
use bollard::query_parameters::{
    AttachContainerOptions, CreateContainerOptions, CreateImageOptions, InspectContainerOptions, KillContainerOptions,
    ListContainersOptions, RemoveContainerOptions, StartContainerOptions,
};
use bollard::{API_DEFAULT_VERSION, Docker};
use futures_util::TryStreamExt;
use spillway_cost::Platform;
use spillway_process::chain;
use tokio::io::AsyncWriteExt;
use tokio::sync::OnceCell;
use tracing::{debug, warn};

use self::api::{NOT_STARTED, limits, refusal, refusal_of_one, status, task_status};
pub use self::options::DockerOptions;
use crate::exit::TaskExit;
use crate::labels;
use crate::launcher::{LaunchError, LaunchOrder, Launcher, OwnedTask, StopMode, StopOutcome, TaskRef, TaskStatus};
use crate::memory::Memory;

/// Timeout of a request to the daemon, seconds.
const ANSWER_S: u64 = 30;
/// How long the runner may leave its standard input unread.
const HANDOVER_TIMEOUT: Duration = Duration::from_secs(10);
/// Containers that have ended and are older than this, ms, are removed when tasks are listed.
const KEPT_MS: i64 = 10 * 60 * 1000;

/// One target on a machine with Docker.
pub struct DockerLauncher {
    options: DockerOptions,
    /// Connected at the first call, with the API version negotiated.
    docker: OnceCell<Docker>,
    daemon: OnceCell<Daemon>,
    memory: Memory,
    /// Held while a container is created and started, so that a second launch finds it started.
    starting: tokio::sync::Mutex<()>,
}

struct Daemon {
    /// Containers of another daemon cannot be seen from here.
    id: String,
    /// Cores of its machine; it refuses a container that asks for more.
    cores: Option<u32>,
}

impl DockerLauncher {
    /// Makes no request.
    pub fn new(options: DockerOptions) -> Self {
        Self {
            options,
            docker: OnceCell::new(),
            daemon: OnceCell::new(),
            memory: Memory::default(),
            starting: tokio::sync::Mutex::default(),
        }
    }

    async fn docker(&self) -> Result<&Docker, Error> {
        let connect = || async {
            Docker::connect_with_unix(&self.options.socket, ANSWER_S, API_DEFAULT_VERSION)?.negotiate_version().await
        };
        self.docker.get_or_try_init(connect).await
    }

    async fn daemon(&self) -> Result<&Daemon, Error> {
        let ask = || async {
            let info = self.docker().await?.info().await?;
            let cores = info.ncpu.and_then(|cores| u32::try_from(cores).ok()).filter(|cores| *cores > 0);
            Ok(Daemon { id: info.id.unwrap_or_default(), cores })
        };
        self.daemon.get_or_try_init(ask).await
    }

    async fn task(&self, container: &str) -> Result<TaskRef, Error> {
        Ok(TaskRef { launcher: self.options.name.clone(), id: format!("{}/{container}", self.daemon().await?.id) })
    }

    /// Id of a container of this daemon; `None`: the task is another launcher's. An error: the daemon does not answer.
    async fn ours<'a>(&self, task: &'a TaskRef) -> Result<Option<&'a str>, Error> {
        let Some((daemon, container)) = task.id.rsplit_once('/').filter(|_| task.launcher == self.options.name) else {
            return Ok(None);
        };
        Ok((daemon == self.daemon().await?.id).then_some(container))
    }

    fn image(&self, order: &LaunchOrder) -> &str {
        order.image(&self.options.image, self.options.page_image.as_deref())
    }

    fn body(&self, order: &LaunchOrder, cores: Option<u32>) -> ContainerCreateBody {
        let options = &self.options;
        let open = options.environment.iter().map(|(name, value)| format!("{name}={value}"));
        let names = order.environment(&options.stack).into_iter().map(|(name, value)| format!("{name}={value}"));
        let labels: HashMap<String, String> = labels::of(order, &options.stack).into_iter().collect();
        let (security_opt, shm_size) = limits(order.page);
        let host = HostConfig {
            memory: Some(i64::from(order.shape.memory_mib) << 20),
            // Without it the kernel swaps before it kills.
            memory_swap: Some(i64::from(order.shape.memory_mib) << 20),
            nano_cpus: Some(i64::from(given(order, cores)) * 1_000_000),
            init: Some(true),
            network_mode: options.network.clone(),
            binds: Some(options.volumes.clone()),
            readonly_rootfs: Some(options.read_only),
            tmpfs: (options.read_only).then(|| HashMap::from([("/tmp".to_owned(), "exec".to_owned())])),
            cap_drop: Some(vec!["ALL".to_owned()]),
            security_opt: Some(security_opt),
            shm_size,
            ..HostConfig::default()
        };
        ContainerCreateBody {
            image: Some(self.image(order).to_owned()),
            env: Some(open.chain(names).collect()),
            labels: Some(labels),
            user: options.user.clone(),
            attach_stdin: Some(true),
            open_stdin: Some(true),
            // Detaching closes it for the program too.
            stdin_once: Some(true),
            host_config: Some(host),
            ..ContainerCreateBody::default()
        }
    }

    async fn pull(&self, image: &str) -> Result<(), LaunchError> {
        let asked = CreateImageOptions { from_image: Some(image.to_owned()), ..CreateImageOptions::default() };
        let docker = self.docker().await.map_err(refusal)?;
        let pulled = docker.create_image(Some(asked), None, None).try_collect::<Vec<_>>().await;
        pulled.map(|_| ()).map_err(|error| LaunchError::Misconfigured {
            message: format!("the image {image} could not be pulled"),
            source: Some(error.into()),
        })
    }

    /// Creates the container and returns its id, or that of an earlier call.
    async fn create(&self, order: &LaunchOrder) -> Result<String, LaunchError> {
        let name = format!("spillway-{}-{}", order.egress_id, order.attempt);
        let docker = self.docker().await.map_err(refusal)?;
        let body = self.body(order, self.daemon().await.map_err(refusal)?.cores);
        let (mut pulled, mut replaced) = (false, false);
        loop {
            let named = CreateContainerOptions { name: Some(name.clone()), ..CreateContainerOptions::default() };
            match docker.create_container(Some(named), body.clone()).await {
                Ok(made) => return Ok(made.id),
                Err(error) => match status(&error) {
                    Some(409) => match self.made_before(&name).await? {
                        Some(id) => {
                            debug!(egress_id = %order.egress_id, name, "container of an earlier call found");
                            return Ok(id);
                        }
                        None if replaced => {
                            let message = format!("another process makes {name} at the same time");
                            return Err(LaunchError::Transient { message, source: None });
                        }
                        None => replaced = true,
                    },
                    Some(404) if !pulled => {
                        self.pull(self.image(order)).await?;
                        pulled = true;
                    }
                    _ => return Err(refusal(error)),
                },
            }
        }
    }

    /// Id of the container of this name, if it was ever started; otherwise it is removed.
    async fn made_before(&self, name: &str) -> Result<Option<String>, LaunchError> {
        let docker = self.docker().await.map_err(refusal)?;
        let there = docker.inspect_container(name, None::<InspectContainerOptions>).await.map_err(refusal_of_one)?;
        let state = there.state.unwrap_or_default();
        if task_status(&state, None) != TaskStatus::Starting(NOT_STARTED.to_owned()) {
            return Ok(Some(there.id.unwrap_or_else(|| name.to_owned())));
        }
        match docker.remove_container(name, None::<RemoveContainerOptions>).await {
            Err(error) if status(&error) != Some(404) => Err(refusal_of_one(error)),
            _ => Ok(None),
        }
    }

    /// Starts a container and hands over its orders; does nothing to one that was started before.
    async fn start(&self, container: &str, order: &LaunchOrder) -> Result<(), LaunchError> {
        let docker = self.docker().await.map_err(refusal)?;
        let there = docker.inspect_container(container, None::<InspectContainerOptions>).await;
        let there = there.map_err(refusal_of_one)?;
        if there.state.and_then(|state| state.status) != Some(ContainerStateStatusEnum::CREATED) {
            return Ok(());
        }
        let stdin = AttachContainerOptions { stdin: true, stream: true, ..AttachContainerOptions::default() };
        let mut attached = docker.attach_container(container, Some(stdin)).await.map_err(refusal_of_one)?;
        if let Err(error) = docker.start_container(container, None::<StartContainerOptions>).await
            && !self.runs(container).await
        {
            return Err(refusal_of_one(error));
        }
        let line = format!("{}\n", order.handover.reveal());
        let write = async {
            attached.input.write_all(line.as_bytes()).await?;
            attached.input.shutdown().await
        };
        match tokio::time::timeout(HANDOVER_TIMEOUT, write).await {
            Ok(Ok(())) => {}
            // It has exited already; `status` will say how.
            Ok(Err(error)) => debug!(%error, "runner left before it read its orders"),
            Err(_) => {
                let kill = KillContainerOptions { signal: "KILL".to_owned() };
                docker.kill_container(container, Some(kill)).await.map_err(refusal)?;
                let message = "the runner does not read its standard input".to_owned();
                return Err(LaunchError::Transient { message, source: None });
            }
        }
        Ok(())
    }

    /// Whether a container runs although its start failed or the answer was lost: then it waits for its orders.
    async fn runs(&self, container: &str) -> bool {
        matches!(self.seen(container).await, Ok(TaskStatus::Alive))
    }

    async fn seen(&self, container: &str) -> Result<TaskStatus, Error> {
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

/// Thousandths of a core: those of the order, at most all of the machine. A recording that needs more falls behind, and
/// there is no other machine on this target.
fn given(order: &LaunchOrder, cores: Option<u32>) -> u32 {
    let (wanted, max) = (order.shape.cpu_milli, cores.map_or(u32::MAX, |cores| cores.saturating_mul(1000)));
    if wanted > max {
        warn!(egress_id = %order.egress_id, wanted, max, "container gets all cores of the machine, which are fewer than it needs");
    }
    wanted.min(max)
}

#[async_trait]
impl Launcher for DockerLauncher {
    fn name(&self) -> &str {
        &self.options.name
    }

    async fn launch(&self, order: &LaunchOrder) -> Result<TaskRef, LaunchError> {
        let _one_at_a_time = self.starting.lock().await;
        let container = self.create(order).await?;
        self.start(&container, order).await?;
        self.task(&container).await.map_err(refusal)
    }

    async fn status(&self, task: &TaskRef) -> TaskStatus {
        let container = match self.ours(task).await {
            Ok(Some(container)) => container,
            Ok(None) => return TaskStatus::Unknown("not a container of this Docker".to_owned()),
            Err(error) => return TaskStatus::Unknown(format!("Docker did not answer: {}", chain(&error))),
        };
        match self.seen(container).await {
            Ok(TaskStatus::Gone(exit_report)) => TaskStatus::Gone(exit_report.ended_by(self.memory.ended(container))),
            Ok(seen) => seen,
            Err(error) => TaskStatus::Unknown(format!("Docker did not answer: {}", chain(&error))),
        }
    }

    /// Signals, not `docker stop`: that would wait, and kill after a time.
    async fn end(&self, task: &TaskRef, how: StopMode) -> StopOutcome {
        let Ok(Some(container)) = self.ours(task).await else { return StopOutcome::OutOfReach };
        let Ok(docker) = self.docker().await else { return StopOutcome::OutOfReach };
        match self.seen(container).await {
            Ok(TaskStatus::Gone(_)) => return StopOutcome::AlreadyGone,
            Ok(TaskStatus::Starting(_)) => {
                // Never started: there is nothing to signal.
                let force = RemoveContainerOptions { force: true, ..RemoveContainerOptions::default() };
                let removed = docker.remove_container(container, Some(force)).await;
                return if removed.is_ok() { StopOutcome::Requested } else { StopOutcome::OutOfReach };
            }
            Ok(_) => {}
            Err(_) => return StopOutcome::OutOfReach,
        }
        let signal = match how {
            StopMode::Graceful => "TERM",
            StopMode::Immediate => "KILL",
        };
        match docker.kill_container(container, Some(KillContainerOptions { signal: signal.to_owned() })).await {
            Ok(()) => {
                self.memory.end(container, how.reason());
                StopOutcome::Requested
            }
            Err(error) if matches!(status(&error), Some(404 | 409)) => StopOutcome::AlreadyGone,
            Err(error) => {
                warn!(%task, error = %chain(&error), "container not signalled");
                StopOutcome::OutOfReach
            }
        }
    }

    /// Also removes containers that ended a while ago.
    async fn tasks(&self) -> Result<Vec<OwnedTask>, LaunchError> {
        let filters = HashMap::from([("label".to_owned(), vec![format!("stack={}", self.options.stack)])]);
        let asked = ListContainersOptions { all: true, filters: Some(filters), ..ListContainersOptions::default() };
        let mut owned = Vec::new();
        let docker = self.docker().await.map_err(refusal)?;
        for container in docker.list_containers(Some(asked)).await.map_err(refusal)? {
            let labels = container.labels.unwrap_or_default();
            let label = |name: &str| labels.get(name).map(String::as_str);
            let (Some(id), Some((egress_id, attempt, installation))) =
                (container.id, labels::read(&self.options.stack, label))
            else {
                continue;
            };
            let started_ms = container.created.map(|seconds| seconds * 1000);
            match self.seen(&id).await.map_err(refusal)? {
                TaskStatus::Gone(_) => {
                    let old = started_ms.is_some_and(|at| unix_ms() - at > KEPT_MS);
                    if old && let Err(error) = docker.remove_container(&id, None::<RemoveContainerOptions>).await {
                        debug!(error = %chain(&error), "container that is over not removed");
                    }
                }
                _ => owned.push(OwnedTask {
                    egress_id,
                    attempt,
                    task: self.task(&id).await.map_err(refusal)?,
                    installation,
                    started_ms,
                }),
            }
        }
        Ok(owned)
    }

    fn platform(&self) -> Platform {
        Platform::Host
    }

    fn takes_pages(&self) -> bool {
        self.options.page_image.is_some()
    }
}

/// The daemon's time stamps are those of this machine's clock: the socket is local.
fn unix_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
