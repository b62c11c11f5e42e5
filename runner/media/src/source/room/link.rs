//! The signalling connection: first join, resume, full rejoin.

use std::sync::Arc;
use std::time::Duration;

use livekit_protocol::signal_request::Message as Request;
use livekit_protocol::{JoinResponse, LeaveRequest, ReconnectReason, leave_request};
use livekit_signaling::{SignalClient, SignalError, SignalEvents, SignalOptions};
use spillway_plan::Secret;
use spillway_process::chain;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tracing::{debug, info};

/// livekit/egress' Go SDK: at most so many, n² × 300 ms apart.
const ATTEMPTS: u32 = 10;
const STEP: Duration = Duration::from_millis(300);
const LONGEST: Duration = Duration::from_secs(10);
/// After so many failed resumes the session is given up for a new one.
const RESUMES: u32 = 3;
/// A server that cannot be reached at all fails the start after a few seconds.
const FIRST_ATTEMPTS: u32 = 4;

#[derive(Clone)]
pub(super) struct JoinParams {
    pub(super) ws_url: String,
    pub(super) token: Secret,
}

pub(super) struct Joined {
    pub(super) client: Arc<SignalClient>,
    pub(super) response: JoinResponse,
    pub(super) events: SignalEvents,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    /// psrpc code and what the server said: no retry helps.
    #[error("{message}")]
    Refused { code: &'static str, message: String },
    #[error("livekit-server cannot be reached: {message}")]
    Unreachable { message: String },
}

/// What came of trying to get back.
pub(super) enum Reconnect {
    Resumed,
    Rejoined(Box<Joined>),
    Lost(LinkError),
}

fn options() -> SignalOptions {
    let mut options = SignalOptions::default();
    options.auto_subscribe = false;
    options.adaptive_stream = false;
    options.single_peer_connection = false;
    options.region_failover = true;
    // 17 and later promise packet trailers and data channels that we do not speak.
    options.protocol_version = 16;
    options.client_capabilities.clear();
    options.client_protocol = 0;
    // A name the server does not know: ICE/TCP is offered, and no codec changes within a stream.
    options.sdk_options.sdk = "spillway".to_owned();
    options.sdk_options.sdk_version = Some(env!("CARGO_PKG_VERSION").to_owned());
    options
}

pub(super) async fn join(params: &JoinParams) -> Result<Joined, LinkError> {
    let mut attempt = 0;
    loop {
        match enter(params).await {
            Ok(joined) => return Ok(joined),
            Err(error @ LinkError::Refused { .. }) => return Err(error),
            Err(error) => {
                attempt += 1;
                if attempt >= FIRST_ATTEMPTS {
                    return Err(error);
                }
                debug!(error = %chain(&error), attempt, "joining again");
                sleep(wait(attempt)).await;
            }
        }
    }
}

async fn enter(params: &JoinParams) -> Result<Joined, LinkError> {
    let connected = SignalClient::connect(&params.ws_url, params.token.reveal(), options(), None).await;
    let (client, response, events) = connected.map_err(|error| judge(error, &params.token))?;
    Ok(Joined { client: Arc::new(client), response, events })
}

/// Whether the server answered for good, or may answer otherwise later.
fn judge(error: SignalError, token: &Secret) -> LinkError {
    let status = match &error {
        SignalError::Client(status, _) | SignalError::Handshake { status } => Some(status.as_u16()),
        _ => None,
    };
    let said = match &error {
        // The server repeats a token that it cannot verify.
        SignalError::Client(_, body) => body.trim().replace(token.reveal().as_str(), "(the token)"),
        other => other.to_string().replace(token.reveal().as_str(), "(the token)"),
    };
    let refused = |code, message: &str| LinkError::Refused { code, message: format!("{message}: {said}") };
    match (status, &error) {
        (Some(401), _) => refused("unauthenticated", "livekit-server refused the token"),
        (Some(403), _) => refused("permission_denied", "livekit-server refused the token"),
        (Some(404), _) => refused("not_found", "livekit-server does not know the room"),
        (Some(400 | 422), _) => refused("invalid_argument", "livekit-server refused to let us join"),
        (_, SignalError::UrlParse(_)) => refused("invalid_argument", "the URL of livekit-server cannot be used"),
        (_, SignalError::TokenFormat) => refused("unauthenticated", "the token cannot be used"),
        _ => LinkError::Unreachable { message: said },
    }
}

/// Before the next attempt.
pub(super) fn wait(attempt: u32) -> Duration {
    (STEP * (attempt * attempt)).min(LONGEST)
}

/// Gets back in the background and says how once. `wait`: before the first attempt.
pub(super) fn get_back(
    client: Arc<SignalClient>,
    params: JoinParams,
    full: bool,
    wait: Duration,
    answer: mpsc::UnboundedSender<Reconnect>,
) {
    tokio::spawn(async move {
        sleep(wait).await;
        let back = try_back(&client, &params, full).await;
        let _ = answer.send(back);
    });
}

async fn try_back(client: &SignalClient, params: &JoinParams, mut full: bool) -> Reconnect {
    let mut last = LinkError::Unreachable { message: "connection lost".to_owned() };
    for attempt in 0..ATTEMPTS {
        sleep(wait(attempt)).await;
        if !full {
            match client.restart(ReconnectReason::RrSignalDisconnected).await {
                Ok(_) => return Reconnect::Resumed,
                Err(error) => {
                    let asked_to_leave = matches!(error, SignalError::LeaveRequest { .. });
                    full = asked_to_leave || attempt + 1 >= RESUMES;
                    // Before it is logged: the server may have repeated the token.
                    last = judge(error, &params.token);
                    info!(error = %chain(&last), attempt, "resume failed");
                }
            }
            continue;
        }
        // The server may have given us a newer token meanwhile.
        let params = JoinParams { ws_url: params.ws_url.clone(), token: Secret::new(client.token()) };
        match enter(&params).await {
            Ok(joined) => return Reconnect::Rejoined(Box::new(joined)),
            Err(error @ LinkError::Refused { .. }) => return Reconnect::Lost(error),
            Err(error) => {
                info!(error = %chain(&error), attempt, "rejoin failed");
                last = error;
            }
        }
    }
    Reconnect::Lost(last)
}

/// The crate's `close` sends no leave by itself.
pub(super) async fn leave(client: &SignalClient) {
    let action = leave_request::Action::Disconnect as i32;
    let reason = livekit_protocol::DisconnectReason::ClientInitiated as i32;
    client.send(Request::Leave(LeaveRequest { reason, action, ..LeaveRequest::default() })).await;
    client.close().await;
}
