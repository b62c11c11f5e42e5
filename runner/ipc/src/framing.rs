//! Messages over the socket pair of the two processes: one JSON object per line. The media process reads and writes with
//! blocking threads (`EventWriter`, `CommandReader`), the runner with tokio (`CommandWriter`, `EventReader`); both use
//! `FrameReader`, which knows no socket. Nothing here interprets a message.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;
use spillway_plan::hide_value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use crate::{MediaCommand, MediaEvent};

/// Longest line either side accepts, its line end included. A plan takes a few kilobytes.
pub const MAX_LINE_BYTES: usize = 1 << 20;

/// Why a message was not sent or not received.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// The socket's error: the other process is gone.
    #[error("talk to the other process")]
    Pipe(#[from] io::Error),
    /// Longer than [`MAX_LINE_BYTES`].
    #[error("the other process sent a line of more than {MAX_LINE_BYTES} bytes")]
    TooLong,
    /// No message of this version. Nothing of the line is quoted: a command carries a token and URLs of streams.
    #[error("the other process sent a line that is no known message")]
    Malformed(#[source] serde_json::Error),
    /// The stream ended within a line.
    #[error("the other process left in the middle of a line")]
    Truncated,
}

fn encode_line<T: Serialize>(message: &T) -> Result<Vec<u8>, MessageError> {
    let mut bytes = serde_json::to_vec(message).map_err(MessageError::Malformed)?;
    bytes.push(b'\n');
    // Refused here, where it is made, rather than at the other end.
    if bytes.len() > MAX_LINE_BYTES { Err(MessageError::TooLong) } else { Ok(bytes) }
}

/// Cuts a byte stream into messages: bytes in, messages out. Pure.
#[derive(Default)]
pub struct FrameReader {
    buffered: Vec<u8>,
    /// `buffered[..scanned]` contains no line end.
    scanned: usize,
}

impl FrameReader {
    /// Adds what was received.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffered.extend_from_slice(bytes);
    }

    /// The next whole message; `None` when more bytes are needed.
    ///
    /// # Errors
    /// The line is malformed or too long. A malformed line is dropped, so the next call goes on behind it; a line that
    /// is too long and has no end yet stays an error.
    pub fn take<T: DeserializeOwned>(&mut self) -> Result<Option<T>, MessageError> {
        loop {
            let Some(at) = self.buffered[self.scanned..].iter().position(|byte| *byte == b'\n') else {
                self.scanned = self.buffered.len();
                return if self.buffered.len() > MAX_LINE_BYTES { Err(MessageError::TooLong) } else { Ok(None) };
            };
            let end = self.scanned + at;
            let parsed = match &self.buffered[..end] {
                bytes if bytes.len() >= MAX_LINE_BYTES => Some(Err(MessageError::TooLong)),
                bytes if bytes.iter().all(u8::is_ascii_whitespace) => None,
                bytes => {
                    Some(serde_json::from_slice(bytes).map_err(|error| MessageError::Malformed(hide_value(error))))
                }
            };
            self.buffered.drain(..=end);
            self.scanned = 0;
            if let Some(parsed) = parsed {
                return parsed.map(Some);
            }
        }
    }

    /// To be called at the end of the stream.
    ///
    /// # Errors
    /// [`MessageError::Truncated`] when the last line was not complete; a retry changes nothing.
    pub fn end(&self) -> Result<(), MessageError> {
        if self.buffered.is_empty() { Ok(()) } else { Err(MessageError::Truncated) }
    }
}

/// The media process' end: its standard input is one end of the socket pair, for both directions.
///
/// # Errors
/// The operating system's: standard input is no socket, or no file descriptor is left.
pub fn media_endpoint() -> io::Result<(CommandReader, EventWriter)> {
    media_endpoint_of(UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?))
}

/// The same over any socket.
///
/// # Errors
/// No file descriptor is left for the second direction.
pub fn media_endpoint_of(stream: UnixStream) -> io::Result<(CommandReader, EventWriter)> {
    let writer = EventWriter { stream: Arc::new(Mutex::new(stream.try_clone()?)) };
    Ok((CommandReader { stream, frames: FrameReader::default() }, writer))
}

/// Receives commands in the media process. Blocks; meant for a thread of its own.
pub struct CommandReader {
    stream: UnixStream,
    frames: FrameReader,
}

impl CommandReader {
    /// Waits for the next command. `None`: the runner is gone; the media process closes its files and exits.
    ///
    /// # Errors
    /// After [`MessageError::Malformed`] the next call goes on; every other error is the end of the stream.
    pub fn recv(&mut self) -> Result<Option<MediaCommand>, MessageError> {
        let mut chunk = [0; 4096];
        loop {
            if let Some(command) = self.frames.take()? {
                return Ok(Some(command));
            }
            match self.stream.read(&mut chunk) {
                Ok(0) => return self.frames.end().map(|()| None),
                Ok(read) => self.frames.push(&chunk[..read]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A runner that was killed with our messages unread resets the pair instead of closing it.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Sends events from any thread of the media process; clones share the socket, which is locked for one message. The socket
/// buffers some hundred messages, so a runner that is stopped for a while does not stop the recording; then it blocks.
#[derive(Clone)]
pub struct EventWriter {
    stream: Arc<Mutex<UnixStream>>,
}

impl EventWriter {
    /// Sends one event.
    ///
    /// # Errors
    /// The runner is gone, which [`CommandReader::recv`] reports as well, or the event is too long. No retry.
    pub fn send(&self, event: &MediaEvent) -> Result<(), MessageError> {
        let bytes = encode_line(event)?;
        let mut stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(stream.write_all(&bytes)?)
    }
}

/// The runner's end. `stream` must be the other end of the pair the media process got as its standard input. To be called
/// within a tokio runtime.
///
/// # Errors
/// The socket could not be made non-blocking or registered with the runtime.
pub fn runner_endpoint(stream: UnixStream) -> io::Result<(EventReader, CommandWriter)> {
    stream.set_nonblocking(true)?;
    let (reader, writer) = tokio::net::UnixStream::from_std(stream)?.into_split();
    Ok((EventReader { stream: reader, frames: FrameReader::default() }, CommandWriter { stream: writer }))
}

/// Receives events in the runner.
pub struct EventReader {
    stream: OwnedReadHalf,
    frames: FrameReader,
}

impl EventReader {
    /// Waits for the next event. `None`: the media process has closed its end. Cancel-safe.
    ///
    /// # Errors
    /// After [`MessageError::Malformed`] the next call goes on; every other error is the end of the stream.
    pub async fn recv(&mut self) -> Result<Option<MediaEvent>, MessageError> {
        let mut chunk = [0; 4096];
        loop {
            if let Some(event) = self.frames.take()? {
                return Ok(Some(event));
            }
            match self.stream.read(&mut chunk).await {
                Ok(0) => return self.frames.end().map(|()| None),
                Ok(read) => self.frames.push(&chunk[..read]),
                // It died with a command of ours unread.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Sends commands from the runner.
pub struct CommandWriter {
    stream: OwnedWriteHalf,
}

impl CommandWriter {
    /// Sends one command. Not cancel-safe: a cancelled call may leave half a line.
    ///
    /// # Errors
    /// The media process is gone, or the command is too long. No retry.
    pub async fn send(&mut self, command: &MediaCommand) -> Result<(), MessageError> {
        Ok(self.stream.write_all(&encode_line(command)?).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn alive(media_ns: u64) -> MediaEvent {
        MediaEvent::Alive { media_ns, lag_ms: 0, backlog_bytes: 0, streams: vec![] }
    }

    fn media_ns(event: &MediaEvent) -> u64 {
        match event {
            MediaEvent::Alive { media_ns, .. } => *media_ns,
            other => panic!("{other:?}"),
        }
    }

    proptest! {
        #[test]
        fn messages_survive_any_cutting_of_the_stream(
            sent in prop::collection::vec(any::<u64>(), 0..20),
            cut in 1usize..40,
        ) {
            let bytes: Vec<u8> = sent.iter().flat_map(|ns| encode_line(&alive(*ns)).unwrap()).collect();
            let (mut frames, mut received) = (FrameReader::default(), vec![]);
            for chunk in bytes.chunks(cut) {
                frames.push(chunk);
                while let Some(message) = frames.take::<MediaEvent>().unwrap() {
                    received.push(media_ns(&message));
                }
            }
            prop_assert_eq!(received, sent);
            prop_assert!(frames.end().is_ok());
        }

        #[test]
        fn arbitrary_bytes_never_panic_and_a_good_message_after_them_is_received(junk in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut frames = FrameReader::default();
            frames.push(&junk);
            frames.push(b"\n");
            frames.push(&encode_line(&alive(7)).unwrap());
            let mut last = None;
            // Every failed line is consumed, so this ends.
            loop {
                match frames.take::<MediaEvent>() {
                    Ok(Some(message)) => last = Some(message),
                    Ok(None) => break,
                    Err(MessageError::Malformed(_)) => {}
                    Err(other) => panic!("{other}"),
                }
            }
            prop_assert_eq!(last.as_ref().map(media_ns), Some(7));
        }
    }

    #[test]
    fn a_malformed_line_is_not_quoted() {
        for line in [
            r#"{"command":"add_stream","id":"rtmp://h/app/canary","output":0,"url":"rtmp://h/app/canary"}"#,
            r#"{"command":"start","plan":"canary","ws_url":"ws://h","token":"canary"}"#,
            r#"{"command":"remove_stream","id":{"url":"canary"}}"#,
        ] {
            let mut frames = FrameReader::default();
            frames.push(line.as_bytes());
            frames.push(b"\n");
            let Err(MessageError::Malformed(error)) = frames.take::<MediaCommand>() else { panic!("{line}") };
            assert!(!format!("{error} {error:?}").contains("canary"), "{error:?}");
        }
    }

    #[test]
    fn a_line_without_end_is_refused_instead_of_held() {
        let mut frames = FrameReader::default();
        let mut refused = false;
        for _ in 0..=MAX_LINE_BYTES / 65536 {
            frames.push(&[b'x'; 65536]);
            refused |= matches!(frames.take::<MediaCommand>(), Err(MessageError::TooLong));
        }
        assert!(refused);
    }

    #[tokio::test]
    async fn both_ends_understand_each_other_and_notice_the_end() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let media = std::thread::spawn(move || {
            let (mut commands, events) = media_endpoint_of(theirs).unwrap();
            assert!(matches!(commands.recv().unwrap(), Some(MediaCommand::Stop)));
            events.send(&alive(1)).unwrap();
            events.send(&alive(2)).unwrap();
        });
        let (mut events, mut commands) = runner_endpoint(ours).unwrap();
        commands.send(&MediaCommand::Stop).await.unwrap();
        assert_eq!(events.recv().await.unwrap().as_ref().map(media_ns), Some(1));
        assert_eq!(events.recv().await.unwrap().as_ref().map(media_ns), Some(2));
        assert!(events.recv().await.unwrap().is_none());
        media.join().unwrap();
    }

    #[test]
    fn the_media_process_notices_that_the_runner_is_gone() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (mut commands, events) = media_endpoint_of(theirs).unwrap();
        events.send(&alive(1)).unwrap();
        drop(ours);
        assert!(commands.recv().unwrap().is_none());
        assert!(matches!(events.send(&alive(2)), Err(MessageError::Pipe(_))));
    }
}
