//! The process that may crash: it holds no secret but a room token, and whatever it wrote is already with the kernel.

use std::process::ExitCode;

use spillway_process::chain;
use spillway_process::telemetry;
use tracing::error;

/// Its standard input is the runner's socket pair; a person has nothing to say to it.
fn main() -> ExitCode {
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
