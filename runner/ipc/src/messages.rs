//! Messages between the runner and its media process: commands go down, events come up. Unknown
//! fields are ignored and missing ones take their default where one is declared, so that versions may differ by one. Times
//! are Unix nanoseconds or nanoseconds of media, as each field says.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use spillway_guard::GuardRules;
use spillway_plan::{Container, EgressPlan, Secret};

use crate::FileId;

/// From the runner to the media process.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum MediaCommand {
    /// The first command, once.
    Start(Box<StartCommand>),
    /// The first command instead of [`MediaCommand::Start`]: joins a room, finds out how its media would come, sends
    /// [`MediaEvent::Joined`], [`MediaEvent::Path`] and [`MediaEvent::Ended`], exits.
    Probe(Box<ProbeCommand>),
    /// The answer to [`MediaEvent::Opening`]: where the bytes of this file go.
    WriteTo {
        /// As in [`MediaEvent::Opening`].
        file: u32,
        /// Absolute.
        path: PathBuf,
        /// The empty file that the runner has created there; without it the media process creates the file.
        #[serde(default)]
        id: Option<FileId>,
    },
    /// The answer to [`MediaEvent::Opening`] when the file could not be made and other outputs go on: so does the recording,
    /// without this file.
    NoFile {
        /// As in [`MediaEvent::Opening`].
        file: u32,
        /// Why, for the log.
        message: String,
    },
    /// This output ends and the others go on: its file is closed as it is. One that is not open is left alone.
    CloseOutput {
        /// Which output of the plan, from 0.
        output: u32,
    },
    /// Drain what is queued, close the files, send [`MediaEvent::Ended`], exit.
    Stop,
    /// Begins another stream; with the id of a stream that was given before it changes nothing.
    AddStream(StreamStart),
    /// Ends a stream: what it has not sent yet may take 2 s.
    RemoveStream {
        /// Its id.
        id: u32,
    },
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
/// written over. Times do not: they count from its own [`MediaEvent::Started`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ResumePoint {
    /// By output: number of its first file. An output that is not there begins with its own number.
    pub first_files: BTreeMap<u32, u32>,
    /// Number of the next file behind those, after a change of codec.
    pub next_file: u32,
    /// By output: number of its first segment or image; 0 for one that is not there.
    pub first_numbers: BTreeMap<u32, u32>,
    /// Outputs of the plan that have ended.
    pub ended_outputs: BTreeSet<u32>,
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

/// From the media process to the runner.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum MediaEvent {
    /// In the room; `room_id` is the sid of the room really joined.
    Joined {
        /// Sid, `RM_…`.
        room_id: String,
        /// As the server spells it.
        room_name: String,
    },
    /// Of a probe: how media would come.
    Path(MediaPath),
    /// livekit-server has given a newer token for the room: another process would join with it.
    Token {
        /// JWT.
        token: Secret,
    },
    /// Still STARTING.
    Waiting {
        /// Text for `details`, e.g. "waiting for track TR_x".
        what: String,
    },
    /// A file is about to be written; the runner answers [`MediaCommand::WriteTo`], or [`MediaCommand::NoFile`]. Several may
    /// be asked for at once, and are answered in any order.
    Opening {
        /// Number of the file in this recording. The first file of an output has the output's number; a file that follows it,
        /// after a change of codec or by another process ([`ResumePoint`]), has the next number behind those of all outputs
        /// and files.
        file: u32,
        /// Which output of the plan, from 0; `None`, from an older process: the one with the file's number.
        #[serde(default)]
        output: Option<u32>,
        /// Decided from the codecs where the request leaves it open.
        container: Container,
        /// For the file name.
        facts: TrackFacts,
    },
    /// The first media was written: the egress is ACTIVE.
    Started {
        /// Unix nanoseconds of the first recorded instant.
        at: i64,
        /// What names are made of, for every output: its first segment or image may come much later. `None`, from an older
        /// process: they come with that.
        #[serde(default)]
        facts: Option<TrackFacts>,
    },
    /// Progress of a file, at most four times a second.
    Wrote {
        /// As in [`MediaEvent::Opening`].
        file: u32,
        /// Bytes of the file.
        end: u64,
        /// Bytes before this one never change again, except those of the head, which is rewritten when the file ends.
        sealed_to: u64,
        /// Nanoseconds of media in the file.
        media_ns: u64,
    },
    /// The file is complete and closed.
    Closed {
        /// As in [`MediaEvent::Opening`].
        file: u32,
        /// Bytes of the file.
        bytes: u64,
        /// Unix nanoseconds of the first recorded instant.
        started_at: i64,
        /// Unix nanoseconds of the last recorded instant.
        ended_at: i64,
        /// What was really recorded.
        quality: Quality,
    },
    /// An output takes nothing more, and the others go on. A file of it is closed as it is: [`MediaEvent::Closed`] follows.
    OutputFailed {
        /// Which output of the plan, from 0.
        output: u32,
        /// Its file, if it has one; as in [`MediaEvent::Opening`].
        #[serde(default)]
        file: Option<u32>,
        /// The disk or another bound is the reason.
        #[serde(default)]
        full: bool,
        /// psrpc code as text, as in [`MediaEndReason::Failed`].
        code: String,
        /// For the user.
        message: String,
    },
    /// A segment of an HLS output is being written.
    SegmentOpen {
        /// Number of the output.
        output: u32,
        /// Of the segment, from 0 on without a gap; its file in the spool is named by `segment_file`.
        n: u32,
        /// Where it begins: nanoseconds since [`MediaEvent::Started`].
        at_ns: u64,
        /// With the first one: what names are made of.
        #[serde(default)]
        facts: Option<TrackFacts>,
    },
    /// Progress of the open segment, at most four times a second.
    SegmentWrote {
        /// Number of the output.
        output: u32,
        /// Of the segment.
        n: u32,
        /// Bytes of its file.
        bytes: u64,
    },
    /// A segment has ended. Unless it is a gap its file is complete and nothing writes to it any more.
    Segment {
        /// Number of the output.
        output: u32,
        /// Of the segment.
        n: u32,
        /// Where it begins: nanoseconds since [`MediaEvent::Started`].
        at_ns: u64,
        /// Up to the begin of the next one, nanoseconds.
        length_ns: u64,
        /// Bytes of its file.
        bytes: u64,
        /// It could not be written whole: nothing of it is kept, and the next one does not continue what is before it.
        #[serde(default)]
        gap: bool,
    },
    /// An HLS output is over: nothing of it is written any more.
    SegmentsEnded {
        /// Number of the output.
        output: u32,
        /// What was really recorded.
        quality: Quality,
    },
    /// An image of an image output is whole; its file in the spool is named by `image_file`.
    Image {
        /// Number of the output.
        output: u32,
        /// Of the image, from 0 on without a gap.
        n: u32,
        /// When it was captured: nanoseconds since [`MediaEvent::Started`].
        at_ns: u64,
        /// Bytes of its file.
        bytes: u64,
        /// With the first one: what names are made of.
        #[serde(default)]
        facts: Option<TrackFacts>,
    },
    /// An image output is over: nothing of it is written any more.
    ImagesEnded {
        /// Number of the output.
        output: u32,
        /// What was really recorded.
        quality: Quality,
    },
    /// Sent at least once a second from the start of the process on; without it the runner assumes a hang.
    Alive {
        /// Nanoseconds of media written so far.
        media_ns: u64,
        /// Distance between the live edge and what is encoded, milliseconds.
        lag_ms: u64,
        /// Encoded bytes that wait for a decoder.
        backlog_bytes: u64,
        /// Of each stream that has not ended.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        streams: Vec<StreamLag>,
    },
    /// Worth telling the user in `details`, e.g. "reconnected to the room after 5.1 s".
    Noted {
        /// The sentence.
        message: String,
    },
    /// A stream has come into this state.
    Stream {
        /// Its id.
        id: u32,
        /// The state.
        state: StreamState,
        /// Why it is tried again or has failed; else empty. Has no key.
        #[serde(default)]
        message: String,
        /// Attempts and connections that failed so far.
        #[serde(default)]
        retries: u32,
        /// From the newest frame to what its server has, milliseconds.
        #[serde(default)]
        lag_ms: u64,
    },
    /// The last event. After it the process exits.
    Ended {
        /// Why nothing more is recorded.
        why: MediaEndReason,
    },
}

/// The pair of addresses that a media connection uses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MediaPath {
    /// `udp` or `tcp`; to a relay, where there is one.
    pub protocol: String,
    /// Our side.
    pub local: String,
    /// The server's side.
    pub remote: String,
    /// The TURN server that media goes through; `None`: the way is direct.
    #[serde(default)]
    pub relay: Option<String>,
    /// Of the last check of the connection; `None`: not measured.
    #[serde(default)]
    pub round_trip_ms: Option<u64>,
    /// Addresses that the server named, and relays that were asked.
    #[serde(default)]
    pub tried: Vec<String>,
}

/// How far a stream is behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamLag {
    /// The stream.
    pub id: u32,
    /// From the newest frame to what its server has, milliseconds.
    pub lag_ms: u64,
}

/// State of a stream, since when in Unix nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum StreamState {
    /// The first connection is being made.
    Connecting,
    /// Its server takes it, at first or again.
    Active {
        /// Since.
        at: i64,
    },
    /// It is tried again.
    Retrying {
        /// Since.
        at: i64,
    },
    /// It ended with the recording, or was removed. Final.
    Finished {
        /// When.
        at: i64,
    },
    /// It is not tried again. Final.
    Failed {
        /// When.
        at: i64,
        /// psrpc code as text.
        code: String,
    },
}

/// Facts about the source for file names and manifests. An empty field is not known, or there is more than one value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrackFacts {
    /// Identity of the participant.
    pub publisher_identity: String,
    /// Sid of the recorded track, `TR_…`.
    pub track_id: String,
    /// `audio` or `video`.
    pub track_kind: String,
    /// Lower-case proto name: `camera`, `microphone`, `screen_share`, `screen_share_audio`, `unknown`.
    pub track_source: String,
    /// Sid of the audio track, where video and audio have one each.
    pub audio_track_id: String,
    /// Sid of the video track, where video and audio have one each.
    pub video_track_id: String,
}

/// Why the media process ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum MediaEndReason {
    /// A stop command was obeyed.
    Stopped,
    /// Room closed, participant left, tracks ended: an ordinary end.
    SourceClosed {
        /// For `details`; may be empty.
        message: String,
    },
    /// The disk or another bound ended the recording; what was recorded is closed and kept.
    Full {
        /// Which bound.
        message: String,
    },
    /// Another participant joined the room with the identity of this egress.
    Evicted,
    /// An error.
    Failed {
        /// psrpc code as text: `not_found`, `unavailable`, `internal` …
        code: String,
        /// For the user.
        message: String,
    },
}

/// What was really recorded. Times in milliseconds of media time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Quality {
    /// Length of the file.
    pub media_ms: u64,
    /// Video frames made, one for each output time. Of composed ones that repeat the one before, files have a part.
    pub frames: u64,
    /// Video frames that differ from the one before.
    pub distinct_frames: u64,
    /// [`Self::distinct_frames`] over the length of the file.
    pub distinct_frames_per_second: f64,
    /// Longest time without a distinct frame.
    pub max_freeze_ms: u64,
    /// Number of spans in which a source that should have been there was not (lost, reconnecting).
    pub gaps: u32,
    /// Sum of those spans.
    pub gaps_ms: u64,
    /// Time without audio from any track, mutes included.
    pub silence_ms: u64,
    /// RTP packets received.
    pub packets: u64,
    /// RTP packets that never arrived in spite of retransmission.
    pub packets_lost: u64,
    /// Video minus audio, estimated from sender reports; positive: video late. `None` without both.
    pub av_offset_ms: Option<f64>,
    /// Audio that arrived when its time was already mixed, of all participants.
    pub late_sound_ms: u64,
    /// Largest distance between the live edge and what was encoded.
    pub max_lag_ms: u64,
    /// Video frames skipped because the machine could not keep up.
    pub frames_skipped: u64,
    /// Of them, those that were left out early because a stream was watched.
    pub frames_thinned: u64,
    /// Why the recording is degraded, one sentence each; empty when it is not.
    pub degraded: Vec<String>,
}

#[cfg(test)]
mod tests {
    use spillway_plan::{EgressKind, Limits, Source};

    use super::*;

    #[test]
    fn a_start_is_printed_without_its_secrets() {
        let plan = EgressPlan {
            egress_id: "EG_x".into(),
            room_name: "room".into(),
            room_id: String::new(),
            kind: EgressKind::RoomComposite,
            source: Source::Room,
            picture: None,
            sound: None,
            outputs: vec![],
            limits: Limits::default(),
            retry_count: 0,
            sheets: None,
        };
        let start = StartCommand {
            plan,
            ws_url: "ws://h".into(),
            token: Secret::new("canary-token".to_owned()),
            settings: MediaSettings::default(),
            page_url: Some(Secret::new("https://x/?token=canary".to_owned())),
            streams: vec![StreamStart { id: 0, output: 0, url: Secret::new("rtmp://h/app/canary".to_owned()) }],
            clock_ahead_ns: 0,
            spool: None,
            resume: None,
        };
        let command = MediaCommand::Start(Box::new(start));
        assert!(!format!("{command:?}").contains("canary"), "{command:?}");
        let read: MediaCommand = serde_json::from_str(&serde_json::to_string(&command).unwrap()).unwrap();
        let MediaCommand::Start(start) = read else { panic!("{read:?}") };
        assert_eq!(start.token.reveal(), "canary-token");
        assert_eq!(start.page_url.unwrap().reveal(), "https://x/?token=canary");
        let event = MediaEvent::Token { token: Secret::new("canary-token".to_owned()) };
        assert!(!format!("{event:?}").contains("canary"), "{event:?}");
        let read: MediaEvent = serde_json::from_str(&serde_json::to_string(&event).unwrap()).unwrap();
        assert!(matches!(read, MediaEvent::Token { token } if token.reveal() == "canary-token"));
    }

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

    #[test]
    fn a_probe_goes_down_with_its_token_and_is_printed_without_it() {
        let probe = ProbeCommand {
            ws_url: "ws://h".into(),
            token: Secret::new("canary-token".to_owned()),
            settings: MediaSettings::default(),
            timeout_ms: 9,
        };
        let command = MediaCommand::Probe(Box::new(probe));
        assert!(!format!("{command:?}").contains("canary"), "{command:?}");
        let read: MediaCommand = serde_json::from_str(&serde_json::to_string(&command).unwrap()).unwrap();
        assert!(matches!(&read, MediaCommand::Probe(probe) if probe.token.reveal() == "canary-token"), "{read:?}");
        let path = MediaPath { protocol: "udp".into(), local: "a".into(), remote: "b".into(), ..MediaPath::default() };
        let short = r#"{"event":"path","protocol":"udp","local":"a","remote":"b"}"#;
        assert!(matches!(serde_json::from_str(short).unwrap(), MediaEvent::Path(read) if read == path));
    }

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

    #[test]
    fn a_stream_goes_down_with_its_url_and_is_printed_without_it() {
        let url = Secret::new("rtmp://h/app/canary".to_owned());
        let command = MediaCommand::AddStream(StreamStart { id: 3, output: 1, url });
        let text = serde_json::to_string(&command).unwrap();
        assert_eq!(text, r#"{"command":"add_stream","id":3,"output":1,"url":"rtmp://h/app/canary"}"#);
        let read: MediaCommand = serde_json::from_str(&text).unwrap();
        assert!(matches!(&read, MediaCommand::AddStream(start) if start.url.reveal() == "rtmp://h/app/canary"));
        assert!(!format!("{read:?}").contains("canary"));
    }

    #[test]
    fn states_of_streams_come_up() {
        for state in [
            StreamState::Connecting,
            StreamState::Active { at: 1 },
            StreamState::Retrying { at: 2 },
            StreamState::Finished { at: 3 },
            StreamState::Failed { at: 4, code: "unavailable".into() },
        ] {
            let event =
                MediaEvent::Stream { id: 1, state: state.clone(), message: String::new(), retries: 2, lag_ms: 0 };
            let read: MediaEvent = serde_json::from_str(&serde_json::to_string(&event).unwrap()).unwrap();
            assert!(matches!(read, MediaEvent::Stream { id: 1, state: read, retries: 2, .. } if read == state));
        }
        let event = MediaEvent::Alive {
            media_ns: 1,
            lag_ms: 2,
            backlog_bytes: 3,
            streams: vec![StreamLag { id: 1, lag_ms: 40 }],
        };
        let read: MediaEvent = serde_json::from_str(&serde_json::to_string(&event).unwrap()).unwrap();
        assert!(matches!(read, MediaEvent::Alive { streams, .. } if streams == [StreamLag { id: 1, lag_ms: 40 }]));
        let short = r#"{"event":"alive","media_ns":1,"lag_ms":2,"backlog_bytes":3}"#;
        assert!(
            matches!(serde_json::from_str(short).unwrap(), MediaEvent::Alive { streams, .. } if streams.is_empty())
        );
        let short = r#"{"event":"stream","id":1,"state":{"is":"connecting"}}"#;
        assert!(matches!(serde_json::from_str(short).unwrap(), MediaEvent::Stream { lag_ms: 0, .. }));
        let short = r#"{"event":"started","at":1}"#;
        assert!(matches!(serde_json::from_str(short).unwrap(), MediaEvent::Started { at: 1, facts: None }));
    }
}
