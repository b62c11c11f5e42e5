//! What goes into a room and what comes out of it: options and commands down, messages up.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use spillway_ipc::MediaEndReason;
use spillway_plan::{Secret, Source};

use crate::compositor::{Arrangement, Size};
use crate::receive::{EmptyStart, TrackStats};
use crate::stream_tls::StreamTls;
use crate::track::{Codec, TimelineEvent, TrackId};

/// Pictures that will be made of what a room has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpectedPictures {
    /// Which tracks are shown where.
    pub arrangement: Arrangement,
    /// Of the canvas.
    pub size: Size,
    /// Pictures a second.
    pub framerate: u32,
}

/// How to join, and what to record.
pub struct JoinOptions {
    /// `ws://` or `wss://` of livekit-server.
    pub ws_url: String,
    /// Room token: subscribe only, hidden, recorder.
    pub token: Secret,
    /// Sid of the room that was asked for; empty: whichever has the name in the token.
    pub room_id: String,
    /// Which publications are recorded.
    pub choose: Source,
    /// Subscribe to video.
    pub want_video: bool,
    /// Subscribe to sound.
    pub want_audio: bool,
    /// How long a hole in a track's RTP is waited for.
    pub reorder: Duration,
    /// How far a track that keeps coming may be late before the others go on without it.
    pub late: Duration,
    /// How long a named participant or track may take to appear.
    pub appear: Duration,
    /// One track alone is recorded: a sound that is muted from the start begins as silence.
    pub begins_muted: bool,
    /// What is recorded although nothing has come of it for 5 s.
    pub begins_without_media: EmptyStart,
    /// Codecs whose pictures are copied: they begin in the best layer, which is asked for.
    pub best_layer_of: Vec<Codec>,
    /// How long the participant of a Participant recording may be away before the recording ends.
    pub return_grace: Duration,
    /// Meanwhile the recording stands still, so that it ends where the participant left if it does not return. Nothing that
    /// is watched live can do so.
    pub waits_for_return: bool,
    /// Of each picture as much is asked for at subscription as these need. `None`: pictures are copied, or may be.
    pub expected: Option<ExpectedPictures>,
    /// How TURN servers are authenticated that are reached over TLS.
    pub tls: StreamTls,
    /// Keep everything that arrives in this file, for [`crate::source::replay::Replay`].
    pub dump: Option<PathBuf>,
}

impl JoinOptions {
    /// Everything else as a recording to a file has it.
    pub fn new(ws_url: impl Into<String>, token: Secret, choose: Source) -> Self {
        Self {
            ws_url: ws_url.into(),
            token,
            room_id: String::new(),
            choose,
            want_video: true,
            want_audio: true,
            reorder: Duration::from_secs(2),
            // A full uplink queues for 2 to 5 s; waiting costs a file memory only.
            late: Duration::from_secs(10),
            appear: Duration::from_secs(30),
            begins_muted: false,
            begins_without_media: EmptyStart::Never,
            best_layer_of: vec![],
            return_grace: Duration::from_secs(10),
            waits_for_return: true,
            expected: None,
            tls: StreamTls::default(),
            dump: None,
        }
    }
}

/// What a room tells its listener.
#[derive(Clone, Debug, PartialEq)]
pub enum RoomMessage {
    /// When media time 0 was. Before the first [`RoomMessage::TimelineEvent`] and never again.
    Epoch {
        /// By the monotonic clock.
        at: Instant,
    },
    /// An event of the recording, per track in order of time.
    TimelineEvent(TimelineEvent),
    /// In the room; again after a rejoin.
    Joined {
        /// Sid, `RM_…`.
        room_id: String,
        /// Its name.
        room_name: String,
    },
    /// The server has given a newer token.
    Token(Secret),
    /// What the recording still waits for, for the user.
    Waiting(String),
    /// Worth telling the user.
    Noted(String),
    /// Of every track, about every two seconds and at the end.
    Stats(TrackStats),
    /// The last one.
    Ended(MediaEndReason),
}

/// What the room's handle asks of its thread.
pub(crate) enum RoomCommand {
    Keyframe(TrackId),
    Prefer { track: TrackId, width: u32, height: u32 },
    Pause(TrackId),
    Leave,
}

/// Called with everything in order, all that is known at a time, from the room's own thread: it must not wait. False:
/// the recorder is gone. It is dropped after [`RoomMessage::Ended`].
pub type RoomListener = dyn FnMut(Vec<RoomMessage>) -> bool + Send;
