//! `spillway-publish`: a participant with a flash and a beep each second, for recordings by hand.

use std::time::Duration;

use anyhow::{Result, bail};
use clap::Parser;
use spillway_tests::assets::clip;
use spillway_tests::publisher::{Publisher, PublisherOptions, RtpInPause, SourceKind, SpeechPattern};
use spillway_tests::twirp::Api;

#[derive(Parser)]
#[command(name = "spillway-publish", about = "Publishes flash-and-beep media into a LiveKit room")]
struct Args {
    /// livekit-server, host:port
    #[arg(long, default_value = "127.0.0.1:7880")]
    server: String,
    #[arg(long, default_value = "devkey")]
    key: String,
    #[arg(long, default_value = "secret")]
    secret: String,
    #[arg(long)]
    room: String,
    /// p0 … p3: also decides colour and tone; others look like p0
    #[arg(long, default_value = "p0")]
    identity: String,
    /// h264-180 (p0), h264-360, h264-720, vp8 (p0, p1), vp9, av1, h265 (p0) or none
    #[arg(long, default_value = "h264-360")]
    video: String,
    /// opus, pcmu, pcma (p0) or none
    #[arg(long, default_value = "opus")]
    audio: String,
    /// How long; 0 is until a signal ends it
    #[arg(long, default_value_t = 0.0)]
    seconds: f64,
    /// Share of outgoing RTP packets lost
    #[arg(long, default_value_t = 0.0)]
    loss: f64,
    /// Seconds its clock is ahead
    #[arg(long, default_value_t = 0.0, allow_hyphen_values = true)]
    clock_ahead: f64,
    /// Millionths its clock is too fast
    #[arg(long, default_value_t = 0.0, allow_hyphen_values = true)]
    clock_ppm: f64,
    /// Joins as an agent
    #[arg(long)]
    agent: bool,
    /// Sound of a source that is mostly silent: dtx, phone (RTP time goes on), phone-stopped (it stands still) or bot
    #[arg(long)]
    speech: Option<String>,
    /// H264 in three layers instead of --video
    #[arg(long)]
    layers: bool,
    /// `mute@5`, `unmute@8`, `unpublish@9`, `dark@4`, `light@6`, `size=p0-180.h264@7`, `layers=1@5`, `jump=10@5`: what happens
    /// to the video when; `queue=3@5`, `clock=0.4@5`: to the participant; seconds
    #[arg(long)]
    then: Vec<String>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info,str0m=warn".into()),
        )
        .with_writer(std::io::stderr)
        .init();
    let args = Args::parse();
    let who = if args.identity.starts_with('p') && matches!(args.identity.as_str(), "p0" | "p1" | "p2" | "p3") {
        args.identity.as_str()
    } else {
        "p0"
    };
    let video = match args.video.as_str() {
        "none" => None,
        "h264-180" => Some(format!("{who}-180.h264")),
        "h264-360" => Some(format!("{who}-360.h264")),
        "h264-720" => Some(format!("{who}-720.h264")),
        "vp8" => Some(format!("{who}-360.vp8.ivf")),
        "vp9" => Some("p0-180.vp9.ivf".into()),
        "av1" => Some("p0-180.av1.ivf".into()),
        "h265" => Some("p0-180.h265".into()),
        other => bail!("no video called {other}"),
    };
    let audio = match args.audio.as_str() {
        "none" => None,
        "opus" => Some(format!("{who}.opus")),
        "pcmu" | "pcma" => Some(format!("p0.{}", args.audio)),
        other => bail!("no audio called {other}"),
    };
    // Made on a machine's first use, which takes longer than a server waits for a silent participant.
    for name in video.iter().chain(&audio) {
        clip(name)?;
    }
    let api = Api { address: args.server, key: args.key, secret: args.secret };
    let options = PublisherOptions {
        agent: args.agent,
        clock_ahead: args.clock_ahead,
        clock_ppm: args.clock_ppm,
        loss: args.loss,
        ..Default::default()
    };
    let publisher = Publisher::join(&api, &args.room, &args.identity, options).await?;
    println!("joined {} as {} ({})", args.room, args.identity, publisher.sid);
    let mut video_sid = String::new();
    if args.layers {
        let layers =
            [180, 360, 720].map(|height| clip(&format!("p0-{height}.h264"))).into_iter().collect::<Result<Vec<_>>>()?;
        video_sid = publisher.publish_layers(&layers, SourceKind::Camera).await?;
        println!("video {video_sid} in three layers");
    } else if let Some(name) = video {
        video_sid = publisher.publish(&clip(&name)?, SourceKind::Camera).await?;
        println!("video {video_sid} {name}");
    }
    if let Some(name) = audio {
        let sound = clip(&name)?;
        let sid = match speech(args.speech.as_deref())? {
            Some(speech) => publisher.publish_speech(&sound, speech).await?,
            None => publisher.publish(&sound, SourceKind::Microphone).await?,
        };
        println!("audio {sid} {name}");
    }
    let begun = std::time::Instant::now();
    let mut acts: Vec<(f64, String)> = Vec::new();
    for act in &args.then {
        let Some((what, when)) = act.split_once('@') else { bail!("{act}: say what@seconds") };
        acts.push((when.parse()?, what.to_owned()));
    }
    acts.sort_by(|a, b| a.0.total_cmp(&b.0));
    for (when, what) in acts {
        tokio::time::sleep_until((begun + Duration::from_secs_f64(when)).into()).await;
        println!("{when} {what}");
        match what.as_str() {
            "mute" => publisher.mute(&video_sid, true),
            "unmute" => publisher.mute(&video_sid, false),
            "unpublish" => publisher.unpublish(&video_sid),
            "dark" => publisher.blackout(true),
            "light" => publisher.blackout(false),
            other => match other.split_once('=') {
                Some(("size", name)) => publisher.switch(&video_sid, &clip(name)?),
                Some(("layers", count)) => publisher.send_layers(&video_sid, count.parse()?),
                Some(("jump", seconds)) => publisher.jump_rtp(&video_sid, Duration::from_secs_f64(seconds.parse()?)),
                Some(("queue", seconds)) => publisher.queue_uplink(Duration::from_secs_f64(seconds.parse()?)),
                Some(("clock", seconds)) => publisher.set_clock(Duration::from_secs_f64(seconds.parse()?)),
                _ => bail!("cannot {other}"),
            },
        }
    }
    if args.seconds > 0.0 {
        tokio::time::sleep_until((begun + Duration::from_secs_f64(args.seconds)).into()).await;
    } else {
        tokio::signal::ctrl_c().await?;
    }
    println!("{:?}", publisher.sent());
    publisher.leave().await;
    Ok(())
}

fn speech(name: Option<&str>) -> Result<Option<SpeechPattern>> {
    Ok(match name {
        None => None,
        Some("dtx") => Some(SpeechPattern::DTX),
        Some("phone") => Some(SpeechPattern::telephone(RtpInPause::GoesOn)),
        Some("phone-stopped") => Some(SpeechPattern::telephone(RtpInPause::StandsStill)),
        Some("bot") => Some(SpeechPattern::bot(Duration::from_millis(1500), Duration::from_secs(3))),
        Some(other) => bail!("no speech called {other}"),
    })
}
