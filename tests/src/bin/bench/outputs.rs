//! What outputs cost beside a file: CPU of a composite with an MP4 alone, and with HLS, two RTMP streams and images too.

use std::time::Duration;

use anyhow::Result;
use serde::Serialize;
use serde_json::{Value, json};
use spillway_tests::egress::{Egress, connected};
use spillway_tests::servers::TestServers;
use spillway_tests::servers::rtmp_server::{LIVE, RtmpServer};

use crate::live::{mp4, people, rtmp};
use crate::processes;
use crate::stores::StoreTarget;

const ROOM: &str = "outputs";
/// Of a segment, and between two images.
const SEGMENT_S: u64 = 4;
const IMAGE_S: u64 = 5;

/// Figures of all runs.
#[derive(Debug, Serialize)]
pub struct OutputsCost {
    /// CPU seconds of runner and media process per second with an MP4 alone, of each run.
    mp4_cores: Vec<f64>,
    /// The same with all outputs.
    all_cores: Vec<f64>,
    /// Means, the second less the first.
    more_cores: f64,
}

/// A room of four 720p at 720p30; both requests one after the other, in each run.
pub async fn measure(seconds: f64, runs: usize) -> Result<OutputsCost> {
    let server = RtmpServer::start()?;
    let servers = TestServers::start("").await?;
    let _dispatcher = servers.dispatcher("dispatcher", "").await?;
    let _people = people(&servers, ROOM, 4, 720).await?;
    let folder = servers.folder().join("outputs");
    let urls = [server.url(LIVE, "first"), server.url(LIVE, "second")];
    let alone = json!({ "room_name": ROOM, "layout": "grid", "file_outputs": [mp4(&folder)] });
    let mut all = alone.clone();
    all["segment_outputs"] = json!([StoreTarget::Disk.segments(&folder.join("hls"), SEGMENT_S)]);
    all["stream_outputs"] = json!([rtmp(&[&urls[0], &urls[1]])]);
    all["image_outputs"] = json!([{
        "capture_interval": IMAGE_S, "filename_prefix": folder.join("image").to_string_lossy(),
    }]);
    let (mut mp4_cores, mut all_cores) = (vec![], vec![]);
    for _ in 0..runs.max(1) {
        mp4_cores.push(cores(&servers, &alone, 0, seconds).await?);
        all_cores.push(cores(&servers, &all, urls.len(), seconds).await?);
    }
    let more_cores = mean(&all_cores) - mean(&mp4_cores);
    println!(
        "room 720p30 of 4 x 720p: MP4 alone {:.3} cores, with HLS, 2 RTMP and an image each {IMAGE_S} s {:.3}: {more_cores:+.3}",
        mean(&mp4_cores),
        mean(&all_cores),
    );
    Ok(OutputsCost { mp4_cores, all_cores, more_cores })
}

async fn cores(servers: &TestServers, request: &Value, streams: usize, seconds: f64) -> Result<f64> {
    let egress = Egress::start(&servers.api, "StartRoomCompositeEgress", request.clone()).await?;
    egress.active().await?;
    if streams > 0 {
        connected(&egress, streams).await?;
    }
    let pids = processes::of_recordings(servers);
    // Steady: what starting costs is over.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let cores = processes::cores(&pids, Duration::from_secs_f64(seconds)).await;
    egress.complete().await?;
    Ok(cores)
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}
