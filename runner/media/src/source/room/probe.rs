//! A probe of a room: joins as a recorder would, waits for the media connection, says over which pair of addresses it goes, and
//! leaves. Subscribes to nothing. Everything runs in the caller's thread, for a bounded time.

use std::time::{Duration, Instant};

use livekit_protocol::SessionDescription;
use livekit_protocol::signal_request::Message as Request;
use livekit_protocol::signal_response::Message as Response;
use livekit_signaling::SignalEvent;
use spillway_ipc::{MediaEndReason, MediaEvent, MediaPath, ProbeCommand};
use spillway_process::chain;
use tokio::time::{sleep, sleep_until, timeout};
use tracing::debug;

use super::drive::{failed, server_address};
use super::ice_server::RelayOffer;
use super::link::{self, JoinParams, Joined};
use super::peer::{self, Peer};
use crate::stream_tls::StreamTls;

/// Between two [`MediaEvent::Alive`].
const ALIVE_EVERY: Duration = Duration::from_millis(700);
/// How old the pair may be that is reported.
const PAIR_EVERY: Duration = Duration::from_millis(100);
/// Between two looks at the sockets of a connection that is up: nothing wakes us then.
const READ_EVERY: Duration = Duration::from_millis(20);
const LEAST_WAIT: Duration = Duration::from_millis(1);
/// A connection over TCP or a relay may come first, and a better one after it: datagrams are checked for a second.
const BETTER_PATH: Duration = Duration::from_millis(1500);
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);

/// Runs the probe and tells what it finds; the last event is [`MediaEvent::Ended`].
pub fn probe(command: &ProbeCommand, tell: &mut dyn FnMut(MediaEvent)) {
    // As for a recording: one of two TLS providers must be chosen, unless one is chosen already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    std::thread::spawn(peer::warm_up);
    let why = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(run(command, tell)),
        Err(error) => unavailable(format!("no runtime: {error}")),
    };
    tell(MediaEvent::Ended { why });
}

fn unavailable(message: String) -> MediaEndReason {
    MediaEndReason::Failed { code: "unavailable".to_owned(), message }
}

async fn run(command: &ProbeCommand, tell: &mut dyn FnMut(MediaEvent)) -> MediaEndReason {
    let params = JoinParams { ws_url: command.ws_url.clone(), token: command.token.clone() };
    let server = server_address(&command.ws_url).await;
    let mut joined = match alive(link::join(&params), tell).await {
        Ok(joined) => joined,
        Err(error) => return failed(error),
    };
    let room = joined.response.room.clone().unwrap_or_default();
    tell(MediaEvent::Joined { room_id: room.sid, room_name: room.name });
    let relays = RelayOffer::of(&joined.response);
    let tls = StreamTls::new(command.settings.streams.clone());
    let mut peer = Peer::observed(server, relays, tls, Some(PAIR_EVERY));
    let give_up = Instant::now() + Duration::from_millis(command.timeout_ms);
    let found = alive(find(&mut peer, &mut joined, give_up), tell).await;
    peer.close();
    if timeout(LEAVE_TIMEOUT, link::leave(&joined.client)).await.is_err() {
        debug!("leave not sent in time");
    }
    match found {
        Ok(path) => {
            tell(MediaEvent::Path(path));
            MediaEndReason::Stopped
        }
        Err(message) => unavailable(message),
    }
}

/// Tells that we live while something takes its time.
async fn alive<T>(work: impl Future<Output = T>, tell: &mut dyn FnMut(MediaEvent)) -> T {
    tokio::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            () = sleep(ALIVE_EVERY) => {
                tell(MediaEvent::Alive { media_ns: 0, lag_ms: 0, backlog_bytes: 0, streams: vec![] });
            }
        }
    }
}

/// The pair of addresses, once it is the best there is; an error: why there is none.
async fn find(peer: &mut Peer, joined: &mut Joined, give_up: Instant) -> Result<MediaPath, String> {
    let mut settled_at = None;
    loop {
        let now = Instant::now();
        if peer.is_secured() && settled_at.is_none() {
            settled_at = Some(now + BETTER_PATH);
        }
        let path = peer.path().filter(|_| peer.is_secured());
        if let Some(path) = path
            && ((path.protocol == "udp" && path.relay.is_none()) || settled_at.is_some_and(|at| now >= at))
        {
            return Ok(MediaPath { tried: peer.take_endpoints().into_iter().collect(), ..path });
        }
        if now >= give_up {
            return Err(not_connected(peer));
        }
        let wake = if peer.is_secured() { now + READ_EVERY } else { peer.wake_at().max(now + LEAST_WAIT) };
        tokio::select! {
            biased;
            event = joined.events.recv() => {
                let answered = match event {
                    Some(SignalEvent::Message(message)) => answer(*message, peer, joined).await,
                    Some(SignalEvent::Close(why)) => Err(format!("livekit-server closed the signal connection: {why}")),
                    None => Err("the signal connection is over".to_owned()),
                };
                // livekit-server gives up after about 15 s too.
                answered.map_err(|why| match peer.is_secured() {
                    true => why,
                    false => format!("{}: {why}", not_connected(peer)),
                })?;
            }
            news = peer.wait() => match news {
                Some(news) => peer.on_news(news),
                None => {
                    peer.read();
                }
            },
            () = sleep_until(wake.min(give_up).into()) => {}
        }
        peer.time();
        if peer.is_secured() {
            peer.read();
        }
    }
}

fn not_connected(peer: &mut Peer) -> String {
    let tried: Vec<String> = peer.take_endpoints().into_iter().collect();
    match tried.len() {
        0 => "livekit-server named no address for media".to_owned(),
        _ => format!("no media connection to any of {}", tried.join(", ")),
    }
}

async fn answer(message: Response, peer: &mut Peer, joined: &Joined) -> Result<(), String> {
    match message {
        Response::Offer(offer) => {
            let sdp = peer.answer(&offer.sdp, |_| None).map_err(|error| chain(&error).to_string())?;
            let answer =
                SessionDescription { r#type: "answer".to_owned(), sdp, id: offer.id, ..SessionDescription::default() };
            joined.client.send(Request::Answer(answer)).await;
        }
        Response::Trickle(trickle) => peer.trickle(&trickle.candidate_init),
        Response::Leave(leave) => {
            let reason = leave.reason().as_str_name().to_lowercase();
            return Err(format!("livekit-server ended our stay: {reason}"));
        }
        _ => {}
    }
    Ok(())
}
