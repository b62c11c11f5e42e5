//! What a media process is told when it begins: to record, to go on, or to try a room; and what it is told of a stream.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use spillway_plan::{EgressPlan, Secret};

use crate::settings::MediaSettings;

/// What the media process needs to begin.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StartCommand {
    /// What is recorded, how, and into which files.
    pub plan: EgressPlan,
    /// livekit-server's websocket URL.
    pub ws_url: String,
    /// JWT for this room. With the URLs of streams and of a page the only secrets the media process holds.
    pub token: Secret,
    /// From the configuration.
    pub settings: MediaSettings,
    /// The page that is recorded, with its whole query: the room token is in it where the page joins a room. `None`: tracks of
    /// a room are recorded.
    #[serde(default)]
    pub page_url: Option<Secret>,
    /// Streams that begin with the first media.
    #[serde(default)]
    pub streams: Vec<StreamStart>,
    /// By how much the time that the installation agrees on is ahead of this host's wall clock, nanoseconds. The media
    /// process adds it once, at the beginning, and goes on by the monotonic clock.
    #[serde(default)]
    pub clock_ahead_ns: i64,
    /// Absolute: an existing folder that only this user can read, for segments, images and sheets; `None`: there are none.
    #[serde(default)]
    pub spool: Option<PathBuf>,
    /// The process goes on with a recording whose process died; `None`: it begins one.
    #[serde(default)]
    pub resume: Option<ResumePoint>,
}

/// Where a media process goes on that takes the place of a dead one: numbers continue, so that nothing of the spool is
/// written over. Times do not: they count from its own `Started` event.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ResumePoint {
    /// By output: number of its first file. An output that is not there begins with its own number.
    #[serde(with = "by_output")]
    pub first_files: BTreeMap<u32, u32>,
    /// Number of the next file behind those, after a change of codec.
    pub next_file: u32,
    /// By output: number of its first segment or image; 0 for one that is not there.
    #[serde(with = "by_output")]
    pub first_numbers: BTreeMap<u32, u32>,
    /// Outputs of the plan that have ended.
    pub ended_outputs: BTreeSet<u32>,
}

/// A list of pairs: keys of a JSON object are text, and within a tagged message serde does not turn them into numbers.
mod by_output {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(numbers: &BTreeMap<u32, u32>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(numbers)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<u32, u32>, D::Error> {
        Ok(Vec::<(u32, u32)>::deserialize(deserializer)?.into_iter().collect())
    }
}

/// A room whose media connection is tried. Nothing is subscribed to and nothing is written.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ProbeCommand {
    /// livekit-server's websocket URL.
    pub ws_url: String,
    /// JWT for the room.
    pub token: Secret,
    /// From the configuration.
    pub settings: MediaSettings,
    /// How long a media connection may take to come up once the room is joined, milliseconds.
    pub timeout_ms: u64,
}

/// A stream that goes to a server. The URL goes down only: events name a stream by its id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamStart {
    /// Number in the recording, never used again.
    pub id: u32,
    /// Its output in the plan.
    pub output: u32,
    /// Where to, with the stream's key; shorthand forms are resolved.
    pub url: Secret,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_outputs_go_down_and_a_start_without_them_begins() {
        let resume = ResumePoint {
            first_files: [(0, 2)].into(),
            next_file: 3,
            first_numbers: [(1, 40)].into(),
            ended_outputs: [4].into(),
        };
        let text = serde_json::to_string(&resume).unwrap();
        assert_eq!(serde_json::from_str::<ResumePoint>(&text).unwrap(), resume);
        assert_eq!(serde_json::from_str::<ResumePoint>("{}").unwrap(), ResumePoint::default());
    }
}
