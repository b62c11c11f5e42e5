//! Reports of probes in Redis: the runner of a probe writes, whoever started it reads. They hold no secret and expire by
//! themselves. Runs in the caller's task.

use std::time::Duration;

use spillway_model::ProbeReport;
use spillway_protocol::EgressId;

use crate::bus::Bus;
use crate::error::BusError;
use crate::key_value::{NewValue, Precondition};

/// Longer than a probe takes.
const REPORT_TTL: Duration = Duration::from_secs(600);

/// Reports of all probes.
#[derive(Clone)]
pub struct ProbeReports {
    bus: Bus,
}

impl ProbeReports {
    /// On this bus.
    pub fn new(bus: &Bus) -> Self {
        Self { bus: bus.clone() }
    }

    /// Replaces the report, if this one has as many lines or more.
    ///
    /// # Errors
    /// Redis was not reached, did not answer, or does not take writes; a retry is right.
    pub async fn put(&self, id: &EgressId, report: &ProbeReport) -> Result<(), BusError> {
        let value =
            serde_json::to_vec(report).map_err(|source| BusError::Record { egress_id: id.to_string(), source })?;
        // The last line and the end of the report may be two writes.
        let version = 2 * report.lines.len() as u64 + u64::from(report.is_over) + 1;
        let value = NewValue { version, value: &value, ttl: Some(REPORT_TTL) };
        self.bus.backend.compare_and_set(&key(id), Precondition::NotAbove(version), value).await.map(drop)
    }

    /// What has been reported so far; `None`: nothing.
    ///
    /// # Errors
    /// Redis was not reached or did not answer: a retry is right. [`BusError::Record`]: it is no report.
    pub async fn get(&self, id: &EgressId) -> Result<Option<ProbeReport>, BusError> {
        let Some(found) = self.bus.backend.read(&key(id)).await? else { return Ok(None) };
        serde_json::from_slice(&found.value)
            .map(Some)
            .map_err(|source| BusError::Record { egress_id: id.to_string(), source })
    }

    /// Removes the report.
    ///
    /// # Errors
    /// Redis was not reached or did not answer; the report expires.
    pub async fn remove(&self, id: &EgressId) -> Result<(), BusError> {
        self.bus.backend.remove(&key(id)).await
    }
}

fn key(id: &EgressId) -> String {
    format!("spillway:{{{id}}}:probe")
}
