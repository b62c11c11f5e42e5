//! A client of one TURN server (RFC 8656): an allocation, a channel for each peer, refreshes. Datagrams of the server come
//! in (over a stream: whole messages), datagrams for it and for us go out. Pure: the time comes in.
//!
//! Our own, after a look at what is kept: turn-client-proto 0.7 neither pads ChannelData over TCP nor skips the server's
//! padding (RFC 8656, part 12.5), so it cannot talk to TURN over TLS of livekit-server (pion) or coturn; rtc-turn 0.21
//! leaves framing and refreshes to its user and brings a second cryptography; `is`, str0m's STUN, cannot allocate.

mod stun;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use spillway_plan::Secret;

use self::stun::{LongTermKey, StunAttribute, StunClass, StunMessage, StunMethod, StunWriter, TransactionId, padded};

/// Before a request is repeated over UDP; doubled each time.
const FIRST_RETRY: Duration = Duration::from_millis(250);
/// Over UDP: for 8 s in sum.
const MAX_SENDS: u32 = 5;
/// Over a stream nothing is repeated.
const STREAM_TIMEOUT: Duration = Duration::from_secs(8);
/// A server may change its nonce with every request, but not for ever.
const MAX_CHALLENGES: u32 = 4;
/// Asked for; livekit-server gives as much.
const LIFETIME_SECONDS: u32 = 600;
const MIN_LIFETIME: Duration = Duration::from_secs(20);
/// A channel lasts ten minutes, the permission that it brings five.
const REBIND_AFTER: Duration = Duration::from_secs(240);
/// A peer that the server refused.
const ASK_AGAIN: Duration = Duration::from_secs(5);
const FIRST_CHANNEL: u16 = 0x4000;
const MAX_CHANNELS: usize = 64;
/// IANA's number, in the first byte.
const TRANSPORT_UDP: [u8; 4] = [17, 0, 0, 0];

/// What happened to the allocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TurnChange {
    /// Peers reach us at this address of the server.
    Allocated(SocketAddr),
    /// There is none, or no longer.
    Failed(String),
}

pub(super) struct TurnClient {
    username: String,
    password: Secret,
    /// TCP or TLS: reliable, and padded.
    is_stream: bool,
    challenge: Option<Challenge>,
    requests: Vec<PendingRequest>,
    channels: Vec<Channel>,
    state: AllocationState,
    outgoing: Vec<Vec<u8>>,
    changes: Vec<TurnChange>,
}

/// What the server wants requests to be signed with.
struct Challenge {
    realm: String,
    nonce: Vec<u8>,
    key: LongTermKey,
}

enum AllocationState {
    Asked,
    /// Ends by itself at the second moment.
    Held {
        refresh_at: Instant,
        ends: Instant,
    },
    Over,
}

struct PendingRequest {
    id: TransactionId,
    what: TurnRequest,
    bytes: Vec<u8>,
    sends: u32,
    next: Instant,
    challenges: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TurnRequest {
    Allocate,
    Refresh,
    /// Gives the allocation back.
    Release,
    /// The channel's number.
    Bind(u16),
}

struct Channel {
    number: u16,
    peer: SocketAddr,
    state: ChannelState,
}

impl Channel {
    fn is_due(&self, now: Instant) -> bool {
        matches!(self.state, ChannelState::Bound { rebind_at } if now >= rebind_at)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ChannelState {
    Asked,
    Bound {
        rebind_at: Instant,
    },
    /// Bound, and being bound again.
    Rebinding,
    Refused {
        until: Instant,
    },
}

/// Bytes of the message that begins so, its padding included; `None` when the stream is not TURN's.
pub(super) fn framed_bytes(head: [u8; 4]) -> Option<usize> {
    let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
    match head[0] >> 6 {
        0 => Some(20 + length),
        1 => Some(padded(4 + length)),
        _ => None,
    }
}

impl TurnClient {
    /// Asks for an allocation at once.
    pub(super) fn new(username: &str, password: &Secret, is_stream: bool, now: Instant) -> Self {
        let mut client = Self {
            username: username.to_owned(),
            password: password.clone(),
            is_stream,
            challenge: None,
            requests: Vec::new(),
            channels: Vec::new(),
            state: AllocationState::Asked,
            outgoing: Vec::new(),
            changes: Vec::new(),
        };
        client.request(TurnRequest::Allocate, 0, now);
        client
    }

    /// What the server sent; gives what a peer sent through it.
    pub(super) fn receive<'d>(&mut self, data: &'d [u8], now: Instant) -> Option<(SocketAddr, &'d [u8])> {
        if data.first()? >> 6 == 1 {
            let number = u16::from_be_bytes([data[0], *data.get(1)?]);
            let length = usize::from(u16::from_be_bytes([*data.get(2)?, *data.get(3)?]));
            let channel = self.channels.iter().find(|channel| channel.number == number)?;
            return Some((channel.peer, data.get(4..4 + length)?));
        }
        let message = StunMessage::read(data)?;
        match message.class() {
            StunClass::Indication if message.method() == StunMethod::DATA => {
                let peer = message.address(StunAttribute::XOR_PEER_ADDRESS)?;
                Some((peer, message.attribute(StunAttribute::DATA)?))
            }
            StunClass::Success | StunClass::Error => {
                self.answered(message, now);
                None
            }
            StunClass::Request | StunClass::Indication => None,
        }
    }

    /// The datagram for the server that carries this to the peer. `None` until the server has bound a channel for it,
    /// which is asked for: the checks of ICE are repeated, and nothing else comes before them.
    pub(super) fn send(&mut self, peer: SocketAddr, data: &[u8], now: Instant) -> Option<Vec<u8>> {
        if !matches!(self.state, AllocationState::Held { .. }) {
            return None;
        }
        let Some(channel) = self.channels.iter_mut().find(|channel| channel.peer == peer) else {
            self.open(peer, now);
            return None;
        };
        match channel.state {
            ChannelState::Bound { .. } | ChannelState::Rebinding => {}
            ChannelState::Refused { until } if now >= until => {
                channel.state = ChannelState::Asked;
                let number = channel.number;
                self.request(TurnRequest::Bind(number), 0, now);
                return None;
            }
            ChannelState::Asked | ChannelState::Refused { .. } => return None,
        }
        let length = u16::try_from(data.len()).ok()?;
        let mut framed = Vec::with_capacity(padded(4 + data.len()));
        framed.extend_from_slice(&channel.number.to_be_bytes());
        framed.extend_from_slice(&length.to_be_bytes());
        framed.extend_from_slice(data);
        if self.is_stream {
            framed.resize(padded(framed.len()), 0);
        }
        Some(framed)
    }

    /// Repeats and refreshes what is due.
    pub(super) fn tick(&mut self, now: Instant) {
        self.repeat(now);
        if let AllocationState::Held { refresh_at, ends } = &mut self.state {
            if now >= *ends {
                self.fail("the allocation ran out".to_owned());
            } else if now >= *refresh_at {
                *refresh_at = *ends;
                self.request(TurnRequest::Refresh, 0, now);
            }
        }
        let due = self.channels.iter().filter(|channel| channel.is_due(now));
        let due: Vec<u16> = due.map(|channel| channel.number).collect();
        for number in due {
            self.set(number, ChannelState::Rebinding);
            self.request(TurnRequest::Bind(number), 0, now);
        }
    }

    /// Gives the allocation back; nothing is relayed any more.
    pub(super) fn release(&mut self, now: Instant) {
        if matches!(self.state, AllocationState::Held { .. }) {
            self.request(TurnRequest::Release, 0, now);
        }
        self.requests.clear();
        self.state = AllocationState::Over;
    }

    /// Datagrams for the server.
    pub(super) fn take_outgoing(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.outgoing)
    }

    pub(super) fn take_changes(&mut self) -> Vec<TurnChange> {
        std::mem::take(&mut self.changes)
    }

    /// When [`TurnClient::tick`] has something to do.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        let requests = self.requests.iter().map(|request| request.next);
        let channels = self.channels.iter().filter_map(|channel| match channel.state {
            ChannelState::Bound { rebind_at } => Some(rebind_at),
            _ => None,
        });
        let refresh = match self.state {
            AllocationState::Held { refresh_at, .. } => Some(refresh_at),
            _ => None,
        };
        requests.chain(channels).chain(refresh).min()
    }

    fn open(&mut self, peer: SocketAddr, now: Instant) {
        if self.channels.len() >= MAX_CHANNELS {
            return;
        }
        let number = FIRST_CHANNEL + self.channels.len() as u16;
        self.channels.push(Channel { number, peer, state: ChannelState::Asked });
        self.request(TurnRequest::Bind(number), 0, now);
    }

    /// Writes and sends it. `challenges`: how many times the server has refused its signature.
    fn request(&mut self, what: TurnRequest, challenges: u32, now: Instant) {
        let id: TransactionId = rand::random();
        let (method, lifetime) = match what {
            TurnRequest::Allocate => (StunMethod::ALLOCATE, Some(LIFETIME_SECONDS)),
            TurnRequest::Refresh => (StunMethod::REFRESH, Some(LIFETIME_SECONDS)),
            TurnRequest::Release => (StunMethod::REFRESH, Some(0)),
            TurnRequest::Bind(_) => (StunMethod::CHANNEL_BIND, None),
        };
        let mut writer = StunWriter::new(method, StunClass::Request, id);
        if what == TurnRequest::Allocate {
            writer.put(StunAttribute::REQUESTED_TRANSPORT, &TRANSPORT_UDP);
        }
        if let Some(lifetime) = lifetime {
            writer.put(StunAttribute::LIFETIME, &lifetime.to_be_bytes());
        }
        if let TurnRequest::Bind(number) = what
            && let Some(channel) = self.channels.iter().find(|channel| channel.number == number)
        {
            let [high, low] = number.to_be_bytes();
            writer.put(StunAttribute::CHANNEL_NUMBER, &[high, low, 0, 0]);
            writer.put_address(StunAttribute::XOR_PEER_ADDRESS, channel.peer);
        }
        let bytes = match &self.challenge {
            None => writer.finish(),
            Some(challenge) => {
                writer.put(StunAttribute::USERNAME, self.username.as_bytes());
                writer.put(StunAttribute::REALM, challenge.realm.as_bytes());
                writer.put(StunAttribute::NONCE, &challenge.nonce);
                writer.finish_signed(&challenge.key)
            }
        };
        self.outgoing.push(bytes.clone());
        let next = now + if self.is_stream { STREAM_TIMEOUT } else { FIRST_RETRY };
        self.requests.push(PendingRequest { id, what, bytes, sends: 1, next, challenges });
    }

    fn repeat(&mut self, now: Instant) {
        let mut unanswered = Vec::new();
        let is_stream = self.is_stream;
        let outgoing = &mut self.outgoing;
        self.requests.retain_mut(|request| {
            if now < request.next {
                return true;
            }
            if is_stream || request.sends >= MAX_SENDS {
                unanswered.push(request.what);
                return false;
            }
            outgoing.push(request.bytes.clone());
            request.next = now + FIRST_RETRY * 2_u32.pow(request.sends);
            request.sends += 1;
            true
        });
        for what in unanswered {
            match what {
                TurnRequest::Allocate => self.fail("no answer".to_owned()),
                // Until the allocation ends by itself.
                TurnRequest::Refresh => self.request(TurnRequest::Refresh, 0, now),
                TurnRequest::Release => {}
                TurnRequest::Bind(number) => self.set(number, ChannelState::Refused { until: now }),
            }
        }
    }

    fn answered(&mut self, message: StunMessage<'_>, now: Instant) {
        let Some(place) = self.requests.iter().position(|request| request.id == message.id()) else { return };
        let error = message.error();
        if message.class() == StunClass::Success
            && let Some(challenge) = &self.challenge
            && !message.is_signed_with(&challenge.key)
        {
            // Not from a server that knows the password.
            return;
        }
        let request = self.requests.swap_remove(place);
        match (message.class(), error) {
            (StunClass::Success, _) => self.granted(request.what, message, now),
            // Not signed yet, or with a nonce that is too old.
            (_, Some((401, reason))) if self.challenge.is_some() => self.refused(request.what, 401, reason, now),
            (_, Some((401 | 438, _))) if request.challenges < MAX_CHALLENGES && self.challenged(message) => {
                self.request(request.what, request.challenges + 1, now);
            }
            (_, Some((code, reason))) => self.refused(request.what, code, reason, now),
            (_, None) => self.refused(request.what, 400, "an error without a code", now),
        }
    }

    /// Takes over realm and nonce; false when they are not named.
    fn challenged(&mut self, message: StunMessage<'_>) -> bool {
        let known = self.challenge.as_ref().map(|challenge| challenge.realm.clone());
        let realm = message.text(StunAttribute::REALM).map(str::to_owned).or(known);
        let (Some(realm), Some(nonce)) = (realm, message.attribute(StunAttribute::NONCE)) else { return false };
        let key = LongTermKey::new(&self.username, &realm, self.password.reveal());
        self.challenge = Some(Challenge { realm, nonce: nonce.to_vec(), key });
        true
    }

    fn granted(&mut self, what: TurnRequest, message: StunMessage<'_>, now: Instant) {
        match what {
            TurnRequest::Allocate => match message.address(StunAttribute::XOR_RELAYED_ADDRESS) {
                Some(relayed) => {
                    self.hold(message, now);
                    self.changes.push(TurnChange::Allocated(relayed));
                }
                None => self.fail("an allocation without an address".to_owned()),
            },
            TurnRequest::Refresh => self.hold(message, now),
            TurnRequest::Release => {}
            TurnRequest::Bind(number) => self.set(number, ChannelState::Bound { rebind_at: now + REBIND_AFTER }),
        }
    }

    fn hold(&mut self, message: StunMessage<'_>, now: Instant) {
        let seconds = message.number(StunAttribute::LIFETIME).unwrap_or(LIFETIME_SECONDS);
        let lifetime = Duration::from_secs(seconds.into()).max(MIN_LIFETIME);
        self.state = AllocationState::Held { refresh_at: now + lifetime / 2, ends: now + lifetime };
    }

    fn refused(&mut self, what: TurnRequest, code: u16, reason: &str, now: Instant) {
        match what {
            TurnRequest::Allocate | TurnRequest::Refresh => self.fail(format!("{code} {reason}").trim_end().to_owned()),
            TurnRequest::Release => {}
            TurnRequest::Bind(number) => self.set(number, ChannelState::Refused { until: now + ASK_AGAIN }),
        }
    }

    fn set(&mut self, number: u16, state: ChannelState) {
        for channel in self.channels.iter_mut().filter(|channel| channel.number == number) {
            channel.state = state;
        }
    }

    fn fail(&mut self, reason: String) {
        if !matches!(self.state, AllocationState::Over) {
            self.requests.clear();
            self.state = AllocationState::Over;
            self.changes.push(TurnChange::Failed(reason));
        }
    }
}

#[cfg(test)]
mod tests;
