//! One egress as its caller sees it: started, watched and stopped through the API of livekit-server, with the rules
//! that hold for every answer checked on the way.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::process::eventually;
use crate::twirp::Api;
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// A started egress.
pub struct Egress {
    api: Api,
    /// `EG_…`
    pub id: String,
    asked: Instant,
    /// Duration of the Start call.
    pub answered_in: Duration,
}

/// No other status follows one of these.
const TERMINAL: [&str; 4] = ["EGRESS_COMPLETE", "EGRESS_FAILED", "EGRESS_ABORTED", "EGRESS_LIMIT_REACHED"];

impl Egress {
    /// Calls a Start method. The answer must be STARTING, with an id, the room of the request and no error.
    pub async fn start(api: &Api, method: &str, request: Value) -> Result<Self> {
        let asked = Instant::now();
        let info = api.egress(method, request.clone()).await?;
        let answered_in = asked.elapsed();
        ensure!(info["status"] == "EGRESS_STARTING", "{method} answered {info}");
        ensure!(info["error"] == "", "{method} answered with an error: {info}");
        // A web page has no room.
        let room = request["room_name"].as_str().unwrap_or_default();
        ensure!(info["room_name"] == room, "{method} answered for another room: {info}");
        let id = info["egress_id"].as_str().unwrap_or_default().to_owned();
        ensure!(id.starts_with("EG_"), "{method} answered without an id: {info}");
        Ok(Self { api: api.clone(), id, asked, answered_in })
    }

    /// One that livekit-server started by itself; its time counts from now.
    pub fn of(api: &Api, id: &str) -> Self {
        Self { api: api.clone(), id: id.to_owned(), asked: Instant::now(), answered_in: Duration::ZERO }
    }

    /// EgressInfo as ListEgress shows it. A FAILED one must have an error text, one without error must not be FAILED.
    pub async fn info(&self) -> Result<Value> {
        let info = self.api.egress_info(&self.id).await?;
        let failed = info["status"] == "EGRESS_FAILED";
        let said = info["error"].as_str().is_some_and(|error| !error.is_empty());
        let limited = info["status"] == "EGRESS_LIMIT_REACHED" || info["status"] == "EGRESS_ABORTED";
        ensure!(failed == said || limited, "FAILED and an error belong together: {info}");
        Ok(info)
    }

    /// Waits up to 30 s for ACTIVE; gives the time since the Start call. Fails on any status but STARTING before it.
    pub async fn active(&self) -> Result<Duration> {
        eventually(&format!("{} is ACTIVE", self.id), Duration::from_secs(30), || async {
            let info = self.info().await?;
            match info["status"].as_str().unwrap_or_default() {
                "EGRESS_ACTIVE" => Ok(Some(self.asked.elapsed())),
                "EGRESS_STARTING" => Ok(None),
                _ => bail!("instead of ACTIVE: {info}"),
            }
        })
        .await
    }

    /// Calls StopEgress. The answer must be ENDING or a terminal status of the same egress.
    pub async fn ask_to_stop(&self) -> Result<()> {
        let info = self.api.egress("StopEgress", serde_json::json!({ "egress_id": self.id })).await?;
        ensure!(info["egress_id"] == self.id.as_str(), "StopEgress answered for another egress: {info}");
        let status = info["status"].as_str().unwrap_or_default();
        ensure!(status == "EGRESS_ENDING" || TERMINAL.contains(&status), "StopEgress answered {info}");
        Ok(())
    }

    /// Calls UpdateStream; gives its answer. A refusal can be downcast to [`TwirpError`](crate::twirp::TwirpError).
    pub async fn update_streams(&self, add: &[&str], remove: &[&str]) -> Result<Value> {
        let request = serde_json::json!({
            "egress_id": self.id, "add_output_urls": add, "remove_output_urls": remove,
        });
        let info = self.api.egress("UpdateStream", request).await?;
        ensure!(info["egress_id"] == self.id.as_str(), "UpdateStream answered for another egress: {info}");
        Ok(info)
    }

    /// [`ask_to_stop`](Self::ask_to_stop), then waits up to 30 s for the end; gives the final info and the time since
    /// the call.
    pub async fn stop(&self) -> Result<(Value, Duration)> {
        let begun = Instant::now();
        self.ask_to_stop().await?;
        let info = self.over(Duration::from_secs(30)).await?;
        Ok((info, begun.elapsed()))
    }

    /// Waits for a terminal status, which must have its end time.
    pub async fn over(&self, limit: Duration) -> Result<Value> {
        eventually(&format!("{} is over", self.id), limit, || async {
            let info = self.info().await?;
            let over = is_over(&info);
            if over {
                ensure!(nanos(&info["ended_at"]) > 0, "a terminal state without its time: {info}");
            }
            Ok(over.then_some(info))
        })
        .await
    }

    /// [`stop`](Self::stop); the status must be COMPLETE.
    pub async fn complete(&self) -> Result<Value> {
        let (info, _) = self.stop().await?;
        ensure!(info["status"] == "EGRESS_COMPLETE", "not COMPLETE: {info}");
        Ok(info)
    }
}

/// Stops all of them together, so that none goes on while another is looked at; each status must be COMPLETE. Gives the final
/// infos.
pub async fn complete_all(egresses: &[Egress]) -> Result<Vec<Value>> {
    for egress in egresses {
        egress.ask_to_stop().await?;
    }
    let mut infos = Vec::new();
    for egress in egresses {
        let info = egress.over(Duration::from_secs(40)).await?;
        ensure!(info["status"] == "EGRESS_COMPLETE", "not COMPLETE: {info}");
        infos.push(info);
    }
    Ok(infos)
}

/// Waits until EgressInfo is like this, for `limit` seconds; the error has the last one.
pub async fn until(egress: &Egress, what: &str, limit: u64, is: impl Fn(&Value) -> bool) -> Result<Value> {
    let found = eventually(what, Duration::from_secs(limit), || async {
        let info = egress.info().await?;
        Ok(is(&info).then_some(info))
    });
    match found.await {
        Ok(info) => Ok(info),
        Err(error) => {
            let info = egress.info().await?;
            Err(error.context(info.to_string()))
        }
    }
}

/// Waits until so many streams are there and each has been connected.
pub async fn connected(egress: &Egress, count: usize) -> Result<Value> {
    let is = |info: &Value| {
        let all = info["stream_results"].as_array();
        all.is_some_and(|all| all.len() == count && all.iter().all(|stream| nanos(&stream["started_at"]) > 0))
    };
    until(egress, "every stream is connected", 20, is).await
}

/// Whether each stream has this status, in the order of EgressInfo.
pub fn streams_are(info: &Value, wanted: &[&str]) -> bool {
    let Some(all) = info["stream_results"].as_array() else { return false };
    all.len() == wanted.len() && all.iter().zip(wanted).all(|(stream, wanted)| stream["status"] == *wanted)
}

/// Whether an EgressInfo has a terminal status.
pub fn is_over(info: &Value) -> bool {
    info["status"].as_str().is_some_and(|status| TERMINAL.contains(&status))
}

/// A protojson int64, which is a string or a number; 0 where it is neither.
pub fn nanos(value: &Value) -> i64 {
    value.as_str().and_then(|text| text.parse().ok()).or_else(|| value.as_i64()).unwrap_or(0)
}

/// Path of the only file of a finished egress. Size, duration and name in EgressInfo must agree with the file on this
/// disk.
pub fn file_of(info: &Value) -> Result<PathBuf> {
    let files = info["file_results"].as_array().context("no file_results")?;
    ensure!(files.len() == 1, "one file was asked for: {info}");
    let file = &files[0];
    let location = file["location"].as_str().unwrap_or_default();
    let path =
        PathBuf::from(if location.is_empty() { file["filename"].as_str().unwrap_or_default() } else { location });
    let length = std::fs::metadata(&path).with_context(|| format!("no file at {}: {info}", path.display()))?.len();
    ensure!(nanos(&file["size"]) as u64 == length, "{} has {length} bytes, said was {file}", path.display());
    ensure!(nanos(&file["duration"]) > 0, "no duration: {file}");
    ensure!(!path.to_string_lossy().contains('{'), "a variable was not filled: {}", path.display());
    Ok(path)
}
