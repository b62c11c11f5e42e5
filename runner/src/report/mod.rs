//! Facts → EgressInfo. `Reporter` keeps the ledger, is shared by all tasks of the runner and never waits; `publisher` writes the
//! newest EgressInfo to the registry and sends it to livekit-server, one at a time.

mod publisher;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use spillway_bus::Heartbeat;
use spillway_process::Clock;
use spillway_protocol::ledger::{EgressLedger, Fact};
use spillway_protocol::livekit::{EgressInfo, EgressStatus};
use tokio::sync::watch;
use tracing::info;

pub use publisher::{Delivered, ReportPublisher};

use crate::upload::UploadProgress;

/// The egress as it should be known outside.
#[derive(Clone, Debug)]
pub struct EgressReport {
    /// For livekit-server.
    pub info: EgressInfo,
    /// The ledger behind it, so that another process can go on.
    pub ledger: EgressLedger,
}

/// What the status of an EgressInfo means for its delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ReportPhase {
    /// STARTING or ACTIVE.
    Going,
    /// ENDING.
    Ending,
    /// A final state.
    Over,
}

impl EgressReport {
    /// From the status.
    pub fn phase(&self) -> ReportPhase {
        match self.info.status() {
            EgressStatus::EgressStarting | EgressStatus::EgressActive => ReportPhase::Going,
            EgressStatus::EgressEnding => ReportPhase::Ending,
            EgressStatus::EgressComplete
            | EgressStatus::EgressFailed
            | EgressStatus::EgressAborted
            | EgressStatus::EgressLimitReached => ReportPhase::Over,
        }
    }
}

/// How far the files of an egress are.
#[derive(Clone, Debug, Default)]
pub struct FilesProgress {
    /// Bytes written, by the location users see.
    pub bytes: BTreeMap<String, u64>,
    /// Of each file that goes to a store.
    pub uploads: Vec<UploadProgress>,
}

/// The state of one egress as it is reported: EgressInfo and heartbeat.
pub struct Reporter {
    clock: Clock,
    ledger: Mutex<EgressLedger>,
    reports: watch::Sender<EgressReport>,
    beat: watch::Sender<Heartbeat>,
    progress: Mutex<ProgressLog>,
}

struct ProgressLog {
    interval: Duration,
    logged_at: Instant,
}

impl Reporter {
    /// Continues `ledger`, with timestamps of `clock`. Progress is logged once in `interval`.
    pub fn new(ledger: EgressLedger, interval: Duration, clock: Clock) -> Self {
        let report = EgressReport { info: ledger.info().clone(), ledger: ledger.clone() };
        Self {
            clock,
            ledger: Mutex::new(ledger),
            reports: watch::Sender::new(report),
            beat: watch::Sender::new(Heartbeat::default()),
            progress: Mutex::new(ProgressLog { interval, logged_at: Instant::now() }),
        }
    }

    /// Applies a fact; if it changes the EgressInfo, receivers of [`Reporter::reports`] are notified.
    pub fn report(&self, fact: Fact) {
        let mut ledger = lock(&self.ledger);
        if let Some(info) = ledger.on(fact, self.clock.unix_ns()) {
            info!(status = info.status().as_str_name(), details = info.details, error = info.error, "status");
            self.reports.send_replace(EgressReport { info, ledger: ledger.clone() });
        }
    }

    /// Takes the next heartbeat's content. `lag_ms`: between the live edge and what is encoded.
    pub fn progress(&self, media_ns: u64, lag_ms: u64, FilesProgress { bytes: files, uploads }: FilesProgress) {
        let bytes: u64 = files.values().sum();
        let mut extra = BTreeMap::new();
        let stored: u64 = uploads.iter().map(|upload| upload.stored).sum();
        let behind_ms = uploads.iter().map(|upload| upload.behind_ms).max();
        if let Some(behind_ms) = behind_ms {
            extra.insert("stored_bytes".to_owned(), stored.into());
            extra.insert("upload_behind_ms".to_owned(), behind_ms.into());
        }
        if let Some(upload) = uploads.iter().find(|upload| !upload.error.is_empty()) {
            extra.insert("upload_error".to_owned(), upload.error.clone().into());
        }
        self.beat.send_replace(Heartbeat { media_ns, lag_ms, files, extra, ..Heartbeat::default() });
        let mut progress = lock(&self.progress);
        if media_ns > 0 && progress.logged_at.elapsed() >= progress.interval {
            progress.logged_at = Instant::now();
            let seconds = media_ns / 1_000_000_000;
            match behind_ms {
                Some(behind_ms) => info!(seconds, lag_ms, bytes, stored, behind_ms, "recording"),
                None => info!(seconds, lag_ms, bytes, "recording"),
            }
        }
    }

    /// The newest report, and notification of later ones.
    pub fn reports(&self) -> watch::Receiver<EgressReport> {
        self.reports.subscribe()
    }

    /// Notifies of the newest report once more: its receiver has lost it.
    pub fn republish(&self) {
        self.reports.send_modify(|_| {});
    }

    /// The newest EgressInfo.
    pub fn info(&self) -> EgressInfo {
        self.reports.borrow().info.clone()
    }

    /// The newest EgressInfo is final.
    pub fn is_over(&self) -> bool {
        self.reports.borrow().phase() == ReportPhase::Over
    }

    /// Content of the next heartbeat.
    pub fn beat(&self) -> Heartbeat {
        self.beat.borrow().clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
