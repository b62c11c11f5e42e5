//! The time of the installation, and its id.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use spillway_bus::{
    Bid, CallOptions, Handler, Incoming, Installation, Record, RedisFacts, Registry, Routing, RpcClient, RpcServer,
};
use spillway_process::Clock;
use spillway_protocol::RpcError;

use super::keys::id;
use crate::fixture::Fixture;

const SECOND: i64 = 1_000_000_000;

/// Keeps by how much each call had expired, by the right clock, when it came.
struct LivekitServer {
    right: Clock,
    late_ns: Mutex<Vec<i64>>,
}

#[async_trait]
impl Handler for LivekitServer {
    async fn bid(&self, _: &Incoming) -> Bid {
        Bid::Now(1.0)
    }

    async fn answer(&self, incoming: Incoming) -> Result<Vec<u8>, RpcError> {
        let expiry = incoming.sent_at + i64::try_from(incoming.time_allowed.as_nanos()).unwrap();
        self.late_ns.lock().unwrap().push(self.right.unix_ns() - expiry);
        Ok(Vec::new())
    }
}

/// livekit-server drops a call whose expiry is past, and takes the time stamps in an EgressInfo as they are.
pub async fn a_host_whose_clock_is_wrong_sends_and_stamps_by_redis_time(fixture: &impl Fixture) {
    // Redis runs on this machine, or has its clock.
    let right = Clock::host();
    let server = RpcServer::new(&fixture.bus().await, "IOInfo");
    let livekit = Arc::new(LivekitServer { right: right.clone(), late_ns: Mutex::default() });
    server.serve("UpdateEgress", "", Routing::Queue, Arc::clone(&livekit)).await.unwrap();
    for wrong_s in [-600, -20, -3, -1, 3, 600] {
        let bus = fixture.bus_on(Clock::host_ahead_by(wrong_s * SECOND)).await;
        let off = bus.clock().unix_ns() - right.unix_ns();
        // Half of a round trip, on a busy machine.
        assert!(off.abs() < SECOND / 2, "{wrong_s} s: {off} ns off");
        let client = RpcClient::new(&bus, "IOInfo");
        client.call("UpdateEgress", "", vec![], &CallOptions::queue().timeout(Duration::from_secs(20))).await.unwrap();
        let late_ns = livekit.late_ns.lock().unwrap().pop().unwrap();
        assert!((-20 * SECOND - SECOND / 2..0).contains(&late_ns), "{wrong_s} s: {late_ns} ns late");
        // The live set forgets names without a record after a minute, by the clock of the bus that lists it.
        let registry = Registry::new(&bus);
        let name = id(&format!("EG_{}", wrong_s.unsigned_abs()));
        registry.create(&Record::new(name.clone(), 1)).await.unwrap();
        let listed = Registry::new(&fixture.bus().await).list_live().await.unwrap();
        assert!(listed.iter().any(|record| record.egress_id == name));
    }
}

pub async fn an_installation_has_one_id_for_all_its_makers(fixture: &impl Fixture) {
    let installation = Installation::new(&fixture.bus().await);
    assert_eq!(installation.find().await.unwrap(), None, "looking makes none");
    let mut makers = Vec::new();
    for _ in 0..8 {
        let installation = Installation::new(&fixture.bus().await);
        makers.push(tokio::spawn(async move { installation.get_or_make().await.unwrap() }));
    }
    let mut made = Vec::new();
    for maker in makers {
        made.push(maker.await.unwrap());
    }
    assert!(made.iter().all(|id| *id == made[0]), "{made:?}");
    assert!(made[0].len() == 16 && made[0].bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()));
    assert_eq!(installation.find().await.unwrap().as_ref(), Some(&made[0]));
}

pub async fn a_server_tells_its_version_and_what_it_evicts(fixture: &impl Fixture) {
    let facts = RedisFacts::of(&fixture.bus().await).await.unwrap();
    assert_eq!((facts.role.as_str(), facts.cause()), ("master", None), "{facts:?}");
    assert!(!facts.version.is_empty() && facts.eviction_policy == "noeviction", "{facts:?}");
}
