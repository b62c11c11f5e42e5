use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde_json::{Value, json};
use spillway_tests::analyser::played;
use spillway_tests::egress::Egress;
use spillway_tests::servers::chaos::Chaos;
use spillway_tests::servers::{Ground, built};

use crate::stores::Place;

/// Seconds of media at 3 Mbit/s, and how much faster than life they happen.
const LENGTHS: [(u32, u32); 3] = [(10, 1), (300, 30), (3600, 60)];

#[derive(Debug, Serialize)]
pub struct Length {
    store: &'static str,
    recorded_s: u32,
    bytes: u64,
    /// From the StopEgress call to EGRESS_COMPLETE in ListEgress, the object there in its full size.
    stop_to_complete_ms: f64,
    /// Of which the stand-in for the store took for its slowest answer: some of them copy the parts together.
    store_ms: f64,
}

/// A recording that the media process of the stage replays, with a real runner, store and livekit-server.
pub async fn start(ground: &Ground, script: &str, output: Value) -> Result<Egress> {
    ground.api.create_room(script, 20).await?;
    let request = json!({ "room_name": script, "layout": "grid", "file_outputs": [output] });
    let egress = Egress::start(&ground.api, "StartRoomCompositeEgress", request).await?;
    egress.active().await?;
    Ok(egress)
}

/// Stop to COMPLETE for recordings of ten seconds, five minutes and an hour, on each store.
pub async fn measure() -> Result<Vec<Length>> {
    let mut all = Vec::new();
    for mut place in Place::all().await? {
        let way = place.through_a_counter().await?;
        let mut ground = Ground::start("").await?;
        ground.set("SPILLWAY_MEDIA", built("spillway-replay")?);
        let spool = ground.folder().join("spool");
        let more = format!("runner: {{ spool_dir: {} }}\n{}", spool.display(), place.configuration());
        let _dispatcher = ground.dispatcher("dispatcher", &more).await?;
        for (seconds, speed) in LENGTHS {
            let length =
                of(&ground, &place, way.as_ref(), seconds, speed).await.with_context(|| format!("{seconds} s"))?;
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

async fn of(ground: &Ground, place: &Place, way: Option<&Chaos>, seconds: u32, speed: u32) -> Result<Length> {
    let folder = ground.folder().join("lengths");
    let name = format!("{seconds}.mp4");
    let mut output = place.output(&folder, &name);
    output["file_type"] = json!("MP4");
    let begun = Instant::now();
    let egress = start(ground, &format!("replay {seconds}s {speed}x 3000k"), output).await?;
    tokio::time::sleep((Duration::from_secs(u64::from(seconds / speed) + 1)).saturating_sub(begun.elapsed())).await;
    way.inspect(|way| way.count_again());
    let (info, took) = egress.stop().await?;
    let store = way.map(|way| way.tally("POST").slowest.max(way.tally("PUT").slowest)).unwrap_or_default();
    ensure!(info["status"] == "EGRESS_COMPLETE", "{info}");
    let path = folder.join(&name);
    place.fetch(&path, &info["file_results"][0]).await?;
    let bytes = std::fs::metadata(&path).context("look at the file")?.len();
    judge(&path, seconds)?;
    std::fs::remove_file(&path).context("forget the file")?;
    Ok(Length {
        store: place.name(),
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
