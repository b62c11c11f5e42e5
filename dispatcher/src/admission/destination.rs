//! Whether this machine can write where the request wants its file: checked before the request is accepted, not after an
//! hour of recording. Blocks on the disk; runs on tokio's blocking threads.

use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, mkdirat, unlinkat};
use spillway_plan::EgressPlan;
use spillway_process::LocalRoot;
use spillway_protocol::code::{Code, RpcError};

/// Tries every output of the plan that stays on this machine.
///
/// # Errors
/// INVALID_ARGUMENT with the field and the folder that cannot be written; not worth a retry with the same request.
pub fn check(plan: &EgressPlan, root: Option<&Path>) -> Result<(), RpcError> {
    let local = plan.outputs.iter().filter(|output| output.stays_local());
    for (field, path) in local.filter_map(|output| output.path()) {
        can_write(path, root).map_err(|(at, error)| {
            let message = format!(
                "request has missing or invalid field: {field} ({path}: cannot write in {}: {error})",
                at.display()
            );
            RpcError::new(Code::InvalidArgument, message)
        })?;
    }
    Ok(())
}

/// The nearest existing folder above the file has to take a new entry; the runner creates the folders below it. A
/// variable in the path is only known later, so the path is followed up to the first one, and never out of a configured
/// root.
fn can_write(path: &str, root: Option<&Path>) -> Result<(), (PathBuf, io::Error)> {
    let absolute = |path: &Path| std::path::absolute(path).map_err(|error| (path.to_owned(), error));
    let root = match root {
        Some(root) => LocalRoot::confined(absolute(root)?),
        None => LocalRoot::starting_at(absolute(Path::new("."))?),
    };
    let known = path.split('{').next().unwrap_or_default();
    let place = root.locate(known);
    // Of `dir/na{time}` only `dir` is a folder; of `dir/name.mp4` as well.
    let is_folder = known.is_empty() || known.ends_with('/') || place == root.path();
    let folder = if is_folder { place.as_path() } else { place.parent().unwrap_or(&place) };
    let (at, opened) = root.nearest_folder(folder)?;
    // access(2) is not enough: root is allowed everything, in /proc and on a full or read-only disk too.
    let probe = format!(".spillway-probe-{}-{:08x}", std::process::id(), rand::random::<u32>());
    let tried = mkdirat(&opened, &probe, Mode::RWXU).and_then(|()| unlinkat(&opened, &probe, AtFlags::REMOVEDIR));
    tried.map_err(|error| (at, error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_that_can_be_made_are_fine_and_are_not_made_yet() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["a.mp4", "x/y/z.mp4", "x/{room_name}/z.mp4", "", "x/"] {
            can_write(path, Some(dir.path())).unwrap();
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_place_that_takes_no_file_is_named_with_the_reason() {
        let (at, error) = can_write("/proc/x.mp4", None).unwrap_err();
        assert_eq!(at, Path::new("/proc"));
        assert!(matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied), "{error}");
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), "").unwrap();
        let (at, _) = can_write("file/x.mp4", Some(dir.path())).unwrap_err();
        assert_eq!(at, dir.path().join("file"), "a file is no folder");
    }

    /// What is tried here is what the runner will do: no folder outside of the root is touched, not even for a moment.
    #[test]
    fn nothing_is_tried_outside_of_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let (jail, outside) = (dir.path().join("jail"), dir.path().join("outside"));
        std::fs::create_dir_all(&outside).unwrap();
        std::fs::create_dir_all(&jail).unwrap();
        std::os::unix::fs::symlink("../outside", jail.join("link")).unwrap();
        // A folder whose entries changed has another time of change.
        let changed = || std::fs::metadata(&outside).unwrap().modified().unwrap();
        let before = changed();
        let (at, error) = can_write("link/x.mp4", Some(&jail)).unwrap_err();
        assert_eq!((at, error.kind()), (jail.join("link"), io::ErrorKind::PermissionDenied));
        // An absolute name lies below the root: /proc would refuse, jail/proc does not.
        can_write("/proc/x.mp4", Some(&jail)).unwrap();
        can_write(outside.join("x.mp4").to_str().unwrap(), Some(&jail)).unwrap();
        can_write("../outside/x.mp4", Some(&jail)).unwrap();
        can_write(jail.join("x.mp4").to_str().unwrap(), Some(&jail)).unwrap();
        assert_eq!(changed(), before);
        let later = dir.path().join("later");
        can_write("a/x.mp4", Some(&later)).unwrap();
        assert_eq!(std::fs::read_dir(&later).unwrap().count(), 0, "the root itself is made, nothing else stays");
    }
}
