//! `spillway-demo`: a real livekit-server, three publishers and two recordings requested through its API; leaves the
//! files for a look.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use serde_json::json;
use spillway_commands::DEMO;
use spillway_tests::analyser::{duration, probe};
use spillway_tests::assets::{cache, clip};
use spillway_tests::egress::{Egress, file_of};
use spillway_tests::publisher::{Publisher, PublisherOptions, SourceKind};
use spillway_tests::servers::TestServers;

const ROOM: &str = "demo";

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
    for name in ["p0-720.h264", "p1-720.h264", "p2-720.h264", "p0.opus", "p1.opus", "p2.opus"] {
        clip(name)?;
    }

    println!("starting redis-server, livekit-server and spillway-dispatcher");
    let servers = TestServers::start("").await?;
    let dispatcher = servers.dispatcher("dispatcher", "").await?;
    println!("  livekit-server  ws://{}", servers.api.address);
    println!("  dispatcher      http://{}/readyz", dispatcher.health);

    let mut people = Vec::new();
    let mut camera = String::new();
    for who in ["p0", "p1", "p2"] {
        let person = Publisher::join(&servers.api, ROOM, who, PublisherOptions::default()).await?;
        let video = person.publish(&clip(&format!("{who}-720.h264"))?, SourceKind::Camera).await?;
        person.publish(&clip(&format!("{who}.opus"))?, SourceKind::Microphone).await?;
        println!("  {who} publishes camera {video} and a microphone");
        if who == "p0" {
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
    println!(
        "\n{}  {:.1} s, {} bytes",
        path.display(),
        duration(&probed),
        probed["format"]["size"].as_str().unwrap_or("?")
    );
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
    let sheet: Arc<Path> = path.with_extension("png").into();
    let made = Command::new("ffmpeg")
        .args(["-v", "error", "-nostdin", "-y", "-i"])
        .arg(path)
        .args(["-vf", "fps=1,scale=320:-2,tile=4x3", "-frames:v", "1"])
        .arg(&*sheet)
        .status()
        .context("start ffmpeg")?;
    ensure!(made.success(), "no contact sheet of {}", path.display());
    println!("  a picture of each second: {}", sheet.display());
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
