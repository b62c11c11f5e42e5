//! What the media process' files mean: where they lie, under which name, what is known of them in the end.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use chrono::NaiveDateTime;
use spillway_plan::manifest::{self, Manifest, ManifestFile};
use spillway_plan::name::{self, NameFacts};
use spillway_plan::{Container, EgressPlan, FileOutput, Output};
use spillway_spool::{Happening, Quality, TrackFacts};

#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    #[error("the media process opened file {0}, which nobody asked for")]
    NotAsked(u32),
    #[error("cannot create the folder {}: {source}", path.display())]
    Folder { path: PathBuf, source: io::Error },
    #[error("cannot write {}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
}

/// A path nobody is using yet, or an older recording that will be overwritten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// As users see it: variables filled in, relative if they asked for a relative one.
    pub filename: String,
    /// Absolute: where it is written.
    pub location: PathBuf,
    /// Where people find it in the end.
    pub shown: String,
}

impl Place {
    /// Where `output` goes. `root` is absolute; a relative name lies below it, an absolute one is obeyed as it is.
    pub fn of(
        plan: &EgressPlan,
        output: &FileOutput,
        container: Container,
        track: &TrackFacts,
        now: NaiveDateTime,
        root: &Path,
    ) -> Self {
        let mut facts = NameFacts::of(plan);
        for (known, said) in [
            (&mut facts.publisher_identity, &track.publisher_identity),
            (&mut facts.track_id, &track.track_id),
            (&mut facts.track_kind, &track.track_kind),
            (&mut facts.track_source, &track.track_source),
        ] {
            if !said.is_empty() {
                known.clone_from(said);
            }
        }
        let filename = name::resolve(output, container, &facts, now);
        let location = root.join(&filename);
        Self { shown: location.display().to_string(), location, filename }
    }

    /// Makes the folders and the file. A file that was there keeps its bytes until the first new ones come. True: it
    /// was not there before.
    pub fn prepare(&self) -> Result<bool, PlaceError> {
        if let Some(folder) = self.location.parent() {
            fs::create_dir_all(folder).map_err(|source| PlaceError::Folder { path: folder.to_owned(), source })?;
        }
        let refused = |source| PlaceError::File { path: self.location.clone(), source };
        match File::create_new(&self.location) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                File::options().write(true).open(&self.location).map(|_| false).map_err(refused)
            }
            Err(error) => Err(refused(error)),
        }
    }

    /// For the spool: an empty file that only this user can read.
    pub fn prepare_private(&self) -> Result<(), PlaceError> {
        if let Some(folder) = self.location.parent() {
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
            made.map_err(|source| PlaceError::Folder { path: folder.to_owned(), source })?;
        }
        let refused = |source| PlaceError::File { path: self.location.clone(), source };
        let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&self.location);
        file.map(|_| ()).map_err(refused)
    }
}

/// One file of this egress, from its opening to its result.
#[derive(Clone, Debug)]
pub struct Recorded {
    pub place: Place,
    pub track: TrackFacts,
    /// Nobody's older recording lay there.
    new: bool,
    bytes: u64,
    media_ns: u64,
    closed: Option<(i64, i64)>,
    pub quality: Option<Quality>,
}

/// What users are told about a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileResult {
    /// Number of the output.
    pub file: u32,
    pub index: usize,
    pub filename: String,
    pub location: String,
    pub bytes: u64,
    /// Unix nanoseconds.
    pub started_at: i64,
    pub ended_at: i64,
}

/// The files of a session, as far as the media process has spoken about them.
#[derive(Clone, Debug, Default)]
pub struct Files {
    files: Vec<(u32, Recorded)>,
    /// Unix nanoseconds of the first recorded instant.
    started_at: Option<i64>,
}

impl Files {
    pub fn opened(&mut self, file: u32, place: Place, track: TrackFacts, new: bool) {
        let recorded = Recorded { place, track, new, bytes: 0, media_ns: 0, closed: None, quality: None };
        self.files.push((file, recorded));
    }

    pub fn hear(&mut self, happening: &Happening) {
        match happening {
            Happening::Started { at } => self.started_at = self.started_at.or(Some(*at)),
            Happening::Wrote { file, end, media_ns, .. } => {
                if let Some(recorded) = self.find(*file) {
                    (recorded.bytes, recorded.media_ns) = (*end, *media_ns);
                }
            }
            Happening::Closed { file, bytes, started_at, ended_at, quality } => {
                if let Some(recorded) = self.find(*file) {
                    recorded.bytes = *bytes;
                    recorded.closed = Some((*started_at, *ended_at));
                    recorded.quality = Some(quality.clone());
                }
            }
            _ => {}
        }
    }

    /// Something was recorded.
    pub fn started(&self) -> bool {
        self.started_at.is_some()
    }

    fn find(&mut self, file: u32) -> Option<&mut Recorded> {
        self.files.iter_mut().find(|(number, _)| *number == file).map(|(_, recorded)| recorded)
    }

    pub fn all(&self) -> impl Iterator<Item = &Recorded> {
        self.files.iter().map(|(_, recorded)| recorded)
    }

    /// With the number of the output.
    pub fn numbered(&self) -> impl Iterator<Item = (u32, &Recorded)> {
        self.files.iter().map(|(file, recorded)| (*file, recorded))
    }

    /// Number, place and size so far of each, for heartbeats.
    pub fn sizes(&self) -> impl Iterator<Item = (&Place, u64)> {
        self.all().map(|recorded| (&recorded.place, recorded.bytes))
    }

    /// The last truth about every file, once the media process is gone or has ended. Its word counts for a file it has
    /// closed, the disk for the others. When nothing was recorded, a file that replaced nothing is taken away.
    pub fn settle(&mut self) -> Vec<FileResult> {
        let started_at = self.started_at;
        self.files.retain(|(_, recorded)| {
            let useless = started_at.is_none() && recorded.closed.is_none() && recorded.new;
            !(useless && fs::remove_file(&recorded.place.location).is_ok())
        });
        let result = |(index, (file, recorded)): (usize, &(u32, Recorded))| {
            let (started_at, ended_at) = match recorded.closed {
                Some(times) => times,
                None => {
                    let started_at = started_at?;
                    (started_at, started_at.saturating_add_unsigned(recorded.media_ns))
                }
            };
            let on_disk = fs::metadata(&recorded.place.location).map(|metadata| metadata.len());
            Some(FileResult {
                file: *file,
                index,
                filename: recorded.place.filename.clone(),
                location: recorded.place.shown.clone(),
                bytes: on_disk.unwrap_or(recorded.bytes),
                started_at,
                ended_at,
            })
        };
        self.files.iter().enumerate().filter_map(result).collect()
    }

    /// Why the recording is less than it should be, in words.
    pub fn degraded(&self) -> Vec<String> {
        let said = self.all().filter_map(|recorded| recorded.quality.as_ref());
        let mut words: Vec<String> = said.flat_map(|quality| quality.degraded.iter().cloned()).collect();
        words.dedup();
        words
    }
}

/// What is written down beside the files, if somebody wants it: name and content.
pub fn manifest(
    plan: &EgressPlan,
    files: &Files,
    results: &[FileResult],
    wanted_anyway: bool,
) -> io::Result<Option<(String, String)>> {
    let wanted = wanted_anyway || plan.outputs.iter().any(|Output::File(file)| file.manifest);
    let (true, Some(first)) = (wanted, results.first()) else {
        return Ok(None);
    };
    let recorded = files.all().next();
    let track = recorded.map(|recorded| recorded.track.clone()).unwrap_or_default();
    let manifest = Manifest {
        egress_id: plan.egress_id.clone(),
        room_id: plan.room_id.clone(),
        room_name: plan.room_name.clone(),
        started_at: first.started_at,
        ended_at: first.ended_at,
        publisher_identity: track.publisher_identity,
        track_id: track.track_id,
        track_kind: track.track_kind,
        track_source: track.track_source,
        audio_track_id: track.audio_track_id,
        video_track_id: track.video_track_id,
        files: results
            .iter()
            .map(|file| ManifestFile { filename: file.filename.clone(), location: file.location.clone() })
            .collect(),
        quality: serde_json::to_value(recorded.and_then(|recorded| recorded.quality.as_ref()))?,
    };
    Ok(Some((manifest::path(&first.filename, &plan.egress_id), manifest.to_json()?)))
}

/// On this machine's disk, beside the files; answers where it lies.
pub fn write_manifest(root: &Path, name: &str, content: &str) -> io::Result<String> {
    let path = root.join(name);
    // A reader never sees half of it.
    let unfinished = path.with_extension("json.part");
    File::create(&unfinished)?.write_all(content.as_bytes())?;
    fs::rename(&unfinished, &path)?;
    Ok(path.display().to_string())
}
