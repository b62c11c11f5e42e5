//! Facts → EgressInfo, by the egress ledger that is stored in the record. Pure, except for [`left_behind`], which looks
//! at this machine's disk. Sends nothing: that is `final_state`.

use std::path::Path;

use prost::Message;
use spillway_bus::Record;
use spillway_plan::manifest::Manifest;
use spillway_process::{Clock, chain};
use spillway_protocol::code::{Code, RpcError};
use spillway_protocol::ledger::{EgressLedger, Fact};
use spillway_protocol::livekit::EgressInfo;
use spillway_protocol::rpc::StartEgressRequest;
use tracing::warn;

/// The record's EgressInfo: what livekit-server was or will be sent last.
///
/// # Errors
/// INTERNAL when it cannot be decoded; no retry.
pub fn info_of(record: &Record) -> Result<EgressInfo, RpcError> {
    EgressInfo::decode(record.info.as_slice())
        .map_err(|error| RpcError::new(Code::Internal, format!("the record's EgressInfo cannot be read: {error}")))
}

/// `None`: it cannot be parsed, for instance because a newer version wrote it.
pub fn ledger_of(record: &Record) -> Option<EgressLedger> {
    serde_json::from_str(&record.ledger)
        .inspect_err(|error| warn!(egress_id = %record.egress_id, error = %chain(error), "ledger cannot be read"))
        .ok()
}

/// What a dead runner left on this machine's disk.
#[derive(Debug, Default)]
pub struct FilesLeftBehind {
    /// For the ledger: files with their sizes.
    pub facts: Vec<Fact>,
    /// Every file has its manifest, so the recording ended well.
    pub finished: bool,
}

/// Files of this machine that were opened and never reported as closed. Blocks on the disk. The runner writes the
/// manifest last, and only after a recording that ended well: where there is one, only the report is missing. `clock`
/// translates the file's times, which are the host's.
pub fn left_behind(ledger: &EgressLedger, clock: &Clock) -> FilesLeftBehind {
    let results = &ledger.info().file_results;
    let (mut facts, mut finished) = (vec![], true);
    let egress_id = &ledger.info().egress_id;
    let beside: Vec<Option<Manifest>> =
        ledger.unfinished().map(|(_, location)| manifest_beside(location, egress_id)).collect();
    for ((index, location), own) in ledger.unfinished().zip(&beside) {
        // An output that wants none beside it is in that of another.
        let in_another = || beside.iter().flatten().find(|manifest| manifest.file(location).is_some());
        let manifest = own.as_ref().or_else(in_another);
        finished &= manifest.is_some();
        let found = std::fs::metadata(location).ok().filter(|found| found.is_file() && found.len() > 0);
        let Some(found) = found else {
            finished = false;
            continue;
        };
        let began = results.get(index).map_or(0, |file| file.started_at);
        let Ok(written) = found.modified() else { continue };
        let (started_at, ended_at) = match manifest {
            Some(manifest) => manifest.times_of(location),
            None => (began, clock.unix_ns_of_host(written)),
        };
        facts.push(Fact::FileStored { index, size: found.len(), started_at, ended_at, location: location.to_owned() });
        if manifest.is_none() {
            facts.push(Fact::Noted(format!("not finished properly: {location}")));
        }
    }
    FilesLeftBehind { finished: finished && !facts.is_empty(), facts }
}

fn manifest_beside(location: &str, egress_id: &str) -> Option<Manifest> {
    let path = Path::new(location).with_file_name(format!("{egress_id}.json"));
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

/// The record's ledger with more facts. `at`: Unix nanoseconds.
pub fn continued(record: &Record, facts: Vec<Fact>, at: i64) -> Continued {
    // Unreadable: a new one, which has at least the id.
    let mut ledger = ledger_of(record).unwrap_or_else(|| {
        EgressLedger::accept(&StartEgressRequest { egress_id: record.egress_id.to_string(), ..Default::default() }, at)
    });
    for fact in facts {
        ledger.on(fact, at);
    }
    Continued { text: serde_json::to_string(&ledger).unwrap_or_default(), info: ledger.info().clone() }
}

/// A ledger and its EgressInfo.
pub struct Continued {
    /// The ledger as JSON.
    pub text: String,
    /// For livekit-server.
    pub info: EgressInfo,
}

#[cfg(test)]
mod tests {
    use super::*;
    use spillway_plan::manifest::ManifestFile;

    #[test]
    fn a_file_a_dead_runner_left_is_a_result_with_its_size() {
        let dir = tempfile::tempdir().unwrap();
        let location = dir.path().join("a.mp4").display().to_string();
        std::fs::write(&location, [0; 1234]).unwrap();
        let start = StartEgressRequest { egress_id: "EG_left".to_owned(), ..Default::default() };
        let mut ledger = EgressLedger::accept(&start, 1);
        let file = |index, location: &str| Fact::FileOpened {
            index,
            filename: "a.mp4".to_owned(),
            location: location.to_owned(),
        };
        ledger.on(file(0, &location), 2);
        ledger.on(file(1, "/nowhere/b.mp4"), 2);
        let left = left_behind(&ledger, &Clock::host());
        assert!(!left.finished);
        for fact in left.facts {
            ledger.on(fact, 3);
        }
        let result = &ledger.info().file_results[0];
        assert_eq!((result.size, result.location.as_str()), (1234, location.as_str()));
        assert!(ledger.info().details.contains("not finished properly"));
        assert_eq!(ledger.info().file_results[1].size, 0);
    }

    /// The runner had no way to Redis when it was done: what it left beside the file says that it was.
    #[test]
    fn a_file_with_its_manifest_is_complete_and_as_long_as_the_manifest_says() {
        let dir = tempfile::tempdir().unwrap();
        let location = dir.path().join("a.mp4").display().to_string();
        std::fs::write(&location, [0; 1234]).unwrap();
        let start = StartEgressRequest { egress_id: "EG_done".to_owned(), ..Default::default() };
        let mut ledger = EgressLedger::accept(&start, 1);
        ledger.on(Fact::FileOpened { index: 0, filename: "a.mp4".to_owned(), location: location.clone() }, 2);
        ledger.on(Fact::Active { started_at: 5 }, 3);
        let another = Manifest { started_at: 1, ..Manifest::default() }.to_json().unwrap();
        std::fs::write(dir.path().join("EG_other.json"), another).unwrap();
        assert!(!left_behind(&ledger, &Clock::host()).finished, "the manifest of another egress says nothing");
        let manifest = Manifest { started_at: 1_000, ended_at: 61_000, ..Manifest::default() }.to_json().unwrap();
        std::fs::write(dir.path().join("EG_done.json"), manifest).unwrap();
        let left = left_behind(&ledger, &Clock::host());
        assert!(left.finished);
        for fact in left.facts.into_iter().chain([Fact::Over(spillway_protocol::ledger::Outcome::Complete)]) {
            ledger.on(fact, 9);
        }
        let info = ledger.info();
        assert_eq!(
            (info.status(), info.error.as_str()),
            (spillway_protocol::livekit::EgressStatus::EgressComplete, "")
        );
        assert_eq!((info.file_results[0].size, info.file_results[0].duration), (1234, 60_000));
        assert!(!info.details.contains("not finished"), "{}", info.details);
    }

    /// One manifest beside each file, in the folder of each; where an output wants none, that of another names its file.
    #[test]
    fn files_in_several_folders_are_complete_and_as_long_as_their_manifest_says() {
        let dir = tempfile::tempdir().unwrap();
        let locations = ["a.mp4", "d/b.mp4", "e/c.mp4"].map(|name| dir.path().join(name).display().to_string());
        let start = StartEgressRequest { egress_id: "EG_done".to_owned(), ..Default::default() };
        let mut ledger = EgressLedger::accept(&start, 1);
        let file = |location: &String, started_at, ended_at| ManifestFile {
            location: location.clone(),
            started_at,
            ended_at,
            ..ManifestFile::default()
        };
        let [a, b, c] = &locations;
        let files = vec![file(a, 0, 0), file(b, 31_000, 61_000), file(c, 0, 0)];
        let manifest = Manifest { started_at: 1_000, ended_at: 61_000, files, ..Manifest::default() };
        for (index, location) in locations.iter().enumerate() {
            let path = Path::new(location);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, [0; 12]).unwrap();
            if index < 2 {
                std::fs::write(path.with_file_name("EG_done.json"), manifest.to_json().unwrap()).unwrap();
            }
            let filename = "a.mp4".to_owned();
            ledger.on(Fact::FileOpened { index, filename, location: location.clone() }, 2);
        }
        let left = left_behind(&ledger, &Clock::host());
        assert!(left.finished);
        for fact in left.facts {
            ledger.on(fact, 9);
        }
        let durations: Vec<i64> = ledger.info().file_results.iter().map(|file| file.duration).collect();
        assert_eq!(durations, [60_000, 30_000, 60_000]);
    }
}
