//! Messages between the runner and its media process: commands go down, events come up. Unknown
//! fields are ignored and missing ones take their default where one is declared, so that versions may differ by one. Times
//! are Unix nanoseconds or nanoseconds of media, as each field says.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use spillway_plan::{Container, Secret};

use crate::facts::{Quality, TrackFacts};
use crate::file_id::FileId;
use crate::start::{ProbeCommand, StartCommand, StreamStart};

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
        /// after a change of codec or by another process ([`ResumePoint`](crate::ResumePoint)), has the next number behind those of all outputs
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

#[cfg(test)]
mod tests {
    use spillway_plan::{EgressKind, EgressPlan, Limits, Source};

    use super::*;
    use crate::settings::MediaSettings;
    use crate::start::ResumePoint;

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
        let resume = ResumePoint {
            first_files: [(0, 3)].into(),
            next_file: 4,
            first_numbers: [(1, 7)].into(),
            ended_outputs: [2].into(),
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
            resume: Some(resume.clone()),
        };
        let command = MediaCommand::Start(Box::new(start));
        assert!(!format!("{command:?}").contains("canary"), "{command:?}");
        let read: MediaCommand = serde_json::from_str(&serde_json::to_string(&command).unwrap()).unwrap();
        let MediaCommand::Start(start) = read else { panic!("{read:?}") };
        assert_eq!(start.token.reveal(), "canary-token");
        assert_eq!(start.resume, Some(resume));
        assert_eq!(start.page_url.unwrap().reveal(), "https://x/?token=canary");
        let event = MediaEvent::Token { token: Secret::new("canary-token".to_owned()) };
        assert!(!format!("{event:?}").contains("canary"), "{event:?}");
        let read: MediaEvent = serde_json::from_str(&serde_json::to_string(&event).unwrap()).unwrap();
        assert!(matches!(read, MediaEvent::Token { token } if token.reveal() == "canary-token"));
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
