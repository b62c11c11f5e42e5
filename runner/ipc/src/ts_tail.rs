//! Where a segment of MPEG-TS that a killed media process left behind can be cut, and how long it then is. The bytes of
//! the file come in; pure, runs in the task that salvages. It never repairs anything: what is torn is cut off.
//!
//! Knows of a transport stream only what ours has: tables of one packet, PES packets whose packets follow one another, a
//! PES length wherever 16 bits hold it, and a PTS in every PES packet.

use std::time::Duration;

const PACKET_BYTES: usize = 188;
const H264: u8 = 0x1b;
/// Time stamps have 33 bits.
const TIME_MASK: u64 = (1 << 33) - 1;
/// Nine ticks of 90 kHz.
const NINE_TICKS_NS: u64 = 100_000;
/// How long a lone picture is shown, in 90 kHz: 30 a second.
const USUAL_STEP: u64 = 3000;
/// How long a PES packet of sound lasts at least, in 90 kHz: 1024 samples at 48 kHz.
const SOUND_STEP: u64 = 1920;
/// Sound that is further from the first picture is none of this segment's: half of what 33 bits hold means "before".
const MAX_SOUND: u64 = 1 << 32;

/// What of a segment can be played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TsTail {
    /// The file is cut to so many bytes.
    pub bytes: u64,
    /// From the first picture (sound where there are no pictures) to the end of the last whole picture or sound.
    pub length: Duration,
}

impl TsTail {
    /// Looks through a segment that nothing writes to any more. `None`: no picture (or sound, if alone) in it is whole.
    pub fn of(segment: &[u8]) -> Option<Self> {
        let mut walk = Walk::default();
        let mut end = 0;
        for bytes in segment.chunks_exact(PACKET_BYTES) {
            let Some(packet) = TsPacket::read(bytes) else { break };
            walk.packet(&packet, end);
            end += PACKET_BYTES;
        }
        if walk.open.as_ref().is_some_and(OpenPes::is_whole) {
            walk.completed(end);
        }
        let (first, last) = (walk.first?, walk.last?);
        let pictures = (last.wrapping_sub(first) & TIME_MASK) + walk.step.unwrap_or(USUAL_STEP);
        // The sound is ahead of the pictures while the encoder is behind.
        let sound = walk.sound.map(|at| at.wrapping_sub(first) & TIME_MASK).filter(|ticks| *ticks < MAX_SOUND);
        let ticks = pictures.max(sound.map_or(0, |ticks| ticks + SOUND_STEP));
        Some(Self { bytes: walk.whole_to as u64, length: Duration::from_nanos(ticks * NINE_TICKS_NS / 9) })
    }
}

#[derive(Default)]
struct Walk {
    pmt: Option<u16>,
    /// PID of the pictures, else of the sound.
    leading: Option<u16>,
    open: Option<OpenPes>,
    whole_to: usize,
    /// Time stamps of whole PES packets of the leading PID.
    first: Option<u64>,
    last: Option<u64>,
    /// From the one before the last to the last.
    step: Option<u64>,
    /// Time stamp of the newest whole PES packet of the others.
    sound: Option<u64>,
}

impl Walk {
    fn packet(&mut self, packet: &TsPacket, at: usize) {
        let goes_on = self.open.as_ref().is_some_and(|open| open.pid == packet.pid)
            && !packet.start
            && !packet.payload.is_empty();
        if let Some(open) = self.open.as_mut().filter(|_| goes_on) {
            open.taken += packet.payload.len();
            open.stuffed = packet.has_field;
            return;
        }
        // Ours follow one another without a gap: whatever comes now, the one before it is whole.
        self.completed(at);
        if !packet.start {
            return;
        }
        match packet.pid {
            0 => self.pmt = packet.payload.get(11..13).map(pid),
            table if Some(table) == self.pmt => self.leading = leading_stream(packet.payload),
            pid => self.open = OpenPes::read(pid, packet.payload),
        }
    }

    /// Everything before `end` is whole.
    fn completed(&mut self, end: usize) {
        self.whole_to = end;
        let Some(open) = self.open.take() else { return };
        if Some(open.pid) == self.leading {
            self.first = self.first.or(Some(open.pts));
            self.step = self.last.map(|last| open.pts.wrapping_sub(last) & TIME_MASK).or(self.step);
            self.last = Some(open.pts);
        } else {
            self.sound = Some(open.pts);
        }
    }
}

/// A PES packet whose end is not reached.
struct OpenPes {
    pid: u16,
    pts: u64,
    /// Bytes with the header; `None` where 16 bits do not hold it.
    length: Option<usize>,
    taken: usize,
    /// Its newest packet had to be filled up, so it is the last.
    stuffed: bool,
}

impl OpenPes {
    fn read(pid: u16, payload: &[u8]) -> Option<Self> {
        let head: &[u8; 14] = payload.first_chunk()?;
        let at = |index: usize| u64::from(head[index]);
        let pts = (((at(9) >> 1) & 7) << 30) | (at(10) << 22) | ((at(11) >> 1) << 15) | (at(12) << 7) | (at(13) >> 1);
        let length = usize::from(u16::from_be_bytes([head[4], head[5]]));
        let length = (length > 0).then_some(length + 6);
        Some(Self { pid, pts, length, taken: payload.len(), stuffed: false })
    }

    fn is_whole(&self) -> bool {
        self.length.map_or(self.stuffed, |length| self.taken >= length)
    }
}

struct TsPacket<'a> {
    pid: u16,
    start: bool,
    has_field: bool,
    payload: &'a [u8],
}

impl<'a> TsPacket<'a> {
    /// `None` for what is none: pages that were never written are zeros.
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let has_field = bytes[3] & 0x20 != 0;
        let payload = match bytes[3] & 0x30 {
            0x10 => &bytes[4..],
            0x20 => &[],
            0x30 => bytes.get(5 + usize::from(bytes[4])..)?,
            _ => return None,
        };
        (bytes[0] == 0x47).then(|| Self { pid: pid(&bytes[1..3]), start: bytes[1] & 0x40 != 0, has_field, payload })
    }
}

/// The lower 13 of 16 bits.
fn pid(bytes: &[u8]) -> u16 {
    u16::from_be_bytes([bytes[0], bytes[1]]) & 0x1fff
}

/// From a program map table behind its pointer byte: the pictures, else the first stream.
fn leading_stream(payload: &[u8]) -> Option<u16> {
    let section = payload.get(1..)?;
    let length = usize::from(u16::from_be_bytes([*section.get(1)?, *section.get(2)?]) & 0x0fff);
    // Twelve bytes of head, four of checksum, five for each stream without descriptors.
    let streams = section.get(12..(3 + length).checked_sub(4)?)?;
    let mut streams = streams.chunks_exact(5);
    let first = streams.clone().next()?;
    let video = streams.find(|stream| stream[0] == H264);
    Some(pid(&video.unwrap_or(first)[1..3]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream of one PID with PES packets of these lengths, by the book and without a muxer.
    fn stream(lengths: &[(usize, u64)]) -> (Vec<u8>, Vec<usize>) {
        let mut out = vec![];
        let mut table = |pid: u16, section: &[u8]| {
            let mut packet = vec![0x47, 0x40 | (pid >> 8) as u8, pid as u8, 0x10, 0];
            packet.extend_from_slice(section);
            packet.resize(PACKET_BYTES, 0xff);
            out.extend(packet);
        };
        table(0, &[0, 0xb0, 13, 0, 1, 0xc1, 0, 0, 0, 1, 0xf0, 0, 1, 2, 3, 4]);
        let streams = [0x0f, 0xe1, 1, 0xf0, 0, 0x1b, 0xe1, 0, 0xf0, 0, 1, 2, 3, 4];
        table(0x1000, &[&[2, 0xb0, 23, 0, 1, 0xc1, 0, 0, 0xe1, 0, 0xf0, 0], &streams[..]].concat());
        let mut ends = vec![];
        for (bytes, pts) in lengths {
            let length = u16::try_from(bytes + 8).unwrap_or(0).to_be_bytes();
            let mut pes = vec![0, 0, 1, 0xe0, length[0], length[1], 0x84, 0x80, 5];
            let low = |shift: u32| ((pts >> shift) as u8) << 1 | 1;
            pes.extend([0x21 | ((pts >> 29) as u8 & 14), (pts >> 22) as u8, low(15), (pts >> 7) as u8, low(0)]);
            pes.resize(pes.len() + bytes, 0x55);
            for (number, piece) in pes.chunks(184).enumerate() {
                let start = if number == 0 { 0x41 } else { 1 };
                let stuffing = 184 - piece.len();
                out.extend([0x47, start, 0, if stuffing > 0 { 0x30 } else { 0x10 }]);
                if stuffing > 0 {
                    out.push((stuffing - 1) as u8);
                    out.extend(std::iter::repeat_n(0, stuffing.min(2) - 1));
                    out.extend(std::iter::repeat_n(0xff, stuffing.saturating_sub(2)));
                }
                out.extend(piece);
            }
            ends.push(out.len());
        }
        (out, ends)
    }

    #[test]
    fn a_segment_is_cut_behind_its_last_whole_picture_at_whatever_byte_it_is_torn() {
        let lengths = [(5000, 0), (170, 3000), (171, 6000), (400, 9000), (3, 12_000), (700, 15_000)];
        let (bytes, ends) = stream(&lengths);
        for torn in 0..=bytes.len() {
            let whole = ends.iter().take_while(|end| **end <= torn).count();
            let expected = (whole > 0).then(|| TsTail {
                bytes: ends[whole - 1] as u64,
                length: Duration::from_nanos(whole as u64 * 100_000_000 / 3),
            });
            assert_eq!(TsTail::of(&bytes[..torn]), expected, "torn at {torn}");
        }
    }

    /// Its length says nothing: it is whole if its last packet was filled up, or something follows.
    #[test]
    fn of_a_large_picture_the_last_packet_tells() {
        for bytes in [70_000, 70_001, 184 * 400 - 14] {
            let (stream, ends) = stream(&[(100, 0), (bytes, 3600), (100, 7200)]);
            let filled_up = (bytes + 14) % 184 != 0;
            let tail = |to: usize| TsTail::of(&stream[..to]).unwrap().bytes as usize;
            assert_eq!(tail(ends[1]), ends[if filled_up { 1 } else { 0 }]);
            assert_eq!(tail(ends[1] - 188), ends[0]);
            assert_eq!(tail(ends[1] + 188), if ends[2] == ends[1] + 188 { ends[2] } else { ends[1] });
        }
    }

    /// An encoder that is behind: half a second of sound has no picture yet.
    #[test]
    fn sound_behind_the_last_picture_counts() {
        let (mut bytes, ends) = stream(&[(300, 90_000), (300, 93_000)]);
        let (sound, _) = stream(&[(300, 93_000 + 45_000)]);
        // Behind the two tables: the same PES packet as one of the sound, PID 0x101.
        let mut sound = sound[2 * PACKET_BYTES..].to_vec();
        sound.chunks_exact_mut(PACKET_BYTES).for_each(|packet| (packet[1], packet[2]) = (packet[1] & 0x40 | 1, 1));
        bytes.extend(&sound);
        let tail = TsTail::of(&bytes).unwrap();
        assert_eq!(tail.bytes as usize, ends[1] + sound.len());
        assert_eq!(tail.length, Duration::from_nanos((48_000 + SOUND_STEP) * NINE_TICKS_NS / 9));
        let (mut bytes, _) = stream(&[(300, 90_000), (300, 93_000)]);
        let (early, _) = stream(&[(300, 60_000)]);
        let mut early = early[2 * PACKET_BYTES..].to_vec();
        early.chunks_exact_mut(PACKET_BYTES).for_each(|packet| (packet[1], packet[2]) = (packet[1] & 0x40 | 1, 1));
        bytes.extend(&early);
        assert_eq!(TsTail::of(&bytes).unwrap().length, Duration::from_nanos(6000 * NINE_TICKS_NS / 9));
    }

    #[test]
    fn pages_that_were_never_written_and_a_wrap_of_the_time_stamps() {
        let wrap = TIME_MASK + 1;
        let (mut bytes, ends) = stream(&[(300, wrap - 3600), (300, 0), (300, 3600)]);
        bytes.extend([0; 4096]);
        let tail = TsTail::of(&bytes).unwrap();
        assert_eq!((tail.bytes as usize, tail.length), (ends[2], Duration::from_millis(120)));
        assert_eq!(TsTail::of(&[0; 4096]), None);
        assert_eq!(TsTail::of(&bytes[..376]), None);
        assert_eq!(TsTail::of(&[0x47; 1880]), None);
    }
}
