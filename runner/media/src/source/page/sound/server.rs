//! The sound server's thread: a socket that clients connect to, their messages, and a clock. In: bytes of clients. Out:
//! blocks of the mix, each half a second after it is heard, and requests for more. One thread does everything; it waits for
//! sockets and for the next tick, and never for a client or the receiver.

use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pulseaudio::protocol::{DESCRIPTOR_SIZE, MAX_MEMBLOCKQ_LENGTH, read_descriptor};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::socket_peercred;
use rustix::process::geteuid;
use spillway_process::chain;
use tracing::debug;

use super::mix::{RATE, SoundMix};
use super::playback::SoundStats;
use super::session::{PulseSession, SinkContext};
use crate::source::page::units::{PageSamples, monotonic};

/// How often clients are asked for more.
const TICK: Duration = Duration::from_millis(10);
/// Frames of a block, 20 ms.
const BLOCK: i64 = RATE / 50;
/// So long after it is heard a block is taken: what a client was too busy to send in time is in it. Half a second.
const HOLD: i64 = RATE / 2;
/// Chromium has one or two.
const MAX_CLIENTS: usize = 32;
/// What is read at once, and how often in a row from one client.
const READ_BYTES: usize = 64 * 1024;
const READS: usize = 16;
/// Bytes that a client does not take: it hangs, or is no client.
const MAX_UNSENT: usize = 256 * 1024;

/// What the thread needs.
pub struct PulseServer {
    listener: UnixListener,
    /// Readable (at its end) when the thread is to end.
    stopped: UnixStream,
    cookie: Vec<u8>,
    /// When sample 0 is heard.
    begin: Duration,
    ticks: u32,
    clients: Vec<PulseClient>,
    mix: SoundMix,
    stats: SoundStats,
    shared: Arc<Mutex<SoundStats>>,
    blocks: Option<SyncSender<PageSamples>>,
    buffer: Vec<u8>,
}

impl PulseServer {
    /// The clock starts now.
    ///
    /// # Errors
    ///
    /// When the socket cannot be made not to block; a retry changes nothing.
    pub fn new(
        listener: UnixListener,
        stopped: UnixStream,
        cookie: Vec<u8>,
        shared: Arc<Mutex<SoundStats>>,
        blocks: SyncSender<PageSamples>,
    ) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener,
            stopped,
            cookie,
            begin: monotonic(),
            ticks: 0,
            clients: Vec::new(),
            mix: SoundMix::default(),
            stats: SoundStats::default(),
            shared,
            blocks: Some(blocks),
            buffer: vec![0; READ_BYTES],
        })
    }

    /// Until it is stopped.
    ///
    /// # Errors
    ///
    /// When the operating system does not let us wait.
    pub fn run(&mut self) -> io::Result<()> {
        loop {
            let next = self.begin + TICK * (self.ticks + 1);
            if !self.serve(next)? {
                return Ok(());
            }
            let now = monotonic();
            if now >= next {
                // Ticks that were slept through are one.
                let passed = now.saturating_sub(self.begin).as_nanos() / TICK.as_nanos();
                self.ticks = u32::try_from(passed).unwrap_or(u32::MAX - 1);
                self.tick(self.sample_at(now));
            }
        }
    }

    /// Waits until that time, or until clients are served once. False: to end.
    fn serve(&mut self, until: Duration) -> io::Result<bool> {
        let timeout = Timespec::try_from(until.saturating_sub(monotonic())).unwrap_or_default();
        let mut sockets = vec![PollFd::new(&self.stopped, PollFlags::IN)];
        for client in &self.clients {
            let writes = if client.unsent.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
            sockets.push(PollFd::new(&client.socket, PollFlags::IN | writes));
        }
        if self.clients.len() < MAX_CLIENTS {
            sockets.push(PollFd::new(&self.listener, PollFlags::IN));
        }
        match poll(&mut sockets, Some(&timeout)) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(true),
            Err(errno) => return Err(errno.into()),
        }
        let ready: Vec<bool> = sockets.iter().map(|socket| !socket.revents().is_empty()).collect();
        drop(sockets);
        if ready.first() == Some(&true) {
            return Ok(false);
        }
        let now = self.sample_at(monotonic());
        // Clients in their order, then the listener.
        let mut ready = ready.into_iter().skip(1);
        let served = std::mem::take(&mut self.clients);
        for mut client in served {
            if ready.next() != Some(true) || self.serve_client(&mut client, now) {
                self.clients.push(client);
            }
        }
        if ready.next() == Some(true) {
            self.accept();
        }
        Ok(true)
    }

    /// False: the client is gone.
    fn serve_client(&mut self, client: &mut PulseClient, now: i64) -> bool {
        let sink = SinkContext { now, mix: &mut self.mix, stats: &mut self.stats };
        match client.serve(&mut self.buffer, &self.cookie, sink) {
            Ok(true) => true,
            Ok(false) => {
                debug!("a client of the page's sound has left");
                false
            }
            Err(error) => {
                debug!(error = %chain(&error), "a client of the page's sound is sent away");
                false
            }
        }
    }

    fn accept(&mut self) {
        match self.listener.accept() {
            Ok((socket, _)) => match PulseClient::new(socket) {
                Ok(client) => self.clients.push(client),
                Err(error) => debug!(%error, "a client of the page's sound is lost"),
            },
            Err(error) => {
                debug!(%error, "a client of the page's sound is not let in");
                // No file descriptor is left: the listener stays readable, and `poll` would return at once.
                if error.kind() != io::ErrorKind::WouldBlock {
                    std::thread::sleep(TICK);
                }
            }
        }
    }

    fn tick(&mut self, now: i64) {
        self.clients.retain_mut(|client| match client.tick(now) {
            Ok(stays) => stays,
            Err(error) => {
                debug!(error = %chain(&error), "a client of the page's sound is sent away");
                false
            }
        });
        while self.mix.first() + BLOCK <= now - HOLD {
            let at = self.time_of(self.mix.first());
            let samples = self.mix.take(BLOCK as usize);
            match self.blocks.as_ref().map(|blocks| blocks.try_send(PageSamples { at, samples })) {
                Some(Err(TrySendError::Full(_))) => self.stats.left_out_blocks += 1,
                // The recording takes no more; the page goes on.
                Some(Err(TrySendError::Disconnected(_))) => self.blocks = None,
                Some(Ok(())) | None => {}
            }
        }
        *self.shared.lock().unwrap_or_else(PoisonError::into_inner) = self.stats;
    }

    /// The sample that is heard at this time.
    fn sample_at(&self, time: Duration) -> i64 {
        let ns = time.saturating_sub(self.begin).as_nanos();
        i64::try_from(ns * RATE as u128 / 1_000_000_000).unwrap_or(i64::MAX)
    }

    fn time_of(&self, sample: i64) -> Duration {
        let ns = u128::from(sample.max(0).unsigned_abs()) * 1_000_000_000 / RATE as u128;
        self.begin + Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX))
    }
}

/// A connection.
struct PulseClient {
    socket: UnixStream,
    unread: Vec<u8>,
    unsent: Vec<u8>,
    session: PulseSession,
}

impl PulseClient {
    fn new(socket: UnixStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        // As PulseAudio does: a process of the same user needs no cookie.
        let is_ours = socket_peercred(&socket).is_ok_and(|peer| peer.uid == geteuid());
        Ok(Self { socket, unread: Vec::new(), unsent: Vec::new(), session: PulseSession::new(is_ours) })
    }

    /// Reads what is there, does it and answers. False: the client has left.
    fn serve(&mut self, buffer: &mut [u8], cookie: &[u8], mut sink: SinkContext<'_>) -> Result<bool, ClientError> {
        for _ in 0..READS {
            let length = match self.socket.read(buffer) {
                Ok(0) => return Ok(false),
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(ClientError::Socket(error)),
            };
            self.unread.extend_from_slice(&buffer[..length]);
            self.take_messages(cookie, &mut sink)?;
        }
        self.send()
    }

    fn take_messages(&mut self, cookie: &[u8], sink: &mut SinkContext<'_>) -> Result<(), ClientError> {
        let mut taken = 0;
        while let Some((channel, length)) = message(&self.unread[taken..])? {
            let payload = &self.unread[taken + DESCRIPTOR_SIZE..][..length];
            let sink = SinkContext { now: sink.now, mix: &mut *sink.mix, stats: &mut *sink.stats };
            if let Err(error) = self.session.on_message(channel, payload, cookie, sink, &mut self.unsent) {
                // It is told why, as far as its socket takes it.
                let _ = self.send();
                return Err(error.into());
            }
            taken += DESCRIPTOR_SIZE + length;
        }
        self.unread.drain(..taken);
        Ok(())
    }

    fn tick(&mut self, now: i64) -> Result<bool, ClientError> {
        self.session.tick(now, &mut self.unsent)?;
        self.send()
    }

    /// False: the client has left.
    fn send(&mut self) -> Result<bool, ClientError> {
        while !self.unsent.is_empty() {
            match self.socket.write(&self.unsent) {
                Ok(length) => {
                    self.unsent.drain(..length);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(false),
                Err(error) => return Err(ClientError::Socket(error)),
            }
        }
        if self.unsent.len() > MAX_UNSENT { Err(ClientError::Hangs) } else { Ok(true) }
    }
}

/// Why a client is sent away.
#[derive(Debug, thiserror::Error)]
enum ClientError {
    #[error("its socket")]
    Socket(#[source] io::Error),
    #[error("it takes no answers")]
    Hangs,
    #[error("a message of {0} bytes")]
    TooLong(usize),
    #[error("the beginning of a message")]
    Descriptor(#[from] pulseaudio::protocol::ProtocolError),
    #[error(transparent)]
    Session(#[from] super::session::SessionError),
}

/// The first message, once it is whole: its channel and the length of what follows its descriptor.
fn message(bytes: &[u8]) -> Result<Option<(u32, usize)>, ClientError> {
    let Some(mut head) = bytes.get(..DESCRIPTOR_SIZE) else { return Ok(None) };
    let descriptor = read_descriptor(&mut head)?;
    let length = descriptor.length as usize;
    if length > MAX_MEMBLOCKQ_LENGTH {
        return Err(ClientError::TooLong(length));
    }
    Ok((bytes.len() >= DESCRIPTOR_SIZE + length).then_some((descriptor.channel, length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_taken_once_it_is_whole() {
        let mut bytes = Vec::new();
        pulseaudio::protocol::write_memblock(&mut bytes, 7, &[1; 300], 0).unwrap();
        for length in [0, 5, DESCRIPTOR_SIZE, DESCRIPTOR_SIZE + 299] {
            assert_eq!(message(&bytes[..length]).unwrap(), None, "{length} bytes");
        }
        bytes.push(9);
        assert_eq!(message(&bytes).unwrap(), Some((7, 300)));
        let endless = [255; DESCRIPTOR_SIZE];
        assert!(matches!(message(&endless), Err(ClientError::TooLong(_))));
    }
}
