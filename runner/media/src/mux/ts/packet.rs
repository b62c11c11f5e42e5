//! Packets of one PID: sections, PES packets and clock references become packets of 188 bytes, with the PID's continuity
//! counter (ISO/IEC 13818-1 2.4). Pure: appends to a buffer.

/// Bytes of a packet.
pub const PACKET_BYTES: usize = 188;
/// Bytes of a packet behind its four bytes of header.
const BODY_BYTES: usize = PACKET_BYTES - 4;
/// Time stamps and the base of the clock have so many bits: 26.5 hours at 90 kHz.
const TIME_MASK: u64 = (1 << 33) - 1;
/// Bytes of a PES header that count as its length: two of flags, one of length, five of the time stamp.
const PES_HEADER_BYTES: usize = 8;

const START: u16 = 0x4000;
const HAS_FIELD: u8 = 0x20;
const HAS_PAYLOAD: u8 = 0x10;
const RANDOM_ACCESS: u8 = 0x40;
const HAS_CLOCK: u8 = 0x10;

/// What stands in front of a PES packet's data. Times in 90 kHz, not wrapped.
#[derive(Clone, Copy, Debug)]
pub struct PesHead {
    /// Kind and number of the stream: 0xe0 and up for video, 0xc0 and up for sound.
    pub stream_id: u8,
    /// Presentation time.
    pub pts: u64,
    /// A decoder may begin here.
    pub random_access: bool,
    /// Clock reference in the first packet.
    pub clock: Option<u64>,
}

/// Writes the packets of one PID.
#[derive(Clone, Debug)]
pub struct PidWriter {
    pid: u16,
    /// Of the next packet with a payload; 4 bits.
    counter: u8,
}

impl PidWriter {
    /// Counts from 0.
    pub const fn new(pid: u16) -> Self {
        Self { pid, counter: 0 }
    }

    /// A section that fits one packet: table id and length included, checksum appended here.
    pub fn section(&mut self, out: &mut Vec<u8>, section: &[u8]) {
        let mut payload = [0xff; BODY_BYTES];
        let end = 1 + section.len();
        // The section begins right behind the pointer.
        payload[0] = 0;
        payload[1..end].copy_from_slice(section);
        payload[end..end + 4].copy_from_slice(&crc(section).to_be_bytes());
        self.packet(out, true, &[], &payload);
    }

    /// One PES packet. Its length is written where 16 bits hold it: a receiver need not wait for the next packet then, and
    /// sees when the data are torn. Only video may be longer.
    pub fn pes(&mut self, out: &mut Vec<u8>, head: PesHead, data: &[&[u8]]) {
        let length = PES_HEADER_BYTES + data.iter().map(|piece| piece.len()).sum::<usize>();
        let mut pes = Vec::with_capacity(6 + length);
        pes.extend_from_slice(&[0, 0, 1, head.stream_id]);
        pes.extend_from_slice(&u16::try_from(length).unwrap_or(0).to_be_bytes());
        // Data begin with an access unit; only a PTS; five bytes of it.
        pes.extend_from_slice(&[0x84, 0x80, 5]);
        pes.extend_from_slice(&time_stamp(head.pts));
        data.iter().for_each(|piece| pes.extend_from_slice(piece));

        let field = Field::new(head.random_access, head.clock);
        let mut rest = &pes[self.packet(out, true, field.bytes(), &pes)..];
        while !rest.is_empty() {
            rest = &rest[self.packet(out, false, &[], rest)..];
        }
    }

    /// A packet with a clock reference and nothing else. It does not count.
    pub fn clock(&mut self, out: &mut Vec<u8>, clock: u64) {
        self.packet(out, false, Field::new(false, Some(clock)).bytes(), &[]);
    }

    /// Writes one packet with as much of `payload` as fits; says how many bytes that were.
    fn packet(&mut self, out: &mut Vec<u8>, start: bool, field: &[u8], payload: &[u8]) -> usize {
        let at = out.len();
        let field_bytes = if field.is_empty() { 0 } else { 1 + field.len() };
        let taken = payload.len().min(BODY_BYTES - field_bytes);
        let before_payload = BODY_BYTES - taken;
        out.push(0x47);
        out.extend_from_slice(&(self.pid | if start { START } else { 0 }).to_be_bytes());
        let counter = if taken > 0 { self.counter } else { self.counter.wrapping_sub(1) & 15 };
        out.push(if before_payload > 0 { HAS_FIELD } else { 0 } | if taken > 0 { HAS_PAYLOAD } else { 0 } | counter);
        if taken > 0 {
            self.counter = (self.counter + 1) & 15;
        }
        if before_payload > 0 {
            out.push((before_payload - 1) as u8);
            match field {
                // Stuffing needs its flags unless it is the length alone.
                [] if before_payload > 1 => out.push(0),
                field => out.extend_from_slice(field),
            }
        }
        out.resize(at + PACKET_BYTES - taken, 0xff);
        out.extend_from_slice(&payload[..taken]);
        taken
    }
}

/// An adaptation field without its length and stuffing.
struct Field {
    bytes: [u8; 7],
    length: usize,
}

impl Field {
    fn new(random_access: bool, clock: Option<u64>) -> Self {
        let mut bytes = [0; 7];
        bytes[0] = if random_access { RANDOM_ACCESS } else { 0 } | if clock.is_some() { HAS_CLOCK } else { 0 };
        if let Some(clock) = clock {
            let base = clock & TIME_MASK;
            bytes[1..5].copy_from_slice(&((base >> 1) as u32).to_be_bytes());
            // The lowest bit, six reserved ones, and an extension of 0.
            bytes[5] = ((base & 1) as u8) << 7 | 0x7e;
        }
        let length = match (random_access, clock) {
            (_, Some(_)) => 7,
            (true, None) => 1,
            (false, None) => 0,
        };
        Self { bytes, length }
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// 33 bits in five bytes, marked as the only time stamp.
fn time_stamp(time: u64) -> [u8; 5] {
    let time = time & TIME_MASK;
    [
        0x21 | ((time >> 29) as u8 & 0x0e),
        (time >> 22) as u8,
        (time >> 14) as u8 | 1,
        (time >> 7) as u8,
        ((time << 1) as u8) | 1,
    ]
}

/// Checksum of a section (ISO/IEC 13818-1 annex A). Sections are written twice a second: no table.
fn crc(section: &[u8]) -> u32 {
    section.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ (u32::from(*byte) << 24), |crc, _| {
            if crc & 0x8000_0000 != 0 { (crc << 1) ^ 0x04c1_1db7 } else { crc << 1 }
        })
    })
}
