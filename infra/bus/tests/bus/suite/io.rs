//! Reports to livekit-server and their retries.

use std::sync::Mutex;
use std::time::Duration;

use prost::Message;
use spillway_bus::{Bid, IoClient, Routing, RpcServer};
use spillway_protocol::livekit::EgressInfo;
use spillway_protocol::psrpc::{Msg, RpcRequest};
use spillway_protocol::{Code, RpcError};
use tokio::time::Instant;

use crate::fixture::Fixture;
use crate::scripted_handler::{ScriptedAnswer, ScriptedHandler};

const TIMEOUT: Duration = Duration::from_secs(20);

fn info() -> EgressInfo {
    EgressInfo { egress_id: "EG_1".into(), room_name: "demo-room".into(), ..EgressInfo::default() }
}

pub async fn a_call_nobody_hears_is_made_again(fixture: &impl Fixture) {
    let (here, there) = (fixture.bus().await, fixture.bus().await);
    let mut calls = there.tap("IOInfo|CreateEgress|REQ").await.unwrap();
    let io = IoClient::new(&here);
    let call = tokio::spawn(async move {
        io.create_egress(&info(), TIMEOUT).await?;
        io.update_egress(&info(), TIMEOUT).await
    });
    let id =
        |payload: bytes::Bytes| RpcRequest::decode(Msg::decode(payload).unwrap().value.as_slice()).unwrap().request_id;
    // No livekit-server hears the first; one comes up after it.
    let first = id(calls.next().await.unwrap().payload);
    let (server, scripted) = (RpcServer::new(&there, "IOInfo"), ScriptedHandler::answering(""));
    server.serve("CreateEgress", "", Routing::Queue, scripted.clone()).await.unwrap();
    server.serve("UpdateEgress", "", Routing::Queue, scripted.clone()).await.unwrap();
    let second = id(calls.next().await.unwrap().payload);
    assert_ne!(first, second, "the lock of the first would keep everybody silent");
    call.await.unwrap().unwrap();
    let heard: Vec<_> = scripted.granted().into_iter().map(|call| (call.method, call.request)).collect();
    let sent = info().encode_to_vec();
    assert_eq!(heard, [("CreateEgress".to_owned(), sent.clone().into()), ("UpdateEgress".to_owned(), sent.into())]);
}

/// livekit-server sends `egress_started` for each CreateEgress.
pub async fn what_livekit_server_knows_is_not_created_again(fixture: &impl Fixture) {
    let bus = fixture.bus().await;
    let io = IoClient::new(&bus);
    let created = ScriptedHandler::answering("");
    let server = RpcServer::new(&bus, "IOInfo");
    server.serve("CreateEgress", "", Routing::Queue, created.clone()).await.unwrap();
    // An empty answer is an EgressInfo.
    server.serve("GetEgress", "", Routing::Queue, ScriptedHandler::answering("")).await.unwrap();
    io.ensure_egress(&info(), TIMEOUT).await.unwrap();
    assert_eq!(created.granted().len(), 0);
    server.unsubscribe("GetEgress", "").await;
    let unknown = ScriptedAnswer::Refusal(Mutex::new(RpcError::new(Code::NotFound, "egress not found")));
    let asked = ScriptedHandler::new(Bid::Now(1.0), unknown);
    server.serve("GetEgress", "", Routing::Queue, asked).await.unwrap();
    io.ensure_egress(&info(), TIMEOUT).await.unwrap();
    assert_eq!(created.granted().len(), 1);
}

pub async fn the_timeout_ends_and_a_refusal_is_final(fixture: &impl Fixture) {
    let bus = fixture.bus().await;
    let io = IoClient::new(&bus);
    let began = Instant::now();
    let error = io.create_egress(&info(), Duration::from_millis(300)).await.unwrap_err();
    assert!(matches!(error.code, Code::Unavailable | Code::DeadlineExceeded), "{error:?}");
    assert!(began.elapsed() < Duration::from_secs(5));
    let refusal = RpcError::new(Code::InvalidArgument, "no such thing");
    let scripted = ScriptedHandler::new(Bid::Now(1.0), ScriptedAnswer::Refusal(Mutex::new(refusal.clone())));
    let server = RpcServer::new(&bus, "IOInfo");
    server.serve("UpdateEgress", "", Routing::Queue, scripted.clone()).await.unwrap();
    assert_eq!(io.update_egress(&info(), TIMEOUT).await, Err(refusal));
    assert_eq!(scripted.granted().len(), 1);
}
