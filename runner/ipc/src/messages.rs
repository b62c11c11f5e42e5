use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use spillway_plan::{Container, EgressPlan};

use crate::FileId;

/// Runner → media.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum MediaCommand {
    /// The first command, once.
    Start(Box<StartCommand>),
    /// The answer to [`MediaEvent::Opening`]: where the bytes of this file go.
    WriteTo {
        file: u32,
        path: PathBuf,
        /// The empty file that the runner has made there; without it the media process makes the file.
        #[serde(default)]
        id: Option<FileId>,
    },
    /// Drain what is recorded, close the files, send [`MediaEvent::Ended`], exit.
    Stop,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StartCommand {
    pub plan: EgressPlan,
    /// livekit-server's websocket URL.
    pub ws_url: String,
    /// Bounded by the job's limits; the only secret the media process holds.
    pub token: String,
    pub settings: MediaSettings,
    /// By how much the time that the installation agrees on is ahead of this host's wall clock, nanoseconds. The media
    /// process adds it once, at the beginning, and goes on by the monotonic clock.
    #[serde(default)]
    pub clock_ahead_ns: i64,
}

/// Settings of the media process; the defaults are those of the configuration reference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MediaSettings {
    /// How long a hole in a track's RTP is waited for, milliseconds.
    pub reorder_ms: u64,
    /// How long a named participant or track may take to appear, milliseconds.
    pub appear_ms: u64,
    /// Encoded bytes that may wait for a busy CPU in memory before they are spilled to `spill_dir`.
    pub backlog_bytes: u64,
    /// Where the backlog goes beyond that; `None`: the directory of the file.
    pub spill_dir: Option<PathBuf>,
    /// Fragment length of MP4, milliseconds: what a `kill -9` may cost.
    pub fragment_ms: u64,
}

impl Default for MediaSettings {
    fn default() -> Self {
        Self { reorder_ms: 2000, appear_ms: 30_000, backlog_bytes: 256 << 20, spill_dir: None, fragment_ms: 1000 }
    }
}

/// Media → runner.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum MediaEvent {
    /// In the room; `room_id` is the sid of the room really joined.
    Joined { room_id: String, room_name: String },
    /// Still STARTING; text for `details`, e.g. "waiting for track TR_x".
    Waiting { what: String },
    /// A file is about to be written; the runner answers [`MediaCommand::WriteTo`].
    Opening { file: u32, container: Container, facts: TrackFacts },
    /// The first media was written: the egress is ACTIVE. Unix nanoseconds of the first recorded instant.
    Started { at: i64 },
    /// Progress of a file, at most four times a second: bytes before `sealed_to` never change again (but see
    /// `spec/storage.md` 4: the head of an MP4 is rewritten at its end).
    Wrote { file: u32, end: u64, sealed_to: u64, media_ns: u64 },
    /// The file is complete and closed. Times are Unix nanoseconds.
    Closed { file: u32, bytes: u64, started_at: i64, ended_at: i64, quality: Quality },
    /// At least once a second, from the first moment on; silence is a hang.
    Alive { media_ns: u64, lag_ms: u64, backlog_bytes: u64 },
    /// Worth telling the user in `details`, e.g. "reconnected to the room after 5.1 s".
    Noted { message: String },
    /// The last event. After it the process exits.
    Ended { why: MediaEndReason },
}

/// Facts about the source that file names and manifests may carry. Empty: not known or not one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrackFacts {
    pub publisher_identity: String,
    pub track_id: String,
    /// `audio` or `video`.
    pub track_kind: String,
    /// Lower-case proto name: `camera`, `microphone`, `screen_share`, `screen_share_audio`, `unknown`.
    pub track_source: String,
    pub audio_track_id: String,
    pub video_track_id: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum MediaEndReason {
    /// A stop command was obeyed.
    Stopped,
    /// Room closed, participant left, tracks ended: an ordinary end.
    SourceClosed { message: String },
    /// The disk or another bound ended the recording; what was recorded is closed and kept.
    Full { message: String },
    /// A stranger took our identity.
    Evicted,
    /// psrpc code as text (`not_found`, `unavailable`, `internal` …) and a message for the user.
    Failed { code: String, message: String },
}

/// What was really recorded. Times in milliseconds of media time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Quality {
    pub media_ms: u64,
    /// Pictures written, and pictures that differ from the one before.
    pub frames: u64,
    pub distinct_frames: u64,
    pub distinct_frames_per_second: f64,
    pub max_freeze_ms: u64,
    /// Spans in which a source that should have been there was not (lost, reconnecting).
    pub gaps: u32,
    pub gaps_ms: u64,
    /// Spans without sound from any track, mutes included.
    pub silence_ms: u64,
    pub packets: u64,
    /// Never arrived in spite of retransmission.
    pub packets_lost: u64,
    /// Picture minus sound, estimated from sender reports; positive: picture late. `None` without both.
    pub av_offset_ms: Option<f64>,
    /// Sound that arrived when its time was already mixed, of all participants.
    pub late_sound_ms: u64,
    /// Largest distance between the live edge and what was encoded.
    pub max_lag_ms: u64,
    /// Pictures skipped because the machine could not keep up.
    pub frames_skipped: u64,
    /// Why the recording is degraded, as text; empty when it is not.
    pub degraded: Vec<String>,
}
