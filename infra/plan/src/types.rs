//! The plan itself: plain values that travel as JSON from the dispatcher to both processes of the runner.

use serde::{Deserialize, Serialize};

/// Everything the runner needs to know about one recording, and nothing secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EgressPlan {
    pub egress_id: String,
    pub room_name: String,
    /// Sid of the room at the time of the request; empty when livekit-server did not say.
    pub room_id: String,
    pub kind: EgressKind,
    pub source: Source,
    /// `None`: no video in any output.
    pub picture: Option<VideoPlan>,
    /// `None`: no audio in any output.
    pub sound: Option<AudioPlan>,
    pub outputs: Vec<Output>,
    pub limits: Limits,
    pub retry_count: i32,
}

/// The request's type as users name it; also the key of metrics and costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EgressKind {
    RoomComposite,
    Participant,
    TrackComposite,
    Track,
}

impl EgressKind {
    pub fn name(self) -> &'static str {
        match self {
            Self::RoomComposite => "room_composite",
            Self::Participant => "participant",
            Self::TrackComposite => "track_composite",
            Self::Track => "track",
        }
    }
}

/// Which tracks of the room are recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Every track of the room.
    Room,
    /// Camera and microphone of one participant, or its screen share with sound.
    Participant { identity: String, screen_share: bool },
    /// Exactly these publications; at least one of the two.
    Tracks { audio: Option<String>, video: Option<String> },
    /// One publication, whatever its kind.
    Track { track_id: String },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VideoPlan {
    /// The published bytes, untouched (Track).
    Copied,
    /// One source at a time. Copied when it is H264 and nothing asks for re-encoding, else composed as one tile.
    CopiedIfPossible(VideoEncoding),
    /// One source at a time, re-encoded because size, rate or profile were asked for.
    Single(VideoEncoding),
    /// Many tiles.
    Composed { layout: LayoutName, encoding: VideoEncoding },
}

/// The built-in layouts. The text of the request is matched as livekit/egress' default template does (`-light` = white).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayoutName {
    pub shape: LayoutShape,
    pub light: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LayoutShape {
    Grid,
    Speaker,
    SingleSpeaker,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VideoEncoding {
    /// Even, at least 16.
    pub width: u32,
    pub height: u32,
    /// Pictures per second.
    pub framerate: u32,
    /// Kilobits per second.
    pub bitrate: u32,
    pub profile: H264Profile,
    /// Seconds between key frames; `None` is the default of 2 s.
    pub key_frame_interval: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum H264Profile {
    Baseline,
    Main,
    High,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AudioPlan {
    /// The published bytes, untouched (Track).
    Copied,
    Mixed {
        codec: AudioCodec,
        /// Kilobits per second.
        bitrate: u32,
        /// Hertz; always 48000 for Opus.
        frequency: u32,
        mixing: Mixing,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AudioCodec {
    Aac,
    Opus,
    Mp3,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mixing {
    /// Everybody on both channels.
    Both,
    /// Agents left, everybody else right.
    AgentsLeft,
    /// Left, right, left … in the order the tracks came.
    Alternate,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Output {
    File(FileOutput),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FileOutput {
    /// `None`: decided by the published codec (Track).
    pub container: Option<Container>,
    /// The path as asked, cleaned, variables not yet filled; empty or ending in `/` means a generated name.
    pub path: String,
    pub manifest: bool,
    /// It ends in a store, not on this machine's disk. Where and how is in `Destinations`, which has the secrets.
    #[serde(default)]
    pub stored: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Container {
    Mp4,
    Ogg,
    Webm,
    Ivf,
    Mp3,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Longest recording in nanoseconds of wall time since the egress was accepted by its runner; `None`: no limit.
    pub max_duration_ns: Option<u64>,
    /// Largest file in bytes.
    pub max_file_bytes: Option<u64>,
}
