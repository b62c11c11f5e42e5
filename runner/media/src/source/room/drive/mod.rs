//! The room's loop: what comes from the server (`signals`), the sockets, the clock and the commands of the
//! recorder, each to its place. Runs in the room's thread; never waits for the listener.

mod signals;
mod requests;
mod finish;
mod start;

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use livekit_protocol::SessionDescription;
use spillway_ipc::MediaEndReason;
use spillway_ipc::migration::{MigrationSignal, MigrationSignals};
use tokio::sync::mpsc;
use tokio::time::sleep_until;
use tracing::{info, warn};

pub(super) use self::start::{run, server_address};
use super::delivery::{DELIVERY_STEP, DeliveryWatch};
use super::link::{JoinParams, Joined, LinkError, Reconnect};
use super::message::{ExpectedPictures, RoomCommand, RoomListener, RoomMessage};
use super::model::RoomModel;
use super::peer::Peer;
use super::recovery::{ConnectionState, MediaRecovery, RecoveryStep};
use super::stream_link::NetEvent;
use super::track_demand::TrackDemands;
use crate::receive::TrackReceiver;
use crate::receive::event::RoomEvent;
use crate::source::dump::{Dump, DumpItem, DumpRecord};
use crate::stream_tls::StreamTls;
use crate::units::Ssrc;

/// Packets sent before the news of an end may still be on their way.
const LAST_PACKETS: Duration = Duration::from_millis(300);
const STATS_EVERY: Duration = Duration::from_secs(2);
/// What has come is handed on so often, and with it how far everything is known: each time wakes the recorder, every decoder
/// and the mixers. With a small receive buffer the sockets are read more often (`source::room::poll_pace`).
const TICK: Duration = Duration::from_millis(40);
/// Without streams nothing is urgent.
const IDLE_TICK: Duration = Duration::from_millis(200);
/// During the handshake timers are obeyed, but a machine that cannot keep up with them is not asked to.
const LEAST_WAIT: Duration = Duration::from_millis(1);
/// A tick that late: we were stopped. What was sent meanwhile over TCP then comes as fast as the way allows.
const STOPPED: Duration = Duration::from_millis(200);
const RESUMING: Duration = Duration::from_secs(2);

struct RoomDriver {
    model: RoomModel,
    receiver: TrackReceiver,
    peer: Peer,
    server: Option<SocketAddr>,
    tls: StreamTls,
    /// Zero of every arrival's time.
    began: Instant,
    params: JoinParams,
    link: Joined,
    commands: mpsc::UnboundedReceiver<RoomCommand>,
    hear: Box<RoomListener>,
    /// What it hears next.
    deliveries: Vec<RoomMessage>,
    origin_told: bool,
    back_in: mpsc::UnboundedSender<Reconnect>,
    back: mpsc::UnboundedReceiver<Reconnect>,
    /// Signalling works; while it does not, `back` will say how it ended.
    link_up: bool,
    lost_since: Option<Instant>,
    /// The connection was given up for a new one only to see which room has the name.
    looks_again: bool,
    /// Signalling or media does not work, as the receiver knows it.
    trouble: bool,
    /// While the participant of the recording is away, the recording stands still.
    waits_for_return: bool,
    recovery: MediaRecovery,
    /// What is composed of pictures; `None`: they are copied, or their size is not known yet.
    expected: Option<ExpectedPictures>,
    /// Pictures are copied: the best layer of each is asked for.
    wants_best: bool,
    demands: TrackDemands,
    delivery: DeliveryWatch,
    next_delivery: Instant,
    /// Addresses that the server named for media.
    tried: BTreeSet<String>,
    room_id: String,
    last_offer: Option<SessionDescription>,
    last_answer: Option<SessionDescription>,
    asked: HashMap<Ssrc, Instant>,
    /// When everything was last looked after.
    ticked: Instant,
    /// When the sockets were last read.
    read_at: Instant,
    /// The sockets have more than was read: it is read as soon as all others had their turn.
    unread: bool,
    /// Until the first moment nothing after the second one is complete.
    resuming: Option<(Instant, Instant)>,
    next_stats: Instant,
    /// The end is decided; what is still on its way may come until then.
    over: Option<(Instant, MediaEndReason)>,
    /// The platform takes us elsewhere.
    migration: Option<MigrationSignals>,
    dump: Option<Dump>,
}

impl RoomDriver {
    async fn run(mut self) {
        self.greet().await;
        let mut has_news = true;
        loop {
            if has_news {
                self.deliver();
            }
            let now = Instant::now();
            if let Some((at, _)) = &self.over
                && now >= *at
            {
                break;
            }
            let wake = self.wake_at(now);
            let mut is_timer = false;
            tokio::select! {
                biased;
                command = self.commands.recv() => self.command(command).await,
                event = self.link.events.recv(), if self.link_up => self.signal(event).await,
                back = self.back.recv(), if !self.link_up => self.came_back(back).await,
                news = self.peer.wait() => self.network(news),
                moved = next_move(&mut self.migration) => self.moved(moved),
                () = sleep_until(wake.into()) => is_timer = true,
            }
            let in_handshake = !self.peer.is_secured();
            if in_handshake {
                self.peer.time();
            }
            let has_ticked = self.tick().await;
            has_news = has_ticked || in_handshake || !is_timer;
        }
        self.finish().await;
    }

    /// A connection that has died of it is found out as any other: by unanswered pings, or by the server. A resume of
    /// one that lives on would cost its media for seconds.
    fn moved(&mut self, moved: MigrationSignal) {
        match moved {
            MigrationSignal::Announced => info!("the platform will move us to another machine; the recording goes on"),
            MigrationSignal::Completed => {
                info!("moved to another machine");
                self.say(RoomMessage::Noted("moved to another machine by the platform".to_owned()));
            }
        }
    }

    fn wake_at(&self, now: Instant) -> Instant {
        let mut at = self.tick_at().min(self.read_due());
        if !self.peer.is_secured() {
            at = at.min(self.peer.wake_at().max(now + LEAST_WAIT));
        }
        match &self.over {
            Some((over, _)) => at.min(*over),
            None => at,
        }
    }

    fn tick_at(&self) -> Instant {
        if self.unread {
            return self.ticked;
        }
        self.ticked + if self.receiver.is_receiving() { TICK } else { IDLE_TICK }
    }

    /// When the sockets may be full.
    fn read_due(&self) -> Instant {
        if self.receiver.is_receiving() { self.read_at + self.peer.poll_interval() } else { self.tick_at() }
    }

    fn network(&mut self, news: Option<NetEvent>) {
        match news {
            Some(news) => self.peer.on_news(news),
            None => self.read(),
        }
    }

    fn read(&mut self) {
        self.read_at = Instant::now();
        self.unread = !self.peer.read();
    }

    fn since(&self, at: Instant) -> Duration {
        at.saturating_duration_since(self.began)
    }

    /// True: it was time, and there may be something to hand on. Before that the sockets are emptied where they are small.
    async fn tick(&mut self) -> bool {
        let now = Instant::now();
        let due = self.tick_at();
        if now < due {
            if now >= self.read_due() {
                self.read();
            }
            return false;
        }
        self.ticked = now;
        // A process that was stopped has seconds of datagrams to read before it may say what is complete.
        self.read();
        self.receive_all();
        let complete = self.caught_up(now, due);
        let since = self.since(complete);
        let trouble = !self.link_up || !self.peer.is_connected();
        if std::mem::replace(&mut self.trouble, trouble) != trouble {
            self.receive(RoomEvent::Trouble { on: trouble }, since);
        }
        self.keep(since, DumpItem::Tick);
        self.receiver.tick(since);
        let changes = self.model.tick(since);
        self.obey(changes).await;
        self.demand().await;
        if now >= self.next_delivery {
            self.next_delivery = now + DELIVERY_STEP;
            self.watch_delivery(since).await;
        }
        if now >= self.next_stats {
            self.next_stats = now + STATS_EVERY;
            self.say_stats();
        }
        self.watch_media(now);
        true
    }

    /// Up to when everything has been read. A datagram that waited says when it came, and an empty socket is empty;
    /// what waits in a TCP connection is known to its two ends only.
    fn caught_up(&mut self, now: Instant, due: Instant) -> Instant {
        if self.resuming.is_none() && now.saturating_duration_since(due) > STOPPED && self.peer.is_over_tcp() {
            self.resuming = Some((now + RESUMING, due));
        }
        let read = self.peer.caught_up();
        match self.resuming {
            Some((until, stopped)) if now < until => read.min(stopped),
            _ => {
                self.resuming = None;
                read
            }
        }
    }

    /// The server notices a dead media connection before us and asks for a resume. This is for when it does not.
    fn watch_media(&mut self, now: Instant) {
        let state = ConnectionState {
            signalling: self.link_up,
            media: self.peer.is_connected(),
            is_alive: self.peer.is_alive(),
        };
        let step = self.recovery.tick(state, self.since(now));
        self.recover(step, "no media connection");
    }

    /// `why`: the connection does not work.
    pub(super) fn recover(&mut self, step: Option<RecoveryStep>, why: &str) {
        match step {
            None => {}
            Some(RecoveryStep::Rejoin) => self.lost(why, true),
            Some(RecoveryStep::GiveUp) => {
                self.tried.extend(self.peer.take_endpoints());
                let message = self.recovery.reason(&self.tried);
                self.end(MediaEndReason::Failed { code: "unavailable".to_owned(), message }, Duration::ZERO);
            }
        }
    }

    pub(super) fn receive(&mut self, arrival: RoomEvent, at: Duration) {
        if self.dump.is_some() {
            self.keep(at, DumpItem::Event(arrival.clone()));
        }
        self.receiver.push(arrival, at);
    }

    fn keep(&mut self, at: Duration, what: DumpItem) {
        let Some(dump) = &mut self.dump else { return };
        if let Err(error) = dump.keep(&DumpRecord::new(at, what)) {
            warn!(%error, "arrivals are no longer kept");
            self.dump = None;
        }
    }

    /// Arrivals to the receiver.
    fn receive_all(&mut self) {
        for (arrival, at) in self.peer.take_arrivals() {
            let at = self.since(at);
            self.receive(arrival, at);
        }
        for ssrc in self.receiver.keyframes_wanted() {
            self.ask_keyframe(ssrc);
        }
        let notes = self.receiver.take_notes();
        self.deliveries.extend(notes.into_iter().map(RoomMessage::Noted));
    }

    /// Everything that is known to the listener, in one go: waking it costs more than what it then does with a frame.
    fn deliver(&mut self) {
        self.receive_all();
        self.hand_out();
        if !self.deliveries.is_empty() && !(self.hear)(std::mem::take(&mut self.deliveries)) {
            self.end(MediaEndReason::Stopped, Duration::ZERO);
        }
    }

    fn hand_out(&mut self) {
        if !self.origin_told
            && let Some(zero) = self.receiver.origin()
        {
            self.origin_told = true;
            let at = self.began + zero;
            self.say(RoomMessage::Epoch { at });
        }
        self.deliveries.extend(self.receiver.drain().map(RoomMessage::TimelineEvent));
    }

    pub(super) fn say(&mut self, delivery: RoomMessage) {
        self.deliveries.push(delivery);
    }

    fn say_stats(&mut self) {
        for stats in self.receiver.stats() {
            self.say(RoomMessage::Stats(stats));
        }
    }

    fn end(&mut self, why: MediaEndReason, grace: Duration) {
        let at = Instant::now() + grace;
        match &self.over {
            // A stop does not wait for the grace of another end.
            Some((decided, _)) if *decided <= at => {}
            _ => self.over = Some((at, why)),
        }
    }
}

async fn next_move(migration: &mut Option<MigrationSignals>) -> MigrationSignal {
    match migration {
        Some(migration) => migration.next().await,
        None => std::future::pending().await,
    }
}

pub(super) fn failed(error: LinkError) -> MediaEndReason {
    match error {
        LinkError::Refused { code, message } => MediaEndReason::Failed { code: code.to_owned(), message },
        error @ LinkError::Unreachable { .. } => {
            MediaEndReason::Failed { code: "unavailable".to_owned(), message: error.to_string() }
        }
    }
}
