//! The console of a dispatcher: who is let in, what an egress looks like from its acceptance to its bill, and events for many.
//! Requests are given to it without a port: in virtual time nothing waits for a socket.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Bytes;
use hyper::{HeaderMap, Request};
use serde_json::{Value, json};
use spillway_bus::Switches;
use spillway_cost::Platform;
use spillway_dispatcher::config::settings::ConsoleRules;
use spillway_dispatcher::targets::SWITCHES;
use spillway_dispatcher::{Config, Dispatcher, Setup};
use spillway_launchers::Launcher;
use spillway_launchers::simulated::SimulatedOptions;
use spillway_protocol::Secret;
use spillway_protocol::livekit::{EgressStatus, EncodedFileOutput, RoomCompositeEgressRequest};
use spillway_protocol::rpc::StartEgressRequest;
use spillway_protocol::rpc::start_egress_request::EgressRequest;
use tokio::time::{Instant, sleep};

use crate::figures::targets;
use crate::harness::{FaultRates, FaultyPlatform, Harness, until};

const SECOND: Duration = Duration::from_secs(1);
const READS: &str = "reads-reads-reads-reads-";
const STOPS: &str = "stops-stops-stops-stops-";
const ROOM: &str = "<script>alert(1)</script>";

fn rules(token: &str, stop_token: &str) -> Option<ConsoleRules> {
    let secret = |text: &str| Some(Secret::new(text.to_owned()));
    Some(ConsoleRules { token: secret(token), stop_token: secret(stop_token), address: None })
}

/// On a platform that sells its machines, with Redis' time as in production: lines of the ledger are found by it.
async fn dispatcher(harness: &Harness, config: Config) -> Dispatcher {
    let clock = harness.bus().clock().clone();
    let billed = clock.clone();
    let platform = FaultyPlatform::new("near", &harness.cloud, FaultRates::default(), 1)
        .selling(Platform::Fargate, move || billed.unix_ms());
    let launchers: Vec<Arc<dyn Launcher>> = vec![Arc::new(platform)];
    Dispatcher::start(Setup::with(config, harness.bus(), launchers, clock)).await.unwrap()
}

fn with_console() -> Config {
    Config { console: rules(READS, STOPS), ..targets(&["near"]) }
}

fn request(method: &str, path: &str, token: &str, body: &str) -> Request<Bytes> {
    let request = Request::builder().method(method).uri(format!("/console{path}"));
    let request = match token {
        "" => request,
        token => request.header("authorization", format!("Bearer {token}")),
    };
    request.body(Bytes::from(body.to_owned())).unwrap()
}

#[derive(Debug)]
struct Answer {
    status: u16,
    head: HeaderMap,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        assert_eq!(self.status, 200, "{self:?}");
        serde_json::from_str(&self.text).unwrap()
    }

    fn header(&self, name: &str) -> &str {
        self.head.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

async fn ask(dispatcher: &Dispatcher, method: &str, path: &str, token: &str, body: &str) -> Answer {
    let response = dispatcher.console(request(method, path, token, body)).await;
    let (head, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    Answer { status: head.status.as_u16(), head: head.headers, text: String::from_utf8(bytes.to_vec()).unwrap() }
}

async fn get(dispatcher: &Dispatcher, path: &str) -> Value {
    ask(dispatcher, "GET", path, READS, "").await.json()
}

/// The row of an egress once it is as it should be.
async fn row(dispatcher: &Dispatcher, id: &str, is_right: impl Fn(&Value) -> bool) -> Value {
    let begun = Instant::now();
    loop {
        let view = get(dispatcher, "/api/egresses").await;
        let found = view["egresses"].as_array().unwrap().iter().find(|row| row["id"] == id).cloned();
        if let Some(row) = found.clone().filter(&is_right) {
            return row;
        }
        assert!(begun.elapsed() < 60 * SECOND, "{id} is {found:?}");
        sleep(SECOND / 4).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_console_is_off_until_it_is_configured_and_opens_to_its_tokens_alone() {
    let harness = Harness::set(SimulatedOptions::default()).await;
    let dispatcher = dispatcher(&harness, targets(&["near"])).await;
    for path in ["", "/", "/app.js", "/api/status", "/api/egresses"] {
        assert_eq!(ask(&dispatcher, "GET", path, READS, "").await.status, 404, "{path}");
    }
    dispatcher.reload(with_console()).await;

    let page = ask(&dispatcher, "GET", "/", "", "").await;
    assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"));
    let policy = page.header("content-security-policy");
    for part in ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "trusted-types 'none'"] {
        assert!(policy.contains(part) && !policy.contains("unsafe"), "{policy}");
    }
    let beside = ask(&dispatcher, "GET", "", "", "").await;
    assert_eq!((beside.status, beside.header("location")), (308, "console/"));
    assert_eq!(
        ask(&dispatcher, "GET", "/app.js", "", "").await.header("content-type"),
        "text/javascript; charset=utf-8"
    );
    for path in ["/nosuch.js", "/../lib.rs", "//", "x"] {
        assert_eq!(ask(&dispatcher, "GET", path, READS, "").await.status, 404, "{path}");
    }

    let reads =
        ["status", "egresses", "events", "targets", "ledger", "ledger.csv", "bill", "bill.csv", "egresses/EG_1"];
    let all = reads.iter().map(|path| ("GET", *path)).chain([("POST", "price"), ("POST", "egresses/EG_1/stop")]);
    for (method, path) in all {
        for token in ["", "wrong", &READS[1..], format!("{READS}x").as_str()] {
            let refused = ask(&dispatcher, method, &format!("/api/{path}"), token, "{}").await;
            assert_eq!((refused.status, refused.header("www-authenticate")), (401, "Bearer"), "{path} {token}");
            assert!(!refused.text.contains(READS) && refused.text.contains("\"error\""), "{}", refused.text);
        }
    }
    assert_eq!(get(&dispatcher, "/api/status").await["may_stop"], false);
    assert_eq!(ask(&dispatcher, "GET", "/api/status", STOPS, "").await.json()["may_stop"], true);

    for (method, path, status, message) in [
        ("POST", "/api/status", 405, "GET"),
        ("DELETE", "/api/egresses/EG_1", 405, "GET"),
        ("GET", "/api/egresses/EG_1/stop", 405, "POST"),
        ("GET", "/api/nosuch", 404, "no such path"),
        ("GET", "/api/egresses/EG_1/start", 404, "no such path"),
        ("GET", "/api/egresses/EG_nosuch", 404, "does not exist"),
        ("GET", "/api/egresses/EG%201", 400, "character outside"),
        ("GET", "/api/ledger?rooms=x", 400, "\"rooms\" is not known"),
        ("GET", "/api/ledger?before=1", 400, "before is"),
        ("GET", "/api/ledger?before=1-2%20COUNT", 400, "before is"),
        ("GET", "/api/ledger?limit=0", 400, "limit is"),
        ("GET", "/api/ledger?day=tomorrow", 400, "is no day"),
        ("GET", "/api/bill?by=moon", 400, "by is one of"),
        ("POST", "/api/egresses/EG_1/stop", 403, "may look and not stop"),
    ] {
        let refused = ask(&dispatcher, method, path, READS, "").await;
        let told: Value = serde_json::from_str(&refused.text).unwrap();
        assert_eq!(refused.status, status, "{path} {told}");
        assert!(told["error"].as_str().unwrap().contains(message), "{path} {told}");
    }
    dispatcher.reload(Config { console: None, ..targets(&["near"]) }).await;
    assert_eq!(ask(&dispatcher, "GET", "/api/status", READS, "").await.status, 404);
}

async fn start(harness: &Harness, id: &str) {
    let file = EncodedFileOutput { filepath: format!("{id}.mp4"), ..Default::default() };
    let request =
        RoomCompositeEgressRequest { room_name: ROOM.to_owned(), file_outputs: vec![file], ..Default::default() };
    let start = StartEgressRequest {
        egress_id: id.to_owned(),
        room_id: "RM_room".to_owned(),
        request: Some(EgressRequest::RoomComposite(request)),
        ..Default::default()
    };
    harness.livekit.start(start).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_egress_is_shown_from_its_acceptance_to_its_bill() {
    let harness = Harness::set(SimulatedOptions::default()).await;
    let config = Config { max_recordings: Some(1), queue_deadline: 3600 * SECOND, ..with_console() };
    let dispatcher = dispatcher(&harness, config).await;
    for id in ["EG_a", "EG_b", "EG_c"] {
        start(&harness, id).await;
    }
    let begun = row(&dispatcher, "EG_a", |row| row["now"]["quality"] == "good").await;
    for (name, value) in [
        ("room", json!(ROOM)),
        ("type", json!("room_composite")),
        ("state", json!("running")),
        ("status", json!("active")),
        ("target", json!("near")),
        ("attempt", json!(1)),
        ("task_url", json!("https://console.example/near/1")),
    ] {
        assert_eq!(begun[name], value, "{name} in {begun}");
    }
    let cost = |row: &Value| row["now"]["cost"].as_f64().unwrap();
    sleep(600 * SECOND).await;
    let later = row(&dispatcher, "EG_a", |_| true).await;
    let (hour, ten_minutes) = (later["hour"].as_f64().unwrap(), cost(&later));
    assert!(ten_minutes > cost(&begun) && (0.1..0.25).contains(&(ten_minutes / hour)), "{ten_minutes} of {hour}");
    let waits = [row(&dispatcher, "EG_b", |_| true).await, row(&dispatcher, "EG_c", |_| true).await];
    for (row, place) in waits.iter().zip(1..) {
        assert_eq!((&row["state"], &row["now"]["place"]), (&json!("queued"), &json!(place)), "{row}");
        assert!(row["now"]["cost"].is_null() && row["details"].as_str().unwrap().starts_with("waiting for a slot"));
    }
    let totals = get(&dispatcher, "/api/egresses").await["totals"].clone();
    assert_eq!((&totals["live"], &totals["queued"], &totals["recording"]), (&json!(3), &json!(2), &json!(1)));
    let near = get(&dispatcher, "/api/targets").await[0].clone();
    assert_eq!((&near["open"], &near["live"], &near["launched"]), (&json!(true), &json!(1), &json!(1)), "{near}");

    let stop = async |id: &str, token| ask(&dispatcher, "POST", &format!("/api/egresses/{id}/stop"), token, "").await;
    assert_eq!(stop("EG_a", READS).await.status, 403);
    assert_eq!(harness.livekit.status("EG_a"), Some(EgressStatus::EgressActive));
    assert_eq!(stop("EG_c", STOPS).await.json()["status"], "EGRESS_ABORTED", "a waiting one is over at once");
    assert_eq!(stop("EG_a", STOPS).await.json()["status"], "EGRESS_ENDING");
    let unknown = stop("EG_unknown", STOPS).await;
    assert_eq!((unknown.status, unknown.text.contains("no response")), (503, true), "{unknown:?}");
    until("it is complete", || harness.livekit.status("EG_a") == Some(EgressStatus::EgressComplete)).await;
    row(&dispatcher, "EG_b", |row| row["state"] == "running").await;
    sleep(90 * SECOND).await;

    let lines = get(&dispatcher, "/api/ledger?room=SCRIPT&day=").await["lines"].clone();
    assert_eq!(lines.as_array().unwrap().len(), 1, "{lines}");
    let line = &lines[0];
    assert_eq!((&line["egress_id"], &line["room"], &line["window"]), (&json!("EG_a"), &json!(ROOM), &json!("vendor")));
    assert_eq!(line["task_url"], "https://console.example/near/1");
    let amount = line["amount"].as_f64().unwrap();
    assert!((amount / ten_minutes - 1.0).abs() < 0.2, "told {ten_minutes}, billed {amount}");
    let over = get(&dispatcher, "/api/egresses/EG_a").await;
    assert!(over["egress"].is_null() && over["info"]["status"] == "EGRESS_COMPLETE", "{over}");
    assert_eq!(over["tasks"].as_array().unwrap().len(), 1);
    let live = get(&dispatcher, "/api/egresses/EG_b").await;
    assert_eq!((&live["egress"]["state"], &live["tasks"]), (&json!("running"), &json!([])));

    let bill = get(&dispatcher, "/api/bill?by=room").await;
    assert_eq!((&bill["rows"][0]["name"], &bill["total"]["tasks"]), (&json!(ROOM), &json!(1)), "{bill}");
    let csv = ask(&dispatcher, "GET", "/api/bill.csv?by=egress", READS, "").await;
    assert!(csv.text.starts_with("egress,tasks,") && csv.text.contains("\nEG_a,1,"), "{csv:?}");
    let csv = ask(&dispatcher, "GET", "/api/ledger.csv?type=room_composite", READS, "").await;
    assert_eq!((csv.text.lines().count(), csv.header("content-type")), (2, "text/csv; charset=utf-8"), "{csv:?}");
    assert!(csv.header("content-disposition").starts_with("attachment"));
    harness.livekit.stop("EG_b").await.unwrap();
    until("all are over", || harness.livekit.book().ends.len() == 3).await;
    harness.livekit.assert_each_ended_once();
}

#[tokio::test(start_paused = true)]
async fn targets_say_why_they_are_not_asked_and_requests_have_a_price() {
    let harness = Harness::set(SimulatedOptions::default()).await;
    let dispatcher = dispatcher(&harness, with_console()).await;
    Switches::new(&harness.bus(), SWITCHES).set("near", Some("paused")).await.unwrap();
    sleep(3 * SECOND).await;
    let near = get(&dispatcher, "/api/targets").await[0].clone();
    assert_eq!((&near["name"], &near["open"], &near["switched"]), (&json!("near"), &json!(false), &json!("paused")));

    let priced = async |body: &str| ask(&dispatcher, "POST", "/api/price", READS, body).await;
    let file = json!({ "filepath": "a.mp4" });
    let composite = json!({ "room_name": ROOM, "layout": "grid", "file_outputs": [file] });
    let hour = priced(&json!({ "request": { "room_composite": composite }, "minutes": 60 }).to_string()).await.json();
    assert_eq!((&hour["quotes"][0]["target"], &hour["currency"]), (&json!("near"), &json!("USD")), "{hour}");
    for (body, message) in [
        ("{}".to_owned(), "missing field"),
        ("[".to_owned(), "EOF"),
        (json!({ "request": { "track": {} }, "minutes": 1 }).to_string(), "missing or invalid field"),
        (json!({ "request": { "track": {} }, "minutes": -1 }).to_string(), "minutes must be more than 0"),
        (
            json!({ "request": { "room_composite": { "room_name": { "canary": 1 } } }, "minutes": 1 }).to_string(),
            "room_composite",
        ),
        (json!({ "request": {}, "minutes": "canary" }).to_string(), "invalid type"),
    ] {
        let refused = priced(&body).await;
        assert!(refused.status == 400 && refused.text.contains(message), "{body}: {refused:?}");
        assert!(!refused.text.contains("canary"), "{refused:?}");
    }
}

type Events = UnsyncBoxBody<Bytes, io::Error>;

async fn events(dispatcher: &Dispatcher) -> Result<Events, u16> {
    let response = dispatcher.console(request("GET", "/api/events", READS, "")).await;
    if response.status() != 200 {
        return Err(response.status().as_u16());
    }
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    Ok(response.into_body())
}

/// Name and value of the next event that is no comment; `None`: the connection has ended.
async fn next(events: &mut Events) -> Option<(String, Value)> {
    loop {
        let bytes = events.frame().await?.unwrap().into_data().unwrap();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        assert!(text.ends_with("\n\n"));
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        if let Some(name) = field("event") {
            return Some((name.to_owned(), serde_json::from_str(field("data").unwrap()).unwrap()));
        }
    }
}

/// Ids that an event says something new about.
fn named(event: &Value) -> Vec<String> {
    let rows = ["egresses", "changed"].iter().flat_map(|list| event[list].as_array().into_iter().flatten());
    let rows = rows.map(|row| row["id"].as_str().unwrap().to_owned());
    rows.chain(event["now"].as_object().into_iter().flat_map(|now| now.keys().cloned())).collect()
}

#[tokio::test(start_paused = true)]
async fn two_hundred_egresses_are_told_of_every_two_seconds_to_all_who_look() {
    let harness = Harness::set(SimulatedOptions::default()).await;
    let dispatcher = dispatcher(&harness, with_console()).await;
    let mut one = events(&dispatcher).await.unwrap();
    let (name, first) = next(&mut one).await.unwrap();
    assert_eq!((name.as_str(), &first["egresses"]), ("snapshot", &json!([])));
    let ids: Vec<String> = (0..200).map(|n| format!("EG_{n}")).collect();
    for id in &ids {
        harness.livekit.start_composite(id).await.unwrap();
    }
    until("all record", || ids.iter().all(|id| harness.livekit.status(id) == Some(EgressStatus::EgressActive))).await;
    // The platform bills a minute at least: before that nothing changes where nothing is recorded.
    sleep(70 * SECOND).await;
    // It has not read for a while: it gets all there is, and goes on from there.
    let mut seen: BTreeMap<String, Instant> = BTreeMap::new();
    let mut other = events(&dispatcher).await.unwrap();
    let (name, all) = next(&mut other).await.unwrap();
    assert_eq!((name.as_str(), all["egresses"].as_array().unwrap().len()), ("snapshot", 200));
    let begun = Instant::now();
    while begun.elapsed() < 30 * SECOND {
        let (_, event) = next(&mut one).await.unwrap();
        let now = Instant::now();
        for id in named(&event) {
            if let Some(then) = seen.insert(id.clone(), now).filter(|_| begun.elapsed() > 5 * SECOND) {
                assert!(now - then <= 2 * SECOND, "{id} after {:?}", now - then);
            }
        }
    }
    assert_eq!(seen.len(), 200);

    harness.livekit.stop("EG_7").await.unwrap();
    let is_gone = |event: &Value| event["gone"].as_array().is_some_and(|gone| gone.contains(&json!("EG_7")));
    while !is_gone(&next(&mut one).await.unwrap().1) {
        assert!(begun.elapsed() < 120 * SECOND, "it is still there");
    }

    harness.broker.cut();
    while next(&mut one).await.unwrap().0 != "trouble" {}
    harness.broker.mend();
    while next(&mut one).await.unwrap().0 != "change" {}

    // Another token: who looked with the old one looks no longer.
    dispatcher.reload(Config { console: rules("other-other-other-other-", STOPS), ..targets(&["near"]) }).await;
    while next(&mut one).await.is_some() {}
    assert_eq!(events(&dispatcher).await.err(), Some(401));
}

#[tokio::test(start_paused = true)]
async fn who_looks_is_bounded_and_nobody_is_left_when_the_dispatcher_stops() {
    let harness = Harness::set(SimulatedOptions::default()).await;
    let dispatcher = dispatcher(&harness, with_console()).await;
    let mut open = Vec::new();
    let status = loop {
        match events(&dispatcher).await {
            Ok(events) => open.push(events),
            Err(status) => break status,
        }
        assert!(open.len() <= 100, "there is a bound");
    };
    assert_eq!((status, open.len()), (503, 32));
    open.truncate(1);
    let mut more = events(&dispatcher).await.unwrap();
    next(&mut more).await.unwrap();
    dispatcher.drained().await;
    let ended = tokio::spawn(async move {
        while next(&mut more).await.is_some() {}
        while next(&mut open[0]).await.is_some() {}
    });
    assert!(dispatcher.leave().await);
    ended.await.unwrap();
}
