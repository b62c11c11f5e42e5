//! One connection for commands, shared by all callers. A background task pings it and replaces it when it breaks;
//! callers wait for it for a bounded time.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, ErrorKind, Pipeline, RedisError, ServerErrorKind, Value};
use spillway_process::chain;
use spillway_process::retry::RetrySchedule;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{info, warn};

use super::dial::{Connection, Endpoint, SharedDialler};
use crate::error::BusError;

/// How often a connection is pinged.
pub(super) const PING_EVERY: Duration = Duration::from_secs(5);
/// How long the answer to a ping may take.
pub(super) const PING_WITHIN: Duration = Duration::from_secs(5);

/// Waits between attempts to connect. The first is short: a restart of Redis takes less than a second.
pub(super) fn reconnecting() -> RetrySchedule {
    RetrySchedule::new(Duration::from_millis(50), Duration::from_secs(2))
}

/// A server, or the master the Sentinels name.
pub(super) struct Node {
    live: watch::Receiver<Option<LiveConnection>>,
    /// The latest generation a caller found broken.
    broken: watch::Sender<u64>,
    answer_timeout: Duration,
    _reconnect: DropGuard,
}

#[derive(Clone)]
struct LiveConnection {
    /// Counts the connections of this node.
    generation: u64,
    address: String,
    connection: MultiplexedConnection,
    /// Cancelled when the socket is closed.
    closed: CancellationToken,
}

/// A server's answer.
pub(super) enum NodeReply {
    /// The command's result.
    Done(Value),
    /// An error reply; in a Cluster it may redirect.
    Refused {
        /// host:port of the server.
        address: String,
        /// The reply.
        error: RedisError,
    },
}

/// Whether a Cluster's server is to answer for a slot that is being moved to it (ASKING).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asking {
    /// ASKING is sent first.
    Yes,
    /// The command alone.
    No,
}

#[derive(Clone, Copy)]
enum Question<'a> {
    One(&'a Cmd, Asking),
    Many(&'a Pipeline),
}

impl LiveConnection {
    fn new(generation: u64, conn: Connection) -> Self {
        Self { generation, address: conn.address, connection: conn.connection, closed: conn.closed }
    }
}

impl Node {
    /// Returns when the first connection is made.
    ///
    /// # Errors
    /// As [`super::dial::Dialler::commands`]; nothing goes on in the background then.
    pub async fn connect(dialler: SharedDialler, target: Endpoint) -> Result<Self, BusError> {
        let first = dialler.commands(&target).await?;
        Ok(Self::start(dialler, target, Some(first)))
    }

    /// Connects in the background, unless `first` is given.
    pub fn start(dialler: SharedDialler, target: Endpoint, first: Option<Connection>) -> Self {
        let first = first.map(|conn| LiveConnection::new(1, conn));
        let (live, watched) = watch::channel(first);
        let (broken, reports) = watch::channel(0);
        let stop = CancellationToken::new();
        let answer_timeout = dialler.answer;
        let reconnect = ReconnectTask { dialler, target, live, reports };
        let stopped = stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = reconnect.run() => {}
                () = stopped.cancelled() => {}
            }
        });
        Self { live: watched, broken, answer_timeout, _reconnect: stop.drop_guard() }
    }

    /// Whether there is a connection that no caller found broken.
    pub fn is_up(&self) -> bool {
        self.live.borrow().as_ref().is_some_and(|live| live.generation > *self.broken.borrow())
    }

    /// The connection; waits up to the answer timeout while it is being made.
    async fn live(&self, act: &'static str) -> Result<LiveConnection, BusError> {
        let mut watched = self.live.clone();
        // A connection that was reported broken is not used again, even before the background task has read the report.
        let fit =
            |live: &Option<LiveConnection>| live.as_ref().is_some_and(|live| live.generation > *self.broken.borrow());
        let found = timeout(self.answer_timeout, watched.wait_for(fit)).await;
        match found {
            Ok(Ok(live)) => live.clone().ok_or(BusError::Closed),
            Ok(Err(_)) => Err(BusError::Closed),
            Err(_) => Err(BusError::Command { act, source: "not connected".into() }),
        }
    }

    /// Runs once, and once more on a new connection if the old one is gone: every command of this crate may be
    /// repeated (a repeated message is known by its id, a repeated write loses its compare-and-set).
    ///
    /// # Errors
    /// No connection in time, a second connection was lost too, or no answer in time. The command may have been done.
    pub async fn run(&self, act: &'static str, cmd: &Cmd, asking: Asking) -> Result<NodeReply, BusError> {
        self.ask(act, Question::One(cmd, asking)).await
    }

    /// All of them in one round trip; the answers are in an array.
    ///
    /// # Errors
    /// As [`Node::run`].
    pub async fn run_all(&self, act: &'static str, pipe: &Pipeline) -> Result<NodeReply, BusError> {
        self.ask(act, Question::Many(pipe)).await
    }

    async fn ask(&self, act: &'static str, question: Question<'_>) -> Result<NodeReply, BusError> {
        let mut again = true;
        loop {
            let live = self.live(act).await?;
            let mut connection = live.connection.clone();
            let answer = match question {
                Question::One(cmd, Asking::No) => cmd.query_async(&mut connection).await,
                Question::One(cmd, Asking::Yes) => {
                    let mut both = redis::pipe();
                    both.cmd("ASKING").ignore().add_command(cmd.clone());
                    both.query_async(&mut connection).await.map(|(answer,): (Value,)| answer)
                }
                Question::Many(pipe) => pipe.query_async(&mut connection).await,
            };
            match answer {
                Ok(done) => return Ok(NodeReply::Done(done)),
                Err(error) if is_gone(&error) => {
                    self.report(&live);
                    if !again {
                        return Err(BusError::Command { act, source: error.into() });
                    }
                    again = false;
                }
                Err(error) if error.is_timeout() => return Err(BusError::Silent { act }),
                Err(error) => return Ok(NodeReply::Refused { address: live.address, error }),
            }
        }
    }

    fn report(&self, live: &LiveConnection) {
        self.broken.send_if_modified(|broken| {
            let newer = *broken < live.generation;
            *broken = live.generation.max(*broken);
            newer
        });
    }
}

/// Whether the connection must be replaced. A former master answers READONLY.
fn is_gone(error: &RedisError) -> bool {
    let turned = matches!(
        error.kind(),
        ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown | ServerErrorKind::BusyLoading)
    );
    turned || (error.is_unrecoverable_error() && !error.is_timeout())
}

struct ReconnectTask {
    dialler: SharedDialler,
    target: Endpoint,
    live: watch::Sender<Option<LiveConnection>>,
    reports: watch::Receiver<u64>,
}

impl ReconnectTask {
    async fn run(mut self) {
        let mut generation = 1;
        let mut waits = reconnecting();
        let mut down = false;
        loop {
            let standing = self.live.borrow().clone();
            match standing {
                Some(live) => {
                    self.watch(live).await;
                    self.live.send_replace(None);
                }
                None => match self.dialler.commands(&self.target).await {
                    Ok(conn) => {
                        if std::mem::take(&mut down) {
                            info!(address = conn.address, "redis is back for commands");
                        }
                        generation += 1;
                        waits = reconnecting();
                        self.live.send_replace(Some(LiveConnection::new(generation, conn)));
                    }
                    Err(error) => {
                        if !std::mem::replace(&mut down, true) {
                            warn!(error = %chain(&error), "redis is away for commands");
                        }
                        tokio::time::sleep(waits.wait()).await;
                    }
                },
            }
        }
    }

    /// Returns when the connection is broken.
    async fn watch(&mut self, live: LiveConnection) {
        loop {
            tokio::select! {
                () = live.closed.cancelled() => return,
                // The sender is a field of the node, which cancels this task when it is dropped.
                _ = self.reports.wait_for(|broken| *broken >= live.generation) => return,
                () = tokio::time::sleep(PING_EVERY) => {}
            }
            let mut connection = live.connection.clone();
            let ping = redis::cmd("PING");
            match timeout(PING_WITHIN, ping.query_async::<String>(&mut connection)).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) if error.is_timeout() => return,
                Ok(Err(error)) if !is_gone(&error) => {}
                Ok(Err(_)) | Err(_) => return,
            }
        }
    }
}
