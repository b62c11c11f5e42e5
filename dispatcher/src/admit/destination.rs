//! Can this machine write where the request wants its file? Asked before the 200, not after an hour of recording.

use std::io;
use std::path::{Component, Path, PathBuf};

use spillway_plan::{EgressPlan, Output};
use spillway_protocol::code::{Code, RpcError};

/// Tries every output of the plan that stays on this machine. Touches the disk: call it where blocking is allowed.
pub fn check(plan: &EgressPlan, root: Option<&Path>) -> Result<(), RpcError> {
    for output in &plan.outputs {
        let Output::File(file) = output;
        if file.stored {
            continue;
        }
        can_write(&file.path, root).map_err(|(at, error)| {
            let words = format!(
                "request has missing or invalid field: filepath ({}: cannot write in {}: {error})",
                file.path,
                at.display()
            );
            RpcError::new(Code::InvalidArgument, words)
        })?;
    }
    Ok(())
}

/// The folder that is already there on the way to the file has to take a new entry; the rest of the way will be made by
/// the runner. A variable in the path is only known later, so the way is followed as far as it is known.
fn can_write(path: &str, root: Option<&Path>) -> Result<(), (PathBuf, io::Error)> {
    let known = path.split('{').next().unwrap_or_default();
    let path = match root {
        Some(root) => root.join(known),
        None => PathBuf::from(known),
    };
    // Of `dir/na{time}` only `dir` is a folder; of `dir/name.mp4` as well.
    let folder = if known.is_empty() || known.ends_with('/') { path.as_path() } else { path.parent().unwrap_or(&path) };
    let folder = nearest_existing(folder);
    // Asking for permission is not enough: to root everything seems allowed, in /proc and on a full or read-only disk too.
    let probe = folder.join(format!(".spillway-probe-{}-{:08x}", std::process::id(), rand::random::<u32>()));
    let tried = std::fs::create_dir(&probe).and_then(|()| std::fs::remove_dir(&probe));
    tried.map_err(|error| (folder.to_path_buf(), error))
}

fn nearest_existing(folder: &Path) -> &Path {
    let here = Path::new(".");
    folder
        .ancestors()
        .map(|ancestor| if ancestor.as_os_str().is_empty() { here } else { ancestor })
        .find(|ancestor| ancestor.exists())
        .unwrap_or(if matches!(folder.components().next(), Some(Component::RootDir)) { Path::new("/") } else { here })
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
}
