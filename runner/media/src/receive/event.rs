//! What arrives of a room: the input of `receive`, made by `source::room`, and what a dump keeps. Its serialised form
//! is the format of dumps.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use spillway_plan::StereoSide;

use crate::track::{Codec, TrackSource};
use crate::units::{RtpTime, SeqNo, Ssrc};

/// What comes from a room, before anything was made of it. A dump is a list of these with their times.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RoomEvent {
    /// From now on this RTP stream (SSRC) carries this publication.
    Opened {
        /// The stream.
        stream: Ssrc,
        /// What it carries.
        publication: Publication,
    },
    /// The server took the stream away.
    Closed {
        /// The stream.
        stream: Ssrc,
    },
    /// An RTP packet.
    Packet {
        /// The stream; of a retransmission the one that it repairs.
        stream: Ssrc,
        /// Its sequence number.
        seq: SeqNo,
        /// Its RTP time.
        rtp: RtpTime,
        /// The marker bit: of video, the frame is over.
        marker: bool,
        /// What its payload type stands for.
        form: PayloadFormat,
        /// Without header and padding; empty: padding only. In a dump it stands behind the JSON line.
        #[serde(skip)]
        payload: Bytes,
    },
    /// A sender report (RFC 3550 6.4.1): `rtp` as on the wire, `ntp` in nanoseconds since 1970.
    Report {
        /// The stream.
        stream: Ssrc,
        /// RTP time, 32 bits.
        rtp: u32,
        /// The same moment by the publisher's clock.
        ntp: i64,
    },
    /// It is subscribed, under this sid; streams come later. Known long before its first packet.
    Published {
        /// `TR_…`.
        sid: String,
        /// A video, not sound.
        video: bool,
        /// By its publisher.
        muted: bool,
    },
    /// A publication was muted or unmuted.
    Muted {
        /// `TR_…`.
        sid: String,
        /// By its publisher.
        muted: bool,
    },
    /// The server does not give us this publication.
    Refused {
        /// `TR_…`.
        sid: String,
    },
    /// The publication is gone.
    Left {
        /// `TR_…`.
        sid: String,
    },
    /// Our own connection is lost: every stream is over, publications may come back.
    Interrupted,
    /// Our connection does not work (or works again): who is silent now may be gone for longer.
    Trouble {
        /// It does not work.
        on: bool,
    },
    /// The recording stands still: nothing more becomes complete until it goes on.
    Held {
        /// It stands still.
        on: bool,
    },
    /// Active speakers by identity, loudest first.
    Speakers {
        /// Empty when all are silent.
        identities: Vec<String>,
    },
    /// Another layout is asked for by our own metadata.
    Layout {
        /// As given, not checked.
        name: String,
    },
}

/// A published track as livekit-server describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publication {
    /// `TR_…`, new with each publication.
    pub sid: String,
    /// Of its participant.
    pub identity: String,
    /// The participant is an agent.
    pub agent: bool,
    /// Where its sound is heard in a mix of routes.
    #[serde(default)]
    pub side: StereoSide,
    /// Camera, microphone, screen.
    pub origin: TrackSource,
    /// Pixels as published; (0, 0) when unknown or sound.
    pub size: (u32, u32),
    /// By its publisher, when it was opened.
    pub muted: bool,
}

/// What the payload type of a packet stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PayloadFormat {
    /// The codec.
    pub codec: Codec,
    /// RTP clock, hertz.
    pub clock_rate: u32,
    /// Of sound; 0 for video.
    pub channels: u8,
}

/// Monotonic time since the source began: what `RoomEvent`s are stamped with.
pub type SourceTime = Duration;
