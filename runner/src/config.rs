//! Settings of a runner besides the request: from the dispatcher (one line on standard input, and the ticket) or from the
//! command line with `--request`. Values with their defaults; read once at the start.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use spillway_bus::RedisConfig;
use spillway_guard::{GuardRules, host_and_port};
use spillway_ipc::MediaSettings;
use spillway_plan::Limits;
use spillway_process::LocalRoot;
use spillway_protocol::Secret;

use crate::session::machine::SessionRules;
use crate::upload::UploadSettings;

/// The line the launcher writes: the key to the ticket and the way to Redis. Names travel in the environment, secrets
/// here, so that they are in no process list.
#[derive(Debug, Deserialize)]
pub struct Handover {
    /// Text of the ticket key.
    pub ticket_key: Secret,
    /// How Redis is reached.
    pub redis: RedisConfig,
    /// How to log.
    #[serde(default)]
    pub log: LogSettings,
}

/// How a runner logs.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct LogSettings {
    /// debug, info, warn or error; empty: info.
    pub level: String,
    /// One JSON object a line instead of text.
    pub json: bool,
}

/// The runner's part of a dispatcher's configuration; it travels in the ticket. What is unknown is ignored, so that a
/// newer dispatcher may start an older runner.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// All files of this machine lie below it, whatever their names say; `None`: relative names lie below the working
    /// directory and absolute ones are obeyed.
    pub local_root: Option<PathBuf>,
    /// The media program; `None`: as the environment says, else beside our own executable.
    pub media_program: Option<PathBuf>,
    /// For the media process, without `guard`: see [`Settings::media_settings`].
    pub media: MediaSettings,
    /// Template of room composites whose request names none; `None`: there is none.
    pub template_base: Option<String>,
    /// What requests may name beside public hosts. The default opens nothing.
    pub guard: GuardRules,
    /// How long the media process may send no event before it is killed.
    pub hang_after_ms: u64,
    /// How long an egress may wait for its first media; 0: until the room ends.
    pub start_timeout_ms: u64,
    /// How long the media process may make no progress while it finishes its files.
    pub drain_timeout_ms: u64,
    /// How often within an hour another media process takes the place of one that died; 0: its death is the end.
    pub media_restarts: u32,
    /// How long the last report waits for Redis. Without it a finished recording counts as a dead one, so this outlasts a
    /// long outage; it costs what an idle machine costs.
    pub last_report_timeout_ms: u64,
    /// How long the last report is offered to livekit-server once Redis has it; after that a dispatcher delivers it.
    pub report_timeout_ms: u64,
    /// For outputs that end in a store.
    pub upload: UploadSettings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            local_root: None,
            media_program: None,
            media: MediaSettings::default(),
            template_base: None,
            guard: GuardRules::default(),
            hang_after_ms: 10_000,
            start_timeout_ms: 0,
            drain_timeout_ms: 30_000,
            media_restarts: 3,
            last_report_timeout_ms: 15 * 60_000,
            report_timeout_ms: 30_000,
            upload: UploadSettings::default(),
        }
    }
}

impl Settings {
    /// Limits of the plan and timeouts of these settings, for the session of a task that has no other one to hand over to.
    pub fn rules(&self, limits: &Limits) -> SessionRules {
        SessionRules {
            max_duration: limits.max_duration_ns.map(Duration::from_nanos),
            max_file_bytes: limits.max_file_bytes,
            max_segment_bytes: limits.max_segment_bytes,
            start_timeout: (self.start_timeout_ms > 0).then(|| Duration::from_millis(self.start_timeout_ms)),
            hang_after: Duration::from_millis(self.hang_after_ms),
            drain_timeout: Duration::from_millis(self.drain_timeout_ms),
            max_restarts: self.media_restarts,
            hand_over: false,
        }
    }

    /// What the media process is told. `page`: what its browser opens, which may lie on the installation's own server of
    /// templates.
    pub fn media_settings(&self, page: Option<&Secret>) -> MediaSettings {
        let mut guard = self.guard.clone();
        let template = self.template_base.as_deref().and_then(host_and_port);
        let page = page.and_then(|page| host_and_port(page.reveal()));
        if let Some((host, port)) = template.filter(|template| page.as_ref() == Some(template)) {
            guard.allow.push(format!("{host}:{port}"));
        }
        MediaSettings { guard, ..self.media.clone() }
    }

    /// Where files of this machine lie.
    ///
    /// # Errors
    /// There is no working directory any more.
    pub fn root(&self) -> std::io::Result<LocalRoot> {
        LocalRoot::of_setting(self.local_root.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_without_settings_means_the_defaults() {
        assert_eq!(serde_json::from_str::<Settings>(r#"{"of_a_newer_version": 1}"#).unwrap(), Settings::default());
        assert_eq!(Settings::default().rules(&Limits::default()).start_timeout, None);
        let rules = GuardRules { allow: vec!["minio".to_owned()] };
        let settings: Settings = serde_json::from_str(r#"{"guard": {"allow": ["minio"]}}"#).unwrap();
        assert_eq!((&settings.guard, settings.media_settings(None).guard), (&rules, rules.clone()));
    }

    #[test]
    fn a_page_reaches_the_server_of_the_installations_template() {
        let settings: Settings = serde_json::from_str(r#"{"template_base": "http://10.0.0.5:8080/a"}"#).unwrap();
        for (page, opened) in [
            (Some("http://10.0.0.5:8080/a?token=t"), Some("10.0.0.5:8080")),
            (Some("http://10.0.0.5/a"), None),
            (Some("https://x"), None),
            (None, None),
        ] {
            let page = page.map(|page| Secret::new(page.to_owned()));
            let allow = settings.media_settings(page.as_ref()).guard.allow;
            assert_eq!(allow.first().map(String::as_str), opened, "{page:?}");
        }
    }
}
