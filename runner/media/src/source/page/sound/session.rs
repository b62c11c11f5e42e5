//! What one client of the sound server asks, and the answers. In: messages of PulseAudio's native protocol, the number of the
//! sample heard now. Out: bytes for the client, frames in the mix. Pure but for the wall clock in latency replies.
//!
//! There is one sink that everything is played on; nothing is recorded, and volumes are Chromium's own business. Chromium
//! asks for Auth, SetClientName, GetServerInfo, GetSinkInfoList, CreatePlaybackStream (F32 at 48 kHz, corked), Cork and
//! GetPlaybackLatency (traced); players also drain and delete.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::io::Cursor;
use std::time::SystemTime;

use pulseaudio::protocol::stream::BufferAttr;
use pulseaudio::protocol::{
    self, AuthParams, AuthReply, ChannelMap, Command, CommandReply, CreatePlaybackStreamReply, FormatEncoding,
    FormatInfo, LatencyParams, LookupReply, PlaybackLatency, PlaybackStreamParams, ProtocolError, PulseError, Request,
    SampleFormat, SampleSpec, ServerInfo, SetClientNameReply, SetPlaybackStreamBufferAttrReply, SinkFlags, SinkInfo,
    SinkState, Volume,
};
use tracing::{debug, warn};

use super::mix::SoundMix;
use super::playback::{PlaybackStream, REQUEST_FRAMES, SoundStats, StreamFormat, TARGET_FRAMES};

/// Channel of commands, in both directions; also their number when they answer nothing.
const COMMANDS: u32 = u32::MAX;
/// Our only sink.
const SINK: u32 = 1;
/// What every sink has and ours only names: nothing can be recorded from it.
const MONITOR: u32 = 2;
/// Of one client. Chromium has one per sounding frame of a page, at most.
const MAX_STREAMS: usize = 64;
/// Bytes of a command before its number: a tag, its kind, a tag.
const COMMAND_HEAD: usize = 6;

/// Why a client is sent away.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// Another user without our cookie, or commands before it said who it is.
    #[error("not let in")]
    Refused,
    /// Its answer cannot be written; a fault of ours.
    #[error("answer a client")]
    Answer(#[from] ProtocolError),
}

/// The sink's side of a call: what all clients share.
pub struct SinkContext<'a> {
    /// The sample heard now.
    pub now: i64,
    /// The sum of all streams.
    pub mix: &'a mut SoundMix,
    /// Counters.
    pub stats: &'a mut SoundStats,
}

/// A client.
pub struct PulseSession {
    /// Of the protocol, as agreed on.
    version: u16,
    is_trusted: bool,
    is_in: bool,
    streams: BTreeMap<u32, PlaybackStream>,
    next_channel: u32,
}

impl PulseSession {
    /// `is_trusted`: needs no cookie.
    pub fn new(is_trusted: bool) -> Self {
        Self { version: protocol::MAX_VERSION, is_trusted, is_in: false, streams: BTreeMap::new(), next_channel: 1 }
    }

    /// A message on a channel: a command, or samples of a stream. Answers are appended to `out`.
    ///
    /// # Errors
    ///
    /// When the client is to be sent away, once `out` is sent.
    pub fn on_message(
        &mut self,
        channel: u32,
        payload: &[u8],
        cookie: &[u8],
        sink: SinkContext<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), SessionError> {
        if channel != COMMANDS {
            // Of a stream that was deleted meanwhile: nothing.
            if let Some(stream) = self.streams.get_mut(&channel) {
                stream.write(payload, sink.now, sink.mix, sink.stats);
            }
            return Ok(());
        }
        match Command::read_tag_prefixed(&mut Cursor::new(payload), self.version) {
            Ok((number, Command::Auth(auth))) => self.enter(number, &auth, cookie, out),
            Ok(_) if !self.is_in => Err(SessionError::Refused),
            Ok((number, command)) => Ok(self.on_command(number, command, sink, out)?),
            Err(error) => {
                debug!(%error, "a client of the page's sound asks what is not known");
                let number = payload.get(COMMAND_HEAD..).and_then(|rest| rest.first_chunk().copied());
                let number = number.map_or(0, u32::from_be_bytes);
                Ok(protocol::write_error(out, number, &PulseError::NotSupported)?)
            }
        }
    }

    /// What the time that has passed asks of the client.
    ///
    /// # Errors
    ///
    /// As of [`PulseSession::on_message`].
    pub fn tick(&mut self, now: i64, out: &mut Vec<u8>) -> Result<(), SessionError> {
        for (channel, stream) in &mut self.streams {
            if let Some(length) = stream.request(now) {
                let request = Command::Request(Request { channel: *channel, length });
                protocol::write_command_message(out, COMMANDS, &request, self.version)?;
            }
            if let Some(number) = stream.drained(now) {
                protocol::write_ack_message(out, number)?;
            }
        }
        Ok(())
    }

    fn enter(&mut self, number: u32, auth: &AuthParams, cookie: &[u8], out: &mut Vec<u8>) -> Result<(), SessionError> {
        if !self.is_trusted && auth.cookie != cookie {
            protocol::write_error(out, number, &PulseError::AccessDenied)?;
            return Err(SessionError::Refused);
        }
        if auth.version < protocol::MIN_VERSION {
            protocol::write_error(out, number, &PulseError::Version)?;
            return Err(SessionError::Refused);
        }
        self.is_in = true;
        self.version = auth.version.min(protocol::MAX_VERSION);
        // Samples come through the socket: shared memory of a client would have to be mapped.
        let reply = AuthReply { version: self.version, use_memfd: false, use_shm: false };
        Ok(protocol::write_reply_message(out, number, &reply, self.version)?)
    }

    fn on_command(
        &mut self,
        number: u32,
        command: Command,
        sink: SinkContext<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), ProtocolError> {
        let version = self.version;
        match command {
            Command::SetClientName(_) => reply(out, number, &SetClientNameReply { client_id: 1 }, version),
            Command::GetServerInfo => reply(out, number, &server_info(), version),
            Command::GetSinkInfo(_) => reply(out, number, &sink_info(), version),
            Command::GetSinkInfoList => reply(out, number, &vec![sink_info()], version),
            Command::LookupSink(_) => reply(out, number, &LookupReply(SINK), version),
            Command::CreatePlaybackStream(asked) => self.create(number, asked, sink, out),
            Command::DeletePlaybackStream(channel) => {
                // What it wrote is heard.
                self.streams.remove(&channel);
                protocol::write_ack_message(out, number)
            }
            Command::CorkPlaybackStream(asked) => self.with_stream(number, asked.channel, out, |stream| {
                if asked.cork { stream.cork() } else { stream.uncork(sink.now, sink.mix, sink.stats) }
            }),
            Command::FlushPlaybackStream(channel) => {
                self.with_stream(number, channel, out, |stream| stream.flush(sink.now))
            }
            Command::DrainPlaybackStream(channel) => match self.streams.get_mut(&channel) {
                Some(stream) => {
                    stream.drain(number);
                    Ok(())
                }
                None => protocol::write_error(out, number, &PulseError::NoEntity),
            },
            Command::GetPlaybackLatency(asked) => self.latency(number, asked, sink.now, out),
            Command::SetPlaybackStreamBufferAttr(asked) => match self.streams.get(&asked.index) {
                Some(stream) => {
                    let buffer_attr = buffer(stream.format());
                    let answer = SetPlaybackStreamBufferAttrReply { buffer_attr, configured_sink_latency: 0 };
                    reply(out, number, &answer, version)
                }
                None => protocol::write_error(out, number, &PulseError::NoEntity),
            },
            Command::GetSinkInputInfo(_)
            | Command::GetSourceInfo(_)
            | Command::GetSourceOutputInfo(_)
            | Command::GetCardInfo(_)
            | Command::GetClientInfo(_)
            | Command::GetModuleInfo(_)
            | Command::GetSampleInfo(_)
            | Command::LookupSource(_)
            | Command::CreateRecordStream(_) => protocol::write_error(out, number, &PulseError::NoEntity),
            Command::Extension(_) => protocol::write_error(out, number, &PulseError::NoExtension),
            Command::Stat
            | Command::CreateUploadStream(_)
            | Command::PlaySample(_)
            | Command::LoadModule(_)
            | Command::UpdatePlaybackStreamSampleRate(_) => {
                protocol::write_error(out, number, &PulseError::NotSupported)
            }
            // Subscriptions (nothing ever changes), names, volumes; and lists, which are empty.
            _ => protocol::write_ack_message(out, number),
        }
    }

    fn create(
        &mut self,
        number: u32,
        asked: PlaybackStreamParams,
        sink: SinkContext<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), ProtocolError> {
        let spec = asked.sample_spec;
        let Some(format) = StreamFormat::new(spec.format, spec.channels, spec.sample_rate) else {
            warn!(?spec, "sound of the page in a format that is not taken: it is not recorded");
            return protocol::write_error(out, number, &PulseError::NotSupported);
        };
        if self.streams.len() >= MAX_STREAMS {
            return protocol::write_error(out, number, &PulseError::TooLarge);
        }
        let channel = self.next_channel;
        self.next_channel += 1;
        self.streams.insert(channel, PlaybackStream::new(format, asked.flags.start_corked, sink.now));
        debug!(?spec, corked = asked.flags.start_corked, "the page makes sound");
        let buffer_attr = buffer(format);
        let answer = CreatePlaybackStreamReply {
            channel,
            stream_index: channel,
            requested_bytes: buffer_attr.target_length,
            buffer_attr,
            sample_spec: spec,
            channel_map: asked.channel_map,
            stream_latency: 0,
            sink_index: SINK,
            sink_name: Some(sink_name()),
            suspended: false,
            format: FormatInfo::new(FormatEncoding::Pcm),
        };
        reply(out, number, &answer, self.version)
    }

    fn latency(&mut self, number: u32, asked: LatencyParams, now: i64, out: &mut Vec<u8>) -> Result<(), ProtocolError> {
        let Some(stream) = self.streams.get(&asked.channel) else {
            return protocol::write_error(out, number, &PulseError::NoEntity);
        };
        let position = stream.position(now);
        let answer = PlaybackLatency {
            sink_usec: 0,
            source_usec: 0,
            playing: position.playing,
            local_time: asked.now,
            remote_time: SystemTime::now(),
            write_offset: position.written,
            read_offset: position.heard,
            underrun_for: 0,
            playing_for: position.heard.unsigned_abs(),
        };
        reply(out, number, &answer, self.version)
    }

    fn with_stream(
        &mut self,
        number: u32,
        channel: u32,
        out: &mut Vec<u8>,
        act: impl FnOnce(&mut PlaybackStream),
    ) -> Result<(), ProtocolError> {
        match self.streams.get_mut(&channel) {
            Some(stream) => {
                act(stream);
                protocol::write_ack_message(out, number)
            }
            None => protocol::write_error(out, number, &PulseError::NoEntity),
        }
    }
}

fn reply(out: &mut Vec<u8>, number: u32, answer: &impl CommandReply, version: u16) -> Result<(), ProtocolError> {
    protocol::write_reply_message(out, number, answer, version)
}

/// Lengths in bytes. Whatever a client asks for, it keeps 20 ms ahead; and it starts when it is uncorked, not when enough is
/// there (no prebuffering), so that its clock is ours.
fn buffer(format: StreamFormat) -> BufferAttr {
    let bytes = |frames: i64| u32::try_from(frames * format.frame_bytes()).unwrap_or(u32::MAX);
    BufferAttr {
        max_length: bytes(4 * TARGET_FRAMES),
        target_length: bytes(TARGET_FRAMES),
        pre_buffering: 0,
        minimum_request_length: bytes(REQUEST_FRAMES),
        fragment_size: 0,
    }
}

fn sink_name() -> CString {
    c"spillway".into()
}

fn monitor_name() -> CString {
    c"spillway.monitor".into()
}

fn sample_spec() -> SampleSpec {
    SampleSpec { format: SampleFormat::Float32Le, channels: 2, sample_rate: 48_000 }
}

fn server_info() -> ServerInfo {
    ServerInfo {
        // Clients look at neither; the version is that whose answers these are.
        server_name: Some(c"pulseaudio".into()),
        server_version: Some(c"16.1".into()),
        user_name: Some(sink_name()),
        host_name: Some(sink_name()),
        sample_spec: sample_spec(),
        cookie: 1,
        default_sink_name: Some(sink_name()),
        // Chromium makes a string of it without looking.
        default_source_name: Some(monitor_name()),
        channel_map: ChannelMap::stereo(),
    }
}

fn sink_info() -> SinkInfo {
    let mut info = SinkInfo::new_dummy(SINK);
    info.name = sink_name();
    info.description = Some(c"Spillway".into());
    info.state = SinkState::Running;
    info.sample_spec = sample_spec();
    info.monitor_source_index = Some(MONITOR);
    info.monitor_source_name = Some(monitor_name());
    info.base_volume = Volume::NORM;
    info.flags = SinkFlags::LATENCY | SinkFlags::DECIBEL_VOLUME;
    info
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
