//! What is asked of a Chromium over its DevTools, and what it tells: the one place where chromiumoxide is used. Commands are
//! carried out in local tasks of the page's thread; their outcome is an event like all others.
//!
//! Of chromiumoxide 0.9.1: `fetch_targets` loses the session of the page in most starts, so pages are asked for instead;
//! its own launch passes on the whole environment; its default viewport resizes the page and its default accepts any
//! certificate.

use std::rc::Rc;
use std::time::{Duration, Instant};

use chromiumoxide::browser::Browser;
use chromiumoxide::cdp::browser_protocol::{inspector, network, page as frames, target};
use chromiumoxide::cdp::js_protocol::runtime;
use chromiumoxide::handler::HandlerConfig;
use futures_util::StreamExt;
use spillway_plan::Secret;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::event::BrowserEvent;
use super::process::BrowserError;

/// From the connection to the page that Chromium has opened: 0.15 s warm.
const PAGE_TIMEOUT: Duration = Duration::from_secs(15);
const PAGE_POLL: Duration = Duration::from_millis(5);
/// Of every command; a navigation is given up earlier.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);
/// Between two questions whether the page still answers, how long it may take, and how long once more: a page that does
/// not answer is found out within 5 s.
const WATCH_EVERY: Duration = Duration::from_secs(1);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
const SECOND_ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// What a page shows when a template is broken: livekit/egress' rule.
const ERROR_ELEMENT: &str =
    "(() => { const found = document.querySelector('div.error'); return found ? found.innerText : null; })()";

/// A connection to one page of a Chromium. Everything that it does ends when it is dropped.
pub struct DevTools {
    /// Its connection ends with it.
    _browser: Rc<Browser>,
    page: chromiumoxide::Page,
    events: UnboundedSender<BrowserEvent>,
    tasks: Vec<JoinHandle<()>>,
}

/// Passes on events of one type.
macro_rules! forward {
    ($devtools:ident, $source:expr, $event:ty, $pass_on:expr) => {{
        let mut stream = $source.event_listener::<$event>().await.map_err(broken)?;
        let events = $devtools.events.clone();
        let pass_on: Box<dyn Fn(&$event) -> Option<BrowserEvent>> = Box::new($pass_on);
        $devtools.tasks.push(spawn_local(async move {
            while let Some(event) = stream.next().await {
                if let Some(event) = pass_on(&event) {
                    // Refused only when the page is closed.
                    let _ = events.send(event);
                }
            }
        }));
    }};
}

fn broken(error: impl std::fmt::Display) -> BrowserError {
    BrowserError::DevTools(error.to_string())
}

impl DevTools {
    /// Connects to the page that the browser at `address` has opened. Within a [`tokio::task::LocalSet`].
    ///
    /// # Errors
    ///
    /// The browser does not answer. A retry needs another browser.
    pub async fn connect(address: &str, events: UnboundedSender<BrowserEvent>) -> Result<Self, BrowserError> {
        let config = HandlerConfig {
            viewport: None,
            ignore_https_errors: false,
            request_timeout: COMMAND_TIMEOUT,
            ..HandlerConfig::default()
        };
        let (browser, mut handler) = Browser::connect_with_config(address, config).await.map_err(broken)?;
        let gone = events.clone();
        let driver = spawn_local(async move {
            while let Some(step) = handler.next().await {
                if let Err(error) = step {
                    // Messages of a newer Chromium than the library knows are among these.
                    debug!(%error, "a message of the browser is not understood");
                }
            }
            let _ = gone.send(BrowserEvent::Gone);
        });
        let browser = Rc::new(browser);
        let page = match timeout(PAGE_TIMEOUT, first_page(&browser)).await {
            Ok(page) => page?,
            Err(_) => return Err(BrowserError::DevTools("it has opened no page".to_owned())),
        };
        let mut devtools = Self { _browser: browser.clone(), page: page.clone(), events, tasks: vec![driver] };
        devtools.listen(&page, &browser).await?;
        devtools.answer_dialogs(&page).await?;
        devtools.close_windows(browser).await?;
        Ok(devtools)
    }

    async fn listen(&mut self, page: &chromiumoxide::Page, browser: &Browser) -> Result<(), BrowserError> {
        let ours = page.target_id().inner().clone();
        forward!(self, page, frames::EventFrameNavigated, |event| {
            let is_document = event.frame.parent_id.is_none() && event.frame.url.starts_with("http");
            is_document.then_some(BrowserEvent::Committed)
        });
        forward!(self, page, frames::EventLoadEventFired, |_| Some(BrowserEvent::Loaded));
        let main = ours.clone();
        forward!(self, page, network::EventResponseReceived, move |event| {
            // The main frame has the id of its page.
            let is_main = event.frame_id.as_ref().is_none_or(|frame| *frame.inner() == main);
            (event.r#type == network::ResourceType::Document && is_main).then(|| BrowserEvent::Document {
                status: event.response.status,
                text: event.response.status_text.clone(),
            })
        });
        forward!(self, page, runtime::EventConsoleApiCalled, |event| {
            let values = event.args.iter().filter_map(|argument| argument.value.as_ref());
            let text = |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            Some(BrowserEvent::Console(values.map(text).collect()))
        });
        forward!(self, page, runtime::EventExceptionThrown, |event| {
            Some(BrowserEvent::Exception(event.exception_details.text.clone()))
        });
        forward!(self, page, inspector::EventTargetCrashed, |_| Some(BrowserEvent::Crashed("crashed".to_owned())));
        forward!(self, browser, target::EventTargetCrashed, move |event| {
            let how = || format!("{} {}", event.status, event.error_code);
            (*event.target_id.inner() == ours).then(|| BrowserEvent::Crashed(how()))
        });
        Ok(())
    }

    /// A page with an open dialog stands still.
    async fn answer_dialogs(&mut self, page: &chromiumoxide::Page) -> Result<(), BrowserError> {
        let mut dialogs = page.event_listener::<frames::EventJavascriptDialogOpening>().await.map_err(broken)?;
        let (page, events) = (page.clone(), self.events.clone());
        self.tasks.push(spawn_local(async move {
            while let Some(dialog) = dialogs.next().await {
                let kind = dialog.r#type.as_ref().to_owned();
                // What only informs is accepted, a question is answered with no.
                let accepts = matches!(kind.as_str(), "alert" | "beforeunload");
                if let Err(error) = page.execute(frames::HandleJavaScriptDialogParams::new(accepts)).await {
                    debug!(%error, kind, "a dialog is not answered");
                }
                let _ = events.send(BrowserEvent::Dialog { kind, message: dialog.message.clone() });
            }
        }));
        Ok(())
    }

    /// A second window would cover the page.
    async fn close_windows(&mut self, browser: Rc<Browser>) -> Result<(), BrowserError> {
        let mut targets = browser.event_listener::<target::EventTargetCreated>().await.map_err(broken)?;
        let (ours, events) = (self.page.target_id().inner().clone(), self.events.clone());
        self.tasks.push(spawn_local(async move {
            while let Some(created) = targets.next().await {
                let info = &created.target_info;
                if info.r#type != "page" || *info.target_id.inner() == ours {
                    continue;
                }
                if let Err(error) = browser.execute(target::CloseTargetParams::new(info.target_id.clone())).await {
                    debug!(%error, "a window of the page is not closed");
                }
                let _ = events.send(BrowserEvent::PopUp);
            }
        }));
        Ok(())
    }

    /// Opens a URL; the outcome is [`BrowserEvent::Navigated`]. `give_up_after`: there is none then.
    pub fn navigate(&mut self, url: &Secret, give_up_after: Duration) {
        let (page, url, events) = (self.page.clone(), url.reveal().clone(), self.events.clone());
        self.tasks.push(spawn_local(async move {
            match timeout(give_up_after, page.execute(frames::NavigateParams::new(url))).await {
                Ok(Ok(navigated)) => {
                    let code = navigated.result.error_text.clone().filter(|code| !code.is_empty());
                    let _ = events.send(BrowserEvent::Navigated(code.map_or(Ok(()), Err)));
                }
                Ok(Err(error)) => {
                    let _ = events.send(BrowserEvent::Navigated(Err(error.to_string())));
                }
                // Its listener has a clock of its own.
                Err(_) => {}
            }
        }));
    }

    /// Looks for the error of a template; the outcome is [`BrowserEvent::Checked`].
    pub fn check(&mut self) {
        // It may be asked for very often.
        self.tasks.retain(|task| !task.is_finished());
        let (page, events) = (self.page.clone(), self.events.clone());
        self.tasks.push(spawn_local(async move {
            let found = match timeout(ANSWER_TIMEOUT, evaluate(&page, ERROR_ELEMENT)).await {
                Ok(Some(serde_json::Value::String(text))) => Some(text),
                _ => None,
            };
            let _ = events.send(BrowserEvent::Checked(found));
        }));
    }

    /// From now on a page that does not answer is told of, once.
    pub fn watch(&mut self) {
        let (page, events) = (self.page.clone(), self.events.clone());
        self.tasks.push(spawn_local(async move {
            let mut answered_at = Instant::now();
            loop {
                sleep(WATCH_EVERY).await;
                let first = timeout(ANSWER_TIMEOUT, evaluate(&page, "1")).await.is_ok();
                // A machine that was suspended finds all its timeouts expired.
                if !first && timeout(SECOND_ANSWER_TIMEOUT, evaluate(&page, "1")).await.is_err() {
                    let _ = events.send(BrowserEvent::Hung(answered_at.elapsed()));
                    return;
                }
                answered_at = Instant::now();
            }
        }));
    }
}

impl Drop for DevTools {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn first_page(browser: &Browser) -> Result<chromiumoxide::Page, BrowserError> {
    loop {
        if let Some(page) = browser.pages().await.map_err(broken)?.into_iter().next() {
            return Ok(page);
        }
        sleep(PAGE_POLL).await;
    }
}

/// The value of an expression; `None`: it has none, or failed.
async fn evaluate(page: &chromiumoxide::Page, expression: &str) -> Option<serde_json::Value> {
    let asked = runtime::EvaluateParams::builder().expression(expression).return_by_value(true).build().ok()?;
    match page.execute(asked).await {
        Ok(evaluated) => evaluated.result.result.value.clone(),
        Err(error) => {
            debug!(%error, "the page does not evaluate");
            None
        }
    }
}
