//! A runner as a child process of the dispatcher, in a session of its own, so that it survives the dispatcher. Used on one
//! machine without a platform. A task per child waits for its exit; after a restart, children are found again in `/proc`.

mod procfs;
mod task_log;

use std::collections::{HashMap, VecDeque};
use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rustix::process::Signal;
use spillway_cost::Platform;
use spillway_process::ProcessStat;
use spillway_process::environment::inherited;
use spillway_protocol::ids::EgressId;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};
use tracing::{debug, info};

use self::procfs::ProcessIdentity;
use crate::exit::{ExitReport, TaskExit};
use crate::launcher::{
    ATTEMPT, EGRESS_ID, INSTALLATION, LaunchError, LaunchOrder, Launcher, OwnedTask, STACK, StopMode, StopOutcome,
    TaskLog, TaskRef, TaskStatus,
};

const NAME: &str = "process";

/// What a runner needs from our environment beside what every child gets. Nothing else: an API secret in the dispatcher's
/// environment must not reach the runner.
const PASSED_ON: &[&str] = &["PATH", "USER", "SPILLWAY_LOG", "SPILLWAY_MEDIA"];

/// How long a child may leave its standard input unread; the line fits a pipe's buffer, so only a hanging child is slow.
const HANDOVER_TIMEOUT: Duration = Duration::from_secs(5);

/// Exits kept, those of the newest tasks; the dispatcher asks within seconds of the exit.
const REMEMBERED: usize = 4096;

/// How runners are started on this machine.
#[derive(Clone, Debug)]
pub struct ProcessOptions {
    /// Path of `spillway-runner`.
    pub program: PathBuf,
    /// Arguments before those of the order.
    pub args: Vec<OsString>,
    /// Directory for a log of each task, `<egress id>-<attempt>.log`; `None`: runners write to our standard error.
    pub log_dir: Option<PathBuf>,
    /// Tells our runners from those of other installations on this machine. Empty: only those that this launcher has started
    /// or found are ours.
    pub stack: String,
}

impl ProcessOptions {
    /// `spillway-runner` beside our own executable, no logs, no stack.
    ///
    /// # Errors
    /// The path of our own executable cannot be read.
    pub fn beside_us() -> io::Result<Self> {
        let program = std::env::current_exe()?.with_file_name("spillway-runner");
        Ok(Self { program, args: Vec::new(), log_dir: None, stack: String::new() })
    }
}

/// Starts runners on this machine.
pub struct ProcessLauncher {
    options: ProcessOptions,
    namespace: String,
    known: Arc<Mutex<TaskTable>>,
    /// Held while a child is started, so that two overlapping launches of one egress cannot both find nothing.
    starting: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct TaskTable {
    tasks: HashMap<(EgressId, u32), ProcessIdentity>,
    exits: HashMap<ProcessIdentity, TaskExit>,
    /// Reason of our signal.
    ended: HashMap<ProcessIdentity, String>,
    oldest_first: VecDeque<(EgressId, u32)>,
}

impl TaskTable {
    fn remember(&mut self, key: (EgressId, u32), identity: ProcessIdentity) {
        self.tasks.insert(key.clone(), identity);
        self.oldest_first.push_back(key);
        while self.oldest_first.len() > REMEMBERED {
            let Some(identity) = self.oldest_first.pop_front().and_then(|key| self.tasks.remove(&key)) else {
                continue;
            };
            self.exits.remove(&identity);
            self.ended.remove(&identity);
        }
    }
}

impl ProcessLauncher {
    /// Starts nothing.
    pub fn new(options: ProcessOptions) -> Self {
        Self { options, namespace: procfs::namespace(), known: Arc::default(), starting: tokio::sync::Mutex::default() }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, TaskTable> {
        // The table is valid after every statement, so a panic elsewhere breaks nothing.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn task(&self, identity: &ProcessIdentity) -> TaskRef {
        TaskRef { launcher: NAME.to_owned(), id: identity.text() }
    }

    /// The process of a task, if it was started on this boot and in this pid namespace by this kind of launcher.
    fn ours(&self, task: &TaskRef) -> Option<ProcessIdentity> {
        (task.launcher == NAME)
            .then(|| ProcessIdentity::parse(&task.id))
            .flatten()
            .filter(|it| it.namespace == self.namespace)
    }

    fn spawn(&self, order: &LaunchOrder) -> Result<Child, LaunchError> {
        let program = &self.options.program;
        if !procfs::is_executable(program) {
            let message = format!("{} is not an executable file", program.display());
            return Err(LaunchError::Misconfigured { message, source: None });
        }
        let log = match &self.options.log_dir {
            None => Stdio::inherit(),
            Some(dir) => task_log::open(dir, &order.egress_id, order.attempt).map(Stdio::from).map_err(|source| {
                LaunchError::Misconfigured {
                    message: format!("open a log file in {}", dir.display()),
                    source: Some(source.into()),
                }
            })?,
        };
        // `setsid` (util-linux) execs the program with the same pid: std has no safe call for a new session.
        Command::new("setsid")
            .arg(program)
            .args(&self.options.args)
            .args(order.arguments())
            .env_clear()
            .envs(inherited(PASSED_ON))
            .envs(order.names())
            .env(STACK, &self.options.stack)
            .env(INSTALLATION, &order.installation)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(spawn_error)
    }

    async fn start(&self, order: &LaunchOrder) -> Result<ProcessIdentity, LaunchError> {
        let mut child = self.spawn(order)?;
        let passing = |message: &str| LaunchError::Transient { message: message.to_owned(), source: None };
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).ok_or_else(|| passing("the child has no pid"))?;
        // It was not waited for yet, so even a child that has exited is still in /proc.
        let start_ticks = ProcessStat::of(pid).ok_or_else(|| passing("the child is not in /proc"))?.start_ticks;
        let identity = ProcessIdentity { namespace: self.namespace.clone(), pid, start_ticks };

        let line = format!("{}\n", order.handover.reveal());
        let mut stdin = child.stdin.take().ok_or_else(|| passing("the child has no standard input"))?;
        let handed = tokio::time::timeout(HANDOVER_TIMEOUT, stdin.write_all(line.as_bytes())).await;
        drop(stdin);
        match handed {
            Ok(Ok(())) => {}
            // It has exited already; `status` will say how.
            Ok(Err(error)) => debug!(%error, "runner left before it read its orders"),
            Err(_) => {
                identity.signal(Signal::KILL);
                return Err(passing("the runner does not read its standard input"));
            }
        }
        // From here on another dispatcher can find it by its environment.
        wait_for_own_session(&identity).await;
        self.known().remember((order.egress_id.clone(), order.attempt), identity.clone());
        tokio::spawn(reap(child, identity.clone(), Arc::clone(&self.known)));
        Ok(identity)
    }
}

#[async_trait]
impl Launcher for ProcessLauncher {
    fn name(&self) -> &str {
        NAME
    }

    async fn launch(&self, order: &LaunchOrder) -> Result<TaskRef, LaunchError> {
        let _one_at_a_time = self.starting.lock().await;
        let key = (order.egress_id.clone(), order.attempt);
        if let Some(identity) = self.known().tasks.get(&key) {
            return Ok(self.task(identity));
        }
        // An earlier dispatcher on this machine may have started it and crashed before it stored the task.
        let found =
            procfs::leaders(&self.namespace).find(|(_, environment)| names_in(environment).as_ref() == Some(&key));
        if let Some((identity, _)) = found {
            info!(egress_id = %order.egress_id, pid = identity.pid, "runner of an earlier dispatcher found");
            self.known().remember(key, identity.clone());
            return Ok(self.task(&identity));
        }
        let identity = self.start(order).await?;
        info!(egress_id = %order.egress_id, attempt = order.attempt, pid = identity.pid, "runner started");
        Ok(self.task(&identity))
    }

    async fn status(&self, task: &TaskRef) -> TaskStatus {
        let Some(identity) = self.ours(task) else {
            return TaskStatus::Unknown("the runner is on another machine".to_owned());
        };
        if identity.is_alive() {
            return TaskStatus::Alive;
        }
        // Between the exit and our wait() for it lies a moment; the exit of a process that is not our child is never known.
        let (exit, ended) = {
            let known = self.known();
            (known.exits.get(&identity).cloned(), known.ended.get(&identity).cloned())
        };
        match exit {
            Some(exit) => TaskStatus::Gone(ExitReport::from(exit).ended_by(ended)),
            None if ProcessStat::of(identity.pid).is_some_and(|stat| stat.start_ticks == identity.start_ticks) => {
                TaskStatus::Alive
            }
            // Not our child: all that is known is whether we stopped it.
            None => TaskStatus::Gone(ended.map_or(TaskExit::Unknown, TaskExit::EndedByUs).into()),
        }
    }

    async fn end(&self, task: &TaskRef, how: StopMode) -> StopOutcome {
        let Some(identity) = self.ours(task) else { return StopOutcome::OutOfReach };
        let signal = match how {
            StopMode::Graceful => Signal::TERM,
            StopMode::Immediate => Signal::KILL,
        };
        // Stored first: it may be gone before this call returns.
        let known_before = self.known().ended.contains_key(&identity);
        if !known_before {
            self.known().ended.insert(identity.clone(), how.reason().to_owned());
        }
        if identity.signal(signal) {
            return StopOutcome::Requested;
        }
        if !known_before {
            self.known().ended.remove(&identity);
        }
        StopOutcome::AlreadyGone
    }

    async fn log(&self, task: &TaskRef) -> TaskLog {
        let Some(dir) = &self.options.log_dir else {
            return TaskLog::At("standard error of the process that has started it".to_owned());
        };
        let identity = self.ours(task);
        let key =
            self.known().tasks.iter().find(|(_, known)| Some(*known) == identity.as_ref()).map(|(key, _)| key.clone());
        match key {
            Some((egress_id, attempt)) => task_log::tail(dir, &egress_id, attempt),
            None => TaskLog::At(dir.display().to_string()),
        }
    }

    /// The program is all that a launch needs from this machine.
    async fn check(&self) -> Result<(), LaunchError> {
        if procfs::is_executable(&self.options.program) {
            return Ok(());
        }
        let message = format!("{} is not an executable file", self.options.program.display());
        Err(LaunchError::Misconfigured { message, source: None })
    }

    async fn tasks(&self) -> Result<Vec<OwnedTask>, LaunchError> {
        let known: HashMap<_, _> =
            self.known().tasks.iter().map(|(key, identity)| (identity.clone(), key.clone())).collect();
        let stack = &self.options.stack;
        let owned = procfs::leaders(&self.namespace).filter_map(|(identity, environment)| {
            let ours = !stack.is_empty() && value_in(&environment, STACK) == Some(stack);
            let (egress_id, attempt) = if ours { names_in(&environment)? } else { known.get(&identity)?.clone() };
            let installation = value_in(&environment, INSTALLATION).unwrap_or_default().to_owned();
            Some(OwnedTask { egress_id, attempt, task: self.task(&identity), installation, started_ms: None })
        });
        Ok(owned.collect())
    }

    fn platform(&self) -> Platform {
        Platform::Host
    }

    fn is_this_machine(&self) -> bool {
        true
    }
}

/// Egress and attempt of a runner, by its environment (`NAME=value`, each ended by a zero byte).
fn names_in(environment: &[u8]) -> Option<(EgressId, u32)> {
    let egress_id = EgressId::parse(value_in(environment, EGRESS_ID)?).ok()?;
    Some((egress_id, value_in(environment, ATTEMPT)?.parse().ok()?))
}

fn value_in<'a>(environment: &'a [u8], name: &str) -> Option<&'a str> {
    let value = |entry: &'a [u8]| entry.strip_prefix(name.as_bytes())?.strip_prefix(b"=");
    std::str::from_utf8(environment.split(|byte| *byte == 0).find_map(value)?).ok()
}

/// Waits until `setsid` has made its session, a millisecond or two; at most a second, and not for a child that has exited.
async fn wait_for_own_session(identity: &ProcessIdentity) {
    for _ in 0..1000 {
        match ProcessStat::of(identity.pid) {
            Some(stat) if stat.session != identity.pid && !stat.is_dead() => {
                tokio::time::sleep(Duration::from_millis(1)).await
            }
            _ => return,
        }
    }
}

async fn reap(mut child: Child, identity: ProcessIdentity, known: Arc<Mutex<TaskTable>>) {
    let exit = match child.wait().await {
        Ok(status) => exit(status),
        Err(_) => TaskExit::Unknown,
    };
    debug!(pid = identity.pid, %exit, "runner left");
    known.lock().unwrap_or_else(PoisonError::into_inner).exits.insert(identity, exit);
}

fn exit(status: ExitStatus) -> TaskExit {
    match (status.signal(), status.code()) {
        (Some(signal), _) => TaskExit::Signalled(signal),
        (None, Some(code)) => TaskExit::Exited(code),
        (None, None) => TaskExit::Unknown,
    }
}

fn spawn_error(error: io::Error) -> LaunchError {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::OutOfMemory => {
            LaunchError::Capacity { message: format!("this machine takes no more processes: {error}") }
        }
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => LaunchError::Misconfigured {
            message: "start setsid (package util-linux)".to_owned(),
            source: Some(error.into()),
        },
        _ => LaunchError::Transient { message: "start the runner's process".to_owned(), source: Some(error.into()) },
    }
}
