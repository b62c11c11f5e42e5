//! What can go wrong with the capture of a display.

use std::io;

use x11rb::errors::{ConnectError, ConnectionError, ReplyError, ReplyOrIdError};

use super::canvas::PaintError;

/// Why a display cannot be read (any longer). A retry needs another display.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The X server does not listen, or refuses.
    #[error("connect to the X server")]
    Connect(#[source] ConnectError),
    /// A request failed, or the server is gone.
    #[error("ask the X server")]
    Request(#[source] ReplyOrIdError),
    /// A request whose reply was not waited for.
    #[error("the X server refused a request: {0}")]
    Refused(String),
    /// No screen of this size with 32 bits a pixel, blue first.
    #[error("the display is not as it was asked for")]
    Screen,
    /// No memory to share with the server.
    #[error("make memory that the X server writes to")]
    Memory(#[source] io::Error),
    /// The picture cannot be made.
    #[error("make a picture of the display")]
    Paint(#[from] PaintError),
    /// The operating system does not let us wait.
    #[error("wait for the X server")]
    Wait(#[source] io::Error),
    /// No thread or file descriptor is left.
    #[error("start the capture thread")]
    Thread(#[source] io::Error),
}

impl From<ReplyOrIdError> for CaptureError {
    fn from(error: ReplyOrIdError) -> Self {
        Self::Request(error)
    }
}

impl From<ReplyError> for CaptureError {
    fn from(error: ReplyError) -> Self {
        Self::Request(error.into())
    }
}

impl From<ConnectionError> for CaptureError {
    fn from(error: ConnectionError) -> Self {
        Self::Request(error.into())
    }
}
