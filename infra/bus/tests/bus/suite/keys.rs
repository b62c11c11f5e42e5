//! Records, tickets, heartbeats and upload checkpoints.

use std::time::Duration;

use spillway_bus::lifecycle::LaunchEvent;
use spillway_bus::testing::record_key;
use spillway_bus::{
    BusError, ClaimToken, Created, Decision, FaultyLink, FencedWrite, FoundRecord, Heartbeat, Heartbeats, LinkFaults,
    LiveStream, LiveStreams, ProbeCause, ProbeLine, ProbeReport, ProbeReports, Record, Registry, Taker, Ticket,
    TicketKey, Tickets, Updated, UploadStates,
};
use spillway_protocol::EgressId;
use spillway_protocol::Secret;

use crate::fixture::{Fixture, eventually};

pub fn id(text: &str) -> EgressId {
    EgressId::parse(text).unwrap()
}

pub async fn of_many_makers_one_makes_the_record(fixture: &impl Fixture) {
    let mut makers = Vec::new();
    for at in 0..8 {
        let registry = Registry::new(&fixture.bus().await);
        let record = Record { dispatcher: format!("D{at}"), info: vec![0xff, at], ..Record::new(id("EG_1"), 7) };
        makers.push(tokio::spawn(async move { (registry.create(&record).await.unwrap(), record.dispatcher) }));
    }
    let mut made = Vec::new();
    let mut seen = Vec::new();
    for maker in makers {
        match maker.await.unwrap() {
            (Created::Yes, name) => made.push(name),
            (Created::Exists(record), _) => seen.push(record),
        }
    }
    assert_eq!((made.len(), seen.len()), (1, 7));
    assert!(seen.iter().all(|record| record.dispatcher == made[0] && record.version == 1 && record.info.len() == 2));
}

pub async fn racing_updates_all_count(fixture: &impl Fixture) {
    let registry = Registry::new(&fixture.bus().await);
    registry.create(&Record::new(id("EG_1"), 7)).await.unwrap();
    let mut racers = Vec::new();
    for _ in 0..4 {
        let registry = Registry::new(&fixture.bus().await);
        racers.push(tokio::spawn(async move {
            for _ in 0..10 {
                let add = |record: &mut Record| {
                    record.attempt += 1;
                    Decision::Write
                };
                assert!(matches!(registry.update(&id("EG_1"), add).await.unwrap(), Updated::Written(_)));
            }
        }));
    }
    for racer in racers {
        racer.await.unwrap();
    }
    let record = registry.get(&id("EG_1")).await.unwrap().unwrap();
    assert_eq!((record.attempt, record.version), (40, 41));
    // Of two that want the same change, one makes it.
    let stop = LaunchEvent::StopAsked;
    let stopped = registry.apply(&id("EG_1"), &stop).await.unwrap();
    assert!(matches!(stopped, Updated::Written(record) if record.stop_asked && record.version == 42));
    assert!(matches!(registry.apply(&id("EG_1"), &stop).await.unwrap(), Updated::Left(_)));
    assert_eq!(registry.apply(&id("EG_none"), &stop).await.unwrap(), Updated::Missing);
}

pub async fn a_finished_record_is_not_live_and_goes_away(fixture: &impl Fixture) {
    let registry = Registry::new(&fixture.bus().await);
    for (name, accepted_at) in [("EG_b", 2), ("EG_a", 1), ("EG_c", 3)] {
        registry.create(&Record::new(id(name), accepted_at)).await.unwrap();
    }
    let live = async || -> Vec<String> {
        registry.list_live().await.unwrap().into_iter().map(|record| record.egress_id.to_string()).collect()
    };
    assert_eq!(live().await, ["EG_a", "EG_b", "EG_c"]);
    registry.finish(&id("EG_a"), Duration::from_secs(60)).await.unwrap();
    registry.forget(&id("EG_c")).await.unwrap();
    assert_eq!(live().await, ["EG_b"]);
    for (name, is_live) in [("EG_a", false), ("EG_b", true), ("EG_c", false)] {
        assert_eq!(registry.is_live(&id(name)).await.unwrap(), is_live, "{name}");
    }
    assert!(registry.get(&id("EG_a")).await.unwrap().is_some(), "it still answers");
    assert!(registry.get(&id("EG_c")).await.unwrap().is_none());
    registry.finish(&id("EG_a"), Duration::from_millis(1)).await.unwrap();
    eventually("the record is gone", async || registry.get(&id("EG_a")).await.unwrap().is_none()).await;
}

pub async fn fields_of_a_newer_version_stay(fixture: &impl Fixture) {
    let registry = Registry::new(&fixture.bus().await);
    let mut record = Record { stop_asked: true, ledger: "{}".into(), ..Record::new(id("EG_1"), 7) };
    record.extra.insert("novelty".into(), serde_json::json!({"deep": [1, 2]}));
    registry.create(&record).await.unwrap();
    registry.update(&id("EG_1"), |_| Decision::Write).await.unwrap();
    let found = registry.get(&id("EG_1")).await.unwrap().unwrap();
    assert_eq!(found, Record { version: 2, ..record });
}

pub async fn what_cannot_be_read_is_an_error_and_left_alone(fixture: &impl Fixture) {
    let bus = fixture.bus().await;
    let (registry, beats) = (Registry::new(&bus), Heartbeats::new(&bus));
    for name in ["EG_1", "EG_2"] {
        registry.create(&Record::new(id(name), 7)).await.unwrap();
    }
    let long = Duration::from_secs(60);
    beats.beat(&id("EG_1"), 3, &Heartbeat::default(), long).await.unwrap();
    for value in [r#"{"egress_id":"EG_1","format":9}"#, r#"{"egress_id":"EG_1","phase":"resting"}"#, "no json"] {
        bus.replace_bytes(&record_key(&id("EG_1")), value.as_bytes()).await.unwrap();
        let applied = registry.apply(&id("EG_1"), &LaunchEvent::StopAsked).await;
        assert!(matches!(applied, Err(BusError::Record { egress_id, .. }) if egress_id == "EG_1"), "{value}");
        assert!(
            registry.get(&id("EG_1")).await.is_err() && registry.create(&Record::new(id("EG_1"), 8)).await.is_err()
        );
        let live = registry.list_live().await.unwrap();
        assert_eq!(live.iter().map(|record| record.egress_id.as_str()).collect::<Vec<_>>(), ["EG_2"]);
        let all = registry.get_all(&[id("EG_1"), id("EG_2"), id("EG_3")]).await.unwrap();
        assert!(matches!(&all[..], [FoundRecord::Unreadable, FoundRecord::Record(_), FoundRecord::Absent]), "{all:?}");
        assert_eq!(bus.bytes(&record_key(&id("EG_1"))).await.unwrap().unwrap(), value.as_bytes());
    }
    // The runner lives, whatever its heartbeat says.
    bus.replace_bytes("spillway:{EG_1}:beat", b"[1]").await.unwrap();
    let (age, beat) = beats.last(&id("EG_1")).await.unwrap().unwrap();
    assert_eq!((age, beat.attempt), (Duration::ZERO, 4), "the version of the value is the attempt");
}

pub async fn a_ticket_that_cannot_be_used_is_not_lost_by_looking_at_it(fixture: &impl Fixture) {
    let key = TicketKey::random();
    let bus = fixture.bus().await;
    let tickets = Tickets::new(&bus, key);
    let token = tickets.put(&ticket("canary"), Duration::from_secs(60)).await.unwrap();
    let other = Tickets::new(&bus, TicketKey::random());
    assert!(matches!(other.check(&id("EG_1"), &token).await, Err(BusError::Ticket { .. })));
    tickets.check(&id("EG_1"), &token).await.unwrap();
    assert!(tickets.take(&id("EG_1"), &token, &Taker::random()).await.unwrap().is_some());
    tickets.check(&id("EG_1"), &token).await.unwrap();
}

pub async fn a_ticket_that_is_renewed_outlives_its_first_time(fixture: &impl Fixture) {
    let tickets = Tickets::new(&fixture.bus().await, TicketKey::random());
    let first = Duration::from_millis(300);
    let (kept, lost) =
        (tickets.put(&ticket("a"), first).await.unwrap(), tickets.put(&ticket("b"), first).await.unwrap());
    tickets.renew(&id("EG_1"), &kept, Duration::from_secs(60)).await.unwrap();
    eventually("the other is gone", async || tickets.copy(&id("EG_1"), &lost, 4, first).await.unwrap().is_none()).await;
    assert!(tickets.take(&id("EG_1"), &kept, &Taker::random()).await.unwrap().is_some());
    // One that is gone does not come back.
    tickets.renew(&id("EG_1"), &lost, Duration::from_secs(60)).await.unwrap();
    assert!(tickets.take(&id("EG_1"), &lost, &Taker::random()).await.unwrap().is_none());
}

pub fn ticket(canary: &str) -> Ticket {
    Ticket {
        egress_id: id("EG_1"),
        attempt: 3,
        request: Secret::new(canary.as_bytes().to_vec()),
        plan_json: Secret::new(format!("{{\"secret\": \"{canary}\"}}")),
        token: Secret::new(canary.to_owned()),
        ws_url: "ws://127.0.0.1:7880".into(),
        destinations: Some(Secret::new(canary.to_owned())),
        runner: serde_json::json!({"nested": canary}),
        probe: None,
        streams: None,
    }
}

pub async fn a_ticket_is_taken_once(fixture: &impl Fixture) {
    let key = TicketKey::random();
    let tickets = Tickets::new(&fixture.bus().await, key.clone());
    let ttl = Duration::from_secs(60);
    let token = tickets.put(&ticket("canary"), ttl).await.unwrap();
    assert_eq!(tickets.take(&id("EG_1"), &ClaimToken::from_text("guess"), &Taker::random()).await.unwrap(), None);
    assert_eq!(tickets.take(&id("EG_2"), &token, &Taker::random()).await.unwrap(), None);
    let mut takers = Vec::new();
    for _ in 0..8 {
        let tickets = Tickets::new(&fixture.bus().await, TicketKey::from_text(&key.reveal()).unwrap());
        let token = ClaimToken::from_text(token.reveal());
        takers.push(tokio::spawn(async move { tickets.take(&id("EG_1"), &token, &Taker::random()).await.unwrap() }));
    }
    let mut taken = Vec::new();
    for taker in takers {
        taken.extend(taker.await.unwrap());
    }
    assert_eq!(taken, [ticket("canary")]);
    // With another key the error names the key.
    let token = tickets.put(&ticket("canary"), ttl).await.unwrap();
    let other = Tickets::new(&fixture.bus().await, TicketKey::random());
    let error = other.take(&id("EG_1"), &token, &Taker::random()).await.unwrap_err().to_string();
    assert!(error.contains("key"), "{error}");
    // Neither withdrawn nor too old is it there.
    let token = tickets.put(&ticket("canary"), ttl).await.unwrap();
    tickets.withdraw(&id("EG_1"), &token).await.unwrap();
    assert_eq!(tickets.take(&id("EG_1"), &token, &Taker::random()).await.unwrap(), None);
    assert!(!format!("{token:?} {:?}", ticket("canary").token).contains("canary"));
}

/// The command was done and its answer lost: the runner that sent it must not find its own ticket missing.
pub async fn a_take_whose_answer_was_lost_is_repeated_by_its_taker_alone(fixture: &impl Fixture) {
    let key = TicketKey::random();
    let bus = fixture.bus().await;
    let laid = Tickets::new(&bus, key.clone());
    let token = laid.put(&ticket("canary"), Duration::from_secs(3600)).await.unwrap();
    let way = FaultyLink::new(LinkFaults { answer_lost: 1.0, ..LinkFaults::default() });
    let tickets = Tickets::new(&way.to(&bus), key);
    let (taker, other) = (Taker::random(), Taker::random());
    let lost = tickets.take(&id("EG_1"), &token, &taker).await.unwrap_err();
    assert!(lost.is_transient(), "{lost}");
    way.calm();
    assert_eq!(tickets.take(&id("EG_1"), &token, &other).await.unwrap(), None, "taken is taken");
    assert_eq!(laid.copy(&id("EG_1"), &token, 4, Duration::from_secs(60)).await.unwrap(), None, "nor is it copied");
    for _ in 0..2 {
        assert_eq!(tickets.take(&id("EG_1"), &token, &taker).await.unwrap(), Some(ticket("canary")));
    }
    laid.withdraw(&id("EG_1"), &token).await.unwrap();
    assert_eq!(tickets.take(&id("EG_1"), &token, &taker).await.unwrap(), None, "withdrawn is withdrawn");
}

pub async fn a_ticket_is_copied_for_another_attempt(fixture: &impl Fixture) {
    let tickets = Tickets::new(&fixture.bus().await, TicketKey::random());
    let ttl = Duration::from_secs(60);
    let first = tickets.put(&ticket("canary"), ttl).await.unwrap();
    let copy = tickets.copy(&id("EG_1"), &first, 4, ttl).await.unwrap().unwrap();
    let taken = tickets.take(&id("EG_1"), &copy, &Taker::random()).await.unwrap().unwrap();
    assert_eq!(taken, Ticket { attempt: 4, ..ticket("canary") });
    assert_eq!(tickets.take(&id("EG_1"), &first, &Taker::random()).await.unwrap(), Some(ticket("canary")));
    assert_eq!(tickets.copy(&id("EG_1"), &first, 5, ttl).await.unwrap(), None, "what was taken is not copied");
}

pub async fn a_ticket_that_nobody_has_taken_is_changed_where_it_is(fixture: &impl Fixture) {
    let tickets = Tickets::new(&fixture.bus().await, TicketKey::random());
    let ttl = Duration::from_secs(60);
    let first = tickets.put(&ticket("canary"), ttl).await.unwrap();
    let live = vec![LiveStream { id: 1, url: Secret::new("rtmp://a/canary".to_owned()) }];
    let streams = Some(LiveStreams { next_id: 2, live });
    tickets.amend(&id("EG_1"), &first, |ticket| ticket.streams.clone_from(&streams)).await.unwrap();
    let renew = |ticket: &mut Ticket| ticket.token = Secret::new("fresh".to_owned());
    let copy = tickets.copy_changed(&id("EG_1"), &first, 4, ttl, renew).await.unwrap().unwrap();
    let copied = tickets.take(&id("EG_1"), &copy, &Taker::random()).await.unwrap().unwrap();
    let fresh = Secret::new("fresh".to_owned());
    assert_eq!(copied, Ticket { attempt: 4, token: fresh, streams: streams.clone(), ..ticket("canary") });
    let taken = tickets.take(&id("EG_1"), &first, &Taker::random()).await.unwrap();
    assert_eq!(taken, Some(Ticket { streams, ..ticket("canary") }));
    // One that is taken stays as it is, and one that is gone does not come back.
    tickets.amend(&id("EG_1"), &first, |ticket| ticket.attempt = 9).await.unwrap();
    tickets.withdraw(&id("EG_1"), &first).await.unwrap();
    tickets.amend(&id("EG_1"), &first, |_| {}).await.unwrap();
    assert_eq!(tickets.take(&id("EG_1"), &first, &Taker::random()).await.unwrap(), None);
}

pub async fn a_heartbeat_fades_and_an_older_attempt_is_not_heard(fixture: &impl Fixture) {
    let beats = Heartbeats::new(&fixture.bus().await);
    let id = id("EG_1");
    assert!(beats.last(&id).await.unwrap().is_none());
    let beat = Heartbeat { media_ns: 5, lag_ms: 6, files: [("a.mp4".to_owned(), 7)].into(), ..Heartbeat::default() };
    let long = Duration::from_secs(60);
    assert_eq!(beats.beat(&id, 2, &beat, long).await.unwrap(), FencedWrite::Accepted);
    assert_eq!(beats.beat(&id, 2, &beat, long).await.unwrap(), FencedWrite::Accepted);
    assert_eq!(beats.beat(&id, 1, &beat, long).await.unwrap(), FencedWrite::Superseded);
    let (age, last) = beats.last(&id).await.unwrap().unwrap();
    assert!(age < Duration::from_secs(30));
    assert_eq!(last, Heartbeat { attempt: 2, ..beat.clone() });
    assert_eq!(beats.beat(&id, 3, &beat, Duration::from_millis(100)).await.unwrap(), FencedWrite::Accepted);
    eventually("the heartbeat fades", async || beats.last(&id).await.unwrap().is_none()).await;
}

pub async fn the_state_of_uploads_is_the_latest_attempts_until_it_is_closed(fixture: &impl Fixture) {
    let states = UploadStates::new(&fixture.bus().await);
    assert_eq!(states.get(&id("EG_1")).await.unwrap(), None);
    assert_eq!(states.put(&id("EG_1"), 1, b"first").await.unwrap(), FencedWrite::Accepted);
    assert_eq!(states.put(&id("EG_1"), 1, b"second").await.unwrap(), FencedWrite::Accepted);
    assert_eq!(states.put(&id("EG_1"), 2, b"salvaged").await.unwrap(), FencedWrite::Accepted);
    assert_eq!(states.put(&id("EG_1"), 1, b"zombie").await.unwrap(), FencedWrite::Superseded);
    let other = UploadStates::new(&fixture.bus().await);
    assert_eq!(other.get(&id("EG_1")).await.unwrap(), Some((2, b"salvaged".as_slice().into())));
    other.close(&id("EG_1"), 2).await.unwrap();
    assert_eq!(states.get(&id("EG_1")).await.unwrap(), None);
    assert_eq!(states.put(&id("EG_1"), 1, b"zombie").await.unwrap(), FencedWrite::Superseded);
    assert_eq!(states.get(&id("EG_1")).await.unwrap(), None);
}

pub async fn a_probes_report_grows_and_never_shrinks(fixture: &impl Fixture) {
    let reports = ProbeReports::new(&fixture.bus().await);
    let id = id("PB_1");
    assert_eq!(reports.get(&id).await.unwrap(), None);
    let one = ProbeReport { lines: vec![ProbeLine::passed("redis", "7.2")], is_over: false };
    let two = ProbeReport {
        lines: vec![one.lines[0].clone(), ProbeLine::failed("store S3", ProbeCause::StoreDenied, "AccessDenied")],
        is_over: false,
    };
    reports.put(&id, &two).await.unwrap();
    // The answer to an earlier write was lost, and it is sent again.
    reports.put(&id, &one).await.unwrap();
    assert_eq!(reports.get(&id).await.unwrap().as_ref(), Some(&two));
    let over = ProbeReport { is_over: true, ..two.clone() };
    reports.put(&id, &over).await.unwrap();
    reports.put(&id, &two).await.unwrap();
    assert_eq!(reports.get(&id).await.unwrap(), Some(over));
    reports.remove(&id).await.unwrap();
    assert_eq!(reports.get(&id).await.unwrap(), None);
}
