//! Publishers with WebRTC stacks other than ours: libwebrtc (the PyPI wheel `livekit`) and a headless Chromium with
//! livekit-client. Both draw and sound what the clips show.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use livekit_token::VideoGrants;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::assets::{cache, npm_file};
use crate::browser::HEADLESS;
use crate::process::{Process, eventually, kill_marked, new_mark};
use crate::twirp::Api;

const SCRIPT: &str = include_str!("../assets/publish.py");
const PAGE: &str = include_str!("../assets/publish.html");

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
    /// `vp8`, `h264`, `vp9`.
    pub async fn wheel(api: &Api, room: &str, who: &str, codec: &str) -> Result<Self> {
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
            command.arg(&script).args([&api.ws_url(), &token, who, "600", codec]);
        })?;
        Self { identity: who.into(), video: String::new(), audio: String::new(), process, mark, _folder: folder }
            .published(api, room)
            .await
    }

    /// Joins with Chromium; else as [`wheel`](Self::wheel). Its sound is never silent, and sent without DTX.
    pub async fn browser(api: &Api, room: &str, who: &str, codec: &str) -> Result<Self> {
        let sound = json!({ "faint": 0.02, "options": { "dtx": false }, "mute": null });
        Self::page(api, room, who, codec, &sound).await
    }

    /// Joins with Chromium and sends sound as livekit-client does by itself (DTX, RED), with silence between the beeps.
    /// `mute`: from when to when it is muted, seconds after it is live.
    pub async fn browser_with_pauses(api: &Api, room: &str, who: &str, codec: &str, mute: (u32, u32)) -> Result<Self> {
        let sound = json!({ "faint": 0.0, "options": {}, "mute": mute });
        Self::page(api, room, who, codec, &sound).await
    }

    async fn page(api: &Api, room: &str, who: &str, codec: &str, sound: &Value) -> Result<Self> {
        let client = npm_file("livekit-client/dist/livekit-client.umd.js")?;
        let folder = tempfile::tempdir().context("make a folder")?;
        let page = PAGE
            .replace("@CLIENT@", &format!("file://{}", client.display()))
            .replace("@URL@", &api.ws_url())
            .replace("@TOKEN@", &token(api, room, who)?)
            .replace("@PERSON@", who)
            .replace("@CODEC@", codec)
            .replace("@SOUND@", &sound.to_string());
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
        Self { identity: who.into(), video: String::new(), audio: String::new(), process, mark, _folder: folder }
            .published(api, room)
            .await
    }

    /// Waits until the server lists both publications.
    async fn published(mut self, api: &Api, room: &str) -> Result<Self> {
        let found = eventually(&format!("{} publishes", self.identity), Duration::from_secs(30), || async {
            // There is no room before the first has joined.
            let Ok(list) = api.rooms("ListParticipants", json!({ "room": room })).await else { return Ok(None) };
            let people = list["participants"].as_array().cloned().unwrap_or_default();
            let Some(own) = people.into_iter().find(|person| person["identity"] == self.identity.as_str()) else {
                return Ok(None);
            };
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
}

fn token(api: &Api, room: &str, who: &str) -> Result<String> {
    api.token(who, None, VideoGrants { room_join: true, room: room.to_owned(), ..Default::default() })
}
