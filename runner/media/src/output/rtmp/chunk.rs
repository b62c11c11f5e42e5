//! RTMP messages cut into chunks and put together again (Adobe, RTMP 1.0, 5.3). Bytes in, messages out, and back; pure.
//! Whatever a server sends, the reader holds at most 256 KiB of unfinished messages and never panics.

use std::collections::BTreeMap;

/// What both sides begin with.
const DEFAULT_CHUNK_SIZE: usize = 128;
/// Longer messages are read past and not kept: what a server says to a publisher is short.
const MAX_MESSAGE_BYTES: usize = 64 << 10;
/// Of all unfinished messages together.
const MAX_HELD_BYTES: usize = 256 << 10;
/// A server uses three or four chunk streams; the protocol has 65 597.
const MAX_CHUNK_STREAMS: usize = 64;
/// A time stamp that does not fit into three bytes stands behind the header.
const EXTENDED: u32 = 0xff_ffff;

/// One message, without the chunks it came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RtmpMessage {
    /// Message type id, see the constants.
    pub kind: u8,
    /// Message stream: 0 is the connection itself.
    pub stream: u32,
    /// Milliseconds since a beginning that the sender chose; wraps after 49 days.
    pub time_ms: u32,
    /// Payload.
    pub body: Vec<u8>,
}

impl RtmpMessage {
    /// New chunk size of the sender; the reader acts on it itself.
    pub const SET_CHUNK_SIZE: u8 = 1;
    /// The unfinished message of a chunk stream goes on no further; the reader acts on it itself.
    pub const ABORT: u8 = 2;
    /// Bytes received so far, modulo 2³².
    pub const ACKNOWLEDGEMENT: u8 = 3;
    /// Events of the connection: ping request (6) and response (7) among them.
    pub const USER_CONTROL: u8 = 4;
    /// After how many bytes the receiver is to acknowledge.
    pub const WINDOW_SIZE: u8 = 5;
    /// An FLV audio tag's body.
    pub const AUDIO: u8 = 8;
    /// An FLV video tag's body.
    pub const VIDEO: u8 = 9;
    /// A command in AMF3: a zero byte, then AMF0.
    pub const COMMAND_AMF3: u8 = 17;
    /// Metadata in AMF0.
    pub const DATA: u8 = 18;
    /// A command in AMF0.
    pub const COMMAND: u8 = 20;
}

/// The bytes are no chunks, or more than a server has to say. The connection cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// A header refers to an earlier one that was not sent.
    #[error("a chunk without a header")]
    NoHeader,
    /// More chunk streams than a server needs.
    #[error("too many chunk streams")]
    TooManyStreams,
    /// Too much unfinished.
    #[error("too many unfinished messages")]
    TooMuch,
    /// A chunk size of zero.
    #[error("a chunk size of zero")]
    ChunkSize,
}

/// Writes messages as chunks. Every message has a full header (12 bytes): headers that refer to earlier ones would save
/// 0.2 % of a stream of 3 Mbit/s.
#[derive(Debug)]
pub struct ChunkWriter {
    chunk_size: usize,
}

impl Default for ChunkWriter {
    fn default() -> Self {
        Self { chunk_size: DEFAULT_CHUNK_SIZE }
    }
}

impl ChunkWriter {
    /// Tells the other side a new chunk size, and uses it from the next message on.
    pub fn set_chunk_size(&mut self, out: &mut Vec<u8>, chunk_size: u32) {
        let body = chunk_size.to_be_bytes();
        self.write(out, 2, RtmpMessage::SET_CHUNK_SIZE, 0, 0, &body);
        self.chunk_size = (chunk_size as usize).max(1);
    }

    /// Appends one message. `chunk_stream` is 2 to 63; `body` has less than 16 MiB.
    pub fn write(&self, out: &mut Vec<u8>, chunk_stream: u8, kind: u8, stream: u32, time_ms: u32, body: &[u8]) {
        let extended = time_ms >= EXTENDED;
        let extension = time_ms.to_be_bytes();
        out.push(chunk_stream);
        out.extend_from_slice(&time_ms.min(EXTENDED).to_be_bytes()[1..]);
        out.extend_from_slice(&(body.len() as u32).to_be_bytes()[1..]);
        out.push(kind);
        out.extend_from_slice(&stream.to_le_bytes());
        if extended {
            out.extend_from_slice(&extension);
        }
        for (n, part) in body.chunks(self.chunk_size).enumerate() {
            if n > 0 {
                out.push(0xc0 | chunk_stream);
                if extended {
                    out.extend_from_slice(&extension);
                }
            }
            out.extend_from_slice(part);
        }
    }
}

/// Puts messages together from the bytes of a connection, in pieces of any length.
#[derive(Debug)]
pub struct ChunkReader {
    chunk_size: usize,
    /// Of the chunk that comes in; at most 18 bytes.
    header: Vec<u8>,
    /// Chunk stream and how many bytes of its chunk are to come.
    payload: Option<(u32, usize)>,
    streams: BTreeMap<u32, ChunkStream>,
    held: usize,
}

/// What the header of the next chunk may leave out, and the unfinished message.
#[derive(Debug, Default)]
struct ChunkStream {
    time_ms: u32,
    delta_ms: u32,
    extended: bool,
    length: usize,
    kind: u8,
    stream: u32,
    body: Vec<u8>,
    /// Bytes of the message that came, kept or not.
    taken: usize,
}

impl Default for ChunkReader {
    fn default() -> Self {
        Self { chunk_size: DEFAULT_CHUNK_SIZE, header: Vec::new(), payload: None, streams: BTreeMap::new(), held: 0 }
    }
}

impl ChunkReader {
    /// The messages that these bytes complete.
    ///
    /// # Errors
    ///
    /// When the bytes are no chunks or exceed the bounds; for good.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<Vec<RtmpMessage>, ChunkError> {
        let mut messages = Vec::new();
        while !bytes.is_empty() {
            if let Some((id, left)) = self.payload {
                let (part, rest) = bytes.split_at(left.min(bytes.len()));
                bytes = rest;
                self.take(id, part)?;
                let left = left - part.len();
                self.payload = (left > 0).then_some((id, left));
                if left == 0 {
                    messages.extend(self.finished(id)?);
                }
                continue;
            }
            let missing = self.header_length() - self.header.len();
            let (part, rest) = bytes.split_at(missing.min(bytes.len()));
            bytes = rest;
            self.header.extend_from_slice(part);
            if self.header.len() == self.header_length() {
                let (id, left) = self.begin()?;
                self.header.clear();
                if left == 0 {
                    messages.extend(self.finished(id)?);
                } else {
                    self.payload = Some((id, left));
                }
            }
        }
        Ok(messages)
    }

    /// Bytes of the basic header: chunk streams above 63 take more.
    fn basic_length(&self) -> usize {
        match self.header.first().map(|first| first & 63) {
            Some(0) => 2,
            Some(1) => 3,
            _ => 1,
        }
    }

    fn chunk_stream(&self) -> u32 {
        let byte = |at: usize| self.header.get(at).copied().map_or(0, u32::from);
        match byte(0) & 63 {
            0 => byte(1) + 64,
            1 => byte(1) + byte(2) * 256 + 64,
            id => id,
        }
    }

    /// As long as the header is, by what of it is known.
    fn header_length(&self) -> usize {
        let basic = self.basic_length();
        if self.header.len() < basic {
            return basic;
        }
        let format = self.header[0] >> 6;
        let length = basic + [11, 7, 3, 0][usize::from(format)];
        if self.header.len() < length {
            return length;
        }
        let extended = if format < 3 {
            self.header[basic..basic + 3] == [0xff; 3]
        } else {
            self.streams.get(&self.chunk_stream()).is_some_and(|stream| stream.extended)
        };
        length + if extended { 4 } else { 0 }
    }

    /// A whole header: its chunk stream, and bytes of its chunk.
    fn begin(&mut self) -> Result<(u32, usize), ChunkError> {
        let (id, basic, format) = (self.chunk_stream(), self.basic_length(), self.header[0] >> 6);
        if !self.streams.contains_key(&id) {
            if format > 1 {
                return Err(ChunkError::NoHeader);
            }
            if self.streams.len() >= MAX_CHUNK_STREAMS {
                return Err(ChunkError::TooManyStreams);
            }
        }
        let fields = &self.header[basic..];
        let stream = self.streams.entry(id).or_default();
        if format < 3 {
            // A header in the middle of a message begins another one.
            self.held -= stream.body.len();
            stream.body = Vec::new();
            stream.taken = 0;
            stream.extended = fields[..3] == [0xff; 3];
            let short = u32::from_be_bytes([0, fields[0], fields[1], fields[2]]);
            let time_ms = match fields.last_chunk::<4>() {
                Some(extension) if stream.extended => u32::from_be_bytes(*extension),
                _ => short,
            };
            if format == 0 {
                (stream.time_ms, stream.delta_ms) = (time_ms, 0);
            } else {
                stream.delta_ms = time_ms;
            }
        }
        if format < 2 {
            stream.length = u32::from_be_bytes([0, fields[3], fields[4], fields[5]]) as usize;
            stream.kind = fields[6];
        }
        if format == 0 {
            stream.stream = u32::from_le_bytes([fields[7], fields[8], fields[9], fields[10]]);
        }
        if stream.taken == 0 {
            stream.time_ms = stream.time_ms.wrapping_add(stream.delta_ms);
        }
        Ok((id, self.chunk_size.min(stream.length - stream.taken)))
    }

    fn take(&mut self, id: u32, part: &[u8]) -> Result<(), ChunkError> {
        let Some(stream) = self.streams.get_mut(&id) else { return Err(ChunkError::NoHeader) };
        stream.taken += part.len();
        if stream.length <= MAX_MESSAGE_BYTES {
            self.held += part.len();
            if self.held > MAX_HELD_BYTES {
                return Err(ChunkError::TooMuch);
            }
            stream.body.extend_from_slice(part);
        }
        Ok(())
    }

    /// The message of a chunk stream, when this was its last chunk.
    fn finished(&mut self, id: u32) -> Result<Option<RtmpMessage>, ChunkError> {
        let Some(stream) = self.streams.get_mut(&id) else { return Err(ChunkError::NoHeader) };
        if stream.taken < stream.length {
            return Ok(None);
        }
        stream.taken = 0;
        let body = std::mem::take(&mut stream.body);
        self.held -= body.len();
        if stream.length > MAX_MESSAGE_BYTES {
            return Ok(None);
        }
        let message = RtmpMessage { kind: stream.kind, stream: stream.stream, time_ms: stream.time_ms, body };
        let argument = message.body.first_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes));
        match (message.kind, argument) {
            (RtmpMessage::SET_CHUNK_SIZE, Some(size)) => {
                // The first bit must be zero, and no message is longer than 24 bits can say.
                self.chunk_size = (size & 0x7fff_ffff).min(EXTENDED) as usize;
                if self.chunk_size == 0 {
                    return Err(ChunkError::ChunkSize);
                }
            }
            (RtmpMessage::ABORT, Some(id)) => {
                if let Some(stream) = self.streams.get_mut(&id) {
                    self.held -= stream.body.len();
                    stream.body = Vec::new();
                    stream.taken = 0;
                }
            }
            _ => {}
        }
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(size: Option<u32>, messages: &[(u8, RtmpMessage)]) -> Vec<u8> {
        let (mut writer, mut out) = (ChunkWriter::default(), Vec::new());
        if let Some(size) = size {
            writer.set_chunk_size(&mut out, size);
        }
        for (id, message) in messages {
            writer.write(&mut out, *id, message.kind, message.stream, message.time_ms, &message.body);
        }
        out
    }

    fn media(reader: &mut ChunkReader, bytes: &[u8], piece: usize) -> Vec<RtmpMessage> {
        let read: Vec<_> = bytes.chunks(piece).flat_map(|piece| reader.push(piece).unwrap()).collect();
        read.into_iter().filter(|message| message.kind != RtmpMessage::SET_CHUNK_SIZE).collect()
    }

    #[test]
    fn short_headers_take_the_rest_from_the_one_before() {
        let mut bytes = written(None, &[(3, RtmpMessage { kind: 8, stream: 1, time_ms: 100, body: vec![1, 2] })]);
        bytes.extend_from_slice(&[0x40 | 3, 0, 0, 20, 0, 0, 1, 9, 7]);
        bytes.extend_from_slice(&[0x80 | 3, 0, 0, 5, 8]);
        bytes.extend_from_slice(&[0xc0 | 3, 9]);
        let read = ChunkReader::default().push(&bytes).unwrap();
        let read: Vec<_> = read.iter().map(|m| (m.kind, m.stream, m.time_ms, &m.body[..])).collect();
        assert_eq!(read, [(8, 1, 100, &[1, 2][..]), (9, 1, 120, &[7]), (9, 1, 125, &[8]), (9, 1, 130, &[9])]);
    }

    #[test]
    fn chunk_streams_interleave_and_have_long_numbers() {
        let long = |format: u8| [format << 6 | 1, 200, 3];
        let mut bytes = [&long(0)[..], &[0, 0, 1, 0, 0, 200, 18, 1, 0, 0, 0], &[5; 128]].concat();
        bytes.extend(written(None, &[(2, RtmpMessage { kind: 4, stream: 0, time_ms: 0, body: vec![0, 6] })]));
        bytes.extend([&long(3)[..], &[6; 72]].concat());
        let read = ChunkReader::default().push(&bytes).unwrap();
        assert_eq!(read.iter().map(|m| (m.kind, m.body.len())).collect::<Vec<_>>(), [(4, 2), (18, 200)]);
    }

    #[test]
    fn what_a_publisher_need_not_hear_is_read_past() {
        let huge = RtmpMessage { kind: 9, stream: 1, time_ms: 0, body: vec![1; MAX_MESSAGE_BYTES + 1] };
        let small = RtmpMessage { kind: 20, stream: 0, time_ms: 7, body: vec![2; 300] };
        let bytes = written(Some(1000), &[(4, huge), (3, small.clone())]);
        assert_eq!(media(&mut ChunkReader::default(), &bytes, 777), [small]);
    }

    #[test]
    fn an_abort_ends_an_unfinished_message() {
        let mut bytes = written(None, &[(5, RtmpMessage { kind: 20, stream: 0, time_ms: 0, body: vec![1; 200] })]);
        bytes.truncate(12 + 128);
        let abort = RtmpMessage { kind: RtmpMessage::ABORT, stream: 0, time_ms: 0, body: 5u32.to_be_bytes().into() };
        let after = RtmpMessage { kind: 20, stream: 0, time_ms: 0, body: vec![2; 3] };
        bytes.extend(written(None, &[(2, abort.clone()), (5, after.clone())]));
        let mut reader = ChunkReader::default();
        assert_eq!(reader.push(&bytes).unwrap(), [abort, after]);
        assert_eq!(reader.held, 0);
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        assert_eq!(ChunkReader::default().push(&[0xc3]), Err(ChunkError::NoHeader));
        let zero = written(None, &[(2, RtmpMessage { kind: 1, stream: 0, time_ms: 0, body: vec![0; 4] })]);
        assert_eq!(ChunkReader::default().push(&zero), Err(ChunkError::ChunkSize));
        let mut reader = ChunkReader::default();
        let begun = |id: u8| [id, 0, 0, 0, 0, 1, 0, 8, 0, 0, 0, 0].into_iter().chain([0; 128]);
        let streams: Vec<u8> = (2..64).flat_map(begun).collect();
        assert!(reader.push(&streams).is_ok());
        let beyond = |id: u8| [0, id, 0, 0, 0, 0, 1, 0, 8, 0, 0, 0, 0].into_iter().chain([0; 128]);
        let more: Vec<u8> = (0..3).flat_map(beyond).collect();
        assert_eq!(reader.push(&more), Err(ChunkError::TooManyStreams));
    }

    #[test]
    fn unfinished_messages_are_bounded() {
        let mut bytes = written(Some(60_000), &[]);
        for id in 3..10u8 {
            bytes.extend_from_slice(&[id, 0, 0, 0, 0, 0xff, 0xff, 8, 0, 0, 0, 0]);
            bytes.extend(vec![0; 60_000]);
        }
        let mut reader = ChunkReader::default();
        assert_eq!(reader.push(&bytes), Err(ChunkError::TooMuch));
        assert!(reader.held <= MAX_HELD_BYTES + 60_000);
    }

    fn message() -> impl Strategy<Value = (u8, RtmpMessage)> {
        let kind = prop_oneof![Just(3u8), Just(4), Just(8), Just(9), Just(18), Just(20)];
        let time = prop_oneof![any::<u32>(), 0xff_fffeu32..0x100_0001];
        let body = proptest::collection::vec(any::<u8>(), 0..700);
        (2u8..64, kind, any::<u32>(), time, body)
            .prop_map(|(id, kind, stream, time_ms, body)| (id, RtmpMessage { kind, stream, time_ms, body }))
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            size in proptest::option::of(1u32..400),
            messages in proptest::collection::vec(message(), 0..8),
            piece in 1usize..200,
        ) {
            let mut reader = ChunkReader::default();
            let read = media(&mut reader, &written(size, &messages), piece);
            prop_assert_eq!(read, messages.into_iter().map(|(_, message)| message).collect::<Vec<_>>());
            prop_assert_eq!(reader.held, 0);
        }

        #[test]
        fn any_bytes_are_read_or_refused(
            bytes in proptest::collection::vec(prop_oneof![Just(0u8), Just(2), Just(0xc2), any::<u8>()], 0..2000),
            piece in 1usize..300,
        ) {
            let mut reader = ChunkReader::default();
            for piece in bytes.chunks(piece) {
                if reader.push(piece).is_err() {
                    break;
                }
                let held: usize = reader.streams.values().map(|stream| stream.body.len()).sum();
                prop_assert_eq!(held, reader.held);
                prop_assert!(reader.held <= bytes.len() && reader.header.len() <= 18);
            }
        }
    }
}
