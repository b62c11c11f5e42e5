//! A video track of the picture mixer: which of its pictures is shown when, and whether that is another one than before. In
//! the mixer's thread; it waits for the track's decoder.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use super::canvas::{TileScaler, is_same_picture};
use super::frame_queue::{FrameQueue, QueuedFrame};
use crate::cadence::Cadence;
use crate::compositor::decode::VideoFrame;
use crate::compositor::policy::layout::Size;
use crate::compositor::sync::inbox::Inbox;
use crate::track::{Track, TrackSource};
use crate::units::MediaTime;

/// A video track on the canvas.
pub struct VideoInput {
    /// The track.
    pub track: Track,
    /// Its decoded pictures.
    pub pictures: Arc<FrameQueue>,
    /// Where its encoded pictures wait; gone with its decoder's thread.
    pub inbox: Weak<Inbox>,
    /// What is shown of it; `None`: it has no tile.
    pub current: Option<VideoFrame>,
    /// Taken and not shown yet.
    due: VecDeque<VideoFrame>,
    /// Distances of its pictures.
    pub cadence: Cadence,
    /// Order of first joining: the layouts' stable order.
    pub order: usize,
    /// Counts up whenever any track begins to be seen.
    pub came: u64,
    /// `current` is a later picture of its source than the one that was counted last.
    pub renewed: bool,
    /// `current` does not look as the last canvas shows it.
    pub changed: bool,
    /// Draws it.
    pub scaler: TileScaler,
    /// It is over.
    pub left: bool,
}

impl VideoInput {
    /// Nothing is shown of it yet. `way`: its decoded pictures, and where the encoded ones wait.
    pub fn new(track: Track, way: (Arc<FrameQueue>, Weak<Inbox>), order: usize) -> Self {
        let (pictures, inbox) = way;
        Self {
            track,
            pictures,
            inbox,
            current: None,
            due: VecDeque::new(),
            cadence: Cadence::default(),
            order,
            came: 0,
            renewed: false,
            changed: false,
            scaler: TileScaler::default(),
            left: false,
        }
    }

    /// Shows a screen, not a camera.
    pub fn is_screen(&self) -> bool {
        self.track.origin == TrackSource::ScreenShare
    }

    /// Of the picture that is shown.
    pub fn size(&self) -> Option<Size> {
        self.current.as_ref().map(|picture| Size { width: picture.info.width(), height: picture.info.height() })
    }

    /// Up to `known`: a mute or a departure empties the tile, nothing goes back in time. A camera that sends nothing keeps
    /// its last picture, as in every web client: the server says when its publisher is gone. True: it begins to be seen.
    pub fn advance(&mut self, at: MediaTime, known: MediaTime) -> bool {
        let Self { pictures, current, due, cadence, left, .. } = self;
        pictures.take_to(known, |queued| match queued {
            QueuedFrame::Frame(picture) => match due.back().or(current.as_ref()).map(|last| last.at) {
                Some(last) if last > picture.at => {}
                last => {
                    last.into_iter().for_each(|last| cadence.distance(picture.at.ns_since(last)));
                    due.push_back(picture);
                }
            },
            QueuedFrame::Muted(_) => {
                due.clear();
                *current = None;
            }
            QueuedFrame::Left(_) => {
                due.clear();
                *current = None;
                *left = true;
            }
        });
        next_due(&mut self.due, at, |picture| picture.at).is_some_and(|picture| self.show(picture))
    }

    fn show(&mut self, picture: VideoFrame) -> bool {
        // What a codec repeats without a change (a still screen, a covered camera) needs neither painting nor encoding.
        let is_same = self.current.as_ref().is_some_and(|shown| is_same_picture(shown, &picture));
        self.changed |= !is_same;
        self.renewed = true;
        self.current.replace(picture).is_none()
    }
}

/// Which of the pictures that fall on one output time is shown: the nearest. Those after it wait for the next.
fn next_due<T>(due: &mut VecDeque<T>, at: MediaTime, time: impl Fn(&T) -> MediaTime) -> Option<T> {
    while let (Some(first), Some(second)) = (due.front().map(&time), due.get(1).map(&time))
        && second.abs_diff_ns(at) < first.abs_diff_ns(at)
    {
        due.pop_front();
    }
    due.pop_front()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compositor::policy::pacing::output_time;

    #[test]
    fn a_faster_camera_is_thinned_evenly() {
        let pictures: Vec<u64> = (0..120).map(|n| output_time(n, 60)).collect();
        let (mut due, mut coming) = (VecDeque::new(), pictures.iter().copied().peekable());
        let mut queued = Vec::new();
        for n in 0..58 {
            let (at, next) = (output_time(n, 30), output_time(n + 1, 30));
            due.extend(std::iter::from_fn(|| coming.next_if(|picture| *picture <= (at + next) / 2)));
            queued.extend(next_due(&mut due, MediaTime::from_ns(at), |picture| MediaTime::from_ns(*picture)));
        }
        let steps: Vec<u64> = queued.windows(2).map(|pair| (pair[1] - pair[0]) / 1_000_000).collect();
        assert_eq!(steps.len(), 57);
        assert!(steps.iter().all(|step| (33..=34).contains(step)), "{steps:?}");
    }
}
