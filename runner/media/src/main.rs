//! The process that may crash: it holds no secret but a room token, and whatever it wrote is already with the kernel.

use std::process::ExitCode;

use spillway_process::chain;
use spillway_process::telemetry;
use tracing::error;

/// Its standard input is the runner's socket pair; a person has nothing to say to it.
fn main() -> ExitCode {
    telemetry::init("info", telemetry::inherited_form());
    match spillway_spool::framing::media_end() {
        Ok((orders, say)) => {
            spillway_media::recording::run(orders, say);
            ExitCode::SUCCESS
        }
        Err(error) => {
            error!(error = %chain(&error), "standard input is not the runner's socket");
            ExitCode::FAILURE
        }
    }
}
