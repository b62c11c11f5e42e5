//! What is asked of the server: subscriptions, layers, key frames.

use std::time::{Duration, Instant};

use livekit_protocol::signal_request::Message as Request;
use livekit_protocol::{Room, UpdateSubscription};
use spillway_ipc::MediaEndReason;
use tracing::{debug, info};

use super::{LAST_PACKETS, RoomDriver};
use crate::compositor::{Size, expected_tile};
use crate::receive::event::{RoomEvent, SourceTime};
use crate::source::room::delivery::{AGAIN_AFTER, DeliveryStep};
use crate::source::room::message::{RoomCommand, RoomMessage};
use crate::source::room::model::RoomChange;
use crate::source::room::track_demand::{TrackDemand, UNSEEN};
use crate::units::Ssrc;

/// The server throttles too; this keeps us from asking for nothing.
const KEYFRAME_EVERY: Duration = Duration::from_millis(500);

impl RoomDriver {
    pub(super) async fn greet(&mut self) {
        let response = &self.link.response;
        let room = response.room.clone().unwrap_or_default();
        let own = response.participant.clone().unwrap_or_default();
        let others = response.other_participants.clone();
        info!(room = room.name, room_id = room.sid, participants = others.len(), "joined");
        if self.end_if_another(&room) {
            return;
        }
        self.room_id = room.sid.clone();
        self.say(RoomMessage::Joined { room_id: room.sid, room_name: room.name });
        let changes = self.model.joined(&own, &others, self.since(Instant::now()));
        self.obey(changes).await;
    }

    /// True: another room has the name now, so the one that is recorded is over.
    pub(super) fn end_if_another(&mut self, joined: &Room) -> bool {
        let is_another = !self.room_id.is_empty() && !joined.sid.is_empty() && self.room_id != joined.sid;
        if is_another {
            let message = format!("room {} is over; another of the same name has begun", self.room_id);
            self.end(MediaEndReason::SourceClosed { message }, Duration::ZERO);
        }
        is_another
    }

    pub(super) async fn command(&mut self, command: Option<RoomCommand>) {
        match command {
            Some(RoomCommand::Keyframe(track)) => {
                for ssrc in self.receiver.streams_of(track).collect::<Vec<_>>() {
                    self.ask_keyframe(ssrc);
                }
            }
            Some(RoomCommand::Prefer { track, width, height }) => {
                self.demands.ask(track, TrackDemand::Size { width, height });
                self.demand().await;
            }
            Some(RoomCommand::Pause(track)) => {
                self.demands.ask(track, TrackDemand::Paused);
                self.demand().await;
            }
            Some(RoomCommand::Leave) | None => self.end(MediaEndReason::Stopped, Duration::ZERO),
        }
    }

    /// Tells the server what is wanted of each track and not said yet.
    pub(super) async fn demand(&mut self) {
        let now = self.since(Instant::now());
        let receiver = &self.receiver;
        let publication = |track| {
            let publication = receiver.publication_of(track)?;
            Some((publication.sid.as_str(), publication.identity.as_str()))
        };
        for (track, sid, demand) in self.demands.due(publication, now) {
            self.receiver.ask_for(track, demand != TrackDemand::Paused);
            self.send_demand(sid, demand).await;
        }
    }

    /// A new subscription begins with the layer that its place needs: a room of 25 would begin with 25 large key frames
    /// else. What is copied begins with the best one. livekit-server keeps settings that come before their subscription
    /// (`SubscriptionManager`). `pictures`: how many are subscribed, this one too.
    async fn expect_layer(&self, sid: &str, pictures: usize) {
        let Some(is_screen) = self.model.picture(sid) else { return };
        let demand = match self.expected {
            Some(expected) => {
                let size = expected_tile(expected.arrangement, expected.size, pictures, is_screen);
                size.map_or(UNSEEN, |Size { width, height }| TrackDemand::Size { width, height })
            }
            None if self.wants_best => TrackDemand::Best,
            None => return,
        };
        self.send_demand(sid.to_owned(), demand).await;
    }

    async fn send_demand(&self, sid: String, demand: TrackDemand) {
        debug!(sid, ?demand, "track settings");
        let fps = self.expected.map_or(0, |expected| expected.framerate);
        self.link.client.send(Request::TrackSetting(demand.settings(sid, fps))).await;
    }

    pub(super) async fn obey(&mut self, changes: Vec<RoomChange>) {
        let now = self.since(Instant::now());
        let mut subscribe = Vec::new();
        for change in changes {
            match change {
                RoomChange::Subscribe(sid) => {
                    if let Some(published) = self.model.published(&sid) {
                        if let RoomEvent::Published { muted, .. } = &published
                            && self.model.sends_at_once(&sid)
                        {
                            self.delivery.subscribed(&sid, *muted);
                        }
                        self.receive(published, now);
                    }
                    subscribe.push(sid);
                }
                RoomChange::Muted { sid, muted } => {
                    self.delivery.muted(&sid, muted);
                    self.receive(RoomEvent::Muted { sid, muted }, now);
                }
                RoomChange::Left { sid } => {
                    self.delivery.left(&sid);
                    self.receive(RoomEvent::Left { sid }, now);
                }
                RoomChange::Speakers(identities) => {
                    self.demands.speaks(&identities, now);
                    self.receive(RoomEvent::Speakers { identities }, now);
                }
                RoomChange::Layout(name) => self.receive(RoomEvent::Layout { name }, now),
                RoomChange::Waiting(message) => self.say(RoomMessage::Waiting(message)),
                RoomChange::Noted(message) => self.say(RoomMessage::Noted(message)),
                RoomChange::Away if self.waits_for_return => self.receive(RoomEvent::Held { on: true }, now),
                RoomChange::Away => {}
                RoomChange::Returned { identity, away } => {
                    self.receive(RoomEvent::Held { on: false }, now);
                    let message = away.message(&identity, self.receiver.origin());
                    self.say(RoomMessage::Noted(message));
                }
                RoomChange::JoinAgain => self.join_again(),
                RoomChange::Over(why) => self.end(why, LAST_PACKETS),
            }
        }
        if !subscribe.is_empty() {
            debug!(?subscribe, "subscribing");
            let pictures = self.model.pictures();
            for sid in &subscribe {
                self.expect_layer(sid, pictures).await;
            }
            self.subscribe(subscribe, true).await;
        }
    }

    /// What is subscribed and not delivered is subscribed once more, and said.
    pub(super) async fn watch_delivery(&mut self, now: SourceTime) {
        let (is_connected, receiver) = (self.link_up && self.peer.is_connected(), &self.receiver);
        for (sid, step) in self.delivery.tick(is_connected, |sid| receiver.has_come(sid), now) {
            match step {
                DeliveryStep::Unsubscribe => {
                    let message = self.model.undelivered(&sid, AGAIN_AFTER);
                    self.say(RoomMessage::Noted(format!("{message}: it is subscribed once more")));
                    self.subscribe(vec![sid], false).await;
                }
                DeliveryStep::Subscribe => {
                    self.expect_layer(&sid, self.model.pictures()).await;
                    self.subscribe(vec![sid], true).await;
                }
                DeliveryStep::GiveUp(waited) => {
                    let has_begun = self.receiver.origin().is_some();
                    let changes = self.model.given_up(&sid, waited, has_begun);
                    self.obey(changes).await;
                }
            }
        }
    }

    async fn subscribe(&self, track_sids: Vec<String>, subscribe: bool) {
        let request = UpdateSubscription { track_sids, subscribe, ..UpdateSubscription::default() };
        self.link.client.send(Request::Subscription(request)).await;
    }

    pub(super) fn ask_keyframe(&mut self, ssrc: Ssrc) {
        let now = Instant::now();
        if self.asked.get(&ssrc).is_some_and(|asked| now - *asked < KEYFRAME_EVERY) {
            return;
        }
        self.asked.insert(ssrc, now);
        self.peer.ask_keyframe(ssrc);
    }
}
