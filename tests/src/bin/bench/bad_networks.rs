//! Publishers whose path loses packets and lets them overtake one another, and one whose uplink holds everything for three
//! seconds: which pictures and beeps are recorded, how long sound is away, and where it clicks. Before it each path is calm:
//! what is measured then is what the encoders do by themselves.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use serde::Serialize;
use spillway_tests::analyser::picture::{self, FrameContinuity};
use spillway_tests::analyser::sound::{self, DecodedAudio};
use spillway_tests::analyser::sync::offset;
use spillway_tests::assets::{TestPerson, clip, person};
use spillway_tests::publisher::{Publisher, PublisherOptions, SourceKind};
use spillway_tests::servers::TestServers;

use crate::recorded::{Punctuality, RecordedFile, Recordings, beeps, seconds};

const CALM_S: f64 = 6.0;
const JITTER: Duration = Duration::from_millis(200);
const QUEUE: Duration = Duration::from_secs(3);
/// The queue grows and drains by half a second in a second.
const QUEUE_MOVES_S: f64 = 6.0;
/// −40 dB of full scale.
const CLICK: f32 = 0.01;
/// The quiet tone of every clip has an amplitude of 0.02.
const SILENT: f32 = 0.004;

/// Figures of both rooms.
#[derive(Debug, Serialize)]
pub struct BadNetworks {
    seconds: f64,
    /// p0 loses 5 % and retransmits pictures, p1 loses 20 % and nothing is retransmitted; each packet takes up to 200 ms longer.
    loss: Vec<Heard>,
    /// p0's uplink delays everything by up to 3 s.
    queue: Vec<Heard>,
}

/// A participant in one recording.
#[derive(Debug, Serialize)]
pub struct Heard {
    kind: &'static str,
    who: &'static str,
    /// While its path is bad.
    sound: Punctuality,
    /// Longest time without any sound, milliseconds, and seconds of the file of which more than half is silent.
    longest_silence_ms: f64,
    lost_seconds: usize,
    /// Clicks above −40 dB a minute, and the largest: while its path is calm, and while it is bad.
    calm_clicks: Clicks,
    clicks: Clicks,
    /// `None` where the recording has no pictures.
    pictures: Option<Seen>,
}

/// Clicks of a span.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Clicks {
    per_minute: f64,
    largest_db: f64,
}

/// Pictures while the path is bad.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Seen {
    /// Of the clip's pictures, those that are there.
    share: f64,
    longest_freeze_ms: f64,
    /// Flash less beep.
    picture_less_sound_p99_ms: f64,
}

/// Both rooms, bad for so many seconds each.
pub async fn measure(bad_s: f64) -> Result<BadNetworks> {
    let servers = TestServers::start("").await?;
    let _dispatcher = servers.dispatcher("dispatcher", "").await?;
    let loss = lossy(&servers, bad_s).await.context("loss")?;
    let queue = queued(&servers, bad_s).await.context("queue")?;
    for (what, all) in [("loss and jitter of 200 ms", &loss), ("an uplink's queue of 3 s", &queue)] {
        println!("{what}, {bad_s:.0} s:");
        all.iter().for_each(print);
    }
    Ok(BadNetworks { seconds: bad_s, loss, queue })
}

fn print(heard: &Heard) {
    let pictures = heard.pictures.map_or(String::new(), |seen| {
        format!(
            "; {:.2} % of the pictures, longest freeze {:.0} ms, picture - sound p99 {:.0} ms",
            seen.share * 100.0,
            seen.longest_freeze_ms,
            seen.picture_less_sound_p99_ms
        )
    });
    println!(
        "  {} {}: {}; silent {:.0} ms at most, {} lost seconds; {:.1} clicks a minute up to {:.0} dB (calm: {:.1}, {:.0} dB){pictures}",
        heard.kind,
        heard.who,
        heard.sound.line(),
        heard.longest_silence_ms,
        heard.lost_seconds,
        heard.clicks.per_minute,
        heard.clicks.largest_db,
        heard.calm_clicks.per_minute,
        heard.calm_clicks.largest_db,
    );
}

async fn joined(
    servers: &TestServers,
    room: &str,
    who: &str,
    options: PublisherOptions,
) -> Result<(Publisher, String, String)> {
    let publisher = Publisher::join(&servers.api, room, who, options).await?;
    let video = publisher.publish(&clip(&format!("{who}-360.h264"))?, SourceKind::Camera).await?;
    let audio = publisher.publish(&clip(&format!("{who}.opus"))?, SourceKind::Microphone).await?;
    Ok((publisher, video, audio))
}

async fn lossy(servers: &TestServers, bad_s: f64) -> Result<Vec<Heard>> {
    let room = "loss";
    let options = |retransmits| PublisherOptions { retransmits, seed: 5, ..PublisherOptions::default() };
    let (p0, video, audio) = joined(servers, room, "p0", options(true)).await?;
    let (p1, _, p1_audio) = joined(servers, room, "p1", options(false)).await?;
    seconds(1.0).await;
    let mut recordings = Recordings::of(servers, room);
    recordings.room().await?;
    recordings.track_composite(&video, &audio).await?;
    recordings.track(&p1_audio).await?;
    recordings.active().await?;
    seconds(CALM_S).await;
    let bad = SystemTime::now();
    for (publisher, share) in [(&p0, 0.05), (&p1, 0.2)] {
        publisher.lose(share);
        publisher.jitter(JITTER);
    }
    seconds(bad_s).await;
    let files = recordings.complete().await?;
    for publisher in [&p0, &p1] {
        println!("{}: {:?}", publisher.identity, publisher.sent());
    }
    let heard = |file: &RecordedFile| match file.kind {
        "room" => vec!["p0", "p1"],
        "track" => vec!["p1"],
        _ => vec!["p0"],
    };
    looked_at(files, bad, heard).await
}

async fn queued(servers: &TestServers, bad_s: f64) -> Result<Vec<Heard>> {
    let room = "queue";
    let (p0, video, audio) = joined(servers, room, "p0", PublisherOptions::default()).await?;
    let _p1 = joined(servers, room, "p1", PublisherOptions::default()).await?;
    seconds(1.0).await;
    let mut recordings = Recordings::of(servers, room);
    recordings.every_kind("p0", (&video, &audio)).await?;
    recordings.active().await?;
    seconds(CALM_S).await;
    let bad = SystemTime::now();
    p0.queue_uplink(QUEUE);
    seconds(bad_s).await;
    p0.queue_uplink(Duration::ZERO);
    // What waits arrives late, and is recorded all the same.
    seconds(QUEUE_MOVES_S + 4.0).await;
    let files = recordings.complete().await?;
    looked_at(files, bad, |_| vec!["p0"]).await
}

async fn looked_at(
    files: Vec<RecordedFile>,
    bad: SystemTime,
    who: impl Fn(&RecordedFile) -> Vec<&'static str> + Send + 'static,
) -> Result<Vec<Heard>> {
    let looked = tokio::task::spawn_blocking(move || -> Result<Vec<Heard>> {
        let mut all = vec![];
        for file in &files {
            let sound = sound::analyse(&file.path)?;
            let video = if file.path.extension().is_some_and(|ending| ending == "mp4") {
                Some(picture::analyse(&file.path)?)
            } else {
                None
            };
            for who in who(file) {
                let (from, to) = (file.at(bad) + 0.5, file.seconds - 0.7);
                let beeps = beeps(&sound, person(who));
                let marks: Vec<f64> = file.marks(&[]).into_iter().filter(|at| *at >= from).collect();
                let pictures = video.as_ref().map(|video| {
                    let numbers: Vec<(f64, u16)> = video
                        .of(person(who))
                        .filter(|(at, _)| (from..to).contains(at))
                        .filter_map(|(at, reading)| Some((at, reading?.number?)))
                        .collect();
                    let flashes: Vec<f64> =
                        video.flashes(person(who)).into_iter().filter(|at| (from..to).contains(at)).collect();
                    seen(&FrameContinuity::of(&numbers), &flashes, &beeps)
                });
                all.push(Heard {
                    kind: file.kind,
                    who,
                    sound: Punctuality::of(&beeps, &marks),
                    longest_silence_ms: sound.longest_silence(from, to, SILENT) * 1e3,
                    lost_seconds: lost_seconds(&sound, from, to),
                    calm_clicks: clicks(&sound, 1.0, file.at(bad), person(who)),
                    clicks: clicks(&sound, from, to, person(who)),
                    pictures,
                });
            }
        }
        Ok(all)
    });
    looked.await.context("look at the files")?
}

fn seen(shown: &FrameContinuity, flashes: &[f64], beeps: &[f64]) -> Seen {
    Seen {
        share: shown.different as f64 / (shown.different + shown.missing).max(1) as f64,
        longest_freeze_ms: shown.longest_freeze * 1e3,
        picture_less_sound_p99_ms: offset(flashes, beeps).p99_ms,
    }
}

/// Seconds of which more than half is silent.
fn lost_seconds(sound: &DecodedAudio, from: f64, to: f64) -> usize {
    let whole = (to - from).max(0.0) as usize;
    let is_lost = |second: &usize| {
        let begins = from + *second as f64;
        let silent = (0..50).filter(|part| {
            let at = begins + f64::from(*part) * 0.02;
            sound.peak(at, at + 0.02) <= SILENT
        });
        silent.count() > 25
    };
    (0..whole).filter(is_lost).count()
}

/// Of a span, without the beeps, whose beginnings and ends are hard.
fn clicks(sound: &DecodedAudio, from: f64, to: f64, who: TestPerson) -> Clicks {
    let beeps = beeps(sound, who);
    let is_beep = |at: f64| beeps.iter().any(|beep| (-0.03..0.08).contains(&(at - beep)));
    let all: Vec<(f64, f32)> = sound.clicks(from, to, CLICK).into_iter().filter(|(at, _)| !is_beep(*at)).collect();
    let largest = all.iter().map(|(_, size)| *size).fold(CLICK, f32::max);
    Clicks { per_minute: all.len() as f64 / (to - from).max(0.1) * 60.0, largest_db: 20.0 * f64::from(largest).log10() }
}

#[cfg(test)]
mod tests {
    use spillway_tests::analyser::sound::RATE;

    use super::*;

    #[test]
    fn a_second_that_is_mostly_silent_is_lost() {
        let mut left = vec![0.02f32; RATE * 4];
        left[RATE..RATE * 16 / 10].fill(0.0);
        let sound = DecodedAudio { right: left.clone(), left, begins: 0.0 };
        assert_eq!(lost_seconds(&sound, 0.0, 4.0), 1);
        assert_eq!(lost_seconds(&sound, 1.2, 4.0), 0);
    }
}
