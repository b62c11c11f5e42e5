//! What a media source of the second API chooses in a room: its video, and audio by routes. Pure.

use std::collections::BTreeSet;
use std::fmt;

use spillway_plan::{AudioMatch, AudioRoute, MediaVideo, Source, StereoSide};

use crate::track::TrackSource;

/// What a request names, without which there is no recording.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Awaited {
    /// Identity.
    Participant(String),
    /// Sid.
    Track(String),
}

impl fmt::Display for Awaited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Participant(identity) => write!(f, "participant {identity}"),
            Self::Track(sid) => write!(f, "track {sid}"),
        }
    }
}

/// Each once, participants first, as livekit/egress waits for them. Empty for every other source.
pub(super) fn awaited(source: &Source) -> Vec<Awaited> {
    let Source::Media { video, audio, .. } = source else { return vec![] };
    let of_video = video.iter().map(|video| match video {
        MediaVideo::Track(sid) => Awaited::Track(sid.clone()),
        MediaVideo::Camera(identity) | MediaVideo::ScreenShare(identity) => Awaited::Participant(identity.clone()),
    });
    let of_audio = audio.iter().filter_map(|route| match &route.of {
        AudioMatch::Track(sid) => Some(Awaited::Track(sid.clone())),
        AudioMatch::Participant(identity) => Some(Awaited::Participant(identity.clone())),
        AudioMatch::Kind(_) => None,
    });
    let each: BTreeSet<Awaited> = of_video.chain(of_audio).collect();
    each.into_iter().collect()
}

/// As what a request names a track.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) as_video: bool,
    pub(super) as_audio: bool,
}

/// As what this source names the publication; a Track request does not say of which kind its track is.
pub(super) fn named(source: &Source, sid: &str) -> Named {
    match source {
        Source::Tracks { audio, video } => {
            Named { as_video: video.as_deref() == Some(sid), as_audio: audio.as_deref() == Some(sid) }
        }
        Source::Media { video, audio, .. } => Named {
            as_video: matches!(video, Some(MediaVideo::Track(named)) if named == sid),
            as_audio: audio.iter().any(|route| matches!(&route.of, AudioMatch::Track(named) if named == sid)),
        },
        Source::Room | Source::Participant { .. } | Source::Track { .. } | Source::Page(_) => Named::default(),
    }
}

/// Whether this video track is the one.
pub(super) fn shows(video: &MediaVideo, sid: &str, identity: &str, origin: TrackSource) -> bool {
    match video {
        MediaVideo::Track(named) => named == sid,
        MediaVideo::Camera(named) => named == identity && origin == TrackSource::Camera,
        MediaVideo::ScreenShare(named) => named == identity && origin == TrackSource::ScreenShare,
    }
}

/// Where this audio track is heard: the first route that matches decides. `None`: it is not recorded.
pub(super) fn side(
    routes: &[AudioRoute],
    other_audio: bool,
    sid: &str,
    identity: &str,
    kind: i32,
) -> Option<StereoSide> {
    let matches = |route: &&AudioRoute| match &route.of {
        AudioMatch::Track(named) => named == sid,
        AudioMatch::Participant(named) => named == identity,
        AudioMatch::Kind(number) => *number == kind,
    };
    routes.iter().find(matches).map(|route| route.side).or(other_audio.then_some(StereoSide::Both))
}
