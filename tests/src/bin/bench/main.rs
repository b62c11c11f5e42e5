//! `spillway-bench`: what recordings cost and how soon they are there. Figures, never a verdict.

mod cost;
mod dispatcher;
mod estimates;
mod fleet;
mod api;
mod kills;
mod lengths;
mod starts;
mod stores;
mod weights;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Parser;
use serde_json::json;

#[derive(Parser)]
#[command(name = "spillway-bench", about = "Cores, memory, pictures and delays of each kind of recording")]
struct Args {
    /// Seconds each kind is recorded
    #[arg(long, default_value_t = 20.0)]
    seconds: f64,
    /// Runs of each kind
    #[arg(long, default_value_t = 1)]
    runs: usize,
    /// Only kinds whose name contains this; `api` is the latency of StartEgress, `kills` what a kill -9
    /// costs on each store, `starts` how soon recordings begin and end, `lengths` the stop of recordings of up
    /// to an hour, `dispatcher` what a dispatcher needs idle and with a thousand recordings, `fleet` two hundred starts in 2 s on a Fargate of this machine, `estimates` fifty recordings on three clouds and their bills, `weights` what uploads send and hold (four recordings of --seconds, at least 120)
    #[arg(long, default_value = "")]
    only: String,
    /// StartEgress calls of `fleet`
    #[arg(long, default_value_t = 200)]
    fleet: usize,
    /// Recordings of `estimates`, of a minute and up to --longest seconds
    #[arg(long, default_value_t = 50)]
    estimates: usize,
    #[arg(long, default_value_t = 300.0)]
    longest: f64,
    /// Recordings that `dispatcher` watches
    #[arg(long, default_value_t = 1000)]
    live: usize,
    /// Rounds of `kills`: five recordings on each of four stores
    #[arg(long, default_value_t = 2)]
    rounds: usize,
    /// Only this store in `kills`: disk, S3, Azure or Google
    #[arg(long, default_value = "")]
    store: String,
    /// Of the moments of `kills` and the moods of `fleet`
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Also write everything here
    #[arg(long)]
    json: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let wants = |name: &str| name.contains(args.only.as_str());
    let costs = cost::measure(&args.only, args.seconds, args.runs).await?;
    let api = if wants("api") { Some(api::measure().await?) } else { None };
    let kills = if wants("kills") { kills::measure(args.rounds, args.seed, &args.store).await? } else { vec![] };
    let starts = if wants("starts") { starts::measure().await? } else { vec![] };
    let lengths = if wants("lengths") { lengths::measure().await? } else { vec![] };
    let weights = if wants("weights") { weights::measure(args.seconds.max(120.0)).await? } else { vec![] };
    let fleet = if wants("fleet") { Some(fleet::measure(args.fleet, args.seed).await?) } else { None };
    let dispatcher = if wants("dispatcher") { Some(dispatcher::measure(args.live).await?) } else { None };
    let estimates =
        if wants("estimates") { estimates::measure(args.estimates, args.longest, args.seed).await? } else { vec![] };
    let all = json!({
        "estimates": estimates,
        "dispatcher": dispatcher,
        "fleet": fleet,
        "costs": costs, "api": api, "kills": kills, "starts": starts, "lengths": lengths, "weights": weights,
    });
    match &args.json {
        Some(path) => std::fs::write(path, all.to_string()).with_context(|| format!("write {}", path.display()))?,
        None => println!("{all}"),
    }
    Ok(())
}
