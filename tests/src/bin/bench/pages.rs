//! Web pages and rooms in a page: CPU and memory of everything that records one, pictures, the begin, picture and sound.

use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::{Value, json};
use spillway_tests::analyser::picture;
use spillway_tests::analyser::sound;
use spillway_tests::analyser::sync::offset;
use spillway_tests::assets::{built_template, clip, person};
use spillway_tests::egress::{Egress, file_of, nanos};
use spillway_tests::process::below;
use spillway_tests::publisher::{Publisher, PublisherOptions, SourceKind};
use spillway_tests::servers::TestServers;
use spillway_tests::servers::page_server::PageServer;

use crate::processes;

const ROOM: &str = "pages";

/// Figures of one recording at 1280×720 and 30/s.
#[derive(Debug, Serialize)]
pub struct PageCost {
    /// What is recorded.
    pub kind: &'static str,
    /// CPU seconds of the media process, Chromium and its display per second, in the steady state.
    pub cores: f64,
    /// Memory of all these processes, shared pages counted once, MB.
    pub pss_mb: f64,
    /// Pictures of p0 with a new number per second; 0 for a page that stands still.
    pub different_fps: f64,
    /// From the Start call to the first recorded moment.
    pub start_to_first_frame_ms: f64,
    /// Median of picture − sound; `None`: there is no sound.
    pub offset_ms: Option<f64>,
    /// p99 of its absolute value.
    pub offset_p99_ms: Option<f64>,
}

/// A clock page, a page that stands still, and our template with one and with four people.
pub async fn measure(seconds: f64) -> Result<Vec<PageCost>> {
    let servers = TestServers::start("").await?;
    let folder = built_template()?.join("site");
    let settings = format!("composite_engine: page\nrunner: {{ template_folder: \"{}\" }}\n", folder.display());
    let _dispatcher = servers.dispatcher("dispatcher", &settings).await?;
    let pages = PageServer::start().await?;
    let mut costs = Vec::new();
    for (kind, query) in [("clock page", ""), ("static page", "still=1")] {
        let request = json!({ "url": pages.page(query) });
        costs.push(one(&servers, kind, "StartWebEgress", request, seconds).await.context(kind)?);
    }
    let mut people = Vec::new();
    for (kind, count) in [("room page of 1 x 720p", 1), ("room page of 4 x 720p", 4)] {
        for index in people.len()..count {
            people.push(joined(&servers, &format!("p{index}")).await?);
        }
        // Tracks are live and known to the server before anything is asked.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let request = json!({ "room_name": ROOM, "layout": "grid" });
        costs.push(one(&servers, kind, "StartRoomCompositeEgress", request, seconds).await.context(kind)?);
    }
    Ok(costs)
}

async fn joined(servers: &TestServers, who: &str) -> Result<Publisher> {
    let publisher = Publisher::join(&servers.api, ROOM, who, PublisherOptions::default()).await?;
    publisher.publish(&clip(&format!("{who}-720.h264"))?, SourceKind::Camera).await?;
    publisher.publish(&clip(&format!("{who}.opus"))?, SourceKind::Microphone).await?;
    Ok(publisher)
}

async fn one(
    servers: &TestServers,
    kind: &'static str,
    method: &str,
    mut request: Value,
    seconds: f64,
) -> Result<PageCost> {
    let path = servers.folder().join("files/page-{time}.mp4");
    request["file_outputs"] = json!([{ "filepath": path.to_string_lossy(), "file_type": "MP4" }]);
    request["preset"] = json!("H264_720P_30");
    let asked = processes::unix_ms();
    let egress = Egress::start(&servers.api, method, request).await?;
    egress.active().await?;
    // Steady: what starting costs is over.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let media = *servers.pids("spillway-media").first().context("nothing records")?;
    let pids: Vec<i32> = below(media).into_iter().map(|(pid, _)| pid).collect();
    let cores = processes::cores(&pids, Duration::from_secs_f64(seconds)).await;
    let pss_mb = pids.iter().filter_map(|pid| processes::pss_mb(*pid)).sum();
    let info = egress.complete().await?;
    let file = file_of(&info)?;
    let pictures = picture::analyse(&file)?;
    let beeps: Vec<f64> = sound::analyse(&file)?.beeps(person("p0")).iter().map(|beep| beep.at).collect();
    let offset = (!beeps.is_empty()).then(|| offset(&pictures.flashes(person("p0")), &beeps));
    let cost = PageCost {
        kind,
        cores,
        pss_mb,
        different_fps: pictures.identity(person("p0")).different_per_second,
        start_to_first_frame_ms: nanos(&info["file_results"][0]["started_at"]) as f64 / 1e6 - asked,
        offset_ms: offset.map(|offset| offset.median_ms),
        offset_p99_ms: offset.map(|offset| offset.p99_ms),
    };
    println!(
        "{kind}: {:.3} cores, {:.0} MB in {} processes, {:.2} different pictures a second, first after {:.0} ms, picture - \
         sound {}",
        cost.cores,
        cost.pss_mb,
        pids.len(),
        cost.different_fps,
        cost.start_to_first_frame_ms,
        offset.map_or("-".to_owned(), |offset| offset.to_string())
    );
    Ok(cost)
}
