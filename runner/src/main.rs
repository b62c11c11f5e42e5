//! The program: reads the command line, takes secrets out of the environment, starts the runtime, and turns the outcome into an
//! exit code.

use std::io::{Write, stdin, stdout};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use spillway_bus::{ProbeCause, ProbeLine};
use spillway_guard::{AllowEntry, AllowEntryError, GuardRules};
use spillway_plan::LimitRules;
use spillway_process::telemetry;
use spillway_protocol::Secret;
use spillway_protocol::livekit::EgressStatus;
use spillway_runner::config::Settings;
use spillway_runner::container;
use spillway_runner::oneshot::{self, Access};
use spillway_runner::probe;
use spillway_runner::serve;
use spillway_runner::session::media;
use spillway_runner::ticket::{self, Names, RunnerTask};
use spillway_runner::upload::stores;
use tracing::error;

/// For blocking calls that are left at the end: long enough for a removal on a slow disk, not for a disk that hangs.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// Records one egress of a LiveKit room or of a web page, then exits.
///
/// A dispatcher starts it without arguments. By hand: `spillway-runner --request FILE` records what FILE asks for, shows
/// progress on standard error and prints an EgressInfo as JSON on standard output. Ctrl-C finishes the file.
#[derive(Debug, Parser)]
#[command(name = "spillway-runner", version)]
struct RunnerArgs {
    /// JSON or YAML with one of room_composite, participant, track_composite, track, web, egress; "-" reads standard input.
    #[arg(long, value_name = "FILE")]
    request: Option<PathBuf>,
    /// Goes on with a recording whose task is gone, where its record says so, or finishes its uploads; started by a dispatcher.
    #[arg(long, conflicts_with = "request", env = "SPILLWAY_SALVAGE")]
    salvage: bool,
    /// Records nothing: checks what a recording would need from here and reports it; started by a dispatcher's `probe`.
    #[arg(long, conflicts_with_all = ["request", "salvage"], env = "SPILLWAY_PROBE")]
    probe: bool,
    /// livekit-server, e.g. ws://localhost:7880.
    #[arg(long, env = "LIVEKIT_URL", value_name = "URL")]
    ws_url: Option<String>,
    /// Its secret is read from LIVEKIT_API_SECRET; a ready room token from LIVEKIT_TOKEN goes before both.
    #[arg(long, env = "LIVEKIT_API_KEY", value_name = "KEY")]
    api_key: Option<String>,
    /// All files lie below it, whatever their names say. Without it relative names lie below the working directory and
    /// absolute ones are obeyed.
    #[arg(long, value_name = "FOLDER")]
    local_root: Option<PathBuf>,
    /// Opens a host inside of this network to the request: an address, a network, a name, each with or without :PORT. May be
    /// given several times.
    #[arg(long, env = "SPILLWAY_ALLOW_HOST", value_name = "HOST", value_delimiter = ',', value_parser = allowed_host)]
    allow_host: Vec<String>,
    /// Ends the recording after so many seconds.
    #[arg(long, value_name = "SECONDS")]
    max_duration: Option<u64>,
    /// Gives up when nothing could be recorded for so many seconds.
    #[arg(long, value_name = "SECONDS")]
    start_timeout: Option<u64>,
    /// How often within an hour another media process takes the place of one that died; 0: its death is the end.
    #[arg(long, value_name = "NUMBER")]
    media_restarts: Option<u32>,
    /// The media program; without it, `spillway-media` beside this one.
    #[arg(long, env = media::PROGRAM_VARIABLE, value_name = "PROGRAM")]
    media: Option<PathBuf>,
    /// debug, info, warn or error.
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log_level: String,
    /// One JSON object a line instead of text.
    #[arg(long)]
    log_json: bool,
}

/// An entry for the guard, as the configuration of a dispatcher has it.
fn allowed_host(text: &str) -> Result<String, AllowEntryError> {
    text.parse::<AllowEntry>().map(|_| text.to_owned())
}

fn main() -> ExitCode {
    let arguments = RunnerArgs::parse();
    // Other processes of this user, our own child included, cannot read our memory.
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    let outcome = match &arguments.request {
        Some(_) => run_request(arguments),
        None if arguments.probe => run_probe(),
        None => container::take_secrets_out()
            .map_err(anyhow::Error::from)
            .and_then(|()| run_task(if arguments.salvage { RunnerTask::Salvage } else { RunnerTask::Record })),
    };
    outcome.unwrap_or_else(|failed| {
        telemetry::init("info", telemetry::LogFormat::Text);
        error!("{failed:#}");
        ExitCode::FAILURE
    })
}

/// Runs `work` to its end. A call to a disk that hangs does not keep the process beyond that.
fn run<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    // The media process makes the recording: here are only messages and uploads.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("start the runtime")?;
    let done = runtime.block_on(work);
    runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);
    done
}

fn log_format(json: bool) -> telemetry::LogFormat {
    if json { telemetry::LogFormat::Json } else { telemetry::LogFormat::Text }
}

fn run_task(task: RunnerTask) -> anyhow::Result<ExitCode> {
    let names = Names::from_env(|name| std::env::var(name).ok())?;
    let (handover, key) = ticket::handover(stdin().lock())?;
    let level = if handover.log.level.is_empty() { "info" } else { &handover.log.level };
    telemetry::init(level, log_format(handover.log.json));
    run(serve::serve_task(names, &handover.redis, key, task))?;
    Ok(ExitCode::SUCCESS)
}

/// What cannot be reported to the dispatcher is in the exit status and on standard error.
fn run_probe() -> anyhow::Result<ExitCode> {
    let orders = container::take_secrets_out().map_err(anyhow::Error::from).and_then(|()| {
        let names = Names::from_env(|name| std::env::var(name).ok())?;
        let (handover, key) = ticket::handover(stdin().lock())?;
        Ok((names, handover, key))
    });
    let unreported = match orders {
        Ok((names, handover, key)) => {
            let level = if handover.log.level.is_empty() { "info" } else { &handover.log.level };
            telemetry::init(level, log_format(handover.log.json));
            run(async { Ok(probe::run(&names, &handover.redis, key).await) })?
        }
        Err(error) => Some(ProbeLine::failed("handover", ProbeCause::HandoverMissing, format!("{error:#}"))),
    };
    Ok(unreported.map_or(ExitCode::SUCCESS, |line| {
        probe::log_line(&line);
        line.cause.and_then(ProbeCause::exit_status).map_or(ExitCode::FAILURE, ExitCode::from)
    }))
}

fn run_request(arguments: RunnerArgs) -> anyhow::Result<ExitCode> {
    telemetry::init(&arguments.log_level, log_format(arguments.log_json));
    let secret = |name| std::env::var(name).ok().filter(|value| !value.is_empty()).map(Secret::new);
    let access = Access {
        ws_url: arguments.ws_url,
        api_key: arguments.api_key,
        api_secret: secret("LIVEKIT_API_SECRET"),
        token: secret("LIVEKIT_TOKEN"),
    };
    let limits = LimitRules::lasting(arguments.max_duration.map(|s| s * 1_000_000_000));
    let usual = Settings::default();
    let settings = Settings {
        media_restarts: arguments.media_restarts.unwrap_or(usual.media_restarts),
        local_root: arguments.local_root,
        start_timeout_ms: arguments.start_timeout.map_or(0, |s| s * 1000),
        guard: GuardRules { allow: arguments.allow_host },
        ..usual
    };
    let file = arguments.request.context("no request")?;
    let shot = oneshot::prepare(oneshot::read(&file)?, &access, limits)?;
    let program = arguments.media.map_or_else(media::program, Ok)?;
    let stores = stores::DefaultStoreFactory::new(&settings.guard, |name| std::env::var(name).ok());
    let info = run(serve::serve_request(shot, &settings, program, Arc::new(stores)))?;
    let mut line = serde_json::to_string_pretty(&info).context("write the EgressInfo")?;
    line.push('\n');
    stdout().write_all(line.as_bytes()).context("write the EgressInfo")?;
    let recorded = matches!(info.status(), EgressStatus::EgressComplete | EgressStatus::EgressLimitReached);
    Ok(if recorded { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
