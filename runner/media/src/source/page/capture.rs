//! Reads a display when it was damaged. In: DAMAGE events of the X server. Out: frames with their time, through a channel
//! that holds two seconds of them. Runs in a thread of its own, which waits for the server's socket and never for the
//! receiver: when frames wait, new ones are left out and the display is read half as often for a while.
//!
//! The X server copies the damaged rows into memory shared with us, 0.5 ms per 720p picture at most, and they are converted
//! to I420 in 0.2 to 0.3 ms (measured at 30 pictures a second: 0.011 cores here and as much in the server; 0.002 while nothing
//! moves). We read that memory as a file, because mapping it is unsafe: the server writes to it.

mod canvas;
mod error;
mod reader;
mod slots;

use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use spillway_process::chain;
use tracing::{Span, warn};

use self::canvas::I420Canvas;
pub use self::error::CaptureError;
use self::reader::{DisplayReader, FrameCounts, FrameOutput};
use super::units::{DisplayOptions, PageFrame};

/// Frames that wait for the receiver: of so many seconds, and of so many bytes. 60 frames of 720p are 83 MB.
const QUEUE_SECONDS: u32 = 2;
const QUEUE_BYTES: usize = 96_000_000;
const MIN_QUEUE: usize = 4;
/// A picture takes milliseconds.
const END_TIMEOUT: Duration = Duration::from_secs(1);

/// What became of the display's pictures so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CaptureStats {
    /// Given to the receiver.
    pub frames: u64,
    /// Made and left out, because two seconds of frames waited. After each, the display is read half as often for 2 s.
    pub left_out: u64,
}

/// The running thread. It ends when this is dropped, when the receiver is, and when the X server is gone.
pub struct CaptureThread {
    /// Closing it ends the thread.
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
    counts: Arc<FrameCounts>,
    failure: Arc<Mutex<Option<String>>>,
}

impl CaptureThread {
    /// Connects to the display at `address` and begins. The first frame is what it shows now.
    ///
    /// # Errors
    ///
    /// When the display is not there or not as `options` say. A retry needs another display.
    pub fn start(address: &str, options: &DisplayOptions) -> Result<(Self, Receiver<PageFrame>), CaptureError> {
        let (stop, stopped) = UnixStream::pair().map_err(CaptureError::Thread)?;
        let (counts, failure) = (Arc::new(FrameCounts::default()), Arc::new(Mutex::new(None)));
        let canvas = I420Canvas::new(options.width, options.height);
        let fits = QUEUE_BYTES / canvas.data().len().max(1);
        let (frames, receiver) =
            sync_channel(fits.min(QUEUE_SECONDS.saturating_mul(options.fps) as usize).max(MIN_QUEUE));
        let output = FrameOutput { frames, counts: counts.clone(), stopped };
        let mut reader = DisplayReader::new(address, options, canvas, output)?;
        let (span, end) = (Span::current(), failure.clone());
        let run = move || {
            let _inside = span.enter();
            if let Err(error) = reader.run() {
                let message = chain(&error).to_string();
                warn!(error = %message, "the display is read no longer");
                *end.lock().unwrap_or_else(PoisonError::into_inner) = Some(message);
            }
        };
        let thread = std::thread::Builder::new().name("display".to_owned()).spawn(run).map_err(CaptureError::Thread)?;
        Ok((Self { stop: Some(stop), thread: Some(thread), counts, failure }, receiver))
    }

    /// Counters at this moment.
    pub fn stats(&self) -> CaptureStats {
        CaptureStats { frames: self.counts.frames.load(Relaxed), left_out: self.counts.left_out.load(Relaxed) }
    }

    /// Why it ended by itself.
    pub fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for CaptureThread {
    fn drop(&mut self) {
        self.stop = None;
        let Some(thread) = self.thread.take() else { return };
        let until = Instant::now() + END_TIMEOUT;
        while !thread.is_finished() {
            if Instant::now() >= until {
                // An X server that hangs: the thread ends with it.
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        // It reports its failures itself.
        let _ = thread.join();
    }
}
