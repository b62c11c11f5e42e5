//! Where a file of an output goes: its name with the variables filled in, its place in the spool or on this machine's disk,
//! and the location that users are told. Pure, except for [`OutputPath::prepare_private`] and [`private_folder`].

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use chrono::NaiveDateTime;
use spillway_ipc::TrackFacts;
use spillway_plan::name::{self, NameFacts};
use spillway_plan::segment_name::{SegmentNames, SegmentNaming};
use spillway_plan::{Container, EgressPlan, FileOutput};

/// Longest component a file system takes, in bytes.
const MAX_COMPONENT: usize = 255;

/// Why a file cannot be written where the request wants it.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The media process opened an output that the plan does not have.
    #[error("the media process opened a file of output {0}, which this egress does not have")]
    NotRequested(u32),
    /// The folder was not made.
    #[error("cannot create the folder {}: {source}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// The file was not made.
    #[error("cannot write {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// A device, pipe or socket lies there.
    #[error("cannot write {}: there is no recording to a place that is {what}", path.display())]
    Special {
        /// As it was asked for.
        path: PathBuf,
        /// With its article: "a pipe".
        what: &'static str,
    },
    /// Every numbered variant of the name is taken.
    #[error("cannot write {}: {names} files of that name are there", path.display())]
    Taken {
        /// As it was asked for.
        path: PathBuf,
        /// How many were tried.
        names: u32,
    },
    /// The disk hangs.
    #[error("the disk of {} did not answer within {seconds} s", path.display())]
    Slow {
        /// As it was asked for.
        path: PathBuf,
        /// The timeout.
        seconds: u64,
    },
}

/// Where a file goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputPath {
    /// As users see it: variables filled in, relative if they asked for a relative one.
    pub filename: String,
    /// Absolute: where it is written.
    pub location: PathBuf,
    /// For the user: where the file is in the end, a path or a store's location.
    pub display: String,
}

impl OutputPath {
    /// For the spool: creates an empty file that only this user can read. What an earlier attempt of this egress has left
    /// there is removed, not written over: its media process may not be dead yet. Blocks.
    ///
    /// # Errors
    /// The operating system's. A retry is right only where the disk's error passes.
    pub fn prepare_private(&self) -> Result<(), OutputError> {
        if let Some(folder) = self.location.parent() {
            private_folder(folder)?;
        }
        let refused = |source| OutputError::File { path: self.location.clone(), source };
        match fs::remove_file(&self.location) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(refused(error)),
            _ => {}
        }
        let file = File::options().write(true).create_new(true).mode(0o600).open(&self.location);
        file.map(|_| ()).map_err(refused)
    }
}

/// Makes a folder of the spool, and those above it, which only this user can read. Blocks.
///
/// # Errors
/// The operating system's. A retry is right only where the disk's error passes.
pub fn private_folder(folder: &Path) -> Result<(), OutputError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|source| OutputError::Folder { path: folder.to_owned(), source })
}

/// The name that is asked for, as users see it: variables filled in, relative if they asked for a relative one. On this
/// machine's disk `claim` has the last word.
pub fn filename(
    plan: &EgressPlan,
    output: &FileOutput,
    container: Container,
    track: &TrackFacts,
    now: NaiveDateTime,
) -> String {
    name::resolve(output, container, &name_facts(plan, track), now)
}

/// Names of everything that an HLS output stores.
pub fn segment_names(
    plan: &EgressPlan,
    naming: &SegmentNaming,
    track: &TrackFacts,
    now: NaiveDateTime,
) -> SegmentNames {
    naming.resolve(&name_facts(plan, track), now)
}

fn name_facts(plan: &EgressPlan, track: &TrackFacts) -> NameFacts {
    let mut facts = NameFacts::of(plan);
    for (known, fact) in [
        (&mut facts.publisher_identity, &track.publisher_identity),
        (&mut facts.track_id, &track.track_id),
        (&mut facts.track_kind, &track.track_kind),
        (&mut facts.track_source, &track.track_source),
    ] {
        if !fact.is_empty() {
            known.clone_from(fact);
        }
    }
    facts
}

/// `d/a.mp4`, 2 → `d/a-2.mp4`; 1 is the name itself. Long names are cut, so that a file system takes them.
pub fn numbered(name: &str, number: u32) -> String {
    if number == 1 {
        return name.to_owned();
    }
    let (folder, name) = name.split_at(name.rfind('/').map_or(0, |at| at + 1));
    let (stem, extension) = match name.rfind('.') {
        Some(dot) if dot > 0 => name.split_at(dot),
        _ => (name, ""),
    };
    let end = format!("-{number}{extension}");
    let mut room = MAX_COMPONENT.saturating_sub(end.len()).min(stem.len());
    while !stem.is_char_boundary(room) {
        room -= 1;
    }
    format!("{folder}{}{end}", &stem[..room])
}
