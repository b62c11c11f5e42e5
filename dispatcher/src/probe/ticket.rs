//! The ticket of a probe: a room of its own, a token that opens this room only and for minutes, the configured stores. It is as
//! confined as one of an egress: encrypted in Redis, taken once, bound to its id, and only a runner that probes takes it.

use std::time::Duration;

use livekit_token::{AccessToken, AccessTokenError, VideoGrants};
use spillway_bus::{ProbeOrder, Ticket};
use spillway_cost::{Load, Shape, TooLarge, shape_for};
use spillway_plan::{Destination, Destinations, StorageConfig, Store};
use spillway_protocol::Secret;
use spillway_protocol::ids::EgressId;

use super::advice::ProbeSite;
use crate::config::Config;

const ID_CHARACTERS: &[u8] = b"23456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
/// Needs of a probe: the media process joins and decodes nothing.
const LOAD_CORES: f64 = 0.15;
const LOAD_MEMORY_MIB: f64 = 256.0;

/// Why there is no ticket.
#[derive(Debug, thiserror::Error)]
pub enum ProbeTicketError {
    /// The API key or its secret cannot sign.
    #[error("make a room token")]
    Token(#[source] AccessTokenError),
    /// The destinations cannot be serialised.
    #[error("write the destinations")]
    Destinations(#[source] serde_json::Error),
}

/// `PB_` and twelve characters, as an egress has `EG_`. Random, so that it is not found by trying.
pub fn new_id() -> String {
    use rand::RngExt;
    let mut random = rand::rng();
    let tail = (0..12).map(|_| char::from(ID_CHARACTERS[random.random_range(0..ID_CHARACTERS.len())]));
    "PB_".chars().chain(tail).collect()
}

/// Name of the room that the probe joins.
pub fn room_name(id: &EgressId) -> String {
    format!("spillway-probe-{id}")
}

/// The smallest machine that is sold there and suffices.
///
/// # Errors
/// None does; cannot happen.
pub fn shape(site: ProbeSite) -> Result<Shape, TooLarge> {
    let load = Load { cores: LOAD_CORES, memory_mib: LOAD_MEMORY_MIB, files: 1, stored: true, ..Load::default() };
    shape_for(&load, site.platform())
}

/// `folder`: of the object that is written, below the prefix of each store. `ttl`: of the token.
///
/// # Errors
/// See [`ProbeTicketError`]; for good.
pub fn ticket(
    config: &Config,
    id: &EgressId,
    site: ProbeSite,
    shape: Shape,
    folder: &str,
    ttl: Duration,
) -> Result<Ticket, ProbeTicketError> {
    let destinations = destinations(&config.defaults.storage);
    let destinations = serde_json::to_string(&destinations).map_err(ProbeTicketError::Destinations)?;
    Ok(Ticket {
        egress_id: id.clone(),
        attempt: 1,
        request: Secret::new(Vec::new()),
        plan_json: Secret::new("{}".to_owned()),
        token: Secret::new(room_token(config, id, ttl).map_err(ProbeTicketError::Token)?),
        ws_url: config.ws_url.clone(),
        destinations: Some(Secret::new(destinations)),
        runner: config.runner.clone(),
        probe: Some(ProbeOrder { platform: site.platform(), shape, object: object(folder, id) }),
        streams: None,
    })
}

fn object(folder: &str, id: &EgressId) -> String {
    match folder.trim_matches('/') {
        "" => format!("{id}.txt"),
        folder => format!("{folder}/{id}.txt"),
    }
}

/// Where a request without an upload of its own would be stored.
fn destinations(storage: &StorageConfig) -> Vec<Destinations> {
    let primary = storage.primary.clone().map(|provider| Store {
        provider,
        prefix: storage.prefix.clone(),
        // A link is no use to anybody.
        presign: false,
    });
    let stored = |store: Store| Destination::Store(Box::new(store));
    let backup = storage.backup.clone().map(|store| stored(Store { presign: false, ..store }));
    vec![Destinations { primary: primary.map_or(Destination::Disk, stored), backup }]
}

/// The grants of a recorder, for one room and as long as the probe lasts.
fn room_token(config: &Config, id: &EgressId, ttl: Duration) -> Result<String, AccessTokenError> {
    let grants = VideoGrants {
        room_join: true,
        room: room_name(id),
        can_publish: Some(false),
        can_subscribe: Some(true),
        can_publish_data: Some(false),
        hidden: true,
        recorder: true,
        ..VideoGrants::default()
    };
    AccessToken::with_api_key(&config.api_key, config.api_secret.reveal())
        .with_identity(id.as_str())
        .with_kind("egress")
        .with_ttl(ttl)
        .with_grants(grants)
        .to_jwt()
}

#[cfg(test)]
mod tests {
    use spillway_plan::destination::{Provider, S3};

    use super::*;

    fn config() -> Config {
        let mut config = Config {
            api_key: "key".into(),
            api_secret: Secret::new("a-secret-that-is-long-enough-for-hmac".into()),
            ws_url: "wss://lk".into(),
            ..Config::default()
        };
        config.defaults.storage = StorageConfig {
            primary: Some(Provider::S3(Box::new(S3 { bucket: "rec".into(), ..S3::default() }))),
            prefix: "calls/".into(),
            presign: true,
            ..StorageConfig::default()
        };
        config
    }

    #[test]
    fn a_token_opens_the_probes_room_only_and_for_minutes() {
        let id = EgressId::parse(&new_id()).unwrap();
        let shape = shape(ProbeSite::Aws).unwrap();
        let ticket =
            ticket(&config(), &id, ProbeSite::Aws, shape, "/spillway-probe/", Duration::from_secs(300)).unwrap();
        let claims = livekit_token::Claims::from_unverified(ticket.token.reveal()).unwrap();
        assert_eq!((claims.sub.as_str(), claims.video.room.clone()), (id.as_str(), room_name(&id)));
        assert!(claims.video.hidden && claims.video.recorder && !claims.video.can_publish());
        assert!(!claims.video.room_create && !claims.video.room_list && !claims.video.room_admin);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        assert!((claims.exp as u64) <= now + 300, "{} of {now}", claims.exp);
        let order = ticket.probe.clone().unwrap();
        assert_eq!(order.object, format!("spillway-probe/{id}.txt"));
        assert_eq!((order.platform, order.shape), (spillway_cost::Platform::Fargate, shape));
        let stores: Vec<Destinations> = serde_json::from_str(ticket.destinations.unwrap().reveal()).unwrap();
        let Destination::Store(store) = &stores[0].primary else { panic!("{stores:?}") };
        assert_eq!((store.prefix.as_str(), store.presign, stores[0].backup.is_some()), ("calls/", false, false));
    }

    #[test]
    fn without_a_store_files_stay_on_the_disk() {
        let disk = [Destinations { primary: Destination::Disk, backup: None }];
        assert_eq!(destinations(&StorageConfig::default()), disk);
    }

    #[test]
    fn every_platform_sells_a_machine_for_it() {
        for site in ProbeSite::ALL {
            assert!(shape(site).unwrap().memory_mib >= 256, "{site:?}");
        }
        assert_ne!(new_id(), new_id());
    }
}
