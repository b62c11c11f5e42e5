//! Eighty-two messages as a real livekit-server 1.13.5 and a service it accepted put them on Redis.

use prost::Message;
use serde::de::DeserializeOwned;
use serde_json::Value;
use spillway_bus::{Bus, Routing, RpcServer, names};
use spillway_protocol::livekit as lk;
use spillway_protocol::psrpc::{Body, ClaimRequest, ClaimResponse, Msg, RpcRequest, RpcResponse};
use spillway_protocol::rpc::{GetEgressRequest, StartEgressRequest, start_egress_request};

use crate::fixture::RedisServer;
use crate::scripted_handler::ScriptedHandler;

struct Captured {
    step: String,
    channel: String,
    kind: String,
    from_server: bool,
    payload: Vec<u8>,
    envelope: Value,
    body: Value,
    lock: Option<String>,
}

fn captured() -> Vec<Captured> {
    let file: Value = serde_json::from_str(include_str!("../golden-v1.13.5.json")).unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut all = Vec::new();
    for step in file["steps"].as_array().unwrap() {
        for message in step["messages"].as_array().unwrap() {
            let hex = text(&message["payload"]);
            all.push(Captured {
                step: text(&step["step"]),
                channel: text(&message["channel"]),
                kind: text(&message["type"]),
                from_server: message["sender"] == "livekit-server",
                payload: (0..hex.len())
                    .step_by(2)
                    .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
                    .collect(),
                envelope: message["envelope"].clone(),
                body: message["body"].clone(),
                lock: message["lock"].as_str().map(str::to_owned),
            });
        }
    }
    assert_eq!(all.len(), 82);
    all
}

fn open<B: Body>(captured: &Captured) -> B {
    let msg = Msg::decode(captured.payload.as_slice()).unwrap();
    assert_eq!((msg.body_name(), captured.kind.as_str()), (B::NAME, B::NAME), "{}", captured.step);
    B::decode(msg.value.as_slice()).unwrap()
}

/// As the capture spells it: numbers of 64 bits as text, what is not set left out.
fn is(value: &Value, expected: impl ToString) -> bool {
    let expected = expected.to_string();
    match value {
        Value::Null => expected.is_empty() || expected == "0" || expected == "false",
        Value::String(text) => *text == expected,
        Value::Bool(yes) => yes.to_string() == expected,
        other => panic!("{other} is new in the capture"),
    }
}

/// Decodes the bytes and compares them with the decoded form in the capture.
fn holds<M: Message + Default + DeserializeOwned + PartialEq + std::fmt::Debug>(raw: &[u8], body: &Value) {
    let expected: M =
        serde_json::from_value(if body.is_null() { Value::Object([].into_iter().collect()) } else { body.clone() })
            .unwrap();
    assert_eq!(M::decode(raw).unwrap(), expected);
}

fn holds_start(raw: &[u8], body: &Value) {
    use start_egress_request::EgressRequest as Kind;
    let start = StartEgressRequest::decode(raw).unwrap();
    assert!(is(&body["egress_id"], &start.egress_id) && is(&body["room_id"], &start.room_id));
    assert!(start.token.is_empty() && start.ws_url.is_empty());
    match start.request.unwrap() {
        Kind::RoomComposite(request) => {
            holds::<lk::RoomCompositeEgressRequest>(&request.encode_to_vec(), &body["room_composite"])
        }
        Kind::TrackComposite(request) => {
            holds::<lk::TrackCompositeEgressRequest>(&request.encode_to_vec(), &body["track_composite"])
        }
        Kind::Track(request) => holds::<lk::TrackEgressRequest>(&request.encode_to_vec(), &body["track"]),
        Kind::Web(request) => holds::<lk::WebEgressRequest>(&request.encode_to_vec(), &body["web"]),
        Kind::Participant(request) => {
            holds::<lk::ParticipantEgressRequest>(&request.encode_to_vec(), &body["participant"])
        }
        Kind::Egress(request) => holds::<lk::StartEgressRequest>(&request.encode_to_vec(), &body["egress"]),
        Kind::Replay(_) => panic!("not in the capture"),
    }
}

#[test]
fn every_captured_message_says_what_the_capture_says() {
    let mut method_of = std::collections::HashMap::new();
    for message in captured() {
        let envelope = &message.envelope;
        match message.kind.as_str() {
            "internal.Request" => {
                let request: RpcRequest = open(&message);
                assert!(
                    is(&envelope["request_id"], &request.request_id) && is(&envelope["client_id"], &request.client_id)
                );
                assert!(is(&envelope["sent_at"], request.sent_at) && is(&envelope["expiry"], request.expiry));
                assert_eq!(message.lock.as_deref(), Some(names::lock_key(&message.payload).as_str()));
                let method = message.channel.split('|').nth(1).unwrap().to_owned();
                if message.body != "undecodable" {
                    match method.as_str() {
                        "StartEgress" => holds_start(&request.raw_request, &message.body),
                        "CreateEgress" | "UpdateEgress" => holds::<lk::EgressInfo>(&request.raw_request, &message.body),
                        "StopEgress" => holds::<lk::StopEgressRequest>(&request.raw_request, &message.body),
                        "UpdateStream" => holds::<lk::UpdateStreamRequest>(&request.raw_request, &message.body),
                        "ListEgress" => holds::<lk::ListEgressRequest>(&request.raw_request, &message.body),
                        "GetEgress" => {
                            let get = GetEgressRequest::decode(request.raw_request.as_slice()).unwrap();
                            assert!(is(&message.body["egress_id"], get.egress_id));
                        }
                        other => panic!("{other} is new in the capture"),
                    }
                }
                method_of.insert(request.request_id, method);
            }
            "internal.Response" => {
                let response: RpcResponse = open(&message);
                assert!(is(&envelope["error"], &response.error) && is(&envelope["code"], &response.code));
                assert!(is(&envelope["server_id"], &response.server_id) && is(&envelope["sent_at"], response.sent_at));
                if !message.body.is_null() && response.error.is_empty() {
                    match method_of[&response.request_id].as_str() {
                        "ListEgress" => holds::<lk::ListEgressResponse>(&response.raw_response, &message.body),
                        _ => holds::<lk::EgressInfo>(&response.raw_response, &message.body),
                    }
                }
            }
            "internal.ClaimRequest" => {
                let bid: ClaimRequest = open(&message);
                assert!(is(&envelope["request_id"], &bid.request_id) && is(&envelope["server_id"], &bid.server_id));
                assert_eq!(envelope["affinity"].as_f64(), Some(f64::from(bid.affinity)));
                assert!(!bid.handling);
                // Envelope and bid have no oneof: byte for byte ours.
                assert_eq!(Msg::wrap(&bid).encode_to_vec(), message.payload);
            }
            _ => {
                let grant: ClaimResponse = open(&message);
                assert!(is(&envelope["server_id"], &grant.server_id));
                assert_eq!(Msg::wrap(&grant).encode_to_vec(), message.payload);
            }
        }
    }
}

#[tokio::test]
async fn what_the_real_server_sent_is_bid_for_and_locked_as_it_does() {
    let redis = RedisServer::start(&[]).await;
    let bus = Bus::connect(&redis.config()).await.unwrap();
    let asked: Vec<_> =
        captured().into_iter().filter(|message| message.from_server && message.kind == RpcRequest::NAME).collect();
    assert_eq!(asked.len(), 9);
    let (internal, handler) = (RpcServer::new(&bus, "EgressInternal"), RpcServer::new(&bus, "EgressHandler"));
    let scripted = ScriptedHandler::answering("served");
    internal.serve("StartEgress", "", Routing::Affinity, scripted.clone()).await.unwrap();
    handler.serve_pattern("StopEgress", Routing::Queue, scripted.clone()).await.unwrap();
    handler.serve_pattern("UpdateStream", Routing::Queue, scripted.clone()).await.unwrap();
    let mut replies = bus.tap("*|CLI_*").await.unwrap();
    let mut keys = redis.client().await.unwrap();
    for message in &asked {
        let request: RpcRequest = open(message);
        bus.publish(&message.channel, message.payload.clone().into()).await.unwrap();
        let service = message.channel.split('|').next().unwrap();
        let heard = replies.next().await.unwrap();
        assert_eq!(heard.channel, format!("{service}|{}|CLAIM", request.client_id));
        let bid = ClaimRequest::decode(Msg::decode(heard.payload).unwrap().value.as_slice()).unwrap();
        assert_eq!((bid.request_id.as_str(), bid.affinity), (request.request_id.as_str(), 1.0));
        let grant = ClaimResponse { request_id: bid.request_id, server_id: bid.server_id };
        let channel = message.channel.replace("|REQ", "|RCLAIM");
        bus.publish(&channel, Msg::wrap(&grant).encode_to_vec().into()).await.unwrap();
        assert_eq!(replies.next().await.unwrap().channel, format!("{service}|{}|RES", request.client_id));
        let locked: Option<i64> =
            redis::cmd("GET").arg(names::lock_key(&message.payload)).query_async(&mut keys).await.unwrap();
        assert_eq!(locked.is_some(), service == "EgressHandler", "{}", message.step);
    }
    let heard: Vec<_> = scripted.granted().iter().map(|call| call.request.to_vec()).collect();
    let sent: Vec<_> = asked.iter().map(|message| open::<RpcRequest>(message).raw_request).collect();
    assert_eq!(heard, sent, "handed on as received");
}
