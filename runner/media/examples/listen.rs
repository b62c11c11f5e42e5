//! Joins a room as a hidden listener and prints what arrives: the first thing to run against a new server.
//!
//! `cargo run -p spillway-media --example listen -- --url ws://127.0.0.1:7880 --token TOKEN [--seconds 20] …`

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Parser;
use spillway_media::source::room::{JoinOptions, Room, RoomMessage};
use spillway_media::track::{TimelineEvent, Track, TrackId};
use spillway_plan::Secret;
use spillway_plan::Source;
use spillway_process::telemetry::{self, LogFormat};

#[derive(Parser)]
struct Args {
    #[arg(long)]
    url: String,
    /// An egress token: subscribe only, hidden, recorder.
    #[arg(long, env = "LIVEKIT_TOKEN")]
    token: String,
    #[arg(long, default_value_t = 20.0)]
    seconds: f64,
    /// Only this publication.
    #[arg(long)]
    track: Option<String>,
    /// Only this participant.
    #[arg(long)]
    participant: Option<String>,
    /// Write each track's frames, one after the other, into this folder.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Keep everything that arrives, for a replay.
    #[arg(long)]
    dump: Option<PathBuf>,
    /// Print every frame.
    #[arg(long)]
    frames: bool,
}

#[derive(Default)]
struct Seen {
    what: String,
    frames: u64,
    keys: u64,
    lost: u64,
    first: Option<u64>,
    last: u64,
    longest_gap: u64,
    out: Option<std::fs::File>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    telemetry::init("info", LogFormat::Text);
    let choose = match (&args.track, &args.participant) {
        (Some(track_id), _) => Source::Track { track_id: track_id.clone() },
        (None, Some(identity)) => Source::Participant { identity: identity.clone(), screen_share: false },
        (None, None) => Source::Room,
    };
    let began = Instant::now();
    let options =
        JoinOptions { dump: args.dump.clone(), ..JoinOptions::new(&args.url, Secret::new(args.token.clone()), choose) };
    let (outbox, inbox) = channel();
    let room =
        Room::join(options, move |deliveries| deliveries.into_iter().all(|delivery| outbox.send(delivery).is_ok()))?;
    let mut tracks: BTreeMap<TrackId, Seen> = BTreeMap::new();
    let mut longest_wait = Duration::ZERO;
    let mut zero: Option<Instant> = None;
    let mut leaving = false;
    let stop_at = began + Duration::from_secs_f64(args.seconds);
    loop {
        if Instant::now() >= stop_at && !leaving {
            leaving = true;
            room.leave();
        }
        let delivery = match inbox.recv_timeout(Duration::from_millis(100)) {
            Ok(delivery) => delivery,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => break,
        };
        let at = began.elapsed().as_secs_f64();
        match delivery {
            RoomMessage::Epoch { at, .. } => zero = Some(at),
            RoomMessage::TimelineEvent(TimelineEvent::Frame(frame)) => {
                let seen = tracks.entry(frame.track).or_default();
                if args.frames {
                    println!(
                        "[{at:8.3}] {:?} {:.3} key={} {:?} {} bytes",
                        frame.track,
                        frame.at.ns() as f64 / 1e9,
                        frame.key,
                        frame.size,
                        frame.data.len()
                    );
                }
                seen.first.get_or_insert(frame.at.ns());
                if seen.frames > 0 {
                    seen.longest_gap = seen.longest_gap.max(frame.at.ns().saturating_sub(seen.last));
                }
                seen.last = frame.at.ns();
                seen.frames += 1;
                seen.keys += u64::from(frame.key);
                if let Some(out) = &mut seen.out {
                    out.write_all(&frame.data)?;
                }
                if let Some(zero) = zero {
                    longest_wait = longest_wait.max(zero.elapsed().saturating_sub(Duration::from_nanos(frame.at.ns())));
                }
            }
            RoomMessage::TimelineEvent(TimelineEvent::Watermark { .. }) => {}
            RoomMessage::TimelineEvent(TimelineEvent::Joined { track, at: place }) => {
                println!("[{at:8.3}] joined {track:?} at {:.3}", place.ns() as f64 / 1e9);
                let seen = tracks.entry(track.id).or_default();
                seen.what = describe(&track);
                if let Some(folder) = &args.out {
                    seen.out = Some(std::fs::File::create(folder.join(format!("{}.bin", seen.what)))?);
                }
            }
            RoomMessage::TimelineEvent(TimelineEvent::Lost { track, packets, .. }) => {
                tracks.entry(track).or_default().lost += packets;
                println!("[{at:8.3}] {track:?} lost {packets} packets");
            }
            other => println!("[{at:8.3}] {other:?}"),
        }
    }
    for seen in tracks.values() {
        let span = seen.last.saturating_sub(seen.first.unwrap_or_default()) as f64 / 1e9;
        println!(
            "{}: {} frames ({} key) in {span:.2} s, longest gap {:.0} ms, {} packets lost",
            seen.what,
            seen.frames,
            seen.keys,
            seen.longest_gap as f64 / 1e6,
            seen.lost
        );
    }
    let used = cpu_seconds().unwrap_or_default();
    println!(
        "cpu {used:.2} s = {:.4} cores; frame came at most {longest_wait:?} after its time",
        used / began.elapsed().as_secs_f64()
    );
    Ok(())
}

fn describe(track: &Track) -> String {
    format!("{}-{:?}-{:?}", track.identity, track.origin, track.codec)
}

/// User and system time of this process; `/proc` counts in hundredths.
fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let mut message = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let ticks = message.next()?.parse::<f64>().ok()? + message.next()?.parse::<f64>().ok()?;
    Some(ticks / 100.0)
}
