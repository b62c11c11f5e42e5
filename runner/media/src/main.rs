//! The media process of a task. It may crash: it holds no secret but a room token, and what it wrote is in the page
//! cache. Its standard input is the socket pair to the runner.

use std::process::ExitCode;

use spillway_media::source::page::program;
use spillway_process::chain;
use spillway_process::telemetry;
use tracing::error;

/// Takes no arguments; ends with the recording, or when standard input is no socket. With those of
/// [`program::on_start`] it becomes another program.
fn main() -> ExitCode {
    if let Some(done) = program::on_start() {
        return if done.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    telemetry::init("info", telemetry::inherited_format());
    match spillway_ipc::framing::media_endpoint() {
        Ok((commands, events_tx)) => {
            spillway_media::recorder::run(commands, events_tx);
            ExitCode::SUCCESS
        }
        Err(error) => {
            error!(error = %chain(&error), "standard input is not the runner's socket");
            ExitCode::FAILURE
        }
    }
}
