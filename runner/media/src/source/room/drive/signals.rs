//! What the server says, and getting back when it says nothing any more.

use std::time::{Duration, Instant};

use livekit_protocol::signal_request::Message as Request;
use livekit_protocol::signal_response::Message as Response;
use livekit_protocol::{
    DisconnectReason, LeaveRequest, SessionDescription, SyncState, UpdateSubscription, leave_request,
};
use livekit_signaling::SignalEvent;
use spillway_ipc::MediaEndReason;
use spillway_plan::Secret;
use spillway_process::chain;
use tracing::{debug, info, warn};

use super::{LAST_PACKETS, RoomDriver, failed};
use crate::receive::event::RoomEvent;
use crate::source::room::ice_server::RelayOffer;
use crate::source::room::link::{self, Reconnect};
use crate::source::room::message::RoomMessage;
use crate::source::room::peer::Peer;
use crate::source::room::recovery::ROOM_LOST;

impl RoomDriver {
    pub(super) async fn signal(&mut self, event: Option<SignalEvent>) {
        match event {
            Some(SignalEvent::Message(message)) => self.message(*message).await,
            Some(SignalEvent::Close(why)) => self.lost(&why, false),
            None => self.lost("signalling ended", true),
        }
    }

    async fn message(&mut self, message: Response) {
        match message {
            Response::Offer(offer) => self.offer(offer).await,
            Response::Trickle(trickle) => self.peer.trickle(&trickle.candidate_init),
            Response::Update(update) => {
                let now = self.since(Instant::now());
                let changes = self.model.update(&update.participants, now);
                self.obey(changes).await;
            }
            Response::SpeakersChanged(changed) => {
                let changes = self.model.speakers(&changed.speakers);
                self.obey(changes).await;
            }
            Response::RoomUpdate(update) => {
                if let Some(room) = update.room.filter(|room| self.room_id.is_empty() && !room.sid.is_empty()) {
                    self.room_id = room.sid.clone();
                    self.say(RoomMessage::Joined { room_id: room.sid, room_name: room.name });
                }
            }
            Response::SubscriptionResponse(response) if response.err != 0 => {
                let why = response.err().as_str_name().to_lowercase();
                self.refused(response.track_sid, &why).await;
            }
            Response::SubscriptionPermissionUpdate(update) if !update.allowed => {
                self.refused(update.track_sid, "its publisher does not permit it").await;
            }
            Response::RefreshToken(token) => self.say(RoomMessage::Token(Secret::new(token))),
            Response::Leave(leave) => self.told_to_leave(&leave),
            _ => {}
        }
    }

    async fn refused(&mut self, sid: String, why: &str) {
        let changes = self.model.refused(&sid, why);
        self.delivery.left(&sid);
        self.receive(RoomEvent::Refused { sid }, self.since(Instant::now()));
        self.obey(changes).await;
    }

    async fn offer(&mut self, offer: SessionDescription) {
        debug!(id = offer.id, "offer");
        let answer = self.peer.answer(&offer.sdp, |sid| self.model.publication(sid));
        match answer {
            Ok(sdp) => {
                let answer = SessionDescription {
                    r#type: "answer".to_owned(),
                    sdp,
                    id: offer.id,
                    ..SessionDescription::default()
                };
                self.last_answer = Some(answer.clone());
                self.last_offer = Some(offer);
                self.link.client.send(Request::Answer(answer)).await;
            }
            Err(error) => {
                let why = chain(&error).to_string();
                warn!(error = why, "offer not accepted");
                let step = self.recovery.offer_refused(why);
                self.recover(Some(step), "the media connection cannot be negotiated");
            }
        }
    }

    fn told_to_leave(&mut self, leave: &LeaveRequest) {
        let reason = leave.reason();
        info!(?reason, action = ?leave.action(), "told to leave");
        match leave.action() {
            leave_request::Action::Resume => self.lost("the server asked for it", false),
            leave_request::Action::Reconnect => self.lost("the server asked for it", true),
            leave_request::Action::Disconnect => {
                let why = match reason {
                    DisconnectReason::DuplicateIdentity => MediaEndReason::Evicted,
                    DisconnectReason::ServerShutdown => return self.lost("the server shuts down", true),
                    DisconnectReason::RoomDeleted => {
                        MediaEndReason::SourceClosed { message: "the room was deleted".to_owned() }
                    }
                    DisconnectReason::RoomClosed => {
                        MediaEndReason::SourceClosed { message: "the room was closed".to_owned() }
                    }
                    DisconnectReason::ParticipantRemoved => {
                        MediaEndReason::SourceClosed { message: "removed from the room".to_owned() }
                    }
                    // The room goes on without us.
                    DisconnectReason::JoinFailure
                    | DisconnectReason::StateMismatch
                    | DisconnectReason::SignalClose
                    | DisconnectReason::ConnectionTimeout
                    | DisconnectReason::MediaFailure
                    | DisconnectReason::Migration => {
                        let why = format!("livekit-server ended our stay: {}", reason.as_str_name().to_lowercase());
                        return self.lost(&why, true);
                    }
                    // Joining again would make a room anew that is over.
                    other => MediaEndReason::SourceClosed {
                        message: format!("the room ended: {}", other.as_str_name().to_lowercase()),
                    },
                };
                self.end(why, LAST_PACKETS);
            }
        }
    }

    /// Signalling is gone; get back in the background. Media may go on meanwhile.
    pub(super) fn lost(&mut self, why: &str, full: bool) {
        if !self.link_up || self.over.is_some() {
            return;
        }
        info!(why, full, "connection to the room lost");
        let wait = self.recovery.lost();
        self.get_back(full, wait);
    }

    fn get_back(&mut self, full: bool, wait: Duration) {
        self.link_up = false;
        self.lost_since = Some(Instant::now());
        link::get_back(self.link.client.clone(), self.params.clone(), full, wait, self.back_in.clone());
    }

    /// Nothing is wrong, but nobody is there: whether the room is still the one.
    pub(super) fn join_again(&mut self) {
        if !self.link_up || self.over.is_some() {
            return;
        }
        info!(room_id = self.room_id, "nobody is in the room: it is joined again");
        self.looks_again = true;
        self.get_back(true, Duration::ZERO);
    }

    pub(super) async fn came_back(&mut self, back: Option<Reconnect>) {
        let away = self.lost_since.take().map_or(0.0, |since| since.elapsed().as_secs_f64());
        let looks_again = std::mem::take(&mut self.looks_again);
        match back {
            Some(Reconnect::Resumed) => {
                self.link_up = true;
                let subscription = UpdateSubscription {
                    track_sids: self.model.subscribed(),
                    subscribe: true,
                    ..UpdateSubscription::default()
                };
                let state = SyncState {
                    answer: self.last_answer.clone(),
                    offer: self.last_offer.clone(),
                    subscription: Some(subscription),
                    ..SyncState::default()
                };
                self.link.client.send(Request::SyncState(state)).await;
                // At once: until then the crate holds its own pings back, and the new link would die of it.
                self.link.client.set_reconnected().await;
                self.say(RoomMessage::Noted(format!("connection to the room resumed after {away:.1} s")));
            }
            Some(Reconnect::Rejoined(joined)) => {
                self.link_up = true;
                self.link = *joined;
                let now = self.since(Instant::now());
                self.receive(RoomEvent::Interrupted, now);
                self.tried.extend(self.peer.take_endpoints());
                self.peer = Peer::new(self.server, RelayOffer::of(&self.link.response), self.tls.clone());
                self.last_offer = None;
                self.last_answer = None;
                let response = &self.link.response;
                let room = response.room.clone().unwrap_or_default();
                let own = response.participant.clone().unwrap_or_default();
                let others = response.other_participants.clone();
                self.demands.forget_told();
                self.delivery.restart();
                if looks_again {
                    if !self.end_if_another(&room) {
                        let changes = self.model.joined_again(&own, &others, now);
                        self.obey(changes).await;
                    }
                    return;
                }
                let other_room = !room.sid.is_empty() && room.sid != self.room_id;
                self.room_id = room.sid.clone();
                self.say(RoomMessage::Joined { room_id: room.sid, room_name: room.name });
                let again = match self.recovery.rejoined() {
                    1 => String::new(),
                    count => format!(" (rejoin {count})"),
                };
                self.say(RoomMessage::Noted(format!("reconnected to the room after {away:.1} s{again}")));
                let changes = self.model.rejoined(&own, &others, other_room, now);
                self.obey(changes).await;
            }
            Some(Reconnect::Lost(error)) => {
                let (code, message) = match failed(error) {
                    MediaEndReason::Failed { code, message } => (code, message),
                    other => ("unavailable".to_owned(), format!("{other:?}")),
                };
                let message = format!("{ROOM_LOST}: it did not come back in {away:.0} s: {message}");
                self.end(MediaEndReason::Failed { code, message }, Duration::ZERO);
            }
            None => {}
        }
    }
}
