//! Records of the version before, of the next one, and what is not a record.

use serde_json::{Value, json};

use super::*;

fn stored(state: &str) -> Value {
    let all: Vec<Value> = serde_json::from_str(include_str!("golden/records.json")).unwrap();
    let found = all.into_iter().find(|entry| entry["state"] == state);
    found.unwrap_or_else(|| panic!("no record {state}"))["record"].take()
}

fn read(stored: Value) -> Record {
    serde_json::from_value(stored).unwrap()
}

fn task(id: &str) -> TaskRef {
    TaskRef { launcher: "near".to_owned(), id: id.to_owned() }
}

#[test]
fn each_state_of_version_0_1_0_is_read() {
    let some = || Some(task("t1"));
    for (name, state) in [
        ("queued", LaunchState::Queued { renumber: false }),
        ("queued anew", LaunchState::Queued { renumber: true }),
        ("asking", LaunchState::Asking),
        ("launched", LaunchState::Launched { task: task("t1") }),
        ("running", LaunchState::Running { task: some(), ending: false }),
        ("running without a task", LaunchState::Running { task: None, ending: false }),
        ("ending", LaunchState::Running { task: some(), ending: true }),
        ("lost", LaunchState::Lost { renumber: false }),
        ("salvage asked for", LaunchState::Asking),
        ("salvaging", LaunchState::Salvaging { task: some(), ending: false }),
        ("ended while queued", LaunchState::Ended { task: None, asked: false }),
        ("ended", LaunchState::Ended { task: some(), asked: true }),
        ("given up while its answer was late", LaunchState::Queued { renumber: true }),
    ] {
        assert_eq!(read(stored(name)).state, state, "{name}");
    }
    let ending = read(stored("ending"));
    assert_eq!((ending.attempt, ending.info.len(), ending.dispatch.share), (2, 6, 2.0));
    assert_eq!((ending.task_of(1), ending.task_of(2), ending.task_of(3)), (Some(&task("t0")), ending.task(), None));
    assert_eq!(ending.dispatch.shapes["far"].cpu_milli, 1000);
    assert!(ending.extra.is_empty() && ending.dispatch.extra.is_empty());
    assert_eq!(read(stored("given up while its answer was late")).task_of(1), Some(&task("t1")));
}

/// A dispatcher or a runner of version 0.1.0 reads what this one writes.
#[test]
fn what_is_written_is_what_version_0_1_0_wrote_and_a_number_of_the_form() {
    let all: Vec<Value> = serde_json::from_str(include_str!("golden/records.json")).unwrap();
    for mut entry in all {
        let mut before = entry["record"].take();
        let mut written = serde_json::to_value(read(before.clone())).unwrap();
        assert_eq!(written.as_object_mut().unwrap().remove("format"), Some(json!(1)), "{}", entry["state"]);
        let unanswered = written["dispatch"].as_object_mut().unwrap().remove("unanswered");
        assert_eq!(unanswered, Some(json!(false)));
        let page = written["dispatch"]["load"].as_object_mut().unwrap().remove("page");
        assert_eq!(page, Some(json!(false)));
        if entry["state"] == "given up while its answer was late" {
            // Where it belongs.
            before["task"] = Value::Null;
            before["dispatch"]["earlier"] = json!({ "1": task("t1") });
        }
        assert_eq!(written, before, "{}", entry["state"]);
    }
}

#[test]
fn fields_of_a_newer_version_are_kept_and_optional_ones_may_be_absent() {
    let mut newer = stored("launched");
    newer["novelty"] = json!({ "deep": [1, 2] });
    newer["dispatch"]["idea"] = json!("x");
    newer["dispatch"]["load"]["pressure"] = json!(3);
    newer["dispatch"].as_object_mut().unwrap().remove("share");
    let record = read(newer);
    assert_eq!((record.extra["novelty"]["deep"][1].as_u64(), record.dispatch.share), (Some(2), 0.0));
    let written = serde_json::to_value(record).unwrap();
    assert_eq!((&written["novelty"]["deep"], &written["dispatch"]["idea"]), (&json!([1, 2]), &json!("x")));

    let id = EgressId::parse("EG_1").unwrap();
    assert_eq!(read(json!({ "egress_id": "EG_1" })), Record::new(id, 0));
}

/// They would record over what there is, or end it as never recorded.
#[test]
fn while_a_recording_is_interrupted_its_record_has_a_form_that_older_versions_do_not_read() {
    let mut record = Record::new(EgressId::parse("EG_1").unwrap(), 1);
    record.resumption = Some(Resumption { why: "it died".to_owned(), count: 1 });
    let running = LaunchState::Running { task: None, ending: false };
    for (state, format) in
        [(LaunchState::Interrupted, 2), (LaunchState::Asking, 2), (LaunchState::Unknown, 2), (running, 1)]
    {
        let now = Record { state, ..record.clone() };
        let stored = serde_json::to_value(&now).unwrap();
        assert_eq!(stored["format"], format, "{}", now.state);
        assert_eq!(read(stored), now);
    }
    let never = serde_json::to_value(Record { resumption: None, ..record }).unwrap();
    assert!(["resumption", "resumable", "nothing_to_salvage"].iter().all(|field| never.get(field).is_none()));
}

#[test]
fn what_cannot_be_read_is_an_error_and_no_default() {
    let with = |field: &str, value: Value| {
        let mut stored = stored("launched");
        stored[field] = value;
        serde_json::from_value::<Record>(stored)
    };
    assert!(with("novelty", json!(1)).is_ok());
    for (field, value) in [
        ("phase", json!("resting")),
        ("format", json!(3)),
        ("task", json!("no json")),
        ("task", json!(r#"{"id":"t1"}"#)),
        ("info", json!("§")),
        ("attempt", json!("one")),
        ("dispatch", json!("elsewhere")),
        ("dispatch", json!({ "load": 3 })),
        ("dispatch", json!({ "earlier": { "first": { "launcher": "l", "id": "i" } } })),
        ("dispatch", json!({ "shapes": { "near": {} } })),
    ] {
        let error = with(field, value.clone()).map(|record| record.state).unwrap_err();
        assert!(!error.to_string().is_empty(), "{field} {value}");
    }
}

#[test]
fn texts_of_the_phases_are_fixed() {
    for (phase, text) in [
        (Phase::Accepted, "accepted"),
        (Phase::Launching, "launching"),
        (Phase::Running, "running"),
        (Phase::Ending, "ending"),
        (Phase::Over, "over"),
    ] {
        assert_eq!(serde_json::to_value(phase).unwrap(), text);
    }
}
