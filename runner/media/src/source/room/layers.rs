//! Which layer of each video the server is asked for. The server knows it of a subscription: after a rejoin, and when a
//! participant publishes anew, it is asked again. In: what the recording wants, and new subscriptions. Out: requests. Pure.

use std::collections::HashMap;

use livekit_protocol::{UpdateTrackSettings, VideoQuality};

use crate::receive::event::Publication;
use crate::track::TrackSource;

/// What is wanted of the videos of a room, by participant and source.
#[derive(Debug)]
pub(super) struct LayerSettings {
    best: bool,
    asked: HashMap<(String, TrackSource), (u32, u32)>,
}

impl LayerSettings {
    /// `best`: pictures are copied, and the best layer of each is asked for before anything else is.
    pub(super) fn new(best: bool) -> Self {
        Self { best, asked: HashMap::new() }
    }

    /// The layer nearest to this size in pixels, from now on.
    pub(super) fn prefer(&mut self, publication: &Publication, size: (u32, u32)) -> UpdateTrackSettings {
        self.asked.insert((publication.identity.clone(), publication.origin), size);
        nearest(publication, size)
    }

    /// What is asked for a video that is subscribed now; `None`: whatever the server sends.
    pub(super) fn subscribed(&self, publication: &Publication) -> Option<UpdateTrackSettings> {
        if let Some(size) = self.asked.get(&(publication.identity.clone(), publication.origin)) {
            return Some(nearest(publication, *size));
        }
        self.best.then(|| UpdateTrackSettings {
            track_sids: vec![publication.sid.clone()],
            quality: VideoQuality::High.into(),
            ..UpdateTrackSettings::default()
        })
    }
}

fn nearest(publication: &Publication, (width, height): (u32, u32)) -> UpdateTrackSettings {
    UpdateTrackSettings { track_sids: vec![publication.sid.clone()], width, height, ..UpdateTrackSettings::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn camera(sid: &str) -> Publication {
        Publication {
            sid: sid.into(),
            identity: "ann".into(),
            agent: false,
            side: spillway_plan::StereoSide::Both,
            origin: TrackSource::Camera,
            size: (1280, 720),
            muted: false,
        }
    }

    #[test]
    fn a_new_subscription_is_asked_for_what_the_old_one_was() {
        let mut settings = LayerSettings::new(false);
        assert_eq!(settings.subscribed(&camera("TR_1")), None);
        let asked = settings.prefer(&camera("TR_1"), (320, 180));
        assert_eq!((asked.width, asked.height), (320, 180));
        // After a rejoin under the same sid, after a republish under another one.
        for sid in ["TR_1", "TR_2"] {
            let again = settings.subscribed(&camera(sid)).unwrap();
            assert_eq!((again.track_sids, again.width, again.height), (vec![sid.to_owned()], 320, 180));
        }
        let screen = Publication { origin: TrackSource::ScreenShare, ..camera("TR_3") };
        assert_eq!(settings.subscribed(&screen), None);
    }

    #[test]
    fn the_best_layer_is_asked_for_where_pictures_are_copied() {
        let asked = LayerSettings::new(true).subscribed(&camera("TR_1")).unwrap();
        assert_eq!((asked.quality(), asked.width, asked.disabled), (VideoQuality::High, 0, false));
    }
}
