//! `--request FILE`: one recording without Redis and without a dispatcher. A request as JSON or YAML comes in, a plan, its
//! destinations and a room token go out. It contacts no server.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use livekit_token::{AccessToken, AccessTokenError, VideoGrants};
use serde_json::Value;
use spillway_plan::{
    Defaults, Destinations, EgressPlan, LimitRules, PlanError, ReadError, StorageConfig, start_request,
};
use spillway_protocol::Secret;
use spillway_protocol::livekit;
use spillway_protocol::rpc::StartEgressRequest;
use spillway_protocol::rpc::start_egress_request::EgressRequest;

/// Longer than any recording; the token is only valid for its room.
const TOKEN_TTL: Duration = Duration::from_secs(24 * 3600);
const ID_CHARACTERS: &[u8] = b"23456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";

/// Why a request cannot be recorded.
#[derive(Debug, thiserror::Error)]
pub enum OneShotError {
    /// The file was not read.
    #[error("read {}", path.display())]
    Read {
        /// As given; "-" is standard input.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// The file is no YAML.
    #[error("{} is neither JSON nor YAML", path.display())]
    Syntax {
        /// As given; "-" is standard input.
        path: PathBuf,
        /// Where, and what is wrong.
        source: serde_yaml_ng::Error,
    },
    /// No StartEgress request.
    #[error(transparent)]
    Request(#[from] ReadError),
    /// No livekit-server is named.
    #[error("no server: name it with --ws-url, LIVEKIT_URL or \"ws_url\"")]
    NoServer,
    /// Neither an API key nor a token.
    #[error(
        "no way in: LIVEKIT_API_KEY and LIVEKIT_API_SECRET, or a room token in LIVEKIT_TOKEN or \"token\", are needed"
    )]
    NoKeys,
    /// The API secret is not usable.
    #[error("make a room token")]
    Token(#[source] AccessTokenError),
    /// The request is not valid.
    #[error(transparent)]
    Plan(#[from] PlanError),
}

/// Access to livekit-server from the command line and the environment; the request goes before it.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Its websocket URL.
    pub ws_url: Option<String>,
    /// For a token of our own.
    pub api_key: Option<String>,
    /// Secret of that key.
    pub api_secret: Option<Secret>,
    /// A ready room token; it goes before the key.
    pub token: Option<Secret>,
}

/// A request that was read and planned, with the access to its room.
#[derive(Clone)]
pub struct OneShot {
    /// The request, its token taken out.
    pub start: StartEgressRequest,
    /// What is recorded, how, and into which files.
    pub plan: EgressPlan,
    /// By output.
    pub destinations: Vec<Destinations>,
    /// livekit-server's websocket URL.
    pub ws_url: String,
    /// JWT for the room.
    pub token: Secret,
}

impl fmt::Debug for OneShot {
    /// The request holds the secrets of its stores in the clear.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OneShot").field("plan", &self.plan).field("ws_url", &self.ws_url).finish_non_exhaustive()
    }
}

/// Reads a request; JSON is YAML, so one parser reads both. "-" is standard input.
///
/// # Errors
/// The file is not there or no YAML; a retry changes nothing.
pub fn read(path: &Path) -> Result<Value, OneShotError> {
    let text =
        if path == Path::new("-") { std::io::read_to_string(std::io::stdin()) } else { std::fs::read_to_string(path) };
    let text = text.map_err(|source| OneShotError::Read { path: path.to_owned(), source })?;
    serde_yaml_ng::from_str(&text).map_err(|source| OneShotError::Syntax { path: path.to_owned(), source })
}

/// Checks and plans a request: fills in what is missing from `access`, and mints a room token where there is none.
///
/// # Errors
/// The request is not valid, or has no access to a server; a retry changes nothing.
pub fn prepare(request: Value, access: &Access, limits: LimitRules) -> Result<OneShot, OneShotError> {
    let mut start = start_request(request)?;
    if start.egress_id.is_empty() {
        start.egress_id = new_id();
    }
    let joins_room = joins_room(&start);
    if start.ws_url.is_empty() && joins_room {
        start.ws_url = access.ws_url.clone().ok_or(OneShotError::NoServer)?;
    }
    if start.token.is_empty()
        && let Some(token) = &access.token
    {
        start.token = token.reveal().clone();
    }
    let keys = access.api_key.as_deref().zip(access.api_secret.as_ref());
    // Whoever starts this program gives it its identity.
    let storage = StorageConfig { own_buckets: vec!["*".to_owned()], ..StorageConfig::default() };
    let defaults = Defaults { mints_tokens: keys.is_some(), limits, storage, ..Defaults::default() };
    if joins_room && start.token.is_empty() && keys.is_none() {
        return Err(OneShotError::NoKeys);
    }
    let plan = spillway_plan::plan(&start, &defaults)?;
    let destinations = spillway_plan::destinations(&start, &defaults.storage)?;
    if let (true, Some((key, secret))) = (joins_room && start.token.is_empty(), keys) {
        start.token = room_token(key, secret, &plan).map_err(OneShotError::Token)?;
    }
    Ok(OneShot {
        ws_url: start.ws_url.clone(),
        token: Secret::new(std::mem::take(&mut start.token)),
        plan,
        destinations,
        start,
    })
}

/// A web page needs neither a server nor a key.
fn joins_room(start: &StartEgressRequest) -> bool {
    use livekit::start_egress_request::Source;
    match &start.request {
        Some(EgressRequest::Web(_)) => false,
        Some(EgressRequest::Egress(request)) => !matches!(request.source, Some(Source::Web(_))),
        _ => true,
    }
}

/// As livekit/egress joins: hidden, as a recorder, under the egress id (UpdateLayout finds it by that).
fn room_token(key: &str, secret: &Secret, plan: &EgressPlan) -> Result<String, AccessTokenError> {
    AccessToken::with_api_key(key, secret.reveal())
        .with_identity(&plan.egress_id)
        .with_kind("egress")
        .with_ttl(TOKEN_TTL)
        .with_grants(VideoGrants {
            room_join: true,
            room: plan.room_name.clone(),
            can_publish: Some(false),
            can_subscribe: Some(true),
            can_publish_data: Some(false),
            hidden: true,
            recorder: true,
            ..VideoGrants::default()
        })
        .to_jwt()
}

fn new_id() -> String {
    use rand::RngExt;
    let mut random = rand::rng();
    let tail = (0..12).map(|_| char::from(ID_CHARACTERS[random.random_range(0..ID_CHARACTERS.len())]));
    "EG_".chars().chain(tail).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use spillway_plan::{EgressKind, Source};

    fn access() -> Access {
        Access {
            ws_url: Some("ws://127.0.0.1:7880".to_owned()),
            api_key: Some("devkey".to_owned()),
            api_secret: Some(Secret::new("a-secret-that-is-long-enough-for-hmac".to_owned())),
            token: None,
        }
    }

    fn yaml(text: &str) -> Value {
        serde_yaml_ng::from_str(text).unwrap()
    }

    #[test]
    fn json_and_yaml_with_either_spelling_are_the_same_request() {
        let requests = [
            json!({"track": {"roomName": "r", "trackId": "TR_1", "file": {"filepath": "a.mp4"}}}),
            json!({"track": {"room_name": "r", "track_id": "TR_1", "file": {"filepath": "a.mp4"}}}),
            yaml("track:\n  room_name: r\n  track_id: TR_1\n  file:\n    filepath: a.mp4\n"),
        ];
        for request in requests {
            let shot = prepare(request, &access(), LimitRules::default()).unwrap();
            assert_eq!(shot.plan.kind, EgressKind::Track);
            assert_eq!(shot.plan.source, Source::Track { track_id: "TR_1".to_owned() });
            assert!(shot.plan.egress_id.starts_with("EG_") && shot.plan.egress_id.len() == 15);
        }
    }

    #[test]
    fn a_web_page_needs_neither_a_server_nor_a_key() {
        let web = json!({"web": {"url": "https://x/?key=canary", "file_outputs": [{"filepath": "a.mp4"}]}});
        let output = json!([{"file": {"filepath": "a.mp4"}}]);
        let second = json!({"egress": {"web": {"url": "https://x/?key=canary"}, "outputs": output.clone()}});
        for request in [web, second] {
            let shot = prepare(request, &Access::default(), LimitRules::default()).unwrap();
            assert_eq!((shot.plan.kind, shot.token.reveal().as_str()), (EgressKind::Web, ""));
            assert!(!format!("{shot:?}").contains("canary"), "{shot:?}");
        }
        let template =
            json!({"egress": {"room_name": "r", "template": {"custom_base_url": "https://x"}, "outputs": output}});
        let refused = prepare(template, &Access::default(), LimitRules::default());
        assert!(matches!(refused, Err(OneShotError::NoServer)), "{refused:?}");
    }

    #[test]
    fn the_token_opens_that_room_only_and_publishes_nothing() {
        let request =
            json!({"room_composite": {"room_name": "r", "file_outputs": [{"filepath": "a.mp4"}]}, "egress_id": "EG_x"});
        let shot = prepare(request, &access(), LimitRules::default()).unwrap();
        let claims = livekit_token::Claims::from_unverified(shot.token.reveal()).unwrap();
        assert_eq!((claims.sub.as_str(), claims.kind.as_str(), claims.video.room.as_str()), ("EG_x", "egress", "r"));
        assert!(claims.video.hidden && claims.video.recorder && !claims.video.can_publish());
        assert!(!format!("{shot:?}").contains(shot.token.reveal()));
    }

    #[test]
    fn what_is_missing_is_named() {
        let track = || json!({"track": {"room_name": "r", "track_id": "TR_1", "file": {"filepath": "a.mp4"}}});
        let message =
            |request, access: &Access| prepare(request, access, LimitRules::default()).unwrap_err().to_string();
        assert!(message(track(), &Access { ws_url: None, ..access() }).contains("--ws-url"));
        assert!(message(track(), &Access { api_secret: None, ..access() }).contains("LIVEKIT_API_SECRET"));
        assert!(message(json!({"trak": {}}), &access()).starts_with("\"trak\" is not known"));
        assert!(message(json!(3), &access()).contains("room_composite"));
        assert!(message(json!({"track": {"nosuch": 1}}), &access()).contains("track"));
    }
}
