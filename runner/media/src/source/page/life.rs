//! The life of a page as one table: what happens in the browser and the time come in, what is to be done comes out. Pure: it
//! awaits nothing and asks no clock. Times are of CLOCK_MONOTONIC.
//!
//! A page is loaded, checked for an error of its template, waited for where it says itself when it is ready, and recorded
//! until it says that it is over. When its process dies or hangs, the browser is started again, once; a second time ends the
//! recording with what it has.

use std::time::Duration;

use super::browser::console::PageSignal;
use super::browser::event::BrowserEvent;
use super::browser::load_error;

/// livekit/egress' time for one attempt to load, and how many there are.
pub const LOAD_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_LOADS: u32 = 3;
/// A page that crashed while it was recorded, and says itself when it is ready, is shown at the latest so long after it was
/// loaded again.
const READY_TIMEOUT: Duration = Duration::from_secs(10);
/// What was painted so shortly before a crash was seen may be Chromium's own picture of it: with 50 ms one was recorded once,
/// on a busy machine. Less than [`super::pictures::PICTURE_DELAY`], until which nothing is made of a picture.
const UNSURE: Duration = Duration::from_millis(250);

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LifeEffect {
    /// Open the page's URL in the browser that runs.
    Navigate,
    /// Look for the error of a template.
    Check,
    /// Tell from now on when the page does not answer.
    Watch,
    /// End the browser and start another one.
    Restart,
    /// The recording begins here.
    Begin {
        /// The first recorded moment.
        at: Duration,
    },
    /// Nothing that is painted from this moment on is shown: the picture before stands still.
    Hold {
        /// The first moment that is not shown.
        from: Duration,
    },
    /// What is painted is shown again.
    Release {
        /// From here on.
        at: Duration,
    },
    /// What the recording waits for, for `details`.
    Waiting(&'static str),
    /// Worth telling, for `details`.
    Noted(String),
    /// The recording lacked the page for so long.
    Gap(Duration),
    /// Nothing more is recorded.
    End {
        /// The first moment that is not recorded.
        at: Duration,
        /// Why.
        why: LifeEnd,
    },
}

/// Why a page is not recorded any longer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LifeEnd {
    /// It has said so.
    Page,
    /// It cannot be recorded, or not any longer.
    Failed {
        /// psrpc code.
        code: &'static str,
        /// For the user.
        message: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LifePhase {
    /// The browser starts.
    Starting,
    /// `until`: then it is tried again, or given up.
    Loading {
        until: Duration,
        committed: bool,
    },
    /// Loaded; its error is looked for.
    Checking,
    /// Loaded, and not ready yet.
    Waiting {
        since: Duration,
    },
    /// It is recorded.
    Recorded,
    Over,
}

/// State of one page.
#[derive(Debug)]
pub struct PageLife {
    awaits_start: bool,
    is_template: bool,
    phase: LifePhase,
    /// Of the browser that runs.
    loads: u32,
    restarts: u32,
    /// It has said that it is ready, in this browser.
    is_ready: bool,
    /// Since when it is recorded.
    began: Option<Duration>,
    /// Since when it is held.
    gone: Option<(Duration, String)>,
    told_dialog: bool,
    told_window: bool,
}

impl PageLife {
    /// Of a page that is about to be opened. `awaits_start`: it says itself when it is ready. `is_template`: it joins a room, and
    /// may fail to do so long after it was loaded.
    pub fn new(awaits_start: bool, is_template: bool) -> Self {
        Self {
            awaits_start,
            is_template,
            phase: LifePhase::Starting,
            loads: 0,
            restarts: 0,
            is_ready: false,
            began: None,
            gone: None,
            told_dialog: false,
            told_window: false,
        }
    }

    /// The recording has begun.
    pub fn has_begun(&self) -> bool {
        self.began.is_some()
    }

    /// The browser runs and can be asked.
    pub fn opened(&mut self, now: Duration) -> Vec<LifeEffect> {
        if self.phase != LifePhase::Starting {
            return vec![];
        }
        (self.loads, self.is_ready) = (0, false);
        let mut effects = vec![LifeEffect::Waiting("waiting for the page to load")];
        effects.extend(self.load(now));
        effects
    }

    fn load(&mut self, now: Duration) -> Vec<LifeEffect> {
        self.loads += 1;
        self.phase = LifePhase::Loading { until: now + LOAD_TIMEOUT, committed: false };
        vec![LifeEffect::Navigate]
    }

    /// The browser, or its display, cannot be started.
    pub fn cannot_start(&mut self, message: String, now: Duration) -> Vec<LifeEffect> {
        self.fail("internal", message, now)
    }

    /// The display has died; the page is gone with it.
    pub fn display_gone(&mut self, now: Duration) -> Vec<LifeEffect> {
        self.lost("the display of the page has ended", now)
    }

    /// The page's own host was not reached, or may not be; `why` is for the user.
    pub fn not_reached(&mut self, is_refused: bool, why: &str, now: Duration) -> Vec<LifeEffect> {
        if !matches!(self.phase, LifePhase::Loading { .. }) {
            return vec![];
        }
        let code = if is_refused { "permission_denied" } else { "invalid_argument" };
        self.fail(code, load_error::not_reached(why), now)
    }

    /// An event of the browser that runs. Texts in it have no secrets.
    pub fn on(&mut self, event: BrowserEvent, now: Duration) -> Vec<LifeEffect> {
        if self.phase == LifePhase::Over {
            return vec![];
        }
        match event {
            BrowserEvent::Committed => {
                if let LifePhase::Loading { committed, .. } = &mut self.phase {
                    *committed = true;
                }
                vec![]
            }
            BrowserEvent::Navigated(Err(code)) if matches!(self.phase, LifePhase::Loading { .. }) => {
                if load_error::may_pass(&code) && self.loads < MAX_LOADS {
                    self.load(now)
                } else {
                    self.fail("invalid_argument", load_error::navigation(&code), now)
                }
            }
            BrowserEvent::Document { status: status @ 400.., text }
                if matches!(self.phase, LifePhase::Loading { .. }) =>
            {
                self.fail("invalid_argument", load_error::http(status, &text), now)
            }
            // Without a commit it is Chromium's own page for an error, or the blank one.
            BrowserEvent::Loaded if matches!(self.phase, LifePhase::Loading { committed: true, .. }) => {
                self.phase = LifePhase::Checking;
                vec![LifeEffect::Check]
            }
            BrowserEvent::Checked(Some(text))
                if matches!(self.phase, LifePhase::Checking | LifePhase::Waiting { .. }) =>
            {
                self.fail("invalid_argument", load_error::template(&text), now)
            }
            BrowserEvent::Checked(None) if self.phase == LifePhase::Checking => self.loaded(now),
            BrowserEvent::Console(arguments) => match arguments.iter().find_map(|text| PageSignal::parse(text)) {
                Some(PageSignal::Start) => self.ready(now),
                Some(PageSignal::End) => self.end(now, LifeEnd::Page),
                None => vec![],
            },
            BrowserEvent::Dialog { kind, .. } if !std::mem::replace(&mut self.told_dialog, true) => {
                vec![LifeEffect::Noted(format!("the page opened a dialog ({kind}), which was answered"))]
            }
            BrowserEvent::PopUp if !std::mem::replace(&mut self.told_window, true) => {
                vec![LifeEffect::Noted("the page opened a window, which was closed".to_owned())]
            }
            BrowserEvent::Crashed(how) => self.lost(&format!("the page crashed ({how})"), now),
            BrowserEvent::Hung(silent) => {
                self.lost_since("the page did not answer any more", now.saturating_sub(silent), now)
            }
            BrowserEvent::Gone => self.lost("the browser ended", now),
            BrowserEvent::Navigated(_)
            | BrowserEvent::Document { .. }
            | BrowserEvent::Loaded
            | BrowserEvent::Checked(_)
            | BrowserEvent::Exception(_)
            | BrowserEvent::Dialog { .. }
            | BrowserEvent::PopUp => vec![],
        }
    }

    /// To be called a few times a second.
    pub fn tick(&mut self, now: Duration) -> Vec<LifeEffect> {
        match self.phase {
            LifePhase::Loading { until, .. } if now >= until && self.loads < MAX_LOADS => self.load(now),
            LifePhase::Loading { until, .. } if now >= until => {
                self.fail("invalid_argument", load_error::TIMED_OUT.to_owned(), now)
            }
            LifePhase::Waiting { since } if self.began.is_some() && now >= since + READY_TIMEOUT => self.begin(now),
            LifePhase::Waiting { .. } if self.is_template => vec![LifeEffect::Check],
            _ => vec![],
        }
    }

    fn loaded(&mut self, now: Duration) -> Vec<LifeEffect> {
        if !self.awaits_start || self.is_ready {
            return self.begin(now);
        }
        self.phase = LifePhase::Waiting { since: now };
        vec![LifeEffect::Watch, LifeEffect::Waiting("waiting for the page's START_RECORDING")]
    }

    /// The page says that it is ready. It may say so before everything that it names is loaded.
    fn ready(&mut self, now: Duration) -> Vec<LifeEffect> {
        self.is_ready = true;
        match self.phase {
            LifePhase::Waiting { .. } | LifePhase::Loading { committed: true, .. } | LifePhase::Checking
                if self.awaits_start =>
            {
                self.begin(now)
            }
            _ => vec![],
        }
    }

    fn begin(&mut self, now: Duration) -> Vec<LifeEffect> {
        let watched = matches!(self.phase, LifePhase::Waiting { .. });
        self.phase = LifePhase::Recorded;
        let mut effects = if watched { vec![] } else { vec![LifeEffect::Watch] };
        let Some(began) = self.began else {
            self.began = Some(now);
            effects.push(LifeEffect::Begin { at: now });
            return effects;
        };
        effects.push(LifeEffect::Release { at: now });
        if let Some((since, why)) = self.gone.take() {
            let (missing, at) = (now.saturating_sub(since), since.saturating_sub(began));
            effects.push(LifeEffect::Gap(missing));
            effects.push(LifeEffect::Noted(format!(
                "{why} {:.1} s after the beginning and was loaded again: {:.1} s are missing",
                at.as_secs_f64(),
                missing.as_secs_f64()
            )));
        }
        effects
    }

    /// The page is gone.
    fn lost(&mut self, why: &str, now: Duration) -> Vec<LifeEffect> {
        self.lost_since(why, now, now)
    }

    /// The page is gone since then, as is known now. The first time it is opened anew.
    fn lost_since(&mut self, why: &str, since: Duration, now: Duration) -> Vec<LifeEffect> {
        if matches!(self.phase, LifePhase::Starting | LifePhase::Over) {
            return vec![];
        }
        if self.restarts > 0 {
            return self.fail("internal", format!("{why}, after it had been loaded again"), now);
        }
        self.restarts += 1;
        self.phase = LifePhase::Starting;
        if let Some(began) = self.began {
            self.gone.get_or_insert((since.max(began), why.to_owned()));
            vec![LifeEffect::Hold { from: now.saturating_sub(UNSURE) }, LifeEffect::Restart]
        } else {
            vec![
                LifeEffect::Noted(format!("{why} before the recording began, and is loaded again")),
                LifeEffect::Restart,
            ]
        }
    }

    fn fail(&mut self, code: &'static str, message: String, now: Duration) -> Vec<LifeEffect> {
        self.end(now, LifeEnd::Failed { code, message })
    }

    fn end(&mut self, now: Duration, why: LifeEnd) -> Vec<LifeEffect> {
        if self.phase == LifePhase::Over {
            return vec![];
        }
        self.phase = LifePhase::Over;
        // What was missing when it ended is not worth a standing picture.
        let gone = self.gone.take();
        let at = gone.as_ref().map_or(now, |(since, _)| *since);
        vec![LifeEffect::End { at, why }]
    }
}

#[cfg(test)]
#[path = "life_tests.rs"]
mod tests;
