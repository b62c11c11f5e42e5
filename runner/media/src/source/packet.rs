use std::time::Duration;

use bytes::Bytes;

/// One RTP packet as it came off the wire, retransmissions already mapped back onto the stream they belong to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Extended: never wraps.
    pub seq: u64,
    /// Extended RTP time in ticks of the codec's clock.
    pub rtp: u64,
    /// The codec says that a frame may begin here. Always true for sound.
    pub starts: bool,
    /// The frame is over after this packet: the marker bit of video; always true for sound.
    pub ends: bool,
    /// Empty: padding, which takes a sequence number and says nothing.
    pub payload: Bytes,
    /// When it arrived, since the source began.
    pub at: Duration,
}
