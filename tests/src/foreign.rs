//! Publishers with WebRTC stacks other than ours: libwebrtc (the PyPI wheel `livekit`) and a headless Chromium with
//! livekit-client, which draw and sound what the clips show, and pion (livekit/server-sdk-go), which sends the clips.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use livekit_token::VideoGrants;
use serde::Serialize;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::assets::{cache, folder, npm_file};
use crate::browser::HEADLESS;
use crate::process::{Process, eventually, kill_marked, new_mark};
use crate::twirp::Api;

const SCRIPT: &str = include_str!("../assets/publish.py");
const PAGE: &str = include_str!("../assets/publish.html");

/// For joining and publishing: a browser that starts for the first time takes seconds.
const LIMIT: Duration = Duration::from_secs(30);

/// What a page in Chromium publishes: a picture and a sound.
#[derive(Clone, Debug, Serialize)]
pub struct BrowserOptions {
    /// As LiveKit names it: `vp8`, `h264`, `vp9`, `av1`.
    pub codec: &'static str,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// Pictures drawn in a second.
    pub fps: u32,
    /// Of 30 pictures, so many show the flash.
    pub flash: u32,
    /// The picture is that of a shared screen.
    pub screen: bool,
    /// Layers, dynacast and adaptive stream are those of an application; else one layer.
    pub defaults: bool,
    /// Amplitude of the tone between the beeps.
    pub faint: f64,
    /// DTX, which is livekit-client's default.
    pub dtx: bool,
    /// From when to when the microphone is muted, seconds after it is published.
    pub mute: Option<(u32, u32)>,
    /// Seconds from joining to publishing.
    pub waits: u32,
}

impl BrowserOptions {
    /// One layer of 640×360, and sound that is never silent, without DTX.
    pub const fn plain(codec: &'static str) -> Self {
        Self {
            codec,
            width: 640,
            height: 360,
            fps: 30,
            flash: 2,
            screen: false,
            defaults: false,
            faint: 0.02,
            dtx: false,
            mute: None,
            waits: 0,
        }
    }

    /// As an application uses livekit-client: with everything that it does by itself. Silence is between the beeps.
    pub const fn application(codec: &'static str, (width, height): (u32, u32)) -> Self {
        // An encoder that is starved leaves out pictures of a shorter flash.
        Self { width, height, flash: 4, defaults: true, faint: 0.0, dtx: true, ..Self::plain(codec) }
    }
}

/// RTP times of a publisher on the Go SDK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GoTimes {
    /// The SDK counts durations, as for most bots: RTP time stands still while nothing is sent.
    Counted,
    /// Each sample has one of its own.
    Given,
}

/// A time in which nothing is sent: its beginning after the publication and its length, seconds.
pub type Gap = (f64, f64);

/// A participant with one video and one audio track. Its processes end when it is dropped.
pub struct ForeignPublisher {
    /// Identity in the room.
    pub identity: String,
    /// Sid of the video track.
    pub video: String,
    /// Sid of the audio track.
    pub audio: String,
    process: Process,
    mark: String,
    _folder: TempDir,
}

// A browser is many processes.
impl Drop for ForeignPublisher {
    fn drop(&mut self) {
        kill_marked(&self.mark);
    }
}

impl ForeignPublisher {
    /// Joins with libwebrtc as the person `who` and waits until both tracks are published. `codec` as LiveKit names it:
    /// `vp8`, `h264`, `vp9`. In the gaps its source of sound is not fed.
    pub async fn wheel(api: &Api, room: &str, who: &str, codec: &str, gaps: &[Gap]) -> Result<Self> {
        let named = std::env::var_os("SPILLWAY_PUBLISHER_PYTHON").map(PathBuf::from);
        let python = named.unwrap_or_else(|| cache().join("venv-publisher/bin/python"));
        if !python.is_file() {
            bail!("no python with the wheel `livekit` at {}: `cargo verify` installs it", python.display());
        }
        let folder = tempfile::tempdir().context("make a folder")?;
        let script = folder.path().join("publish.py");
        std::fs::write(&script, SCRIPT).context("write the script")?;
        let token = token(api, room, who)?;
        let mark = new_mark("foreign");
        let process = Process::start("wheel", &python, folder.path(), &mark, |command| {
            command.arg(&script).args([&api.ws_url(), &token, who, "600", codec, &spelled(gaps)]);
        })?;
        Self::started(who, process, mark, folder).published(api, room).await
    }

    /// Joins with the Go SDK and sends the clips of `who`, H264 of 640×360 and Opus; in the gaps no sound.
    pub async fn go(api: &Api, room: &str, who: &str, times: GoTimes, gaps: &[Gap]) -> Result<Self> {
        let program = cache().join("bin/go-publisher");
        if !program.is_file() {
            bail!("no publisher on the Go SDK at {}: `cargo verify` builds it", program.display());
        }
        let clips = folder()?;
        let token = token(api, room, who)?;
        let times = if times == GoTimes::Given { "rtp" } else { "none" };
        let mark = new_mark("foreign");
        let folder = tempfile::tempdir().context("make a folder")?;
        let process = Process::start("go", &program, folder.path(), &mark, |command| {
            command.args(["-url", &api.ws_url(), "-token", &token, "-times", times, "-gaps", &spelled(gaps)]);
            command.arg("-video").arg(clips.join(format!("{who}-360.h264")));
            command.arg("-audio").arg(clips.join(format!("{who}.opus")));
        })?;
        Self::started(who, process, mark, folder).published(api, room).await
    }

    /// Joins with Chromium as the person `who` and waits until both tracks are published.
    pub async fn browser(api: &Api, room: &str, who: &str, options: &BrowserOptions) -> Result<Self> {
        Self::browser_before_it_publishes(api, room, who, options).await?.published(api, room).await
    }

    /// Joins with Chromium; it publishes [`BrowserOptions::waits`] later, for which [`published`](Self::published) waits.
    pub async fn browser_before_it_publishes(
        api: &Api,
        room: &str,
        who: &str,
        options: &BrowserOptions,
    ) -> Result<Self> {
        let client = npm_file("livekit-client/dist/livekit-client.umd.js")?;
        let folder = tempfile::tempdir().context("make a folder")?;
        let page = PAGE
            .replace("@CLIENT@", &format!("file://{}", client.display()))
            .replace("@URL@", &api.ws_url())
            .replace("@TOKEN@", &token(api, room, who)?)
            .replace("@PERSON@", who)
            .replace("@OPTIONS@", &json!(options).to_string());
        let path = folder.path().join("publish.html");
        std::fs::write(&path, page).context("write the page")?;
        let mark = new_mark("foreign");
        let process = Process::start("chromium", Path::new("/usr/bin/chromium"), folder.path(), &mark, |command| {
            command
                .args(HEADLESS)
                // Chromium throttles timers of pages that are not visible.
                .args(["--disable-background-timer-throttling", "--disable-renderer-backgrounding"])
                .arg("--disable-features=WebRtcHideLocalIpsWithMdns")
                .arg(format!("--user-data-dir={}", folder.path().join("profile").display()))
                .arg(format!("file://{}", path.display()));
        })?;
        let joined = Self::started(who, process, mark, folder);
        let found = eventually(&format!("{who} joins"), LIMIT, || joined.listed(api, room)).await;
        match found {
            Ok(_) => Ok(joined),
            Err(error) => Err(error.context(joined.process.tail())),
        }
    }

    fn started(who: &str, process: Process, mark: String, folder: TempDir) -> Self {
        Self { identity: who.into(), video: String::new(), audio: String::new(), process, mark, _folder: folder }
    }

    /// The participant as the server lists it, once it does.
    async fn listed(&self, api: &Api, room: &str) -> Result<Option<Value>> {
        // There is no room before the first has joined.
        let Ok(list) = api.rooms("ListParticipants", json!({ "room": room })).await else { return Ok(None) };
        let people = list["participants"].as_array().cloned().unwrap_or_default();
        Ok(people.into_iter().find(|person| person["identity"] == self.identity.as_str()))
    }

    /// Waits until the server lists both publications.
    pub async fn published(mut self, api: &Api, room: &str) -> Result<Self> {
        let found = eventually(&format!("{} publishes", self.identity), LIMIT, || async {
            let Some(own) = self.listed(api, room).await? else { return Ok(None) };
            let sid = |kind: &str| {
                let tracks = own["tracks"].as_array()?;
                Some(tracks.iter().find(|track| track["type"] == kind)?["sid"].as_str()?.to_owned())
            };
            Ok(sid("VIDEO").zip(sid("AUDIO")))
        })
        .await;
        match found {
            Ok((video, audio)) => {
                (self.video, self.audio) = (video, audio);
                Ok(self)
            }
            Err(error) => Err(error.context(self.process.tail())),
        }
    }

    /// Waits until a browser sends pictures of the size that it draws: it adds a layer after the other, as it finds out what
    /// its uplink takes (measured: after 0 to 13 s).
    pub async fn sends_its_best(&self) -> Result<()> {
        let what = format!("{} sends its best layer", self.identity);
        let found = eventually(&what, LIMIT, || async {
            let log = std::fs::read(&self.process.log).unwrap_or_default();
            Ok(String::from_utf8_lossy(&log).contains("\"best layer\"").then_some(()))
        });
        found.await.with_context(|| self.process.tail())
    }
}

/// As the publishers read gaps.
fn spelled(gaps: &[Gap]) -> String {
    gaps.iter().map(|(from, length)| format!("{from}+{length}")).collect::<Vec<_>>().join(",")
}

fn token(api: &Api, room: &str, who: &str) -> Result<String> {
    api.token(who, None, VideoGrants { room_join: true, room: room.to_owned(), ..Default::default() })
}
