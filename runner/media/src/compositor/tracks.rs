//! The tracks of a compositor: where the frames of each go and by how much its times are moved.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::policy::pacing::{FramePacing, LipSync};
use super::sync::decoded_queue::DecodedQueue;
use super::sync::inbox::Inbox;
use crate::track::TrackId;
use crate::units::MediaTime;

#[derive(Default)]
pub(super) struct Tracks {
    /// In order of joining; a track that left stays until its lane has finished.
    pub(super) live: Vec<LiveTrack>,
    /// By participant: samples of sound that came when their time was already mixed.
    pub(super) late_samples: BTreeMap<String, Arc<AtomicU64>>,
    /// Said so far.
    pub(super) watermark: MediaTime,
    /// Nothing is taken any more.
    pub(super) over: bool,
}

pub(super) struct LiveTrack {
    pub(super) track: TrackId,
    pub(super) identity: String,
    pub(super) inbox: Arc<Inbox>,
    pub(super) queue: Arc<dyn DecodedQueue>,
    pub(super) pace: TrackPacing,
    /// A screen's sound goes along with the screen, a microphone with the camera.
    pub(super) screen: bool,
    pub(super) left: bool,
    /// The user knows that pictures of it are missing.
    pub(super) told_full: bool,
}

impl Tracks {
    /// Where a frame of this track goes.
    pub(super) fn pace(&mut self, track: TrackId, at: MediaTime) -> MediaTime {
        let Some(index) = self.live.iter().rposition(|live| live.track == track && !live.left) else { return at };
        let late = self.late_beside(&self.live[index]);
        match &mut self.live[index].pace {
            TrackPacing::FrameQueue(step) => step.show(at),
            TrackPacing::Sound(follow) => follow.shift(at, late),
        }
    }

    /// How late the pictures are shown that the sound of `live` belongs to.
    fn late_beside(&self, live: &LiveTrack) -> Option<i64> {
        let same = |other: &&LiveTrack| !other.left && other.identity == live.identity && other.screen == live.screen;
        self.live.iter().filter(same).find_map(|other| match &other.pace {
            TrackPacing::FrameQueue(step) => step.late(),
            TrackPacing::Sound(_) => None,
        })
    }

    pub(super) fn of_mut(&mut self, track: TrackId) -> Option<&mut LiveTrack> {
        self.live.iter_mut().rfind(|live| live.track == track && !live.left)
    }

    pub(super) fn forget_finished(&mut self) {
        // A lane that has ended has let go of its inbox.
        self.live.retain(|live| !live.left || Arc::strong_count(&live.inbox) > 1);
    }
}

pub(super) enum TrackPacing {
    FrameQueue(FramePacing),
    Sound(LipSync),
}

impl LiveTrack {
    pub(super) fn is_video(&self) -> bool {
        matches!(self.pace, TrackPacing::FrameQueue(_))
    }

    /// Where a moment of this track goes.
    pub(super) fn moved(&self, at: MediaTime) -> MediaTime {
        match &self.pace {
            TrackPacing::FrameQueue(step) => step.moved(at),
            TrackPacing::Sound(follow) => follow.moved(at),
        }
    }

    pub(super) fn abandon(&self) {
        self.inbox.abandon();
        self.queue.abandon();
    }
}
