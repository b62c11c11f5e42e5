//! Latency of StartEgress in the dispatcher alone.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde::Serialize;
use serde_json::json;
use spillway_tests::analyser::percentile;
use spillway_tests::servers::TestServers;

/// Figures of one run.
#[derive(Debug, Serialize)]
pub struct Latency {
    /// 100 calls, one after the other, with the simulated launcher.
    pub start_p50_ms: f64,
    /// As `start_p50_ms`.
    pub start_p99_ms: f64,
    /// ListEgress by id: a call through Redis in the same livekit-server that no dispatcher sees.
    pub list_p50_ms: f64,
    /// 200 calls in 2 s against a launcher with Fargate's call quota.
    pub burst_accepted: usize,
    /// 200.
    pub burst_asked: usize,
    /// Duration of these calls.
    pub burst_p99_ms: f64,
}

/// StartEgress with a launcher that starts nothing.
pub async fn measure() -> Result<Latency> {
    let servers = TestServers::start("").await?;
    let _dispatcher = servers.dispatcher("dispatcher", "launcher: simulated").await?;
    servers.api.create_room("paper", 300).await?;
    let request = || {
        json!({
            "room_name": "paper", "layout": "grid",
            "file_outputs": [{ "filepath": servers.folder().join("paper-{time}.mp4").to_string_lossy(), "file_type": "MP4" }],
        })
    };
    let (mut start, mut list) = (Vec::new(), Vec::new());
    for _ in 0..100 {
        let begun = Instant::now();
        let info = servers.api.egress("StartRoomCompositeEgress", request()).await?;
        start.push(begun.elapsed().as_secs_f64() * 1000.0);
        let begun = Instant::now();
        servers.api.egress_info(info["egress_id"].as_str().unwrap_or_default()).await?;
        list.push(begun.elapsed().as_secs_f64() * 1000.0);
    }
    let mut calls = Vec::new();
    let begun = tokio::time::Instant::now();
    for number in 0..200u32 {
        tokio::time::sleep_until(begun + Duration::from_millis(10) * number).await;
        let (api, request) = (servers.api.clone(), request());
        calls.push(tokio::spawn(async move {
            let begun = Instant::now();
            let answer = api.egress("StartRoomCompositeEgress", request).await;
            (answer.is_ok(), begun.elapsed().as_secs_f64() * 1000.0)
        }));
    }
    let (mut accepted, mut burst) = (0, Vec::new());
    for call in calls {
        let (ok, took) = call.await?;
        accepted += usize::from(ok);
        burst.push(took);
    }
    ensure!(burst.len() == 200, "a call vanished");
    let latency = Latency {
        start_p50_ms: percentile(&start, 0.5),
        start_p99_ms: percentile(&start, 0.99),
        list_p50_ms: percentile(&list, 0.5),
        burst_accepted: accepted,
        burst_asked: 200,
        burst_p99_ms: percentile(&burst, 0.99),
    };
    println!(
        "StartEgress p50 {:.1} ms, p99 {:.1} ms (ListEgress p50 {:.1} ms); burst {} of 200, p99 {:.1} ms",
        latency.start_p50_ms, latency.start_p99_ms, latency.list_p50_ms, latency.burst_accepted, latency.burst_p99_ms
    );
    Ok(latency)
}
