use std::time::Instant;

use proptest::prelude::*;
use spillway_plan::segment_name::{SegmentFormat, SegmentSuffix};

use super::super::saved::SegmentsCheckpoint;
use super::*;

const SECOND: u64 = 1_000_000_000;
/// 2026-03-01T12:00:00.250Z.
const ORIGIN: i64 = 1_772_366_400_250_000_000;

fn names(live: bool, format: SegmentFormat) -> SegmentNames {
    SegmentNames {
        directory: "d/".into(),
        playlist: "a.m3u8".into(),
        live_playlist: live.then(|| "live.m3u8".into()),
        prefix: "e/a".into(),
        suffix: SegmentSuffix::Index,
        format,
    }
}

fn machine_of(names: SegmentNames) -> SegmentsMachine {
    SegmentsMachine::new(SegmentsPlan {
        output: 0,
        names,
        segment_ns: 4 * SECOND,
        folder: "/spool".into(),
        started_at: ORIGIN,
        locate: locate(),
    })
}

fn locate() -> Arc<dyn Fn(&str) -> String + Send + Sync> {
    Arc::new(|name| format!("https://primary/{name}"))
}

fn machine() -> SegmentsMachine {
    machine_of(names(false, SegmentFormat::MpegTs))
}

fn spooled(n: u32) -> SpooledSegment {
    SpooledSegment { n, at_ns: u64::from(n) * 4 * SECOND, length_ns: 4 * SECOND, bytes: 1_600_000 }
}

fn record(machine: &mut SegmentsMachine, n: u32) {
    machine.opened(n, u64::from(n) * 4 * SECOND);
    machine.closed(spooled(n));
}

fn actions(machine: &mut SegmentsMachine, now: Instant) -> Vec<SegmentsAction> {
    std::iter::from_fn(|| machine.next_action(now)).collect()
}

/// Lines of the newest playlist that are no tags, and whether it is ended.
fn listed_in(text: &str) -> (Vec<&str>, bool) {
    (text.lines().filter(|line| !line.starts_with('#')).collect(), text.ends_with("#EXT-X-ENDLIST\n"))
}

#[test]
fn a_segment_is_sent_at_once_and_listed_when_it_is_stored() {
    let (mut machine, now) = (machine(), Instant::now());
    machine.opened(0, 0);
    machine.wrote(0, 1000);
    assert_eq!((machine.spooled_bytes(), actions(&mut machine, now)), (1000, vec![]));
    machine.closed(spooled(0));
    record(&mut machine, 1);
    let put = |n: u32| SegmentsAction::Put(n, format!("d/e/a_{n:05}.ts"));
    assert_eq!(actions(&mut machine, now), [put(0), put(1)]);
    machine.stored(1, 1_600_000, false);
    assert!(actions(&mut machine, now).is_empty());
    machine.stored(0, 1_600_000, false);
    let sent = actions(&mut machine, now);
    let [SegmentsAction::PutPlaylist(name, text)] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!((name.as_str(), listed_in(text)), ("d/a.m3u8", (vec!["e/a_00000.ts", "e/a_00001.ts"], false)));
    machine.text_answered("d/a.m3u8", Some("https://x/d/a.m3u8".into()), now);
    assert_eq!((machine.totals().count, machine.spooled_bytes()), (2, 0));
    machine.end();
    let sent = actions(&mut machine, now);
    let [SegmentsAction::PutPlaylist(_, text)] = &sent[..] else { panic!("{sent:?}") };
    assert!(listed_in(text).1 && !machine.is_complete());
    machine.text_answered("d/a.m3u8", Some("https://x/d/a.m3u8".into()), now);
    assert!(machine.is_complete());
    assert_eq!(machine.locations(), (Some("https://x/d/a.m3u8".into()), None));
    assert_eq!(machine.span_ns(), Some((0, 8 * SECOND)));
    assert_eq!(machine.listed()[1], ("e/a_00001.ts".into(), false));
}

#[test]
fn the_end_waits_for_what_is_on_its_way() {
    let (mut machine, now) = (machine_of(names(true, SegmentFormat::MpegTs)), Instant::now());
    record(&mut machine, 0);
    record(&mut machine, 1);
    machine.end();
    machine.stored(0, 1, false);
    let texts = |machine: &mut SegmentsMachine| {
        let texts = actions(machine, now).into_iter().filter_map(|action| match action {
            SegmentsAction::PutPlaylist(name, text) => Some((name, text.contains("ENDLIST"))),
            _ => None,
        });
        texts.collect::<Vec<_>>()
    };
    assert_eq!(texts(&mut machine), ["d/a.m3u8", "d/live.m3u8"].map(|name| (name.to_owned(), false)));
    machine.lost(1);
    // Both are under way; the end comes after them.
    assert!(texts(&mut machine).is_empty());
    for name in ["d/a.m3u8", "d/live.m3u8"] {
        machine.text_answered(name, Some(name.into()), now);
        assert_eq!(texts(&mut machine), [(name.to_owned(), true)]);
        machine.text_answered(name, Some(name.into()), now);
    }
    assert!(machine.is_complete());
    assert_eq!(machine.totals().lost, 1);
}

#[test]
fn numbers_of_which_nothing_was_said_are_lost() {
    let mut machine = machine();
    record(&mut machine, 0);
    record(&mut machine, 3);
    machine.stored(0, 1, false);
    machine.stored(3, 1, false);
    assert_eq!((machine.totals().count, machine.totals().lost), (2, 2));
    // Said twice, and too late.
    machine.closed(spooled(3));
    machine.closed(spooled(1));
    assert!(machine.pending().is_empty());
}

/// A playlist in the backup cannot name what is in another store by a relative path.
#[test]
fn the_backup_names_what_the_primary_store_has_by_url() {
    let (mut machine, now) = (machine_of(names(true, SegmentFormat::FragmentedMp4)), Instant::now());
    assert_eq!(actions(&mut machine, now), [SegmentsAction::PutInit("d/e/a_init.mp4".into())]);
    machine.text_answered("d/e/a_init.mp4", Some(String::new()), now);
    for n in [0, 1, 3, 4] {
        record(&mut machine, n);
        machine.stored(n, 10, false);
    }
    let before = machine.playlist.event(false);
    actions(&mut machine, now);
    for name in ["d/a.m3u8", "d/live.m3u8"] {
        machine.text_answered(name, Some("primary".into()), now);
    }
    machine.use_backup();
    record(&mut machine, 5);
    machine.stored(5, 10, true);
    let sent = actions(&mut machine, now);
    assert!(sent.contains(&SegmentsAction::PutInit("d/e/a_init.mp4".into())));
    let text = sent.iter().find_map(|action| match action {
        SegmentsAction::PutPlaylist(name, text) if name == "d/a.m3u8" => Some(text.clone()),
        _ => None,
    });
    let text = text.unwrap();
    let (listed, _) = listed_in(&text);
    assert_eq!(listed[3..], ["https://primary/d/e/a_00004.m4s", "e/a_00005.m4s"]);
    // Else it says the same.
    assert!(text.starts_with(&before.replace("\ne/a_0", "\nhttps://primary/d/e/a_0")), "{text}\n{before}");
    assert_eq!(text.matches("#EXT-X-DISCONTINUITY\n").count(), 1);
    assert_eq!(machine.locations(), (None, None));
    assert_eq!(machine.listed().iter().filter(|(_, on_backup)| *on_backup).count(), 1);
}

#[test]
fn names_have_the_time_of_their_playlist() {
    let names = SegmentNames { suffix: SegmentSuffix::Timestamp, ..names(false, SegmentFormat::MpegTs) };
    let mut machine = machine_of(names);
    machine.opened(0, 0);
    machine.closed(SpooledSegment { at_ns: 1_999_600_000, ..spooled(0) });
    let name = &machine.pending()[0].1;
    assert!(name.ends_with("02250.ts"), "rounded as the date in the playlist: {name}");
}

#[test]
fn what_is_left_open_is_known_by_where_it_begins() {
    let mut machine = machine();
    record(&mut machine, 0);
    machine.opened(1, 4 * SECOND + 7);
    assert_eq!([0, 1, 2].map(|n| machine.unfinished_at(n)), [None, Some(4 * SECOND + 7), Some(4 * SECOND)]);
    machine.closed(SpooledSegment { at_ns: 4 * SECOND + 7, length_ns: SECOND, ..spooled(1) });
    assert_eq!((machine.unfinished_at(1), machine.unfinished_at(2)), (None, Some(5 * SECOND + 7)));
    machine.opened(2, 5 * SECOND + 7);
    machine.lost(2);
    assert_eq!(machine.unfinished_at(3), Some(9 * SECOND + 7));
}

/// Its times are those of another process, and nothing continues across its first segment.
#[test]
fn another_media_process_goes_on_behind_a_discontinuity() {
    let now = Instant::now();
    let mut machine = machine();
    record(&mut machine, 0);
    machine.opened(1, 4 * SECOND);
    // What was left of it.
    machine.closed(SpooledSegment { n: 1, at_ns: 4 * SECOND, length_ns: SECOND, bytes: 400_000 });
    machine.interrupted(2);
    machine.interrupted(2);
    let late = |n: u32| SpooledSegment { at_ns: u64::from(n) * 4 * SECOND + 700_000_000, ..spooled(n) };
    for n in 2..4 {
        machine.opened(n, late(n).at_ns);
        machine.closed(late(n));
    }
    for n in 0..4 {
        machine.stored(n, 9, false);
    }
    // And to a salvage.
    let text = serde_json::to_string(&machine.checkpoint()).unwrap();
    let checkpoint: SegmentsCheckpoint = serde_json::from_str(&text).unwrap();
    assert_eq!((checkpoint.processes.as_slice(), checkpoint.listed.len()), (&[2][..], 2));
    let mut resumed = SegmentsMachine::resume(&checkpoint, locate());
    assert_eq!(resumed.checkpoint(), checkpoint);
    let mut moved = SegmentsMachine::resume(&checkpoint, locate());
    moved.use_backup();
    for machine in [&mut machine, &mut resumed, &mut moved] {
        machine.end();
        let mut texts = actions(machine, now).into_iter().filter_map(|action| match action {
            SegmentsAction::PutPlaylist(name, text) if name == "d/a.m3u8" => Some(text),
            _ => None,
        });
        let text = texts.next_back().unwrap();
        assert_eq!(text.matches("#EXT-X-DISCONTINUITY\n").count(), 1, "{text}");
        let behind = text.split_once("#EXT-X-DISCONTINUITY\n").unwrap().1;
        assert!(behind.starts_with("#EXT-X-PROGRAM-DATE-TIME:2026-03-01T12:00:08.950Z"), "{text}");
        let (listed, ended) = listed_in(text.as_str());
        assert_eq!((listed.len(), ended), (4, true), "{text}");
    }
}

proptest! {
    /// A task that dies at any moment leaves a checkpoint of which another makes the same playlist.
    #[test]
    fn another_task_goes_on_where_the_checkpoint_is(
        steps in proptest::collection::vec((0..3u8, 0..4u32), 1..60),
    ) {
        let mut machine = machine();
        let mut n = 0;
        for (step, back) in steps {
            match step {
                0 => {
                    record(&mut machine, n);
                    n += 1;
                }
                1 => machine.stored(n.saturating_sub(back), 10, false),
                _ if n > 0 => machine.lost((n - 1).saturating_sub(back)),
                _ => {}
            }
        }
        machine.opened(n, u64::from(n) * 4 * SECOND);
        let checkpoint = machine.checkpoint();
        let text = serde_json::to_string(&checkpoint).unwrap();
        let read: SegmentsCheckpoint = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(&read, &checkpoint);
        let mut resumed = SegmentsMachine::resume(&read, locate());
        prop_assert_eq!(resumed.pending(), machine.pending());
        for machine in [&mut machine, &mut resumed] {
            for (n, _, bytes) in machine.pending() {
                machine.stored(n, bytes, false);
            }
            machine.lost(n);
            machine.end();
        }
        prop_assert_eq!(resumed.playlist.event(true), machine.playlist.event(true));
        prop_assert_eq!(resumed.totals().bytes, machine.totals().bytes);
        prop_assert!(resumed.closed && machine.closed);
    }
}
