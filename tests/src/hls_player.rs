//! hls.js in a headless Chromium: plays HLS playlists as the page of a user would, from another origin than they lie at,
//! while they grow or when they are finished.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::assets::npm_file;
use crate::browser::{AWAKE, seen_by_page};
use crate::servers::file_server::FileServer;

const PAGE: &str = include_str!("../assets/hls.html");

/// For the browser to start and to load its page, on a busy machine.
const PAGE_TIMEOUT: Duration = Duration::from_secs(40);
/// A viewer notices more: the player waits for media, or the machine has no time for it.
const LONGEST_STAND_S: f64 = 1.5;
/// Between two ranges of what is buffered; players skip less by themselves.
const LONGEST_GAP_S: f64 = 0.1;

/// How a playlist is played.
#[derive(Clone, Debug, Serialize)]
pub struct HlsView {
    url: String,
    from_s: f64,
    rate: f64,
    limit_s: f64,
}

impl HlsView {
    /// A finished playlist, from its beginning to its end, twice as fast.
    pub fn finished(url: String, seconds: f64) -> Self {
        Self { url, from_s: 0.0, rate: 2.0, limit_s: seconds + 15.0 }
    }

    /// From the beginning on, also while it grows.
    pub fn from_the_beginning(url: String, limit_s: f64) -> Self {
        Self { url, from_s: 0.0, rate: 1.0, limit_s }
    }

    /// From where hls.js begins by itself: three target durations before the end of a list that grows.
    pub fn live(url: String, limit_s: f64) -> Self {
        Self { url, from_s: -1.0, rate: 1.0, limit_s }
    }
}

/// What came of it. Times are seconds.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct HlsPlayback {
    /// Errors of hls.js, also those that it recovers from.
    pub errors: Vec<String>,
    /// From the request for the playlist to the first frame; of sound alone, to the first that is heard.
    pub first_frame_s: f64,
    /// Position then.
    pub first_s: f64,
    /// Position at the end.
    pub position_s: f64,
    /// The player's duration at the end.
    pub length_s: f64,
    /// The player came to the end of the playlist.
    pub ended: bool,
    /// Longest time without progress, from the first frame to the end.
    pub longest_stand_s: f64,
    /// Most that was missing between ranges of what is buffered.
    pub gap_s: f64,
    /// Most ranges.
    pub ranges: u32,
    /// Segments that were buffered.
    pub fragments: u32,
    /// Highest number of a discontinuity.
    pub discontinuities: u32,
    /// Most that the position was behind the end of a list that grows.
    pub latency_s: f64,
    /// The list grew.
    pub was_live: bool,
    /// Frames decoded.
    pub pictures: u64,
    /// Of them, not shown: the machine was too slow.
    pub dropped: u64,
    /// Of them, decoded with errors.
    pub corrupted: u64,
    /// Of the video; 0 without one.
    pub width: u32,
    /// Bytes of decoded sound's input.
    pub sound_bytes: u64,
}

impl HlsPlayback {
    /// An error unless it began, hls.js saw no error, the position advanced all the time, and nothing was missing in what
    /// was buffered.
    pub fn is_fine(&self) -> Result<()> {
        ensure!(self.errors.is_empty(), "hls.js: {:?}: {self:?}", self.errors);
        ensure!(self.first_frame_s > 0.0, "nothing was shown: {self:?}");
        ensure!(self.longest_stand_s < LONGEST_STAND_S, "it stood for {} s: {self:?}", self.longest_stand_s);
        ensure!(self.gap_s < LONGEST_GAP_S, "gaps of {} s in what is buffered: {self:?}", self.gap_s);
        ensure!(self.position_s > self.first_s, "it did not advance: {self:?}");
        ensure!(self.corrupted == 0, "{} pictures are corrupted: {self:?}", self.corrupted);
        ensure!(self.width == 0 || self.pictures > 0, "no picture was decoded: {self:?}");
        ensure!(self.sound_bytes > 0, "no sound was decoded: {self:?}");
        Ok(())
    }

    /// As [`is_fine`](Self::is_fine), and it came to an end after `seconds`.
    pub fn ended_after(&self, seconds: f64) -> Result<()> {
        self.is_fine()?;
        ensure!(self.ended, "it has not ended: {self:?}");
        for (what, is) in [("length", self.length_s), ("position", self.position_s)] {
            ensure!((is - seconds).abs() < 0.2, "the {what} is {is:.2} s instead of {seconds:.2}: {self:?}");
        }
        Ok(())
    }
}

/// Plays playlists beside one another in one browser, each to its end or for as long as it says.
pub async fn watch_hls(views: &[HlsView]) -> Result<Vec<HlsPlayback>> {
    let folder = tempfile::tempdir().context("make a folder")?;
    let site = folder.path().join("site");
    std::fs::create_dir(&site).context("make the folder of the page")?;
    std::fs::copy(npm_file("hls.js/dist/hls.min.js")?, site.join("hls.min.js")).context("copy hls.js")?;
    let page = PAGE.replace("@VIEWS@", &serde_json::to_string(views)?);
    std::fs::write(site.join("hls.html"), page).context("write the page")?;
    let server = FileServer::start(&site).await?;
    let longest = views.iter().map(|view| view.limit_s).fold(0.0, f64::max);
    let limit = PAGE_TIMEOUT + Duration::from_secs_f64(longest);
    let seen: Vec<HlsPlayback> = seen_by_page(folder.path(), &server.url("hls.html"), &AWAKE, limit).await?;
    ensure!(seen.len() == views.len(), "{} of {} playlists were played", seen.len(), views.len());
    Ok(seen)
}
