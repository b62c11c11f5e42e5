use std::future::Future;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

/// Leaving, designed: one token that asks, one tracker that waits.
#[derive(Clone, Default, Debug)]
pub struct Shutdown {
    token: CancellationToken,
    tasks: TaskTracker,
}

impl Shutdown {
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks everybody to leave; they finish what they hold.
    pub fn trigger(&self) {
        self.token.cancel();
    }

    pub fn is_triggered(&self) -> bool {
        self.token.is_cancelled()
    }

    pub async fn triggered(&self) {
        self.token.cancelled().await;
    }

    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    pub fn spawn<F>(&self, task: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tasks.spawn(task)
    }

    /// Asks, then waits for every spawned task. False when some were still running after `timeout`.
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

/// SIGTERM and SIGINT, as they come. Both may come more than once.
pub struct Signals {
    term: tokio::signal::unix::Signal,
    int: tokio::signal::unix::Signal,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    Term,
    Int,
}

impl Signals {
    /// From here on the two signals no longer end the process by themselves.
    pub fn listen() -> std::io::Result<Self> {
        Ok(Self { term: signal(SignalKind::terminate())?, int: signal(SignalKind::interrupt())? })
    }

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
    async fn tasks_finish_what_they_hold() {
        let shutdown = Shutdown::new();
        let token = shutdown.token();
        let task = shutdown.spawn(async move {
            token.cancelled().await;
            "done"
        });
        assert!(shutdown.shut_down(Duration::from_secs(3)).await);
        assert_eq!(task.await.unwrap(), "done");
    }
}
