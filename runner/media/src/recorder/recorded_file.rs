//! One file of a recording, as the controller knows it: which output writes it, how far it is, what is told of it. The
//! bytes are written by the output's threads.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use spillway_ipc::{FileId, MediaEvent, Quality, SpoolError, SpoolFile, TrackFacts};
use spillway_plan::Container;
use spillway_process::chain;

use super::mode::RecordingMode;
use crate::compositor::CompositorError;
use crate::output::{Fanout, FeedError, FileTakerOptions, PipelineError, TakerId, TakerProgress, add_file};

/// Between two [`MediaEvent::Wrote`] of a file.
const WROTE_EVERY: Duration = Duration::from_millis(250);

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
    progress: Arc<TakerProgress>,
    wrote_at: Option<Instant>,
    wrote_end: u64,
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
        Ok(Self { file, output, taker, progress, wrote_at: None, wrote_end: 0 })
    }

    /// Length by its encoded frames, nanoseconds.
    pub fn media_ns(&self) -> u64 {
        self.progress.media_ns()
    }

    /// Bytes that its muxer has and has not written yet.
    pub fn waiting_bytes(&self) -> u64 {
        self.progress.waiting_bytes()
    }

    /// Bytes of the file, and how many of them are final.
    fn bytes(&self) -> (u64, u64) {
        self.progress.written.as_ref().map_or((0, 0), |written| (written.end(), written.sealed_to()))
    }

    /// How far it is, if it has grown; at most every 250 ms.
    pub fn wrote(&mut self) -> Option<MediaEvent> {
        let (end, sealed_to) = self.bytes();
        if end == self.wrote_end || !due(&mut self.wrote_at, WROTE_EVERY) {
            return None;
        }
        self.wrote_end = end;
        Some(MediaEvent::Wrote { file: self.file, end, sealed_to, media_ns: self.media_ns() })
    }

    /// It is closed and grows no more.
    pub fn closed(&self, started_at: i64, quality: Quality) -> MediaEvent {
        let ended_at = started_at.saturating_add_unsigned(self.media_ns());
        MediaEvent::Closed { file: self.file, bytes: self.bytes().0, started_at, ended_at, quality }
    }
}

/// An output takes no more, and the others go on; `file` is its file, if it has one.
pub fn output_failed((file, output): (Option<u32>, u32), error: &FileError) -> MediaEvent {
    MediaEvent::OutputFailed {
        output,
        file,
        full: error.is_full(),
        code: error.code().to_owned(),
        message: chain(error).to_string(),
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
