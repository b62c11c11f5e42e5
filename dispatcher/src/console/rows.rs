//! From a record and its heartbeat to what people see of an egress: what is known until the record changes, and how far it is
//! now. Pure.

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use spillway_bus::{Heartbeat, Record, TaskFacts, TaskRef};
use spillway_cost::{Capacity, Platform, PriceList, Shape, estimate};
use spillway_launchers::TaskLinks;
use spillway_protocol::livekit::EgressInfo;

use crate::billing::entry::{TaskEnd, entry};
use crate::records::HEARTBEAT_FRESH;
use crate::report;

/// From so much lag on a recorder leaves pictures out (`runner/media`, degradation).
const MAX_LAG_MS: u64 = 2000;
/// Three times the age that a checkpoint allows for what is not in the store yet (`runner.checkpoint`).
const MAX_UPLOAD_BEHIND_MS: u64 = 30_000;
/// From so much lag on `details` says that a stream is late.
const MAX_STREAM_LAG_MS: u64 = 10_000;

/// What is known about an egress until its record changes. Texts are as they came: whoever shows them escapes them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EgressFacts {
    /// Its id.
    pub id: String,
    /// Name of the room; empty where a page is recorded.
    pub room: String,
    /// Kind of egress.
    #[serde(rename = "type")]
    pub kind: String,
    /// Empty where there is only one tenant.
    pub tenant: String,
    /// It is recorded from a web page.
    pub page: bool,
    /// State of its launch, as in the log: `queued`, `asking`, `running` …
    pub state: String,
    /// Status that livekit-server shows, e.g. `active`.
    pub status: String,
    /// Number of the current launch.
    pub attempt: u32,
    /// Where it was launched last; empty: nowhere yet.
    pub target: String,
    /// Name of the dispatcher that sees to it.
    pub dispatcher: String,
    /// The current launch completes uploads of a task that died.
    pub salvage: bool,
    /// A stop was left for its runner.
    pub stop_asked: bool,
    /// Unix milliseconds.
    pub accepted_ms: i64,
    /// Unix milliseconds of the last launch call; 0 before.
    pub launched_ms: i64,
    /// As livekit-server shows them.
    pub details: String,
    /// Likewise.
    pub error: String,
    /// The platform's name of the current task.
    pub task: Option<String>,
    /// Pages of the current task.
    #[serde(flatten)]
    pub links: TaskLinks,
    /// Tasks of earlier launches, whose cost is in the ledger.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<EarlierTask>,
    /// What the current task runs on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine: Option<MachineFacts>,
    /// Expected cost of an hour there; `None`: no price is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hour: Option<f64>,
}

/// A task of an earlier launch.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EarlierTask {
    /// Number of the launch.
    pub attempt: u32,
    /// The platform's name.
    pub task: String,
    /// Its pages.
    #[serde(flatten)]
    pub links: TaskLinks,
}

/// The machine that was requested.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct MachineFacts {
    /// Whose it is.
    pub platform: Platform,
    /// On demand or spot.
    pub capacity: Capacity,
    /// Its size.
    #[serde(flatten)]
    pub shape: Shape,
}

/// How far an egress is now.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct EgressProgress {
    /// Position in the launch queue, from 1. Of another dispatcher's: by the time of acceptance, tenants left aside.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<usize>,
    /// Length of the recording, in tenths.
    pub seconds: f64,
    /// Written by the recorder.
    pub bytes: u64,
    /// Of them in the store; `None`: nothing is uploaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stored: Option<u64>,
    /// From the room to what is encoded.
    pub lag_ms: u64,
    /// Cost of the current task if it ended now, in the price list's currency; `None`: there is no task, or no price.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<f64>,
    /// In a word.
    pub quality: RecordingQuality,
    /// Why, where the word is not `good`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub why: String,
}

/// How well an egress is recorded now, by what its runner reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordingQuality {
    /// No runner has taken over yet, or it is over.
    #[default]
    None,
    /// In time.
    Good,
    /// Recorder, upload or a stream is late.
    Behind,
    /// The store takes nothing.
    Degraded,
    /// The runner sends no heartbeat.
    Silent,
}

impl RecordingQuality {
    /// A runner has it.
    pub fn is_recording(self) -> bool {
        self != Self::None
    }

    /// It is not recorded as it should be.
    pub fn is_troubled(self) -> bool {
        matches!(self, Self::Behind | Self::Degraded | Self::Silent)
    }
}

/// `facts`: of the task at its target, where that is known here. `links`: pages of a task.
pub fn egress_facts(
    record: &Record,
    facts: Option<&TaskFacts>,
    prices: &PriceList,
    extra_s: Option<f64>,
    links: impl Fn(&TaskRef) -> TaskLinks,
) -> EgressFacts {
    let dispatch = &record.dispatch;
    let info = report::info_of(record).unwrap_or_default();
    let hour = |facts: &TaskFacts| {
        let rate = prices.rate_of(facts)?;
        Some(money(estimate(rate, facts.shape, &facts.load, 3600.0, facts.nat, extra_s).total))
    };
    let earlier = dispatch.earlier.iter();
    EgressFacts {
        id: record.egress_id.to_string(),
        room: if dispatch.room.is_empty() { info.room_name.clone() } else { dispatch.room.clone() },
        kind: dispatch.kind.clone(),
        tenant: dispatch.tenant.clone(),
        page: dispatch.load.page,
        state: record.state.to_string(),
        status: status(&info),
        attempt: record.attempt,
        target: dispatch.target.clone(),
        dispatcher: record.dispatcher.clone(),
        salvage: record.is_salvage(),
        stop_asked: record.stop_asked,
        accepted_ms: record.accepted_at,
        launched_ms: dispatch.launched_ms,
        details: info.details,
        error: info.error,
        task: record.task().map(|task| task.id.clone()),
        links: record.task().map(&links).unwrap_or_default(),
        earlier: earlier
            .map(|(attempt, task)| EarlierTask { attempt: *attempt, task: task.id.clone(), links: links(task) })
            .collect(),
        machine: facts.map(|facts| MachineFacts {
            platform: facts.platform,
            capacity: facts.capacity,
            shape: facts.shape,
        }),
        hour: facts.and_then(hour),
    }
}

/// `EGRESS_ACTIVE` → `active`.
fn status(info: &EgressInfo) -> String {
    info.status().as_str_name().trim_start_matches("EGRESS_").to_lowercase()
}

/// `heartbeat`: the last one of this or a later attempt, with its age. `facts`, `prices`, `extra_s`: as for
/// [`egress_facts`]. `now_ms`: Unix milliseconds.
pub fn progress(
    record: &Record,
    heartbeat: Option<&(Duration, Heartbeat)>,
    facts: Option<&TaskFacts>,
    prices: &PriceList,
    extra_s: Option<f64>,
    now_ms: i64,
) -> EgressProgress {
    let none = Heartbeat::default();
    let beat = heartbeat.map_or(&none, |(_, beat)| beat);
    let bytes: u64 = beat.files.values().sum();
    let seconds = beat.media_ns as f64 / 1e9;
    let (quality, why) = quality(record, heartbeat);
    EgressProgress {
        place: None,
        seconds: (seconds * 10.0).round() / 10.0,
        bytes,
        stored: beat.extra.get("stored_bytes").and_then(Value::as_u64),
        lag_ms: beat.lag_ms,
        cost: facts.and_then(|facts| cost(record, facts, prices, extra_s, (bytes, seconds), now_ms)),
        quality,
        why,
    }
}

/// What the ledger's line would say if the task ended now.
fn cost(
    record: &Record,
    facts: &TaskFacts,
    prices: &PriceList,
    extra_s: Option<f64>,
    (bytes, recorded_s): (u64, f64),
    now_ms: i64,
) -> Option<f64> {
    let dispatch = &record.dispatch;
    if dispatch.launched_ms == 0 || !record.state.may_have_task() || record.state.is_over() {
        return None;
    }
    let (from_ms, to_ms) = (dispatch.launched_ms, now_ms.max(dispatch.launched_ms));
    let end = TaskEnd { from_ms, to_ms, bytes, recorded_s, ..TaskEnd::default() };
    let line = entry(&record.key(), (&dispatch.tenant, &dispatch.target), facts, &end, prices, extra_s);
    (!line.price_version.is_empty()).then(|| money(line.amount))
}

/// Millionths are enough to see a task's first second.
fn money(amount: f64) -> f64 {
    (amount * 1e6).round() / 1e6
}

fn quality(record: &Record, heartbeat: Option<&(Duration, Heartbeat)>) -> (RecordingQuality, String) {
    if !record.state.has_runner() {
        return (RecordingQuality::None, String::new());
    }
    let Some((age, beat)) = heartbeat else {
        return (RecordingQuality::Silent, "no heartbeat".to_owned());
    };
    if *age >= HEARTBEAT_FRESH {
        return (RecordingQuality::Silent, format!("no heartbeat for {} s", age.as_secs()));
    }
    let number = |name: &str| beat.extra.get(name).and_then(Value::as_u64).unwrap_or_default();
    if let Some(error) = beat.extra.get("upload_error").and_then(Value::as_str) {
        return (RecordingQuality::Degraded, format!("upload: {error}"));
    }
    let stream_lags = beat.extra.get("stream_lag_ms").and_then(Value::as_object);
    let stream_lag_ms = stream_lags.into_iter().flat_map(|lags| lags.values()).filter_map(Value::as_u64).max();
    let late = [
        (beat.lag_ms, MAX_LAG_MS, "the recorder"),
        (number("upload_behind_ms"), MAX_UPLOAD_BEHIND_MS, "the upload"),
        (stream_lag_ms.unwrap_or_default(), MAX_STREAM_LAG_MS, "a stream"),
    ];
    match late.iter().find(|(is_ms, max_ms, _)| is_ms > max_ms) {
        Some((is_ms, _, what)) => {
            (RecordingQuality::Behind, format!("{what} is {:.1} s behind", *is_ms as f64 / 1000.0))
        }
        None => (RecordingQuality::Good, String::new()),
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use serde_json::json;
    use spillway_bus::LaunchState;
    use spillway_cost::Load;
    use spillway_protocol::EgressId;
    use spillway_protocol::livekit::EgressStatus;

    use super::*;

    fn record() -> Record {
        let mut record = Record::new(EgressId::parse("EG_1").unwrap(), 1000);
        let task = TaskRef { launcher: "near".to_owned(), id: "t-2".to_owned() };
        record.state = LaunchState::Running { task: Some(task), ending: false };
        record.attempt = 2;
        record.dispatch.launched_ms = 5000;
        record.dispatch.target = "near".to_owned();
        record.dispatch.room = "<script>".to_owned();
        let earlier = TaskRef { launcher: "near".to_owned(), id: "t-1".to_owned() };
        record.dispatch.earlier.insert(1, earlier);
        let mut info = EgressInfo { details: "waiting".to_owned(), ..EgressInfo::default() };
        info.set_status(EgressStatus::EgressActive);
        record.info = info.encode_to_vec();
        record
    }

    fn facts() -> TaskFacts {
        TaskFacts {
            room: "<script>".to_owned(),
            kind: "track".to_owned(),
            salvage: false,
            platform: Platform::Fargate,
            region: "us-east-1".to_owned(),
            arch: String::new(),
            capacity: Capacity::OnDemand,
            nat: false,
            shape: Shape { cpu_milli: 1000, memory_mib: 2048, disk_gib: 20 },
            load: Load { files: 1, stored: true, written: 1e5, ..Load::default() },
            opened_ms: 5000,
            hour: 0.0,
        }
    }

    fn heartbeat(age: Duration, lag_ms: u64, extra: serde_json::Value) -> (Duration, Heartbeat) {
        let extra = extra.as_object().unwrap().clone().into_iter().collect();
        let files = [("a.mp4".to_owned(), 7), ("b.mp4".to_owned(), 8)].into();
        (age, Heartbeat { attempt: 2, media_ns: 61_234_000_000, lag_ms, files, extra })
    }

    #[test]
    fn a_row_has_what_people_ask_for() {
        let (prices, record, facts) = (PriceList::built_in().unwrap(), record(), facts());
        let links = |task: &TaskRef| TaskLinks { task_url: Some(format!("https://x/{}", task.id)), log_url: None };
        let row = serde_json::to_value(egress_facts(&record, Some(&facts), &prices, None, links)).unwrap();
        for (name, value) in [
            ("room", json!("<script>")),
            ("state", json!("running")),
            ("status", json!("active")),
            ("attempt", json!(2)),
            ("task", json!("t-2")),
            ("task_url", json!("https://x/t-2")),
            ("details", json!("waiting")),
            ("earlier", json!([{ "attempt": 1, "task": "t-1", "task_url": "https://x/t-1" }])),
        ] {
            assert_eq!(row[name], value, "{name} in {row}");
        }
        assert_eq!((&row["machine"]["platform"], &row["machine"]["cpu_milli"]), (&json!("fargate"), &json!(1000)));
        let hour = row["hour"].as_f64().unwrap();
        assert!((0.03..0.1).contains(&hour), "{hour}");

        let beat = heartbeat(Duration::ZERO, 300, json!({ "stored_bytes": 5 }));
        let now = progress(&record, Some(&beat), Some(&facts), &prices, None, 5000 + 3_600_000);
        assert_eq!((now.seconds, now.bytes, now.stored, now.lag_ms), (61.2, 15, Some(5), 300));
        assert_eq!(now.quality, RecordingQuality::Good);
        let cost = now.cost.unwrap();
        assert!((cost / hour - 1.0).abs() < 0.1, "an hour costs about what an hour was to cost: {cost} {hour}");
        let begun = progress(&record, Some(&beat), Some(&facts), &prices, None, 5000);
        assert!(begun.cost.unwrap() < cost / 10.0);
    }

    #[test]
    fn what_has_no_task_or_no_price_has_no_cost() {
        let (prices, mut waiting) = (PriceList::built_in().unwrap(), record());
        waiting.state = LaunchState::Queued { renumber: false };
        let of = |record: &Record, facts: Option<&TaskFacts>, prices: &PriceList| {
            progress(record, None, facts, prices, None, 9000)
        };
        let now = of(&waiting, Some(&facts()), &prices);
        assert_eq!((now.cost, now.quality, now.why.as_str()), (None, RecordingQuality::None, ""));
        let unlisted = PriceList { rates: Vec::new(), ..prices.clone() };
        assert_eq!(of(&record(), Some(&facts()), &unlisted).cost, None);
        assert_eq!(of(&record(), None, &prices).cost, None);
        let row = egress_facts(&record(), Some(&facts()), &unlisted, None, |_| TaskLinks::default());
        assert_eq!((row.hour, row.links), (None, TaskLinks::default()));
    }

    #[test]
    fn a_recording_that_is_late_or_silent_says_so() {
        let told = |age_s: f64, lag_ms, extra| {
            let beat = heartbeat(Duration::from_secs_f64(age_s), lag_ms, extra);
            quality(&record(), Some(&beat))
        };
        let behind = |why: &str| (RecordingQuality::Behind, why.to_owned());
        assert_eq!(told(1.0, 2000, json!({})), (RecordingQuality::Good, String::new()));
        assert_eq!(told(1.0, 2100, json!({})), behind("the recorder is 2.1 s behind"));
        assert_eq!(told(1.0, 0, json!({ "upload_behind_ms": 31_000 })), behind("the upload is 31.0 s behind"));
        assert_eq!(
            told(1.0, 0, json!({ "stream_lag_ms": { "0": 40, "1": 12_500 } })),
            behind("a stream is 12.5 s behind")
        );
        let degraded = (RecordingQuality::Degraded, "upload: no such bucket".to_owned());
        assert_eq!(told(1.0, 9000, json!({ "upload_error": "no such bucket" })), degraded);
        assert_eq!(told(4.0, 0, json!({})), (RecordingQuality::Silent, "no heartbeat for 4 s".to_owned()));
        assert_eq!(quality(&record(), None), (RecordingQuality::Silent, "no heartbeat".to_owned()));
        // What another version reports there is passed over.
        let odd = json!({ "upload_behind_ms": "x", "stream_lag_ms": [1], "upload_error": 7 });
        assert_eq!(told(1.0, 0, odd).0, RecordingQuality::Good);
    }
}
