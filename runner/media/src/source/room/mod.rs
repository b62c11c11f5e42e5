//! A hidden recorder in a LiveKit room.
//!
//! One thread with its own small runtime does everything of the room: signalling (`link`, `model`), the peer connection
//! (`peer`, `net`, `offer`) and the way from packets to `Timed` (`reception`). It never waits for its listener.

mod drive;
mod link;
mod model;
mod net;
mod offer;
mod peer;
mod weir;

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use spillway_plan::Secret;
use spillway_plan::Source;
use spillway_spool::EndReason;
use tokio::sync::mpsc;
use tracing::Instrument;

use super::TrackStats;
use crate::track::{Timed, TrackId};

pub struct JoinOptions {
    /// `ws://` or `wss://` of livekit-server.
    pub ws_url: String,
    pub token: Secret,
    /// Sid of the room that was asked for; empty: whichever has the name in the token.
    pub room_id: String,
    pub choose: Source,
    pub want_video: bool,
    pub want_audio: bool,
    /// How long a hole in a track's RTP is waited for.
    pub reorder: Duration,
    /// How long a named participant or track may take to appear.
    pub appear: Duration,
    /// Hold the first frames until every track has a sender report, at most this long: copies then start in sync.
    pub hold: Duration,
    /// Keep everything that arrives in this file, for [`super::replay::Replay`].
    pub dump: Option<PathBuf>,
    /// Share of incoming media packets to throw away, 0 to 1: to see recovery work.
    pub lose: f64,
}

impl JoinOptions {
    pub fn new(ws_url: impl Into<String>, token: Secret, choose: Source) -> Self {
        Self {
            ws_url: ws_url.into(),
            token,
            room_id: String::new(),
            choose,
            want_video: true,
            want_audio: true,
            reorder: Duration::from_secs(2),
            appear: Duration::from_secs(30),
            hold: Duration::ZERO,
            dump: None,
            lose: 0.0,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Delivery {
    Timed(Timed),
    /// Again after a rejoin.
    Joined {
        room_id: String,
        room_name: String,
    },
    /// What the recording still waits for, in words.
    Waiting(String),
    /// Worth telling the user.
    Noted(String),
    /// Of every track, about every two seconds and at the end.
    Stats(TrackStats),
    /// The last one.
    Ended(EndReason),
}

enum Command {
    Keyframe(TrackId),
    Prefer { track: TrackId, width: u32, height: u32 },
    Leave,
}

/// What can be asked of the room from any thread.
#[derive(Clone)]
pub struct RoomHandle {
    commands: mpsc::UnboundedSender<Command>,
}

impl RoomHandle {
    /// Asked of the publisher at most twice a second per track.
    pub fn ask_keyframe(&self, track: TrackId) {
        let _ = self.commands.send(Command::Keyframe(track));
    }

    /// The picture will be shown at this size: the server sends the smallest layer that fills it.
    pub fn prefer(&self, track: TrackId, width: u32, height: u32) {
        let _ = self.commands.send(Command::Prefer { track, width, height });
    }

    /// Does not wait: what has arrived still comes, then `Ended(Stopped)`.
    pub fn leave(&self) {
        let _ = self.commands.send(Command::Leave);
    }
}

pub struct Room {
    handle: RoomHandle,
    deliveries: Receiver<Delivery>,
    origin: SharedOrigin,
}

type SharedOrigin = Arc<Mutex<Option<(Instant, SystemTime)>>>;

impl Room {
    /// Returns at once; whatever goes wrong is the reason in [`Delivery::Ended`].
    pub fn join(options: JoinOptions) -> std::io::Result<Self> {
        // Two TLS providers are linked (livekit-signaling brings the second): one must be chosen. An error means that
        // somebody chose already.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        // The first random number of a process takes 30 ms (AWS-LC gathers entropy): meanwhile we sign in.
        std::thread::spawn(peer::warm_up);
        let (commands, inbox) = mpsc::unbounded_channel();
        let (outbox, deliveries) = channel();
        let origin = SharedOrigin::default();
        let shared = origin.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        // What it says belongs to the recording that joins.
        let span = tracing::Span::current();
        std::thread::Builder::new()
            .name("room".to_owned())
            .spawn(move || runtime.block_on(drive::run(options, inbox, outbox, shared).instrument(span)))?;
        Ok(Self { handle: RoomHandle { commands }, deliveries, origin })
    }

    /// Waits for the next delivery; `None` after `Ended`.
    pub fn recv(&self) -> Option<Delivery> {
        self.deliveries.recv().ok()
    }

    /// `Ok(None)`: nothing came in time.
    pub fn recv_timeout(&self, patience: Duration) -> Result<Option<Delivery>, Closed> {
        match self.deliveries.recv_timeout(patience) {
            Ok(delivery) => Ok(Some(delivery)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(Closed),
        }
    }

    /// `Ok(None)`: nothing is waiting.
    pub fn try_recv(&self) -> Result<Option<Delivery>, Closed> {
        match self.deliveries.try_recv() {
            Ok(delivery) => Ok(Some(delivery)),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(Closed),
        }
    }

    pub fn handle(&self) -> RoomHandle {
        self.handle.clone()
    }

    pub fn ask_keyframe(&self, track: TrackId) {
        self.handle.ask_keyframe(track);
    }

    pub fn prefer(&self, track: TrackId, width: u32, height: u32) {
        self.handle.prefer(track, width, height);
    }

    pub fn leave(&self) {
        self.handle.leave();
    }

    /// When session time 0 was, once the first packet has come.
    pub fn origin(&self) -> Option<(Instant, SystemTime)> {
        *self.origin.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.handle.leave();
    }
}

/// The room is over and everything was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the room is over")]
pub struct Closed;
