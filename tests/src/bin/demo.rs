//! `spillway-demo`: a real livekit-server, three publishers of clips made for people to look at (`assets/demo.sh`), and
//! two recordings requested through its API. Leaves the files and a contact sheet of each. Judges nothing.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use serde_json::json;
use spillway_commands::DEMO;
use spillway_tests::analyser::{duration, probe};
use spillway_tests::assets::{DEMO_CLIPS, cache};
use spillway_tests::egress::{Egress, file_of};
use spillway_tests::publisher::{Publisher, PublisherOptions, SourceKind};
use spillway_tests::servers::TestServers;

const ROOM: &str = "demo";

/// Identities. The clips of each are named after it in lower case.
const PEOPLE: [&str; 3] = ["Amara", "Jonas", "Mei"];

/// Frames on a contact sheet.
const COLUMNS: u32 = 4;
const ROWS: u32 = 3;

#[derive(Parser)]
#[command(name = "spillway-demo", about = "Records a room composite and a track from a real livekit-server")]
struct Args {
    /// Where the files go; default: a folder `demo` in the cache
    #[arg(long)]
    out: Option<PathBuf>,
    /// How long to record
    #[arg(long, default_value_t = 12.0)]
    seconds: f64,
    #[arg(long, default_value = "grid")]
    layout: String,
}

#[tokio::main]
async fn main() -> Result<()> {
    if let Err(refusal) = DEMO.check(&std::env::args().skip(1).collect::<Vec<_>>()) {
        eprintln!("{refusal}");
        std::process::exit(2);
    }
    let args = Args::parse();
    let out = std::path::absolute(args.out.clone().unwrap_or_else(|| cache().join("demo")))
        .context("the folder of the files")?;
    std::fs::create_dir_all(&out).with_context(|| format!("create {}", out.display()))?;
    // Before the servers: made on a machine's first use, which takes longer than a server waits for a silent participant.
    DEMO_CLIPS.folder()?;

    println!("starting redis-server, livekit-server and spillway-dispatcher");
    let servers = TestServers::start("").await?;
    let dispatcher = servers.dispatcher("dispatcher", "").await?;
    println!("  livekit-server  ws://{}", servers.api.address);
    println!("  dispatcher      http://{}/readyz", dispatcher.health);

    let mut people = Vec::new();
    let mut camera = String::new();
    for name in PEOPLE {
        let person = Publisher::join(&servers.api, ROOM, name, PublisherOptions::default()).await?;
        let file = name.to_lowercase();
        let video = person.publish(&DEMO_CLIPS.clip(&format!("{file}-720.h264"))?, SourceKind::Camera).await?;
        person.publish(&DEMO_CLIPS.clip(&format!("{file}.opus"))?, SourceKind::Microphone).await?;
        println!("  {name} publishes camera {video} and a microphone");
        if camera.is_empty() {
            camera = video;
        }
        people.push(person);
    }

    let composite = json!({
        "room_name": ROOM, "layout": args.layout,
        "file_outputs": [{ "filepath": out.join("room-{time}.mp4").to_string_lossy(), "file_type": "MP4" }],
    });
    let track = json!({
        "room_name": ROOM, "track_id": camera, "file": { "filepath": out.join("track-{track_id}-{time}.mp4").to_string_lossy() },
    });
    let recorded = record(&servers, &args, composite, track).await;
    let finished = match recorded {
        Ok(finished) => finished,
        Err(error) => {
            eprintln!("{}", dispatcher.process.tail());
            return Err(error);
        }
    };
    for path in finished {
        describe(&path)?;
    }
    Ok(())
}

async fn record(
    servers: &TestServers,
    args: &Args,
    composite: serde_json::Value,
    track: serde_json::Value,
) -> Result<Vec<PathBuf>> {
    let mut running = Vec::new();
    for (method, request) in [("StartRoomCompositeEgress", composite), ("StartTrackEgress", track)] {
        let egress = Egress::start(&servers.api, method, request).await?;
        let active = egress.active().await?;
        println!("{method}: {} answered in {:.0?}, ACTIVE after {active:.2?}", egress.id, egress.answered_in);
        running.push(egress);
    }
    println!("recording {} s", args.seconds);
    tokio::time::sleep(Duration::from_secs_f64(args.seconds)).await;
    let mut finished = Vec::new();
    for egress in running {
        let (info, took) = egress.stop().await?;
        println!("StopEgress: {} {} after {took:.2?}", egress.id, info["status"].as_str().unwrap_or_default());
        ensure!(info["status"] == "EGRESS_COMPLETE", "{info}");
        finished.push(file_of(&info)?);
    }
    Ok(finished)
}

/// Path, what ffprobe says, and a contact sheet beside the file.
fn describe(path: &Path) -> Result<()> {
    let probed = probe(path)?;
    let seconds = duration(&probed);
    println!("\n{}  {seconds:.1} s, {} bytes", path.display(), probed["format"]["size"].as_str().unwrap_or("?"));
    for stream in probed["streams"].as_array().into_iter().flatten() {
        let text = |key: &str| stream[key].as_str().map(str::to_owned).unwrap_or_else(|| stream[key].to_string());
        match stream["codec_type"].as_str() {
            Some("video") => println!(
                "  video  {} {} {}x{}, {} pictures a second",
                text("codec_name"),
                text("profile"),
                text("width"),
                text("height"),
                text("avg_frame_rate"),
            ),
            _ => println!("  audio  {} {} Hz, {} channels", text("codec_name"), text("sample_rate"), text("channels")),
        }
    }
    let sheet = path.with_extension("png");
    contact_sheet(path, seconds, &sheet)?;
    println!("  {} moments of it: {}", COLUMNS * ROWS, sheet.display());
    Ok(())
}

/// Frames spread evenly over a file of so many seconds, large enough to read the names and clocks in the tiles of a grid.
fn contact_sheet(path: &Path, seconds: f64, sheet: &Path) -> Result<()> {
    let rate = f64::from(COLUMNS * ROWS) / seconds.max(0.1);
    let made = Command::new("ffmpeg")
        .args(["-v", "error", "-nostdin", "-y", "-i"])
        .arg(path)
        .args(["-frames:v", "1", "-vf"])
        .arg(format!("fps={rate:.6},scale=480:-2,tile={COLUMNS}x{ROWS}:margin=8:padding=8:color=0x101014"))
        .arg(sheet)
        .status()
        .context("start ffmpeg")?;
    ensure!(made.success(), "no contact sheet of {}", path.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use spillway_plan::LayoutName;

    use super::*;

    #[test]
    fn flags_and_layouts_are_those_that_the_set_up_knows() {
        let command = Args::command();
        let mut here: Vec<String> =
            command.get_arguments().filter_map(|arg| Some(format!("--{}", arg.get_long()?))).collect();
        let mut known: Vec<&str> = DEMO.flags.iter().map(|flag| flag.name).collect();
        here.sort();
        known.sort_unstable();
        assert_eq!(here, known);
        for layout in spillway_commands::LAYOUTS {
            LayoutName::parse(layout).expect(layout);
        }
    }
}
