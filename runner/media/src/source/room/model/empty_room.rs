//! Whether a room in which nobody is may be one that livekit-server has forgotten. Pure.
//!
//! livekit-server 1.13.5 forgets a deleted room by its name (`RoomManager.deleteRoom`). A join between the deletion and that
//! moment makes another room with the old sid, and that one is forgotten: nobody can come into it, and it never ends. Joining
//! again shows it, because the name belongs to another room by then. A recording that goes on after the death of its media
//! process joined so in 2 of 8 runs beside two busy loops.

use std::time::Duration;

use crate::receive::event::SourceTime;

/// From a join until it is looked whether the room is known: long after a deletion is done (0.2 s on a busy machine).
const ALONE_FOR: Duration = Duration::from_secs(5);

/// One look after each join.
#[derive(Debug, Default)]
pub(super) struct EmptyRoomCheck {
    due: Option<SourceTime>,
}

impl EmptyRoomCheck {
    pub(super) fn joined(&mut self, now: SourceTime) {
        self.due = Some(now + ALONE_FOR);
    }

    /// Somebody is there: the server knows the room.
    pub(super) fn is_known(&mut self) {
        self.due = None;
    }

    /// True once: nobody was there since the join, so the room is to be joined again.
    pub(super) fn tick(&mut self, now: SourceTime) -> bool {
        self.due.take_if(|due| now >= *due).is_some()
    }
}
