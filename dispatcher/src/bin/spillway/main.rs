//! `spillway`: what an installation records and what it costs, on the command line, through the JSON API of a dispatcher's
//! console. The token comes from the environment or a file, never from the command line, which other users of a machine can
//! read.

mod api;
mod live_table;
mod shown;
mod tables;

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Parser, Subcommand};
use serde_json::{Value, json};
use spillway_dispatcher::billing::bill::By;

use self::api::{Api, ApiFailure, EventReader};
use self::live_table::LiveTable;

/// Before a broken connection is made again.
const RECONNECT: Duration = Duration::from_secs(2);
/// Cursor to the first line, and everything below it cleared.
const CLEAR: &str = "\u{1b}[H\u{1b}[J";

#[derive(Parser)]
#[command(name = "spillway", version, about = "What an installation of Spillway records, and what it costs")]
struct SpillwayArgs {
    /// Address of a dispatcher whose configuration has a `console`
    #[arg(long, env = "SPILLWAY_URL", default_value = "http://127.0.0.1:8080", global = true)]
    url: String,
    /// File with the console's token, without SPILLWAY_TOKEN in the environment; else ~/.config/spillway/token
    #[arg(long, env = "SPILLWAY_TOKEN_FILE", global = true)]
    token_file: Option<PathBuf>,
    /// JSON as the API gives it, instead of text for people
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: SpillwayCommand,
}

/// The comments below are its `--help`.
#[derive(Subcommand)]
enum SpillwayCommand {
    /// List what lives: state, quality, length, cost
    Ls {
        #[command(flatten)]
        wanted: Wanted,
    },
    /// The same, kept up to date; of one egress until it is over
    Watch {
        /// EG_…
        id: Option<String>,
        #[command(flatten)]
        wanted: Wanted,
    },
    /// Show everything that is known of an egress, live or over
    Show {
        /// EG_…
        id: String,
    },
    /// Stop an egress: its files are finished and uploaded. Needs the console's stop_token
    Stop {
        /// EG_…
        id: String,
    },
    /// List targets: whether they are asked, why not, and how fast
    Targets,
    /// Add up what finished tasks cost
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
        #[command(flatten)]
        wanted: Wanted,
    },
    /// Tell what a recording would cost on each target
    Price {
        /// A request as `spillway-runner --request` takes it, JSON or YAML; - for standard input
        #[arg(long)]
        request: PathBuf,
        /// Length of the recording
        #[arg(long, default_value = "60")]
        minutes: f64,
    },
}

/// Which egresses are wanted.
#[derive(clap::Args)]
struct Wanted {
    /// Part of the room's name
    #[arg(long)]
    room: Option<String>,
    /// Of this tenant
    #[arg(long)]
    tenant: Option<String>,
    /// `room_composite`, `participant`, `track_composite`, `track`, `media` or `web`
    #[arg(long = "type")]
    kind: Option<String>,
    /// At this target
    #[arg(long)]
    target: Option<String>,
}

impl Wanted {
    fn parameters(&self) -> Vec<(&'static str, String)> {
        let all = [("room", &self.room), ("tenant", &self.tenant), ("type", &self.kind), ("target", &self.target)];
        all.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))).collect()
    }

    fn takes(&self, row: &Value) -> bool {
        let has = |name: &str| row[name].as_str().unwrap_or_default();
        let is = |wanted: &Option<String>, name| wanted.as_ref().is_none_or(|wanted| has(name) == wanted);
        let room = self.room.as_ref().is_none_or(|room| has("room").to_lowercase().contains(&room.to_lowercase()));
        room && is(&self.tenant, "tenant") && is(&self.kind, "type") && is(&self.target, "target")
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(SpillwayArgs::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("spillway: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: SpillwayArgs) -> anyhow::Result<()> {
    let SpillwayArgs { url, token_file, json, command } = arguments;
    let api = Api::open(&url, token_file.as_deref())?;
    match command {
        SpillwayCommand::Ls { wanted } => {
            let mut view = api.get("egresses", &[]).await?;
            if let Some(rows) = view["egresses"].as_array_mut() {
                rows.retain(|row| wanted.takes(row));
            }
            let rows: Vec<&Value> = view["egresses"].as_array().into_iter().flatten().collect();
            print(if json { pretty(&view) } else { tables::egresses(&rows) })
        }
        SpillwayCommand::Watch { id, wanted } => watch(&api, id.as_deref(), &wanted, json).await,
        SpillwayCommand::Show { id } => {
            let told = api.get(&format!("egresses/{}", named(&id)?), &[]).await?;
            print(if json { pretty(&told) } else { tables::details(&id, &told) })
        }
        SpillwayCommand::Stop { id } => {
            let info = api.post(&format!("egresses/{}/stop", named(&id)?), &Value::Null).await?;
            let status = info["status"].as_str().unwrap_or("EGRESS_STARTING");
            let status = shown::plain(status.trim_start_matches("EGRESS_")).to_lowercase();
            print(if json { pretty(&info) } else { format!("{id} is {status}\n") })
        }
        SpillwayCommand::Targets => {
            let targets = api.get("targets", &[]).await?;
            print(if json { pretty(&targets) } else { tables::targets(&targets) })
        }
        SpillwayCommand::Bill { since, until, by, csv, wanted } => {
            let mut parameters = wanted.parameters();
            parameters.extend([("since", since), ("by", by.title())]);
            parameters.extend(until.map(|until| ("until", until)));
            if csv {
                return print(api.text("bill.csv", &parameters).await?);
            }
            let bill = api.get("bill", &parameters).await?;
            print(if json { pretty(&bill) } else { tables::bill(&bill, by)? })
        }
        SpillwayCommand::Price { request, minutes } => {
            let asked = json!({ "request": read_request(&request)?, "minutes": minutes });
            let told = api.post("price", &asked).await?;
            print(if json { pretty(&told) } else { tables::prices(&told) })
        }
    }
}

/// It becomes a part of a path.
fn named(id: &str) -> anyhow::Result<&str> {
    match spillway_protocol::EgressId::parse(id) {
        Ok(_) => Ok(id),
        Err(error) => bail!("{id:?} is no egress: {error}"),
    }
}

fn read_request(path: &Path) -> anyhow::Result<Value> {
    let text =
        if path.as_os_str() == "-" { std::io::read_to_string(std::io::stdin()) } else { std::fs::read_to_string(path) };
    let text = text.with_context(|| format!("read {}", path.display()))?;
    serde_yaml_ng::from_str(&text).with_context(|| format!("{} is neither JSON nor YAML", path.display()))
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

/// To standard output; a reader that has seen enough (`| head`) is no error.
fn print(text: String) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error).context("write"),
        _ => Ok(()),
    }
}

/// Follows the events until it is interrupted, or the one egress is over.
async fn watch(api: &Api, id: Option<&str>, wanted: &Wanted, json: bool) -> anyhow::Result<()> {
    let (mut table, mut seen) = (LiveTable::default(), false);
    loop {
        match watch_once(api, id, wanted, json, (&mut table, &mut seen)).await {
            Ok(()) => return Ok(()),
            Err(WatchEnd::Final(error)) => return Err(error),
            Err(WatchEnd::Broken(error)) => eprintln!("spillway: {error:#}; trying again"),
        }
        tokio::time::sleep(RECONNECT).await;
    }
}

/// Why the events are no longer followed.
enum WatchEnd {
    /// Another attempt may go well.
    Broken(anyhow::Error),
    /// No attempt will.
    Final(anyhow::Error),
}

impl From<ApiFailure> for WatchEnd {
    fn from(failure: ApiFailure) -> Self {
        if failure.is_final() { Self::Final(failure.into()) } else { Self::Broken(failure.into()) }
    }
}

/// Over one connection. `seen`: the one egress has been there. Without an error: there is nothing more to see.
async fn watch_once(
    api: &Api,
    id: Option<&str>,
    wanted: &Wanted,
    json: bool,
    (table, seen): (&mut LiveTable, &mut bool),
) -> Result<(), WatchEnd> {
    let takes = |row: &Value| id.is_none_or(|id| row["id"] == id) && wanted.takes(row);
    let on_terminal = std::io::stdout().is_terminal();
    let mut events: EventReader = api.events("events").await?;
    loop {
        let (name, event) = events.next().await?;
        if name == "trouble" {
            return Err(WatchEnd::Broken(anyhow::anyhow!(
                "{}",
                shown::safe(event["error"].as_str().unwrap_or_default())
            )));
        }
        let changed = table.on(&name, &event);
        let text: String = if json {
            format!("{}\n", json!({ "event": name, "data": event }))
        } else if on_terminal {
            let rows: Vec<&Value> = table.rows().filter(|row| takes(row)).collect();
            format!("{CLEAR}{}", tables::egresses(&rows))
        } else {
            changed.iter().filter(|row| takes(row)).map(tables::change_line).collect()
        };
        // Nobody reads any more.
        if std::io::stdout().write_all(text.as_bytes()).is_err() {
            return Ok(());
        }
        let Some(id) = id else { continue };
        match table.find(id) {
            Some(row) if row["state"] == "ended" => return Ok(()),
            Some(_) => *seen = true,
            None if *seen => return Ok(()),
            None => return Err(WatchEnd::Final(anyhow::anyhow!("{id} does not live"))),
        }
    }
}
