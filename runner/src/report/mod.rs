//! Facts → EgressInfo. `Reporter` keeps the ledger and never waits; `desk` carries the newest to the registry and to
//! livekit-server, one at a time.

mod desk;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use spillway_bus::Beat;
use spillway_process::Clock;
use spillway_protocol::ledger::{Fact, Ledger};
use spillway_protocol::livekit::{EgressInfo, EgressStatus};
use tokio::sync::watch;
use tracing::info;

pub use desk::{Delivered, Desk};

use crate::sink::Files;
use crate::upload::Progress;

/// The egress as it should be known outside.
#[derive(Clone, Debug)]
pub struct Report {
    pub info: EgressInfo,
    /// The ledger behind it, to go on elsewhere.
    pub ledger: Ledger,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    Going,
    Ending,
    Over,
}

impl Report {
    pub fn stage(&self) -> Stage {
        match self.info.status() {
            EgressStatus::EgressStarting | EgressStatus::EgressActive => Stage::Going,
            EgressStatus::EgressEnding => Stage::Ending,
            EgressStatus::EgressComplete
            | EgressStatus::EgressFailed
            | EgressStatus::EgressAborted
            | EgressStatus::EgressLimitReached => Stage::Over,
        }
    }
}

pub struct Reporter {
    clock: Clock,
    ledger: Mutex<Ledger>,
    reports: watch::Sender<Report>,
    beat: watch::Sender<Beat>,
    progress: Mutex<Said>,
}

struct Said {
    every: Duration,
    said_at: Instant,
}

impl Reporter {
    /// Goes on with `ledger`; `clock` stamps what is told. How far the recording is goes to the log once in `every`.
    pub fn new(ledger: Ledger, every: Duration, clock: Clock) -> Self {
        let report = Report { info: ledger.info().clone(), ledger: ledger.clone() };
        Self {
            clock,
            ledger: Mutex::new(ledger),
            reports: watch::Sender::new(report),
            beat: watch::Sender::new(Beat::default()),
            progress: Mutex::new(Said { every, said_at: Instant::now() }),
        }
    }

    pub fn tell(&self, fact: Fact) {
        let mut ledger = lock(&self.ledger);
        if let Some(info) = ledger.on(fact, self.clock.unix_ns()) {
            info!(status = info.status().as_str_name(), details = info.details, error = info.error, "status");
            self.reports.send_replace(Report { info, ledger: ledger.clone() });
        }
    }

    pub fn progress(&self, media_ns: u64, lag_ms: u64, files: &Files, uploads: Vec<(String, Progress)>) {
        let files: BTreeMap<String, u64> = files.sizes().map(|(place, bytes)| (place.shown.clone(), bytes)).collect();
        let bytes: u64 = files.values().sum();
        let mut extra = BTreeMap::new();
        let stored: u64 = uploads.iter().map(|(_, upload)| upload.stored).sum();
        let behind_ms = uploads.iter().map(|(_, upload)| upload.behind_ms).max();
        if let Some(behind_ms) = behind_ms {
            extra.insert("stored_bytes".to_owned(), stored.into());
            extra.insert("upload_behind_ms".to_owned(), behind_ms.into());
        }
        if let Some((_, upload)) = uploads.iter().find(|(_, upload)| !upload.trouble.is_empty()) {
            extra.insert("upload_trouble".to_owned(), upload.trouble.clone().into());
        }
        self.beat.send_replace(Beat { media_ns, lag_ms, files, extra, ..Beat::default() });
        let mut progress = lock(&self.progress);
        if media_ns > 0 && progress.said_at.elapsed() >= progress.every {
            progress.said_at = Instant::now();
            let seconds = media_ns / 1_000_000_000;
            match behind_ms {
                Some(behind_ms) => info!(seconds, lag_ms, bytes, stored, behind_ms, "recording"),
                None => info!(seconds, lag_ms, bytes, "recording"),
            }
        }
    }

    /// The newest one; later ones are announced.
    pub fn reports(&self) -> watch::Receiver<Report> {
        self.reports.subscribe()
    }

    /// The newest one is to be carried out once more: somebody has forgotten it.
    pub fn repeat(&self) {
        self.reports.send_modify(|_| {});
    }

    pub fn info(&self) -> EgressInfo {
        self.reports.borrow().info.clone()
    }

    pub fn is_over(&self) -> bool {
        self.reports.borrow().stage() == Stage::Over
    }

    pub fn beat(&self) -> Beat {
        self.beat.borrow().clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
