//! Latency of the begin and the end of recordings of live tracks.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::{Value, json};
use spillway_tests::analyser::percentile;
use spillway_tests::assets::clip;
use spillway_tests::egress::{Egress, nanos};
use spillway_tests::publisher::{Publisher, PublisherOptions, SourceKind};
use spillway_tests::servers::TestServers;

/// Recordings of each kind, one after the other.
const CALLS: usize = 20;

/// Figures of one kind.
#[derive(Debug, Serialize)]
pub struct Starts {
    /// Name.
    pub kind: &'static str,
    /// Recordings.
    pub calls: usize,
    /// From the StartEgress call to the first recorded media.
    pub to_first_frame_p50_ms: f64,
    /// As `to_first_frame_p50_ms`.
    pub to_first_frame_p95_ms: f64,
    /// From the StopEgress call to EGRESS_COMPLETE in ListEgress.
    pub stop_to_complete_p50_ms: f64,
    /// As `stop_to_complete_p50_ms`.
    pub stop_to_complete_p95_ms: f64,
}

/// Short recordings of a track and of a room.
pub async fn measure() -> Result<Vec<Starts>> {
    let servers = TestServers::start("").await?;
    let _dispatcher = servers.dispatcher("dispatcher", "").await?;
    let person = Publisher::join(&servers.api, "starts", "p0", PublisherOptions::default()).await?;
    let picture = person.publish(&clip("p0-720.h264")?, SourceKind::Camera).await?;
    person.publish(&clip("p0.opus")?, SourceKind::Microphone).await?;
    // Tracks are live and known to the server before anything is asked.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let path = servers.folder().join("files/starts-{time}").to_string_lossy().into_owned();
    let track = json!({ "room_name": "starts", "track_id": picture, "file": { "filepath": path } });
    let room = json!({
        "room_name": "starts", "layout": "grid", "file_outputs": [{ "filepath": path, "file_type": "MP4" }],
    });
    let mut all = Vec::new();
    for (kind, method, request) in [("track", "StartTrackEgress", track), ("room", "StartRoomCompositeEgress", room)] {
        let starts = of(&servers, kind, method, &request).await.context(kind)?;
        println!(
            "{kind}: {} calls, first frame after p50 {:.0} ms, p95 {:.0} ms; stop to COMPLETE p50 {:.0} ms, p95 {:.0} ms",
            starts.calls,
            starts.to_first_frame_p50_ms,
            starts.to_first_frame_p95_ms,
            starts.stop_to_complete_p50_ms,
            starts.stop_to_complete_p95_ms
        );
        all.push(starts);
    }
    Ok(all)
}

async fn of(servers: &TestServers, kind: &'static str, method: &str, request: &Value) -> Result<Starts> {
    let (mut first, mut last) = (Vec::new(), Vec::new());
    for _ in 0..CALLS {
        let asked = SystemTime::now().duration_since(UNIX_EPOCH).context("read the clock")?.as_secs_f64() * 1000.0;
        let egress = Egress::start(&servers.api, method, request.clone()).await?;
        egress.active().await?;
        // Calls must not fall into step with the publisher's key frames.
        tokio::time::sleep(Duration::from_secs_f64(rand::random_range(1.0..2.0))).await;
        let (info, stopped) = egress.stop().await?;
        first.push(nanos(&info["file_results"][0]["started_at"]) as f64 / 1e6 - asked);
        last.push(stopped.as_secs_f64() * 1000.0);
    }
    Ok(Starts {
        kind,
        calls: CALLS,
        to_first_frame_p50_ms: percentile(&first, 0.5),
        to_first_frame_p95_ms: percentile(&first, 0.95),
        stop_to_complete_p50_ms: percentile(&last, 0.5),
        stop_to_complete_p95_ms: percentile(&last, 0.95),
    })
}
