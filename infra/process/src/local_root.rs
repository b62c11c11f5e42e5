//! Files of this machine whose names come from a request. A name goes in, an open folder comes out; with a confining root
//! the folder lies below it, whatever `..` or symbolic links the name contains. Every function but `locate` blocks for
//! as long as the disk does.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, mkdirat, openat, openat2, statat};
use rustix::io::Errno;

/// Flags for a folder that is only traversed: it need not be readable.
const FOLDER: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
/// `openat2` fails with EAGAIN when a rename runs below it at the same time; openat2(2) leaves the number of retries to its
/// callers.
const TRIES: u32 = 32;

/// The folder that file names are relative to, and whether they may lead out of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalRoot {
    path: PathBuf,
    confined: bool,
}

impl LocalRoot {
    /// Everything lies below `path`, which is absolute. An absolute name that begins with it means the same file as
    /// without that beginning; any other absolute name lies below it too (`/a/b` is `path/a/b`).
    pub fn confined(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), confined: true }
    }

    /// Relative names begin at `path`, which is absolute; absolute names are taken as they are.
    pub fn starting_at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), confined: false }
    }

    /// Of a process with the setting `local_root`, which may be relative; without one relative names begin in the working
    /// directory.
    ///
    /// # Errors
    ///
    /// The working directory is gone. A retry is useless.
    pub fn of_setting(local_root: Option<&Path>) -> io::Result<Self> {
        let here = std::env::current_dir()?;
        Ok(match local_root {
            Some(root) => Self::confined(here.join(root)),
            None => Self::starting_at(here),
        })
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of `name`, with symbolic links not resolved. Does not access the disk.
    pub fn locate(&self, name: impl AsRef<Path>) -> PathBuf {
        let name = name.as_ref();
        if !self.confined {
            return self.path.join(name);
        }
        let mut below = PathBuf::new();
        for component in name.strip_prefix(&self.path).unwrap_or(name).components() {
            match component {
                Component::Normal(part) => below.push(part),
                Component::ParentDir => drop(below.pop()),
                Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            }
        }
        if below.as_os_str().is_empty() { self.path.clone() } else { self.path.join(below) }
    }

    /// Opens a folder whose path comes from `locate`, and creates it where it is missing. The descriptor (`O_PATH`) serves
    /// `openat` and its relatives, not reading.
    ///
    /// # Errors
    ///
    /// The operating system's; `PermissionDenied` where a symbolic link leads out of a confining root. A retry helps
    /// only where the disk was full or away.
    pub fn make_folder(&self, folder: &Path) -> io::Result<OwnedFd> {
        if !self.confined {
            fs::create_dir_all(folder)?;
            return Ok(openat(CWD, folder, FOLDER, Mode::empty())?);
        }
        fs::create_dir_all(&self.path)?;
        let (opened, rest) = self.walk(folder, true).map_err(|(_, error)| error)?;
        debug_assert!(rest.is_none(), "made");
        Ok(opened)
    }

    /// The deepest existing folder on the path to `folder`, with its path. Creates nothing but the confining root.
    ///
    /// # Errors
    ///
    /// The path that cannot be entered and why: not a folder, no permission, or out of a confining root. A retry helps
    /// only where the disk was away.
    pub fn nearest_folder(&self, folder: &Path) -> Result<(PathBuf, OwnedFd), (PathBuf, io::Error)> {
        if self.confined {
            fs::create_dir_all(&self.path).map_err(|error| (self.path.clone(), error))?;
            let (opened, missing_from) = self.walk(folder, false)?;
            return Ok((missing_from.unwrap_or_else(|| folder.to_owned()), opened));
        }
        let there = folder.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("/"));
        let opened = openat(CWD, there, FOLDER, Mode::empty()).map_err(|error| (there.to_owned(), error.into()))?;
        Ok((there.to_owned(), opened))
    }

    /// Opens one folder after the other from the root down. Where one is missing and `make` is false: the last existing
    /// one, with its path.
    fn walk(&self, folder: &Path, make: bool) -> Result<(OwnedFd, Option<PathBuf>), (PathBuf, io::Error)> {
        let at_root = |error: Errno| (self.path.clone(), error.into());
        let root = openat(CWD, &self.path, FOLDER, Mode::empty()).map_err(at_root)?;
        let mut here = openat(CWD, &self.path, FOLDER, Mode::empty()).map_err(at_root)?;
        let mut below = PathBuf::new();
        for component in folder.strip_prefix(&self.path).unwrap_or(folder).components() {
            let Component::Normal(part) = component else { continue };
            let parent = self.path.join(&below);
            below.push(part);
            let refused = |error| (self.path.join(&below), error);
            here = match step(&root, &below, &here, part) {
                Ok(folder) => folder,
                Err(Errno::NOENT) if make => {
                    match mkdirat(&here, part, Mode::from_raw_mode(0o777)) {
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(error) => return Err(refused(error.into())),
                    }
                    step(&root, &below, &here, part).map_err(|error| refused(io_error(error)))?
                }
                // A dangling symbolic link exists.
                Err(Errno::NOENT) if statat(&here, part, AtFlags::SYMLINK_NOFOLLOW).is_err() => {
                    return Ok((here, Some(parent)));
                }
                Err(error) => return Err(refused(io_error(error))),
            };
        }
        Ok((here, None))
    }
}

/// Opens the folder `below` the root, which is `part` of `here`. Follows symbolic links that stay below the root.
fn step(root: &OwnedFd, below: &Path, here: &OwnedFd, part: &OsStr) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    for _ in 0..TRIES {
        match openat2(root, below, FOLDER, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            // Kernels before 5.6, gVisor, and seccomp profiles older than that: no symbolic link is followed at all.
            Err(Errno::NOSYS | Errno::PERM) => return openat(here, part, FOLDER | OFlags::NOFOLLOW, Mode::empty()),
            done => return done,
        }
    }
    Err(Errno::AGAIN)
}

fn io_error(error: Errno) -> io::Error {
    match error {
        Errno::XDEV | Errno::LOOP => {
            io::Error::new(io::ErrorKind::PermissionDenied, "a symbolic link leads out of the folder for recordings")
        }
        error => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn path_of(folder: &OwnedFd) -> PathBuf {
        use std::os::fd::AsRawFd;
        fs::read_link(format!("/proc/self/fd/{}", folder.as_raw_fd())).unwrap()
    }

    #[test]
    fn a_confined_name_lies_below_the_root_whatever_it_says() {
        let root = LocalRoot::confined("/out");
        for (name, place) in [
            ("a.mp4", "/out/a.mp4"),
            ("a/b.mp4", "/out/a/b.mp4"),
            ("/out/a.mp4", "/out/a.mp4"),
            ("/outside/a.mp4", "/out/outside/a.mp4"),
            ("/dev/null", "/out/dev/null"),
            ("../a.mp4", "/out/a.mp4"),
            ("/out/../etc/a.mp4", "/out/etc/a.mp4"),
            ("a/../../b.mp4", "/out/b.mp4"),
            ("/", "/out"),
            ("", "/out"),
        ] {
            assert_eq!(root.locate(name), Path::new(place), "{name}");
        }
        let open = LocalRoot::starting_at("/home");
        assert_eq!(open.locate("a.mp4"), Path::new("/home/a.mp4"));
        assert_eq!(open.locate("/out/a.mp4"), Path::new("/out/a.mp4"));
    }

    #[test]
    fn a_link_is_followed_as_long_as_it_stays_below_the_root() {
        let folder = tempfile::tempdir().unwrap();
        let (jail, outside) = (folder.path().join("jail"), folder.path().join("outside"));
        fs::create_dir_all(jail.join("inside")).unwrap();
        fs::create_dir_all(outside.join("there")).unwrap();
        symlink("inside", jail.join("near")).unwrap();
        symlink("../outside", jail.join("up")).unwrap();
        symlink(&outside, jail.join("absolute")).unwrap();
        symlink(&jail, outside.join("back")).unwrap();
        symlink("nowhere", jail.join("dangling")).unwrap();
        symlink("/proc/self/cwd", jail.join("magic")).unwrap();
        let root = LocalRoot::confined(&jail);
        let made = root.make_folder(&jail.join("near/x/y")).unwrap();
        assert_eq!(path_of(&made), jail.join("inside/x/y"));
        for name in ["up", "up/there", "up/new", "absolute/there", "absolute/back/inside", "magic", "up/../../x"] {
            let error = root.make_folder(&jail.join(name)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{name}: {error}");
            let (at, error) = root.nearest_folder(&jail.join(name)).unwrap_err();
            assert!(at.starts_with(&jail) && error.kind() == io::ErrorKind::PermissionDenied, "{name}: {error}");
        }
        assert!(root.make_folder(&jail.join("dangling/x")).is_err());
        assert!(root.nearest_folder(&jail.join("dangling/x")).is_err());
        assert_eq!(fs::read_dir(outside).unwrap().count(), 2, "nothing was made there");
    }

    #[test]
    fn without_openat2_no_link_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("inside")).unwrap();
        symlink("inside", folder.path().join("near")).unwrap();
        let here = openat(CWD, folder.path(), FOLDER, Mode::empty()).unwrap();
        let walk = |part: &str| openat(&here, part, FOLDER | OFlags::NOFOLLOW, Mode::empty());
        assert!(walk("inside").is_ok());
        assert_eq!(walk("near").map(|_| ()).unwrap_err(), Errno::NOTDIR);
    }

    #[test]
    fn the_nearest_folder_is_found_and_only_the_root_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let jail = folder.path().join("jail");
        let root = LocalRoot::confined(&jail);
        let (at, opened) = root.nearest_folder(&jail.join("a/b")).unwrap();
        assert_eq!((at.as_path(), path_of(&opened)), (jail.as_path(), jail.clone()));
        fs::create_dir(jail.join("a")).unwrap();
        let (at, opened) = root.nearest_folder(&jail.join("a/b/c")).unwrap();
        assert_eq!((at, path_of(&opened)), (jail.join("a"), jail.join("a")));
        assert!(!jail.join("a/b").exists());
        fs::write(jail.join("file"), "").unwrap();
        let (at, error) = root.nearest_folder(&jail.join("file/x")).unwrap_err();
        assert_eq!((at, error.kind()), (jail.join("file"), io::ErrorKind::NotADirectory));
        let open = LocalRoot::starting_at(folder.path());
        assert_eq!(open.nearest_folder(&folder.path().join("x/y")).unwrap().0, folder.path());
    }
}
