//! Clips, made once per machine by ffmpeg, and other files that the set-up has put into the cache: flashes and beeps for
//! the analyser (`assets/make.sh`), and clips for people to look at (`assets/demo.sh`).

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, ensure};

use crate::clip::Clip;

/// Clips that a script makes: all of them on the first use of one. Each is read on its own first use.
pub struct ClipSet {
    name: &'static str,
    script: &'static str,
    takes: &'static str,
    made: Mutex<Option<PathBuf>>,
    read: Mutex<BTreeMap<String, Arc<Clip>>>,
}

/// Clips that the analyser reads back out of a recording: flash, beep, large bar code.
pub static TEST_CLIPS: ClipSet = ClipSet::new("make.sh", include_str!("../assets/make.sh"), "about a minute");

/// Clips that a person likes to look at: names, clocks, motion, music, a small bar code.
pub static DEMO_CLIPS: ClipSet = ClipSet::new("demo.sh", include_str!("../assets/demo.sh"), "half a minute");

/// The folder of the set-up on this machine: `SPILLWAY_CACHE`, else `spillway` in the cache folder of the user.
pub fn cache() -> PathBuf {
    if let Some(folder) = std::env::var_os("SPILLWAY_CACHE") {
        return folder.into();
    }
    let home = std::env::var_os("HOME").unwrap_or_else(|| "/tmp".into());
    std::env::var_os("XDG_CACHE_HOME").map_or_else(|| Path::new(&home).join(".cache"), PathBuf::from).join("spillway")
}

/// A file of the npm packages that the set-up has installed for pages in the browser: in `SPILLWAY_NPM`, else in the cache.
/// `path` begins with the package's name.
pub fn npm_file(path: &str) -> Result<PathBuf> {
    let npm = std::env::var_os("SPILLWAY_NPM").map_or_else(|| cache().join("npm"), PathBuf::from);
    let file = npm.join("node_modules").join(path);
    ensure!(file.is_file(), "nothing at {}: `cargo verify` installs it", file.display());
    Ok(file)
}

/// What the set-up has built of `runner/template`: the folders `site`, which a runner serves, `pages` and `tests`.
///
/// # Errors
///
/// When nothing is built, or of other sources than those beside these tests.
pub fn built_template() -> Result<PathBuf> {
    let built = cache().join("template");
    let whole = built.join("built");
    ensure!(whole.is_file(), "nothing at {}: `cargo verify` builds the template", whole.display());
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../runner/template");
    are_the_same(&source, &built.join("source"))?;
    Ok(built)
}

fn are_the_same(source: &Path, copy: &Path) -> Result<()> {
    for entry in fs::read_dir(source).with_context(|| format!("read {}", source.display()))? {
        let entry = entry.with_context(|| format!("read {}", source.display()))?;
        let (ours, copy) = (entry.path(), copy.join(entry.file_name()));
        if !ours.is_dir() {
            let same = fs::read(&copy).is_ok_and(|copy| fs::read(&ours).is_ok_and(|ours| ours == copy));
            ensure!(same, "{} has changed since the template was built: `cargo verify` builds it", ours.display());
        } else if entry.file_name() != "node_modules" && entry.file_name() != "dist" {
            are_the_same(&ours, &copy)?;
        }
    }
    Ok(())
}

/// Archive (`docker save`) of the runner's image: the one that `cargo verify` built from these sources, or the one that
/// `SPILLWAY_RUNNER_IMAGE` names.
///
/// # Errors
///
/// There is none.
pub fn runner_image() -> Result<PathBuf> {
    let named = std::env::var_os("SPILLWAY_RUNNER_IMAGE").map(PathBuf::from);
    let archive = named.unwrap_or_else(|| images().join("spillway-runner.tar"));
    ensure!(archive.is_file(), "no image of the runner at {}: `cargo verify` makes it", archive.display());
    Ok(archive)
}

/// Why no container can run on this machine, where the set-up has found that none can.
pub fn containers_left_out() -> Option<String> {
    fs::read_to_string(images().join("left-out")).ok()
}

fn images() -> PathBuf {
    cache().join("images/dev")
}

impl ClipSet {
    const fn new(name: &'static str, script: &'static str, takes: &'static str) -> Self {
        Self { name, script, takes, made: Mutex::new(None), read: Mutex::new(BTreeMap::new()) }
    }

    /// The folder of the clips. Made on first use, by one process at a time; another version of the script makes another
    /// folder.
    ///
    /// # Errors
    ///
    /// When the cache cannot be written or ffmpeg fails; what it has finished is kept for the next attempt.
    pub fn folder(&self) -> Result<PathBuf> {
        let mut known = self.made.lock().expect("no panic while the folder is made");
        if let Some(folder) = &*known {
            return Ok(folder.clone());
        }
        let version = self
            .script
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        let folder = cache().join("assets").join(format!("{version:016x}"));
        fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        let done = folder.join("complete");
        if !done.exists() {
            let lock = File::create(folder.join("lock")).context("create the lock of the clips")?;
            rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).context("lock the clips")?;
            if !done.exists() {
                eprintln!("making clips in {} ({}, once)", folder.display(), self.takes);
                let script = folder.join(self.name);
                fs::write(&script, self.script).context("write the script of the clips")?;
                let made = Command::new("sh").arg(&script).arg(&folder).status().context("start sh")?;
                ensure!(made.success(), "assets/{} failed: {made}", self.name);
                fs::write(&done, b"").context("mark the clips complete")?;
            }
        }
        *known = Some(folder.clone());
        Ok(folder)
    }

    /// A clip by its file name in the folder, e.g. `p0-720.h264`; read once per process.
    ///
    /// # Errors
    ///
    /// When the clips cannot be made, or the script makes none of that name.
    pub fn clip(&self, name: &str) -> Result<Arc<Clip>> {
        let folder = self.folder()?;
        let mut read = self.read.lock().expect("no panic while a clip is read");
        if let Some(clip) = read.get(name) {
            return Ok(clip.clone());
        }
        let clip = Arc::new(Clip::open(&folder.join(name))?);
        read.insert(name.to_owned(), clip.clone());
        Ok(clip)
    }
}

/// The folder of [`TEST_CLIPS`].
pub fn folder() -> Result<PathBuf> {
    TEST_CLIPS.folder()
}

/// One of [`TEST_CLIPS`], by its file name.
pub fn clip(name: &str) -> Result<Arc<Clip>> {
    TEST_CLIPS.clip(name)
}

/// A person in the clips of `make.sh`, by the properties that the analyser recognises in a recording.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TestPerson {
    /// Prefix of the clips; also used as identity.
    pub name: &'static str,
    /// Chroma of the background, in the video's own (limited range) values.
    pub u: u8,
    /// As `u`.
    pub v: u8,
    /// Frequency of the beep, hertz.
    pub tone: f64,
}

/// Every person of `make.sh`.
pub const PEOPLE: [TestPerson; 4] = [
    TestPerson { name: "p0", u: 111, v: 177, tone: 600.0 },
    TestPerson { name: "p1", u: 95, v: 87, tone: 900.0 },
    TestPerson { name: "p2", u: 177, v: 120, tone: 1350.0 },
    TestPerson { name: "p3", u: 83, v: 142, tone: 2000.0 },
];

/// A person by name; panics on a name that `make.sh` does not have.
pub fn person(name: &str) -> TestPerson {
    *PEOPLE.iter().find(|person| person.name == name).expect("one of the people of make.sh")
}
