//! The private folder of a page: profile, sockets, temporary files of Chromium. It is in memory where the system has such a
//! place, because a profile knows cookies and the URLs that were visited, and the room token is in one of them.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{statfs, statvfs};
use rustix::process::{Pid, getuid, test_kill_process};
use tracing::{debug, warn};

/// Of each folder's name, before the process id.
const PREFIX: &str = "spillway-page-";
/// linux/magic.h: file systems in memory.
const TMPFS: u64 = 0x0102_1994;
const RAMFS: u64 = 0x8584_58f6;
/// A profile has 15 MiB after an hour of an ordinary page, and its cache takes up to four fifths of what is free. Chromium's
/// shared memory lies beside it: a container's usual `/dev/shm` of 64 MiB is too small for pages of video.
const MIN_FREE_BYTES: u64 = 192 << 20;

/// Of the folder's removal, and how long after the one before.
const LAST_ATTEMPT: u32 = 75;
const ATTEMPT_INTERVAL: Duration = Duration::from_millis(20);

/// Removed with everything in it when it is dropped.
#[derive(Debug)]
pub struct PageFolder {
    path: PathBuf,
    in_memory: bool,
}

impl PageFolder {
    /// A new folder that only this user can read: in memory where there is room, else among the temporary files. Removes
    /// those of processes that have died before they could.
    ///
    /// # Errors
    ///
    /// No folder can be made anywhere. A retry is useless.
    pub fn create() -> io::Result<Self> {
        let mut places: Vec<(PathBuf, bool)> = in_memory().into_iter().map(|place| (place, true)).collect();
        places.push((std::env::temp_dir(), false));
        let mut failed = io::Error::from(io::ErrorKind::NotFound);
        for (place, in_memory) in places {
            remove_stale(&place);
            match Self::within(&place, in_memory) {
                Ok(folder) => return Ok(folder),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    fn within(place: &Path, in_memory: bool) -> io::Result<Self> {
        let number: u32 = rand::random();
        let path = place.join(format!("{PREFIX}{}-{number:08x}", std::process::id()));
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self { path, in_memory })
    }

    /// Absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Nothing in it ever reaches a disk, unless the system swaps.
    pub fn is_in_memory(&self) -> bool {
        self.in_memory
    }

    /// A new folder inside it.
    ///
    /// # Errors
    ///
    /// It exists, or nothing can be written.
    pub fn subfolder(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.path.join(name);
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(path)
    }
}

impl Drop for PageFolder {
    fn drop(&mut self) {
        // Chromium's last processes may still be writing when they are killed; on a busy machine 60 ms were too short, and
        // one of them may make its folder anew, with all above it.
        for attempt in 0..=LAST_ATTEMPT {
            match fs::remove_dir_all(&self.path) {
                Ok(()) => std::thread::sleep(ATTEMPT_INTERVAL),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return,
                Err(error) if attempt == LAST_ATTEMPT => warn!(%error, "the folder of the page is not removed"),
                Err(_) => std::thread::sleep(ATTEMPT_INTERVAL),
            }
        }
    }
}

/// Folders that are in memory, can be written by us and have room.
fn in_memory() -> Vec<PathBuf> {
    let run = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute());
    let candidates = [Some(PathBuf::from("/dev/shm")), Some(std::env::temp_dir()), run];
    candidates.into_iter().flatten().filter(|path| is_in_memory(path)).collect()
}

fn is_in_memory(path: &Path) -> bool {
    let (Ok(system), Ok(room)) = (statfs(path), statvfs(path)) else { return false };
    // The kernel's numbers are unsigned; the field's type differs by architecture.
    let kind = system.f_type as u64 & u64::from(u32::MAX);
    matches!(kind, TMPFS | RAMFS) && room.f_bavail.saturating_mul(room.f_frsize) >= MIN_FREE_BYTES
}

/// Removes our folders of processes that are gone.
fn remove_stale(place: &Path) {
    let Ok(entries) = fs::read_dir(place) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(owner) else { continue };
        let is_ours = entry.metadata().is_ok_and(|metadata| metadata.is_dir() && metadata.uid() == getuid().as_raw());
        let is_alive = Pid::from_raw(pid).is_none_or(|pid| test_kill_process(pid).is_ok());
        if is_ours && !is_alive {
            debug!(pid, "the folder of a process that has died is removed");
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// The process id in the name of such a folder.
fn owner(name: &str) -> Option<i32> {
    name.strip_prefix(PREFIX)?.split_once('-')?.0.parse().ok().filter(|pid| *pid > 0)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn it_is_private_and_gone_with_its_value() {
        let folder = PageFolder::create().unwrap();
        let path = folder.path().to_owned();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        fs::write(folder.subfolder("profile").unwrap().join("file"), "x").unwrap();
        assert!(folder.subfolder("profile").is_err());
        drop(folder);
        assert!(!path.exists());
    }

    #[test]
    fn what_a_dead_process_has_left_is_removed_and_all_else_stays() {
        let place = tempfile::tempdir().unwrap();
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let dead = child.id();
        child.wait().unwrap();
        let folder = |name: String| {
            let path = place.path().join(name);
            fs::create_dir(&path).unwrap();
            path
        };
        let stale = folder(format!("{PREFIX}{dead}-0"));
        let others = [folder(format!("{PREFIX}{}-0", std::process::id())), folder(format!("{PREFIX}x-0"))];
        remove_stale(place.path());
        assert!(!stale.exists() && others.iter().all(|path| path.exists()));
    }

    #[test]
    fn names_have_their_process() {
        assert_eq!(owner("spillway-page-12-00ff"), Some(12));
        for name in ["spillway-page-12", "spillway-page--1-0", "spillway-page-0-0", "other-12-0", ""] {
            assert_eq!(owner(name), None, "{name}");
        }
    }
}
