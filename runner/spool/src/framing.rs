//! A word a line. The media process reads and writes with threads (`HappeningWriter`, `OrderReader`), the runner with
//! tokio (`OrderWriter`, `HappeningReader`); both stand on `Lines`, which knows no socket.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use crate::{Happening, Order};

/// Longest line either side accepts. A plan is a few kilobytes; a megabyte without a line end is not one of ours.
pub const LONGEST_LINE: usize = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub enum WordError {
    #[error("talk to the other process")]
    Pipe(#[from] io::Error),
    #[error("the other process sent a line of more than {LONGEST_LINE} bytes")]
    TooLong,
    /// The line stays unquoted: an order carries a token.
    #[error("the other process sent a line that is no word of ours")]
    Malformed(#[source] serde_json::Error),
    #[error("the other process left in the middle of a line")]
    TornEnd,
}

fn line<T: Serialize>(word: &T) -> Result<Vec<u8>, WordError> {
    let mut bytes = serde_json::to_vec(word).map_err(WordError::Malformed)?;
    bytes.push(b'\n');
    // Refused here, where it is made, rather than at the other end.
    if bytes.len() > LONGEST_LINE { Err(WordError::TooLong) } else { Ok(bytes) }
}

/// Bytes in, words out.
#[derive(Default)]
pub struct Lines {
    held: Vec<u8>,
    /// `held[..looked]` contains no line end.
    looked: usize,
}

impl Lines {
    pub fn put(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
    }

    /// The next whole word; `None` when more bytes are needed. A malformed line is an error once, then it is gone.
    pub fn take<T: DeserializeOwned>(&mut self) -> Result<Option<T>, WordError> {
        loop {
            let Some(at) = self.held[self.looked..].iter().position(|byte| *byte == b'\n') else {
                self.looked = self.held.len();
                return if self.held.len() > LONGEST_LINE { Err(WordError::TooLong) } else { Ok(None) };
            };
            let end = self.looked + at;
            let parsed = match &self.held[..end] {
                line if line.len() >= LONGEST_LINE => Some(Err(WordError::TooLong)),
                line if line.iter().all(u8::is_ascii_whitespace) => None,
                line => Some(serde_json::from_slice(line).map_err(WordError::Malformed)),
            };
            self.held.drain(..=end);
            self.looked = 0;
            if let Some(parsed) = parsed {
                return parsed.map(Some);
            }
        }
    }

    /// What the end of the stream means.
    pub fn end(&self) -> Result<(), WordError> {
        if self.held.is_empty() { Ok(()) } else { Err(WordError::TornEnd) }
    }
}

/// The media process' end: its standard input is one end of a socket pair, for both directions.
pub fn media_end() -> io::Result<(OrderReader, HappeningWriter)> {
    media_end_of(UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?))
}

pub fn media_end_of(stream: UnixStream) -> io::Result<(OrderReader, HappeningWriter)> {
    let writer = HappeningWriter { stream: Arc::new(Mutex::new(stream.try_clone()?)) };
    Ok((OrderReader { stream, lines: Lines::default() }, writer))
}

/// Blocking. Meant for a thread of its own.
pub struct OrderReader {
    stream: UnixStream,
    lines: Lines,
}

impl OrderReader {
    /// `None`: the runner is gone; finish local files and leave.
    pub fn hear(&mut self) -> Result<Option<Order>, WordError> {
        let mut chunk = [0; 4096];
        loop {
            if let Some(order) = self.lines.take()? {
                return Ok(Some(order));
            }
            match self.stream.read(&mut chunk) {
                Ok(0) => return self.lines.end().map(|()| None),
                Ok(read) => self.lines.put(&chunk[..read]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A runner that was killed with our words unread resets the pair instead of closing it.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Blocking, shared by the threads of the media process. The socket holds some hundred words, so a runner that is
/// stopped for a while does not stop the recording; an error means that the runner is gone, which the `OrderReader` says
/// as well.
#[derive(Clone)]
pub struct HappeningWriter {
    stream: Arc<Mutex<UnixStream>>,
}

impl HappeningWriter {
    pub fn say(&self, happening: &Happening) -> Result<(), WordError> {
        let bytes = line(happening)?;
        let mut stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(stream.write_all(&bytes)?)
    }
}

/// The runner's end. `stream` must be the other end of the pair the media process got as its standard input.
pub fn runner_end(stream: UnixStream) -> io::Result<(HappeningReader, OrderWriter)> {
    stream.set_nonblocking(true)?;
    let (reader, writer) = tokio::net::UnixStream::from_std(stream)?.into_split();
    Ok((HappeningReader { stream: reader, lines: Lines::default() }, OrderWriter { stream: writer }))
}

pub struct HappeningReader {
    stream: OwnedReadHalf,
    lines: Lines,
}

impl HappeningReader {
    /// `None`: the media process has closed its end. Cancel-safe.
    pub async fn hear(&mut self) -> Result<Option<Happening>, WordError> {
        let mut chunk = [0; 4096];
        loop {
            if let Some(happening) = self.lines.take()? {
                return Ok(Some(happening));
            }
            match self.stream.read(&mut chunk).await {
                Ok(0) => return self.lines.end().map(|()| None),
                Ok(read) => self.lines.put(&chunk[..read]),
                // It died with an order of ours unread.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

pub struct OrderWriter {
    stream: OwnedWriteHalf,
}

impl OrderWriter {
    pub async fn say(&mut self, order: &Order) -> Result<(), WordError> {
        Ok(self.stream.write_all(&line(order)?).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn alive(media_ns: u64) -> Happening {
        Happening::Alive { media_ns, lag_ms: 0, backlog_bytes: 0 }
    }

    fn media_ns(happening: &Happening) -> u64 {
        match happening {
            Happening::Alive { media_ns, .. } => *media_ns,
            other => panic!("{other:?}"),
        }
    }

    proptest! {
        #[test]
        fn words_survive_any_cutting_of_the_stream(
            sent in prop::collection::vec(any::<u64>(), 0..20),
            cut in 1usize..40,
        ) {
            let bytes: Vec<u8> = sent.iter().flat_map(|ns| line(&alive(*ns)).unwrap()).collect();
            let (mut lines, mut heard) = (Lines::default(), vec![]);
            for chunk in bytes.chunks(cut) {
                lines.put(chunk);
                while let Some(word) = lines.take::<Happening>().unwrap() {
                    heard.push(media_ns(&word));
                }
            }
            prop_assert_eq!(heard, sent);
            prop_assert!(lines.end().is_ok());
        }

        #[test]
        fn arbitrary_bytes_never_panic_and_a_good_word_after_them_is_heard(junk in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut lines = Lines::default();
            lines.put(&junk);
            lines.put(b"\n");
            lines.put(&line(&alive(7)).unwrap());
            let mut last = None;
            // Every failed line is consumed, so this ends.
            loop {
                match lines.take::<Happening>() {
                    Ok(Some(word)) => last = Some(word),
                    Ok(None) => break,
                    Err(WordError::Malformed(_)) => {}
                    Err(other) => panic!("{other}"),
                }
            }
            prop_assert_eq!(last.as_ref().map(media_ns), Some(7));
        }
    }

    #[test]
    fn a_line_without_end_is_refused_instead_of_held() {
        let mut lines = Lines::default();
        let mut refused = false;
        for _ in 0..=LONGEST_LINE / 65536 {
            lines.put(&[b'x'; 65536]);
            refused |= matches!(lines.take::<Order>(), Err(WordError::TooLong));
        }
        assert!(refused);
    }

    #[tokio::test]
    async fn both_ends_understand_each_other_and_notice_the_end() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let media = std::thread::spawn(move || {
            let (mut orders, happenings) = media_end_of(theirs).unwrap();
            assert!(matches!(orders.hear().unwrap(), Some(Order::Stop)));
            happenings.say(&alive(1)).unwrap();
            happenings.say(&alive(2)).unwrap();
        });
        let (mut happenings, mut orders) = runner_end(ours).unwrap();
        orders.say(&Order::Stop).await.unwrap();
        assert_eq!(happenings.hear().await.unwrap().as_ref().map(media_ns), Some(1));
        assert_eq!(happenings.hear().await.unwrap().as_ref().map(media_ns), Some(2));
        assert!(happenings.hear().await.unwrap().is_none());
        media.join().unwrap();
    }

    #[test]
    fn the_media_process_notices_that_the_runner_is_gone() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (mut orders, happenings) = media_end_of(theirs).unwrap();
        happenings.say(&alive(1)).unwrap();
        drop(ours);
        assert!(orders.hear().unwrap().is_none());
        assert!(matches!(happenings.say(&alive(2)), Err(WordError::Pipe(_))));
    }
}
