//! A file of a recording, as the controller knows it: asked for, opened, which output writes it and how far it is, why it
//! takes no more. The bytes are written by the output's threads; the controller tells the runner of them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use spillway_ipc::{FileId, SpoolError, SpoolFile, TrackFacts};
use spillway_plan::Container;

use super::mode::RecordingMode;
use crate::compositor::CompositorError;
use crate::output::{Fanout, FeedError, FileTakerOptions, PipelineError, TakerId, TakerProgress, add_file};

/// Why a file cannot be begun or takes no more.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("open the file")]
    Open(#[from] SpoolError),
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    #[error("start the compositor")]
    Compositor(#[from] CompositorError),
    #[error("start the threads of a page")]
    Page(#[source] std::io::Error),
    #[error("copy a frame")]
    Feed(#[from] FeedError),
}

impl FileError {
    /// The file takes no more; what it has is kept.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Open(error) | Self::Pipeline(PipelineError::Write { source: error }) => error.is_full(),
            _ => false,
        }
    }

    /// psrpc code: the disk is the request's, everything else is ours.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Open(_) | Self::Pipeline(PipelineError::Write { .. }) => "invalid_argument",
            _ => "internal",
        }
    }
}

/// Files that the runner was asked for. The recording begins when all are answered.
pub struct OpeningFiles {
    /// How they are made.
    pub mode: RecordingMode,
    /// For names.
    pub facts: TrackFacts,
    /// By their numbers.
    pub asked: BTreeMap<u32, AskedFile>,
}

/// A file that the runner was asked for.
pub struct AskedFile {
    /// Of the plan.
    pub output: u32,
    /// Decided from the request and the codecs.
    pub container: Container,
    /// `None`: not answered yet.
    pub place: Option<FilePlace>,
}

/// Where the bytes go.
pub struct FilePlace {
    /// Absolute.
    pub path: PathBuf,
    /// The empty file that is there; without it one is created.
    pub id: Option<FileId>,
}

/// One file that is written.
pub struct RecordedFile {
    /// Number within the recording.
    pub file: u32,
    /// Of the plan.
    pub output: u32,
    /// What writes it.
    pub taker: TakerId,
    /// Its bytes and length.
    pub progress: Arc<TakerProgress>,
    /// When the runner was told how far it is, and how many bytes it had then.
    pub told: (Option<Instant>, u64),
}

impl RecordedFile {
    /// Opens file number `file` and adds it to the outputs.
    ///
    /// # Errors
    ///
    /// When it cannot be claimed or written, or the streams do not go into it.
    pub fn open(
        fanout: &Arc<Fanout>,
        (file, output): (u32, u32),
        place: &FilePlace,
        options: &FileTakerOptions,
    ) -> Result<Self, FileError> {
        let spool = SpoolFile::claimed(&place.path, place.id, options.container)?;
        let (taker, progress) = add_file(fanout, spool, options)?;
        Ok(Self { file, output, taker, progress, told: (None, 0) })
    }
}

/// Whether `every` has passed; then it begins anew.
pub fn due(last: &mut Option<Instant>, every: Duration) -> bool {
    let now = Instant::now();
    // A tick that comes a little early counts.
    let due = last.is_none_or(|last| now + Duration::from_millis(10) >= last + every);
    if due {
        *last = Some(now);
    }
    due
}
