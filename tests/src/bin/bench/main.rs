//! `spillway-bench`: cost and latency of recordings. Prints figures and writes them as JSON; judges nothing.

mod api;
mod bad_networks;
mod bad_streams;
mod big_room;
mod console;
mod cost;
mod dispatcher;
mod encoded_clip;
mod estimates;
mod fleet;
mod fuzz;
mod glass;
mod kills;
mod lengths;
mod lip_sync;
mod live;
mod live_segments;
mod opus_length;
mod outputs;
mod pages;
mod processes;
mod recorded;
mod replayed_room;
mod rtmp_faults;
mod secrets;
mod segment_kills;
mod soak;
mod starts;
mod starved;
mod still_clocks;
mod stores;
mod throttle;
mod twelve_hours;
mod weights;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Parser;
use serde_json::json;
use spillway_commands::{BENCH, bench};

#[derive(Parser)]
#[command(name = "spillway-bench", about = "Cores, memory, pictures and delays of each kind of recording")]
struct Args {
    /// Seconds each kind is recorded
    #[arg(long, default_value_t = 20.0)]
    seconds: f64,
    /// Runs of each kind
    #[arg(long, default_value_t = 1)]
    runs: usize,
    /// Only measurements whose name contains this
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
    /// Rounds of `kills`, with five recordings on each of four stores, of `kills of segments`, with four, and of `rtmp faults`
    #[arg(long, default_value_t = 2)]
    rounds: usize,
    /// Only this store in `kills` and `kills of segments`: disk, S3, Azure or Google
    #[arg(long, default_value = "")]
    store: String,
    /// Of the moments of `kills` and `kills of segments`, the faults of `fleet`, and `fuzz`
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Also write everything here
    #[arg(long)]
    json: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> Result<()> {
    // Also by those who start it by hand: a name that selects nothing is no success.
    if let Err(refusal) = BENCH.check(&std::env::args().skip(1).collect::<Vec<_>>()) {
        eprintln!("{refusal}");
        std::process::exit(2);
    }
    let args = Args::parse();
    let wants = |name: &str| bench::is_selected(name, &args.only);
    let costs = cost::measure(&args.only, args.seconds, args.runs).await?;
    let api = if wants(bench::API) { Some(api::measure().await?) } else { None };
    let kills = if wants(bench::KILLS) { kills::measure(args.rounds, args.seed, &args.store).await? } else { vec![] };
    let segment_kills = if wants(bench::SEGMENT_KILLS) {
        segment_kills::measure(args.rounds, args.seed, &args.store).await?
    } else {
        vec![]
    };
    let live_segments =
        if wants(bench::LIVE_SEGMENTS) { Some(live_segments::measure(args.seconds.max(60.0)).await?) } else { None };
    let rtmp_faults = if wants(bench::RTMP_FAULTS) { Some(rtmp_faults::measure(args.rounds).await?) } else { None };
    let bad_streams =
        if wants(bench::BAD_STREAMS) { Some(bad_streams::measure(args.seconds.max(20.0)).await?) } else { None };
    let outputs = if wants(bench::OUTPUTS) { Some(outputs::measure(args.seconds, args.runs).await?) } else { None };
    let glass = if wants(bench::GLASS) { glass::measure(args.seconds).await? } else { vec![] };
    let starved = if wants(bench::STARVED) { Some(starved::measure(args.seconds.max(30.0)).await?) } else { None };
    let secrets = if wants(bench::SECRETS) { Some(secrets::measure().await?) } else { None };
    let soak = if wants(bench::SOAK) { Some(soak::measure(args.seconds.max(30.0)).await?) } else { None };
    let starts = if wants(bench::STARTS) { starts::measure().await? } else { vec![] };
    let lengths = if wants(bench::LENGTHS) { lengths::measure().await? } else { vec![] };
    let weights = if wants(bench::WEIGHTS) { weights::measure(args.seconds.max(120.0)).await? } else { vec![] };
    let pages = if wants(bench::PAGES) { pages::measure(args.seconds).await? } else { vec![] };
    let fleet = if wants(bench::FLEET) { Some(fleet::measure(args.fleet, args.seed).await?) } else { None };
    let dispatcher = if wants(bench::DISPATCHER) { Some(dispatcher::measure(args.live).await?) } else { None };
    let console = if wants(bench::CONSOLE) { Some(console::measure().await?) } else { None };
    let estimates = if wants(bench::ESTIMATES) {
        estimates::measure(args.estimates, args.longest, args.seed).await?
    } else {
        vec![]
    };
    let still_clocks =
        if wants(bench::STILL_CLOCKS) { Some(still_clocks::measure(args.seconds.max(80.0)).await?) } else { None };
    let opus_length = if wants(bench::OPUS_LENGTH) { Some(opus_length::measure(args.seconds).await?) } else { None };
    let bad_networks = if wants(bench::BAD_NETWORKS) { Some(bad_networks::measure(args.seconds).await?) } else { None };
    let lip_sync = if wants(bench::LIP_SYNC) { lip_sync::measure().await? } else { vec![] };
    let big_room = if wants(bench::BIG_ROOM) { big_room::measure(args.seconds).await? } else { vec![] };
    let fuzz = if wants(bench::FUZZ) { Some(fuzz::measure(args.seed).await?) } else { None };
    let twelve_hours =
        if wants(bench::TWELVE_HOURS) { Some(twelve_hours::measure(args.seconds.max(900.0)).await?) } else { None };
    let all = json!({
        "still_clocks": still_clocks, "opus_length": opus_length, "bad_networks": bad_networks, "lip_sync": lip_sync,
        "big_room": big_room, "fuzz": fuzz, "twelve_hours": twelve_hours,
        "estimates": estimates,
        "dispatcher": dispatcher,
        "console": console,
        "fleet": fleet,
        "segment_kills": segment_kills, "live_segments": live_segments,
        "rtmp_faults": rtmp_faults, "bad_streams": bad_streams, "outputs": outputs, "glass": glass,
        "starved": starved, "secrets": secrets, "soak": soak,
        "costs": costs, "api": api, "kills": kills, "starts": starts, "lengths": lengths, "weights": weights, "pages": pages,
    });
    match &args.json {
        Some(path) => std::fs::write(path, all.to_string()).with_context(|| format!("write {}", path.display()))?,
        None => println!("{all}"),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn flags_and_names_are_those_that_the_set_up_knows() {
        let command = Args::command();
        let mut here: Vec<(String, bool)> = command
            .get_arguments()
            .filter_map(|arg| Some((format!("--{}", arg.get_long()?), arg.get_action().takes_values())))
            .collect();
        let mut known: Vec<(String, bool)> =
            BENCH.flags.iter().map(|flag| (flag.name.to_owned(), flag.value.is_some())).collect();
        here.sort();
        known.sort();
        assert_eq!(here, known);
        assert!(bench::NAMES.starts_with(&cost::names()), "{:?}", cost::names());
        assert_eq!(bench::NAMES.len(), cost::names().len() + MODULES.len(), "the others have a line each in main");
    }

    /// Measurements in the order of their names, each with its file.
    const MODULES: [(&str, &str); 26] = [
        (bench::API, "api"),
        (bench::KILLS, "kills"),
        (bench::SEGMENT_KILLS, "segment_kills"),
        (bench::LIVE_SEGMENTS, "live_segments"),
        (bench::RTMP_FAULTS, "rtmp_faults"),
        (bench::BAD_STREAMS, "bad_streams"),
        (bench::OUTPUTS, "outputs"),
        (bench::GLASS, "glass"),
        (bench::STARVED, "starved"),
        (bench::SECRETS, "secrets"),
        (bench::SOAK, "soak"),
        (bench::STARTS, "starts"),
        (bench::LENGTHS, "lengths"),
        (bench::WEIGHTS, "weights"),
        (bench::PAGES, "pages"),
        (bench::FLEET, "fleet"),
        (bench::DISPATCHER, "dispatcher"),
        (bench::CONSOLE, "console"),
        (bench::ESTIMATES, "estimates"),
        (bench::STILL_CLOCKS, "still_clocks"),
        (bench::OPUS_LENGTH, "opus_length"),
        (bench::BAD_NETWORKS, "bad_networks"),
        (bench::LIP_SYNC, "lip_sync"),
        (bench::BIG_ROOM, "big_room"),
        (bench::FUZZ, "fuzz"),
        (bench::TWELVE_HOURS, "twelve_hours"),
    ];
    /// What a file names that uses them.
    const STORES: &[&str] = &["StoreTarget::all(", "TestBucket::", "CloudKind::"];
    const BROWSERS: &[&str] =
        &["ForeignPublisher::browser", "browser::", "hls_player::", "built_template(", "ConsoleInstallation::"];
    const STREAMS: &[&str] = &["RtmpServer::start", "SrtServer::start"];

    /// The set-up installs it for these and for no others: with `--only`, a measurement finds what it needs.
    #[test]
    fn what_a_measurement_needs_is_known_to_the_set_up() {
        let names: Vec<&str> = MODULES.iter().map(|(name, _)| *name).collect();
        assert!(bench::NAMES.ends_with(&names), "{names:?}");
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/bin/bench");
        let source = |module: &str| std::fs::read_to_string(folder.join(format!("{module}.rs"))).unwrap();
        for (used, listed) in [(STORES, bench::ON_STORES), (BROWSERS, bench::IN_A_BROWSER), (STREAMS, bench::STREAMING)]
        {
            let users = MODULES.into_iter().filter(|(_, module)| {
                let text = source(module);
                used.iter().any(|used| text.contains(*used))
            });
            assert_eq!(users.map(|(name, _)| name).collect::<Vec<_>>(), listed, "{used:?}");
        }
    }
}
