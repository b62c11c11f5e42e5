//! The room's loop: what comes from the server, the sockets, the clock and our own people, each to its place.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant, SystemTime};

use livekit_protocol::signal_request::Message as Request;
use livekit_protocol::signal_response::Message as Response;
use livekit_protocol::{
    DisconnectReason, LeaveRequest, SessionDescription, SyncState, UpdateSubscription, UpdateTrackSettings,
    leave_request,
};
use livekit_signaling::SignalEvent;
use spillway_process::chain;
use spillway_spool::EndReason;
use tokio::sync::mpsc;
use tokio::time::sleep_until;
use tracing::{debug, info, warn};

use super::link::{self, Back, Door, Joined, LinkError};
use super::model::{Change, Model};
use super::net::TcpNews;
use super::peer::Peer;
use super::{Command, Delivery, JoinOptions, SharedOrigin};
use crate::source::arrival::Arrival;
use crate::source::dump::{Dump, Record, What};
use crate::source::reception::{Reception, ReceptionOptions, TICK};

/// After a batch of datagrams neither sockets nor timers are looked at before this: a frame's packets come together,
/// and a hundred wake-ups a second cost a third of what each packet's own would.
const READ_EVERY: Duration = TICK;
/// Packets sent before the news of an end may still be on their way.
const LAST_PACKETS: Duration = Duration::from_millis(300);
const STATS_EVERY: Duration = Duration::from_secs(2);
/// Without streams nothing is urgent.
const IDLE_TICK: Duration = Duration::from_millis(200);
/// The server throttles too; this keeps us from asking for nothing.
const KEYFRAME_EVERY: Duration = Duration::from_millis(500);
/// A media connection that is gone is built anew when the server has not asked for it by then.
const MEDIA_PATIENCE: Duration = Duration::from_secs(30);

pub(super) async fn run(
    options: JoinOptions,
    commands: mpsc::UnboundedReceiver<Command>,
    outbox: Sender<Delivery>,
    origin: SharedOrigin,
) {
    let door = Door { ws_url: options.ws_url.clone(), token: options.token.clone() };
    let server = server_address(&options.ws_url).await;
    let mut commands = commands;
    let joined = tokio::select! {
        joined = link::join(&door) => joined,
        () = leave_asked(&mut commands) => {
            let _ = outbox.send(Delivery::Ended(EndReason::Stopped));
            return;
        }
    };
    let joined = match joined {
        Ok(joined) => joined,
        Err(error) => {
            let _ = outbox.send(Delivery::Ended(failed(error)));
            return;
        }
    };
    let (back_in, back) = mpsc::unbounded_channel();
    let now = Instant::now();
    let drive = Drive {
        model: Model::new(options.choose.clone(), options.want_video, options.want_audio, options.appear),
        reception: Reception::new(ReceptionOptions { patience: options.reorder, hold: options.hold }),
        peer: Peer::new(server, options.lose),
        server,
        began: now,
        door,
        link: joined,
        commands,
        outbox,
        origin,
        back_in,
        back,
        link_up: true,
        lost_since: None,
        trouble: false,
        media_lost_since: None,
        room_id: options.room_id.clone(),
        last_offer: None,
        last_answer: None,
        asked: HashMap::new(),
        next_tick: now,
        next_stats: now + STATS_EVERY,
        read_after: now,
        over: None,
        dump: options.dump.as_deref().and_then(open_dump),
    };
    drive.run().await;
}

/// Resolves when we are asked to leave, or nobody can ask any more.
async fn leave_asked(commands: &mut mpsc::UnboundedReceiver<Command>) {
    while let Some(command) = commands.recv().await {
        if matches!(command, Command::Leave) {
            return;
        }
    }
}

fn open_dump(path: &Path) -> Option<Dump> {
    Dump::create(path).inspect_err(|error| warn!(%error, path = %path.display(), "arrivals are not kept")).ok()
}

async fn server_address(ws_url: &str) -> Option<SocketAddr> {
    let rest = ws_url.split_once("://").map_or(ws_url, |(_, rest)| rest);
    let authority = rest.split(['/', '?']).next()?;
    let authority = authority.rsplit('@').next()?;
    let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    // The port does not matter: it is about the way there.
    let target = if has_port { authority.to_owned() } else { format!("{authority}:443") };
    tokio::net::lookup_host(target).await.ok()?.next()
}

fn failed(error: LinkError) -> EndReason {
    match error {
        LinkError::Refused { code, words } => EndReason::Failed { code: code.to_owned(), words },
        error @ LinkError::Unreachable { .. } => {
            EndReason::Failed { code: "unavailable".to_owned(), words: error.to_string() }
        }
    }
}

struct Drive {
    model: Model,
    reception: Reception,
    peer: Peer,
    server: Option<SocketAddr>,
    /// Zero of every arrival's time.
    began: Instant,
    door: Door,
    link: Joined,
    commands: mpsc::UnboundedReceiver<Command>,
    outbox: Sender<Delivery>,
    origin: SharedOrigin,
    back_in: mpsc::UnboundedSender<Back>,
    back: mpsc::UnboundedReceiver<Back>,
    /// Signalling works; while it does not, `back` will say how it ended.
    link_up: bool,
    lost_since: Option<Instant>,
    /// Signalling or media does not work, as the reception knows it.
    trouble: bool,
    media_lost_since: Option<Instant>,
    room_id: String,
    last_offer: Option<SessionDescription>,
    last_answer: Option<SessionDescription>,
    asked: HashMap<u32, Instant>,
    next_tick: Instant,
    next_stats: Instant,
    read_after: Instant,
    /// The end is decided; what is still on its way may come until then.
    over: Option<(Instant, EndReason)>,
    dump: Option<Dump>,
}

impl Drive {
    async fn run(mut self) {
        self.greet().await;
        loop {
            self.deliver().await;
            let now = Instant::now();
            if let Some((at, _)) = &self.over
                && now >= *at
            {
                break;
            }
            let reading = now >= self.read_after;
            let wake = self.peer.wake_at().min(self.next_tick).max(self.read_after);
            tokio::select! {
                biased;
                command = self.commands.recv() => self.command(command).await,
                event = self.link.events.recv(), if self.link_up => self.signal(event).await,
                back = self.back.recv(), if !self.link_up => self.came_back(back).await,
                news = self.peer.wait(reading) => self.network(news),
                () = sleep_until(wake.into()) => {}
            }
            self.peer.time();
            self.tick().await;
        }
        self.finish().await;
    }

    fn network(&mut self, news: Option<TcpNews>) {
        match news {
            Some(news) => self.peer.on_tcp(news),
            None => self.peer.read(),
        }
        if self.peer.is_secured() {
            self.read_after = Instant::now() + READ_EVERY;
        }
    }

    fn since(&self, at: Instant) -> Duration {
        at.saturating_duration_since(self.began)
    }

    async fn greet(&mut self) {
        let response = &self.link.response;
        let room = response.room.clone().unwrap_or_default();
        let own = response.participant.clone().unwrap_or_default();
        let others = response.other_participants.clone();
        info!(room = room.name, room_id = room.sid, participants = others.len(), "joined");
        if !self.room_id.is_empty() && !room.sid.is_empty() && self.room_id != room.sid {
            let words = format!("room {} is over; another of the same name has begun", self.room_id);
            self.end(EndReason::SourceClosed { words }, Duration::ZERO);
            return;
        }
        self.room_id = room.sid.clone();
        self.say(Delivery::Joined { room_id: room.sid, room_name: room.name });
        let changes = self.model.joined(&own, &others, self.since(Instant::now()));
        self.obey(changes).await;
    }

    async fn tick(&mut self) {
        let now = Instant::now();
        if now < self.next_tick {
            return;
        }
        // A process that was stopped has seconds of datagrams to read before it may say what is complete.
        self.peer.read();
        if self.peer.is_connected() {
            self.read_after = now + READ_EVERY;
        }
        self.deliver().await;
        let since = self.since(self.peer.caught_up());
        let trouble = !self.link_up || !self.peer.is_connected();
        if std::mem::replace(&mut self.trouble, trouble) != trouble {
            self.receive(Arrival::Trouble { on: trouble }, since);
        }
        self.keep(since, What::Tick);
        self.reception.tick(since);
        self.next_tick = now + if self.reception.is_receiving() { TICK } else { IDLE_TICK };
        let changes = self.model.tick(since);
        self.obey(changes).await;
        if now >= self.next_stats {
            self.next_stats = now + STATS_EVERY;
            self.say_stats();
        }
        self.watch_media(now);
    }

    /// The server notices a dead media connection before us and asks for a resume. This is for when it does not.
    fn watch_media(&mut self, now: Instant) {
        if self.peer.is_connected() || !self.link_up {
            self.media_lost_since = None;
            return;
        }
        let since = *self.media_lost_since.get_or_insert(now);
        let patience = if self.peer.is_alive() { MEDIA_PATIENCE } else { Duration::ZERO };
        if now - since > patience {
            self.media_lost_since = None;
            self.lost("no media connection", true);
        }
    }

    async fn command(&mut self, command: Option<Command>) {
        match command {
            Some(Command::Keyframe(track)) => {
                for ssrc in self.reception.streams_of(track).collect::<Vec<_>>() {
                    self.ask_keyframe(ssrc);
                }
            }
            Some(Command::Prefer { track, width, height }) => {
                let Some(sid) = self.reception.sid_of(track) else { return };
                let settings = UpdateTrackSettings {
                    track_sids: vec![sid.to_owned()],
                    width,
                    height,
                    ..UpdateTrackSettings::default()
                };
                self.link.client.send(Request::TrackSetting(settings)).await;
            }
            Some(Command::Leave) | None => self.end(EndReason::Stopped, Duration::ZERO),
        }
    }

    fn ask_keyframe(&mut self, ssrc: u32) {
        let now = Instant::now();
        if self.asked.get(&ssrc).is_some_and(|asked| now - *asked < KEYFRAME_EVERY) {
            return;
        }
        self.asked.insert(ssrc, now);
        self.peer.ask_keyframe(ssrc);
    }

    async fn signal(&mut self, event: Option<SignalEvent>) {
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
                    self.say(Delivery::Joined { room_id: room.sid, room_name: room.name });
                }
            }
            Response::SubscriptionResponse(response) if response.err != 0 => {
                let why = response.err().as_str_name().to_lowercase();
                let changes = self.model.refused(&response.track_sid, &why);
                self.obey(changes).await;
            }
            Response::SubscriptionPermissionUpdate(update) if !update.allowed => {
                let changes = self.model.refused(&update.track_sid, "its publisher does not permit it");
                self.obey(changes).await;
            }
            Response::Leave(leave) => self.told_to_leave(&leave),
            _ => {}
        }
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
                warn!(error = %chain(&error), "offer not accepted");
                self.lost("the media connection cannot be negotiated", true);
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
                    DisconnectReason::DuplicateIdentity => EndReason::Evicted,
                    DisconnectReason::ServerShutdown => return self.lost("the server shuts down", true),
                    DisconnectReason::JoinFailure | DisconnectReason::StateMismatch | DisconnectReason::SignalClose => {
                        let words = format!("livekit-server ended our stay: {}", reason.as_str_name().to_lowercase());
                        EndReason::Failed { code: "unavailable".to_owned(), words }
                    }
                    DisconnectReason::RoomDeleted => {
                        EndReason::SourceClosed { words: "the room was deleted".to_owned() }
                    }
                    DisconnectReason::RoomClosed => EndReason::SourceClosed { words: "the room was closed".to_owned() },
                    DisconnectReason::ParticipantRemoved => {
                        EndReason::SourceClosed { words: "removed from the room".to_owned() }
                    }
                    other => EndReason::SourceClosed {
                        words: format!("the room ended: {}", other.as_str_name().to_lowercase()),
                    },
                };
                self.end(why, LAST_PACKETS);
            }
        }
    }

    /// Signalling is gone; get back in the background. Media may go on meanwhile.
    fn lost(&mut self, why: &str, full: bool) {
        if !self.link_up || self.over.is_some() {
            return;
        }
        info!(why, full, "connection to the room lost");
        self.link_up = false;
        self.lost_since = Some(Instant::now());
        link::get_back(self.link.client.clone(), self.door.clone(), full, self.back_in.clone());
    }

    async fn came_back(&mut self, back: Option<Back>) {
        let away = self.lost_since.take().map_or(0.0, |since| since.elapsed().as_secs_f64());
        match back {
            Some(Back::Resumed) => {
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
                self.say(Delivery::Noted(format!("connection to the room resumed after {away:.1} s")));
            }
            Some(Back::Rejoined(joined)) => {
                self.link_up = true;
                self.link = *joined;
                let now = self.since(Instant::now());
                self.receive(Arrival::Interrupted, now);
                self.peer = Peer::new(self.server, self.peer.lose_share());
                self.last_offer = None;
                self.last_answer = None;
                let response = &self.link.response;
                let room = response.room.clone().unwrap_or_default();
                let own = response.participant.clone().unwrap_or_default();
                let others = response.other_participants.clone();
                let other_room = !room.sid.is_empty() && room.sid != self.room_id;
                self.room_id = room.sid.clone();
                self.say(Delivery::Joined { room_id: room.sid, room_name: room.name });
                self.say(Delivery::Noted(format!("reconnected to the room after {away:.1} s")));
                let changes = self.model.rejoined(&own, &others, other_room, now);
                self.obey(changes).await;
            }
            Some(Back::Lost(error)) => {
                let (code, words) = match failed(error) {
                    EndReason::Failed { code, words } => (code, words),
                    other => ("unavailable".to_owned(), format!("{other:?}")),
                };
                let words = format!("connection to the room was lost and did not come back in {away:.0} s: {words}");
                self.end(EndReason::Failed { code, words }, Duration::ZERO);
            }
            None => {}
        }
    }

    async fn obey(&mut self, changes: Vec<Change>) {
        let now = self.since(Instant::now());
        let mut subscribe = Vec::new();
        for change in changes {
            match change {
                Change::Subscribe(sid) => subscribe.push(sid),
                Change::Muted { sid, muted } => self.receive(Arrival::Muted { sid, muted }, now),
                Change::Left { sid } => self.receive(Arrival::Left { sid }, now),
                Change::Speakers(identities) => self.receive(Arrival::Speakers { identities }, now),
                Change::Layout(name) => self.receive(Arrival::Layout { name }, now),
                Change::Waiting(words) => self.say(Delivery::Waiting(words)),
                Change::Noted(words) => self.say(Delivery::Noted(words)),
                Change::Over(why) => self.end(why, LAST_PACKETS),
            }
        }
        if !subscribe.is_empty() {
            debug!(?subscribe, "subscribing");
            let wish = UpdateSubscription { track_sids: subscribe, subscribe: true, ..UpdateSubscription::default() };
            self.link.client.send(Request::Subscription(wish)).await;
        }
    }

    fn receive(&mut self, arrival: Arrival, at: Duration) {
        if self.dump.is_some() {
            self.keep(at, What::Arrived(arrival.clone()));
        }
        self.reception.on(arrival, at);
    }

    fn keep(&mut self, at: Duration, what: What) {
        let Some(dump) = &mut self.dump else { return };
        if let Err(error) = dump.keep(&Record::new(at, what)) {
            warn!(%error, "arrivals are no longer kept");
            self.dump = None;
        }
    }

    /// Arrivals to the reception, what it made to the listener.
    async fn deliver(&mut self) {
        for (arrival, at) in self.peer.take_arrivals() {
            let at = self.since(at);
            self.receive(arrival, at);
        }
        for ssrc in self.reception.keyframes_wanted() {
            self.ask_keyframe(ssrc);
        }
        self.hand_out();
    }

    fn hand_out(&mut self) {
        while let Some(timed) = self.reception.take() {
            self.say(Delivery::Timed(timed));
        }
        if let Some(zero) = self.reception.origin() {
            let mut origin = self.origin.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if origin.is_none() {
                let at = self.began + zero;
                *origin = Some((at, SystemTime::now() - at.elapsed()));
            }
        }
    }

    fn say(&mut self, delivery: Delivery) {
        if self.outbox.send(delivery).is_err() {
            self.end(EndReason::Stopped, Duration::ZERO);
        }
    }

    fn say_stats(&mut self) {
        for stats in self.reception.stats() {
            self.say(Delivery::Stats(stats));
        }
    }

    fn end(&mut self, why: EndReason, grace: Duration) {
        let at = Instant::now() + grace;
        match &self.over {
            // A stop does not wait for the grace of another end.
            Some((decided, _)) if *decided <= at => {}
            _ => self.over = Some((at, why)),
        }
    }

    async fn finish(mut self) {
        let asked = Instant::now();
        loop {
            self.peer.read();
            self.deliver().await;
            if self.peer.caught_up() >= asked {
                break;
            }
        }
        let now = self.since(Instant::now());
        self.keep(now, What::Finish);
        self.reception.finish(now);
        self.hand_out();
        self.say_stats();
        let why = self.over.take().map_or(EndReason::Stopped, |(_, why)| why);
        self.say(Delivery::Ended(why));
        if let Some(Err(error)) = self.dump.take().map(Dump::finish) {
            warn!(%error, "arrivals are not all kept");
        }
        // The listener has its end; the server learns ours.
        drop(self.outbox);
        if tokio::time::timeout(Duration::from_secs(2), link::leave(&self.link.client)).await.is_err() {
            debug!("leave not sent in time");
        }
    }
}
