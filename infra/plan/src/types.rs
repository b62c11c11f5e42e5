//! The plan: plain values that travel as JSON in the ticket, from the dispatcher to both processes of the runner. Names
//! and shapes are part of that format.

use serde::{Deserialize, Serialize};

use crate::output_types::{
    AudioCodec, Container, FileOutput, ImagesOutput, Output, SheetsPlan, StreamProtocol, StreamsOutput,
};
use crate::page_types::PagePlan;

/// All that the runner needs to know about one recording. Holds no secrets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EgressPlan {
    /// Checked: safe in file names and keys.
    pub egress_id: String,
    /// Empty for a Track request that names no room and comes with a token.
    pub room_name: String,
    /// Sid of the room at the time of the request; empty when livekit-server did not send it.
    pub room_id: String,
    /// Type of the request.
    pub kind: EgressKind,
    /// Tracks to record, or a page.
    pub source: Source,
    /// `None`: no video in any output.
    pub picture: Option<VideoPlan>,
    /// `None`: no audio in any output.
    pub sound: Option<AudioPlan>,
    /// Files, then segments, images and streams; those of one kind in the order of the request.
    pub outputs: Vec<Output>,
    /// Small pictures beside one of the outputs. The recording does not depend on them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sheets: Option<SheetsPlan>,
    /// When the recording ends by itself.
    pub limits: Limits,
    /// 0 for the first attempt; part of generated file names.
    pub retry_count: i32,
}

impl EgressPlan {
    /// The output with this index, if it is a file.
    pub fn file(&self, output: u32) -> Option<&FileOutput> {
        match self.outputs.get(usize::try_from(output).ok()?)? {
            Output::File(file) => Some(file),
            Output::Segments(_) | Output::Images(_) | Output::Streams(_) => None,
        }
    }

    /// Pictures are encoded or copied as video: an output takes them so. Images are made of raw pictures, and a recording of
    /// images alone has no video encoder.
    pub fn encoder_needed(&self) -> bool {
        self.picture.is_some() && self.outputs.iter().any(Output::takes_encoded_video)
    }

    /// Every output with the picture is a file whose container follows from the published codec, so that H264, VP8, VP9 and AV1
    /// are all copied.
    pub fn container_follows_codec(&self) -> bool {
        let follows = |output: &Output| matches!(output, Output::File(FileOutput { container: None, .. }));
        self.encoder_needed() && self.outputs.iter().filter(|output| output.takes_encoded_video()).all(follows)
    }

    /// The image outputs, each with its index among all outputs.
    pub fn images(&self) -> impl Iterator<Item = (u32, &ImagesOutput)> {
        (0u32..).zip(&self.outputs).filter_map(|(output, of)| match of {
            Output::Images(images) => Some((output, images)),
            Output::File(_) | Output::Segments(_) | Output::Streams(_) => None,
        })
    }

    /// The page that is recorded, if it is one.
    pub fn page(&self) -> Option<PagePlan> {
        match self.source {
            Source::Page(page) => Some(page),
            _ => None,
        }
    }

    /// Place and kind of the output whose streams go to servers.
    pub fn streams(&self) -> Option<(u32, StreamsOutput)> {
        (0..).zip(&self.outputs).find_map(|(place, output)| match output {
            Output::Streams(streams) => Some((place, *streams)),
            Output::File(_) | Output::Segments(_) | Output::Images(_) => None,
        })
    }

    /// The files. They are the first outputs, so the place here is the index there.
    pub fn files(&self) -> impl Iterator<Item = &FileOutput> {
        self.outputs.iter().filter_map(|output| match output {
            Output::File(file) => Some(file),
            Output::Segments(_) | Output::Images(_) | Output::Streams(_) => None,
        })
    }
}

/// The type of a request; also the key of metrics and costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EgressKind {
    /// Every participant of a room in one picture.
    RoomComposite,
    /// One participant.
    Participant,
    /// One audio and one video track.
    TrackComposite,
    /// One track as published.
    Track,
    /// A choice of video and audio in a room, of the second API.
    Media,
    /// A web page.
    Web,
}

impl EgressKind {
    /// As in JSON, metrics and configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::RoomComposite => "room_composite",
            Self::Participant => "participant",
            Self::TrackComposite => "track_composite",
            Self::Track => "track",
            Self::Media => "media",
            Self::Web => "web",
        }
    }
}

/// What is recorded: which tracks of the room, or a page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Every track of the room.
    Room,
    /// The tracks of one participant.
    Participant {
        /// Its identity.
        identity: String,
        /// Its screen share with audio instead of camera and microphone.
        screen_share: bool,
    },
    /// Exactly these publications; at least one of the two.
    Tracks {
        /// Sid.
        audio: Option<String>,
        /// Sid.
        video: Option<String>,
    },
    /// One publication of either kind.
    Track {
        /// Sid.
        track_id: String,
    },
    /// A choice of video and audio, which ends with the room whatever becomes of its tracks. Participants and tracks that it
    /// names must appear.
    Media {
        /// `None`: no video.
        video: Option<MediaVideo>,
        /// The first that matches a track decides; may be empty.
        audio: Vec<AudioRoute>,
        /// Audio that no route matches is heard too, on both channels.
        other_audio: bool,
    },
    /// A web page; what it shows and plays is one picture and one sound.
    Page(PagePlan),
}

/// The video of [`Source::Media`]; one track at a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MediaVideo {
    /// The publication with this sid.
    Track(String),
    /// The camera of the participant with this identity.
    Camera(String),
    /// The screen of the participant with this identity.
    ScreenShare(String),
}

/// Audio that is recorded, and where it is heard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AudioRoute {
    /// Audio tracks that it is for.
    pub of: AudioMatch,
    /// Their channel.
    pub side: StereoSide,
}

/// Audio tracks of a room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AudioMatch {
    /// The publication with this sid.
    Track(String),
    /// Every one of the participant with this identity.
    Participant(String),
    /// Every one of participants of this kind: a number of LiveKit's `ParticipantInfo.Kind`.
    Kind(i32),
}

/// Which channels a track is heard on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StereoSide {
    /// As published.
    #[default]
    Both,
    /// Mixed down to the left one.
    Left,
    /// Mixed down to the right one.
    Right,
}

/// How video is recorded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VideoPlan {
    /// The published stream, not decoded (Track).
    Copied,
    /// One source at a time, of which the request names no encoding. Copied when it is H264, or what a WebM takes and every
    /// file may be one ([`EgressPlan::container_follows_codec`]); else composed as one tile.
    CopiedIfPossible(VideoEncoding),
    /// One source at a time, encoded because the request names size, rate or profile; or a page.
    Single(VideoEncoding),
    /// Many tiles on one canvas.
    Composed {
        /// Arrangement of the tiles.
        layout: LayoutName,
        /// Size of the canvas and encoding.
        encoding: VideoEncoding,
    },
}

/// A built-in layout. Names are read as livekit/egress' default template reads them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayoutName {
    /// Arrangement of the tiles.
    pub shape: LayoutShape,
    /// White background (`-light`) instead of black.
    pub light: bool,
}

/// Arrangement of the tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LayoutShape {
    /// Tiles of equal size.
    Grid,
    /// One large tile for the speaker, the others in a column.
    Speaker,
    /// The speaker alone.
    SingleSpeaker,
}

/// H264 encoding.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VideoEncoding {
    /// Pixels; even, 16 to 4096.
    pub width: u32,
    /// Pixels; even, 16 to 4096.
    pub height: u32,
    /// Frames per second, 1 to 120.
    pub framerate: u32,
    /// Kilobits per second.
    pub bitrate: u32,
    /// H264 profile.
    pub profile: H264Profile,
    /// Seconds between keyframes, positive; `None` is the default of 2 s.
    pub key_frame_interval: Option<f64>,
}

/// Profile of H264.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum H264Profile {
    /// No B-frames.
    Baseline,
    /// The default.
    Main,
    /// Best quality for its rate.
    High,
}

/// How audio is recorded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AudioPlan {
    /// The published stream (Track). Opus is not decoded; PCMU and PCMA are encoded as Opus.
    Copied,
    /// Every source mixed to stereo and encoded.
    Mixed {
        /// Codec of every output that names no other ([`Output::audio`]).
        codec: AudioCodec,
        /// Kilobits per second.
        bitrate: u32,
        /// Hertz; always 48000 for Opus.
        frequency: u32,
        /// Source to channel.
        mixing: Mixing,
        /// Encodings of the same mix beside it, for outputs that cannot take `codec`.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        also: Vec<AudioEncoding>,
    },
    /// Every source mixed to stereo and not encoded, for a websocket.
    Raw {
        /// Source to channel.
        mixing: Mixing,
    },
}

/// How the mixed audio is encoded once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AudioEncoding {
    /// Differs from every other codec of the plan.
    pub codec: AudioCodec,
    /// Kilobits per second.
    pub bitrate: u32,
    /// Hertz; always 48000 for Opus.
    pub frequency: u32,
}

impl FileOutput {
    /// Codec of the mixed audio in this file as it is made, with this container; `None` where it has none: it is copied or not
    /// encoded.
    pub fn audio_in(&self, container: Container, sound: &AudioPlan) -> Option<AudioCodec> {
        let AudioPlan::Mixed { codec, .. } = sound else { return None };
        let (planned, possible) = (self.audio.unwrap_or(*codec), container.audio());
        if possible.contains(&planned) { Some(planned) } else { possible.first().copied() }
    }
}

impl Output {
    /// Codec of the mixed audio in this output; `None` where it has none: it is copied or not encoded, or the output takes
    /// no audio. Of a file whose container follows from the published codec that of its MP4.
    pub fn audio(&self, sound: &AudioPlan) -> Option<AudioCodec> {
        let AudioPlan::Mixed { codec, .. } = sound else { return None };
        match self {
            Self::File(file) => Some(file.audio.unwrap_or(*codec)),
            Self::Segments(_) => Some(AudioCodec::Aac),
            Self::Streams(streams) => (streams.protocol != StreamProtocol::Websocket).then_some(AudioCodec::Aac),
            Self::Images(_) => None,
        }
    }
}

/// Which participant is heard on which channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mixing {
    /// Every participant on both channels.
    Both,
    /// Agents left, other participants right.
    AgentsLeft,
    /// Left, right, left … in the order in which the tracks joined.
    Alternate,
    /// Every track on the side of its [`AudioRoute`].
    Routed,
}

/// Limits of one recording; reaching one ends it with LIMIT_REACHED.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Longest recording in nanoseconds of wall time since the runner accepted it; `None`: no limit.
    pub max_duration_ns: Option<u64>,
    /// Largest file in bytes; `None`: no limit.
    pub max_file_bytes: Option<u64>,
    /// Most bytes in the segments of one output; `None`: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_segment_bytes: Option<u64>,
}
