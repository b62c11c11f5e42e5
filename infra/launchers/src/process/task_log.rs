//! The log of a runner on this machine: its standard error as a file in a folder. Short calls to the disk, in the caller's task.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use spillway_protocol::ids::EgressId;

use crate::launcher::TaskLog;

/// Of a log, this much of its end is read.
const TAIL_BYTES: u64 = 16 << 10;

/// The file for a task of this egress and attempt, which is made if it is not there.
///
/// # Errors
/// The folder or the file cannot be made.
pub(super) fn open(dir: &Path, egress_id: &EgressId, attempt: u32) -> io::Result<File> {
    std::fs::create_dir_all(dir)?;
    OpenOptions::new().create(true).append(true).open(path(dir, egress_id, attempt))
}

/// The end of the file.
pub(super) fn tail(dir: &Path, egress_id: &EgressId, attempt: u32) -> TaskLog {
    let path = path(dir, egress_id, attempt);
    let read = || {
        let mut file = File::open(&path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok::<_, io::Error>(String::from_utf8_lossy(&bytes).into_owned())
    };
    read().map_or_else(|_| TaskLog::At(path.display().to_string()), TaskLog::Tail)
}

/// The id was parsed: letters, digits, `_` and `-` only.
fn path(dir: &Path, egress_id: &EgressId, attempt: u32) -> PathBuf {
    dir.join(format!("{egress_id}-{attempt}.log"))
}
