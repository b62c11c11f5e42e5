use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Barrier};
use std::time::Instant;

use super::*;

/// Where a kept claim of that name has landed, from `folder`, and what users are told it is called.
fn landed(folder: &Path, root: &LocalRoot, name: &str) -> (String, String) {
    let (place, mut claim) = claim(name, root).unwrap_or_else(|error| panic!("{name}: {error}"));
    claim.keep();
    assert_eq!(place.display, place.location.display().to_string());
    let real = fs::canonicalize(&place.location).unwrap();
    assert_eq!(FileId::of(&fs::symlink_metadata(&place.location).unwrap()), claim.id(), "{name}");
    (real.strip_prefix(folder).unwrap_or(&real).display().to_string(), place.filename)
}

struct Ground {
    folder: tempfile::TempDir,
}

impl Ground {
    /// A jail with a folder, a link to a folder outside, a link to a file outside, and an older recording.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for made in ["jail/inside", "outside"] {
            fs::create_dir_all(folder.path().join(made)).unwrap();
        }
        let ground = Self { folder };
        symlink("../outside", ground.path("jail/link")).unwrap();
        symlink("inside", ground.path("jail/near")).unwrap();
        symlink("../outside/victim.mp4", ground.path("jail/file-link.mp4")).unwrap();
        symlink("../outside/made.mp4", ground.path("jail/dangling.mp4")).unwrap();
        fs::write(ground.path("outside/victim.mp4"), "victim").unwrap();
        fs::write(ground.path("jail/older.mp4"), "older").unwrap();
        let fifo = Command::new("mkfifo").arg(ground.path("jail/pipe.mp4")).status().unwrap();
        assert!(fifo.success());
        let _socket = std::os::unix::net::UnixListener::bind(ground.path("jail/socket.mp4")).unwrap();
        ground
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn untouched(&self) {
        assert_eq!(fs::read(self.path("outside/victim.mp4")).unwrap(), b"victim");
        assert_eq!(fs::read(self.path("jail/older.mp4")).unwrap(), b"older");
        assert_eq!(fs::read_dir(self.path("outside")).unwrap().count(), 1, "nothing new outside");
    }
}

#[test]
fn below_a_root_every_name_lands_below_it() {
    let ground = Ground::new();
    let jail = ground.path("jail");
    let root = LocalRoot::confined(&jail);
    let inside = jail.join("own.mp4").display().to_string();
    let outside = ground.path("outside/abs.mp4").display().to_string();
    let below = format!("jail{outside}");
    for (name, place, filename) in [
        ("a.mp4", "jail/a.mp4", "a.mp4"),
        ("a.mp4", "jail/a-2.mp4", "a-2.mp4"),
        ("a.mp4", "jail/a-3.mp4", "a-3.mp4"),
        ("x/y/a.mp4", "jail/x/y/a.mp4", "x/y/a.mp4"),
        ("../outside/up.mp4", "jail/outside/up.mp4", "../outside/up.mp4"),
        (&inside, "jail/own.mp4", &inside),
        (&outside, &below, &outside),
        ("near/b.mp4", "jail/inside/b.mp4", "near/b.mp4"),
        ("older.mp4", "jail/older-2.mp4", "older-2.mp4"),
        ("file-link.mp4", "jail/file-link-2.mp4", "file-link-2.mp4"),
        ("dangling.mp4", "jail/dangling-2.mp4", "dangling-2.mp4"),
        ("inside", "jail/inside-2", "inside-2"),
        ("/dev/null", "jail/dev/null", "/dev/null"),
    ] {
        assert_eq!(landed(ground.folder.path(), &root, name), (place.to_owned(), filename.to_owned()), "{name}");
    }
    let error = claim("link/z.mp4", &root).unwrap_err();
    assert!(matches!(&error, OutputError::Folder { path, .. } if *path == jail.join("link")), "{error}");
    assert!(error.to_string().contains("leads out of"), "{error}");
    ground.untouched();
}

#[test]
fn without_a_root_names_are_obeyed_and_what_lies_there_stays() {
    let ground = Ground::new();
    let root = LocalRoot::starting_at(ground.path("jail"));
    let absolute = ground.path("outside/new.mp4").display().to_string();
    let victim = ground.path("outside/victim.mp4").display().to_string();
    for (name, place) in [
        ("a.mp4", "jail/a.mp4"),
        ("older.mp4", "jail/older-2.mp4"),
        ("file-link.mp4", "jail/file-link-2.mp4"),
        (&absolute, "outside/new.mp4"),
        (&victim, "outside/victim-2.mp4"),
        ("link/z.mp4", "outside/z.mp4"),
    ] {
        assert_eq!(landed(ground.folder.path(), &root, name).0, place, "{name}");
    }
    assert_eq!(fs::read(victim).unwrap(), b"victim");
}

#[test]
fn what_is_no_file_is_refused_at_once() {
    let ground = Ground::new();
    for (root, name, what) in [
        (LocalRoot::confined(ground.path("jail")), "pipe.mp4", "a pipe"),
        (LocalRoot::starting_at(ground.path("jail")), "pipe.mp4", "a pipe"),
        (LocalRoot::confined(ground.path("jail")), "socket.mp4", "a socket"),
        (LocalRoot::starting_at("/"), "/dev/null", "a device"),
        (LocalRoot::confined("/dev"), "null", "a device"),
    ] {
        let error = claim(name, &root).unwrap_err();
        assert!(error.to_string().ends_with(&format!("is {what}")), "{error}");
    }
    for name in ["", "/"] {
        assert!(claim(name, &LocalRoot::confined(ground.path("jail"))).is_err(), "{name:?}");
    }
}

#[test]
fn many_at_once_get_a_file_each() {
    let folder = tempfile::tempdir().unwrap();
    let start = Arc::new(Barrier::new(16));
    let claims: Vec<_> = (0..16)
        .map(|_| {
            let (start, root) = (start.clone(), LocalRoot::confined(folder.path()));
            std::thread::spawn(move || {
                start.wait();
                claim("d/x.mp4", &root).unwrap()
            })
        })
        .collect();
    let claims: Vec<_> = claims.into_iter().map(|claim| claim.join().unwrap()).collect();
    let mut names: Vec<_> = claims.iter().map(|(place, _)| place.filename.clone()).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 16);
    let mut files: Vec<_> = claims.iter().map(|(_, claim)| claim.id().inode).collect();
    files.sort_unstable();
    files.dedup();
    assert_eq!(files.len(), 16);
    drop(claims);
    assert_eq!(fs::read_dir(folder.path().join("d")).unwrap().count(), 0, "none was kept");
}

#[test]
fn a_claim_takes_away_its_own_file_only() {
    let folder = tempfile::tempdir().unwrap();
    let root = LocalRoot::confined(folder.path());
    let (place, mut ours) = claim("a.mp4", &root).unwrap();
    ours.keep();
    fs::rename(&place.location, folder.path().join("moved.mp4")).unwrap();
    fs::write(&place.location, "another's").unwrap();
    assert!(ours.remove().is_err());
    fs::write(folder.path().join("moved.mp4"), "12345").unwrap();
    assert_eq!(ours.bytes().unwrap(), 5, "the file, not the name");
    drop(ours);
    assert_eq!(fs::read(&place.location).unwrap(), b"another's");
}

#[test]
fn a_manifest_replaces_only_one_of_the_same_egress() {
    let folder = tempfile::tempdir().unwrap();
    let root = LocalRoot::confined(folder.path());
    let (_, mut file) = claim("a.mp4", &root).unwrap();
    file.keep();
    let ours = |content: &[u8]| content == b"first attempt";
    assert_eq!(file.write_beside("EG.json", b"first attempt", ours).unwrap(), "EG.json");
    assert_eq!(file.write_beside("EG.json", b"second attempt", ours).unwrap(), "EG.json");
    assert_eq!(fs::read(folder.path().join("EG.json")).unwrap(), b"second attempt");
    assert_eq!(file.write_beside("EG.json", b"third", ours).unwrap(), "EG-2.json");
    assert_eq!(fs::read(folder.path().join("EG.json")).unwrap(), b"second attempt");
    symlink("a.mp4", folder.path().join("L.json")).unwrap();
    assert_eq!(file.write_beside("L.json", b"4", |_| true).unwrap(), "L-2.json");
    assert_eq!(file.bytes().unwrap(), 0);
    let left = fs::read_dir(folder.path()).unwrap().flatten();
    let left: Vec<_> = left.filter(|entry| entry.file_name().to_string_lossy().ends_with(".part")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_number_fits_into_the_longest_name() {
    assert_eq!(numbered("a.mp4", 1), "a.mp4");
    assert_eq!(numbered("d.e/a.mp4", 2), "d.e/a-2.mp4");
    assert_eq!(numbered("d.e/a", 2), "d.e/a-2");
    assert_eq!(numbered("a", 2), "a-2");
    assert_eq!(numbered("a.b.mp4", 12), "a.b-12.mp4");
    assert_eq!(numbered(".mp4", 2), ".mp4-2");
    let long = format!("{}.mp4", "ü".repeat(125));
    let second = numbered(&long, 2);
    assert!(second.len() <= 255 && second.ends_with("ü-2.mp4"), "{second}");
    let longest = format!("{}.mp4", "x".repeat(251));
    assert_eq!(numbered(&longest, 9999).len(), 255);
}

#[tokio::test]
async fn a_disk_that_does_not_answer_is_waited_for_with_a_bound() {
    let begun = Instant::now();
    let (done, wait) = std::sync::mpsc::channel::<()>();
    let never = move || {
        let _ = wait.recv();
        Ok(())
    };
    let error = within(Duration::from_millis(50), "/slow/a.mp4".into(), never).await.unwrap_err();
    assert_eq!(error.to_string(), "the disk of /slow/a.mp4 did not answer within 0 s");
    assert!(begun.elapsed() < Duration::from_secs(5));
    drop(done);
}
