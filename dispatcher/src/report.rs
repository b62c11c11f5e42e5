//! Facts → EgressInfo, by the egress ledger that is stored in the record. Pure, except for [`left_behind`], which looks
//! at this machine's disk. Sends nothing: that is `final_state`.

use std::path::{Path, PathBuf};

use prost::Message;
use spillway_bus::Record;
use spillway_plan::manifest::{Manifest, ManifestPlaylist};
use spillway_process::{Clock, LocalRoot, chain};
use spillway_protocol::code::{Code, RpcError};
use spillway_protocol::ledger::{EgressLedger, Fact};
use spillway_protocol::livekit::{EgressInfo, SegmentsInfo};
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
    /// For the ledger: files and HLS outputs with their sizes.
    pub facts: Vec<Fact>,
    /// Every file and playlist is in a manifest, so the recording ended well.
    pub finished: bool,
}

/// Files and playlists of this machine that were opened and never reported as closed. Blocks on the disk. The runner writes
/// the manifest last, and only after a recording that ended well: where there is one, only the report is missing. `root`:
/// where the runner looks for names. `clock` translates the file's times, which are the host's.
pub fn left_behind(ledger: &EgressLedger, root: &LocalRoot, clock: &Clock) -> FilesLeftBehind {
    let results = &ledger.info().file_results;
    let (mut facts, mut finished) = (vec![], true);
    let egress_id = &ledger.info().egress_id;
    let playlists = unfinished_playlists(ledger, root);
    let beside: Vec<Option<Manifest>> =
        ledger.unfinished().map(|(_, location)| manifest_beside(Path::new(location), egress_id)).collect();
    let beside_playlists: Vec<Option<Manifest>> =
        playlists.iter().map(|playlist| manifest_beside(&playlist.path, egress_id)).collect();
    let manifests: Vec<&Manifest> = beside.iter().chain(&beside_playlists).flatten().collect();
    for ((index, location), own) in ledger.unfinished().zip(&beside) {
        // An output that wants none beside it is in that of another.
        let in_another = || manifests.iter().copied().find(|manifest| manifest.file(location).is_some());
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
    for playlist in playlists {
        if let Some(stored) = manifests.iter().find_map(|manifest| playlist.facts(manifest)) {
            facts.extend(stored);
            continue;
        }
        finished = false;
        if playlist.path.is_file() {
            facts.push(Fact::Noted(format!("not finished properly: {}", playlist.path.display())));
        }
    }
    FilesLeftBehind { finished: finished && !facts.is_empty(), facts }
}

/// The playlist of an HLS output that is not reported as stored.
struct UnfinishedPlaylist<'a> {
    index: usize,
    /// Storage paths of the playlist and of the live playlist, which may be empty.
    name: &'a str,
    live: &'a str,
    /// Where it is if it is on this machine.
    path: PathBuf,
}

fn unfinished_playlists<'a>(ledger: &'a EgressLedger, root: &LocalRoot) -> Vec<UnfinishedPlaylist<'a>> {
    let results = ledger.info().segment_results.iter().enumerate();
    let open = results.filter(|(_, result)| !result.playlist_name.is_empty() && result.playlist_location.is_empty());
    let playlist = |(index, result): (usize, &'a SegmentsInfo)| {
        let (name, live) = (result.playlist_name.as_str(), result.live_playlist_name.as_str());
        UnfinishedPlaylist { index, name, live, path: root.locate(name) }
    };
    open.map(playlist).collect()
}

impl UnfinishedPlaylist<'_> {
    /// What the manifest says of it. `None`: nothing, or a segment is not there. Blocks on the disk.
    fn facts(&self, manifest: &Manifest) -> Option<Vec<Fact>> {
        let is_here = |playlist: &&ManifestPlaylist| Path::new(&playlist.location) == self.path;
        let here = manifest.playlists.iter().find(is_here);
        // In a store, whose URLs end in the name.
        let stored = || manifest.playlists.iter().find(|playlist| playlist.location.ends_with(self.name));
        let playlist = here.or_else(stored)?;
        let &Manifest { started_at, ended_at, .. } = manifest;
        let mut facts = vec![];
        if here.is_some() {
            let sizes = playlist.segments.iter().map(|segment| Some(std::fs::metadata(&segment.location).ok()?.len()));
            let bytes = sizes.sum::<Option<u64>>()?;
            let duration_ns = u64::try_from(ended_at.saturating_sub(started_at)).unwrap_or_default();
            let count = playlist.segments.len() as u64;
            facts.push(Fact::SegmentsProgress { index: self.index, count, bytes, duration_ns });
        }
        let folder = playlist.location.strip_suffix(self.name).filter(|_| !self.live.is_empty());
        facts.push(Fact::SegmentsStored {
            index: self.index,
            playlist_location: playlist.location.clone(),
            live_location: folder.map(|folder| format!("{folder}{}", self.live)),
            started_at,
            ended_at,
        });
        Some(facts)
    }
}

fn manifest_beside(location: &Path, egress_id: &str) -> Option<Manifest> {
    let path = location.with_file_name(format!("{egress_id}.json"));
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

/// EgressInfo as it is with one more fact; the record keeps its own. `at`: Unix nanoseconds.
///
/// # Errors
/// As [`info_of`].
pub fn info_with(record: &Record, fact: Fact, at: i64) -> Result<EgressInfo, RpcError> {
    let Some(mut ledger) = ledger_of(record) else { return info_of(record) };
    ledger.on(fact, at);
    Ok(ledger.info().clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use spillway_plan::manifest::ManifestFile;
    use spillway_protocol::rpc::StartEgressRequest;

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
        let left = left_behind(&ledger, &LocalRoot::starting_at("/"), &Clock::host());
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
        assert!(
            !left_behind(&ledger, &LocalRoot::starting_at("/"), &Clock::host()).finished,
            "the manifest of another egress says nothing"
        );
        let manifest = Manifest { started_at: 1_000, ended_at: 61_000, ..Manifest::default() }.to_json().unwrap();
        std::fs::write(dir.path().join("EG_done.json"), manifest).unwrap();
        let left = left_behind(&ledger, &LocalRoot::starting_at("/"), &Clock::host());
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
        let left = left_behind(&ledger, &LocalRoot::starting_at("/"), &Clock::host());
        assert!(left.finished);
        for fact in left.facts {
            ledger.on(fact, 9);
        }
        let durations: Vec<i64> = ledger.info().file_results.iter().map(|file| file.duration).collect();
        assert_eq!(durations, [60_000, 30_000, 60_000]);
    }

    /// One without a file has its manifest beside the playlist.
    #[test]
    fn a_playlist_with_its_manifest_is_complete() {
        let dir = tempfile::tempdir().unwrap();
        let root = LocalRoot::confined(dir.path());
        std::fs::create_dir(dir.path().join("d")).unwrap();
        let location = |name: &str| root.locate(name).display().to_string();
        let mut ledger =
            EgressLedger::accept(&StartEgressRequest { egress_id: "EG_hls".to_owned(), ..Default::default() }, 1);
        let opened = Fact::SegmentsOpened {
            index: 0,
            playlist: "d/a.m3u8".to_owned(),
            live_playlist: Some("d/live.m3u8".to_owned()),
        };
        ledger.on(opened, 2);
        ledger.on(Fact::Active { started_at: 5 }, 3);
        std::fs::write(location("d/a.m3u8"), "#EXTM3U\n").unwrap();
        let left = left_behind(&ledger, &root, &Clock::host());
        assert!(!left.finished);
        let note = format!("not finished properly: {}", location("d/a.m3u8"));
        assert!(matches!(&left.facts[..], [Fact::Noted(said)] if *said == note), "{:?}", left.facts);

        let segment = |name: &str| ManifestFile { location: location(name), ..ManifestFile::default() };
        let segments = vec![segment("d/a_00000.ts"), segment("d/a_00001.ts")];
        let playlists = vec![ManifestPlaylist { location: location("d/a.m3u8"), segments }];
        let manifest = Manifest { started_at: 1_000, ended_at: 61_000, playlists, ..Manifest::default() };
        std::fs::write(location("d/EG_hls.json"), manifest.to_json().unwrap()).unwrap();
        std::fs::write(location("d/a_00000.ts"), [0; 300]).unwrap();
        assert!(!left_behind(&ledger, &root, &Clock::host()).finished, "a segment is missing");
        std::fs::write(location("d/a_00001.ts"), [0; 40]).unwrap();
        let left = left_behind(&ledger, &root, &Clock::host());
        assert!(left.finished);
        for fact in left.facts.into_iter().chain([Fact::Over(spillway_protocol::ledger::Outcome::Complete)]) {
            ledger.on(fact, 9);
        }
        let result = &ledger.info().segment_results[0];
        assert_eq!((result.segment_count, result.size, result.duration), (2, 340, 60_000));
        assert_eq!(result.playlist_location, location("d/a.m3u8"));
        assert_eq!(result.live_playlist_location, location("d/live.m3u8"));
        assert!(!ledger.info().details.contains("not finished"), "{}", ledger.info().details);
        // What is reported as stored is not looked for.
        assert!(left_behind(&ledger, &root, &Clock::host()).facts.is_empty());
    }

    /// A file on this disk, HLS in a store: one manifest says that both are finished.
    #[test]
    fn a_playlist_in_a_store_is_complete_where_the_manifest_of_a_file_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let location = dir.path().join("a.mp4").display().to_string();
        std::fs::write(&location, [0; 12]).unwrap();
        let mut ledger =
            EgressLedger::accept(&StartEgressRequest { egress_id: "EG_two".to_owned(), ..Default::default() }, 1);
        ledger.on(Fact::FileOpened { index: 0, filename: "a.mp4".to_owned(), location }, 2);
        ledger.on(Fact::SegmentsOpened { index: 0, playlist: "d/a.m3u8".to_owned(), live_playlist: None }, 2);
        let playlists = vec![ManifestPlaylist { location: "https://s/b/d/a.m3u8".to_owned(), segments: vec![] }];
        for (playlists, finished) in [(vec![], false), (playlists, true)] {
            let manifest = Manifest { started_at: 1_000, ended_at: 61_000, playlists, ..Manifest::default() };
            std::fs::write(dir.path().join("EG_two.json"), manifest.to_json().unwrap()).unwrap();
            let left = left_behind(&ledger, &LocalRoot::starting_at(dir.path()), &Clock::host());
            assert_eq!(left.finished, finished);
        }
    }
}
