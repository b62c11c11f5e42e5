//! What goes into a page and what comes out of it, beside pictures and sound.

use std::fmt;
use std::time::{Duration, Instant};

use spillway_ipc::{MediaEndReason, PageSettings};
use spillway_plan::Secret;

use super::guard::GuardOptions;

/// What is opened, and how.
pub struct PageOptions {
    /// With its whole query.
    pub url: Secret,
    /// The recording begins when the page logs START_RECORDING; else when it is loaded.
    pub awaits_start: bool,
    /// It joins a room, for which it needs UDP.
    pub joins_room: bool,
    /// Of the display and of the pictures, pixels; even.
    pub size: (u32, u32),
    /// Pictures a second.
    pub framerate: u32,
    /// Of the installation.
    pub settings: PageSettings,
    /// What it may reach beside its own host.
    pub guard: GuardOptions,
}

impl fmt::Debug for PageOptions {
    /// Flags of the installation may have credentials of a proxy.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { awaits_start, size, framerate, .. } = self;
        f.debug_struct("PageOptions")
            .field("awaits_start", awaits_start)
            .field("size", size)
            .field("framerate", framerate)
            .finish_non_exhaustive()
    }
}

/// What a page tells. No text in it has a secret of the page's URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PageMessage {
    /// The recording begins here. Once.
    Began {
        /// Of output time 0.
        at: Instant,
        /// The same moment, CLOCK_MONOTONIC.
        monotonic: Duration,
    },
    /// What the recording still waits for, for the user.
    Waiting(String),
    /// Worth telling the user.
    Noted(String),
    /// The page was not there for so long while it was recorded.
    Gap(Duration),
    /// Nothing more comes. The last message.
    Ended {
        /// The first moment that is not recorded, CLOCK_MONOTONIC.
        at: Duration,
        /// Why.
        why: MediaEndReason,
    },
}

/// False: its listener is gone.
pub type PageListener = dyn FnMut(PageMessage) -> bool + Send;
