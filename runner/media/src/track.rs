//! What all modules share: a track, a frame of it, and what happens to tracks on the recording's timeline.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use spillway_plan::StereoSide;

use crate::units::MediaTime;

/// Number of a track in this recording. A publication that comes back (reconnect, republish) with the same
/// participant identity and source keeps its id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrackId(pub u32);

/// Codecs that a room carries and we record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Codec {
    /// ITU-T H.264.
    H264,
    /// ITU-T H.265.
    H265,
    /// VP8.
    Vp8,
    /// VP9.
    Vp9,
    /// AV1.
    Av1,
    /// Opus, always at 48 kHz.
    Opus,
    /// G.711 µ-law, 8 kHz.
    Pcmu,
    /// G.711 A-law, 8 kHz.
    Pcma,
}

impl Codec {
    /// Pictures, not sound.
    pub fn is_video(self) -> bool {
        !matches!(self, Self::Opus | Self::Pcmu | Self::Pcma)
    }

    /// A packet of sound without sound in it: no bytes, or Opus frames of no bytes, which encoders send when discontinuous
    /// transmission begins or goes on (RFC 6716, 3.1 and 3.2). An encoder has not encoded what they stand for; a decoder
    /// takes them for lost ones, invents 20 ms of sound, and trusts its state less: 40 ms of the next word were 5 to 14 dB
    /// too low (measured with opusdec).
    pub fn says_nothing(self, data: &[u8]) -> bool {
        match (self, data) {
            (_, []) => true,
            // One frame or two of equal length; two, the first of none; as many as the second byte says, of equal length.
            (Self::Opus, [toc]) => toc & 3 < 2,
            (Self::Opus, [toc, 0]) => toc & 3 == 2,
            (Self::Opus, [toc, count]) => toc & 3 == 3 && count & 0xc0 == 0,
            _ => false,
        }
    }
}

/// LiveKit's TrackSource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TrackSource {
    /// A camera.
    Camera,
    /// A microphone.
    Microphone,
    /// The picture of a shared screen.
    ScreenShare,
    /// The sound of a shared screen.
    ScreenShareAudio,
    /// Anything else: an ingress, a bot.
    Unknown,
}

/// A track of the recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Track {
    /// Its number in this recording.
    pub id: TrackId,
    /// Publication sid (`TR_…`) at the time it joined.
    pub sid: String,
    /// Of its participant.
    pub identity: String,
    /// The participant is an agent (routes of dual-channel mixing).
    pub agent: bool,
    /// Where its sound is heard in a mix of routes ([`Mixing::Routed`](spillway_plan::Mixing::Routed)).
    pub side: StereoSide,
    /// Camera, microphone, screen.
    pub origin: TrackSource,
    /// From the payload type really received, never from TrackInfo.
    pub codec: Codec,
    /// Of sound; 0 for video.
    pub channels: u8,
}

/// One whole encoded frame at its place on the recording's timeline.
///
/// H264/H265: an access unit in Annex B with the parameter sets it came with. VP8/VP9: a frame. AV1: a temporal unit of
/// OBUs that all carry their size. Opus: a packet. PCMU/PCMA: the samples of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its track.
    pub track: TrackId,
    /// When it is to be shown or heard; of a publisher that sends B frames its place in the order of decoding.
    pub at: MediaTime,
    /// It is to be shown so many nanoseconds later than `at`; negative: earlier. Not 0 for B frames only.
    pub offset_ns: i64,
    /// Decodable by itself; always true for sound.
    pub key: bool,
    /// Of a video key frame, read from its header.
    pub size: Option<(u32, u32)>,
    /// The encoded frame.
    pub data: Bytes,
}

/// What reaches the recording, per track in order of `at`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TimelineEvent {
    /// A publication is subscribed, or its mute changed. Said from the subscription on, long before `Joined`, which
    /// comes with the first frame.
    Published {
        /// `TR_…`.
        sid: String,
        /// A video, not sound.
        video: bool,
        /// By its publisher.
        muted: bool,
        /// When it was known.
        at: MediaTime,
    },
    /// Nothing (more) comes of it: it ended, or the server does not give it.
    Unpublished {
        /// `TR_…`.
        sid: String,
        /// When it was known.
        at: MediaTime,
    },
    /// A track begins, or goes on in another codec.
    Joined {
        /// The track.
        track: Track,
        /// Of its first frame.
        at: MediaTime,
    },
    /// The first frame of a video track, and the first after `Muted`, is a key frame.
    Frame(Frame),
    /// The tile goes, sound is silence, until the next frame.
    Muted {
        /// The track.
        track: TrackId,
        /// One frame after its last.
        at: MediaTime,
        /// By its publisher. Otherwise its packets stopped: our connection is lost, or the server took the stream away.
        muted: bool,
    },
    /// The track is over; the same participant and source may come back under the same id.
    Left {
        /// The track.
        track: TrackId,
        /// One frame after its last.
        at: MediaTime,
    },
    /// Packets that never came, before the next frame of this track.
    Lost {
        /// The track.
        track: TrackId,
        /// Just after its last frame.
        at: MediaTime,
        /// How many.
        packets: u64,
    },
    /// Active speakers, loudest first, by identity.
    Speakers {
        /// When it was known.
        at: MediaTime,
        /// Loudest first; empty when all are silent.
        identities: Vec<String>,
    },
    /// A layout asked for while running (our own metadata, `{"layout": …}`).
    Layout {
        /// When it was known.
        at: MediaTime,
        /// As given, not checked.
        name: String,
    },
    /// Everything before this moment, of every track, has been said. Advances by a timer.
    Watermark {
        /// The watermark.
        at: MediaTime,
    },
}
