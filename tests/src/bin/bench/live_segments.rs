//! HLS in a store while it grows: what a viewer with hls.js sees of it, how exact segments are, and how soon they are listed.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde_json::json;
use spillway_tests::analyser::hls::{HlsFolder, HlsPlaylist};
use spillway_tests::analyser::percentile;
use spillway_tests::egress::Egress;
use spillway_tests::every_output::TestRoom;
use spillway_tests::hls_player::{HlsPlayback, HlsView, watch_hls};
use spillway_tests::process::eventually;
use spillway_tests::servers::TestServers;
use spillway_tests::servers::bucket::TestBucket;
use spillway_tests::servers::file_server::FileServer;

use crate::stores::{LIVE, PLAYLIST};

/// Length of a segment.
const SECONDS: f64 = 4.0;
/// Of all objects.
const FOLDER: &str = "live";
/// Between two looks at the spool and at the playlist.
const LOOK: Duration = Duration::from_millis(50);
/// For the browser to start.
const START_S: f64 = 15.0;

/// Figures of one recording.
#[derive(Debug, Serialize)]
pub struct LiveSegments {
    seconds: f64,
    segments: usize,
    /// Errors of hls.js, also those that it recovers from.
    player_errors: Vec<String>,
    /// Longest time that it stood, and most that it was behind the end of the list.
    longest_stand_s: f64,
    latency_max_s: f64,
    first_frame_s: f64,
    /// Most that an EXTINF differs from the length that was asked for, but for the last.
    extinf_deviation_max_ms: f64,
    /// 0, or 1 where counters break somewhere.
    continuity_breaks: u32,
    /// From the moment when the next segment is begun until one is named in the live playlist in the store.
    listed_p50_s: f64,
    listed_max_s: f64,
}

/// A composite of 720p to S3, watched from the third segment on.
pub async fn measure(seconds: f64) -> Result<LiveSegments> {
    let servers = TestServers::start("").await?;
    let bucket = Arc::new(TestBucket::s3().await?);
    let spool = servers.folder().join("spool");
    let more = format!("runner: {{ spool_dir: {} }}\n{}", spool.display(), bucket.configuration());
    let _dispatcher = servers.dispatcher("dispatcher", &more).await?;
    let _room = TestRoom::open(&servers.api, "live").await?;
    let mut output = json!({
        "filename_prefix": format!("{FOLDER}/part"), "playlist_name": PLAYLIST, "live_playlist_name": LIVE,
        "segment_duration": SECONDS as u64,
    });
    if let Some((provider, upload)) = bucket.upload() {
        output[provider] = upload;
    }
    let request = json!({ "room_name": "live", "layout": "speaker", "segment_outputs": [output] });
    let egress = Egress::start(&servers.api, "StartRoomCompositeEgress", request).await?;
    egress.active().await?;
    eventually("three segments are listed", Duration::from_secs(40), || async {
        Ok(live(&bucket).await?.filter(|live| live.segments.len() >= 3))
    })
    .await?;
    let server = FileServer::of_bucket(bucket.clone()).await?;
    let views = [HlsView::live(server.url(&format!("{FOLDER}/{LIVE}")), seconds + START_S)];
    let spooled = spool.join(&egress.id);
    let looking = looked_at(&bucket, &spooled, seconds + START_S);
    let (seen, delays) = tokio::try_join!(watch_hls(&views), looking)?;
    let info = egress.complete().await?;
    ensure!(info["status"] == "EGRESS_COMPLETE", "{info}");
    let hls = fetched(&bucket, &servers.folder().join(FOLDER)).await?;
    let played = seen.into_iter().next().context("one playlist was played")?;
    let figures = figures(&hls, played, &delays);
    println!(
        "HLS of {:.0} s, {} segments: {} errors of hls.js, it stood {:.2} s at most and was {:.1} s behind; EXTINF within \
         {:.0} ms, {} breaks of counters; listed {:.2} s after the next one began, {:.2} s at most",
        figures.seconds,
        figures.segments,
        figures.player_errors.len(),
        figures.longest_stand_s,
        figures.latency_max_s,
        figures.extinf_deviation_max_ms,
        figures.continuity_breaks,
        figures.listed_p50_s,
        figures.listed_max_s
    );
    Ok(figures)
}

fn figures(hls: &HlsFolder, played: HlsPlayback, delays: &[f64]) -> LiveSegments {
    let all = &hls.playlist.segments;
    let whole = &all[..all.len().saturating_sub(1)];
    let deviation = whole.iter().map(|segment| (segment.seconds - SECONDS).abs()).fold(0.0, f64::max);
    let broken = hls.counters_go_on().inspect_err(|error| println!("  {error:#}")).is_err();
    played.errors.iter().for_each(|error| println!("  hls.js: {error}"));
    LiveSegments {
        seconds: hls.playlist.seconds(),
        segments: all.len(),
        longest_stand_s: played.longest_stand_s,
        latency_max_s: played.latency_s,
        first_frame_s: played.first_frame_s,
        player_errors: played.errors,
        extinf_deviation_max_ms: deviation * 1e3,
        continuity_breaks: u32::from(broken),
        listed_p50_s: percentile(delays, 0.5),
        listed_max_s: percentile(delays, 1.0),
    }
}

async fn live(bucket: &TestBucket) -> Result<Option<HlsPlaylist>> {
    let Some(text) = bucket.read(&format!("{FOLDER}/{LIVE}")).await? else { return Ok(None) };
    HlsPlaylist::read(&String::from_utf8_lossy(&text)).map(Some)
}

/// For each segment that is begun and listed meanwhile: seconds from the begin of the next one to the listing.
async fn looked_at(bucket: &TestBucket, spooled: &Path, seconds: f64) -> Result<Vec<f64>> {
    let (begun, mut begins, mut delays) = (Instant::now(), BTreeMap::new(), BTreeMap::new());
    let mut first = true;
    while begun.elapsed().as_secs_f64() < seconds {
        for number in numbers(spooled) {
            // When those that are there already were begun is not known.
            begins.entry(number).or_insert_with(|| (!first).then(Instant::now));
        }
        first = false;
        for segment in live(bucket).await?.map_or(vec![], |live| live.segments) {
            let Some(number) = number_of(&segment.name, '_') else { continue };
            if let Some(Some(sealed)) = begins.get(&(number + 1)) {
                delays.entry(number).or_insert_with(|| sealed.elapsed().as_secs_f64());
            }
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(delays.into_values().collect())
}

/// Numbers of the segments in the spool.
fn numbers(spooled: &Path) -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir(spooled) else { return vec![] };
    entries.flatten().filter_map(|entry| number_of(&entry.file_name().to_string_lossy(), '-')).collect()
}

/// `part_00007.ts`, `0-7.ts`
fn number_of(name: &str, before: char) -> Option<u32> {
    name.strip_suffix(".ts")?.rsplit_once(before)?.1.parse().ok()
}

/// The finished output as files.
async fn fetched(bucket: &TestBucket, folder: &Path) -> Result<HlsFolder> {
    std::fs::create_dir_all(folder).context("make a folder")?;
    let text = bucket.read(&format!("{FOLDER}/{PLAYLIST}")).await?.context("no playlist")?;
    std::fs::write(folder.join(PLAYLIST), &text).context("write what was fetched")?;
    for segment in HlsPlaylist::read(&String::from_utf8_lossy(&text))?.segments {
        let bytes = bucket.read(&format!("{FOLDER}/{}", segment.name)).await?.context("a segment is not there")?;
        std::fs::write(folder.join(&segment.name), &bytes).context("write what was fetched")?;
    }
    HlsFolder::open(&folder.join(PLAYLIST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_a_segment_is_read_from_both_names() {
        assert_eq!((number_of("part_00007.ts", '_'), number_of("0-12.ts", '-')), (Some(7), Some(12)));
        assert_eq!((number_of("part_init.mp4", '_'), number_of("0-x.ts", '-')), (None, None));
    }
}
