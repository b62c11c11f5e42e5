//! Settings of the media process, from the configuration. A missing one takes its default.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use spillway_guard::GuardRules;
use spillway_plan::Secret;

/// Settings of the media process; the defaults are those of the configuration reference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MediaSettings {
    /// How long the jitter buffer waits for a missing packet, milliseconds.
    pub reorder_ms: u64,
    /// The same where a stream waits for the packets, too.
    pub live_reorder_ms: u64,
    /// While a stream is watched a machine that cannot keep up leaves out pictures early, also of the files and segments
    /// beside it; false: these come first, and the stream is late.
    pub streams_thin_files: bool,
    /// How long a named participant or track may take to appear, milliseconds.
    pub appear_ms: u64,
    /// How long the participant of a Participant recording may be away (a page that is loaded anew) before the recording
    /// ends, milliseconds; 0: it ends at once.
    pub return_grace_ms: u64,
    /// Encoded bytes that may wait for a busy CPU in memory before they are spilled to `spill_dir`.
    pub backlog_bytes: u64,
    /// Where the backlog goes beyond that; `None`: the directory of the file.
    pub spill_dir: Option<PathBuf>,
    /// Fragment length of MP4, milliseconds: what a `kill -9` may cost.
    pub fragment_ms: u64,
    /// How the servers of streams are authenticated.
    pub streams: StreamSettings,
    /// For the browser of a page.
    pub page: PageSettings,
    /// What URLs of streams and pages may name beside public hosts; the runner sets it. The default opens nothing.
    pub guard: GuardRules,
}

impl Default for MediaSettings {
    fn default() -> Self {
        Self {
            reorder_ms: 2000,
            live_reorder_ms: 500,
            streams_thin_files: true,
            appear_ms: 30_000,
            return_grace_ms: 10_000,
            backlog_bytes: 256 << 20,
            spill_dir: None,
            fragment_ms: 1000,
            streams: StreamSettings::default(),
            page: PageSettings::default(),
            guard: GuardRules::default(),
        }
    }
}

/// How the servers of encrypted streams are authenticated.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StreamSettings {
    /// Certificate authorities that are trusted beside those of the system: the text of a PEM file, because the file is
    /// where the dispatcher runs.
    pub ca: Option<String>,
    /// Any certificate will do. A stream and its key then go to whatever server answers.
    pub tls_skip_verify: bool,
}

/// How pages are recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PageSettings {
    /// Chromium's program, not a wrapper around it.
    pub chromium: PathBuf,
    /// Flags of Chromium beside or instead of ours, by name without dashes.
    pub flags: BTreeMap<String, FlagValue>,
    /// Chromium's sandbox. `None`: where the system allows one; true: without it nothing is recorded; false: never.
    pub sandbox: Option<bool>,
    /// Certificates are not checked against names, and pages may mix secure and insecure content.
    pub insecure: bool,
    /// Pages may send datagrams to any address: a Web page that is a WebRTC client. Templates always may.
    pub allow_webrtc: bool,
    /// The network's own proxy, where public hosts are reached through nothing else: `http://user:password@host:port`.
    pub proxy: Option<Secret>,
    /// Files of the built-in template.
    pub template_folder: PathBuf,
}

impl Default for PageSettings {
    fn default() -> Self {
        Self {
            // The Debian package's. Its /usr/bin/chromium is a shell script with flags of its own.
            chromium: PathBuf::from("/usr/lib/chromium/chromium"),
            flags: BTreeMap::new(),
            sandbox: None,
            insecure: false,
            allow_webrtc: false,
            proxy: None,
            // Where the image has them.
            template_folder: PathBuf::from("/usr/share/spillway/template"),
        }
    }
}

/// Value of a flag of Chromium.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum FlagValue {
    /// Without a value; false: the flag is left out.
    Switch(bool),
    /// `--name=value`.
    Text(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_a_page_are_optional_and_flags_have_a_value_or_none() {
        let settings: MediaSettings = serde_json::from_str(r#"{"page": {"flags": {"a": true, "b": "c"}}}"#).unwrap();
        let flags = BTreeMap::from([
            ("a".to_owned(), FlagValue::Switch(true)),
            ("b".to_owned(), FlagValue::Text("c".to_owned())),
        ]);
        assert_eq!(settings.page, PageSettings { flags, ..PageSettings::default() });
        assert_eq!(serde_json::from_str::<MediaSettings>("{}").unwrap(), MediaSettings::default());
    }
}
