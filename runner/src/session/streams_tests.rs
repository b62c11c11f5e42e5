//! Streams as UpdateStream and the media process move them.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn url(name: &str) -> StreamUrl {
    let url = Secret::new(format!("rtmp://h/app/{name}"));
    StreamUrl { target: url.clone(), url }
}

fn secret(name: &str) -> Secret {
    url(name).url
}

/// A stream output at place 1 whose streams the media process knows.
fn begun(names: &[&str]) -> SessionStreams {
    let mut streams = SessionStreams::new(Some(1), names.iter().map(|name| url(name)).collect());
    let (starts, facts) = streams.begin();
    assert_eq!(starts.len(), names.len());
    assert_eq!(facts, []);
    streams
}

fn update(streams: &mut SessionStreams, add: &[&str], remove: &[&str]) -> (StreamEffects, Result<(), RpcError>) {
    update_at(streams, add, remove, Instant::now())
}

fn update_at(
    streams: &mut SessionStreams,
    add: &[&str],
    remove: &[&str],
    now: Instant,
) -> (StreamEffects, Result<(), RpcError>) {
    let add = add.iter().map(|name| Ok(url(name))).collect();
    let remove: Vec<Secret> = remove.iter().map(|name| secret(name)).collect();
    streams.update(add, &remove, (now, 9))
}

fn failed(streams: &mut SessionStreams, id: u32) -> StreamEffects {
    streams.on_event(id, &StreamState::Failed { at: 5, code: "unavailable".to_owned() }, "refused")
}

/// `+id`, `-id` for each command.
fn commands(effects: &StreamEffects) -> Vec<String> {
    let command = |command: &MediaCommand| match command {
        MediaCommand::AddStream(start) => format!("+{} of {}", start.id, start.output),
        MediaCommand::RemoveStream { id } => format!("-{id}"),
        other => panic!("{other:?}"),
    };
    effects.commands.iter().map(command).collect()
}

fn removed(id: u32) -> Fact {
    Fact::StreamEnded { id, at: 9, failure: None }
}

#[test]
fn the_next_media_process_begins_with_the_streams_that_are_alive() {
    let mut streams = begun(&["a", "b"]);
    update(&mut streams, &[], &["a"]).1.unwrap();
    let retried = Fact::StreamRetried { id: 1, at: 7, message: "it died".to_owned() };
    assert_eq!(streams.interrupted(7, "it died"), [retried]);
    // What changes meanwhile is told with its begin.
    let (effects, told) = update(&mut streams, &["c"], &[]);
    assert_eq!((commands(&effects).len(), told), (0, Ok(())));
    assert_eq!(streams.interrupted(8, "another died"), [], "they were not connected");
    let ids: Vec<u32> = streams.begin().0.iter().map(|start| start.id).collect();
    assert_eq!(ids, [1, 2]);
    assert_eq!(commands(&update(&mut streams, &[], &["c"]).0), ["-2"]);
}

#[test]
fn a_stream_is_told_as_it_gets_on() {
    let mut streams = begun(&["a"]);
    assert_eq!(streams.on_event(0, &StreamState::Connecting, "").facts, []);
    let active = streams.on_event(0, &StreamState::Active { at: 3 }, "");
    assert_eq!(active.facts, [Fact::StreamConnected { id: 0, at: 3 }]);
    let retried = streams.on_event(0, &StreamState::Retrying { at: 4 }, "lost");
    assert_eq!(retried.facts, [Fact::StreamRetried { id: 0, at: 4, message: "lost".to_owned() }]);
    let failed = failed(&mut streams, 0);
    assert_eq!(failed.facts, [Fact::StreamEnded { id: 0, at: 5, failure: Some("refused".to_owned()) }]);
    let failure = Some((Code::Unavailable, "refused".to_owned()));
    assert_eq!(failed.over, Some(StreamsOver { output: 1, failure }));
    // The first end counts; what is not known is nothing.
    for id in [0, 7] {
        assert_eq!(streams.on_event(id, &StreamState::Active { at: 6 }, "").facts, []);
    }
}

#[test]
fn the_last_live_stream_decides_how_the_output_ends() {
    let mut streams = begun(&["good", "bad"]);
    assert_eq!(failed(&mut streams, 1).over, None);
    let (effects, told) = update(&mut streams, &[], &["good"]);
    assert_eq!((effects.over, told), (Some(StreamsOver { output: 1, failure: None }), Ok(())));

    let mut streams = begun(&["good", "bad"]);
    assert_eq!(update(&mut streams, &[], &["good"]).0.over, None);
    assert!(failed(&mut streams, 1).over.is_some_and(|over| over.failure.is_some()));
    // Beside a file it goes on, and a stream may come back.
    let (effects, told) = update(&mut streams, &["good"], &[]);
    assert_eq!((commands(&effects), told), (vec!["+2 of 1".to_owned()], Ok(())));
    assert_eq!(effects.reopened, Some(1));
    assert_eq!(update(&mut streams, &["another"], &["good"]).0.reopened, None, "one was alive all the time");
    assert!(failed(&mut streams, 3).over.is_some());
    let (effects, _) = update(&mut streams, &["x"], &["x"]);
    assert!(effects.reopened.is_none() && effects.over.is_some(), "it came and went");
    let (effects, _) = update(&mut streams, &["good"], &[]);
    assert_eq!((commands(&effects), effects.reopened), (vec!["+5 of 1".to_owned()], Some(1)));
    assert!(failed(&mut streams, 5).over.is_some());
}

#[test]
fn what_is_added_and_removed_is_shown_at_once() {
    let mut streams = begun(&["a"]);
    let (effects, told) = update(&mut streams, &["b"], &["a"]);
    assert_eq!(told, Ok(()));
    assert_eq!(effects.facts, [Fact::stream_added(1, "rtmp://h/app/b"), removed(0)]);
    assert_eq!(commands(&effects), ["+1 of 1", "-0"]);
    assert_eq!(effects.over, None);
    // The media process says the same later.
    let late = streams.on_event(0, &StreamState::Finished { at: 11 }, "");
    assert!(late.facts.is_empty() && late.over.is_none());
    assert_eq!(streams.on_event(0, &StreamState::Failed { at: 11, code: String::new() }, "late").facts, []);
    assert!(failed(&mut streams, 1).over.is_some_and(|over| over.failure.is_some()));
}

#[test]
fn a_call_that_comes_again_changes_nothing_and_is_answered_well() {
    let (now, mut streams) = (Instant::now(), begun(&["a", "b"]));
    for (n, expected) in [2, 0, 0].into_iter().enumerate() {
        let (effects, told) = update_at(&mut streams, &["c"], &["a"], now + Duration::from_secs(n as u64));
        assert_eq!((effects.facts.len(), effects.commands.len(), told), (expected, expected, Ok(())));
        assert_eq!(effects.over, None);
    }
    let (_, told) = update_at(&mut streams, &[], &["a"], now + REPEAT_WINDOW);
    assert_eq!(told, Err(RpcError::new(Code::NotFound, "stream rtmp://{...} not found")));
    // It was removed, and may be added again.
    let (effects, _) = update(&mut streams, &["a"], &[]);
    assert_eq!(commands(&effects), ["+3 of 1"]);
}

#[test]
fn errors_are_joined_and_the_rest_is_done() {
    let mut streams = begun(&["a"]);
    let add = vec![Err(RpcError::new(Code::InvalidArgument, "invalid url rtmp://{...}: invalid scheme")), Ok(url("b"))];
    let remove = [secret("canary-1"), secret("a")];
    let (effects, told) = streams.update(add, &remove, (Instant::now(), 9));
    let message = "invalid url rtmp://{...}: invalid scheme\nstream rtmp://{...} not found";
    assert_eq!(told, Err(RpcError::new(Code::InvalidArgument, message)));
    assert_eq!(commands(&effects), ["+1 of 1", "-0"]);
}

/// What is to be removed is not checked: it may be anything.
#[test]
fn a_url_that_is_not_found_is_not_quoted() {
    let mut streams = begun(&["a"]);
    let urls = [
        ("rtmp://h/app/canary", "rtmp://"),
        ("rtmp://canary", "rtmp://"),
        ("rtmps://h/app/canary/", "rtmps://"),
        ("rtmp://u:canary/x@h/app/a", "rtmp://"),
        ("srt://canary?passphrase=canary", "srt://"),
        ("srt://h:1/canary", "srt://"),
        ("wss://h/canary", "wss://"),
        ("mux://canary", "mux://"),
        ("https://h/app/canary", ""),
        ("canary", ""),
    ];
    let remove = urls.map(|(url, _)| Secret::new(url.to_owned()));
    let (_, told) = streams.update(vec![], &remove, (Instant::now(), 9));
    let expected = urls.map(|(_, scheme)| format!("stream {scheme}{{...}} not found")).join("\n");
    assert_eq!(told, Err(RpcError::new(Code::NotFound, expected)));
}

#[test]
fn an_egress_without_streams_is_not_updated() {
    let mut streams = SessionStreams::new(None, vec![]);
    let (effects, told) = update(&mut streams, &["a"], &["b"]);
    assert!(effects.facts.is_empty() && effects.commands.is_empty());
    assert_eq!(told, Err(RpcError::new(Code::InvalidArgument, "UpdateStream called on non-streaming egress")));
    assert_eq!(streams.begin(), (vec![], vec![]));
}

#[test]
fn a_shorthand_is_shown_resolved_and_removed_in_either_form() {
    let given = || StreamUrl { url: Secret::new("mux://canary".to_owned()), ..url("canary") };
    let mut streams = SessionStreams::new(Some(0), vec![given()]);
    // Before the media process begins there is nothing to command.
    let (effects, told) = update(&mut streams, &["b"], &[]);
    assert_eq!((effects.facts.len(), effects.commands.len(), told), (1, 0, Ok(())));
    let (starts, facts) = streams.begin();
    assert_eq!(starts.iter().map(|start| start.id).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(starts[0].url.reveal(), "rtmp://h/app/canary");
    assert_eq!(facts, [Fact::stream_added(0, "rtmp://h/app/canary")]);
    assert!(!format!("{streams:?} {facts:?} {starts:?}").contains("canary"));
    // The same stream, whichever form is given.
    let (effects, _) = streams.update(vec![Ok(given()), Ok(url("canary"))], &[], (Instant::now(), 9));
    assert_eq!(effects.facts, []);
    let (effects, told) = update(&mut streams, &[], &["canary"]);
    assert_eq!((effects.facts, told), (vec![removed(0)], Ok(())));
    let (_, told) = streams.update(vec![], &[given().url], (Instant::now(), 9));
    assert_eq!(told, Ok(()));
}

#[test]
fn a_stream_removed_before_the_beginning_does_not_begin() {
    let mut streams = SessionStreams::new(Some(0), vec![url("a"), url("b")]);
    let (effects, _) = update(&mut streams, &[], &["a"]);
    assert_eq!((effects.facts, effects.commands.len(), effects.over), (vec![removed(0)], 0, None));
    assert_eq!(streams.begin().0.iter().map(|start| start.id).collect::<Vec<_>>(), [1]);
}

#[test]
fn what_fails_while_the_recording_ends_has_not_failed() {
    let mut streams = begun(&["a", "b"]);
    streams.ending();
    let late = failed(&mut streams, 0);
    assert_eq!((late.facts, late.over), (vec![Fact::StreamEnded { id: 0, at: 5, failure: None }], None));

    // The media process ends by itself: the first stream that finishes tells.
    let mut streams = begun(&["a", "b"]);
    assert_eq!(streams.on_event(0, &StreamState::Finished { at: 5 }, "").over, None);
    assert_eq!(failed(&mut streams, 1).over, None);
}

#[test]
fn the_number_of_streams_is_bounded() {
    let mut streams = begun(&[]);
    let names: Vec<String> = (0..=MAX_LIVE).map(|n| format!("name-{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (effects, told) = update(&mut streams, &names, &[]);
    assert_eq!((effects.commands.len(), told.unwrap_err().code), (MAX_LIVE, Code::ResourceExhausted));
    let (_, told) = update(&mut streams, &[], &names[..1]);
    assert_eq!(told, Ok(()));
    assert_eq!(update(&mut streams, &names[MAX_LIVE..], &[]).1, Ok(()));
}

#[test]
fn a_task_in_the_place_of_this_one_gets_what_is_alive_with_its_ids() {
    let mut streams = SessionStreams::of(Some(1), vec![(1, url("b")), (4, url("e"))], 7);
    let starts: Vec<u32> = streams.begin().0.iter().map(|start| start.id).collect();
    assert_eq!(starts, [1, 4]);
    assert_eq!(streams.retried(5, "it died").len(), 2);
    let (effects, _) = update(&mut streams, &["h"], &["b"]);
    assert_eq!(commands(&effects), ["+7 of 1", "-1"]);
    failed(&mut streams, 4);
    let live = vec![LiveStream { id: 7, url: secret("h") }];
    assert_eq!(streams.left(), Some(LiveStreams { next_id: 8, live }));
    // They end with the recording, and one that goes on has them all the same.
    streams.ending();
    assert_eq!(streams.left(), None);
}

#[derive(Clone, Debug)]
enum Step {
    Add(u8),
    Remove(u8),
    Active(u32),
    Finished(u32),
    Failed(u32),
    Begin,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0u8..4).prop_map(Step::Add),
        3 => (0u8..4).prop_map(Step::Remove),
        1 => (0u32..8).prop_map(Step::Active),
        1 => (0u32..8).prop_map(Step::Finished),
        2 => (0u32..8).prop_map(Step::Failed),
        1 => Just(Step::Begin),
    ]
}

proptest! {
    #[test]
    fn every_stream_ends_once_and_is_alive_once(steps in proptest::collection::vec(step(), 0..60)) {
        let mut streams = SessionStreams::new(Some(0), vec![url("0")]);
        let mut known = BTreeSet::from([0]);
        let (mut ended, mut running, mut has_begun) = (BTreeSet::new(), BTreeSet::new(), false);
        for step in steps {
            let name = |n: u8| n.to_string();
            let effects = match step {
                Step::Add(n) => update(&mut streams, &[&name(n)], &[]).0,
                Step::Remove(n) => update(&mut streams, &[], &[&name(n)]).0,
                Step::Active(id) => streams.on_event(id, &StreamState::Active { at: 1 }, ""),
                Step::Finished(id) => streams.on_event(id, &StreamState::Finished { at: 1 }, ""),
                Step::Failed(id) => failed(&mut streams, id),
                Step::Begin if has_begun => continue,
                Step::Begin => {
                    has_begun = true;
                    running.extend(streams.begin().0.iter().map(|start| start.id));
                    continue;
                }
            };
            for fact in &effects.facts {
                match fact {
                    Fact::StreamAdded { id, .. } => prop_assert!(known.insert(*id)),
                    Fact::StreamEnded { id, .. } => prop_assert!(known.contains(id) && ended.insert(*id)),
                    Fact::StreamConnected { id, .. } => prop_assert!(!ended.contains(id)),
                    other => prop_assert!(false, "{other:?}"),
                }
            }
            for command in &effects.commands {
                match command {
                    MediaCommand::AddStream(start) => prop_assert!(has_begun && running.insert(start.id)),
                    MediaCommand::RemoveStream { id } => prop_assert!(running.contains(id)),
                    other => prop_assert!(false, "{other:?}"),
                }
            }
            let live = streams.live().count();
            prop_assert_eq!(live, known.len() - ended.len());
            prop_assert!(effects.over.is_none() || live == 0);
        }
    }
}
