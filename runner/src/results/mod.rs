//! What the media process' files mean: where they lie, under which name, what is known of them in the end. `claim` makes
//! those that stay on this machine's disk.

pub mod claim;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::NaiveDateTime;
use spillway_ipc::{MediaEvent, Quality, TrackFacts};
use spillway_plan::manifest::{self, Manifest, ManifestFile};
use spillway_plan::name::{self, NameFacts};
use spillway_plan::{Container, EgressPlan, FileOutput, Output};

use claim::Claim;

#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    #[error("the media process opened file {0}, which nobody asked for")]
    NotRequested(u32),
    #[error("cannot create the folder {}: {source}", path.display())]
    Folder { path: PathBuf, source: io::Error },
    #[error("cannot write {}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("cannot write {}: there is no recording to a place that is {what}", path.display())]
    Special { path: PathBuf, what: &'static str },
    #[error("cannot write {}: {names} files of that name are there", path.display())]
    Taken { path: PathBuf, names: u32 },
    #[error("the disk of {} did not answer within {seconds} s", path.display())]
    Slow { path: PathBuf, seconds: u64 },
}

/// Where a file goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputPath {
    /// As users see it: variables filled in, relative if they asked for a relative one.
    pub filename: String,
    /// Absolute: where it is written.
    pub location: PathBuf,
    /// Where people find it in the end.
    pub display: String,
}

impl OutputPath {
    /// Where `output` is asked to go. `root` is absolute; a relative name lies below it, an absolute one is obeyed as it
    /// is. On this machine's disk `claim` has the last word.
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
        Self { display: location.display().to_string(), location, filename }
    }

    /// For the spool: an empty file that only this user can read. What an earlier attempt of this egress has left there
    /// is taken away, not written over: its media process may not be dead yet.
    ///
    /// # Errors
    /// The operating system's.
    pub fn prepare_private(&self) -> Result<(), OutputError> {
        if let Some(folder) = self.location.parent() {
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
            made.map_err(|source| OutputError::Folder { path: folder.to_owned(), source })?;
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

/// One file of this egress, from its opening to its result.
#[derive(Clone, Debug)]
pub struct RecordedFile {
    pub output_path: OutputPath,
    pub track: TrackFacts,
    /// `None`: it lies in the spool, for a store.
    claim: Option<Arc<Claim>>,
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
    files: Vec<(u32, RecordedFile)>,
    /// Unix nanoseconds of the first recorded instant.
    started_at: Option<i64>,
}

impl Files {
    pub fn opened(&mut self, file: u32, output_path: OutputPath, track: TrackFacts, claim: Option<Claim>) {
        let claim = claim.map(|mut claim| {
            claim.keep();
            Arc::new(claim)
        });
        let recorded = RecordedFile { output_path, track, claim, bytes: 0, media_ns: 0, closed: None, quality: None };
        self.files.push((file, recorded));
    }

    pub fn on_media_event(&mut self, media_event: &MediaEvent) {
        match media_event {
            MediaEvent::Started { at } => self.started_at = self.started_at.or(Some(*at)),
            MediaEvent::Wrote { file, end, media_ns, .. } => {
                if let Some(recorded) = self.find(*file) {
                    (recorded.bytes, recorded.media_ns) = (*end, *media_ns);
                }
            }
            MediaEvent::Closed { file, bytes, started_at, ended_at, quality } => {
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

    fn find(&mut self, file: u32) -> Option<&mut RecordedFile> {
        self.files.iter_mut().find(|(number, _)| *number == file).map(|(_, recorded)| recorded)
    }

    pub fn all(&self) -> impl Iterator<Item = &RecordedFile> {
        self.files.iter().map(|(_, recorded)| recorded)
    }

    /// With the number of the output.
    pub fn numbered(&self) -> impl Iterator<Item = (u32, &RecordedFile)> {
        self.files.iter().map(|(file, recorded)| (*file, recorded))
    }

    /// Number, place and size so far of each, for heartbeats.
    pub fn sizes(&self) -> impl Iterator<Item = (&OutputPath, u64)> {
        self.all().map(|recorded| (&recorded.output_path, recorded.bytes))
    }

    /// The last truth about every file, once the media process is gone or has ended. Its word counts for a file it has
    /// closed, the disk for the others. When nothing was recorded, the empty file is taken away.
    pub fn finalize(&mut self) -> Vec<FileResult> {
        let started_at = self.started_at;
        self.files.retain(|(_, recorded)| {
            let useless = started_at.is_none() && recorded.closed.is_none();
            let remove = || match &recorded.claim {
                Some(claim) => claim.remove(),
                None => fs::remove_file(&recorded.output_path.location),
            };
            !(useless && remove().is_ok())
        });
        let result = |(index, (file, recorded)): (usize, &(u32, RecordedFile))| {
            let (started_at, ended_at) = match recorded.closed {
                Some(times) => times,
                None => {
                    let started_at = started_at?;
                    (started_at, started_at.saturating_add_unsigned(recorded.media_ns))
                }
            };
            let on_disk = match &recorded.claim {
                Some(claim) => claim.bytes(),
                None => fs::metadata(&recorded.output_path.location).map(|metadata| metadata.len()),
            };
            Some(FileResult {
                file: *file,
                index,
                filename: recorded.output_path.filename.clone(),
                location: recorded.output_path.display.clone(),
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
        let mut message: Vec<String> = said.flat_map(|quality| quality.degraded.iter().cloned()).collect();
        message.dedup();
        message
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

/// On this machine's disk, beside the first file of `results`; answers where it lies.
///
/// # Errors
/// The operating system's.
pub fn write_manifest(files: &Files, first: u32, egress_id: &str, content: &str) -> io::Result<String> {
    let recorded = files.numbered().find(|(file, _)| *file == first).map(|(_, recorded)| recorded);
    let (Some(recorded), Some(claim)) = (recorded, recorded.and_then(|recorded| recorded.claim.as_ref())) else {
        return Err(io::ErrorKind::NotFound.into());
    };
    // An earlier attempt of this egress may have written one.
    let is_ours = |content: &[u8]| {
        let json: Option<serde_json::Value> = serde_json::from_slice(content).ok();
        json.is_some_and(|json| json["egress_id"] == egress_id)
    };
    let name = claim.write_beside(&manifest::path("", egress_id), content.as_bytes(), is_ours)?;
    Ok(recorded.output_path.location.with_file_name(name).display().to_string())
}
