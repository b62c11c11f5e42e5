//! `spillway-dispatcher`: reads the configuration, connects to Redis, runs a [`Dispatcher`] until a signal ends it.
//! SIGHUP reads the configuration again; SIGTERM drains, a second one ends the recordings. Other commands are in
//! `command`.

mod command;
mod checks;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use command::CliCommand;
use spillway_bus::Bus;
use spillway_dispatcher::config::keys::File;
use spillway_dispatcher::{Config, Dispatcher, Setup, config};
use spillway_process::shutdown::{Signal, Signals};
use spillway_process::telemetry::{self, LogFormat};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info};

#[derive(Parser)]
#[command(
    name = "spillway-dispatcher",
    version,
    about = "Takes StartEgress from livekit-server and starts a runner for each"
)]
struct DispatcherArgs {
    /// YAML file
    #[arg(long, env = "EGRESS_CONFIG_FILE")]
    config: Option<PathBuf>,
    /// YAML text; goes before the file
    #[arg(long, env = "EGRESS_CONFIG_BODY", hide_env_values = true)]
    config_body: Option<String>,
    /// Print the effective configuration, secrets hidden, and the keys without effect; start nothing
    #[arg(long)]
    check_config: bool,
    /// Search for tasks without an egress and egresses without a task, for orphan_grace where there are any; print what
    /// is done about each and why, end the orphans, and exit
    #[arg(long)]
    sweep: bool,
    /// With --sweep: end nothing
    #[arg(long, requires = "sweep")]
    dry_run: bool,
    #[command(subcommand)]
    command: Option<CliCommand>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(DispatcherArgs::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The log may not have been started yet.
            eprintln!("spillway-dispatcher: {error:#}");
            error!(error = format!("{error:#}"), "dispatcher ends");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: DispatcherArgs) -> anyhow::Result<()> {
    let DispatcherArgs { config, config_body, check_config, sweep, dry_run, command } = arguments;
    let source = || config::text_of(config_body.clone(), config.clone());
    if let Some(command) = command {
        return command.run(source()).await;
    }
    let (file, config) = read(&source()?)?;
    if sweep {
        telemetry::init("warn", LogFormat::Text);
        let bus = connect(&config).await?;
        let setup = Setup::open(config, bus).await.context("sweep")?;
        let findings = spillway_dispatcher::sweep(setup, dry_run).await.context("sweep")?;
        for finding in &findings {
            println!("{finding}");
        }
        println!("{} found{}", findings.len(), if dry_run { ", nothing was changed" } else { "" });
        return Ok(());
    }
    if check_config {
        print!("{}", config::check::report(&config, &file).context("print the configuration")?);
        return Ok(());
    }
    telemetry::init(&config.log_level, if config.log_json { LogFormat::Json } else { LogFormat::Text });
    let mut signals = Signals::listen().context("listen to signals")?;
    let bus = connect(&config).await?;
    let setup = Setup::open(config, bus).await.context("start")?;
    let dispatcher = Dispatcher::start(setup).await.context("start")?;

    let mut hang_up = signal(SignalKind::hangup()).context("listen to SIGHUP")?;
    let asked = loop {
        tokio::select! {
            asked = signals.next() => break asked,
            _ = hang_up.recv() => {
                match source().map_err(anyhow::Error::from).and_then(|text| read(&text)) {
                    Ok((_, config)) => dispatcher.reload(config).await,
                    Err(error) => error!(error = format!("{error:#}"), "configuration not read again; the old one stays"),
                }
            }
        }
    };
    if asked == Signal::Term {
        info!("SIGTERM: recordings go on, a second signal ends them");
        let again = tokio::select! {
            _ = dispatcher.drained() => false,
            _ = signals.next() => true,
        };
        if !again {
            dispatcher.leave().await;
            return Ok(());
        }
    }
    info!("ending every recording");
    dispatcher.end_all().await;
    dispatcher.drained().await;
    dispatcher.leave().await;
    Ok(())
}

fn read(text: &str) -> anyhow::Result<(File, Config)> {
    let file = config::read(text, &|name| std::env::var(name).ok())?;
    let config = Config::from_file(&file)?;
    Ok((file, config))
}

async fn connect(config: &Config) -> anyhow::Result<Bus> {
    Bus::connect(&config.redis).await.context("unable to connect to redis")
}
