//! Whether the configured names resolve where the runner is.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;
use spillway_bus::config::RedisTopology;
use spillway_bus::{ProbeCause, ProbeLine, RedisConfig};
use spillway_guard::host_and_port;
use spillway_plan::{Destination, Destinations};
use tokio::net::lookup_host;
use tokio::time::{Instant, timeout};

/// As resolvers give up: two attempts.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(11);
/// So many addresses of a name are shown.
const SHOWN: usize = 4;

/// A host that a recording connects to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NamedHost {
    what: &'static str,
    host: String,
    port: u16,
}

/// Every configured name once; addresses need no look-up.
pub(super) fn hosts(redis: &RedisConfig, ws_url: &str, destinations: &[Destinations]) -> Vec<NamedHost> {
    let addresses: Vec<&str> = match redis.topology() {
        Some(RedisTopology::Single { address }) => vec![address],
        Some(RedisTopology::Sentinel { addresses, .. } | RedisTopology::Cluster { addresses }) => {
            addresses.iter().map(String::as_str).collect()
        }
        None => vec![],
    };
    let redis = addresses.into_iter().filter_map(|address| {
        let (host, port) = address.rsplit_once(':')?;
        Some(("redis", host.to_owned(), port.parse().ok()?))
    });
    let server = host_and_port(ws_url).map(|(host, port)| ("livekit-server", host, port));
    let both = destinations.iter().flat_map(|to| [Some(&to.primary), to.backup.as_ref()]).flatten();
    let stores = both.filter_map(|to| match to {
        Destination::Store(store) => {
            let (host, port) = host_and_port(&store.provider.server()?)?;
            Some(("store", host, port))
        }
        Destination::Disk => None,
    });
    let mut known = BTreeSet::new();
    redis
        .chain(server)
        .chain(stores)
        .map(|(what, host, port)| NamedHost { what, host: host.trim_matches(['[', ']']).to_owned(), port })
        .filter(|named| named.host.parse::<std::net::IpAddr>().is_err() && known.insert(named.host.clone()))
        .collect()
}

pub(super) async fn check(hosts: &[NamedHost]) -> Vec<ProbeLine> {
    join_all(hosts.iter().map(resolve)).await
}

async fn resolve(named: &NamedHost) -> ProbeLine {
    let NamedHost { what, host, port } = named;
    let check = format!("dns {what}");
    let began = Instant::now();
    let line = match timeout(LOOKUP_TIMEOUT, lookup_host((host.as_str(), *port))).await {
        Ok(Ok(found)) => {
            let found: BTreeSet<String> = found.map(|address| address.ip().to_string()).collect();
            let shown: Vec<&str> = found.iter().take(SHOWN).map(String::as_str).collect();
            let more = if found.len() > SHOWN { " and others" } else { "" };
            ProbeLine::passed(check, format!("{host} is {}{more}", shown.join(", ")))
        }
        Ok(Err(error)) => ProbeLine::failed(check, ProbeCause::of_lookup(&error), format!("{host}: {error}")),
        Err(_) => ProbeLine::failed(check, ProbeCause::NameServerSilent, format!("{host}: no name server answers")),
    };
    line.took(began.elapsed())
}

#[cfg(test)]
mod tests {
    use spillway_plan::Store;
    use spillway_plan::destination::{Azure, Provider};

    use super::*;

    #[test]
    fn every_configured_name_is_looked_up_once_and_addresses_are_not() {
        let redis = RedisConfig {
            sentinel_addresses: vec!["r1:26379".into(), "10.0.0.1:26379".into(), "[::1]:26379".into()],
            sentinel_master_name: "m".into(),
            ..RedisConfig::default()
        };
        let store = || {
            let provider = Provider::Azure(Azure { account: "acc".into(), ..Azure::default() });
            Destination::Store(Box::new(Store { provider, prefix: String::new(), presign: false }))
        };
        let destinations = [
            Destinations { primary: store(), backup: Some(store()) },
            Destinations { primary: Destination::Disk, backup: None },
        ];
        let found = hosts(&redis, "wss://lk.example", &destinations);
        let found: Vec<_> = found.iter().map(|named| (named.what, named.host.as_str(), named.port)).collect();
        assert_eq!(
            found,
            [
                ("redis", "r1", 26379),
                ("livekit-server", "lk.example", 443),
                ("store", "acc.blob.core.windows.net", 443)
            ]
        );
    }

    #[tokio::test]
    async fn a_name_that_is_not_there_fails_with_its_name() {
        let named = |host: &str| NamedHost { what: "store", host: host.to_owned(), port: 443 };
        let lines = check(&[named("localhost"), named("store.invalid")]).await;
        assert_eq!(lines[0].cause, None, "{:?}", lines[0]);
        // A machine without a name server cannot tell.
        let causes = [Some(ProbeCause::NameNotFound), Some(ProbeCause::NameServerSilent)];
        assert!(causes.contains(&lines[1].cause) && lines[1].message.starts_with("store.invalid"), "{:?}", lines[1]);
    }
}
