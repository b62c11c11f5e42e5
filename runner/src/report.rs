//! Facts → EgressInfo. [`Reporter`] keeps the ledger, is shared by all tasks of the runner and never waits.
//! [`ReportPublisher`] delivers: into the record first, then to livekit-server. Reports reach it through a watch channel, of
//! which only the newest counts; one update is in flight. It runs beside the session, ends with the last report, and never
//! ends the recording itself.

mod handing_over;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prost::Message;
use spillway_bus::lifecycle::{self, LaunchEvent, RunnerStage};
use spillway_bus::{BusError, Created, Heartbeat, IoClient, Record, Registry, Updated};
use spillway_process::{Clock, chain};
use spillway_protocol::EgressId;
use spillway_protocol::ledger::{EgressLedger, Fact};
use spillway_protocol::livekit::{EgressInfo, EgressStatus};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::events::SessionEvent;
use crate::upload::UploadProgress;

/// How long an update that is not the last may delay a newer one.
const UPDATE_TIMEOUT: Duration = Duration::from_secs(3);
/// Between two attempts to write the last report.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);
/// How long a finished record still answers repeated calls.
const FINISHED_RECORD_TTL: Duration = Duration::from_secs(24 * 3600);

/// The egress as it should be known outside.
#[derive(Clone, Debug)]
pub struct EgressReport {
    /// The ledger, so that another process can go on.
    pub ledger: EgressLedger,
}

impl EgressReport {
    /// For livekit-server.
    pub fn info(&self) -> &EgressInfo {
        self.ledger.info()
    }

    /// From the status: STARTING and ACTIVE are [`RunnerStage::Going`], a final one is [`RunnerStage::Over`].
    pub fn stage(&self) -> RunnerStage {
        match self.ledger.status() {
            EgressStatus::EgressStarting | EgressStatus::EgressActive => RunnerStage::Going,
            EgressStatus::EgressEnding => RunnerStage::Ending,
            EgressStatus::EgressComplete
            | EgressStatus::EgressFailed
            | EgressStatus::EgressAborted
            | EgressStatus::EgressLimitReached => RunnerStage::Over,
        }
    }
}

/// How far the outputs of an egress are.
#[derive(Clone, Debug, Default)]
pub struct FilesProgress {
    /// Bytes written, by the location users see.
    pub bytes: BTreeMap<String, u64>,
    /// Of each file that goes to a store.
    pub uploads: Vec<UploadProgress>,
    /// How far each stream is behind, milliseconds, by its id.
    pub streams: BTreeMap<u32, u64>,
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
        let report = EgressReport { ledger: ledger.clone() };
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
            self.reports.send_replace(EgressReport { ledger: ledger.clone() });
        }
    }

    /// Takes the next heartbeat's content. `lag_ms`: between the live edge and what is encoded.
    pub fn progress(&self, media_ns: u64, lag_ms: u64, progress: FilesProgress) {
        let FilesProgress { bytes: files, uploads, streams } = progress;
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
        if !streams.is_empty() {
            let lags = streams.iter().map(|(id, lag_ms)| (id.to_string(), (*lag_ms).into()));
            extra.insert("stream_lag_ms".to_owned(), serde_json::Value::Object(lags.collect()));
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

    /// All that is known by now, also what was not worth a report of its own.
    pub fn newest(&self) -> EgressReport {
        EgressReport { ledger: lock(&self.ledger).clone() }
    }

    /// The newest EgressInfo.
    pub fn info(&self) -> EgressInfo {
        self.reports.borrow().info().clone()
    }

    /// The newest EgressInfo is final.
    pub fn is_over(&self) -> bool {
        self.reports.borrow().stage() == RunnerStage::Over
    }

    /// Content of the next heartbeat.
    pub fn beat(&self) -> Heartbeat {
        self.beat.borrow().clone()
    }
}

/// How the last report ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivered {
    /// livekit-server has it.
    Acknowledged,
    /// livekit-server could not be reached: a dispatcher finds it in the registry.
    Left,
    /// Redis could not be reached: its record says that this egress goes on, and what is kept for a salvage stays there.
    Unwritten,
    /// Another task goes on with the recording.
    HandedOver,
    /// Redis does not take what is handed over.
    NotHandedOver,
    /// Another writer has ended this egress; nothing was reported.
    NotOurs,
}

/// Delivers the reports of one egress.
pub struct ReportPublisher {
    /// Where the record is.
    pub registry: Registry,
    /// livekit-server.
    pub io: IoClient,
    /// The egress.
    pub egress_id: EgressId,
    /// A record of another attempt is not written.
    pub attempt: u32,
    /// The record as it was taken over, in case Redis loses it.
    pub record: Record,
    /// How long the last report waits for Redis.
    pub redis_timeout: Duration,
    /// How long it is then offered to livekit-server.
    pub timeout: Duration,
    /// The session's, for the loss of ownership.
    pub inbox: mpsc::Sender<SessionEvent>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ownership {
    Ours,
    Theirs,
    /// Redis does not say.
    Unknown,
}

impl ReportPublisher {
    /// Delivers until the last report is delivered or given up.
    pub async fn run(&self, mut reports: watch::Receiver<EgressReport>) -> Delivered {
        // The report at the beginning was delivered by the dispatcher.
        let mut behind = false;
        loop {
            if !behind && reports.changed().await.is_err() {
                // The session ended without a last report: it lost ownership.
                return Delivered::NotOurs;
            }
            let report = reports.borrow_and_update().clone();
            if report.stage() == RunnerStage::Over {
                return self.deliver_last(&report).await;
            }
            if self.write(&report).await == Ownership::Theirs {
                // What the session does now is not reported.
                let _ = self.inbox.send(SessionEvent::OwnershipLost).await;
                return Delivered::NotOurs;
            }
            behind = false;
            if let Err(error) = self.io.update_egress(report.info(), UPDATE_TIMEOUT).await {
                warn!(code = %error.code, error = %error, "update not delivered, the newest will be tried again");
                behind = true;
                // A newer one need not wait.
                let _ = timeout(Duration::from_secs(1), reports.changed()).await;
            }
        }
    }

    async fn deliver_last(&self, report: &EgressReport) -> Delivered {
        let give_up = tokio::time::Instant::now() + self.redis_timeout;
        let mut waited = false;
        loop {
            let why = match self.try_write(report).await {
                Ok(Ownership::Ours) => break,
                Ok(Ownership::Theirs) => return Delivered::NotOurs,
                Ok(Ownership::Unknown) => "another has just written the record".to_owned(),
                Err(error) => chain(&error).to_string(),
            };
            if tokio::time::Instant::now() >= give_up {
                warn!(error = why, "the last report is given up");
                return Delivered::Unwritten;
            }
            if !std::mem::replace(&mut waited, true) {
                let seconds = self.redis_timeout.as_secs();
                warn!(error = why, seconds, "the last report waits for redis");
            }
            sleep(RETRY_INTERVAL).await;
        }
        if waited {
            info!("the last report is in redis");
        }
        if let Err(error) = self.io.update_egress(report.info(), self.timeout.max(UPDATE_TIMEOUT)).await {
            warn!(code = %error.code, error = %error, "last update not delivered, left for a dispatcher");
            return Delivered::Left;
        }
        if let Err(error) = self.registry.finish(&self.egress_id, FINISHED_RECORD_TTL).await {
            warn!(error = %chain(&error), "record not finished, a dispatcher will do it");
        }
        Delivered::Acknowledged
    }

    async fn write(&self, report: &EgressReport) -> Ownership {
        match self.try_write(report).await {
            Ok(ownership) => ownership,
            Err(error) => {
                warn!(error = %chain(&error), "record not written");
                Ownership::Unknown
            }
        }
    }

    async fn try_write(&self, report: &EgressReport) -> Result<Ownership, BusError> {
        let info = report.info().encode_to_vec();
        let ledger = serde_json::to_string(&report.ledger).unwrap_or_default();
        let (attempt, stage) = (self.attempt, report.stage());
        let event = LaunchEvent::Reported { attempt, info: info.clone(), ledger, stage };
        let updated = self.registry.apply(&self.egress_id, &event).await?;
        match updated {
            Updated::Written(_) => Ok(Ownership::Ours),
            // First: an older record may have the same EgressInfo.
            Updated::Left(record) if record.is_before(self.attempt) => self.restore(report, &event).await,
            // Written by us, but the answer was lost and the command repeated.
            Updated::Left(record) if record.attempt == self.attempt && record.info == info => Ok(Ownership::Ours),
            Updated::Left(_) => Ok(Ownership::Theirs),
            Updated::Missing => {
                info!("redis has lost the record, written again");
                match self.registry.create(&self.reported(&event)).await? {
                    Created::Yes => {
                        self.create_again(report).await;
                        Ok(Ownership::Ours)
                    }
                    // Another writer was faster; looked at again with the next report.
                    Created::Exists(_) => Ok(Ownership::Unknown),
                }
            }
        }
    }
}

impl ReportPublisher {
    /// Our copy of the record with this report.
    fn reported(&self, event: &LaunchEvent) -> Record {
        // It was taken over as running, so the report applies to it.
        lifecycle::apply(&self.record, event).ok().flatten().unwrap_or_else(|| self.record.clone())
    }

    /// livekit-server's own record may be lost as well; one that is there stays as it is.
    async fn create_again(&self, report: &EgressReport) {
        if let Err(error) = self.io.ensure_egress(report.info(), UPDATE_TIMEOUT).await {
            warn!(code = %error.code, error = %error, "egress not created again");
        }
    }

    async fn restore(&self, report: &EgressReport, event: &LaunchEvent) -> Result<Ownership, BusError> {
        info!("redis has lost the last writes of the record, written again");
        let restored = LaunchEvent::Restored(Box::new(self.reported(event)));
        Ok(match self.registry.apply(&self.egress_id, &restored).await? {
            Updated::Written(_) => {
                self.create_again(report).await;
                Ownership::Ours
            }
            // Looked at again with the next report.
            Updated::Left(_) | Updated::Missing => Ownership::Unknown,
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
