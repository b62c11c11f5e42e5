//! Live migration: Cloud Run moves a long job to another machine. It says so with SIGTSTP, whose default action would stop
//! the process for good, and with SIGCONT when it goes on: with another network under connections that look alive.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The same number on every Linux but MIPS and SPARC.
const TSTP: i32 = 20;
const CONT: i32 = 18;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MigrationSignal {
    /// In some seconds.
    Announced,
    /// Connections from before are dead, or will be found to be.
    Completed,
}

pub struct MigrationSignals {
    stop: Signal,
    go_on: Signal,
    /// A SIGCONT alone comes from somebody who had stopped us; connections have lived on.
    announced: bool,
}

impl MigrationSignals {
    /// From here on SIGTSTP no longer stops the process.
    pub fn listen() -> std::io::Result<Self> {
        let (stop, go_on) = (SignalKind::from_raw(TSTP), SignalKind::from_raw(CONT));
        Ok(Self { stop: signal(stop)?, go_on: signal(go_on)?, announced: false })
    }

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
