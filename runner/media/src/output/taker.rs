//! What an output does with encoded units, and what is known of it from outside. The fan-out calls takers; it is the
//! only one that does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use spillway_ipc::{SpoolError, WriteProgress};

use crate::element::PipelineError;
use crate::encoded::{EncodedUnit, StreamNumber};

/// What one output does with encoded units. Called under the fan-out's lock, from the encoders' threads and the
/// recorder's. Waits for nothing but the local disk (spool) and never calls back into the fan-out. Dropping it closes what
/// it has open.
pub trait OutputTaker: Send {
    /// Units of the streams it was added with: each stream in order of time, the streams as they come.
    ///
    /// # Errors
    ///
    /// It takes no more. It is taken out, dropped and reported; the others go on.
    fn take(&mut self, unit: &EncodedUnit) -> Result<(), TakerError>;

    /// The last unit of `stream`, a picture, is shown at least until `end_ns`.
    fn lasts(&mut self, _stream: StreamNumber, _end_ns: u64) {}

    /// All its streams have ended, the last at `end_ns`. Called once, and no `take` after it.
    ///
    /// # Errors
    ///
    /// What it made is not whole. It is dropped and reported.
    fn end(&mut self, end_ns: u64) -> Result<TakerEnd, TakerError>;
}

/// What became of an output at the end of its streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TakerEnd {
    /// Everything is written.
    Whole,
    /// Its reporter says so later, from another thread.
    Later,
}

/// Why an output takes no more. A retry does not help.
#[derive(Debug, thiserror::Error)]
pub enum TakerError {
    /// The spool takes nothing more.
    #[error("keep the recording")]
    Write(#[from] SpoolError),
    /// Its GStreamer elements broke.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    /// The other end of a stream.
    #[error("{message}")]
    Stream {
        /// What it said; holds no secret.
        message: String,
    },
}

impl From<TakerError> for PipelineError {
    fn from(error: TakerError) -> Self {
        match error {
            TakerError::Write(source) => Self::Write { source },
            TakerError::Pipeline(error) => error,
            TakerError::Stream { message } => Self::Element { element: "stream".into(), message },
        }
    }
}

/// Number of a taker; one per taker, never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TakerId(pub(super) u32);

/// A taker that is added to the fan-out.
pub struct TakerStart {
    /// Reserved for it.
    pub id: TakerId,
    /// The streams it is given.
    pub streams: Vec<StreamNumber>,
    /// What takes them.
    pub taker: Box<dyn OutputTaker>,
    /// Stays readable after the taker is gone.
    pub progress: Arc<TakerProgress>,
}

/// How far an output has come; readable from any thread.
#[derive(Debug, Default)]
pub struct TakerProgress {
    /// Bytes of the file, if it is one.
    pub written: Option<Arc<WriteProgress>>,
    media_ns: AtomicU64,
    waiting_bytes: AtomicU64,
}

impl TakerProgress {
    /// Of an output that writes this file.
    pub fn of_file(written: Arc<WriteProgress>) -> Self {
        Self { written: Some(written), ..Self::default() }
    }

    /// Where the last unit that it has taken ends, nanoseconds.
    pub fn media_ns(&self) -> u64 {
        self.media_ns.load(Ordering::Relaxed)
    }

    /// Bytes taken and not yet written, as of the last unit.
    pub fn waiting_bytes(&self) -> u64 {
        self.waiting_bytes.load(Ordering::Relaxed)
    }

    /// A unit that ends at `end_ns` is taken.
    pub(super) fn advance(&self, end_ns: u64) {
        self.media_ns.fetch_max(end_ns, Ordering::Relaxed);
    }

    pub(super) fn wait_with(&self, bytes: u64) {
        self.waiting_bytes.store(bytes, Ordering::Relaxed);
    }
}
