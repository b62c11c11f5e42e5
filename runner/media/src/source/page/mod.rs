//! A web page as a source: Chromium on a display and a sound server of our own.
//!
//! ```text
//!  thread "page": driver ── life (what is to be done) ── browser (Chromium, over its DevTools)
//!       │ starts                                             │ paints            │ plays
//!       ▼                                                    ▼                   ▼
//!  folder, program, network (guard)                 display, capture           sound
//!                                                            │ PageFrame         │ PageSamples
//!                                                  thread "page frames"   thread "page blocks"
//!                                                            ▼                   ▼
//!                                             pictures (with slots)           samples
//!                                                            │                   │
//!                                           feed: thread "page pictures"  "page sound out"
//!                                                            ▼                   ▼
//!                                                         RawSink             RawSink
//! ```
//!
//! Pictures, sound and what happens in the page carry times of one clock, CLOCK_MONOTONIC.

mod browser;
pub mod display;
mod capture;
mod driver;
pub mod feed;
mod folder;
mod life;
mod network;
mod message;
pub mod guard;
mod pictures;
mod prefetch;
pub mod program;
mod samples;
mod slots;
pub mod sound;
pub mod units;

use std::io;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::LocalSet;
use tracing::Instrument;

use self::driver::{PageQueues, picture_bytes};
use self::feed::{PageFeed, PageFeedOptions};
pub use self::message::{PageListener, PageMessage, PageOptions};
use self::pictures::PictureQueue;
use self::samples::SampleQueue;
use crate::output::RawSink;

/// A page that is open. Dropping it ends the browser and everything beside it, and waits for that.
pub struct WebPage {
    close: UnboundedSender<()>,
    thread: Option<JoinHandle<()>>,
    media: PageMedia,
}

/// A page's pictures and sound, from its beginning on.
#[derive(Clone)]
pub struct PageMedia(PageQueues);

impl WebPage {
    /// Returns at once; whatever goes wrong is the reason in [`PageMessage::Ended`]. `tell` is called from the page's thread.
    ///
    /// # Errors
    ///
    /// When the runtime or its thread cannot be made.
    pub fn open(options: PageOptions, tell: impl FnMut(PageMessage) -> bool + Send + 'static) -> io::Result<Self> {
        let (luma, chroma) = picture_bytes(options.size);
        let queues = PageQueues {
            pictures: Arc::new(PictureQueue::new(options.framerate, luma + chroma)),
            samples: Arc::<SampleQueue>::default(),
        };
        let (close, closed) = unbounded_channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        // What it says belongs to the recording.
        let span = tracing::Span::current();
        let media = PageMedia(queues.clone());
        let run = move || {
            let page = driver::run(options, queues, closed, Box::new(tell)).instrument(span);
            LocalSet::new().block_on(&runtime, page);
        };
        let thread = Some(Builder::new().name("page".to_owned()).spawn(run)?);
        Ok(Self { close, thread, media })
    }

    /// Its pictures and sound.
    pub fn media(&self) -> PageMedia {
        self.media.clone()
    }
}

impl PageMedia {
    /// Feeds encoders with them, once.
    ///
    /// # Errors
    ///
    /// The system has no thread left.
    pub fn feed(
        &self,
        began: std::time::Duration,
        options: PageFeedOptions,
        video: Option<Box<dyn RawSink>>,
        audio: Option<Box<dyn RawSink>>,
    ) -> io::Result<PageFeed> {
        let queues = (self.0.pictures.clone(), self.0.samples.clone());
        PageFeed::start(queues, began, options, video, audio)
    }
}

impl Drop for WebPage {
    fn drop(&mut self) {
        // Refused only when it is over already.
        let _ = self.close.send(());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::warn!("the thread of the page panicked");
        }
    }
}
