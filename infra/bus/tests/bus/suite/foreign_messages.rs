//! Messages of other senders: malformed, newer, with clocks that are wrong.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use prost::Message;
use spillway_bus::testing::Tap;
use spillway_bus::{AffinityOptions, Bid, Bus, CallOptions, Routing, RpcClient, RpcServer};
use spillway_protocol::Code;
use spillway_protocol::psrpc::{ClaimRequest, ClaimResponse, Msg, RpcRequest, RpcResponse};
use tracing_subscriber::fmt::MakeWriter;

use crate::fixture::Fixture;
use crate::scripted_handler::ScriptedHandler;

const SECOND: i64 = 1_000_000_000;
const CALLS: &str = "EgressInternal|StartEgress|REQ";

/// A caller that publishes any payload.
struct RawClient {
    bus: Bus,
    heard: Tap,
}

impl RawClient {
    async fn new(bus: Bus) -> Self {
        let heard = bus.tap("EgressInternal|CLI_raw|*").await.unwrap();
        Self { bus, heard }
    }

    fn request(id: &str, sent_at: i64, seconds: i64) -> RpcRequest {
        RpcRequest {
            request_id: id.into(),
            client_id: "CLI_raw".into(),
            sent_at,
            expiry: sent_at + seconds * SECOND,
            ..RpcRequest::default()
        }
    }

    /// Grants the next bid and returns the answer to it.
    async fn grant(&mut self) -> RpcResponse {
        let bid: ClaimRequest = self.next().await;
        let grant = ClaimResponse { request_id: bid.request_id, server_id: bid.server_id };
        let payload = Msg::wrap(&grant).encode_to_vec();
        self.bus.publish("EgressInternal|StartEgress|RCLAIM", payload.into()).await.unwrap();
        self.next().await
    }

    async fn next<B: Message + Default>(&mut self) -> B {
        let heard = tokio::time::timeout(Duration::from_secs(10), self.heard.next()).await;
        let heard = heard.expect("a message comes").unwrap();
        B::decode(Msg::decode(heard.payload).unwrap().value.as_slice()).unwrap()
    }
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as i64
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Log;

    fn make_writer(&self) -> Log {
        self.clone()
    }
}

pub async fn a_malformed_message_is_logged_once_and_the_next_call_is_served(fixture: &impl Fixture) {
    let log = Log::default();
    let _guard = tracing::subscriber::set_default(tracing_subscriber::fmt().with_writer(log.clone()).finish());
    let bus = fixture.bus().await;
    let server = RpcServer::new(&bus, "EgressInternal");
    server.serve("StartEgress", "", Routing::Affinity, ScriptedHandler::answering("served")).await.unwrap();
    let other = fixture.bus().await;
    let wrong_kind = Msg::wrap(&RpcResponse::default()).encode_to_vec();
    let unknown_kind =
        Msg { type_url: "type.googleapis.com/internal.Novelty".into(), ..Msg::default() }.encode_to_vec();
    let packed =
        Msg { compression: Msg::GZIP, value: vec![1, 2, 3], ..Msg::wrap(&RpcRequest::default()) }.encode_to_vec();
    for payload in [vec![], vec![0xff; 3], wrong_kind, unknown_kind, packed, vec![0; 100_000]] {
        for channel in [CALLS, "EgressInternal|StartEgress|RCLAIM"] {
            other.publish(channel, Bytes::from(payload.clone())).await.unwrap();
        }
    }
    let client = RpcClient::new(&other, "EgressInternal");
    let answer = client.call_by_affinity("StartEgress", "", vec![], &AffinityOptions::start_egress()).await.unwrap();
    assert_eq!(&answer[..], b"served");
    let said = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert_eq!(said.matches("cannot be read").count(), 1, "{said}");
}

pub async fn what_newer_senders_add_changes_nothing(fixture: &impl Fixture) {
    let bus = fixture.bus().await;
    let (server, scripted) = (RpcServer::new(&bus, "EgressInternal"), ScriptedHandler::answering("served"));
    server.serve("StartEgress", "", Routing::Affinity, scripted.clone()).await.unwrap();
    let mut raw_client = RawClient::new(fixture.bus().await).await;
    // Request 9 and 10 (skip_claim), 100 (of a later version), a channel in the envelope, no usual prefix, gzip.
    let mut inner = RawClient::request("REQ_new", now(), 5);
    inner.metadata.insert("traceparent".into(), "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into());
    inner.raw_request = b"body".to_vec();
    let mut value = inner.encode_to_vec();
    value.extend([0x48, 1, 0x50, 1, 0xa2, 0x06, 3, b'n', b'e', b'w']);
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    packer.write_all(&value).unwrap();
    for (value, compression) in [(value.clone(), Msg::PLAIN), (packer.finish().unwrap(), Msg::GZIP)] {
        let channel = "StartEgress.REQ".to_owned();
        let msg = Msg { type_url: "internal.Request".into(), value, channel, compression };
        raw_client.bus.publish(CALLS, msg.encode_to_vec().into()).await.unwrap();
        let answer = raw_client.grant().await;
        assert_eq!((answer.request_id.as_str(), answer.raw_response.as_slice()), ("REQ_new", b"served".as_slice()));
    }
    let heard = scripted.granted();
    assert_eq!(heard.len(), 2);
    assert!(heard.iter().all(|call| &call.request[..] == b"body" && call.metadata.contains_key("traceparent")));
}

pub async fn a_request_nobody_can_read_is_refused_without_a_bid(fixture: &impl Fixture) {
    let bus = fixture.bus().await;
    let server = RpcServer::new(&bus, "EgressInternal");
    let scripted = ScriptedHandler::bidding(Bid::Malformed("proto: cannot parse".into()), "");
    server.serve("StartEgress", "", Routing::Affinity, scripted.clone()).await.unwrap();
    let client = RpcClient::new(&fixture.bus().await, "EgressInternal");
    let options = AffinityOptions::start_egress().selection(Duration::from_millis(300));
    let error = client.call_by_affinity("StartEgress", "", vec![0xff], &options).await.unwrap_err();
    assert_eq!((error.code, error.message.as_str()), (Code::MalformedRequest, "proto: cannot parse"));
    assert!(scripted.granted().is_empty());
}

pub async fn time_allowed_counts_from_receipt(fixture: &impl Fixture) {
    let bus = fixture.bus().await;
    let (server, scripted) = (RpcServer::new(&bus, "EgressInternal"), ScriptedHandler::answering("served"));
    server.serve("StartEgress", "", Routing::Affinity, scripted.clone()).await.unwrap();
    let mut raw_client = RawClient::new(fixture.bus().await).await;
    let say = async |raw_client: &RawClient, request: RpcRequest| {
        let payload = Msg::wrap(&request).encode_to_vec();
        raw_client.bus.publish(CALLS, payload.into()).await.unwrap();
    };
    // Without any time left, and with less: no answer is expected.
    say(&raw_client, RawClient::request("REQ_none", now(), 0)).await;
    say(&raw_client, RawClient::request("REQ_less", now(), -5)).await;
    // Clocks an hour apart, both ways.
    for (id, sent_at) in [("REQ_behind", now() - 3600 * SECOND), ("REQ_ahead", now() + 3600 * SECOND)] {
        say(&raw_client, RawClient::request(id, sent_at, 5)).await;
        assert_eq!(raw_client.grant().await.request_id, id);
    }
    let heard: Vec<_> =
        scripted.granted().into_iter().map(|call| (call.request_id, call.time_allowed.as_secs())).collect();
    assert_eq!(heard, [("REQ_behind".to_owned(), 5), ("REQ_ahead".to_owned(), 5)]);
}

pub async fn a_reader_that_never_reads_holds_up_nobody(fixture: &impl Fixture) {
    let bus = fixture.bus().await;
    let _never_read = bus.tap("EgressInternal|*").await.unwrap();
    let server = RpcServer::new(&bus, "EgressInternal");
    server.serve("StartEgress", "", Routing::Affinity, ScriptedHandler::answering("served")).await.unwrap();
    let other = fixture.bus().await;
    for _ in 0..6000 {
        other.publish("EgressInternal|nobody|RES", Bytes::from_static(b"noise")).await.unwrap();
    }
    let client = RpcClient::new(&other, "EgressInternal");
    client.call_by_affinity("StartEgress", "", vec![], &AffinityOptions::start_egress()).await.unwrap();
}

pub async fn an_announcement_needs_no_grant(fixture: &impl Fixture) {
    let (here, there) = (fixture.bus().await, fixture.bus().await);
    let mut calls = there.tap("IOInfo|CreateEgress|*").await.unwrap();
    let client = RpcClient::new(&here, "IOInfo");
    let caller = client.clone();
    let call = tokio::spawn(async move { caller.call("CreateEgress", "", vec![], &CallOptions::queue()).await });
    let heard = calls.next().await.unwrap();
    let request = RpcRequest::decode(Msg::decode(heard.payload).unwrap().value.as_slice()).unwrap();
    let (request_id, server_id) = (request.request_id, "SRV_new".to_owned());
    let bid =
        ClaimRequest { request_id: request_id.clone(), server_id: server_id.clone(), affinity: 1.0, handling: true };
    let answer = RpcResponse { request_id, server_id, raw_response: b"handled".to_vec(), ..RpcResponse::default() };
    let to = |kind| format!("IOInfo|{}|{kind}", client.client_id());
    there.publish(&to("CLAIM"), Msg::wrap(&bid).encode_to_vec().into()).await.unwrap();
    there.publish(&to("RES"), Msg::wrap(&answer).encode_to_vec().into()).await.unwrap();
    assert_eq!(&call.await.unwrap().unwrap()[..], b"handled");
    there.publish("IOInfo|CreateEgress|end", "end".into()).await.unwrap();
    assert_eq!(calls.next().await.unwrap().payload, "end", "a grant was published");
}
