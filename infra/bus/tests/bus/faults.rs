//! Failures of a real Redis, and what works again afterwards.

use std::time::Duration;

use rustix::process::Signal;
use spillway_bus::{
    Bus, BusError, CallOptions, Record, RedisConfig, Registry, Routing, RpcClient, RpcServer, TicketKey, Tickets,
};
use spillway_process::chain;
use spillway_protocol::Code;
use spillway_protocol::Secret;

use crate::fixture::{RedisServer, eventually};
use crate::scripted_handler::ScriptedHandler;
use crate::suite::keys::{id, ticket};

/// A server and a caller on buses of their own, with a topic and a pattern.
struct Pair {
    server_bus: Bus,
    client_bus: Bus,
    _server: RpcServer,
    client: RpcClient,
}

impl Pair {
    async fn on(config: &RedisConfig) -> Self {
        let (server_bus, client_bus) = (Bus::connect(config).await.unwrap(), Bus::connect(config).await.unwrap());
        let server = RpcServer::new(&server_bus, "EgressHandler");
        server.serve("StopEgress", "EG_1", Routing::Queue, ScriptedHandler::answering("stopped")).await.unwrap();
        server.serve_pattern("UpdateStream", Routing::Queue, ScriptedHandler::answering("updated")).await.unwrap();
        let client = RpcClient::new(&client_bus, "EgressHandler");
        let pair = Self { server_bus, client_bus, _server: server, client };
        pair.works().await;
        pair
    }

    async fn works(&self) {
        let options = CallOptions::queue();
        assert_eq!(&self.client.call("StopEgress", "EG_1", vec![], &options).await.unwrap()[..], b"stopped");
        assert_eq!(&self.client.call("UpdateStream", "EG_2", vec![], &options).await.unwrap()[..], b"updated");
    }

    fn healthy(&self) -> bool {
        self.server_bus.healthy() && self.client_bus.healthy()
    }
}

#[tokio::test]
async fn after_a_restart_of_redis_healthy_means_that_calls_are_heard() {
    let mut redis = RedisServer::start(&[]).await;
    let pair = Pair::on(&redis.config()).await;
    for _ in 0..2 {
        redis.kill();
        eventually("the loss is noticed", async || !pair.server_bus.healthy() && !pair.client_bus.healthy()).await;
        let error = pair.client.call("StopEgress", "EG_1", vec![], &CallOptions::queue()).await.unwrap_err();
        assert!(matches!(error.code, Code::Unavailable | Code::DeadlineExceeded), "{error:?}");
        redis.launch();
        eventually("both are back", async || pair.healthy()).await;
        pair.works().await;
    }
}

#[tokio::test]
async fn a_killed_subscription_comes_back_whole() {
    let redis = RedisServer::start(&[]).await;
    let pair = Pair::on(&redis.config()).await;
    let mut admin = redis.client().await.unwrap();
    for _ in 0..3 {
        let killed: i64 =
            redis::cmd("CLIENT").arg("KILL").arg("TYPE").arg("pubsub").query_async(&mut admin).await.unwrap();
        assert_eq!(killed, 2);
        eventually("both listen again", async || {
            let listening: String =
                redis::cmd("CLIENT").arg("LIST").arg("TYPE").arg("pubsub").query_async(&mut admin).await.unwrap();
            let whole = |line: &&str| line.contains(" sub=2 psub=2 ") || line.contains(" sub=2 psub=0 ");
            listening.lines().filter(whole).count() == 2 && pair.healthy()
        })
        .await;
        pair.works().await;
    }
    // Commands likewise: the next call succeeds at once.
    let killed: i64 = redis::cmd("CLIENT").arg("KILL").arg("TYPE").arg("normal").query_async(&mut admin).await.unwrap();
    assert!(killed >= 2);
    eventually("both command again", async || pair.healthy()).await;
    pair.works().await;
}

#[tokio::test]
async fn a_silent_redis_is_noticed_and_forgiven() {
    let redis = RedisServer::start(&[]).await;
    let pair = Pair::on(&redis.config()).await;
    redis.signal(Signal::STOP);
    eventually("silence is noticed", async || !pair.server_bus.healthy() && !pair.client_bus.healthy()).await;
    redis.signal(Signal::CONT);
    eventually("it is back", async || pair.healthy()).await;
    pair.works().await;
}

#[tokio::test]
async fn what_nobody_wants_any_more_is_unsubscribed() {
    let redis = RedisServer::start(&[]).await;
    let bus = Bus::connect(&redis.config()).await.unwrap();
    let server = RpcServer::new(&bus, "EgressHandler");
    for topic in ["EG_1", "EG_2"] {
        server.serve("StopEgress", topic, Routing::Queue, ScriptedHandler::answering("")).await.unwrap();
    }
    let mut admin = redis.client().await.unwrap();
    let mut channels = async || -> Vec<String> {
        let mut channels: Vec<String> = redis::cmd("PUBSUB").arg("CHANNELS").query_async(&mut admin).await.unwrap();
        channels.sort();
        channels
    };
    assert_eq!(channels().await.len(), 4);
    server.unsubscribe("StopEgress", "EG_1").await;
    let left = ["EgressHandler|StopEgress|EG_2|RCLAIM", "EgressHandler|StopEgress|EG_2|REQ"];
    eventually("one topic is left", async || channels().await == left).await;
}

#[tokio::test]
async fn nothing_of_a_ticket_can_be_read_in_redis() {
    let redis = RedisServer::start(&[]).await;
    let bus = Bus::connect(&redis.config()).await.unwrap();
    let token = Tickets::new(&bus, TicketKey::random()).put(&ticket("canary"), Duration::from_secs(60)).await.unwrap();
    Registry::new(&bus).create(&Record::new(id("EG_1"), 7)).await.unwrap();
    let mut client = redis.client().await.unwrap();
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut client).await.unwrap();
    assert_eq!(keys.len(), 3, "ticket, record, live set: {keys:?}");
    let mut timed = 0;
    for key in &keys {
        assert!(key.starts_with("spillway:") && !key.contains(token.reveal()), "{key}");
        let dump: Vec<u8> = redis::cmd("DUMP").arg(key).query_async(&mut client).await.unwrap();
        for secret in ["canary", token.reveal(), "7880"] {
            assert!(!dump.windows(secret.len()).any(|window| window == secret.as_bytes()), "{secret} in {key}");
        }
        let left: i64 = redis::cmd("PTTL").arg(key).query_async(&mut client).await.unwrap();
        timed += i32::from(left > 0);
    }
    assert_eq!(timed, 1, "the ticket expires by itself");
}

#[tokio::test]
async fn a_password_and_a_database_are_used() {
    let redis = RedisServer::start(&["--user", "spill", "on", ">pass", "~*", "&*", "+@all"]).await;
    let config =
        RedisConfig { username: "spill".into(), password: Secret::new("pass".to_owned()), db: 3, ..redis.config() };
    let bus = Bus::connect(&config).await.unwrap();
    Registry::new(&bus).create(&Record::new(id("EG_1"), 7)).await.unwrap();
    let elsewhere = Bus::connect(&RedisConfig { db: 4, ..config.clone() }).await.unwrap();
    assert_eq!(Registry::new(&elsewhere).get(&id("EG_1")).await.unwrap(), None);
    let wrong = RedisConfig { password: Secret::new("canary".to_owned()), ..config };
    let error = Bus::connect(&wrong).await.unwrap_err();
    let message = chain(&error).to_string();
    assert!(
        message.contains("connect to redis at")
            && message.contains("authentication failed")
            && !message.contains("canary"),
        "{message}"
    );
}

#[tokio::test]
async fn a_redis_that_is_not_there_is_an_error_with_its_address() {
    let error =
        Bus::connect(&RedisConfig { address: "127.0.0.1:1".into(), ..RedisConfig::default() }).await.unwrap_err();
    assert!(error.is_transient() && chain(&error).to_string().contains("127.0.0.1:1"), "{error:?}");
    let error = Bus::connect(&RedisConfig::default()).await.unwrap_err();
    assert!(matches!(error, BusError::Settings(_)) && !error.is_transient());
}
