use std::time::Duration;

use prost::Message;
use spillway_bus::{BusError, Created, Decision, IoClient, Phase, Record, Registry, Updated};
use spillway_process::chain;
use spillway_protocol::EgressId;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::{Report, Stage};
use crate::session::machine::Event;

/// How long an update that is not the last may keep a newer one waiting.
const ONE_UPDATE: Duration = Duration::from_secs(3);
/// How long a finished record still answers repeated calls.
const REMEMBERED: Duration = Duration::from_secs(24 * 3600);

/// How the last report ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivered {
    Acknowledged,
    /// livekit-server could not be reached: a dispatcher finds it in the registry.
    Left,
    /// Somebody else has settled this egress; nothing was said.
    NotOurs,
}

/// Carries reports out: into the record first, then to livekit-server. One update in flight, the newest wins.
pub struct Desk {
    pub registry: Registry,
    pub io: IoClient,
    pub egress_id: EgressId,
    pub attempt: u32,
    /// The record as we took it over, in case Redis forgets it.
    pub record: Record,
    /// How long the last report is offered.
    pub patience: Duration,
    pub inbox: mpsc::Sender<Event>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pen {
    Ours,
    Theirs,
    /// Redis does not say.
    Unknown,
}

impl Desk {
    /// Ends with the last report.
    pub async fn run(self, mut reports: watch::Receiver<Report>) -> Delivered {
        // What the dispatcher has said is known.
        let mut behind = false;
        loop {
            if !behind && reports.changed().await.is_err() {
                // The session left without a last report: it was disowned.
                return Delivered::NotOurs;
            }
            let report = reports.borrow_and_update().clone();
            if report.stage() == Stage::Over {
                return self.deliver_last(&report).await;
            }
            if self.write(&report).await == Pen::Theirs {
                // Whatever the session does now is not for the outside.
                let _ = self.inbox.send(Event::Disowned).await;
                return Delivered::NotOurs;
            }
            behind = false;
            if let Err(error) = self.io.update_egress(&report.info, ONE_UPDATE).await {
                warn!(code = %error.code, error = %error, "update not delivered, the newest will be tried again");
                behind = true;
                // A newer one need not wait.
                let _ = timeout(Duration::from_secs(1), reports.changed()).await;
            }
        }
    }

    async fn deliver_last(&self, report: &Report) -> Delivered {
        let give_up = Instant::now() + self.patience;
        loop {
            match self.write(report).await {
                Pen::Ours => break,
                Pen::Theirs => return Delivered::NotOurs,
                Pen::Unknown if Instant::now() >= give_up => break,
                Pen::Unknown => sleep(Duration::from_millis(500)).await,
            }
        }
        let left = give_up.saturating_duration_since(Instant::now()).max(ONE_UPDATE);
        if let Err(error) = self.io.update_egress(&report.info, left).await {
            warn!(code = %error.code, error = %error, "last update not delivered, left for a dispatcher");
            return Delivered::Left;
        }
        if let Err(error) = self.registry.finish(&self.egress_id, REMEMBERED).await {
            warn!(error = %chain(&error), "record not finished, a dispatcher will do it");
        }
        Delivered::Acknowledged
    }

    async fn write(&self, report: &Report) -> Pen {
        match self.try_write(report).await {
            Ok(pen) => pen,
            Err(error) => {
                warn!(error = %chain(&error), "record not written");
                Pen::Unknown
            }
        }
    }

    async fn try_write(&self, report: &Report) -> Result<Pen, BusError> {
        let info = report.info.encode_to_vec();
        let ledger = serde_json::to_string(&report.ledger).unwrap_or_default();
        let fill = |record: &mut Record| {
            record.phase = match report.stage() {
                Stage::Going => record.phase,
                Stage::Ending => Phase::Ending,
                Stage::Over => Phase::Over,
            };
            record.info.clone_from(&info);
            record.ledger.clone_from(&ledger);
        };
        let updated = self
            .registry
            .update(&self.egress_id, |record| {
                if record.attempt != self.attempt || !matches!(record.phase, Phase::Running | Phase::Ending) {
                    return Decision::Leave;
                }
                fill(record);
                Decision::Write
            })
            .await?;
        match updated {
            Updated::Written(_) => Ok(Pen::Ours),
            // Written by us, but the answer was lost and the command repeated.
            Updated::Left(record) if record.attempt == self.attempt && record.info == info => Ok(Pen::Ours),
            Updated::Left(_) => Ok(Pen::Theirs),
            Updated::Missing => {
                info!("redis has lost the record, written again");
                let mut record = self.record.clone();
                fill(&mut record);
                match self.registry.create(&record).await? {
                    Created::Yes => {
                        // livekit-server's own record may be lost as well; for one that is there this does nothing.
                        if let Err(error) = self.io.create_egress(&report.info, ONE_UPDATE).await {
                            warn!(code = %error.code, error = %error, "egress not created again");
                        }
                        Ok(Pen::Ours)
                    }
                    // Somebody was faster; looked at again with the next report.
                    Created::Exists(_) => Ok(Pen::Unknown),
                }
            }
        }
    }
}
