use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::track::{Codec, TrackSource};
use crate::units::{RtpTime, SeqNo, Ssrc};

/// What comes from a room, before anything was made of it. A dump is a list of these with their times.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RoomEvent {
    /// From now on this RTP stream (SSRC) carries this publication.
    Opened {
        stream: Ssrc,
        publication: Publication,
    },
    /// The server took the stream away.
    Closed {
        stream: Ssrc,
    },
    Packet {
        stream: Ssrc,
        seq: SeqNo,
        rtp: RtpTime,
        marker: bool,
        form: PayloadFormat,
        #[serde(skip)]
        payload: Bytes,
    },
    /// `rtp` as on the wire; `ntp` is the publisher's clock, nanoseconds since 1970.
    Report {
        stream: Ssrc,
        rtp: u32,
        ntp: i64,
    },
    /// It is subscribed, under this sid; streams come later. Known long before its first packet.
    Published {
        sid: String,
        video: bool,
        muted: bool,
    },
    Muted {
        sid: String,
        muted: bool,
    },
    /// The server does not give us this publication.
    Refused {
        sid: String,
    },
    /// The publication is gone.
    Left {
        sid: String,
    },
    /// Our own connection is lost: every stream is over, publications may come back.
    Interrupted,
    /// Our connection does not work (or works again): who is silent now may be gone for longer.
    Trouble {
        on: bool,
    },
    /// Identities, loudest first.
    Speakers {
        identities: Vec<String>,
    },
    Layout {
        name: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publication {
    pub sid: String,
    pub identity: String,
    pub agent: bool,
    pub origin: TrackSource,
    pub size: (u32, u32),
    pub muted: bool,
}

/// What the payload type of a packet stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PayloadFormat {
    pub codec: Codec,
    pub clock_rate: u32,
    pub channels: u8,
}

/// Monotonic time since the source began: what `RoomEvent`s are stamped with.
pub type SourceTime = Duration;
