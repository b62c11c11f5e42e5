//! Bytes and requests of uploads, and memory of the runner.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use serde::Serialize;
use serde_json::json;
use spillway_tests::egress::nanos;
use spillway_tests::servers::bucket::TestBucket;
use spillway_tests::servers::fault_proxy::FaultProxy;
use spillway_tests::servers::{TestServers, built};

use crate::kills::pids_of;
use crate::lengths::start;

const KBITS: [u32; 4] = [1000, 3000, 6000, 20_000];

/// Figures of one bit rate.
#[derive(Debug, Serialize)]
pub struct Weight {
    kbits: u32,
    seconds: f64,
    /// Bytes in bodies of PUTs over bytes of the object.
    amplification: f64,
    puts_per_hour: f64,
    /// Peak of the uploading process, MB; the media process is another one.
    runner_mb: f64,
}

/// Uploads at several bit rates in real time to S3 with the usual settings.
pub async fn measure(seconds: f64) -> Result<Vec<Weight>> {
    let mut servers = TestServers::start("").await?;
    servers.set("SPILLWAY_MEDIA", built("spillway-replay")?);
    let more = format!("runner: {{ spool_dir: {} }}\n", servers.folder().join("spool").display());
    let _dispatcher = servers.dispatcher("dispatcher", &more).await?;
    let all = try_join_all(KBITS.map(|kbits| of(&servers, kbits, seconds))).await?;
    for weight in &all {
        println!(
            "{:>5} kbit/s for {:.0} s: sent {:.3} of what is stored, {:.0} PUTs an hour, runner at most {:.0} MB",
            weight.kbits, weight.seconds, weight.amplification, weight.puts_per_hour, weight.runner_mb
        );
    }
    Ok(all)
}

async fn of(servers: &TestServers, kbits: u32, seconds: f64) -> Result<Weight> {
    let mut bucket = TestBucket::s3().await?;
    let proxy = FaultProxy::start(&bucket.address(), 0).await?;
    bucket.reached_through(&proxy);
    let (provider, upload) = bucket.upload().context("S3 comes with the request")?;
    let output = json!({ "filepath": format!("{kbits}.mp4"), "file_type": "MP4", provider: upload });
    let egress = start(servers, &format!("replay 1s 1x {kbits}k"), output).await?;
    let (runner, _) = pids_of(servers, &egress.id)?;
    let peak = tokio::spawn(async move {
        let mut peak = 0.0f64;
        while let Some(now) = peak_mb(runner.as_raw_nonzero().get()) {
            peak = peak.max(now);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        peak
    });
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
    let (info, _) = egress.stop().await?;
    ensure!(info["status"] == "EGRESS_COMPLETE", "{info}");
    let file = &info["file_results"][0];
    let (bytes, seconds) = (nanos(&file["size"]) as f64, nanos(&file["duration"]) as f64 / 1e9);
    let puts = proxy.stats_of("PUT");
    Ok(Weight {
        kbits,
        seconds,
        amplification: puts.bytes as f64 / bytes,
        puts_per_hour: puts.requests as f64 / seconds * 3600.0,
        runner_mb: peak.await.context("watch the runner")?,
    })
}

/// `None` when the process is gone.
fn peak_mb(pid: i32) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<f64>().ok()? / 1000.0)
}
