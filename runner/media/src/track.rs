//! Words every room of this crate shares: a track, a moment, and what happens to tracks on the session's timeline.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::units::MediaTime;

/// One stay of one publication in this recording. A publication that comes back (reconnect, republish) with the same
/// participant identity and source keeps its id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrackId(pub u32);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Codec {
    H264,
    H265,
    Vp8,
    Vp9,
    Av1,
    Opus,
    Pcmu,
    Pcma,
}

impl Codec {
    pub fn is_video(self) -> bool {
        !matches!(self, Self::Opus | Self::Pcmu | Self::Pcma)
    }
}

/// LiveKit's TrackSource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TrackSource {
    Camera,
    Microphone,
    ScreenShare,
    ScreenShareAudio,
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Track {
    pub id: TrackId,
    /// Publication sid (`TR_…`) at the time it joined.
    pub sid: String,
    pub identity: String,
    /// The participant is an agent (routes of dual-channel mixing).
    pub agent: bool,
    pub origin: TrackSource,
    /// From the payload type really received, never from TrackInfo.
    pub codec: Codec,
    /// RTP clock, hertz.
    pub clock_rate: u32,
    pub channels: u8,
    /// As published; (0, 0) when unknown or audio.
    pub published_size: (u32, u32),
}

/// One whole encoded frame at its place on the session's timeline.
///
/// H264/H265: an access unit in Annex B with the parameter sets it came with. VP8/VP9: a frame. AV1: a temporal unit of
/// OBUs that all carry their size. Opus: a packet. PCMU/PCMA: the samples of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub track: TrackId,
    pub at: MediaTime,
    pub key: bool,
    /// Of a video key frame, read from its header.
    pub size: Option<(u32, u32)>,
    pub data: Bytes,
}

/// What reaches the recording, per track in order of `at`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TimelineEvent {
    /// A publication is subscribed, or its mute changed. Said from the subscription on, long before `Joined`, which comes
    /// with the first frame.
    Published {
        sid: String,
        video: bool,
        muted: bool,
        at: MediaTime,
    },
    /// Nothing (more) comes of it: it ended, or the server does not give it.
    Unpublished {
        sid: String,
        at: MediaTime,
    },
    Joined {
        track: Track,
        at: MediaTime,
    },
    /// The first frame of a video track, and the first after `Muted`, is a key frame.
    Frame(Frame),
    /// The tile goes, sound is silence, until the next frame.
    Muted {
        track: TrackId,
        at: MediaTime,
        /// By its publisher. Otherwise its packets stopped: our connection is lost, or the server took the stream away.
        muted: bool,
    },
    Left {
        track: TrackId,
        at: MediaTime,
    },
    /// Packets that never came, before the next frame of this track.
    Lost {
        track: TrackId,
        at: MediaTime,
        packets: u64,
    },
    /// Active speakers, loudest first, by identity.
    Speakers {
        at: MediaTime,
        identities: Vec<String>,
    },
    /// A layout asked for while running (our own metadata, `{"layout": …}`).
    Layout {
        at: MediaTime,
        name: String,
    },
    /// Everything before this moment, of every track, has been said. Advances by a timer.
    Watermark {
        at: MediaTime,
    },
}
