//! What it means that nothing comes of a publication that is subscribed.

use std::time::Duration;

use super::{RoomChange, RoomModel, failed, is_picture};

impl RoomModel {
    /// Whether media is due as soon as this publication is subscribed and not muted. A sound may be silent: bots and agents send
    /// nothing before they speak; where the request names it, that nothing comes of it is worth saying.
    pub(in crate::source::room) fn sends_at_once(&self, sid: &str) -> bool {
        let Some((participant, track)) = self.find(sid) else { return false };
        is_picture(track) || self.is_named(sid) && !participant.is_agent()
    }

    /// What is said of a publication of which nothing has come.
    pub(in crate::source::room) fn undelivered(&self, sid: &str, waited: Duration) -> String {
        let (identity, kind) = match self.find(sid) {
            Some((participant, track)) => {
                (participant.identity.as_str(), if is_picture(track) { "video" } else { "audio" })
            }
            None => ("", "media"),
        };
        format!("no {kind} has come of track {sid} of {identity} for {} s", waited.as_secs())
    }

    /// It is not waited for any longer: without a camera that the request names, and without anything else, there is no
    /// recording. A shared screen may stand still, and then Firefox and Safari send nothing.
    pub(in crate::source::room) fn given_up(&self, sid: &str, waited: Duration, has_begun: bool) -> Vec<RoomChange> {
        let is_screen = self.picture(sid).unwrap_or(true);
        if has_begun || is_screen || !self.is_named(sid) {
            return vec![];
        }
        vec![failed("unavailable", self.undelivered(sid, waited))]
    }
}
