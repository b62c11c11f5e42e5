//! A page in a headless Chromium, through the DevTools protocol: what it has on its console, what an expression gives in it,
//! how it looks. No browser of a library: three messages are all that is needed.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::{SinkExt, StreamExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::browser::{AWAKE, OpenPage};
use crate::process::eventually;

/// A browser that starts for the first time takes seconds, on a busy machine more.
const START_TIMEOUT: Duration = Duration::from_secs(30);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// Keys that can be pressed: name, Windows' code, the text that they make.
pub const KEYS: [(&str, u32, &str); 6] = [
    ("Tab", 9, ""),
    ("Enter", 13, "\r"),
    ("Escape", 27, ""),
    ("End", 35, ""),
    ("ArrowLeft", 37, ""),
    ("ArrowRight", 39, ""),
];

/// An open page with a browser of its own, which ends with it.
pub struct BrowserPage {
    socket: WebSocketStream<TcpStream>,
    session: Option<String>,
    last_id: u64,
    console: Vec<String>,
    /// Its output and profile are in `folder`.
    browser: OpenPage,
    folder: TempDir,
}

impl BrowserPage {
    /// Opens a page whose window has this size, in pixels.
    pub async fn open(url: &str, (width, height): (u32, u32)) -> Result<Self> {
        let folder = tempfile::tempdir().context("make a folder")?;
        let profile = folder.path().join("profile");
        let own = ["--remote-debugging-port=0", "--hide-scrollbars", "--disable-features=WebRtcHideLocalIpsWithMdns"];
        let browser = OpenPage::open(folder.path(), "about:blank", &[&AWAKE[..], &own[..]].concat())?;
        let endpoint = eventually("Chromium opens its DevTools port", START_TIMEOUT, || async {
            Ok(endpoint(&profile.join("DevToolsActivePort")))
        });
        let (port, path) = endpoint.await.with_context(|| browser.tail())?;
        let stream = TcpStream::connect(("127.0.0.1", port)).await.context("reach DevTools")?;
        let address = format!("ws://127.0.0.1:{port}{path}");
        let (socket, _) = client_async(address, stream).await.context("open DevTools")?;
        let (session, console) = (None, Vec::new());
        let mut page = Self { socket, session, last_id: 0, console, browser, folder };
        page.attach().await.with_context(|| page.browser.tail())?;
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        page.call("Emulation.setDeviceMetricsOverride", size).await?;
        let opened = page.call("Page.navigate", json!({ "url": url })).await?;
        ensure!(opened["errorText"].is_null(), "open the page: {}", opened["errorText"]);
        Ok(page)
    }

    async fn attach(&mut self) -> Result<()> {
        let target = self.call("Target.createTarget", json!({ "url": "about:blank" })).await?;
        let attached = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = self.call("Target.attachToTarget", attached).await?;
        self.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log"] {
            self.call(&format!("{domain}.enable"), json!({})).await?;
        }
        Ok(())
    }

    /// The value of an expression, waited for when it is a promise; an error where it throws.
    pub async fn evaluate<T: DeserializeOwned>(&mut self, expression: &str) -> Result<T> {
        let asked = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let mut answer = self.call("Runtime.evaluate", asked).await?;
        ensure!(answer["exceptionDetails"].is_null(), "{expression} throws: {}", answer["exceptionDetails"]);
        serde_json::from_value(answer["result"]["value"].take()).with_context(|| format!("read {expression}"))
    }

    /// What it has said so far: texts on its console, exceptions (`exception: …`) and what the browser has to say of it
    /// (`log: …`).
    pub async fn console(&mut self) -> Result<&[String]> {
        // What was said before the answer has come before it.
        self.evaluate::<Value>("0").await?;
        Ok(&self.console)
    }

    /// Waits until this text stands alone on its console.
    pub async fn says(&mut self, text: &str, limit: Duration) -> Result<()> {
        let deadline = tokio::time::Instant::now() + limit;
        while !self.console().await?.iter().any(|line| line == text) {
            let late = tokio::time::Instant::now() > deadline;
            ensure!(!late, "the page does not say {text} within {limit:?}, but {:?}", self.console);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Evaluates until the value is as it should be.
    pub async fn becomes<T: DeserializeOwned + std::fmt::Debug>(
        &mut self,
        expression: &str,
        limit: Duration,
        mut is_right: impl FnMut(&T) -> bool,
    ) -> Result<T> {
        let deadline = tokio::time::Instant::now() + limit;
        loop {
            let value: T = self.evaluate(expression).await?;
            if is_right(&value) {
                return Ok(value);
            }
            let late = tokio::time::Instant::now() > deadline;
            ensure!(!late, "after {limit:?} the page has {value:?}; it said {:?}", self.console);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// As it looks now.
    pub async fn picture(&mut self) -> Result<PagePicture> {
        let path = self.folder.path().join("page.png");
        self.save_picture(&path).await?;
        PagePicture::read(&path)
    }

    /// As it looks now, as a PNG for people.
    pub async fn save_picture(&mut self, path: &Path) -> Result<()> {
        let shot = self.call("Page.captureScreenshot", json!({ "format": "png" })).await?;
        let png = STANDARD.decode(shot["data"].as_str().context("a picture")?).context("decode a picture")?;
        std::fs::write(path, png).with_context(|| format!("write {}", path.display()))
    }

    /// Presses a key and lets it go: one of those in [`KEYS`].
    pub async fn press(&mut self, key: &str) -> Result<()> {
        let (_, code, text) = KEYS.iter().find(|(name, ..)| *name == key).with_context(|| format!("no key {key}"))?;
        let mut event = json!({ "type": "keyDown", "key": key, "code": key, "windowsVirtualKeyCode": code });
        if !text.is_empty() {
            event["text"] = json!(text);
        }
        self.call("Input.dispatchKeyEvent", event).await?;
        let event = json!({ "type": "keyUp", "key": key, "code": key, "windowsVirtualKeyCode": code });
        self.call("Input.dispatchKeyEvent", event).await.map(drop)
    }

    /// Writes a text where the focus is, as a keyboard would.
    pub async fn write(&mut self, text: &str) -> Result<()> {
        self.call("Input.insertText", json!({ "text": text })).await.map(drop)
    }

    /// Loads the page again, and waits until it is there.
    pub async fn reload(&mut self, limit: Duration) -> Result<()> {
        self.evaluate::<Value>("window.isTheOldPage = true, null").await?;
        self.call("Page.reload", json!({})).await?;
        let is_new = "window.isTheOldPage !== true && document.readyState === 'complete'";
        let deadline = tokio::time::Instant::now() + limit;
        // Between the two pages there is nothing to evaluate in.
        while !self.evaluate::<bool>(is_new).await.unwrap_or(false) {
            ensure!(tokio::time::Instant::now() < deadline, "the page is not there again after {limit:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Another size of its window, as on a phone or not, and whether dark colours are preferred.
    pub async fn look_as(&mut self, (width, height): (u32, u32), on_phone: bool, dark: bool) -> Result<()> {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": on_phone });
        self.call("Emulation.setDeviceMetricsOverride", size).await?;
        let scheme = if dark { "dark" } else { "light" };
        let preferred = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.call("Emulation.setEmulatedMedia", preferred).await.map(drop)
    }

    async fn call(&mut self, method: &str, params: Value) -> Result<Value> {
        self.last_id += 1;
        let id = self.last_id;
        let mut request = json!({ "id": id, "method": method, "params": params });
        if let Some(session) = &self.session {
            request["sessionId"] = json!(session);
        }
        self.socket.send(Message::Text(request.to_string().into())).await.with_context(|| format!("send {method}"))?;
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, async {
            loop {
                let message = self.socket.next().await.context("Chromium has hung up")?.context("read DevTools")?;
                let Message::Text(text) = message else { continue };
                let mut message: Value = serde_json::from_str(text.as_str()).context("read DevTools")?;
                if message["id"] == id {
                    ensure!(message["error"].is_null(), "{method}: {}", message["error"]);
                    return Ok(message["result"].take());
                }
                self.console.extend(said(&message));
            }
        });
        answer.await.with_context(|| format!("{method} is not answered within {ANSWER_TIMEOUT:?}"))?
    }
}

/// Port and path of the browser's own endpoint, once it has written both.
fn endpoint(file: &Path) -> Option<(u16, String)> {
    let text = std::fs::read_to_string(file).ok()?;
    let (port, path) = text.split_once('\n')?;
    if !path.starts_with('/') {
        return None;
    }
    Some((port.trim().parse().ok()?, path.trim().to_owned()))
}

/// The line that an event adds to the console.
fn said(event: &Value) -> Option<String> {
    let params = &event["params"];
    match event["method"].as_str()? {
        "Runtime.consoleAPICalled" => {
            let texts = params["args"].as_array()?.iter().map(|argument| match &argument["value"] {
                Value::String(text) => text.clone(),
                Value::Null => argument["description"].as_str().unwrap_or_default().to_owned(),
                other => other.to_string(),
            });
            Some(texts.collect::<Vec<_>>().join(" "))
        }
        "Runtime.exceptionThrown" => {
            let details = &params["exceptionDetails"];
            Some(format!("exception: {} {}", details["text"], details["exception"]["description"]))
        }
        "Log.entryAdded" => Some(format!("log: {}", params["entry"]["text"].as_str()?)),
        _ => None,
    }
}

/// A picture of a page.
pub struct PagePicture {
    width: usize,
    rgb: Vec<u8>,
}

impl PagePicture {
    fn read(png: &Path) -> Result<Self> {
        // Bytes 16 to 19 of a PNG are its width.
        let head = std::fs::read(png).context("read a picture")?;
        let width = head.get(16..20).context("a picture without a head")?;
        let width = width.iter().fold(0, |width, byte| (width << 8) | usize::from(*byte));
        let decoded = Command::new("ffmpeg")
            .args(["-v", "error", "-nostdin", "-i"])
            .arg(png)
            .args(["-pix_fmt", "rgb24", "-f", "rawvideo", "-"])
            .output()
            .context("start ffmpeg")?;
        ensure!(decoded.status.success(), "{}", String::from_utf8_lossy(&decoded.stderr));
        ensure!(width > 0 && decoded.stdout.len().is_multiple_of(width * 3), "a picture of {width} pixels in a row");
        Ok(Self { width, rgb: decoded.stdout })
    }

    /// Red, green and blue of a pixel; an error outside.
    pub fn at(&self, x: usize, y: usize) -> Result<[u8; 3]> {
        ensure!(x < self.width, "{x} is right of the picture");
        let pixel = self.rgb.chunks_exact(3).nth(y * self.width + x).context("below the picture")?;
        Ok([pixel[0], pixel[1], pixel[2]])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_page_says_is_read_from_events() {
        let event = |method: &str, params: Value| said(&json!({ "method": method, "params": params }));
        let args = json!({ "args": [{ "type": "string", "value": "START_RECORDING" }] });
        assert_eq!(event("Runtime.consoleAPICalled", args).as_deref(), Some("START_RECORDING"));
        let args = json!({ "args": [{ "value": "a" }, { "value": 3 }, { "description": "Object" }] });
        assert_eq!(event("Runtime.consoleAPICalled", args).as_deref(), Some("a 3 Object"));
        let entry = json!({ "entry": { "text": "refused" } });
        assert_eq!(event("Log.entryAdded", entry).as_deref(), Some("log: refused"));
        assert_eq!(event("Page.loadEventFired", json!({})), None);
    }
}
