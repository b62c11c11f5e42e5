//! The track whose frames a recording copies, and what stands in for its picture while that is away. On the controller's
//! thread.

use spillway_process::chain;

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
    /// The user knows that its size changes: each change would be too much.
    pub(super) told_size: bool,
    /// Its publication is over, since then.
    pub(super) left_at: Option<MediaTime>,
}

impl CopiedTrack {
    /// From `first` on into `feed`.
    pub(super) fn new(track: &Track, first: FileStart, feed: Feed, beside_sound: bool) -> Self {
        let copy = Passthrough::new(feed, track.codec, first.at);
        let identity = track.identity.clone();
        let (id, codec, size) = (track.id, track.codec, first.size);
        Self { id, identity, codec, size, copy, beside_sound, blackened: false, told_size: false, left_at: None }
    }

    /// The picture goes at `at`. What the user is told: a recording does not end because an encoder is not installed.
    pub(super) fn absent(&mut self, at: MediaTime) -> Result<Option<String>, FileError> {
        let mut note = None;
        if self.beside_sound && !self.blackened {
            self.blackened = true;
            match black(self.codec, self.size) {
                Ok(picture) => self.copy.fill_with(picture),
                Err(error) => note = Some(format!("a muted picture is not black: {}", chain(&error))),
            }
        }
        self.copy.absent(at)?;
        Ok(note)
    }
}
