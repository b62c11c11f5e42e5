//! A headless Chromium that plays recordings as a user would.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::process::{Process, eventually, kill_marked, new_mark};

const PAGE: &str = include_str!("../assets/play.html");

/// Arguments of every headless Chromium of the harness.
pub const HEADLESS: [&str; 7] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--mute-audio",
    "--no-first-run",
    "--autoplay-policy=no-user-gesture-required",
    "--enable-logging=stderr",
];

/// Chromium slows timers of pages that it takes for hidden.
pub(crate) const AWAKE: [&str; 3] = [
    "--disable-background-timer-throttling",
    "--disable-backgrounding-occluded-windows",
    "--disable-renderer-backgrounding",
];

/// Playback of one file.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct BrowserPlayback {
    /// The player's duration, seconds.
    pub length: f64,
    /// Four seeks over the length of the file.
    pub jumps: Vec<SeekResult>,
    /// Position after playing from the beginning for a while, seconds.
    pub played: f64,
    /// It has played to its end, if that was asked for.
    pub ended: bool,
    /// Video frames shown.
    pub pictures: u64,
    /// Of them, decoded with errors.
    pub corrupted: u64,
    /// Of the video; 0 without one.
    pub width: u32,
    /// Not empty: the file does not play, and why.
    pub error: String,
}

impl Default for BrowserPlayback {
    fn default() -> Self {
        Self {
            length: 0.0,
            jumps: vec![],
            played: 0.0,
            ended: false,
            pictures: 0,
            corrupted: 0,
            width: 0,
            error: "not played".to_owned(),
        }
    }
}

/// One seek.
#[derive(Clone, Debug, Deserialize)]
pub struct SeekResult {
    /// Requested position, seconds.
    pub to: f64,
    /// Position that the player reached, seconds.
    pub at: f64,
    /// `HTMLMediaElement.readyState`: from 2 on there is a frame to show.
    pub ready: u32,
}

impl BrowserPlayback {
    /// An error unless it plays without corrupted frames and every seek arrives within 0.5 s.
    pub fn is_fine(&self) -> Result<()> {
        ensure!(self.error.is_empty(), "{}", self.error);
        ensure!(self.length.is_finite() && self.length > 0.0, "its length is {}", self.length);
        for jump in &self.jumps {
            ensure!((jump.at - jump.to).abs() < 0.5 && jump.ready >= 2, "sent to {:.2} it is at {jump:?}", jump.to);
        }
        ensure!(self.jumps.len() == 4, "jumped {} times", self.jumps.len());
        ensure!(self.played > 0.0, "it stands still");
        ensure!(self.corrupted == 0, "{} pictures are corrupted", self.corrupted);
        ensure!(self.width == 0 || self.pictures > 0, "no picture was shown");
        Ok(())
    }
}

/// Plays files of this disk one after the other in one browser.
pub async fn watch(files: &[&Path]) -> Result<Vec<BrowserPlayback>> {
    play(files, false).await
}

/// As [`watch`], and plays each from its beginning to its end, at four times its pace; an error where one does not get
/// there.
pub async fn watch_to_the_end(files: &[&Path]) -> Result<Vec<BrowserPlayback>> {
    let seen = play(files, true).await?;
    for (file, playback) in files.iter().zip(&seen) {
        ensure!(playback.ended || !playback.error.is_empty(), "{} does not end: {playback:?}", file.display());
    }
    Ok(seen)
}

async fn play(files: &[&Path], to_the_end: bool) -> Result<Vec<BrowserPlayback>> {
    let folder = tempfile::tempdir().context("make a folder")?;
    let full = |file: &&Path| file.canonicalize().with_context(|| format!("find {}", file.display()));
    let files: Vec<PathBuf> = files.iter().map(full).collect::<Result<_>>()?;
    let addresses: Vec<String> = files.iter().map(|file| format!("file://{}", file.display())).collect();
    let path = folder.path().join("play.html");
    let page = PAGE.replace("@FILES@", &json!(addresses).to_string()).replace("@TO_THE_END@", &to_the_end.to_string());
    std::fs::write(&path, page).context("write the page")?;
    let limit = Duration::from_secs(30 + 15 * files.len() as u64);
    let address = format!("file://{}", path.display());
    let seen: Vec<BrowserPlayback> =
        seen_by_page(folder.path(), &address, &["--allow-file-access-from-files"], limit).await?;
    ensure!(seen.len() == files.len(), "{} of {} files were looked at", seen.len(), files.len());
    Ok(seen)
}

/// Opens a page in a browser of its own, whose log and profile lie in `folder`, and waits until it writes
/// `SEEN <base64 of JSON> END` to its console; gives the JSON.
pub(crate) async fn seen_by_page<T: DeserializeOwned>(
    folder: &Path,
    address: &str,
    arguments: &[&str],
    limit: Duration,
) -> Result<T> {
    let page = OpenPage::open(folder, address, arguments)?;
    let seen = eventually("the browser has seen everything", limit, || async {
        let log = std::fs::read(&page.process.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log).into_owned();
        let told = log.split_once("SEEN ").and_then(|(_, rest)| rest.split_once(" END"));
        Ok(told.map(|(told, _)| told.to_owned()))
    });
    let seen = seen.await.with_context(|| page.tail())?;
    serde_json::from_slice(&STANDARD.decode(seen)?).context("understand the page")
}

/// A page in a browser of its own, until this is dropped.
pub struct OpenPage {
    process: Process,
    // After the process above, which is one of them.
    _browser: RunningBrowser,
}

impl OpenPage {
    /// Opens it; the browser's log and its profile (`profile`) lie in `folder`.
    pub fn open(folder: &Path, address: &str, arguments: &[&str]) -> Result<Self> {
        let browser = RunningBrowser::new("browser");
        let process = Process::start("chromium", Path::new("/usr/bin/chromium"), folder, &browser.mark, |command| {
            command
                .args(HEADLESS)
                .args(arguments)
                .arg(format!("--user-data-dir={}", folder.join("profile").display()))
                .arg(address);
        })?;
        Ok(Self { process, _browser: browser })
    }

    /// The end of the browser's log.
    pub fn tail(&self) -> String {
        self.process.tail()
    }
}

/// A browser is many processes; all of them end with this value.
pub(crate) struct RunningBrowser {
    /// Of all of them.
    pub(crate) mark: String,
}

impl RunningBrowser {
    /// With a mark of its own; nothing is started.
    pub(crate) fn new(what: &str) -> Self {
        Self { mark: new_mark(what) }
    }
}

impl Drop for RunningBrowser {
    fn drop(&mut self) {
        kill_marked(&self.mark);
    }
}
