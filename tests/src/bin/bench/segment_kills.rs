//! HLS lost to `kill -9`, on each store and of each kind of request: whether playlists get their end and play to it, and what
//! is missing there.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::future::join_all;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::Serialize;
use serde_json::Value;
use spillway_tests::analyser::hls::{HlsFolder, HlsPlaylist};
use spillway_tests::analyser::percentile;
use spillway_tests::egress::{Egress, nanos};
use spillway_tests::every_output::TestRoom;
use spillway_tests::hls_player::{HlsView, watch_hls};
use spillway_tests::servers::TestServers;
use spillway_tests::servers::file_server::FileServer;

use crate::kills::{Victim, kill};
use crate::stores::{LIVE, PLAYLIST, StoreTarget};

/// Length of a segment.
const SECONDS: u64 = 2;
/// Seconds after ACTIVE: behind the first segments, and anywhere in one.
const MOMENTS: std::ops::Range<f64> = 5.0..13.0;
/// For a terminal status, and for the ends of the playlists.
const TIMEOUT: Duration = Duration::from_secs(45);
/// Between two looks at a playlist.
const LOOK: Duration = Duration::from_millis(200);

/// Figures of one store and one kind of kill.
#[derive(Debug, Serialize)]
pub struct SegmentKills {
    store: &'static str,
    killed: Victim,
    outputs: usize,
    /// Both playlists have their end, everything they name is there and decodes.
    playable: usize,
    /// Playlists that hls.js plays to the end without an error.
    browsed: usize,
    /// Playlists given to hls.js.
    shown: usize,
    /// Seconds between the kill and the end of the playlist.
    lost_p50_s: f64,
    lost_max_s: f64,
    /// Most whole segments that would have had room there.
    lost_segments_max: u64,
    /// Seconds from the kill to the ENDLIST of both playlists in the store.
    endlist_p50_s: f64,
    endlist_max_s: f64,
    /// Seconds from the kill to a terminal status in ListEgress.
    terminal_p50_s: f64,
    terminal_max_s: f64,
}

/// Kills at seeded moments. In each round four outputs on each store; one half loses its media process, the other its whole
/// task, in a store with the disk of its machine.
pub async fn measure(rounds: usize, seed: u64, only: &str) -> Result<Vec<SegmentKills>> {
    let mut all = Vec::new();
    let mut rng = StdRng::seed_from_u64(seed);
    for target in StoreTarget::all().await?.into_iter().filter(|target| only.is_empty() || target.name() == only) {
        let deaths = of(&target, rounds, &mut rng).await?;
        for killed in [Victim::Media, Victim::Task] {
            all.push(summary(target.name(), killed, &deaths));
        }
    }
    print(&all);
    Ok(all)
}

fn print(all: &[SegmentKills]) {
    println!(
        "{:>6} {:<5} {:>7} {:>8} {:>7} {:>13} {:>8} {:>15} {:>15}",
        "store", "kill", "outputs", "playable", "hls.js", "lost p50, max", "segments", "end p50, max", "state p50, max"
    );
    for kills in all {
        let pair = |median: f64, longest: f64| format!("{median:.2}, {longest:.2} s");
        println!(
            "{:>6} {:<5} {:>7} {:>8} {:>7} {:>13} {:>8} {:>15} {:>15}",
            kills.store,
            format!("{:?}", kills.killed),
            kills.outputs,
            kills.playable,
            format!("{}/{}", kills.browsed, kills.shown),
            pair(kills.lost_p50_s, kills.lost_max_s),
            kills.lost_segments_max,
            pair(kills.endlist_p50_s, kills.endlist_max_s),
            pair(kills.terminal_p50_s, kills.terminal_max_s)
        );
    }
}

/// One output whose task was killed.
#[derive(Debug)]
struct SegmentDeath {
    folder: PathBuf,
    killed: Victim,
    moment: Duration,
    /// What the playlist says, or what is wrong with the output.
    playlist: Result<HlsPlaylist, String>,
    browsed: Option<bool>,
    lost: f64,
    /// `None`: no end within [`TIMEOUT`].
    endlist: Option<f64>,
    terminal: f64,
    message: String,
}

fn summary(store: &'static str, killed: Victim, deaths: &[SegmentDeath]) -> SegmentKills {
    let mine: Vec<&SegmentDeath> = deaths.iter().filter(|death| death.killed == killed).collect();
    let lost: Vec<f64> = mine.iter().filter(|death| death.playlist.is_ok()).map(|death| death.lost).collect();
    // One that never came is no short wait.
    let endlist: Vec<f64> = mine.iter().map(|death| death.endlist.unwrap_or(TIMEOUT.as_secs_f64())).collect();
    let terminal: Vec<f64> = mine.iter().map(|death| death.terminal).collect();
    SegmentKills {
        store,
        killed,
        outputs: mine.len(),
        playable: lost.len(),
        browsed: mine.iter().filter(|death| death.browsed == Some(true)).count(),
        shown: mine.iter().filter(|death| death.browsed.is_some()).count(),
        lost_p50_s: percentile(&lost, 0.5),
        lost_max_s: percentile(&lost, 1.0),
        lost_segments_max: (percentile(&lost, 1.0).max(0.0) / SECONDS as f64) as u64,
        endlist_p50_s: percentile(&endlist, 0.5),
        endlist_max_s: percentile(&endlist, 1.0),
        terminal_p50_s: percentile(&terminal, 0.5),
        terminal_max_s: percentile(&terminal, 1.0),
    }
}

async fn of(target: &StoreTarget, rounds: usize, rng: &mut StdRng) -> Result<Vec<SegmentDeath>> {
    let servers = TestServers::start("").await?;
    let spool = servers.folder().join("spool");
    let more = format!(
        "resume: off\nrunner: {{ checkpoint: 2s, spool_dir: {} }}\n{}",
        spool.display(),
        target.configuration()
    );
    let _dispatcher = servers.dispatcher("dispatcher", &more).await?;
    let room = TestRoom::open(&servers.api, "kills").await?;
    let mut all = Vec::new();
    for round in 0..rounds {
        let folder = servers.folder().join(format!("round{round}"));
        let output = |name: &str| target.segments(&folder.join(name), SECONDS);
        let running = room.record_segments(&servers.api, output).await?;
        let deaths = running.iter().enumerate().map(|(index, (egress, name))| {
            let killed = if (index + round) % 2 == 0 { Victim::Media } else { Victim::Task };
            let moment = Duration::from_secs_f64(rng.random_range(MOMENTS));
            death(&servers, target, killed, egress, folder.join(name), moment)
        });
        let mut deaths: Vec<SegmentDeath> = join_all(deaths).await.into_iter().collect::<Result<_>>()?;
        browse(&folder, &mut deaths).await?;
        for death in &deaths {
            let fine = death.playlist.is_ok() && death.browsed == Some(true);
            if !fine || death.lost > 2.0 * SECONDS as f64 || death.endlist.is_none_or(|after| after > 15.0) {
                println!(
                    "  {} ({:?} at {:.2?}): {:?}, in hls.js {:?}, lost {:.2} s, end after {:.2?} s: {}",
                    death.folder.display(),
                    death.killed,
                    death.moment,
                    death.playlist.as_ref().map(|playlist| playlist.segments.len()),
                    death.browsed,
                    death.lost,
                    death.endlist,
                    death.message
                );
            }
        }
        all.extend(deaths);
        if std::env::var_os("SPILLWAY_KEEP").is_none() && folder.exists() {
            std::fs::remove_dir_all(&folder).context("forget a round")?;
        }
    }
    let unfinished = target.unfinished().await?;
    ensure!(unfinished.is_empty(), "left in the bucket: {unfinished:?}");
    Ok(all)
}

async fn death(
    servers: &TestServers,
    target: &StoreTarget,
    killed: Victim,
    egress: &Egress,
    folder: PathBuf,
    moment: Duration,
) -> Result<SegmentDeath> {
    tokio::time::sleep(moment).await;
    // The disk that the playlists are on does not go.
    let (unix, begun) = kill(servers, killed, egress, !matches!(target, StoreTarget::Disk))?;
    let over = async {
        let info = egress.over(TIMEOUT).await?;
        anyhow::Ok((info, begun.elapsed().as_secs_f64()))
    };
    let (over, endlist) = tokio::join!(over, both_end(target, &folder, begun));
    let (info, terminal) = over?;
    ensure!(info["status"] == "EGRESS_FAILED", "not FAILED after a kill: {info}");
    let playlist = fetch(target, &folder).await.and_then(|()| complaint(&folder, &info));
    let playlist = playlist.map_err(|error| format!("{error:#}"));
    let started = nanos(&info["segment_results"][0]["started_at"]) as f64 / 1e9;
    let lost = playlist.as_ref().map_or(0.0, |playlist| unix - started - playlist.seconds());
    let message = info["error"].to_string();
    Ok(SegmentDeath { folder, killed, moment, playlist, browsed: None, lost, endlist: endlist?, terminal, message })
}

/// Seconds from the kill until both playlists in the store have their end.
async fn both_end(target: &StoreTarget, folder: &Path, begun: Instant) -> Result<Option<f64>> {
    while begun.elapsed() < TIMEOUT {
        let mut ended = 0;
        for name in [PLAYLIST, LIVE] {
            let text = target.read(&folder.join(name)).await?;
            ended += u32::from(text.is_some_and(|text| text.ends_with(b"#EXT-X-ENDLIST\n")));
        }
        if ended == 2 {
            return Ok(Some(begun.elapsed().as_secs_f64()));
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(None)
}

/// Writes playlists and all that they name to the folder, where they are not there already.
async fn fetch(target: &StoreTarget, folder: &Path) -> Result<()> {
    if matches!(target, StoreTarget::Disk) {
        return Ok(());
    }
    std::fs::create_dir_all(folder).context("make a folder")?;
    for list in [PLAYLIST, LIVE] {
        let text = target.read(&folder.join(list)).await?.with_context(|| format!("no {list}"))?;
        std::fs::write(folder.join(list), &text).context("write what was fetched")?;
        for segment in HlsPlaylist::read(&String::from_utf8_lossy(&text))?.segments {
            let path = folder.join(&segment.name);
            if !path.exists() {
                let bytes = target.read(&path).await?.with_context(|| format!("{} is named", segment.name))?;
                std::fs::write(&path, &bytes).context("write what was fetched")?;
            }
        }
    }
    Ok(())
}

/// What the playlist says, where everything is as it should be.
fn complaint(folder: &Path, info: &Value) -> Result<HlsPlaylist> {
    let hls = HlsFolder::open(&folder.join(PLAYLIST))?;
    hls.counters_go_on()?;
    hls.plays()?;
    let live = HlsFolder::open(&folder.join(LIVE))?.playlist;
    ensure!(hls.playlist.segments.ends_with(&live.segments), "{live:?} is no end of {:?}", hls.playlist);
    let told = &info["segment_results"][0];
    ensure!(nanos(&told["segment_count"]) as usize == hls.playlist.segments.len(), "{told}");
    ensure!(nanos(&told["size"]) as u64 == hls.bytes()?, "{} bytes, said was {told}", hls.bytes()?);
    Ok(hls.playlist)
}

async fn browse(folder: &Path, deaths: &mut [SegmentDeath]) -> Result<()> {
    if !deaths.iter().any(|death| death.playlist.is_ok()) {
        return Ok(());
    }
    let server = FileServer::start(folder).await?;
    let mut views = Vec::new();
    for death in deaths.iter() {
        let (Ok(playlist), Some(name)) = (&death.playlist, death.folder.file_name()) else { continue };
        let url = server.url(&format!("{}/{PLAYLIST}", name.to_string_lossy()));
        views.push(HlsView::finished(url, playlist.seconds()));
    }
    let mut seen = watch_hls(&views).await?.into_iter();
    for death in deaths.iter_mut() {
        let Ok(playlist) = &death.playlist else { continue };
        let fine = seen.next().context("one answer for each playlist")?.ended_after(playlist.seconds());
        if let Err(error) = &fine {
            println!("  {} in hls.js: {error:#}", death.folder.display());
        }
        death.browsed = Some(fine.is_ok());
    }
    Ok(())
}
