//! Live migration: Cloud Run moves a long job to another machine. It announces that with SIGTSTP, whose default action would
//! stop the process for good, and sends SIGCONT when the process goes on: with another network under connections that look
//! alive. Signals come in, [`MigrationSignal`]s go out; runs within a tokio runtime and touches no connection.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The same number on every Linux but MIPS and SPARC.
const TSTP: i32 = 20;
const CONT: i32 = 18;

/// A step of a live migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MigrationSignal {
    /// The move begins within seconds.
    Announced,
    /// The process runs on another machine: connections from before are dead, or will be found to be.
    Completed,
}

/// Listens for the signals of a live migration.
pub struct MigrationSignals {
    stop: Signal,
    go_on: Signal,
    /// A SIGCONT without SIGTSTP before it comes after a SIGSTOP, where connections stay alive.
    announced: bool,
}

impl MigrationSignals {
    /// From here on SIGTSTP no longer stops the process. To be called within a tokio runtime.
    ///
    /// # Errors
    /// The operating system refuses a signal handler; a retry changes nothing.
    pub fn listen() -> std::io::Result<Self> {
        let (stop, go_on) = (SignalKind::from_raw(TSTP), SignalKind::from_raw(CONT));
        Ok(Self { stop: signal(stop)?, go_on: signal(go_on)?, announced: false })
    }

    /// Waits for the next step. Cancel-safe.
    pub async fn next(&mut self) -> MigrationSignal {
        loop {
            tokio::select! {
                biased;
                _ = self.stop.recv() => {
                    self.announced = true;
                    return MigrationSignal::Announced;
                }
                _ = self.go_on.recv() => {
                    if std::mem::take(&mut self.announced) {
                        return MigrationSignal::Completed;
                    }
                }
            }
        }
    }
}
