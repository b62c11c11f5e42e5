//! The packets of a copied sound, each beginning where the one before ends. In: packets with the places that the timeline
//! gave them. Out: the same packets, and silence where there are none. Pure.
//!
//! Decoders count samples: ffmpeg, `decodeAudioData`, `opusdec` and what stands on them play no hole, and 12 s of speech
//! with 4 s of pauses (Opus' DTX, mutes) come out as 8 s. RFC 7845 4.1 asks muxers to fill such gaps. Our silence is coded,
//! and does not ask for concealment as the RFC suggests: ffmpeg's own Opus decoder conceals nothing.

use bytes::Bytes;

use crate::encoded::opus_duration_ns;
use crate::track::Codec;

const MS: u64 = 1_000_000;

/// A packet that begins so much later than the one before it ends comes after a hole. Slewing moves the places of two
/// neighbours by less than 1 ms.
const HOLE_NS: u64 = 10 * MS;
/// Packets that stand so far from their places, because the publisher's clock is not ours, are moved by a silence or by
/// leaving one out: at a quiet packet …
const DRIFT_NS: u64 = 20 * MS;
/// … and this far off at any.
const MAX_DRIFT_NS: u64 = 60 * MS;
/// What is left out this far from its place was not drift: its time was silence already.
const LATE_NS: u64 = 200 * MS;

/// Opus frames of the CELT mode, full band: length and configuration number (RFC 6716, 3.1).
const SILENT_FRAMES: [(u64, u8); 4] = [(20 * MS, 31), (10 * MS, 30), (5 * MS, 29), (OPUS_UNIT_NS, 28)];
/// Every Opus packet is a multiple of this, and at most 120 ms.
const OPUS_UNIT_NS: u64 = 2_500_000;
const MAX_OPUS_NS: u64 = 120 * MS;
/// The silence flag of a CELT frame and nothing else.
const SILENT_FRAME: [u8; 2] = [0xff, 0xfe];
/// Of the TOC byte: the packet is stereo; it says how many frames it has.
const STEREO: u8 = 0x04;
const COUNTED: u8 = 0x03;

/// One sample of G.711.
const G711_SAMPLE_NS: u64 = 125_000;
/// Silence of µ-law and of A-law.
const PCMU_SILENCE: [u8; 960] = [0xff; 960];
const PCMA_SILENCE: [u8; 960] = [0xd5; 960];

/// Silence is not cut smaller than this without need.
const MIN_PACKET_NS: u64 = 10 * MS;
const USUAL_PACKET_NS: u64 = 20 * MS;

/// A packet of silence and where it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SilentPacket {
    /// Since the beginning of the file, nanoseconds.
    pub at_ns: u64,
    /// As the stream's other packets.
    pub data: Bytes,
}

/// Where packets of one track stand in the file.
#[derive(Debug)]
pub struct PacketGrid {
    codec: Codec,
    /// Where the next packet begins.
    end_ns: u64,
    /// Where the last packet ends by its own place.
    placed_end_ns: u64,
    /// Length of the stream's packets.
    packet_ns: u64,
    /// Of the stream's TOC bytes.
    stereo: u8,
    /// Bytes of a packet that holds sound; 0: none has come.
    usual_bytes: usize,
    late_ns: u64,
}

impl PacketGrid {
    /// Of a file that begins now. `codec` is of sound.
    pub fn new(codec: Codec) -> Self {
        Self { codec, end_ns: 0, placed_end_ns: 0, packet_ns: USUAL_PACKET_NS, stereo: 0, usual_bytes: 0, late_ns: 0 }
    }

    /// A packet whose place is `at_ns`: up to where silence comes before it. [`PacketGrid::silence_before`] gives that,
    /// then [`PacketGrid::put`] takes the packet. `None`: it is left out, being no packet or too late.
    pub fn admit(&mut self, at_ns: u64, packet: &[u8]) -> Option<u64> {
        let length_ns = self.length_ns(packet)?;
        self.packet_ns = length_ns;
        self.stereo = packet.first().map_or(0, |toc| toc & STEREO);
        let after_hole = at_ns >= self.placed_end_ns.saturating_add(HOLE_NS);
        self.placed_end_ns = at_ns.saturating_add(length_ns);
        let allowed_ns = if self.is_quiet(packet) { DRIFT_NS } else { MAX_DRIFT_NS };
        let overlap_ns = self.end_ns.saturating_sub(at_ns);
        if overlap_ns >= allowed_ns.max(length_ns) {
            if overlap_ns >= LATE_NS {
                self.late_ns += length_ns;
            }
            return None;
        }
        Some(if after_hole {
            at_ns
        } else if at_ns.saturating_sub(self.end_ns) >= allowed_ns {
            self.end_ns + DRIFT_NS
        } else {
            self.end_ns
        })
    }

    /// As far towards `to_ns` as silence of the usual length reaches, for silence that goes on.
    pub fn whole_to(&self, to_ns: u64) -> u64 {
        let usual_ns = self.packet_ns.max(MIN_PACKET_NS);
        self.end_ns + to_ns.saturating_sub(self.end_ns) / usual_ns * usual_ns
    }

    /// The next silence on the way to `to_ns`. `None`: less than a packet can hold is missing.
    pub fn silence_before(&mut self, to_ns: u64) -> Option<SilentPacket> {
        let missing_ns = to_ns.saturating_sub(self.end_ns);
        let usual_ns = self.packet_ns.max(MIN_PACKET_NS);
        let (length_ns, data) = match self.codec {
            Codec::Opus => {
                let mut lengths = [usual_ns].into_iter().chain(SILENT_FRAMES.map(|(frame_ns, _)| frame_ns));
                // To the nearest unit.
                let length_ns = lengths.find(|length_ns| missing_ns + OPUS_UNIT_NS / 2 >= *length_ns)?;
                (length_ns, opus_silence(length_ns, self.stereo))
            }
            codec => {
                let all = Bytes::from_static(if codec == Codec::Pcma { &PCMA_SILENCE } else { &PCMU_SILENCE });
                let samples = (missing_ns.min(usual_ns) / G711_SAMPLE_NS).min(all.len() as u64);
                (samples * G711_SAMPLE_NS, all.slice(..samples as usize))
            }
        };
        if length_ns == 0 {
            return None;
        }
        let at_ns = self.end_ns;
        self.end_ns += length_ns;
        Some(SilentPacket { at_ns, data })
    }

    /// The packet that was admitted: where it begins, nanoseconds since the beginning of the file.
    pub fn put(&mut self, packet: &[u8]) -> u64 {
        if self.usual_bytes == 0 {
            self.usual_bytes = packet.len();
        } else if !self.is_quiet(packet) {
            self.usual_bytes = (self.usual_bytes * 15 + packet.len()).div_ceil(16);
        }
        let at_ns = self.end_ns;
        self.end_ns += self.packet_ns;
        at_ns
    }

    /// Sound that was left out because it came when its time was silence already, nanoseconds.
    pub fn late_ns(&self) -> u64 {
        self.late_ns
    }

    /// `None` for what no decoder takes.
    fn length_ns(&self, packet: &[u8]) -> Option<u64> {
        let (length_ns, max_ns) = match self.codec {
            Codec::Opus => (opus_duration_ns(packet), MAX_OPUS_NS),
            _ => (packet.len() as u64 * G711_SAMPLE_NS, u64::MAX),
        };
        (1..=max_ns).contains(&length_ns).then_some(length_ns)
    }

    /// Half as large as usual: a pause of speech, where a moved packet is not heard. All packets of G.711 are equal.
    fn is_quiet(&self, packet: &[u8]) -> bool {
        self.codec == Codec::Opus && packet.len() * 2 <= self.usual_bytes
    }
}

/// A packet of silence; its length is a multiple of 2.5 ms up to 120 ms.
fn opus_silence(length_ns: u64, stereo: u8) -> Bytes {
    let whole = SILENT_FRAMES.into_iter().find(|(frame_ns, _)| length_ns.is_multiple_of(*frame_ns));
    let (frame_ns, configuration) = whole.unwrap_or((OPUS_UNIT_NS, 28));
    let toc = (configuration << 3) | stereo;
    let count = (length_ns / frame_ns) as u8;
    let mut packet = if count == 1 { vec![toc] } else { vec![toc | COUNTED, count] };
    // All frames have the same size: CBR, no padding.
    packet.extend(SILENT_FRAME.repeat(usize::from(count)));
    packet.into()
}

#[cfg(test)]
#[path = "packet_grid_tests.rs"]
mod tests;
