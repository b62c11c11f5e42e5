//! One StartEgress, CreateEgress, StopEgress and ListActiveEgress, byte for byte, as another protobuf library wrote them.
#![allow(clippy::unwrap_used, reason = "a test's helpers are tests")]

use std::collections::BTreeMap;

use prost::Message;
use spillway_protocol::livekit as lk;
use spillway_protocol::psrpc::{Body, ClaimRequest, ClaimResponse, Msg, RpcRequest, RpcResponse};
use spillway_protocol::rpc::{ListActiveEgressResponse, StartEgressRequest, start_egress_request};

const SENT: i64 = 1_767_225_600_000_000_000;
const MS: i64 = 1_000_000;

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn payloads() -> BTreeMap<&'static str, Vec<u8>> {
    include_str!("worked-example.txt")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let mut message = line.split(' ');
            let (name, _channel, payload) = (message.next().unwrap(), message.next().unwrap(), message.next().unwrap());
            (name, unhex(payload))
        })
        .collect()
}

fn assert_is<B: Body + PartialEq + std::fmt::Debug>(name: &str, body: B) {
    let expected = &payloads()[name];
    assert_eq!(&Msg::wrap(&body).encode_to_vec(), expected, "{name} written");
    let msg = Msg::decode(expected.as_slice()).unwrap();
    assert_eq!(msg.body_name(), B::NAME);
    assert_eq!(B::decode(msg.value.as_slice()).unwrap(), body, "{name} read");
}

fn composite() -> lk::RoomCompositeEgressRequest {
    lk::RoomCompositeEgressRequest {
        room_name: "demo-room".into(),
        layout: "speaker".into(),
        file_outputs: vec![lk::EncodedFileOutput {
            file_type: lk::EncodedFileType::Mp4 as i32,
            filepath: "rec/{room_name}.mp4".into(),
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn start() -> StartEgressRequest {
    StartEgressRequest {
        egress_id: "EG_4VtJq7KmZ2xY".into(),
        room_id: "RM_9bQwErTyUp3a".into(),
        request: Some(start_egress_request::EgressRequest::RoomComposite(composite())),
        ..Default::default()
    }
}

fn info() -> lk::EgressInfo {
    lk::EgressInfo {
        egress_id: "EG_4VtJq7KmZ2xY".into(),
        room_id: "RM_9bQwErTyUp3a".into(),
        room_name: "demo-room".into(),
        started_at: SENT + 20 * MS,
        updated_at: SENT + 20 * MS,
        request: Some(lk::egress_info::Request::RoomComposite(composite())),
        ..Default::default()
    }
}

/// Times in the example are the writer's own; they are taken from the bytes, everything else is ours.
fn sent_at(name: &str) -> i64 {
    let msg = Msg::decode(payloads()[name].as_slice()).unwrap();
    match msg.body_name() {
        "internal.Request" => RpcRequest::decode(msg.value.as_slice()).unwrap().sent_at,
        _ => RpcResponse::decode(msg.value.as_slice()).unwrap().sent_at,
    }
}

fn request(name: &str, request_id: &str, client_id: &str, seconds: i64, raw_request: Vec<u8>) -> RpcRequest {
    let sent_at = sent_at(name);
    RpcRequest {
        request_id: request_id.into(),
        client_id: client_id.into(),
        sent_at,
        expiry: sent_at + seconds * 1_000 * MS,
        raw_request,
        ..Default::default()
    }
}

fn response(name: &str, request_id: &str, server_id: &str, raw_response: Vec<u8>) -> RpcResponse {
    RpcResponse {
        request_id: request_id.into(),
        server_id: server_id.into(),
        sent_at: sent_at(name),
        raw_response,
        ..Default::default()
    }
}

#[test]
fn a_start_egress_call_is_what_the_example_says() {
    assert_eq!(sent_at("M1"), SENT);
    assert_is("M1", request("M1", "REQ_aB3dEfGh1jKm", "CLI_Zx9yWv8uTs7r", 10, start().encode_to_vec()));
    let claim = |server_id: &str, affinity| ClaimRequest {
        request_id: "REQ_aB3dEfGh1jKm".into(),
        server_id: server_id.into(),
        affinity,
        handling: false,
    };
    assert_is("M2", claim("SRV_Aa1Bb2Cc3Dd4", 1.0));
    assert_is("M2b", claim("SRV_Ee5Ff6Gg7Hh8", 0.5));
    assert_is("M3", ClaimResponse { request_id: "REQ_aB3dEfGh1jKm".into(), server_id: "SRV_Aa1Bb2Cc3Dd4".into() });
    assert_is("M8", response("M8", "REQ_aB3dEfGh1jKm", "SRV_Aa1Bb2Cc3Dd4", info().encode_to_vec()));
    assert_is(
        "M8e",
        RpcResponse {
            error: "no capacity".into(),
            code: "resource_exhausted".into(),
            ..response("M8e", "REQ_aB3dEfGh1jKm", "SRV_Aa1Bb2Cc3Dd4", vec![])
        },
    );
}

#[test]
fn a_create_egress_call_is_what_the_example_says() {
    assert_is("M4", request("M4", "REQ_Nn1Oo2Pp3Qq4", "CLI_Rr5Ss6Tt7Uu8", 15, info().encode_to_vec()));
    assert_is(
        "M5",
        ClaimRequest {
            request_id: "REQ_Nn1Oo2Pp3Qq4".into(),
            server_id: "SRV_Vv9Ww8Xx7Yy6".into(),
            affinity: 1.0,
            handling: false,
        },
    );
    assert_is("M6", ClaimResponse { request_id: "REQ_Nn1Oo2Pp3Qq4".into(), server_id: "SRV_Vv9Ww8Xx7Yy6".into() });
    assert_is("M7", response("M7", "REQ_Nn1Oo2Pp3Qq4", "SRV_Vv9Ww8Xx7Yy6", vec![]));
}

#[test]
fn stop_and_list_are_what_the_example_says() {
    let stop = lk::StopEgressRequest { egress_id: "EG_4VtJq7KmZ2xY".into() }.encode_to_vec();
    assert_is("M9", request("M9", "REQ_st0pAAAABBBB", "CLI_Hh1Jj2Kk3Ll4", 3, stop));
    assert_is("M10", RpcRequest { multi: true, ..request("M10", "REQ_L1stAAAABBBB", "CLI_Zx9yWv8uTs7r", 3, vec![]) });
    let list = ListActiveEgressResponse { egress_ids: vec!["EG_4VtJq7KmZ2xY".into()] }.encode_to_vec();
    assert_is("M11", response("M11", "REQ_L1stAAAABBBB", "SRV_Aa1Bb2Cc3Dd4", list));
    assert_is("M11b", response("M11b", "REQ_L1stAAAABBBB", "SRV_Ee5Ff6Gg7Hh8", vec![]));
}

#[test]
fn a_newer_senders_extra_fields_change_nothing() {
    let mut newer = payloads()["M3"].clone();
    newer.extend(unhex("1a125374617274456772657373").iter());
    newer.extend(b".RCLAIM");
    // A field of the far future, number 100.
    newer.extend([0xa2, 0x06, 0x03]);
    newer.extend(b"new");
    let msg = Msg::decode(newer.as_slice()).unwrap();
    assert_eq!(msg.channel, "StartEgress.RCLAIM");
    assert_eq!(ClaimResponse::decode(msg.value.as_slice()).unwrap().server_id, "SRV_Aa1Bb2Cc3Dd4");
    let bare = Msg { type_url: "internal.Request".into(), ..Msg::default() };
    assert_eq!(bare.body_name(), "internal.Request");
}
