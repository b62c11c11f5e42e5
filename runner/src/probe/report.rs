//! Lines of a probe on their way to whoever started it: to Redis, the whole report each time, so that a lost write costs
//! nothing once a later one arrives; and to standard error, for a person who reads the task's log.

use std::io::Write;
use std::time::Duration;

use serde_json::json;
use spillway_bus::{Bus, BusError, ProbeCause, ProbeLine, ProbeReport, ProbeReports};
use spillway_process::chain;
use spillway_protocol::EgressId;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use tracing::warn;

use crate::ticket::with_retries;

/// Writes one line to standard error, as the reader of a task's log finds it again.
pub fn log_line(line: &ProbeLine) {
    // Nobody can be told that this fails.
    let _ = writeln!(std::io::stderr(), "{}", json!({ "probe": line }));
}

/// The report of this probe.
pub(super) struct ReportWriter {
    reports: ProbeReports,
    id: EgressId,
    /// Held while it is written: of two writes the longer one is the last.
    report: Mutex<ProbeReport>,
}

impl ReportWriter {
    pub(super) fn new(bus: &Bus, id: EgressId) -> Self {
        Self { reports: ProbeReports::new(bus), id, report: Mutex::default() }
    }

    pub(super) async fn add(&self, line: ProbeLine) {
        log_line(&line);
        let mut report = self.report.lock().await;
        report.lines.push(line);
        if let Err(error) = self.reports.put(&self.id, &report).await {
            // The next write brings it too.
            warn!(error = %chain(&error), "line not reported");
        }
    }

    /// The lines of a check as soon as it is done. One that takes too long has failed, for this cause.
    pub(super) async fn add_all(
        &self,
        check: &str,
        late: ProbeCause,
        max: Duration,
        work: impl Future<Output = Vec<ProbeLine>>,
    ) {
        let began = Instant::now();
        let lines = timeout(max, work)
            .await
            .unwrap_or_else(|_| vec![ProbeLine::failed(check, late, format!("no result within {} s", max.as_secs()))]);
        for line in lines {
            let line = if line.took_ms == 0 { line.took(began.elapsed()) } else { line };
            self.add(line).await;
        }
    }

    /// # Errors
    /// Redis does not take the report, after five attempts.
    pub(super) async fn finish(self) -> Result<(), BusError> {
        let report = ProbeReport { is_over: true, ..self.report.into_inner() };
        with_retries(|| self.reports.put(&self.id, &report)).await
    }
}
