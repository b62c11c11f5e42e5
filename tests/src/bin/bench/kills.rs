//! Media lost to `kill -9`, on each store and of each container.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use futures_util::future::join_all;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use serde_json::json;
use spillway_tests::analyser::{percentile, played};
use spillway_tests::browser::watch;
use spillway_tests::egress::{Egress, nanos};
use spillway_tests::every_output::TestRoom;
use spillway_tests::servers::TestServers;

use crate::stores::StoreTarget;

/// Seconds between two uploads of the unfinished tail.
const CHECKPOINT: u64 = 2;

/// Which processes are killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Victim {
    /// The media process.
    Media,
    /// Both processes, with the spool. A file of the output `disk` stays in its folder.
    Task,
}

/// Figures of one store and one kind of kill.
#[derive(Debug, Serialize)]
pub struct Kills {
    store: &'static str,
    killed: Victim,
    recordings: usize,
    playable: usize,
    /// Recordings that play and seek in Chromium.
    browsed: usize,
    /// Recordings given to Chromium.
    shown: usize,
    /// Seconds between the kill and the last packet of the file.
    lost_p50_s: f64,
    lost_max_s: f64,
    /// Seconds from the kill to a terminal status in ListEgress.
    terminal_p50_s: f64,
    terminal_max_s: f64,
}

/// Kills at seeded moments. In each round five recordings on each store; one half loses its media process, the other
/// its whole task with its disk.
pub async fn measure(rounds: usize, seed: u64, only: &str) -> Result<Vec<Kills>> {
    let mut all = Vec::new();
    let mut rng = StdRng::seed_from_u64(seed);
    for target in StoreTarget::all().await?.into_iter().filter(|target| only.is_empty() || target.name() == only) {
        let deaths = of(&target, rounds, &mut rng).await?;
        for killed in [Victim::Media, Victim::Task] {
            let kills = summary(target.name(), killed, &deaths);
            println!(
                "{:>6}, kill -9 of {killed:?}: {} of {} playable ({} of {} in Chromium), lost p50 {:.2} s, max {:.2} s; terminal p50 {:.2} s, max {:.2} s",
                kills.store,
                kills.playable,
                kills.recordings,
                kills.browsed,
                kills.shown,
                kills.lost_p50_s,
                kills.lost_max_s,
                kills.terminal_p50_s,
                kills.terminal_max_s
            );
            all.push(kills);
        }
    }
    Ok(all)
}

fn summary(store: &'static str, killed: Victim, deaths: &[Death]) -> Kills {
    let mine: Vec<&Death> = deaths.iter().filter(|death| death.killed == killed).collect();
    let lost: Vec<f64> = mine.iter().map(|death| death.lost).collect();
    let terminal: Vec<f64> = mine.iter().map(|death| death.terminal).collect();
    Kills {
        store,
        killed,
        recordings: mine.len(),
        playable: mine.iter().filter(|death| death.plays).count(),
        browsed: mine.iter().filter(|death| death.browsed == Some(true)).count(),
        shown: mine.iter().filter(|death| death.browsed.is_some()).count(),
        lost_p50_s: percentile(&lost, 0.5),
        lost_max_s: percentile(&lost, 1.0),
        terminal_p50_s: percentile(&terminal, 0.5),
        terminal_max_s: percentile(&terminal, 1.0),
    }
}

async fn of(target: &StoreTarget, rounds: usize, rng: &mut StdRng) -> Result<Vec<Death>> {
    let servers = TestServers::start("").await?;
    let spool = servers.folder().join("spool");
    let more = format!(
        "resume: off\nrunner: {{ checkpoint: {CHECKPOINT}s, spool_dir: {} }}\n{}",
        spool.display(),
        target.configuration()
    );
    let _dispatcher = servers.dispatcher("dispatcher", &more).await?;
    let room = TestRoom::open(&servers.api, "kills").await?;
    let mut all = Vec::new();
    for round in 0..rounds {
        let folder = servers.folder().join(format!("round{round}"));
        let running = room.record(&servers.api, |name| target.output(&folder, name)).await?;
        let deaths = running.iter().enumerate().map(|(index, (egress, name))| {
            let killed = if (index + round) % 2 == 0 { Victim::Media } else { Victim::Task };
            let moment = Duration::from_secs_f64(rng.random_range(2.0..9.0));
            death(&servers, target, killed, egress, folder.join(name), moment)
        });
        let mut deaths: Vec<Death> = join_all(deaths).await.into_iter().collect::<Result<_>>()?;
        browse(&mut deaths).await?;
        for death in &deaths {
            if !death.plays || death.browsed == Some(false) || death.lost > 2.0 {
                println!(
                    "  {} ({:?} at {:.2?}): wrong {:?}, in Chromium {:?}, lost {:.2} s: {}",
                    death.path.display(),
                    death.killed,
                    death.moment,
                    death.wrong,
                    death.browsed,
                    death.lost,
                    death.message
                );
            }
        }
        all.extend(deaths);
        std::fs::remove_dir_all(&folder).context("forget a round")?;
    }
    let unfinished = target.unfinished().await?;
    ensure!(unfinished.is_empty(), "left in the bucket: {unfinished:?}");
    Ok(all)
}

#[derive(Debug)]
struct Death {
    path: PathBuf,
    killed: Victim,
    moment: Duration,
    plays: bool,
    wrong: Option<String>,
    browsed: Option<bool>,
    lost: f64,
    terminal: f64,
    message: String,
}

async fn death(
    servers: &TestServers,
    target: &StoreTarget,
    killed: Victim,
    egress: &Egress,
    path: PathBuf,
    moment: Duration,
) -> Result<Death> {
    tokio::time::sleep(moment).await;
    let (unix, begun) = kill(servers, killed, egress, true)?;
    let info = egress.over(Duration::from_secs(40)).await?;
    let terminal = begun.elapsed().as_secs_f64();
    ensure!(info["status"] == "EGRESS_FAILED", "not FAILED after a kill: {info}");
    let file = &info["file_results"][0];
    let started = nanos(&file["started_at"]) as f64 / 1e9;
    let message = info["error"].to_string();
    let there = target.fetch(&path, file).await.with_context(|| format!("{killed:?} at {moment:?}: {info}"));
    let (wrong, end) = match there {
        Ok(()) => (complaint(&path), played(&path).unwrap_or(0.0)),
        Err(error) => (Some(format!("{error:#}")), 0.0),
    };
    let wrong = wrong.or_else(|| (end == 0.0).then(|| "it is empty".to_owned()));
    if let (Some(wrong), Some(kept)) = (&wrong, std::env::var_os("SPILLWAY_KEEP")) {
        println!("  {} is kept: {wrong}", path.display());
        let _ = std::fs::copy(&path, Path::new(&kept).join(format!("{}-{}", egress.id, target.name())));
    }
    let lost = unix - started - end;
    Ok(Death { path, killed, moment, plays: wrong.is_none(), wrong, browsed: None, lost, terminal, message })
}

/// Kills what is to be killed of the task of an egress, with its spool or without; gives the time, in Unix seconds as well.
pub fn kill(servers: &TestServers, killed: Victim, egress: &Egress, with_the_spool: bool) -> Result<(f64, Instant)> {
    let (runner, media) = pids_of(servers, &egress.id)?;
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).context("read the clock")?.as_secs_f64();
    let begun = Instant::now();
    match killed {
        Victim::Media => kill_process(media, Signal::KILL).context("kill the media process")?,
        Victim::Task => {
            // A machine that is taken away takes everything at once.
            let _ = kill_process(media, Signal::STOP);
            kill_process(runner, Signal::KILL).context("kill the runner")?;
            let _ = kill_process(media, Signal::KILL);
            let disk = servers.folder().join("spool").join(&egress.id);
            if with_the_spool && disk.exists() {
                std::fs::remove_dir_all(&disk).context("take the disk away")?;
            }
        }
    }
    Ok((unix, begun))
}

/// What is wrong with it; nothing when every packet decodes.
fn complaint(path: &Path) -> Option<String> {
    let ffmpeg = std::process::Command::new("ffmpeg")
        .args(["-v", "error", "-xerror", "-nostdin", "-i"])
        .arg(path)
        // As it is: made even, pictures whose times were not would collide.
        .args(["-fps_mode", "passthrough", "-enc_time_base", "-1", "-f", "null", "-"])
        .output();
    match ffmpeg {
        Ok(out) if out.status.success() && out.stderr.is_empty() => None,
        Ok(out) => Some(String::from_utf8_lossy(&out.stderr).lines().next().unwrap_or_default().to_owned()),
        Err(error) => Some(error.to_string()),
    }
}

async fn browse(deaths: &mut [Death]) -> Result<()> {
    let playable: Vec<usize> = (0..deaths.len()).filter(|index| deaths[*index].plays).collect();
    let files: Vec<&Path> = playable.iter().map(|index| deaths[*index].path.as_path()).collect();
    let seen = watch(&files).await?;
    for (index, watched) in playable.into_iter().zip(seen) {
        let fine = watched.is_fine();
        if let Err(error) = &fine {
            println!("  {} in Chromium: {error:#}: {}", deaths[index].path.display(), json!(watched.length));
        }
        deaths[index].browsed = Some(fine.is_ok());
    }
    Ok(())
}

/// The runner that was started for this egress, and its media process.
pub fn pids_of(servers: &TestServers, egress: &str) -> Result<(Pid, Pid)> {
    let mine = format!("SPILLWAY_EGRESS_ID={egress}");
    let processes = servers.left_behind();
    let runner = processes.iter().find(|(pid, _)| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == mine.as_bytes())
    });
    let (runner, _) = runner.with_context(|| format!("no runner of {egress}"))?;
    let child = processes.iter().find(|(pid, _)| parent_of(*pid) == Some(*runner));
    let (child, _) = child.with_context(|| format!("no media process of {egress}"))?;
    Ok((Pid::from_raw(*runner).context("a pid is not zero")?, Pid::from_raw(*child).context("a pid is not zero")?))
}

fn parent_of(pid: i32) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}
