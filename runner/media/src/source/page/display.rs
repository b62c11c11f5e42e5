//! The display of a page: an X server without a screen, at the refresh rate of the output, and the frames it shows. In: size
//! and rate. Out: an address for Chromium and a channel of frames. The server is a process, capture a thread; starting and
//! ending block the caller for up to seconds on a busy machine.

mod mode;
mod xvfb;

use std::sync::mpsc::Receiver;

use x11rb::connection::Connection as _;
use x11rb::errors::ConnectError;
use x11rb::protocol::xproto::Window;
use x11rb::rust_connection::RustConnection;

use self::mode::ModeError;
use self::xvfb::{Xvfb, XvfbError};
use super::capture::{CaptureError, CaptureStats, CaptureThread};
pub use super::units::DisplayOptions;
use super::units::PageFrame;

/// What an X server's screen may be: its coordinates have 16 bits with a sign.
const MAX_LENGTH: u32 = 16_384;
const MAX_HZ: u32 = 240;

/// Why there is no display. A lack of memory or processes may pass; the rest does not.
#[derive(Debug, thiserror::Error)]
pub enum DisplayError {
    /// Odd, empty or larger than an X server's screen.
    #[error("no display of {width}x{height} at {fps} Hz")]
    Impossible {
        /// Pixels of a row.
        width: u32,
        /// Rows.
        height: u32,
        /// Frames a second.
        fps: u32,
    },
    /// The X server does not run.
    #[error("start the X server")]
    Server(#[from] XvfbError),
    /// It runs and does not listen.
    #[error("connect to the X server")]
    Connect(#[source] ConnectError),
    /// It has no such refresh rate.
    #[error("set the display's refresh rate")]
    Mode(#[from] ModeError),
    /// It cannot be read.
    #[error("capture the display")]
    Capture(#[from] CaptureError),
}

/// A display that is captured. Dropping it ends capture, then the X server.
pub struct Display {
    // Dropped in this order: the thread ends before its server does, and does not complain.
    capture: CaptureThread,
    /// Stays open until the end: the server ends when its last client leaves.
    control: RustConnection,
    root: Window,
    size: (u32, u32),
    server: Xvfb,
}

impl Display {
    /// Starts the X server, sets its refresh rate to `fps` and begins to capture. The first frame is what the display shows
    /// then: nothing. More come at most `fps` times a second, and none while nothing changes. The receiver is disconnected
    /// when the display is lost ([`Display::failure`]); a receiver that was dropped ends capture and not the display.
    ///
    /// # Errors
    ///
    /// When Xvfb is not installed, does not start within ten seconds or has no such size or rate.
    pub fn start(options: &DisplayOptions) -> Result<(Self, Receiver<PageFrame>), DisplayError> {
        let DisplayOptions { width, height, fps, ref folder } = *options;
        let fits = |length: u32| (2..=MAX_LENGTH).contains(&length) && length.is_multiple_of(2);
        if !fits(width) || !fits(height) || !(1..=MAX_HZ).contains(&fps) {
            return Err(DisplayError::Impossible { width, height, fps });
        }
        let server = Xvfb::start((width, height), folder)?;
        let (control, screen) = RustConnection::connect(Some(server.address())).map_err(DisplayError::Connect)?;
        let root = control.setup().roots.get(screen).map_or(0, |screen| screen.root);
        // Before Chromium starts: it reads the rate then.
        mode::set(&control, root, (width, height), fps)?;
        let (capture, frames) = CaptureThread::start(server.address(), options)?;
        Ok((Self { capture, control, root, size: (width, height), server }, frames))
    }

    /// As in `DISPLAY`: `:7`.
    pub fn address(&self) -> &str {
        self.server.address()
    }

    /// Another refresh rate than that of the frames: 60 Hz for a page that shows a room. Chromium paints such pages 30 times a
    /// second anyway, at edges that are closer to when pictures came. Chromium may run already.
    ///
    /// # Errors
    ///
    /// When the X server is gone or does not take the rate; the old one stays.
    pub fn set_refresh(&self, hz: u32) -> Result<(), DisplayError> {
        Ok(mode::set(&self.control, self.root, self.size, hz)?)
    }

    /// What became of its pictures.
    pub fn stats(&self) -> CaptureStats {
        self.capture.stats()
    }

    /// The X server's process, to account for what the page costs.
    pub fn pid(&self) -> u32 {
        self.server.pid()
    }

    /// Why no frame comes any more: the X server ended, or cannot be read. `None` while all is well.
    pub fn failure(&mut self) -> Option<String> {
        self.server.exit().or_else(|| self.capture.failure())
    }
}
