//! Files of a spool folder that are whole once they have their names. Blocks for the disk.

use std::fs;
use std::path::Path;

use spillway_ipc::{SpoolError, SpoolFile};

/// Writes a file under the name `unfinished` and renames it; one of its name is replaced.
pub(super) fn write(folder: &Path, unfinished: &str, name: &str, bytes: &[u8]) -> Result<(), SpoolError> {
    let unfinished = folder.join(unfinished);
    // What a dead process was writing.
    let _ = fs::remove_file(&unfinished);
    SpoolFile::create_append_only(&unfinished)?.append(bytes)?;
    let path = folder.join(name);
    fs::rename(&unfinished, &path).map_err(|source| SpoolError::Create { path, source })
}
