//! Shutdown of a process: its tasks with a deadline, and the signals that ask for it.

use std::future::Future;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

/// Asks the tasks of a process to end and waits for them. Clones are one shutdown.
#[derive(Clone, Default, Debug)]
pub struct Shutdown {
    token: CancellationToken,
    tasks: TaskTracker,
}

impl Shutdown {
    /// Not triggered, no tasks.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks every task to end; a task finishes its unit of work first.
    pub fn trigger(&self) {
        self.token.cancel();
    }

    /// Waits for [`Shutdown::trigger`].
    pub async fn triggered(&self) {
        self.token.cancelled().await;
    }

    /// A task on the current runtime that [`Shutdown::shut_down`] waits for. It must watch [`Shutdown::triggered`] itself.
    pub fn spawn<F>(&self, task: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tasks.spawn(task)
    }

    /// Triggers, then waits for every spawned task. False when some were still running after `timeout`; they run on.
    pub async fn shut_down(&self, timeout: Duration) -> bool {
        self.trigger();
        self.tasks.close();
        let in_time = tokio::time::timeout(timeout, self.tasks.wait()).await.is_ok();
        if !in_time {
            warn!(still_running = self.tasks.len(), ?timeout, "shutdown deadline passed");
        }
        in_time
    }
}

/// Stream of SIGTERM and SIGINT. Each may arrive more than once.
pub struct Signals {
    term: tokio::signal::unix::Signal,
    int: tokio::signal::unix::Signal,
}

/// A signal that asks the process to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM, from a container platform or supervisor.
    Term,
    /// SIGINT, from a terminal.
    Int,
}

impl Signals {
    /// Takes over both signals: from here on they no longer end the process by default.
    ///
    /// # Errors
    ///
    /// The operating system refuses a handler. A retry is useless.
    pub fn listen() -> std::io::Result<Self> {
        Ok(Self { term: signal(SignalKind::terminate())?, int: signal(SignalKind::interrupt())? })
    }

    /// The next signal, also one that arrived between two calls.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.term.recv() => Signal::Term,
            _ = self.int.recv() => Signal::Int,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_task_that_stays_is_reported_and_does_not_hold_us() {
        let shutdown = Shutdown::new();
        shutdown.spawn(std::future::pending::<()>());
        assert!(!shutdown.shut_down(Duration::from_secs(3)).await);
    }

    #[tokio::test]
    async fn tasks_finish_their_work() {
        let shutdown = Shutdown::new();
        let asked = shutdown.clone();
        let task = shutdown.spawn(async move {
            asked.triggered().await;
            "done"
        });
        assert!(shutdown.shut_down(Duration::from_secs(3)).await);
        assert_eq!(task.await.unwrap(), "done");
    }
}
