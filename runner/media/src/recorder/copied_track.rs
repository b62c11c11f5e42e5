//! The track whose frames a recording copies, and what stands in for its picture while that is away. On the controller's
//! thread.

use super::mode::FileStart;
use super::recorded_file::FileError;
use crate::encode::black;
use crate::output::Feed;
use crate::passthrough::Passthrough;
use crate::track::{Codec, Track, TrackId};
use crate::units::MediaTime;

/// What is copied, as it is now.
pub(super) struct CopiedTrack {
    pub(super) id: TrackId,
    /// Of its participant.
    pub(super) identity: String,
    pub(super) codec: Codec,
    pub(super) size: (u32, u32),
    pub(super) copy: Passthrough,
    pub(super) beside_sound: bool,
    pub(super) blackened: bool,
}

impl CopiedTrack {
    /// From `first` on into `feed`.
    pub(super) fn new(track: &Track, first: FileStart, feed: Feed, beside_sound: bool) -> Self {
        let copy = Passthrough::new(feed, track.codec, first.at);
        let identity = track.identity.clone();
        Self { id: track.id, identity, codec: track.codec, size: first.size, copy, beside_sound, blackened: false }
    }

    /// The picture goes at `at`.
    pub(super) fn absent(&mut self, at: MediaTime) -> Result<(), FileError> {
        if self.beside_sound && !self.blackened {
            self.copy.fill_with(black(self.size)?);
            self.blackened = true;
        }
        Ok(self.copy.absent(at)?)
    }
}
