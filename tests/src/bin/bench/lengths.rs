//! Duration of the stop of recordings of up to an hour.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde_json::{Value, json};
use spillway_tests::analyser::played;
use spillway_tests::egress::Egress;
use spillway_tests::servers::fault_proxy::FaultProxy;
use spillway_tests::servers::{TestServers, built};

use crate::stores::StoreTarget;

/// Seconds of media at 3 Mbit/s, and how much faster than real time they are replayed.
const LENGTHS: [(u32, u32); 3] = [(10, 1), (300, 30), (3600, 60)];

/// One recording.
#[derive(Debug, Serialize)]
pub struct Length {
    store: &'static str,
    recorded_s: u32,
    bytes: u64,
    /// From the StopEgress call to EGRESS_COMPLETE in ListEgress with the object in its full size.
    stop_to_complete_ms: f64,
    /// Slowest response of the emulator in that time: some of them copy the parts together.
    store_ms: f64,
}

/// Starts a recording whose media process is `spillway-replay`, with a real runner, store and livekit-server. `script`
/// is the name of its room.
pub async fn start(servers: &TestServers, script: &str, output: Value) -> Result<Egress> {
    servers.api.create_room(script, 20).await?;
    let request = json!({ "room_name": script, "layout": "grid", "file_outputs": [output] });
    let egress = Egress::start(&servers.api, "StartRoomCompositeEgress", request).await?;
    egress.active().await?;
    Ok(egress)
}

/// Recordings of ten seconds, five minutes and an hour on each store.
pub async fn measure() -> Result<Vec<Length>> {
    let mut all = Vec::new();
    for mut target in StoreTarget::all().await? {
        let proxy = target.through_a_counter().await?;
        let mut servers = TestServers::start("").await?;
        servers.set("SPILLWAY_MEDIA", built("spillway-replay")?);
        let spool = servers.folder().join("spool");
        let more = format!("runner: {{ spool_dir: {} }}\n{}", spool.display(), target.configuration());
        let _dispatcher = servers.dispatcher("dispatcher", &more).await?;
        for (seconds, speed) in LENGTHS {
            let length =
                of(&servers, &target, proxy.as_ref(), seconds, speed).await.with_context(|| format!("{seconds} s"))?;
            println!(
                "{:>6}: {:>4} s, {:>4} MB, stop to COMPLETE {:.0} ms, the store's slowest answer {:.0} ms",
                length.store,
                length.recorded_s,
                length.bytes / 1_000_000,
                length.stop_to_complete_ms,
                length.store_ms
            );
            all.push(length);
        }
    }
    Ok(all)
}

async fn of(
    servers: &TestServers,
    target: &StoreTarget,
    proxy: Option<&FaultProxy>,
    seconds: u32,
    speed: u32,
) -> Result<Length> {
    let folder = servers.folder().join("lengths");
    let name = format!("{seconds}.mp4");
    let mut output = target.output(&folder, &name);
    output["file_type"] = json!("MP4");
    let begun = Instant::now();
    let egress = start(servers, &format!("replay {seconds}s {speed}x 3000k"), output).await?;
    tokio::time::sleep((Duration::from_secs(u64::from(seconds / speed) + 1)).saturating_sub(begun.elapsed())).await;
    proxy.inspect(|proxy| proxy.count_again());
    let (info, took) = egress.stop().await?;
    let store =
        proxy.map(|proxy| proxy.stats_of("POST").slowest.max(proxy.stats_of("PUT").slowest)).unwrap_or_default();
    ensure!(info["status"] == "EGRESS_COMPLETE", "{info}");
    let path = folder.join(&name);
    target.fetch(&path, &info["file_results"][0]).await?;
    let bytes = std::fs::metadata(&path).context("look at the file")?.len();
    judge(&path, seconds)?;
    std::fs::remove_file(&path).context("forget the file")?;
    Ok(Length {
        store: target.name(),
        recorded_s: seconds,
        bytes,
        stop_to_complete_ms: took.as_secs_f64() * 1000.0,
        store_ms: store.as_secs_f64() * 1000.0,
    })
}

fn judge(path: &Path, seconds: u32) -> Result<()> {
    let plays = played(path)?;
    ensure!((plays - f64::from(seconds)).abs() < 5.0 + f64::from(seconds) * 0.02, "it plays {plays:.1} s");
    Ok(())
}
