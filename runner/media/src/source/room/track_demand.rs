//! What is asked of livekit-server for each video track: a size, the best layer where it is copied, or nothing while it has no
//! place on the canvas. Asked again where the server has forgotten it: after a rejoin, and when a track is published anew. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use livekit_protocol::{UpdateTrackSettings, VideoQuality};

use crate::receive::event::SourceTime;
use crate::track::TrackId;

/// A participant that has spoken is received for so long although its picture has no place: it is the next to get one.
const SPOKE_FOR: Duration = Duration::from_secs(10);
/// Of a track that has no place.
pub(super) const UNSEEN: TrackDemand = TrackDemand::Size { width: 320, height: 180 };

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TrackDemand {
    /// The smallest layer that fills this, in pixels.
    Size { width: u32, height: u32 },
    /// The best layer.
    Best,
    /// No packets.
    Paused,
}

impl TrackDemand {
    /// As the server is told. `fps`: pictures a second that are needed; 0: all.
    pub(super) fn settings(self, sid: String, fps: u32) -> UpdateTrackSettings {
        let mut settings = UpdateTrackSettings { track_sids: vec![sid], fps, ..UpdateTrackSettings::default() };
        match self {
            Self::Size { width, height } => (settings.width, settings.height) = (width, height),
            Self::Best => settings.quality = VideoQuality::High.into(),
            Self::Paused => settings.disabled = true,
        }
        settings
    }
}

#[derive(Debug, Default)]
pub(super) struct TrackDemands {
    asked: BTreeMap<TrackId, AskedTrack>,
    /// By identity: when it was last heard; `None` while it speaks.
    spoke: BTreeMap<String, Option<SourceTime>>,
}

#[derive(Debug)]
struct AskedTrack {
    demand: TrackDemand,
    /// The publication that the server was told of, and what.
    told: Option<(String, TrackDemand)>,
}

impl TrackDemands {
    /// What the compositor wants of this track from now on.
    pub(super) fn ask(&mut self, track: TrackId, demand: TrackDemand) {
        self.asked.entry(track).or_insert(AskedTrack { demand, told: None }).demand = demand;
    }

    /// The server knows nothing of it any more.
    pub(super) fn forget_told(&mut self) {
        self.asked.values_mut().for_each(|asked| asked.told = None);
    }

    /// These speak now, and no others. Known here seconds before the compositor shows it: the first picture is there by
    /// then.
    pub(super) fn speaks(&mut self, identities: &[String], now: SourceTime) {
        for (identity, since) in &mut self.spoke {
            if since.is_none() && !identities.contains(identity) {
                *since = Some(now);
            }
        }
        self.spoke.extend(identities.iter().map(|identity| (identity.clone(), None)));
    }

    /// What the server is to be told: tracks, their sids and what is asked of them. `publication`: sid and identity of a track's newest one.
    pub(super) fn due<'a>(
        &mut self,
        publication: impl Fn(TrackId) -> Option<(&'a str, &'a str)>,
        now: SourceTime,
    ) -> Vec<(TrackId, String, TrackDemand)> {
        self.spoke.retain(|_, since| since.is_none_or(|since| now.saturating_sub(since) < SPOKE_FOR));
        let mut due = Vec::new();
        for (track, asked) in &mut self.asked {
            let Some((sid, identity)) = publication(*track) else { continue };
            let is_awake = asked.demand == TrackDemand::Paused && self.spoke.contains_key(identity);
            let demand = if is_awake { UNSEEN } else { asked.demand };
            let is_told = asked.told.as_ref().is_some_and(|(told, known)| told == sid && *known == demand);
            if !is_told {
                asked.told = Some((sid.to_owned(), demand));
                due.push((*track, sid.to_owned(), demand));
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACK: TrackId = TrackId(3);
    const LARGE: TrackDemand = TrackDemand::Size { width: 1280, height: 720 };

    fn seconds(seconds: u64) -> SourceTime {
        Duration::from_secs(seconds)
    }

    fn due(demands: &mut TrackDemands, sid: &'static str, at: u64) -> Vec<TrackDemand> {
        let told = demands.due(|_| Some((sid, "ann")), seconds(at));
        told.into_iter()
            .map(|(track, told, demand)| {
                assert_eq!((track, told.as_str()), (TRACK, sid));
                demand
            })
            .collect()
    }

    #[test]
    fn a_demand_is_told_once_and_again_where_it_is_forgotten() {
        let mut demands = TrackDemands::default();
        demands.ask(TRACK, LARGE);
        assert_eq!(demands.due(|_| None, seconds(0)), [], "not published yet");
        assert_eq!(due(&mut demands, "TR_a", 1), [LARGE]);
        demands.ask(TRACK, LARGE);
        assert_eq!(due(&mut demands, "TR_a", 2), []);
        assert_eq!(due(&mut demands, "TR_b", 3), [LARGE], "published anew");
        demands.forget_told();
        assert_eq!(due(&mut demands, "TR_b", 4), [LARGE], "joined anew");
        demands.ask(TRACK, UNSEEN);
        assert_eq!(due(&mut demands, "TR_b", 5), [UNSEEN]);
    }

    #[test]
    fn a_size_the_best_layer_or_nothing_is_asked_for() {
        let settings = |demand: TrackDemand| demand.settings("TR_a".to_owned(), 30);
        let sized = settings(LARGE);
        assert_eq!((sized.track_sids.clone(), sized.width, sized.height), (vec!["TR_a".to_owned()], 1280, 720));
        assert_eq!((sized.fps, sized.disabled), (30, false));
        let best = settings(TrackDemand::Best);
        assert_eq!((best.quality(), best.width, best.disabled), (VideoQuality::High, 0, false));
        assert!(settings(TrackDemand::Paused).disabled);
    }

    #[test]
    fn who_speaks_is_received_and_for_a_while_after() {
        let mut demands = TrackDemands::default();
        demands.ask(TRACK, TrackDemand::Paused);
        assert_eq!(due(&mut demands, "TR_a", 0), [TrackDemand::Paused]);
        demands.speaks(&["ann".to_owned(), "bob".to_owned()], seconds(10));
        assert_eq!(due(&mut demands, "TR_a", 10), [UNSEEN]);
        demands.speaks(&["ann".to_owned()], seconds(60));
        assert_eq!(due(&mut demands, "TR_a", 60), [], "it goes on");
        demands.speaks(&[], seconds(70));
        assert_eq!(due(&mut demands, "TR_a", 79), []);
        assert_eq!(due(&mut demands, "TR_a", 80), [TrackDemand::Paused]);
        // Shown meanwhile: the compositor's size counts.
        demands.speaks(&["ann".to_owned()], seconds(90));
        demands.ask(TRACK, LARGE);
        assert_eq!(due(&mut demands, "TR_a", 90), [LARGE]);
    }
}
