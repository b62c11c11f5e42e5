//! Whether what is subscribed is delivered. In: subscriptions and mutes, which of them have come, the time. Out: what is
//! subscribed once more, because a server may have lost it (a migration, an offer that failed), and what is given up. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::receive::event::SourceTime;

/// A track that is not muted sends within a second; a key frame may take some more.
pub(super) const AGAIN_AFTER: Duration = Duration::from_secs(10);
/// How often [`DeliveryWatch::tick`] is to be called.
pub(super) const DELIVERY_STEP: Duration = Duration::from_secs(2);
/// Time in which this process was stopped does not count.
const LONGEST_STEP: Duration = Duration::from_secs(4);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DeliveryStep {
    /// Nothing has come for [`AGAIN_AFTER`]: the subscription is ended …
    Unsubscribe,
    /// … and begun anew. A step later: both at once would be none for the server.
    Subscribe,
    /// It was in vain, for so long in all.
    GiveUp(Duration),
}

#[derive(Debug)]
pub(super) struct DeliveryWatch {
    /// By sid: of these nothing has come.
    tracks: BTreeMap<String, WatchedTrack>,
    give_up_after: Duration,
    ticked: Option<SourceTime>,
}

#[derive(Debug)]
struct WatchedTrack {
    is_muted: bool,
    /// In which it should have come: not muted, and with a connection.
    waited: Duration,
    state: WatchState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WatchState {
    Subscribed,
    Unsubscribed,
    SubscribedAgain,
    GivenUp,
}

impl DeliveryWatch {
    /// Gives a track up after so long, and not before it was subscribed twice for a while.
    pub(super) fn new(give_up_after: Duration) -> Self {
        Self { tracks: BTreeMap::new(), give_up_after: give_up_after.max(AGAIN_AFTER * 2), ticked: None }
    }

    pub(super) fn subscribed(&mut self, sid: &str, is_muted: bool) {
        let track = WatchedTrack { is_muted, waited: Duration::ZERO, state: WatchState::Subscribed };
        self.tracks.insert(sid.to_owned(), track);
    }

    pub(super) fn muted(&mut self, sid: &str, is_muted: bool) {
        if let Some(track) = self.tracks.get_mut(sid) {
            track.is_muted = is_muted;
        }
    }

    /// The room is joined anew: everything is subscribed again.
    pub(super) fn restart(&mut self) {
        self.tracks.clear();
    }

    /// It is gone, or refused.
    pub(super) fn left(&mut self, sid: &str) {
        self.tracks.remove(sid);
    }

    /// `is_connected`: media can come. `has_come`: whether any has, by sid.
    pub(super) fn tick(
        &mut self,
        is_connected: bool,
        has_come: impl Fn(&str) -> bool,
        now: SourceTime,
    ) -> Vec<(String, DeliveryStep)> {
        let passed = now.saturating_sub(self.ticked.replace(now).unwrap_or(now)).min(LONGEST_STEP);
        self.tracks.retain(|sid, _| !has_come(sid));
        let mut steps = Vec::new();
        for (sid, track) in self.tracks.iter_mut().filter(|(_, track)| is_connected && !track.is_muted) {
            track.waited += passed;
            let step = match track.state {
                WatchState::Subscribed if track.waited >= AGAIN_AFTER => {
                    track.state = WatchState::Unsubscribed;
                    DeliveryStep::Unsubscribe
                }
                WatchState::Unsubscribed => {
                    track.state = WatchState::SubscribedAgain;
                    DeliveryStep::Subscribe
                }
                WatchState::SubscribedAgain if track.waited >= self.give_up_after => {
                    track.state = WatchState::GivenUp;
                    DeliveryStep::GiveUp(track.waited)
                }
                WatchState::Subscribed | WatchState::SubscribedAgain | WatchState::GivenUp => continue,
            };
            steps.push((sid.clone(), step));
        }
        steps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Steps of one track, each with its second.
    fn steps(
        watch: &mut DeliveryWatch,
        seconds: std::ops::Range<u64>,
        is_connected: bool,
        has_come: bool,
    ) -> Vec<(u64, DeliveryStep)> {
        let every = seconds.step_by(DELIVERY_STEP.as_secs() as usize);
        let at = |second| watch.tick(is_connected, |_| has_come, Duration::from_secs(second));
        let told: Vec<(u64, Vec<(String, DeliveryStep)>)> = every.clone().zip(every.map(at)).collect();
        told.into_iter().flat_map(|(second, steps)| steps.into_iter().map(move |(_, step)| (second, step))).collect()
    }

    #[test]
    fn what_does_not_come_is_subscribed_once_more_and_then_given_up() {
        let mut watch = DeliveryWatch::new(Duration::from_secs(30));
        watch.subscribed("TR_v", false);
        let wanted = [
            (10, DeliveryStep::Unsubscribe),
            (12, DeliveryStep::Subscribe),
            (30, DeliveryStep::GiveUp(Duration::from_secs(30))),
        ];
        assert_eq!(steps(&mut watch, 0..100, true, false), wanted);
        let mut short = DeliveryWatch::new(Duration::from_secs(1));
        short.subscribed("TR_v", false);
        assert_eq!(steps(&mut short, 0..100, true, false).len(), 3, "subscribed again all the same");
    }

    #[test]
    fn what_has_come_is_left_or_cannot_come_is_not_waited_for() {
        let mut watch = DeliveryWatch::new(Duration::from_secs(30));
        watch.subscribed("TR_v", false);
        assert_eq!(steps(&mut watch, 0..8, true, false), []);
        assert_eq!(steps(&mut watch, 8..100, false, false), [], "our own connection");
        watch.muted("TR_v", true);
        assert_eq!(steps(&mut watch, 100..200, true, false), []);
        watch.muted("TR_v", false);
        assert_eq!(steps(&mut watch, 200..204, true, false), [(202, DeliveryStep::Unsubscribe)]);
        watch.left("TR_v");
        assert_eq!(steps(&mut watch, 204..300, true, false), []);
        watch.subscribed("TR_v", false);
        assert_eq!(steps(&mut watch, 300..304, true, true), []);
        assert_eq!(steps(&mut watch, 304..400, true, false), [], "it pauses");
    }
}
