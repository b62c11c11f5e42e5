//! One page from its opening to its end: display, sound server and browser are started, what happens is decided by `life`, and
//! what follows is carried out. One thread with a small runtime of its own; media pass it by in their own threads.

mod starting;

use std::collections::VecDeque;
use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant};

use spillway_ipc::MediaEndReason;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{debug, info, warn};

use super::browser::Browser;
use super::browser::console::ConsoleLines;
use super::browser::event::BrowserEvent;
use super::display::Display;
use super::folder::PageFolder;
use super::life::{LOAD_TIMEOUT, LifeEffect, LifeEnd, PageLife};
use super::message::{PageListener, PageMessage, PageOptions};
use super::network::PageNetwork;
use super::pictures::PictureQueue;
use super::samples::SampleQueue;
use super::sound::SoundServer;
use super::units::monotonic;

const TICK: Duration = Duration::from_millis(250);
/// Black in limited range.
const BLACK: (u8, u8) = (16, 128);

/// Where media go.
#[derive(Clone)]
pub(super) struct PageQueues {
    pub(super) pictures: Arc<PictureQueue>,
    pub(super) samples: Arc<SampleQueue>,
}

/// Bytes of a picture of this size: I420 with rows padded to four bytes, as GStreamer lays it out.
pub(super) fn picture_bytes((width, height): (u32, u32)) -> (usize, usize) {
    let padded = |length: u32| length.next_multiple_of(4) as usize;
    let luma = padded(width) * height.next_multiple_of(2) as usize;
    (luma, 2 * padded(width.div_ceil(2)) * height.div_ceil(2) as usize)
}

fn black(size: (u32, u32)) -> Vec<u8> {
    let (luma, chroma) = picture_bytes(size);
    let mut picture = vec![BLACK.0; luma];
    picture.resize(luma + chroma, BLACK.1);
    picture
}

/// The moment of a time of CLOCK_MONOTONIC, which is the clock of [`Instant`].
fn instant_of(at: Duration) -> Instant {
    let (now, clock) = (Instant::now(), monotonic());
    now.checked_sub(clock.saturating_sub(at)).unwrap_or(now)
}

/// Everything that runs for a page; dropped in this order.
struct PageParts {
    browser: Option<Browser>,
    events: Option<UnboundedReceiver<BrowserEvent>>,
    display: Option<Display>,
    sound: SoundServer,
    network: PageNetwork,
    folder: PageFolder,
}

struct PageDriver {
    options: PageOptions,
    queues: PageQueues,
    tell: Box<PageListener>,
    life: PageLife,
    console: ConsoleLines,
    sandbox: bool,
    /// Browsers so far: each has a folder of its own.
    browsers: u32,
    /// Displays so far.
    displays: u32,
    /// Gets the number of a display that shows nothing more.
    display_gone: UnboundedSender<u32>,
}

/// Runs in the page's thread, within a [`tokio::task::LocalSet`], until `closed` is; `tell` gets the end in any case.
pub(super) async fn run(
    options: PageOptions,
    queues: PageQueues,
    mut closed: UnboundedReceiver<()>,
    tell: Box<PageListener>,
) {
    let (display_gone, mut gone) = unbounded_channel();
    let mut driver = PageDriver {
        life: PageLife::new(options.awaits_start, options.joins_room),
        console: ConsoleLines::new(&options.url),
        options,
        queues,
        tell,
        sandbox: false,
        browsers: 0,
        displays: 0,
        display_gone,
    };
    let mut parts = match driver.prepare().await {
        Ok(parts) => parts,
        Err(message) => {
            let effects = driver.life.cannot_start(message, monotonic());
            effects.into_iter().for_each(|effect| driver.tell_end(effect));
            return;
        }
    };
    tokio::select! {
        biased;
        _ = closed.recv() => {}
        () = driver.drive(&mut parts, &mut gone) => {
            // The sound of the last moments is still on its way.
            let _ = closed.recv().await;
        }
    }
    if let Some(browser) = parts.browser.take() {
        browser.end().await;
    }
}

impl PageDriver {
    /// Until the end has been told.
    async fn drive(&mut self, parts: &mut PageParts, gone: &mut UnboundedReceiver<u32>) {
        let mut effects = self.open(parts).await;
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while self.apply(effects, parts).await {
            let PageParts { browser, events, display, network, .. } = &mut *parts;
            effects = tokio::select! {
                biased;
                Some(event) = next_event(events) => match event {
                    BrowserEvent::Gone => self.browser_gone(display),
                    event => self.on_event(event, network),
                },
                () = ended(browser) => {
                    // What it has told before comes first.
                    *browser = None;
                    self.browser_gone(display)
                }
                // That of an older one is known.
                Some(number) = gone.recv() => {
                    let is_ours = number == self.displays && display.is_some();
                    if is_ours { self.display_gone(display) } else { vec![] }
                }
                _ = ticks.tick() => {
                    self.note_refusals(network);
                    self.life.tick(monotonic())
                }
            };
        }
    }

    /// A browser that loses its display ends, too.
    fn browser_gone(&mut self, display: &mut Option<Display>) -> Vec<LifeEffect> {
        match display.as_mut().and_then(Display::failure) {
            Some(_) => self.display_gone(display),
            None => self.life.on(BrowserEvent::Gone, monotonic()),
        }
    }

    fn display_gone(&mut self, display: &mut Option<Display>) -> Vec<LifeEffect> {
        let failure = display.as_mut().and_then(Display::failure);
        warn!(failure, "the display of the page has ended");
        *display = None;
        self.life.display_gone(monotonic())
    }

    /// Starts what is missing of display and browser.
    async fn open(&mut self, parts: &mut PageParts) -> Vec<LifeEffect> {
        match self.start_browser(parts).await {
            Ok(()) => self.life.opened(monotonic()),
            Err(message) => self.life.cannot_start(message, monotonic()),
        }
    }

    /// What the page says is redacted before anything else sees it.
    fn on_event(&mut self, event: BrowserEvent, network: &mut PageNetwork) -> Vec<LifeEffect> {
        let now = monotonic();
        if matches!(event, BrowserEvent::Navigated(Err(_)) | BrowserEvent::Document { status: 400.., .. }) {
            self.note_refusals(network);
            // The browser says the same of all that its proxy does not reach.
            if let Some((is_refused, why)) = network.failure() {
                return self.life.not_reached(is_refused, &self.console.redacted(&why), now);
            }
        }
        let event = match event {
            BrowserEvent::Console(arguments) => {
                let effects = self.life.on(BrowserEvent::Console(arguments.clone()), now);
                if let Some(line) = self.console.line(&arguments.join(" "), now) {
                    debug!(line, "console of the page");
                }
                return effects;
            }
            BrowserEvent::Exception(text) => {
                if let Some(line) = self.console.line(&text, now) {
                    debug!(line, "exception in the page");
                }
                return vec![];
            }
            BrowserEvent::Checked(found) => BrowserEvent::Checked(found.map(|text| self.console.redacted(&text))),
            BrowserEvent::Dialog { kind, message } => {
                BrowserEvent::Dialog { kind, message: self.console.redacted(&message) }
            }
            BrowserEvent::Navigated(Err(code)) => BrowserEvent::Navigated(Err(self.console.redacted(&code))),
            BrowserEvent::Document { status, text } => {
                BrowserEvent::Document { status, text: self.console.redacted(&text) }
            }
            other => other,
        };
        debug!(?event, "the page");
        self.life.on(event, now)
    }

    /// Carries out what follows. False: the end was told.
    async fn apply(&mut self, effects: Vec<LifeEffect>, parts: &mut PageParts) -> bool {
        let mut effects = VecDeque::from(effects);
        while let Some(effect) = effects.pop_front() {
            match effect {
                LifeEffect::Navigate => {
                    if let Some(browser) = &mut parts.browser {
                        browser.devtools.navigate(parts.network.url(), LOAD_TIMEOUT);
                    }
                }
                LifeEffect::Check => {
                    if let Some(browser) = &mut parts.browser {
                        browser.devtools.check();
                    }
                }
                LifeEffect::Watch => {
                    if let Some(browser) = &mut parts.browser {
                        browser.devtools.watch();
                    }
                }
                LifeEffect::Restart => {
                    parts.events = None;
                    if let Some(browser) = parts.browser.take() {
                        browser.end().await;
                    }
                    effects.extend(self.open(parts).await);
                }
                LifeEffect::Begin { at } => {
                    self.queues.samples.begin(at);
                    self.queues.pictures.begin(at, || black(self.options.size));
                    self.say(PageMessage::Began { at: instant_of(at), monotonic: at });
                }
                LifeEffect::Hold { from } => self.queues.pictures.hold(from),
                LifeEffect::Release { at } => self.queues.pictures.release(at),
                LifeEffect::Waiting(what) => self.say(PageMessage::Waiting(what.to_owned())),
                LifeEffect::Noted(message) => self.note(message),
                LifeEffect::Gap(length) => self.say(PageMessage::Gap(length)),
                LifeEffect::End { .. } => {
                    parts.events = None;
                    self.tell_end(effect);
                    if let Some(browser) = parts.browser.take() {
                        browser.end().await;
                    }
                    return false;
                }
            }
        }
        true
    }

    fn tell_end(&mut self, effect: LifeEffect) {
        let LifeEffect::End { at, why } = effect else { return };
        self.queues.pictures.end_at(at);
        let left_out = self.console.left_out();
        info!(?why, left_out, has_begun = self.life.has_begun(), "the page is over");
        let why = match why {
            LifeEnd::Page => MediaEndReason::SourceClosed { message: "the page has ended the recording".to_owned() },
            LifeEnd::Failed { code, message } => MediaEndReason::Failed { code: code.to_owned(), message },
        };
        self.say(PageMessage::Ended { at, why });
    }

    fn note_refusals(&mut self, network: &mut PageNetwork) {
        for refusal in network.refusals() {
            let refusal = self.console.redacted(&refusal);
            self.note(refusal);
        }
    }

    fn note(&mut self, message: String) {
        self.say(PageMessage::Noted(message));
    }

    fn say(&mut self, message: PageMessage) {
        // A listener that is gone closes the page too.
        let _ = (self.tell)(message);
    }
}

/// The next event of the browser; none comes where there is no browser.
async fn next_event(events: &mut Option<UnboundedReceiver<BrowserEvent>>) -> Option<BrowserEvent> {
    match events {
        Some(received) => received.recv().await,
        None => pending().await,
    }
}

/// The exit of the browser, if there is one.
async fn ended(browser: &mut Option<Browser>) {
    match browser {
        Some(browser) => browser.ended().await,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_black_picture_is_as_long_as_gstreamer_wants_it() {
        gstreamer::init().unwrap();
        for (width, height) in [(1280, 720), (16, 16), (18, 16), (1282, 718), (854, 480), (720, 1280)] {
            let info = gstreamer_video::VideoInfo::builder(gstreamer_video::VideoFormat::I420, width, height);
            assert_eq!(black((width, height)).len(), info.build().unwrap().size(), "{width}x{height}");
        }
    }

    #[test]
    fn an_instant_is_the_same_moment() {
        let (now, clock) = (Instant::now(), monotonic());
        let before = instant_of(clock.saturating_sub(Duration::from_secs(2)));
        let off = now.saturating_duration_since(before).abs_diff(Duration::from_secs(2));
        assert!(off < Duration::from_millis(50), "{off:?}");
    }
}
