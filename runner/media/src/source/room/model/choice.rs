//! Which publications are recorded, and when that is over.

use livekit_protocol::{TrackType, encryption};
use spillway_plan::{Source, StereoSide};

use super::media::{self, Awaited};
use super::presence::AwayState;
use super::{Chosen, RoomChange, RoomModel, closed, failed, origin};
use crate::receive::event::SourceTime;
use crate::track::TrackSource;

/// Each track costs a thread and a decoder.
pub(super) const MAX_TRACKS: usize = 500;

impl RoomModel {
    pub(super) fn choose(&mut self, changes: &mut Vec<RoomChange>) {
        let (mut found, mut encrypted) = (Vec::new(), None);
        for participant in self.participants.values() {
            for track in participant.tracks.values() {
                let kind = track.r#type();
                let named = media::named(&self.source, &track.sid);
                if named.as_video && kind != TrackType::Video || named.as_audio && kind != TrackType::Audio {
                    let (is, not) = if kind == TrackType::Video { ("video", "audio") } else { ("audio", "video") };
                    let message = format!("track {} is {is}, but was named as the {not} track", track.sid);
                    changes.push(failed("invalid_argument", message));
                    return;
                }
                let whole = |wanted: bool| wanted.then_some(StereoSide::Both);
                let side = match &self.source {
                    Source::Room => whole(self.wants(kind)),
                    Source::Participant { identity, screen_share } => {
                        let ordinary = matches!(origin(track), TrackSource::Camera | TrackSource::Microphone);
                        whole(participant.identity == *identity && ordinary != *screen_share && self.wants(kind))
                    }
                    Source::Tracks { .. } => whole(named.as_audio || named.as_video),
                    Source::Track { track_id } => whole(track.sid == *track_id),
                    Source::Media { .. } if !self.wants(kind) => None,
                    Source::Media { video, .. } if kind == TrackType::Video => whole(
                        video
                            .as_ref()
                            .is_some_and(|video| media::shows(video, &track.sid, &participant.identity, origin(track))),
                    ),
                    Source::Media { audio, other_audio, .. } => {
                        media::side(audio, *other_audio, &track.sid, &participant.identity, participant.kind)
                    }
                };
                let Some(side) = side else { continue };
                if self.chosen.contains_key(&track.sid) || self.ended.contains(&track.sid) {
                    continue;
                }
                if track.encryption() != encryption::Type::None {
                    encrypted.get_or_insert_with(|| (track.sid.clone(), participant.identity.clone()));
                    if self.refused.insert(track.sid.clone()) {
                        let message = format!("track {} is end-to-end encrypted and cannot be recorded", track.sid);
                        changes.push(self.unrecordable(&track.sid, message));
                    }
                    continue;
                }
                let (identity, is_picture) = (participant.identity.clone(), kind == TrackType::Video);
                let chosen = Chosen { identity, origin: origin(track), side, is_picture };
                found.push((track.sid.clone(), chosen));
            }
        }
        let free = MAX_TRACKS.saturating_sub(self.chosen.len());
        if found.len() > free {
            found.truncate(free);
            if !std::mem::replace(&mut self.told_full, true) {
                let message =
                    format!("more than {MAX_TRACKS} tracks are published; the others wait until some of them end");
                changes.push(RoomChange::Noted(message));
            }
        }
        self.has_chosen |= !found.is_empty();
        // Where one publication is encrypted all are, but for those of agents and of telephones.
        if let Some((sid, identity)) = encrypted.filter(|_| !self.has_chosen) {
            let who = match &self.source {
                Source::Participant { identity, .. } => format!("participant {identity}"),
                _ => "the room".to_owned(),
            };
            let which = format!("{who} is end-to-end encrypted (track {sid} of {identity})");
            let message = format!("{which}: without its key it cannot be recorded");
            changes.push(failed("failed_precondition", message));
        }
        for (sid, chosen) in found {
            changes.push(RoomChange::Subscribe(sid.clone()));
            self.chosen.insert(sid, chosen);
        }
    }

    /// What it means that a chosen track cannot be recorded: without one that the request names there is no recording.
    pub(super) fn unrecordable(&self, sid: &str, message: String) -> RoomChange {
        if self.is_named(sid) { failed("failed_precondition", message) } else { RoomChange::Noted(message) }
    }

    /// The request names this track.
    pub(super) fn is_named(&self, sid: &str) -> bool {
        match &self.source {
            Source::Room | Source::Participant { .. } => false,
            Source::Tracks { .. } | Source::Track { .. } => true,
            Source::Media { .. } => {
                let named = media::named(&self.source, sid);
                named.as_audio || named.as_video
            }
        }
    }

    fn wants(&self, kind: TrackType) -> bool {
        match kind {
            TrackType::Video => self.want_video,
            TrackType::Audio => self.want_audio,
            TrackType::Data => false,
        }
    }

    pub(super) fn judge(&mut self, now: SourceTime, changes: &mut Vec<RoomChange>) {
        if changes.iter().any(|change| matches!(change, RoomChange::Over(_))) {
            return;
        }
        if matches!(self.source, Source::Media { .. }) {
            return self.judge_awaited(now, changes);
        }
        match self.source.clone() {
            Source::Room | Source::Media { .. } => {}
            Source::Participant { identity, .. } => {
                let here = self.participants.values().any(|participant| participant.identity == identity);
                if here {
                    self.seen = true;
                    if let Some(away) = self.presence.here(now) {
                        changes.push(RoomChange::Returned { identity, away });
                    }
                } else if self.seen {
                    match self.presence.away(self.return_by.is_some(), now) {
                        AwayState::Begins => changes.push(RoomChange::Away),
                        AwayState::GoesOn => {}
                        AwayState::TooLong => changes.push(closed(&self.presence.reason(&identity))),
                    }
                } else if now >= self.appear_by {
                    changes.push(failed("not_found", format!("participant {identity} not found")));
                }
            }
            Source::Tracks { audio, video } => {
                self.judge_tracks(audio.into_iter().chain(video).collect(), now, changes)
            }
            Source::Track { track_id } => self.judge_tracks(vec![track_id], now, changes),
        }
    }

    /// A media source ends with the room; only what it names must have been there.
    fn judge_awaited(&mut self, now: SourceTime, changes: &mut Vec<RoomChange>) {
        let participants = &self.participants;
        self.awaited.retain(|awaited| match awaited {
            Awaited::Participant(identity) => !participants.values().any(|there| there.identity == *identity),
            Awaited::Track(sid) => !participants.values().any(|there| there.tracks.contains_key(sid)),
        });
        match self.awaited.first() {
            None => self.seen = true,
            Some(missing) if now >= self.appear_by => changes.push(failed("not_found", format!("{missing} not found"))),
            Some(_) => {}
        }
    }

    fn judge_tracks(&mut self, named: Vec<String>, now: SourceTime, changes: &mut Vec<RoomChange>) {
        let found = self.chosen.len() + self.ended.len();
        if found >= named.len() {
            self.seen = true;
        }
        if !self.seen && now >= self.appear_by {
            let missing = named.iter().find(|sid| !self.chosen.contains_key(*sid) && !self.ended.contains(*sid));
            let missing = missing.map_or("", String::as_str);
            changes.push(failed("not_found", format!("track {missing} not found")));
        } else if self.seen && self.chosen.is_empty() {
            let ended: Vec<&str> = self.ended.iter().map(String::as_str).collect();
            changes.push(closed(&format!("track {} ended", ended.join(" and "))));
        }
    }

    pub(super) fn waiting_message(&mut self, changes: &mut Vec<RoomChange>) {
        let message = match &self.source {
            Source::Media { .. } if !self.awaited.is_empty() => {
                let missing: Vec<String> = self.awaited.iter().map(Awaited::to_string).collect();
                format!("waiting for {}", missing.join(" and "))
            }
            Source::Room | Source::Media { .. } if self.chosen.is_empty() => {
                "waiting for the first track of the room".to_owned()
            }
            Source::Participant { identity, .. } if !self.seen => format!("waiting for participant {identity}"),
            Source::Participant { identity, .. } if self.chosen.is_empty() => {
                format!("waiting for a track of participant {identity}")
            }
            Source::Tracks { audio, video } if !self.seen => {
                let missing: Vec<&str> = audio
                    .iter()
                    .chain(video)
                    .filter(|sid| !self.chosen.contains_key(*sid))
                    .map(String::as_str)
                    .collect();
                format!("waiting for track {}", missing.join(" and "))
            }
            Source::Track { track_id } if !self.seen => format!("waiting for track {track_id}"),
            _ => return,
        };
        if message != self.waiting {
            self.waiting = message.clone();
            changes.push(RoomChange::Waiting(message));
        }
    }
}
