//! TLS, Sentinel and Cluster, each with servers of the test's own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use spillway_bus::config::TlsConfig;
use spillway_bus::{
    Bus, CallOptions, Heartbeat, Heartbeats, ProbeCause, Record, RedisConfig, Registry, Routing, RpcClient, RpcServer,
    Taker, TicketKey, Tickets,
};
use spillway_process::chain;
use spillway_protocol::Secret;
use tempfile::TempDir;

use crate::fixture::{RedisServer, eventually, free_port};
use crate::scripted_handler::ScriptedHandler;
use crate::suite::keys::{id, ticket};

/// A certificate authority with the certificates it signed, and another authority.
struct Certificates {
    home: TempDir,
}

impl Certificates {
    fn issue() -> Self {
        let certificates = Self { home: tempfile::tempdir().unwrap() };
        for authority in ["ca", "other_ca"] {
            let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.distinguished_name.push(DnType::CommonName, authority);
            let key = KeyPair::generate().unwrap();
            certificates.write(&format!("{authority}.crt"), "CERTIFICATE", params.self_signed(&key).unwrap().der());
            if authority == "ca" {
                let issuer = Issuer::new(params, key);
                for (name, host) in [("server", "redis.test"), ("client", "client.test")] {
                    let key = KeyPair::generate().unwrap();
                    let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
                    // A leaf of the same name as its authority counts as signed by itself.
                    params.distinguished_name.push(DnType::CommonName, host);
                    let leaf = params.signed_by(&key, &issuer).unwrap();
                    certificates.write(&format!("{name}.crt"), "CERTIFICATE", leaf.der());
                    certificates.write(&format!("{name}.key"), "PRIVATE KEY", key.serialized_der());
                }
            }
        }
        certificates
    }

    fn write(&self, name: &str, kind: &str, der: &[u8]) {
        let text = STANDARD.encode(der);
        let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
        let pem = format!("-----BEGIN {kind}-----\n{}\n-----END {kind}-----\n", lines.join("\n"));
        std::fs::write(self.path(name), pem).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }
}

async fn serves_and_keeps(config: &RedisConfig) {
    let (here, there) = (Bus::connect(config).await.unwrap(), Bus::connect(config).await.unwrap());
    let server = RpcServer::new(&here, "EgressHandler");
    server.serve_pattern("StopEgress", Routing::Queue, ScriptedHandler::answering("stopped")).await.unwrap();
    let client = RpcClient::new(&there, "EgressHandler");
    assert_eq!(&client.call("StopEgress", "EG_1", vec![], &CallOptions::queue()).await.unwrap()[..], b"stopped");
    let registry = Registry::new(&here);
    for at in 0..20 {
        registry.create(&Record::new(id(&format!("EG_{at}")), at)).await.unwrap();
    }
    assert_eq!(Registry::new(&there).list_live().await.unwrap().len(), 20);
    let tickets = Tickets::new(&here, TicketKey::random());
    let token = tickets.put(&ticket("secret"), Duration::from_secs(60)).await.unwrap();
    assert!(tickets.take(&id("EG_1"), &token, &Taker::random()).await.unwrap().is_some());
    assert!(tickets.take(&id("EG_1"), &token, &Taker::random()).await.unwrap().is_none());
    let beats = Heartbeats::new(&here);
    beats.beat(&id("EG_1"), 1, &Heartbeat::default(), Duration::from_secs(60)).await.unwrap();
    assert!(Heartbeats::new(&there).last(&id("EG_1")).await.unwrap().is_some());
}

#[tokio::test]
async fn tls_with_an_authority_a_name_and_a_certificate_of_our_own() {
    let certificates = Certificates::issue();
    let text = |path: PathBuf| path.to_str().unwrap().to_owned();
    let redis = RedisServer::spawn(|port, _| {
        let mut args = vec!["--port".into(), "0".into(), "--tls-port".into(), port.to_string()];
        args.extend(["--tls-cert-file".into(), text(certificates.path("server.crt"))]);
        args.extend(["--tls-key-file".into(), text(certificates.path("server.key"))]);
        args.extend(["--tls-ca-cert-file".into(), text(certificates.path("ca.crt"))]);
        args.extend(["--tls-auth-clients".into(), "yes".into()]);
        args
    });
    let config = RedisConfig {
        tls: TlsConfig {
            enabled: true,
            server_name: "redis.test".into(),
            ca_cert_file: Some(certificates.path("ca.crt")),
            client_cert_file: Some(certificates.path("client.crt")),
            client_key_file: Some(certificates.path("client.key")),
            ..TlsConfig::default()
        },
        ..redis.config()
    };
    eventually("redis answers", async || Bus::connect(&config).await.is_ok()).await;
    serves_and_keeps(&config).await;
    let refused = async |change: &dyn Fn(&mut TlsConfig)| {
        let mut config = config.clone();
        change(&mut config.tls);
        chain(&Bus::connect(&config).await.unwrap_err()).to_string()
    };
    let message = refused(&|tls| tls.server_name = String::new()).await;
    assert!(message.contains("certificate"), "no such name in it: {message}");
    let message = refused(&|tls| tls.ca_cert_file = Some(certificates.path("other_ca.crt"))).await;
    assert!(message.contains("certificate"), "of another authority: {message}");
    let message = refused(&|tls| tls.ca_cert_file = Some(certificates.path("none.crt"))).await;
    assert!(message.contains("none.crt"), "{message}");
    refused(&|tls| (tls.client_cert_file, tls.client_key_file) = (None, None)).await;
    let plain = RedisConfig { tls: TlsConfig::default(), ..config.clone() };
    for wrong in
        [plain, RedisConfig { tls: TlsConfig { server_name: String::new(), ..config.tls.clone() }, ..config.clone() }]
    {
        let error = Bus::connect(&wrong).await.unwrap_err();
        assert_eq!(error.probe_cause(), ProbeCause::RedisTls, "{}", chain(&error));
    }
    let mut insecure = config.clone();
    insecure.tls = TlsConfig { insecure: true, ca_cert_file: None, server_name: String::new(), ..insecure.tls };
    assert!(Bus::connect(&insecure).await.is_ok());
}

#[tokio::test]
async fn a_connection_that_fails_has_a_cause() {
    let redis = RedisServer::spawn(|port, _| {
        ["--port".to_owned(), port.to_string(), "--requirepass".to_owned(), "right".to_owned()].to_vec()
    });
    let with = |password: &str| RedisConfig { password: Secret::new(password.to_owned()), ..redis.config() };
    eventually("redis answers", async || Bus::connect(&with("right")).await.is_ok()).await;
    let tls = TlsConfig { enabled: true, insecure: true, ..TlsConfig::default() };
    let nobody = RedisConfig { address: format!("127.0.0.1:{}", free_port()), ..RedisConfig::default() };
    for (config, cause) in [
        (with("wrong"), ProbeCause::RedisLogin),
        (with(""), ProbeCause::RedisLogin),
        (nobody, ProbeCause::RedisUnreachable),
        (RedisConfig { tls, dial_timeout: 500, ..with("right") }, ProbeCause::RedisTls),
    ] {
        let error = Bus::connect(&config).await.unwrap_err();
        assert_eq!(error.probe_cause(), cause, "{}", chain(&error));
    }
    let unknown = RedisConfig { address: "redis.invalid:6379".to_owned(), ..RedisConfig::default() };
    let cause = Bus::connect(&unknown).await.unwrap_err().probe_cause();
    // A machine without a name server cannot tell.
    assert!(matches!(cause, ProbeCause::NameNotFound | ProbeCause::NameServerSilent), "{cause:?}");
}

#[tokio::test]
async fn the_master_is_the_one_the_sentinels_name() {
    let mut master = RedisServer::start(&[]).await;
    let replica = RedisServer::start(&["--replicaof", "127.0.0.1", &master.port.to_string()]).await;
    let sentinel = RedisServer::spawn(|port, home: &Path| {
        let file = home.join("sentinel.conf");
        let message = format!(
            "port {port}\nsentinel monitor ours 127.0.0.1 {} 1\nsentinel down-after-milliseconds ours 500\n\
             sentinel failover-timeout ours 2000\n",
            master.port
        );
        std::fs::write(&file, message).unwrap();
        vec![file.to_str().unwrap().into(), "--sentinel".into()]
    });
    let config = RedisConfig {
        sentinel_master_name: "ours".into(),
        // The first is not there.
        sentinel_addresses: vec!["127.0.0.1:1".into(), sentinel.address()],
        ..RedisConfig::default()
    };
    eventually("the sentinel knows the master", async || Bus::connect(&config).await.is_ok()).await;
    serves_and_keeps(&config).await;
    let unknown = RedisConfig { sentinel_master_name: "theirs".into(), ..config.clone() };
    assert!(chain(&Bus::connect(&unknown).await.unwrap_err()).to_string().contains("theirs"));

    let (here, there) = (Bus::connect(&config).await.unwrap(), Bus::connect(&config).await.unwrap());
    let server = RpcServer::new(&here, "EgressHandler");
    server.serve_pattern("StopEgress", Routing::Queue, ScriptedHandler::answering("stopped")).await.unwrap();
    let client = RpcClient::new(&there, "EgressHandler");
    client.listen().await.unwrap();
    let sentinel_knows_the_replica = async || {
        let mut asked = sentinel.client().await.unwrap();
        let replicas: Vec<redis::Value> =
            redis::cmd("SENTINEL").arg("replicas").arg("ours").query_async(&mut asked).await.unwrap();
        let mut replica = replica.client().await.unwrap();
        let info: String = redis::cmd("INFO").arg("replication").query_async(&mut replica).await.unwrap();
        !replicas.is_empty() && info.contains("master_link_status:up")
    };
    eventually("the replica is in step and known", sentinel_knows_the_replica).await;
    master.kill();
    eventually("the loss is noticed", async || !here.healthy() && !there.healthy()).await;
    eventually("the replica has become the master", async || here.healthy() && there.healthy()).await;
    assert_eq!(&client.call("StopEgress", "EG_1", vec![], &CallOptions::queue()).await.unwrap()[..], b"stopped");
    assert_eq!(Registry::new(&here).list_live().await.unwrap().len(), 20);
    assert!(Registry::new(&there).forget(&id("EG_1")).await.is_ok(), "it can be written to");
}

#[tokio::test]
async fn a_cluster_of_three_is_one_bus() {
    let servers: Vec<(RedisServer, u16)> = (0..3)
        .map(|_| {
            let bus_port = free_port();
            let server = RedisServer::spawn(|port, _| {
                ["--port", &port.to_string(), "--cluster-enabled", "yes", "--cluster-port", &bus_port.to_string()]
                    .map(str::to_owned)
                    .to_vec()
            });
            (server, bus_port)
        })
        .collect();
    let ranges = [(0, 5460), (5461, 10922), (10923, 16383)];
    for (at, (server, _)) in servers.iter().enumerate() {
        eventually("redis answers", async || server.client().await.is_some()).await;
        let mut client = server.client().await.unwrap();
        let cluster = |message: Vec<String>| {
            let mut cmd = redis::cmd("CLUSTER");
            cmd.arg(message);
            cmd
        };
        let (first, last) = ranges[at];
        let slots = vec!["ADDSLOTSRANGE".into(), first.to_string(), last.to_string()];
        cluster(slots).query_async::<()>(&mut client).await.unwrap();
        let (other, bus_port) = &servers[(at + 1) % 3];
        let meet = vec!["MEET".into(), "127.0.0.1".into(), other.port.to_string(), bus_port.to_string()];
        cluster(meet).query_async::<()>(&mut client).await.unwrap();
    }
    for (server, _) in &servers {
        let mut client = server.client().await.unwrap();
        eventually("the cluster stands", async || {
            let info: String = redis::cmd("CLUSTER").arg("INFO").query_async(&mut client).await.unwrap();
            info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")
        })
        .await;
    }
    let config = RedisConfig {
        // One address is not there; commands and subscriptions go to different servers.
        cluster_addresses: ["127.0.0.1:1".to_owned()]
            .into_iter()
            .chain(servers.iter().map(|(s, _)| s.address()))
            .collect(),
        ..RedisConfig::default()
    };
    serves_and_keeps(&config).await;
    for (server, _) in &servers {
        let mut client = server.client().await.unwrap();
        let keys: i64 = redis::cmd("DBSIZE").query_async(&mut client).await.unwrap();
        assert!(keys > 0, "every server keeps some of it");
    }
}
