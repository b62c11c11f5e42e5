//! A hidden recorder in a LiveKit room.
//!
//! One thread with its own small runtime does everything of the room: signalling (`link`, `model`), the peer connection
//! (`peer`, `net`, `offer`, `turn`; `recovery` when it is lost, `delivery` when nothing comes) and the receiver (`crate::receive`). It never waits for its
//! listener. A `probe` does with the same parts what a recording does until its first packet.

mod probe;
mod drive;
mod recovery;
mod link;
mod model;
mod net;
mod stream_link;
mod relay_paths;
mod turn;
mod ice_server;
mod poll_pace;
mod offer;
mod peer;
mod holdback;
mod message;
mod track_demand;
mod delivery;

use tokio::sync::mpsc;
use tracing::Instrument;

use self::message::RoomCommand;
pub use self::message::{ExpectedPictures, JoinOptions, RoomListener, RoomMessage};
pub use self::probe::probe;
use crate::track::TrackId;

/// What can be asked of the room from any thread. Dropping it leaves.
pub struct Room {
    commands: mpsc::UnboundedSender<RoomCommand>,
}

impl Room {
    /// Returns at once; whatever goes wrong is the reason in [`RoomMessage::Ended`].
    ///
    /// # Errors
    ///
    /// When the runtime or its thread cannot be made. What goes wrong later is in [`RoomMessage::Ended`].
    pub fn join(
        options: JoinOptions,
        hear: impl FnMut(Vec<RoomMessage>) -> bool + Send + 'static,
    ) -> std::io::Result<Self> {
        // Two TLS providers are linked (livekit-signaling brings the second): one must be chosen. An error means that
        // one is chosen already.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        // The first random number of a process takes 30 ms (AWS-LC gathers entropy): meanwhile we sign in.
        std::thread::spawn(peer::warm_up);
        let (commands, inbox) = mpsc::unbounded_channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        // What it says belongs to the recording that joins.
        let span = tracing::Span::current();
        std::thread::Builder::new()
            .name("room".to_owned())
            .spawn(move || runtime.block_on(drive::run(options, inbox, Box::new(hear)).instrument(span)))?;
        Ok(Self { commands })
    }

    /// Asked of the publisher at most twice a second per track.
    pub fn ask_keyframe(&self, track: TrackId) {
        let _ = self.commands.send(RoomCommand::Keyframe(track));
    }

    /// The picture will be shown at this size: the server sends the smallest layer that fills it.
    pub fn prefer(&self, track: TrackId, width: u32, height: u32) {
        let _ = self.commands.send(RoomCommand::Prefer { track, width, height });
    }

    /// The picture is not shown: the server sends none of it until a size is preferred, or its participant speaks.
    pub fn pause(&self, track: TrackId) {
        let _ = self.commands.send(RoomCommand::Pause(track));
    }

    /// Does not wait: what has arrived still comes, then `Ended(Stopped)`.
    pub fn leave(&self) {
        let _ = self.commands.send(RoomCommand::Leave);
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.leave();
    }
}
