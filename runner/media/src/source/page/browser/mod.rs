//! Chromium for one page: its command line (`flags`), profile, process, and what goes over its DevTools (`devtools`, `event`).
//! `load_error` says why a page was not loaded, `console` what a page writes. Runs in the page's thread; what it all means for
//! the recording is decided in `life`.

pub mod console;
pub mod devtools;
pub mod event;
mod flags;
pub mod load_error;
pub mod process;
mod profile;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use spillway_ipc::PageSettings;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use self::devtools::DevTools;
use self::event::BrowserEvent;
use self::flags::BrowserFlags;
use self::process::{BrowserError, BrowserProcess};

/// What a browser needs.
#[derive(Clone, Copy, Debug)]
pub struct BrowserOptions<'a> {
    /// Of the installation.
    pub settings: &'a PageSettings,
    /// Of its window, pixels.
    pub size: (u32, u32),
    /// Empty and private: for its profile and temporary files.
    pub folder: &'a Path,
    /// The folder may be on a disk: nothing of what it visits is written there.
    pub incognito: bool,
    /// As in `DISPLAY`.
    pub display: &'a str,
    /// Socket of the sound server, and its cookie's file.
    pub sound: (&'a Path, &'a Path),
    /// The only way out; `None`: it goes where it likes.
    pub proxy: Option<SocketAddr>,
    /// Chromium's own.
    pub sandbox: bool,
    /// Pages may send datagrams past the proxy.
    pub allows_udp: bool,
}

/// A running browser with one page. Dropping it ends both.
pub struct Browser {
    /// Its page. Before the process: it is told of its end by itself.
    pub devtools: DevTools,
    process: BrowserProcess,
}

impl Browser {
    /// Starts it with a blank page. Within a [`tokio::task::LocalSet`].
    ///
    /// # Errors
    ///
    /// It cannot be started or does not answer. Nothing of it runs then.
    pub async fn start(options: BrowserOptions<'_>) -> Result<(Self, UnboundedReceiver<BrowserEvent>), BrowserError> {
        let (profile, temporary) = (options.folder.join("profile"), options.folder.join("tmp"));
        for folder in [&profile, &temporary] {
            std::fs::create_dir(folder).map_err(BrowserError::Profile)?;
        }
        profile::write(&profile, options.allows_udp).map_err(BrowserError::Profile)?;
        let flags = BrowserFlags {
            size: options.size,
            profile: &profile,
            incognito: options.incognito,
            proxy: options.proxy,
            sandbox: options.sandbox,
            insecure: options.settings.insecure,
            asked: &options.settings.flags,
        };
        let text = |path: &Path| path.display().to_string();
        let environment = BTreeMap::from([
            ("PATH", "/usr/bin:/bin".to_owned()),
            ("HOME", text(options.folder)),
            ("TMPDIR", text(&temporary)),
            ("XDG_RUNTIME_DIR", text(&temporary)),
            ("LANG", "C.UTF-8".to_owned()),
            ("DISPLAY", options.display.to_owned()),
            ("PULSE_SERVER", format!("unix:{}", text(options.sound.0))),
            ("PULSE_COOKIE", text(options.sound.1)),
        ]);
        let process = BrowserProcess::start(&options.settings.chromium, &flags.arguments(), &environment).await?;
        let (events, received) = unbounded_channel();
        let devtools = DevTools::connect(&process.address, events).await?;
        Ok((Self { devtools, process }, received))
    }

    /// Waits for its exit. Cancel-safe.
    pub async fn ended(&mut self) {
        // Whatever it was: it is gone.
        let _ = self.process.wait().await;
    }

    /// Ends it, and waits until it is gone.
    pub async fn end(self) {
        let Self { devtools, process } = self;
        drop(devtools);
        process.kill().await;
    }

    /// Names of flags of the installation that are not obeyed.
    pub fn refused_flags(settings: &PageSettings) -> Vec<String> {
        let flags = BrowserFlags {
            size: (0, 0),
            profile: Path::new(""),
            incognito: false,
            proxy: None,
            sandbox: true,
            insecure: false,
            asked: &settings.flags,
        };
        flags.refused().into_iter().map(str::to_owned).collect()
    }
}
