//! Before a media process: what another task has recorded changes how this one begins, and is saved where it does not begin.
//! Runs in the session's task.

use spillway_protocol::Code;
use spillway_protocol::ledger::{EgressEndReason, Fact, Outcome};

use crate::report::Reporter;
use crate::session::earlier::EarlierRecording;
use crate::session::finalize::SessionEnd;
use crate::session::job::SessionJob;

/// For `details`, where another media process or task goes on.
pub(super) const SHEETS_OF_BEFORE: &str = "poster and thumbnails show what was recorded before the gap";
/// They lay in its spool.
const SHEETS_LOST: &str = "poster and thumbnails are lost with the machine that made them";

/// Poster and thumbnails are of the first media process, and their times count from its beginning: another task makes none.
pub(super) fn without_sheets(job: &mut SessionJob, reporter: &Reporter) {
    let Some(earlier) = &job.earlier else { return };
    if job.plan.sheets.take().is_some() {
        let message = if earlier.here { SHEETS_OF_BEFORE } else { SHEETS_LOST };
        reporter.report(Fact::Noted(message.to_owned()));
    }
}

/// The recording does not begin. What another task has recorded is saved all the same.
pub(super) async fn failed(
    earlier: &mut Option<EarlierRecording>,
    reporter: &Reporter,
    code: Code,
    message: String,
) -> SessionEnd {
    if let Some(earlier) = earlier {
        earlier.settled().await;
    }
    reporter.report(Fact::Ending(EgressEndReason::Failure));
    reporter.report(Fact::Over(Outcome::Failed { code, message }));
    SessionEnd::Reported
}
