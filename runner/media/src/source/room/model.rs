//! Who is in the room, what of it is recorded, and when that is over. Pure: the server's messages and time in, changes
//! of the subscription and of the recording out.

mod choice;
mod empty_room;
mod media;
mod presence;
mod undelivered;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use livekit_protocol::{
    DisconnectReason, ParticipantInfo, SpeakerInfo, TrackInfo, TrackSource as LkTrackSource, TrackType,
    participant_info,
};
use spillway_ipc::MediaEndReason;
use spillway_plan::{Source, StereoSide};

use crate::receive::event::{Publication, RoomEvent, SourceTime};
use crate::track::TrackSource;
use empty_room::EmptyRoomCheck;
use media::Awaited;
use presence::{ParticipantPresence, TimeAway};

/// After our connection was rebuilt, participants may still be on their way back (the server was restarted).
const RETURN_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Debug, PartialEq)]
pub(super) enum RoomChange {
    Subscribe(String),
    Muted {
        sid: String,
        muted: bool,
    },
    Left {
        sid: String,
    },
    Speakers(Vec<String>),
    Layout(String),
    Waiting(String),
    Noted(String),
    /// The participant of the recording has left, and may return.
    Away,
    /// It was away, and is back.
    Returned {
        identity: String,
        away: TimeAway,
    },
    /// Nobody is in the room: join again to see whether it is still the one.
    JoinAgain,
    Over(MediaEndReason),
}

/// How long is waited for participants.
#[derive(Clone, Copy, Debug)]
pub(super) struct RoomWaits {
    /// Until what the request names was seen.
    pub(super) appear: Duration,
    /// For the participant of a Participant recording that has left.
    pub(super) return_grace: Duration,
}

pub(super) struct RoomModel {
    source: Source,
    want_video: bool,
    want_audio: bool,
    own_sid: String,
    own_metadata: String,
    participants: BTreeMap<String, Participant>,
    /// By sid.
    chosen: BTreeMap<String, Chosen>,
    /// Of a media source, and not seen yet.
    awaited: Vec<Awaited>,
    /// Named publications that were seen and are gone.
    ended: BTreeSet<String>,
    refused: BTreeSet<String>,
    /// More was published than is recorded, and that was said.
    told_full: bool,
    /// A publication was chosen once.
    has_chosen: bool,
    speakers: BTreeMap<String, f32>,
    appear_by: SourceTime,
    appear: Duration,
    /// Of the participant of a Participant recording.
    presence: ParticipantPresence,
    return_by: Option<SourceTime>,
    other_room: bool,
    empty_room: EmptyRoomCheck,
    seen: bool,
    waiting: String,
}

/// A publication that is subscribed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Chosen {
    identity: String,
    origin: TrackSource,
    side: StereoSide,
    is_picture: bool,
}

impl Chosen {
    /// Whether this is the same source of its participant, published anew.
    fn is_again(&self, track: &TrackInfo) -> bool {
        origin(track) == self.origin && is_picture(track) == self.is_picture
    }
}

#[derive(Default)]
struct Participant {
    identity: String,
    version: u32,
    /// Number of LiveKit's `ParticipantInfo.Kind`.
    kind: i32,
    tracks: BTreeMap<String, TrackInfo>,
}

impl Participant {
    fn is_agent(&self) -> bool {
        self.kind == i32::from(participant_info::Kind::Agent)
    }
}

impl RoomModel {
    pub(super) fn new(source: Source, want_video: bool, want_audio: bool, waits: RoomWaits) -> Self {
        Self {
            awaited: media::awaited(&source),
            source,
            want_video,
            want_audio,
            own_sid: String::new(),
            own_metadata: String::new(),
            participants: BTreeMap::new(),
            chosen: BTreeMap::new(),
            ended: BTreeSet::new(),
            refused: BTreeSet::new(),
            told_full: false,
            has_chosen: false,
            speakers: BTreeMap::new(),
            appear_by: Duration::MAX,
            appear: waits.appear,
            presence: ParticipantPresence::new(waits.return_grace),
            return_by: None,
            other_room: false,
            empty_room: EmptyRoomCheck::default(),
            seen: false,
            waiting: String::new(),
        }
    }

    pub(super) fn joined(
        &mut self,
        own: &ParticipantInfo,
        others: &[ParticipantInfo],
        now: SourceTime,
    ) -> Vec<RoomChange> {
        self.appear_by = now + self.appear;
        self.empty_room.joined(now);
        let mut changes = self.joined_again(own, others, now);
        self.waiting_message(&mut changes);
        changes
    }

    /// Joined anew after the connection was lost: every participant has a new sid, nothing is subscribed.
    pub(super) fn rejoined(
        &mut self,
        own: &ParticipantInfo,
        others: &[ParticipantInfo],
        other_room: bool,
        now: SourceTime,
    ) -> Vec<RoomChange> {
        self.own_sid = own.sid.clone();
        self.participants.clear();
        self.speakers.clear();
        self.return_by = Some(now + RETURN_TIMEOUT);
        self.other_room = other_room;
        self.empty_room.joined(now);
        let before = std::mem::take(&mut self.chosen);
        let mut changes = Vec::new();
        for participant in others {
            self.learn(participant, &mut changes);
        }
        // What was recorded goes on, even under a new sid.
        let back: Vec<(String, Chosen)> = before
            .iter()
            .filter_map(|(sid, chosen)| {
                let mut participants = self.participants.values();
                let participant = participants.find(|participant| participant.identity == chosen.identity)?;
                let same = participant.tracks.contains_key(sid).then(|| sid.clone());
                let sid = same.or_else(|| {
                    participant.tracks.values().find(|track| chosen.is_again(track)).map(|track| track.sid.clone())
                })?;
                Some((sid, chosen.clone()))
            })
            .collect();
        let missing: Vec<_> =
            before.into_iter().filter(|(_, chosen)| !back.iter().any(|(_, other)| other == chosen)).collect();
        for (sid, chosen) in back {
            self.chosen.insert(sid.clone(), chosen);
            changes.push(RoomChange::Subscribe(sid));
        }
        self.choose(&mut changes);
        // Kept as chosen until the timeout ends, so that they are found again.
        self.chosen.extend(missing);
        self.judge(now, &mut changes);
        changes
    }

    /// Joined anew because of [`RoomChange::JoinAgain`], and the room is still the one: nothing was lost meanwhile.
    pub(super) fn joined_again(
        &mut self,
        own: &ParticipantInfo,
        others: &[ParticipantInfo],
        now: SourceTime,
    ) -> Vec<RoomChange> {
        self.own_sid = own.sid.clone();
        self.participants.clear();
        self.update(others, now)
    }

    pub(super) fn update(&mut self, infos: &[ParticipantInfo], now: SourceTime) -> Vec<RoomChange> {
        let mut changes = Vec::new();
        for info in infos {
            self.learn(info, &mut changes);
        }
        self.adopt_returned(&mut changes);
        self.choose(&mut changes);
        self.judge(now, &mut changes);
        changes
    }

    pub(super) fn tick(&mut self, now: SourceTime) -> Vec<RoomChange> {
        let mut changes = Vec::new();
        if self.return_by.is_some_and(|by| now >= by) {
            self.return_by = None;
            let present: BTreeSet<&String> =
                self.participants.values().flat_map(|participant| participant.tracks.keys()).collect();
            let gone: Vec<String> = self.chosen.keys().filter(|sid| !present.contains(sid)).cloned().collect();
            for sid in gone {
                self.end_track(&sid, &mut changes);
            }
            let with_the_room = matches!(self.source, Source::Room | Source::Media { .. });
            if self.other_room && self.participants.is_empty() && with_the_room {
                changes.push(closed("the room was closed while the connection to it was lost"));
            }
        }
        if self.empty_room.tick(now) {
            changes.push(RoomChange::JoinAgain);
        }
        self.judge(now, &mut changes);
        changes
    }

    pub(super) fn speakers(&mut self, deltas: &[SpeakerInfo]) -> Vec<RoomChange> {
        for speaker in deltas {
            if speaker.active {
                self.speakers.insert(speaker.sid.clone(), speaker.level);
            } else {
                self.speakers.remove(&speaker.sid);
            }
        }
        let mut loudest: Vec<(&String, &f32)> = self.speakers.iter().collect();
        loudest.sort_by(|one, other| other.1.total_cmp(one.1));
        let identities =
            loudest.iter().filter_map(|(sid, _)| Some(self.participants.get(*sid)?.identity.clone())).collect();
        vec![RoomChange::Speakers(identities)]
    }

    /// The server cannot give us this track.
    pub(super) fn refused(&mut self, sid: &str, why: &str) -> Vec<RoomChange> {
        vec![self.unrecordable(sid, format!("track {sid} cannot be recorded: {why}"))]
    }

    /// What the receiver is told of a publication when it is subscribed.
    pub(super) fn published(&self, sid: &str) -> Option<RoomEvent> {
        let (_, track) = self.find(sid)?;
        Some(RoomEvent::Published { sid: sid.to_owned(), video: is_picture(track), muted: track.muted })
    }

    fn find(&self, sid: &str) -> Option<(&Participant, &TrackInfo)> {
        self.participants.values().find_map(|participant| Some((participant, participant.tracks.get(sid)?)))
    }

    pub(super) fn publication(&self, sid: &str) -> Option<Publication> {
        let (participant, track) = self.find(sid)?;
        Some(Publication {
            sid: sid.to_owned(),
            identity: participant.identity.clone(),
            agent: participant.is_agent(),
            side: self.chosen.get(sid).map(|chosen| chosen.side).unwrap_or_default(),
            origin: origin(track),
            size: (track.width, track.height),
            muted: track.muted,
        })
    }

    /// Whether this publication is a picture, and if so, a shared screen.
    pub(super) fn picture(&self, sid: &str) -> Option<bool> {
        let (_, track) = self.find(sid).filter(|(_, track)| is_picture(track))?;
        Some(origin(track) == TrackSource::ScreenShare)
    }

    /// Pictures that are subscribed.
    pub(super) fn pictures(&self) -> usize {
        self.chosen.values().filter(|chosen| chosen.is_picture).count()
    }

    pub(super) fn subscribed(&self) -> Vec<String> {
        self.chosen.keys().cloned().collect()
    }

    fn learn(&mut self, info: &ParticipantInfo, changes: &mut Vec<RoomChange>) {
        if info.sid == self.own_sid {
            if info.metadata != self.own_metadata {
                self.own_metadata = info.metadata.clone();
                changes.extend(layout(&info.metadata).map(RoomChange::Layout));
            }
            return;
        }
        if info.state() == participant_info::State::Disconnected {
            let is_removed = info.disconnect_reason() == DisconnectReason::ParticipantRemoved;
            if is_removed && matches!(&self.source, Source::Participant { identity, .. } if *identity == info.identity)
            {
                self.presence.was_removed();
            }
            if let Some(participant) = self.participants.remove(&info.sid) {
                self.speakers.remove(&info.sid);
                for sid in participant.tracks.keys() {
                    self.track_gone(sid, changes);
                }
            }
            return;
        }
        self.empty_room.is_known();
        let participant = self.participants.entry(info.sid.clone()).or_default();
        if info.version < participant.version {
            return;
        }
        participant.version = info.version;
        participant.identity = info.identity.clone();
        participant.kind = info.kind;
        let before = std::mem::take(&mut participant.tracks);
        participant.tracks = info.tracks.iter().map(|track| (track.sid.clone(), track.clone())).collect();
        for track in &info.tracks {
            if before.get(&track.sid).is_some_and(|old| old.muted != track.muted) {
                changes.push(RoomChange::Muted { sid: track.sid.clone(), muted: track.muted });
            }
        }
        let gone: Vec<String> =
            before.into_keys().filter(|sid| !info.tracks.iter().any(|track| track.sid == *sid)).collect();
        for sid in gone {
            self.track_gone(&sid, changes);
        }
    }

    fn track_gone(&mut self, sid: &str, changes: &mut Vec<RoomChange>) {
        if self.chosen.contains_key(sid) && self.return_by.is_none() {
            self.end_track(sid, changes);
        }
    }

    fn end_track(&mut self, sid: &str, changes: &mut Vec<RoomChange>) {
        self.chosen.remove(sid);
        self.ended.insert(sid.to_owned());
        changes.push(RoomChange::Left { sid: sid.to_owned() });
    }

    /// Before the timeout after a rebuilt connection, the same source of the same participant stands in for a lost sid.
    fn adopt_returned(&mut self, changes: &mut Vec<RoomChange>) {
        if self.return_by.is_none() {
            return;
        }
        let mut adopted = Vec::new();
        for (sid, chosen) in &self.chosen {
            let there = self.participants.values().find(|participant| participant.identity == chosen.identity);
            let Some(participant) = there.filter(|participant| !participant.tracks.contains_key(sid)) else { continue };
            let successor = participant
                .tracks
                .values()
                .find(|track| chosen.is_again(track) && !self.chosen.contains_key(&track.sid));
            if let Some(successor) = successor {
                adopted.push((sid.clone(), successor.sid.clone(), chosen.clone()));
            }
        }
        for (lost, successor, chosen) in adopted {
            self.chosen.remove(&lost);
            self.chosen.insert(successor.clone(), chosen);
            changes.push(RoomChange::Subscribe(successor));
        }
    }
}

fn origin(track: &TrackInfo) -> TrackSource {
    match track.source() {
        LkTrackSource::Camera => TrackSource::Camera,
        LkTrackSource::Microphone => TrackSource::Microphone,
        LkTrackSource::ScreenShare => TrackSource::ScreenShare,
        LkTrackSource::ScreenShareAudio => TrackSource::ScreenShareAudio,
        LkTrackSource::Unknown => TrackSource::Unknown,
    }
}

fn is_picture(track: &TrackInfo) -> bool {
    track.r#type() == TrackType::Video
}

fn closed(message: &str) -> RoomChange {
    RoomChange::Over(MediaEndReason::SourceClosed { message: message.to_owned() })
}

fn failed(code: &str, message: String) -> RoomChange {
    RoomChange::Over(MediaEndReason::Failed { code: code.to_owned(), message })
}

/// `{"layout": "speaker-dark"}`
fn layout(metadata: &str) -> Option<String> {
    let value: serde_json::Value = serde_json::from_str(metadata).ok()?;
    value["layout"].as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests;
