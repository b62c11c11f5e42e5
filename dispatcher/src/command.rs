//! Commands of `spillway-dispatcher` besides serving: `bill`, `price`, `target`, `probe`, `doctor`, `healthy`. Each but the last
//! reads the configuration, does one thing and exits.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::{Subcommand, ValueEnum};
use spillway_bus::{Switches, Tasks};
use spillway_cost::PriceList;
use spillway_dispatcher::Config;
use spillway_dispatcher::billing::bill::{self, By};
use spillway_dispatcher::billing::price_quote;
use spillway_dispatcher::config::ConfigError;
use spillway_dispatcher::probe::ProbeOptions;
use spillway_dispatcher::targets::{OperatorState, SWITCHES};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::checks;

/// Below the timeout of ECS' and Docker's health checks, so that the reason is printed.
const HEALTHY_TIMEOUT: Duration = Duration::from_secs(4);

/// A command line with its arguments; the comments below are its `--help`.
#[derive(Subcommand)]
pub enum CliCommand {
    /// Print what finished tasks cost
    Bill {
        /// 2026-11, 2026-11-22, 7d, 12h or Unix seconds
        #[arg(long, default_value = "30d")]
        since: String,
        /// Likewise; default: now
        #[arg(long)]
        until: Option<String>,
        /// What the rows are
        #[arg(long, value_enum, default_value = "room")]
        by: By,
        /// Comma-separated values instead of a table
        #[arg(long)]
        csv: bool,
    },
    /// Print what a recording would cost on each configured target, or on everything in the price list
    Price {
        /// A request as `spillway-runner --request` takes it, JSON or YAML; - for standard input
        #[arg(long, required_unless_present = "list")]
        request: Option<PathBuf>,
        /// Length of the recording
        #[arg(long, default_value = "60")]
        minutes: f64,
        /// Print the price list instead, as a start for one of your own
        #[arg(long)]
        list: bool,
    },
    /// Pause, drain or resume a target, for all dispatchers
    Target {
        /// What to do with it
        #[arg(value_enum)]
        what: TargetAction,
        /// Its name in the configuration
        name: String,
    },
    /// Launch one task that checks what a recording would need where it would run, and print what it finds and what to change
    Probe {
        /// Name of a target in the configuration; default: each of them in turn
        #[arg(long)]
        target: Option<String>,
        /// For everything from the launch to the last line; default: the target's start_deadline and 75 s
        #[arg(long, value_name = "SECONDS")]
        timeout: Option<u64>,
        /// Where its object is written and removed again, below storage.prefix
        #[arg(long, default_value = "spillway-probe")]
        folder: String,
        /// Start the image that has a browser
        #[arg(long)]
        page: bool,
        /// One JSON document on standard output instead of lines
        #[arg(long)]
        json: bool,
    },
    /// Check from here: configuration, Redis, livekit-server and its API key, clocks, stores, the targets' platforms
    Doctor {
        /// One JSON document on standard output instead of lines
        #[arg(long)]
        json: bool,
    },
    /// Ask the dispatcher in this container whether it works; for a health check, which has no other program here
    Healthy {
        /// Its `health_port`
        #[arg(long, default_value = "8080")]
        port: u16,
    },
}

/// See [`OperatorState`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TargetAction {
    /// Launch nothing there; requests that no other target takes wait
    Pause,
    /// Launch there again
    Resume,
    /// Launch nothing there, as if it were not configured; what runs there goes on
    Drain,
}

impl CliCommand {
    /// `text`: the configuration, which `price` does without if there is none.
    ///
    /// # Errors
    /// When the configuration or an argument is not right, Redis does not answer, or a check has failed.
    pub async fn run(self, text: Result<String, ConfigError>) -> anyhow::Result<()> {
        match self {
            Self::Bill { since, until, by, csv } => bill(&since, until.as_deref(), by, csv, &config(text)?).await,
            Self::Price { request, minutes, list } => price(request, minutes, list, text),
            Self::Target { what, name } => target(what, &name, &config(text)?).await,
            Self::Probe { target, timeout, folder, page, json } => {
                let options = ProbeOptions { timeout: timeout.map(Duration::from_secs), folder, page };
                checks::probe(&config(text)?, target.as_deref(), &options, json).await
            }
            Self::Doctor { json } => checks::doctor(config(text), json).await,
            Self::Healthy { port } => {
                tokio::time::timeout(HEALTHY_TIMEOUT, healthy(port)).await.context("no answer in time")?
            }
        }
    }
}

async fn healthy(port: u16) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.context("connect to the health port")?;
    let request = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.context("ask the health port")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.context("read its answer")?;
    let status = String::from_utf8_lossy(&answer).split_whitespace().nth(1).map(str::to_owned);
    ensure!(status.as_deref() == Some("200"), "not healthy: {}", String::from_utf8_lossy(&answer).trim());
    Ok(())
}

fn config(text: Result<String, ConfigError>) -> anyhow::Result<Config> {
    Ok(super::read(&text?)?.1)
}

async fn bill(since: &str, until: Option<&str>, by: By, csv: bool, config: &Config) -> anyhow::Result<()> {
    let bus = super::connect(config).await?;
    let now_ms = bus.clock().unix_ms();
    let moment = |text: &str| bill::moment(text, now_ms).map_err(anyhow::Error::msg);
    let (since, until) = (moment(since)?, until.map_or(Ok(now_ms), moment)?);
    let entries = bill::read(&Tasks::new(&bus), since, until).await.context("read the ledger")?;
    let rows = bill::add_up(&entries, by);
    print!("{}", if csv { bill::csv(&rows, by) } else { bill::table(&rows, by) });
    Ok(())
}

fn price(request: Option<PathBuf>, minutes: f64, list: bool, text: Result<String, ConfigError>) -> anyhow::Result<()> {
    if !minutes.is_finite() || minutes <= 0.0 {
        bail!("--minutes must be more than 0");
    }
    // Without a configuration everything in the price list is shown; one that is given must be right.
    let config = match text {
        Err(ConfigError::Missing) => None,
        text => Some(config(text)?),
    };
    let built_in = PriceList::built_in()?;
    let prices = config.as_ref().map_or(&built_in, |config| &config.prices);
    if list {
        println!("{}", serde_json::to_string_pretty(prices)?);
        return Ok(());
    }
    let path = request.context("no request")?;
    let text = if path.as_os_str() == "-" {
        std::io::read_to_string(std::io::stdin())
    } else {
        std::fs::read_to_string(&path)
    };
    let text = text.with_context(|| format!("read {}", path.display()))?;
    let value =
        serde_yaml_ng::from_str(&text).with_context(|| format!("{} is neither JSON nor YAML", path.display()))?;
    let load = price_quote::load_of(value, config.as_ref().map(|config| &config.defaults))?;
    let quotes = price_quote::quotes(&load, minutes * 60.0, config.as_ref(), prices);
    print!("{}", price_quote::table(&quotes, prices, minutes));
    Ok(())
}

async fn target(what: TargetAction, name: &str, config: &Config) -> anyhow::Result<()> {
    if !config.targets.iter().any(|target| target.name == name) {
        let names: Vec<&str> = config.targets.iter().map(|target| target.name.as_str()).collect();
        bail!("there is no target {name}; there are {}", names.join(", "));
    }
    let operator_state = match what {
        TargetAction::Pause => Some(OperatorState::Paused),
        TargetAction::Drain => Some(OperatorState::Draining),
        TargetAction::Resume => None,
    };
    let switches = Switches::new(&super::connect(config).await?, SWITCHES);
    switches.set(name, operator_state.map(OperatorState::text)).await.context("store the switch")?;
    println!("{name}: {}", operator_state.map_or("taken again", OperatorState::text));
    Ok(())
}
