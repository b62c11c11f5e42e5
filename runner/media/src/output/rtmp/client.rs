//! The publisher's side of an RTMP connection as a machine without I/O: bytes of the server in, bytes for the server and
//! events out (Adobe, RTMP 1.0; releaseStream, FCPublish and FCUnpublish as FMLE sends them). Pure.
//!
//! Our own: `rml_rtmp` 0.8 would bring thirty crates, among them second versions of hmac, sha2 and rand, and knows
//! neither TLS nor how to keep a key out of texts. The digest of Adobe's own handshake is left out, no service asks for it.

use std::fmt;

use super::amf::{self, AmfValue};
use super::chunk::{ChunkReader, ChunkWriter, RtmpMessage};
use super::fault::RtmpFault;
use super::flv::FlvTag;
use super::url::RtmpUrl;

/// Version byte of C0 and S0.
const VERSION: u8 = 3;
/// C1, C2, S1 and S2.
const HANDSHAKE_BYTES: usize = 1536;
/// Of what we send.
const CHUNK_SIZE: u32 = 4096;
/// The server is asked to acknowledge after so many bytes. nginx-rtmp's own 5 MB would be 13 s of a stream.
pub const ACK_WINDOW: u32 = 64 << 10;
/// Until a server says otherwise, its received bytes are acknowledged after so many.
const DEFAULT_PEER_WINDOW: u64 = 2_500_000;
/// Answers to a server are left out while so many bytes wait for it.
const MAX_WAITING_FOR_ANSWERS: usize = 4 << 20;
/// Of a server's text.
const MAX_TEXT_CHARS: usize = 200;

const CONTROL: u8 = 2;
const COMMANDS: u8 = 3;
const STREAM_COMMANDS: u8 = 4;
const SOUND: u8 = 5;
const PICTURES: u8 = 6;

const PING_REQUEST: [u8; 2] = [0, 6];
const PING_RESPONSE: [u8; 2] = [0, 7];

/// Transaction ids of the commands, in their order.
const CONNECT_ID: f64 = 1.0;
const RELEASE_STREAM_ID: f64 = 2.0;
const FC_PUBLISH_ID: f64 = 3.0;
const CREATE_STREAM_ID: f64 = 4.0;
const PUBLISH_ID: f64 = 5.0;
const FC_UNPUBLISH_ID: f64 = 6.0;
const DELETE_STREAM_ID: f64 = 7.0;

/// What the server said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RtmpEvent {
    /// The stream is accepted: frames may be sent.
    Published,
    /// It has received so many bytes since the connection began.
    Acknowledged {
        /// At most what was sent.
        bytes: u64,
    },
    /// It answered a ping.
    Pong,
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ClientStage {
    Handshake,
    Connect,
    CreateStream,
    Publish,
    Live,
    Ended,
}

/// One connection.
pub struct RtmpClient {
    url: RtmpUrl,
    stage: ClientStage,
    /// Of S0, S1 and S2, at most 3 073 bytes.
    handshake: Vec<u8>,
    reader: ChunkReader,
    writer: ChunkWriter,
    /// What is to be sent, and how much of it was.
    out: Vec<u8>,
    out_sent: usize,
    sent: u64,
    received: u64,
    acknowledged: u64,
    peer_window: u64,
    /// Message stream of our media.
    stream: u32,
}

/// Without the bytes that wait: the key is among them.
impl fmt::Debug for RtmpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}, {} bytes wait", self.url, self.step(), self.pending().len())
    }
}

impl RtmpClient {
    /// Begins with the handshake's first message.
    pub fn new(url: RtmpUrl) -> Self {
        let mut out = vec![VERSION, 0, 0, 0, 0, 0, 0, 0, 0];
        // "Random" bytes that serve only to be echoed; a fixed pattern does.
        out.extend((0..HANDSHAKE_BYTES - 8).map(|n| (n * 37 % 251) as u8));
        Self {
            url,
            stage: ClientStage::Handshake,
            handshake: Vec::new(),
            reader: ChunkReader::default(),
            writer: ChunkWriter::default(),
            out,
            out_sent: 0,
            sent: 0,
            received: 0,
            acknowledged: 0,
            peer_window: DEFAULT_PEER_WINDOW,
            stream: 0,
        }
    }

    /// Bytes that are to be sent.
    pub fn pending(&self) -> &[u8] {
        &self.out[self.out_sent..]
    }

    /// So many of the pending bytes were sent.
    pub fn advance(&mut self, sent: usize) {
        self.out_sent = (self.out_sent + sent).min(self.out.len());
        self.sent += sent as u64;
        if self.out_sent == self.out.len() {
            self.out.clear();
            self.out_sent = 0;
        }
    }

    /// Bytes sent since the connection began.
    pub const fn sent_bytes(&self) -> u64 {
        self.sent
    }

    /// Whether frames may be sent.
    pub fn is_live(&self) -> bool {
        self.stage == ClientStage::Live
    }

    /// What was asked last, for messages.
    pub const fn step(&self) -> &'static str {
        match self.stage {
            ClientStage::Handshake => "the RTMP handshake",
            ClientStage::Connect => "connect",
            ClientStage::CreateStream => "createStream",
            ClientStage::Publish => "publish",
            ClientStage::Live | ClientStage::Ended => "the stream",
        }
    }

    /// The connection ended, by the server or the system: what that means at this stage.
    pub fn broken(&self, closed_by_server: bool, message: String) -> RtmpFault {
        match self.stage {
            ClientStage::Handshake => RtmpFault::Handshake { message },
            ClientStage::Live | ClientStage::Ended => RtmpFault::Lost { message },
            _ if closed_by_server => RtmpFault::Closed { step: self.step() },
            _ => RtmpFault::Lost { message },
        }
    }

    /// Bytes of the server.
    ///
    /// # Errors
    ///
    /// When the server refuses, or sends what is no RTMP. The connection is over; whether another one helps is
    /// [`RetryBudget`](crate::output::retry::RetryBudget)'s decision.
    pub fn receive(&mut self, mut bytes: &[u8]) -> Result<Vec<RtmpEvent>, RtmpFault> {
        self.received += bytes.len() as u64;
        if self.stage == ClientStage::Handshake {
            let missing = 1 + 2 * HANDSHAKE_BYTES - self.handshake.len();
            let (part, rest) = bytes.split_at(missing.min(bytes.len()));
            self.handshake.extend_from_slice(part);
            bytes = rest;
            if self.handshake.first().is_some_and(|version| *version != VERSION) {
                return Err(RtmpFault::Handshake { message: "the server does not speak RTMP".to_owned() });
            }
            if part.len() < missing {
                return Ok(Vec::new());
            }
            self.connect();
        }
        let messages =
            self.reader.push(bytes).map_err(|error| self.broken(false, format!("unreadable answer: {error}")))?;
        let mut events = Vec::new();
        for message in messages {
            events.extend(self.on_message(&message)?);
        }
        self.acknowledge();
        Ok(events)
    }

    /// Sends a tag; only while live, see [`RtmpClient::is_live`].
    pub fn send(&mut self, tag: &FlvTag) {
        let chunk_stream = match tag.kind {
            RtmpMessage::AUDIO => SOUND,
            RtmpMessage::VIDEO => PICTURES,
            _ => STREAM_COMMANDS,
        };
        if self.is_live() {
            self.writer.write(&mut self.out, chunk_stream, tag.kind, self.stream, tag.time_ms, &tag.body);
        }
    }

    /// Asks the server for an answer.
    pub fn ping(&mut self, now_ms: u32) {
        self.control(RtmpMessage::USER_CONTROL, &[&PING_REQUEST[..], &now_ms.to_be_bytes()].concat());
    }

    /// Ends the stream; what is pending is to be sent before the connection is closed.
    pub fn end(&mut self) {
        if self.is_live() {
            self.command(
                COMMANDS,
                0,
                "FCUnpublish",
                FC_UNPUBLISH_ID,
                &[AmfValue::Null, AmfValue::text(self.url.key())],
            );
            let stream = AmfValue::Number(self.stream.into());
            self.command(COMMANDS, 0, "deleteStream", DELETE_STREAM_ID, &[AmfValue::Null, stream]);
        }
        self.stage = ClientStage::Ended;
    }

    /// The handshake is complete: C2 repeats S1.
    fn connect(&mut self) {
        let handshake = std::mem::take(&mut self.handshake);
        self.out.extend_from_slice(&handshake[1..=HANDSHAKE_BYTES]);
        self.writer.set_chunk_size(&mut self.out, CHUNK_SIZE);
        let text = |name: &str, text: &str| (name.to_owned(), AmfValue::text(text));
        let object = AmfValue::Object(vec![
            text("app", self.url.app()),
            text("type", "nonprivate"),
            text("flashVer", "FMLE/3.0 (compatible; Spillway)"),
            text("tcUrl", &self.url.tc_url()),
        ]);
        self.command(COMMANDS, 0, "connect", CONNECT_ID, &[object]);
        self.control(RtmpMessage::WINDOW_SIZE, &ACK_WINDOW.to_be_bytes());
        self.stage = ClientStage::Connect;
    }

    fn control(&mut self, kind: u8, body: &[u8]) {
        self.writer.write(&mut self.out, CONTROL, kind, 0, 0, body);
    }

    fn command(&mut self, chunk_stream: u8, stream: u32, name: &str, id: f64, arguments: &[AmfValue]) {
        let mut body = amf::encode(&[AmfValue::text(name), AmfValue::Number(id)]);
        arguments.iter().for_each(|argument| argument.write(&mut body));
        self.writer.write(&mut self.out, chunk_stream, RtmpMessage::COMMAND, stream, 0, &body);
    }

    fn on_message(&mut self, message: &RtmpMessage) -> Result<Option<RtmpEvent>, RtmpFault> {
        let number = message.body.first_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes));
        match (message.kind, number) {
            (RtmpMessage::ACKNOWLEDGEMENT, Some(wire)) => {
                Ok(Some(RtmpEvent::Acknowledged { bytes: extended(self.sent, wire) }))
            }
            (RtmpMessage::WINDOW_SIZE, Some(window)) if window > 0 => {
                self.peer_window = window.into();
                Ok(None)
            }
            (RtmpMessage::USER_CONTROL, _) => Ok(self.on_user_control(&message.body)),
            (RtmpMessage::COMMAND, _) => self.on_command(&message.body),
            (RtmpMessage::COMMAND_AMF3, _) => self.on_command(message.body.get(1..).unwrap_or_default()),
            _ => Ok(None),
        }
    }

    fn on_user_control(&mut self, body: &[u8]) -> Option<RtmpEvent> {
        if let Some(timestamp) = body.strip_prefix(&PING_REQUEST)
            && self.pending().len() < MAX_WAITING_FOR_ANSWERS
        {
            let timestamp = timestamp.get(..4).unwrap_or(&[0; 4]);
            self.control(RtmpMessage::USER_CONTROL, &[&PING_RESPONSE[..], timestamp].concat());
        }
        body.starts_with(&PING_RESPONSE).then_some(RtmpEvent::Pong)
    }

    /// What cannot be read is passed over: only answers to our commands matter, and their absence is a timeout.
    fn on_command(&mut self, body: &[u8]) -> Result<Option<RtmpEvent>, RtmpFault> {
        let Ok(values) = amf::decode(body) else { return Ok(None) };
        let [name, id, arguments @ ..] = &values[..] else { return Ok(None) };
        let (name, id) = (name.as_text().unwrap_or_default(), id.as_number());
        let member = |of: &str| arguments.iter().find_map(|value| value.member(of)?.as_text());
        match name {
            // Some servers do not know these two, and the stream works.
            "_error" if id == Some(RELEASE_STREAM_ID) || id == Some(FC_PUBLISH_ID) => Ok(None),
            "_error" => Err(self.refused(member("code"), member("description"))),
            "onStatus" if member("level") == Some("error") => Err(self.refused(member("code"), member("description"))),
            "onStatus" if member("code") == Some("NetStream.Publish.Start") && self.stage == ClientStage::Publish => {
                self.stage = ClientStage::Live;
                Ok(Some(RtmpEvent::Published))
            }
            "_result" if id == Some(CONNECT_ID) && self.stage == ClientStage::Connect => {
                let key = AmfValue::text(self.url.key());
                let named = [AmfValue::Null, key];
                self.command(COMMANDS, 0, "releaseStream", RELEASE_STREAM_ID, &named);
                self.command(COMMANDS, 0, "FCPublish", FC_PUBLISH_ID, &named);
                self.command(COMMANDS, 0, "createStream", CREATE_STREAM_ID, &[AmfValue::Null]);
                self.stage = ClientStage::CreateStream;
                Ok(None)
            }
            "_result" if id == Some(CREATE_STREAM_ID) && self.stage == ClientStage::CreateStream => {
                self.stream = arguments.iter().find_map(AmfValue::as_number).unwrap_or(1.0) as u32;
                let arguments = [AmfValue::Null, AmfValue::text(self.url.key()), AmfValue::text("live")];
                self.command(STREAM_COMMANDS, self.stream, "publish", PUBLISH_ID, &arguments);
                self.stage = ClientStage::Publish;
                Ok(None)
            }
            _ => Ok(None),
        }
    }

    fn refused(&self, code: Option<&str>, description: Option<&str>) -> RtmpFault {
        let text = |text: Option<&str>| {
            let text = self.url.without_secrets(text.unwrap_or_default());
            text.chars().filter(|c| !c.is_control()).take(MAX_TEXT_CHARS).collect()
        };
        RtmpFault::Refused { code: text(code.or(Some("no code"))), description: text(description) }
    }

    fn acknowledge(&mut self) {
        if self.received - self.acknowledged >= self.peer_window && self.pending().len() < MAX_WAITING_FOR_ANSWERS {
            self.acknowledged = self.received;
            self.control(RtmpMessage::ACKNOWLEDGEMENT, &(self.received as u32).to_be_bytes());
        }
    }
}

/// The count of bytes that ends in these 32 bits and is the last one not above `sent`.
const fn extended(sent: u64, wire: u32) -> u64 {
    let behind = (sent as u32).wrapping_sub(wire);
    // A server that counts otherwise may be a little ahead.
    if behind > u32::MAX / 2 { sent } else { sent.saturating_sub(behind as u64) }
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
