//! Picture against sound of a publisher after what moves one of them: a mute, a clock that is set, a rejoin; and of a browser
//! whose machine slept (all its processes are stopped), for eight seconds, and for a minute after which it has to join again.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use serde::Serialize;
use spillway_tests::analyser::sync::offset;
use spillway_tests::analyser::{picture, sound};
use spillway_tests::assets::{TestPerson, clip, person};
use spillway_tests::foreign::{BrowserOptions, ForeignPublisher};
use spillway_tests::publisher::{Publisher, PublisherOptions, SourceKind};
use spillway_tests::servers::TestServers;

use crate::recorded::{RecordedFile, Recordings, beeps, seconds};

/// Between two events: two seconds to settle, and ten pairs at least.
const BETWEEN_S: f64 = 13.0;
const MUTED_S: f64 = 5.0;
const AWAY_S: f64 = 4.0;
const CLOCK: Duration = Duration::from_millis(400);
const ASLEEP_S: [(&str, f64); 2] = [("sleep of 8 s", 8.0), ("sleep of 60 s", 60.0)];
/// From the first picture after an event on.
const SETTLES_S: f64 = 2.0;

/// Something that may move the picture against its sound.
#[derive(Clone, Copy, Debug)]
struct Disturbance {
    what: &'static str,
    begins: SystemTime,
    ends: SystemTime,
}

/// After one event, in one recording.
#[derive(Debug, Serialize)]
pub struct SyncAfter {
    kind: &'static str,
    after: &'static str,
    /// From the end of the event to the first flash.
    back_after_s: f64,
    /// Flashes with a beep, from two seconds after that on.
    pairs: usize,
    /// Picture less sound; positive: the picture is late.
    median_ms: f64,
    p99_ms: f64,
}

/// Our own publisher in three kinds, and a browser in a room.
pub async fn measure() -> Result<Vec<SyncAfter>> {
    let servers = TestServers::start("").await?;
    let _dispatcher = servers.dispatcher("dispatcher", "").await?;
    let mut all = disturbed(&servers).await.context("mute, clock, rejoin")?;
    all.extend(slept(&servers).await.context("a browser that sleeps")?);
    for it in &all {
        println!(
            "{:<16} {:<16} back after {:.2} s; picture - sound from 2 s on: {:>2} pairs, median {:+.1} ms, p99 {:.1} ms",
            it.kind, it.after, it.back_after_s, it.pairs, it.median_ms, it.p99_ms
        );
    }
    Ok(all)
}

/// A moment in which nothing happens.
fn calm() -> Disturbance {
    let now = SystemTime::now();
    Disturbance { what: "the beginning", begins: now, ends: now }
}

async fn disturbed(servers: &TestServers) -> Result<Vec<SyncAfter>> {
    let room = "disturbed";
    let (p0, [video, audio]) = joined(servers, room).await?;
    seconds(1.0).await;
    let (mut lasting, mut tracks) = (Recordings::of(servers, room), Recordings::of(servers, room));
    lasting.room().await?;
    lasting.participant("p0").await?;
    tracks.track_composite(&video, &audio).await?;
    lasting.active().await?;
    tracks.active().await?;
    let mut events = vec![calm()];
    seconds(BETWEEN_S).await;
    let begins = SystemTime::now();
    [&video, &audio].into_iter().for_each(|sid| p0.mute(sid, true));
    seconds(MUTED_S).await;
    [&video, &audio].into_iter().for_each(|sid| p0.mute(sid, false));
    events.push(Disturbance { what: "mute", begins, ends: SystemTime::now() });
    seconds(BETWEEN_S).await;
    let begins = SystemTime::now();
    p0.set_clock(CLOCK);
    events.push(Disturbance { what: "clock set 0.4 s", begins, ends: begins });
    seconds(BETWEEN_S).await;
    // Copied tracks end with their publication.
    let mut files = tracks.complete().await?;
    let begins = SystemTime::now();
    p0.leave().await;
    seconds(AWAY_S).await;
    let _back = joined(servers, room).await?;
    events.push(Disturbance { what: "rejoin", begins, ends: SystemTime::now() });
    seconds(BETWEEN_S).await;
    files.extend(lasting.complete().await?);
    looked_at(files, events, person("p0")).await
}

async fn joined(servers: &TestServers, room: &str) -> Result<(Publisher, [String; 2])> {
    let publisher = Publisher::join(&servers.api, room, "p0", PublisherOptions::default()).await?;
    let video = publisher.publish(&clip("p0-360.h264")?, SourceKind::Camera).await?;
    let audio = publisher.publish(&clip("p0.opus")?, SourceKind::Microphone).await?;
    Ok((publisher, [video, audio]))
}

async fn slept(servers: &TestServers) -> Result<Vec<SyncAfter>> {
    let room = "slept";
    let options = BrowserOptions::application("vp8", (640, 360));
    let page = ForeignPublisher::browser(&servers.api, room, "p3", &options).await?;
    let mut recordings = Recordings::of(servers, room);
    recordings.room().await?;
    recordings.active().await?;
    let mut events = vec![calm()];
    seconds(BETWEEN_S).await;
    for (what, asleep_s) in ASLEEP_S {
        let begins = SystemTime::now();
        page.sleep();
        seconds(asleep_s).await;
        page.wake();
        events.push(Disturbance { what, begins, ends: SystemTime::now() });
        // It may have to join and publish again.
        seconds(BETWEEN_S + 7.0).await;
    }
    let files = recordings.complete().await?;
    drop(page);
    looked_at(files, events, person("p3")).await
}

async fn looked_at(files: Vec<RecordedFile>, events: Vec<Disturbance>, who: TestPerson) -> Result<Vec<SyncAfter>> {
    let looked = tokio::task::spawn_blocking(move || -> Result<Vec<SyncAfter>> {
        let mut all = vec![];
        for file in &files {
            let flashes = picture::analyse(&file.path)?.flashes(who);
            let beeps = beeps(&sound::analyse(&file.path)?, who);
            all.extend(after_each(file, &events, &flashes, &beeps));
        }
        Ok(all)
    });
    looked.await.context("look at the files")?
}

/// What lies between each event and the next one, or the end of the file.
fn after_each(file: &RecordedFile, events: &[Disturbance], flashes: &[f64], beeps: &[f64]) -> Vec<SyncAfter> {
    let mut all = vec![];
    for (index, event) in events.iter().enumerate() {
        let ends = file.at(event.ends).max(0.0);
        let next = events.get(index + 1).map_or(f64::MAX, |next| file.at(next.begins));
        let to = next.min(file.seconds - 0.5);
        let Some(back) = flashes.iter().copied().find(|at| (ends..to).contains(at)) else { continue };
        let inside: Vec<f64> = flashes.iter().copied().filter(|at| (back + SETTLES_S..to).contains(at)).collect();
        let offset = offset(&inside, beeps);
        all.push(SyncAfter {
            kind: file.kind,
            after: event.what,
            back_after_s: back - ends,
            pairs: offset.pairs,
            median_ms: offset.median_ms,
            p99_ms: offset.p99_ms,
        });
    }
    all
}
