//! Whole egresses: livekit-server's own API → our dispatcher → a runner → a file that is looked at and listened to.
//!
//! The harness is our own (libtest-mimic), because servers shared by all cases must be ended when the last case is over;
//! names filter as with any test: `cargo test --workspace --test e2e -- track`.
//! Cases that need the same room share one run of it (`shared_recordings`, `codecs`), so that recordings run side by side.
//! `--test-threads` is how many cases record at a time (2); cases that only wait are not counted.

mod harness;
mod recording_probe;
mod publishers;
mod codecs;
mod room_composite;
mod participant;
mod track_composite;
mod track;
mod media;
mod multi;
mod hls;
mod players;
mod images;
mod rtmp;
mod srt;
mod websocket;
mod relays;
mod kinds;
mod web;
mod limits;
mod edges;
mod mistakes;
mod guard;
mod page_guard;
mod faults;
mod resume;
mod uploads;
mod clouds;
mod probe;
mod lambda;
mod pushed;
mod fleet;
mod image;
mod compose;
mod foreign;
mod applications;
mod networks;
mod template;
mod console;
mod analyser_selftest;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    // Started again inside of a network namespace.
    if let Some(code) = page_guard::inside() {
        return code;
    }
    let mut arguments = Arguments::from_args();
    let places = arguments.test_threads.unwrap_or(harness::PLACES);
    harness::set_places(places);
    arguments.test_threads = Some(places + harness::WAITING);
    let cases: Vec<Vec<Trial>> = vec![
        analyser_selftest::cases(),
        room_composite::cases(),
        track::cases(),
        track_composite::cases(),
        participant::cases(),
        media::cases(),
        multi::cases(),
        hls::cases(),
        players::cases(),
        images::cases(),
        rtmp::cases(),
        srt::cases(),
        websocket::cases(),
        relays::cases(),
        kinds::cases(),
        web::cases(),
        limits::cases(),
        mistakes::cases(),
        guard::cases(),
        page_guard::cases(),
        edges::cases(),
        foreign::cases(),
        applications::cases(),
        networks::cases(),
        template::cases(),
        console::cases(),
        faults::cases(),
        resume::cases(),
        uploads::cases(),
        clouds::cases(),
        probe::cases(),
        lambda::cases(),
        pushed::cases(),
        fleet::cases(),
        image::cases(),
        compose::cases(),
    ];
    let conclusion = libtest_mimic::run(&arguments, cases.into_iter().flatten().collect());
    if !arguments.list && !arguments.include_ignored && !arguments.ignored {
        harness::skipped(arguments.filter.as_deref()).iter().for_each(|line| println!("{line}"));
    }
    harness::times().iter().for_each(|line| println!("{line}"));
    harness::failures().iter().for_each(|line| println!("{line}"));
    let orphans = harness::close();
    for (pid, command) in &orphans {
        eprintln!("left behind by the shared dispatcher: {pid} {command}");
    }
    if !orphans.is_empty() && !conclusion.has_failed() {
        std::process::exit(101);
    }
    conclusion.exit()
}
