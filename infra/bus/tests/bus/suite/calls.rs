//! Calls of psrpc: bids, grants, answers, errors.

use std::sync::Mutex;
use std::time::Duration;

use spillway_bus::{AffinityOptions, Bid, CallOptions, Routing, RpcClient, RpcServer};
use spillway_protocol::{Code, RpcError};
use tokio::time::Instant;

use crate::fixture::{Fixture, eventually};
use crate::scripted_handler::{ScriptedAnswer, ScriptedHandler};

const MS: Duration = Duration::from_millis(1);
const INTERNAL: &str = "EgressInternal";
const HANDLER: &str = "EgressHandler";

pub async fn a_call_is_bid_for_granted_and_answered(fixture: &impl Fixture) {
    let (here, there) = (fixture.bus().await, fixture.bus().await);
    let (server, scripted) = (RpcServer::new(&here, HANDLER), ScriptedHandler::answering("done"));
    server.serve("StopEgress", "EG_1", Routing::Queue, scripted.clone()).await.unwrap();
    let client = RpcClient::new(&there, HANDLER);
    let answer = client.call("StopEgress", "EG_1", b"please".to_vec(), &CallOptions::queue()).await.unwrap();
    assert_eq!(&answer[..], b"done");
    let heard = scripted.granted();
    assert_eq!(heard.len(), 1);
    assert_eq!((heard[0].method.as_str(), heard[0].topic.as_str()), ("StopEgress", "EG_1"));
    assert_eq!(&heard[0].request[..], b"please");
    assert_eq!(heard[0].client_id, client.client_id());
    assert!(heard[0].time_allowed > 2900 * MS && heard[0].time_allowed <= 3000 * MS, "{heard:?}");
    assert!(server.serve("StopEgress", "EG_1", Routing::Queue, scripted).await.is_err(), "served twice");
}

pub async fn a_bid_of_one_wins_at_once_and_a_higher_one_over_a_lower(fixture: &impl Fixture) {
    let bus = fixture.bus().await;
    let client = RpcClient::new(&fixture.bus().await, INTERNAL);
    let servers = [RpcServer::new(&bus, INTERNAL), RpcServer::new(&bus, INTERNAL), RpcServer::new(&bus, INTERNAL)];
    for (server, affinity, message) in [(&servers[0], 0.5, "half"), (&servers[1], 0.7, "more")] {
        let scripted = ScriptedHandler::bidding(Bid::Now(affinity), message);
        server.serve("StartEgress", "", Routing::Affinity, scripted).await.unwrap();
    }
    let began = Instant::now();
    let answer = client.call_by_affinity("StartEgress", "", vec![], &AffinityOptions::start_egress()).await.unwrap();
    assert_eq!(&answer[..], b"more");
    assert!(began.elapsed() >= 500 * MS, "a lower bid waits for half a second of competition");
    servers[2].serve("StartEgress", "", Routing::Affinity, ScriptedHandler::answering("all")).await.unwrap();
    let answer = client.call_by_affinity("StartEgress", "", vec![], &AffinityOptions::start_egress()).await.unwrap();
    assert_eq!(&answer[..], b"all");
}

pub async fn who_bids_nothing_is_never_granted(fixture: &impl Fixture) {
    let bus = fixture.bus().await;
    let client = RpcClient::new(&bus, INTERNAL);
    let options = AffinityOptions::start_egress().selection(200 * MS);
    let nobody = client.call_by_affinity("StartEgress", "", vec![], &options).await.unwrap_err();
    assert_eq!(nobody, RpcError::new(Code::Unavailable, "no response from servers"));
    let server = RpcServer::new(&bus, INTERNAL);
    let scripted = ScriptedHandler::bidding(Bid::Now(0.0), "never");
    server.serve("StartEgress", "", Routing::Affinity, scripted.clone()).await.unwrap();
    let nothing = client.call_by_affinity("StartEgress", "", vec![], &options).await.unwrap_err();
    assert_eq!(nothing, RpcError::new(Code::Unavailable, "no servers available (received 1 responses)"));
    assert!(scripted.granted().is_empty());
}

pub async fn a_call_of_a_queue_is_bid_for_once(fixture: &impl Fixture) {
    let (one, two) = (fixture.bus().await, fixture.bus().await);
    let (first, second) = (RpcServer::new(&one, HANDLER), RpcServer::new(&two, HANDLER));
    for server in [&first, &second] {
        server.serve("StopEgress", "EG_1", Routing::Queue, ScriptedHandler::answering("done")).await.unwrap();
    }
    let client = RpcClient::new(&one, HANDLER);
    client.listen().await.unwrap();
    let mut bids = two.tap(&format!("{HANDLER}|{}|CLAIM", client.client_id())).await.unwrap();
    for _ in 0..10 {
        client.call("StopEgress", "EG_1", vec![], &CallOptions::queue()).await.unwrap();
    }
    // A marker after every bid that was published.
    two.publish(&format!("{HANDLER}|{}|CLAIM", client.client_id()), "end".into()).await.unwrap();
    let mut heard = 0;
    while bids.next().await.unwrap().payload != "end" {
        heard += 1;
    }
    assert_eq!(heard, 10);
}

pub async fn who_declines_leaves_the_call_to_others(fixture: &impl Fixture) {
    let bus = fixture.bus().await;
    let (declines, bids) = (RpcServer::new(&bus, HANDLER), RpcServer::new(&bus, HANDLER));
    declines.serve("StopEgress", "EG_1", Routing::Queue, ScriptedHandler::bidding(Bid::Silent, "no")).await.unwrap();
    let scripted = ScriptedHandler::bidding(Bid::After(20 * MS, 1.0), "yes");
    bids.serve("StopEgress", "EG_1", Routing::Queue, scripted).await.unwrap();
    let client = RpcClient::new(&bus, HANDLER);
    for _ in 0..3 {
        let answer = client.call("StopEgress", "EG_1", vec![], &CallOptions::queue()).await.unwrap();
        assert_eq!(&answer[..], b"yes", "a decliner must not take the lock");
    }
}

pub async fn who_waits_leaves_the_call_to_the_faster(fixture: &impl Fixture) {
    let bus = fixture.bus().await;
    let (fallback, runner) = (RpcServer::new(&bus, HANDLER), RpcServer::new(&bus, HANDLER));
    let patient = ScriptedHandler::bidding(Bid::After(300 * MS, 1.0), "fallback");
    fallback.serve_pattern("StopEgress", Routing::Queue, patient).await.unwrap();
    runner.serve("StopEgress", "EG_1", Routing::Queue, ScriptedHandler::answering("runner")).await.unwrap();
    let client = RpcClient::new(&bus, HANDLER);
    let options = CallOptions::queue();
    assert_eq!(&client.call("StopEgress", "EG_1", vec![], &options).await.unwrap()[..], b"runner");
    runner.close().await;
    assert_eq!(&client.call("StopEgress", "EG_1", vec![], &options).await.unwrap()[..], b"fallback");
}

pub async fn all_answer_a_multi_call(fixture: &impl Fixture) {
    let bus = fixture.bus().await;
    let (one, two) = (RpcServer::new(&bus, INTERNAL), RpcServer::new(&bus, INTERNAL));
    one.serve("ListActiveEgress", "", Routing::Multi, ScriptedHandler::answering("one")).await.unwrap();
    two.serve("ListActiveEgress", "", Routing::Multi, ScriptedHandler::answering("two")).await.unwrap();
    let client = RpcClient::new(&fixture.bus().await, INTERNAL);
    let answers = client.call_all("ListActiveEgress", "", vec![], 1000 * MS).await.unwrap();
    let mut message: Vec<_> = answers.into_iter().map(|answer| answer.unwrap()).collect();
    message.sort();
    assert_eq!(message, ["one", "two"]);
}

pub async fn a_pattern_serves_every_topic(fixture: &impl Fixture) {
    let bus = fixture.bus().await;
    let (server, scripted) = (RpcServer::new(&bus, HANDLER), ScriptedHandler::answering("here"));
    server.serve_pattern("UpdateStream", Routing::Queue, scripted.clone()).await.unwrap();
    let client = RpcClient::new(&fixture.bus().await, HANDLER);
    for topic in ["EG_1", "EG_never-seen.before"] {
        client.call("UpdateStream", topic, vec![], &CallOptions::queue()).await.unwrap();
    }
    let topics: Vec<_> = scripted.granted().into_iter().map(|incoming| incoming.topic).collect();
    assert_eq!(topics, ["EG_1", "EG_never-seen.before"]);
    server.unsubscribe_pattern("UpdateStream").await;
    let options = CallOptions::queue().selection(200 * MS);
    assert!(client.call("UpdateStream", "EG_1", vec![], &options).await.is_err());
}

pub async fn every_error_code_travels(fixture: &impl Fixture) {
    let bus = fixture.bus().await;
    let refusal = Mutex::new(RpcError::new(Code::Unknown, ""));
    let (server, scripted) =
        (RpcServer::new(&bus, INTERNAL), ScriptedHandler::new(Bid::Now(1.0), ScriptedAnswer::Refusal(refusal)));
    server.serve("StartEgress", "", Routing::Affinity, scripted.clone()).await.unwrap();
    let client = RpcClient::new(&fixture.bus().await, INTERNAL);
    for code in Code::all() {
        let said = RpcError::new(code, format!("because of {code}"));
        scripted.refuse(said.clone());
        assert_eq!(
            client.call_by_affinity("StartEgress", "", vec![], &AffinityOptions::start_egress()).await,
            Err(said)
        );
    }
}

pub async fn a_handler_that_panics_is_an_error_and_not_a_silence(fixture: &impl Fixture) {
    let bus = fixture.bus().await;
    let server = RpcServer::new(&bus, INTERNAL);
    server
        .serve("StartEgress", "", Routing::Affinity, ScriptedHandler::new(Bid::Now(1.0), ScriptedAnswer::Panic))
        .await
        .unwrap();
    let client = RpcClient::new(&bus, INTERNAL);
    for _ in 0..2 {
        let error =
            client.call_by_affinity("StartEgress", "", vec![], &AffinityOptions::start_egress()).await.unwrap_err();
        assert_eq!(error.code, Code::Internal);
    }
}

pub async fn after_leaving_no_bid_is_made_and_the_call_in_hand_is_answered(fixture: &impl Fixture) {
    let bus = fixture.bus().await;
    let (server, scripted) =
        (RpcServer::new(&bus, HANDLER), ScriptedHandler::new(Bid::Now(1.0), ScriptedAnswer::AfterGate("late")));
    server.serve("StopEgress", "EG_1", Routing::Queue, scripted.clone()).await.unwrap();
    let client = RpcClient::new(&fixture.bus().await, HANDLER);
    let caller = client.clone();
    let call = tokio::spawn(async move { caller.call("StopEgress", "EG_1", vec![], &CallOptions::queue()).await });
    eventually("the call is in hand", async || scripted.granted().len() == 1).await;
    server.unsubscribe("StopEgress", "EG_1").await;
    let options = CallOptions::queue().selection(200 * MS);
    eventually("no more bids", async || client.call("StopEgress", "EG_1", vec![], &options).await.is_err()).await;
    scripted.gate.notify_one();
    assert_eq!(&call.await.unwrap().unwrap()[..], b"late");
    server.close().await;
}
