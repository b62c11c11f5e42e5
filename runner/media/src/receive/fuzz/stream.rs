//! What one stream of a [fuzz run](super) sends: frames of any codec in order, damaged ones, bytes and numbers by chance, frames
//! that do not end, floods.

use bytes::Bytes;
use rand::RngExt;
use rand::rngs::SmallRng;

use crate::receive::event::{PayloadFormat, RoomEvent};
use crate::track::Codec;
use crate::units::{RtpTime, SeqNo, Ssrc};

const CODECS: [Codec; 8] =
    [Codec::H264, Codec::H265, Codec::Vp8, Codec::Vp9, Codec::Av1, Codec::Opus, Codec::Pcmu, Codec::Pcma];

/// How a stream sends for a while.
#[derive(Clone, Copy, PartialEq, Eq)]
enum SendingMode {
    /// Whole frames in order; some packets are lost, repeated, late or damaged.
    Ordinary,
    /// Numbers, times, codecs and bytes by chance.
    Arbitrary,
    /// One frame that does not end.
    Endless,
    /// Frames of different times, all at once.
    Flood,
}

/// What the wire says of a stream.
pub(super) struct FuzzStream {
    pub(super) ssrc: Ssrc,
    seq: SeqNo,
    pub(super) rtp: RtpTime,
    form: PayloadFormat,
    mode: SendingMode,
    /// Packets until it sends in another way.
    left: u32,
}

impl FuzzStream {
    pub(super) fn new(ssrc: Ssrc) -> Self {
        Self {
            ssrc,
            seq: SeqNo::new(1 << 16),
            rtp: RtpTime::new(1 << 32),
            form: form(Codec::Opus),
            mode: SendingMode::Ordinary,
            left: 0,
        }
    }

    /// It sends all at once, and time stands still meanwhile.
    pub(super) fn is_flooding(&self) -> bool {
        self.left > 0 && matches!(self.mode, SendingMode::Endless | SendingMode::Flood)
    }

    /// Sends in another way, if it has sent long enough in this one.
    pub(super) fn go_on(&mut self, rng: &mut SmallRng) {
        if self.left > 0 {
            return;
        }
        let (mode, lasts) = match rng.random_range(0..100) {
            0..60 => (SendingMode::Ordinary, 1..2000),
            60..97 => (SendingMode::Arbitrary, 1..100),
            97 => (SendingMode::Endless, 1..40_000),
            _ => (SendingMode::Flood, 1..20_000),
        };
        let left: u32 = rng.random_range(lasts);
        (self.mode, self.left) = (mode, left);
        if mode != SendingMode::Arbitrary {
            self.form = form(codec(rng));
        }
    }

    /// The next packet.
    pub(super) fn packet(&mut self, rng: &mut SmallRng) -> RoomEvent {
        self.left = self.left.saturating_sub(1);
        match self.mode {
            SendingMode::Ordinary => self.ordinary(rng),
            SendingMode::Arbitrary => self.arbitrary(rng),
            SendingMode::Endless => self.endless(rng),
            SendingMode::Flood => self.flood(rng),
        }
    }

    fn ordinary(&mut self, rng: &mut SmallRng) -> RoomEvent {
        let key = rng.random_bool(0.1);
        let mut payload = frame(self.form.codec, key, rng);
        if rng.random_bool(0.05) {
            damage(&mut payload, rng);
        }
        let mut seq = self.seq.next();
        match rng.random_range(0..100) {
            // Again, or late.
            0 => seq = self.seq,
            1 => seq = self.seq.back(rng.random_range(1..20u64)),
            // Some are lost.
            2 => (0..rng.random_range(2..50u32)).for_each(|_| seq = seq.next()),
            _ => {}
        }
        self.seq = self.seq.max(seq);
        if rng.random_bool(0.998) {
            self.advance(if self.form.codec.is_video() { 30 } else { 50 });
        }
        self.event(seq, true, payload)
    }

    fn arbitrary(&mut self, rng: &mut SmallRng) -> RoomEvent {
        self.seq = self.seq.extend(rng.random::<u16>());
        self.rtp = self.rtp.extend(rng.random::<u32>()).unwrap_or(self.rtp);
        self.form = form(codec(rng));
        let (marker, payload) = (rng.random_bool(0.5), bytes(rng));
        self.event(self.seq, marker, payload)
    }

    fn endless(&mut self, rng: &mut SmallRng) -> RoomEvent {
        let mut payload = frame(self.form.codec, false, rng);
        payload.resize(rng.random_range(1..1400usize), 0);
        self.seq = self.seq.next();
        self.event(self.seq, false, payload)
    }

    fn flood(&mut self, rng: &mut SmallRng) -> RoomEvent {
        let payload = frame(self.form.codec, true, rng);
        self.seq = self.seq.next();
        self.advance(50);
        self.event(self.seq, true, payload)
    }

    /// RTP time goes on by one of so many frames a second.
    fn advance(&mut self, per_second: u32) {
        let wire = self.rtp.on_wire().wrapping_add(self.form.clock_rate / per_second);
        self.rtp = self.rtp.extend(wire).unwrap_or(self.rtp);
    }

    fn event(&self, seq: SeqNo, marker: bool, payload: Vec<u8>) -> RoomEvent {
        let payload = Bytes::from(payload);
        RoomEvent::Packet { stream: self.ssrc, seq, rtp: self.rtp, marker, form: self.form, payload }
    }
}

fn codec(rng: &mut SmallRng) -> Codec {
    CODECS[rng.random_range(0..CODECS.len())]
}

fn form(codec: Codec) -> PayloadFormat {
    match codec {
        Codec::Opus => PayloadFormat { codec, clock_rate: 48_000, channels: 2 },
        Codec::Pcmu | Codec::Pcma => PayloadFormat { codec, clock_rate: 8000, channels: 1 },
        _ => PayloadFormat { codec, clock_rate: 90_000, channels: 0 },
    }
}

/// A frame in one packet; of H264 and H265 without parameter sets, which are among what comes by chance.
fn frame(codec: Codec, key: bool, rng: &mut SmallRng) -> Vec<u8> {
    let (width, height) = (rng.random_range(16..2000u16), rng.random_range(16..2000u16));
    let mut frame: Vec<u8> = match codec {
        Codec::Vp8 if key => {
            let head: [u8; 7] = [0x10, 0x10, 2, 0, 0x9d, 1, 0x2a];
            [&head[..], &width.to_le_bytes()[..], &height.to_le_bytes()[..]].concat()
        }
        Codec::Vp8 => vec![0x10, 0x11, 2, 0],
        Codec::Vp9 if key => {
            let head: [u8; 6] = [0x0c, 0x82, 0x49, 0x83, 0x42, 0];
            [&head[..], &width.to_be_bytes()[..], &height.to_be_bytes()[..]].concat()
        }
        Codec::Vp9 => vec![0x0c, 0x86],
        Codec::H264 => vec![if key { 0x65 } else { 0x41 }, 0x88],
        Codec::H265 => vec![if key { 0x26 } else { 0x02 }, 0x01, 0x80],
        Codec::Av1 => vec![if key { 0x18 } else { 0x10 }, 0x32],
        Codec::Opus => vec![0x78],
        Codec::Pcmu | Codec::Pcma => vec![],
    };
    let begins = frame.len();
    frame.resize(begins + rng.random_range(1..300usize), 0);
    rng.fill(&mut frame[begins..]);
    frame
}

fn bytes(rng: &mut SmallRng) -> Vec<u8> {
    let most: usize = match rng.random_range(0..1000) {
        0 => 60_000,
        1..100 => 1400,
        100..120 => 1,
        _ => 64,
    };
    let mut bytes = vec![0u8; rng.random_range(0..most)];
    rng.fill(&mut bytes[..]);
    bytes
}

/// A bit is turned, or the end is missing.
fn damage(payload: &mut Vec<u8>, rng: &mut SmallRng) {
    let at = rng.random_range(0..payload.len());
    if rng.random_bool(0.5) {
        payload.truncate(at);
    } else {
        payload[at] ^= 1u8 << rng.random_range(0..8u32);
    }
}
