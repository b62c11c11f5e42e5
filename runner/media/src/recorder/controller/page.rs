//! A recording of a web page: it is opened, says when it begins and when it is over, and tells what happens meanwhile. Part of
//! the controller, on its thread; pictures and sound go past it.

use std::sync::mpsc::Sender;

use spillway_ipc::{MediaEndReason, MediaEvent};
use spillway_plan::PageKind;

use super::{CONTINUE, Flow, RecorderController, failed};
use crate::recorder::formats::picture_options;
use crate::recorder::input::RecorderInput;
use crate::recorder::mode::RecordingMode;
use crate::source::page::guard::GuardOptions;
use crate::source::page::{PageMessage, PageOptions, WebPage};

/// Of a page that is only heard: it is painted all the same.
const UNSEEN_SIZE: (u32, u32) = (1280, 720);
const UNSEEN_FRAMERATE: u32 = 30;

/// The page's way to us. However its thread ends, a panic included, we hear that it is gone.
struct PageSender(Sender<RecorderInput>);

impl Drop for PageSender {
    fn drop(&mut self) {
        let _ = self.0.send(RecorderInput::PageGone);
    }
}

impl RecorderController {
    pub(super) fn open_page(&mut self) -> Flow {
        let plan = &self.start.plan;
        let (Some(page), Some(url)) = (plan.page(), self.start.page_url.take()) else {
            return failed("internal", "the recording of a page has no URL".to_owned());
        };
        let pictures = picture_options(plan);
        let joins_room = page.kind == PageKind::Template;
        let settings = &self.start.settings;
        let mut guard = GuardOptions { rules: settings.guard.clone(), upstream: settings.page.proxy.clone() };
        if joins_room {
            guard.open(&self.start.ws_url);
        }
        let options = PageOptions {
            url,
            awaits_start: page.awaits_start,
            joins_room,
            size: pictures.as_ref().map_or(UNSEEN_SIZE, |pictures| (pictures.size.width, pictures.size.height)),
            framerate: pictures.as_ref().map_or(UNSEEN_FRAMERATE, |pictures| pictures.framerate),
            settings: settings.page.clone(),
            guard,
        };
        if joins_room {
            self.send(MediaEvent::Noted { message: "composite engine: page".to_owned() });
        }
        let sender = PageSender(self.tell.clone());
        match WebPage::open(options, move |message| sender.0.send(RecorderInput::Page(message)).is_ok()) {
            Ok(page) => self.page = Some(page),
            Err(error) => return failed("internal", format!("start the page's thread: {error}")),
        }
        CONTINUE
    }

    pub(super) fn on_page(&mut self, message: PageMessage) -> Flow {
        match message {
            PageMessage::Began { at, monotonic } => {
                self.origin = Some(self.clock.unix_ns_at(at.into()));
                self.page_began = Some(monotonic);
                // Whatever was to be recorded was, before it began.
                if self.leaving.is_none() {
                    return self.ask_for_files(RecordingMode::Page { began: monotonic });
                }
            }
            PageMessage::Waiting(what) => self.send(MediaEvent::Waiting { what }),
            PageMessage::Noted(message) => self.send(MediaEvent::Noted { message }),
            PageMessage::Gap(length) => {
                if let Some(recorder) = &mut self.recorder {
                    recorder.page_gap(length);
                }
            }
            PageMessage::Ended { at, why } => {
                self.page_end = self.page_began.map(|began| at.saturating_sub(began).into());
                return self.room_over(why);
            }
        }
        CONTINUE
    }

    /// Its thread has ended; where it has told why, that goes before this.
    pub(super) fn page_gone(&mut self) -> Flow {
        if self.draining.is_some() || self.leaving.is_some() {
            return CONTINUE;
        }
        let message = "the page's thread has ended".to_owned();
        self.room_over(MediaEndReason::Failed { code: "internal".to_owned(), message })
    }
}
