//! `cargo demo`, `cargo verify`, `cargo bench-egress`, `cargo images`: what a fresh Debian machine lacks is installed and said,
//! then the job runs. Builds without GStreamer, because it is what brings GStreamer.

mod cache;
mod debian;
mod images;
mod job;
mod need;
mod step;
mod template;
mod terraform;
mod tools;

use std::io::Write;
use std::process::ExitCode;

use spillway_commands::{BENCH, Command, DEMO, Given, IMAGES, INSTALL, VERIFY};

const HELP: &str = "\
usage: cargo demo             record a room composite and a track from a real livekit-server
       cargo verify           every check and test
       cargo bench-egress     figures as a table and JSON (release build)
       cargo images [--dev]   container images of runner, dispatcher and Lambda, with their sizes and contents; --dev: the one
                              that the tests record in
       cargo run -p spillway-setup -- install     only install what these need
       each with --help       what it takes

environment: SPILLWAY_CACHE   where tools, media and builds are kept (default ~/.cache/spillway)
             LIVEKIT_SERVER   a livekit-server binary to use instead of building one
             TERRAFORM        a terraform binary (1.11 or later) to use instead of building one
             CARGO_TARGET_DIR where cargo builds (default: in the cache)";

type Job = fn(&Given) -> anyhow::Result<()>;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let job = arguments.next().unwrap_or_default();
    let rest: Vec<String> = arguments.collect();
    let (command, job): (&Command, Job) = match job.as_str() {
        "demo" => (&DEMO, job::demo),
        "verify" => (&VERIFY, job::verify),
        "bench" => (&BENCH, job::bench),
        "images" => (&IMAGES, images::images),
        "install" => (&INSTALL, |_| need::install(need::TESTS).map(|_| ())),
        _ => {
            eprintln!("{HELP}");
            return ExitCode::from(2);
        }
    };
    // Before anything is installed or built: that takes minutes, and a misspelt flag would be seen after it.
    let result = match command.check(&rest) {
        Err(refusal) => {
            eprintln!("{refusal}");
            return ExitCode::from(2);
        }
        Ok(given) if given.help => {
            // A pager that was closed early has seen enough.
            let _ = writeln!(std::io::stdout(), "{}", command.usage());
            return ExitCode::SUCCESS;
        }
        Ok(given) => job(&given),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\n{error:#}");
            ExitCode::FAILURE
        }
    }
}
