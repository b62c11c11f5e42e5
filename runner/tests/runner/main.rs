//! The runner as others see it: `alone`, `places` and part of `hostile` start the program with `--request`; for the other
//! tests `harness` plays dispatcher and livekit-server on a bus in memory. The media process is `examples/scripted_media.rs`.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod harness;
mod alone;
mod hostile;
mod places;
mod restarted;
mod resumed;
mod served;
mod several;
mod stored;
mod streams;

use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Cargo builds examples before tests, beside them.
fn scripted_media() -> PathBuf {
    let tests = std::env::current_exe().expect("we have a path");
    let built = tests.ancestors().nth(2).expect("target folder").join("examples/scripted_media");
    assert!(built.is_file(), "{} is built by `cargo test`", built.display());
    built
}

/// Polls a state, with a bound.
fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let give_up = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < give_up, "never: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
