//! Everything that is started for a page: what needs no browser first, then display and browser, again after each of their
//! deaths. Errors are for the user.

use std::path::PathBuf;
use std::sync::mpsc::Receiver;
use std::thread::Builder;

use spillway_process::chain;
use tracing::debug;

use super::{PageDriver, PageParts};
use crate::source::page::browser::{Browser, BrowserOptions};
use crate::source::page::display::{Display, DisplayOptions};
use crate::source::page::folder::PageFolder;
use crate::source::page::network::PageNetwork;
use crate::source::page::prefetch;
use crate::source::page::program;
use crate::source::page::sound::{SoundOptions, SoundServer};
use crate::source::page::units::{PageFrame, PageSamples};

/// Refreshes a second for pages with a room: Chromium paints them at 30/s anyway, on edges nearer to when pictures came.
const ROOM_HZ: u32 = 60;

impl PageDriver {
    /// What needs no browser yet. The error is for the user.
    pub(super) async fn prepare(&mut self) -> Result<PageParts, String> {
        prefetch::start(&self.options.settings.chromium);
        let folder = PageFolder::create().map_err(|error| format!("no folder for the page: {error}"))?;
        if !folder.is_in_memory() {
            debug!("no place in memory has room for the profile; nothing that the page visits is kept in it");
        }
        self.choose_sandbox()?;
        let refused = Browser::refused_flags(&self.options.settings);
        if !refused.is_empty() {
            self.note(format!("chrome_flags that are not obeyed: {}", refused.join(", ")));
        }
        let network = PageNetwork::open(&self.options).await?;
        let options = SoundOptions { folder: folder.path().to_owned() };
        let (sound, blocks) = SoundServer::start(&options).map_err(|error| chain(&error).to_string())?;
        self.take_sound(blocks)?;
        Ok(PageParts { browser: None, events: None, display: None, sound, network, folder })
    }

    fn choose_sandbox(&mut self) -> Result<(), String> {
        let allowed = program::allows_user_namespaces();
        self.sandbox = match self.options.settings.sandbox {
            Some(true) if !allowed => {
                return Err("enable_chrome_sandbox is set, and this system lets the browser have none: it needs user \
                            namespaces, and a user who is not root"
                    .to_owned());
            }
            Some(asked) => asked,
            None => allowed,
        };
        if self.options.settings.sandbox.is_none() && !allowed {
            self.note("the browser runs without its own sandbox: user namespaces are forbidden here".to_owned());
        }
        Ok(())
    }

    pub(super) async fn start_browser(&mut self, parts: &mut PageParts) -> Result<(), String> {
        if parts.display.as_mut().is_some_and(|display| display.failure().is_some()) {
            parts.display = None;
        }
        if parts.display.is_none() {
            let (display, frames) = self.start_display(parts.folder.path().to_owned())?;
            self.displays += 1;
            self.take_pictures(frames)?;
            parts.display = Some(display);
        }
        let Some(display) = &parts.display else { return Err("there is no display".to_owned()) };
        self.browsers += 1;
        let folder = parts.folder.subfolder(&format!("browser-{}", self.browsers));
        let folder = folder.map_err(|error| format!("no folder for the browser: {error}"))?;
        let options = BrowserOptions {
            settings: &self.options.settings,
            size: self.options.size,
            folder: &folder,
            incognito: !parts.folder.is_in_memory(),
            display: display.address(),
            sound: (parts.sound.address(), parts.sound.cookie()),
            proxy: Some(parts.network.proxy()),
            sandbox: self.sandbox,
            allows_udp: self.options.joins_room || self.options.settings.allow_webrtc,
        };
        let (browser, events) = Browser::start(options).await.map_err(|error| chain(&error).to_string())?;
        (parts.browser, parts.events) = (Some(browser), Some(events));
        Ok(())
    }

    fn start_display(&self, folder: PathBuf) -> Result<(Display, Receiver<PageFrame>), String> {
        let (width, height) = self.options.size;
        let options = DisplayOptions { width, height, fps: self.options.framerate, folder };
        let (display, frames) = Display::start(&options).map_err(|error| chain(&error).to_string())?;
        if self.options.joins_room && self.options.framerate < ROOM_HZ {
            display.set_refresh(ROOM_HZ).map_err(|error| chain(&error).to_string())?;
        }
        Ok((display, frames))
    }

    fn take_pictures(&self, frames: Receiver<PageFrame>) -> Result<(), String> {
        let (pictures, gone, number) = (self.queues.pictures.clone(), self.display_gone.clone(), self.displays);
        let take = move || {
            frames.into_iter().for_each(|frame| pictures.put(frame));
            // Refused only when the page is closed.
            let _ = gone.send(number);
        };
        Builder::new().name("page frames".to_owned()).spawn(take).map(drop).map_err(|error| error.to_string())
    }

    fn take_sound(&self, blocks: Receiver<PageSamples>) -> Result<(), String> {
        let samples = self.queues.samples.clone();
        let take = move || {
            blocks.into_iter().for_each(|block| samples.put(block));
            samples.over();
        };
        Builder::new().name("page blocks".to_owned()).spawn(take).map(drop).map_err(|error| error.to_string())
    }
}
