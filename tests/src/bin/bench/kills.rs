use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use serde_json::json;
use spillway_tests::analyser::{percentile, played};
use spillway_tests::each::Room;
use spillway_tests::egress::{Egress, nanos};
use spillway_tests::servers::Ground;

/// Rounds of five recordings each: twenty moments for each of the two processes.
const ROUNDS: usize = 4;

#[derive(Debug, Serialize)]
pub struct Kills {
    pub killed: &'static str,
    pub recordings: usize,
    pub playable: usize,
    /// Seconds between the kill and the last packet that plays.
    pub lost_p50_s: f64,
    pub lost_max_s: f64,
    /// Seconds from the kill to the terminal state in ListEgress.
    pub terminal_p50_s: f64,
    pub terminal_max_s: f64,
}

/// `kill -9` of each process at twenty random moments, over all containers.
pub async fn measure() -> Result<Vec<Kills>> {
    let mut all = Vec::new();
    for killed in ["spillway-media", "spillway-runner"] {
        let kills = of(killed).await?;
        println!(
            "kill -9 of {killed}: {} of {} playable, lost p50 {:.2} s, max {:.2} s; terminal p50 {:.2} s, max {:.2} s",
            kills.playable,
            kills.recordings,
            kills.lost_p50_s,
            kills.lost_max_s,
            kills.terminal_p50_s,
            kills.terminal_max_s
        );
        all.push(kills);
    }
    Ok(all)
}

async fn of(killed: &'static str) -> Result<Kills> {
    let ground = Ground::start("").await?;
    let _dispatcher = ground.dispatcher("dispatcher", "").await?;
    let room = Room::open(&ground.api, "kills").await?;
    let (mut lost, mut terminal, mut playable) = (Vec::new(), Vec::new(), 0);
    for round in 0..ROUNDS {
        let folder = ground.folder().join(round.to_string());
        let output = |name: &str| json!({ "filepath": folder.join(name).to_string_lossy() });
        let running = room.record(&ground.api, output).await?;
        let paths = running.iter().map(|(egress, name)| (egress, folder.join(name)));
        let deaths = paths.map(|(egress, path)| death(&ground, killed, egress, path));
        for one in futures_util::future::join_all(deaths).await {
            let one = one?;
            playable += usize::from(one.plays);
            lost.push(one.lost);
            terminal.push(one.terminal);
        }
    }
    Ok(Kills {
        killed,
        recordings: lost.len(),
        playable,
        lost_p50_s: percentile(&lost, 0.5),
        lost_max_s: percentile(&lost, 1.0),
        terminal_p50_s: percentile(&terminal, 0.5),
        terminal_max_s: percentile(&terminal, 1.0),
    })
}

struct Death {
    plays: bool,
    lost: f64,
    terminal: f64,
}

async fn death(ground: &Ground, killed: &str, egress: &Egress, path: PathBuf) -> Result<Death> {
    tokio::time::sleep(Duration::from_secs_f64(rand::random_range(2.0..8.0))).await;
    let pid = pid_of(ground, killed, &egress.id)?;
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).context("read the clock")?.as_secs_f64();
    let begun = Instant::now();
    kill_process(pid, Signal::KILL).context("kill")?;
    let info = egress.over(Duration::from_secs(30)).await?;
    let terminal = begun.elapsed().as_secs_f64();
    ensure!(info["status"] == "EGRESS_FAILED", "not FAILED after a kill: {info}");
    let started = nanos(&info["file_results"][0]["started_at"]) as f64 / 1e9;
    let plays = std::process::Command::new("ffmpeg")
        .args(["-v", "error", "-xerror", "-nostdin", "-i"])
        .arg(&path)
        .args(["-f", "null", "-"])
        .output()
        .is_ok_and(|out| out.status.success());
    let end = played(&path).unwrap_or(0.0);
    let lost = unix - started - end;
    if !plays || lost > 2.0 {
        println!("  {}: plays {plays}, {end:.2} s of {:.2}: {}", path.display(), unix - started, info["error"]);
    }
    Ok(Death { plays: plays && end > 0.0, lost, terminal })
}

/// The runner that was started for this egress, or its media process.
fn pid_of(ground: &Ground, name: &str, egress: &str) -> Result<Pid> {
    let mine = format!("SPILLWAY_EGRESS_ID={egress}");
    let processes = ground.left_behind();
    let runner = processes.iter().find(|(pid, _)| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == mine.as_bytes())
    });
    let (runner, _) = runner.with_context(|| format!("no runner of {egress}"))?;
    if name == "spillway-runner" {
        return Pid::from_raw(*runner).context("a pid is not zero");
    }
    let child = processes.iter().find(|(pid, command)| command.contains(name) && parent_of(*pid) == Some(*runner));
    let (child, _) = child.with_context(|| format!("no media process of {egress}"))?;
    Pid::from_raw(*child).context("a pid is not zero")
}

fn parent_of(pid: i32) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}
