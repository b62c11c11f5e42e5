//! Facts → EgressInfo, through the one ledger that travels in the record.

use prost::Message;
use spillway_bus::Record;
use spillway_process::{Clock, chain};
use spillway_protocol::code::{Code, RpcError};
use spillway_protocol::ledger::{Fact, Ledger};
use spillway_protocol::livekit::EgressInfo;
use spillway_protocol::rpc::StartEgressRequest;
use tracing::warn;

/// The first entry: accepted, and what it waits for if it does. The ledger as the record keeps it, and what it says.
pub fn accepted(start: &StartEgressRequest, waiting: Option<&str>, at: i64) -> Result<(String, EgressInfo), RpcError> {
    let mut ledger = Ledger::accept(start, at);
    if let Some(words) = waiting {
        ledger.on(Fact::Waiting(words.to_owned()), at);
    }
    let info = ledger.info().clone();
    let text = serde_json::to_string(&ledger).map_err(|error| RpcError::new(Code::Internal, error.to_string()))?;
    Ok((text, info))
}

/// What livekit-server was or is to be told last.
pub fn info_of(record: &Record) -> Result<EgressInfo, RpcError> {
    EgressInfo::decode(record.info.as_slice())
        .map_err(|error| RpcError::new(Code::Internal, format!("the record's EgressInfo cannot be read: {error}")))
}

/// `None` when a newer version wrote more than we understand.
pub fn ledger_of(record: &Record) -> Option<Ledger> {
    serde_json::from_str(&record.ledger)
        .inspect_err(|error| warn!(egress_id = %record.egress_id, error = %chain(error), "ledger cannot be read"))
        .ok()
}

/// Files on this machine that were begun and never closed, as results. Looks at the disk.
pub fn unfinished_files(ledger: &Ledger, clock: &Clock) -> Vec<Fact> {
    let results = &ledger.info().file_results;
    let facts = ledger.unfinished().filter_map(|(index, location)| {
        let found = std::fs::metadata(location).ok().filter(|found| found.is_file() && found.len() > 0)?;
        let written = found.modified().ok()?;
        let started_at = results.get(index).map_or(0, |file| file.started_at);
        let stored = Fact::FileStored {
            index,
            size: found.len(),
            started_at,
            ended_at: clock.unix_ns_of_host(written),
            location: location.to_owned(),
        };
        Some([stored, Fact::Noted(format!("not finished properly: {location}"))])
    });
    facts.flatten().collect()
}

/// The ledger of this record, with more facts.
pub fn continued(record: &Record, facts: Vec<Fact>, at: i64) -> Continued {
    // Unreadable: the facts begin with what every egress has.
    let mut ledger = ledger_of(record).unwrap_or_else(|| {
        Ledger::accept(&StartEgressRequest { egress_id: record.egress_id.to_string(), ..Default::default() }, at)
    });
    for fact in facts {
        ledger.on(fact, at);
    }
    Continued { text: serde_json::to_string(&ledger).unwrap_or_default(), info: ledger.info().clone() }
}

/// A ledger and what it says.
pub struct Continued {
    pub text: String,
    pub info: EgressInfo,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_a_dead_runner_left_is_a_result_with_its_size() {
        let dir = tempfile::tempdir().unwrap();
        let location = dir.path().join("a.mp4").display().to_string();
        std::fs::write(&location, [0; 1234]).unwrap();
        let start = StartEgressRequest { egress_id: "EG_left".to_owned(), ..Default::default() };
        let mut ledger = Ledger::accept(&start, 1);
        let file = |index, location: &str| Fact::FileOpened {
            index,
            filename: "a.mp4".to_owned(),
            location: location.to_owned(),
        };
        ledger.on(file(0, &location), 2);
        ledger.on(file(1, "/nowhere/b.mp4"), 2);
        for fact in unfinished_files(&ledger, &Clock::host()) {
            ledger.on(fact, 3);
        }
        let result = &ledger.info().file_results[0];
        assert_eq!((result.size, result.location.as_str()), (1234, location.as_str()));
        assert!(ledger.info().details.contains("not finished properly"));
        assert_eq!(ledger.info().file_results[1].size, 0);
    }
}
