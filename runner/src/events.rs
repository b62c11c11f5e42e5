//! Events for the session of an egress, from the media process and from the tasks around it: control, heartbeat, uploads,
//! signals. Values only; they travel through bounded channels of `serve` into `session`.

use spillway_ipc::MediaEvent;
use spillway_protocol::livekit::EgressInfo;
use spillway_protocol::{Code, RpcError, Secret};
use tokio::sync::oneshot;

/// Origin of a stop; it decides the end reason in `details`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopSource {
    /// StopEgress.
    Api,
    /// SIGTERM or SIGINT to a recording by hand.
    Signal,
    /// SIGTERM to a task that nobody has asked to stop: its platform takes it away.
    Host,
}

/// An event for [`Session::on`](crate::session::machine::Session::on).
#[derive(Clone, Debug)]
pub enum SessionEvent {
    /// The media process sent this.
    Media(MediaEvent),
    /// The recording is to end; repeated stops change nothing.
    StopAsked(StopSource),
    /// The media process exited; a description for the user.
    MediaExited(String),
    /// The room of the request has ended, and our joining made a new one of the same name.
    WrongRoom,
    /// A store refuses before anything is recorded, or the folder of segments cannot be made.
    CannotWrite(String),
    /// An output takes nothing more.
    OutputEnded {
        /// Place in the plan's outputs.
        output: u32,
        /// `None`: it was asked to end.
        failure: Option<(Code, String)>,
    },
    /// An output that had ended, or had nothing to take media, takes it again.
    OutputOpened {
        /// Place in the plan's outputs.
        output: u32,
    },
    /// The spool has no room for what waits to be uploaded, or no object can be begun for it.
    OutputFull {
        /// Place in the plan's outputs.
        output: u32,
        /// For the user.
        message: String,
    },
    /// Worth telling the user in `details`.
    Noted(String),
    /// Another runner or a dispatcher writes about this egress now.
    OwnershipLost,
    /// Time has passed.
    Tick,
}

/// An UpdateStream call. It has a channel of its own, because it is answered.
#[derive(Debug)]
pub struct StreamUpdate {
    /// URLs of streams that are to begin, each with its key.
    pub add: Vec<Secret>,
    /// URLs of streams that are to end, as they were given.
    pub remove: Vec<Secret>,
    /// Takes the EgressInfo behind the update, or why a part of it was refused.
    pub answer: oneshot::Sender<Result<EgressInfo, RpcError>>,
}
