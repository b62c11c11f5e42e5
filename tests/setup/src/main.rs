//! `cargo demo`, `cargo verify`, `cargo bench-egress`, `cargo images`: what a fresh Debian machine lacks is installed and said,
//! then the job runs. Builds without GStreamer, because it is what brings GStreamer.

mod cache;
mod debian;
mod images;
mod job;
mod need;
mod step;
mod terraform;
mod tools;

use std::process::ExitCode;

const HELP: &str = "\
usage: cargo demo             record a room composite and a track from a real livekit-server
       cargo verify           every check and test
       cargo bench-egress     figures as a table and JSON (release build)
       cargo images [--dev]   container images of runner, dispatcher and Lambda, with their sizes and contents; --dev: the one
                              that the tests record in
       cargo run -p spillway-setup -- install     only install what these need

environment: SPILLWAY_CACHE   where tools, media and builds are kept (default ~/.cache/spillway)
             LIVEKIT_SERVER   a livekit-server binary to use instead of building one
             TERRAFORM        a terraform binary (1.11 or later) to use instead of building one
             CARGO_TARGET_DIR where cargo builds (default: in the cache)";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let job = arguments.next().unwrap_or_default();
    let rest: Vec<String> = arguments.collect();
    let result = match job.as_str() {
        "demo" => job::demo(&rest),
        "verify" => job::verify(&rest),
        "bench" => job::bench(&rest),
        "images" => images::images(&rest),
        "install" => need::install(need::Purpose::Test).map(|_| ()),
        _ => {
            eprintln!("{HELP}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\n{error:#}");
            ExitCode::FAILURE
        }
    }
}
