//! `spillway-bench`: what recordings cost and how soon they are there. Figures, never a verdict.

mod cost;
mod api;
mod kills;
mod starts;

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
    /// costs, `starts` how soon recordings begin and end
    #[arg(long, default_value = "")]
    only: String,
    /// Also write everything here
    #[arg(long)]
    json: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let costs = cost::measure(&args.only, args.seconds, args.runs).await?;
    let api =
        if "api".contains(args.only.as_str()) || args.only.is_empty() { Some(api::measure().await?) } else { None };
    let kills = if "kills".contains(args.only.as_str()) { kills::measure().await? } else { Vec::new() };
    let starts = if "starts".contains(args.only.as_str()) { starts::measure().await? } else { Vec::new() };
    let all = json!({ "costs": costs, "api": api, "kills": kills, "starts": starts });
    match &args.json {
        Some(path) => std::fs::write(path, all.to_string()).with_context(|| format!("write {}", path.display()))?,
        None => println!("{all}"),
    }
    Ok(())
}
