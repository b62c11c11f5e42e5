//! An Opus track of a microphone with DTX that is muted for ten seconds, copied: how long its file is for a decoder that
//! counts samples, against the time that the recording took.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use spillway_tests::analyser::sound;
use spillway_tests::assets::{clip, person};
use spillway_tests::publisher::{Publisher, PublisherOptions, SpeechPattern};
use spillway_tests::servers::TestServers;

use crate::recorded::{Punctuality, Recordings, beeps, seconds};

const ROOM: &str = "opus-length";
const MUTED: Duration = Duration::from_secs(10);

/// Figures of one recording.
#[derive(Debug, Serialize)]
pub struct OpusLength {
    /// By the samples that are decoded, whatever time stamps say.
    heard_s: f64,
    /// By EgressInfo, and by the clock from its first instant to the stop that was asked for.
    told_s: f64,
    took_s: f64,
    /// Beeps by the count of samples: what is missing or too much anywhere moves all behind it.
    beeps: Punctuality,
}

/// A microphone that speaks a quarter of the time, for so many seconds beside the mute.
pub async fn measure(length_s: f64) -> Result<OpusLength> {
    let servers = TestServers::start("").await?;
    let _dispatcher = servers.dispatcher("dispatcher", "").await?;
    let p0 = Publisher::join(&servers.api, ROOM, "p0", PublisherOptions::default()).await?;
    let audio = p0.publish_speech(&clip("p0.opus")?, SpeechPattern::DTX).await?;
    seconds(1.0).await;
    let mut recordings = Recordings::of(&servers, ROOM);
    recordings.track(&audio).await?;
    recordings.active().await?;
    seconds(length_s / 2.0).await;
    let from = SystemTime::now();
    p0.mute(&audio, true);
    tokio::time::sleep(MUTED).await;
    p0.mute(&audio, false);
    let pauses = [(from, SystemTime::now())];
    seconds(length_s / 2.0).await;
    let stopped = SystemTime::now();
    let files = recordings.complete().await?;
    let [file] = &files[..] else { unreachable!("one was asked for") };
    let (path, marks) = (file.path.clone(), file.marks(&pauses));
    let looked = tokio::task::spawn_blocking(move || -> Result<_> {
        let sound = sound::untimed(&path)?;
        Ok((sound.seconds(), Punctuality::of(&beeps(&sound, person("p0")), &marks)))
    });
    let (heard_s, beeps) = looked.await.context("listen")??;
    ensure!(heard_s > 1.0, "{heard_s:.2} s are heard of {}", file.path.display());
    let figures = OpusLength { heard_s, told_s: file.told_s, took_s: file.at(stopped), beeps };
    println!(
        "Opus with DTX and a mute of 10 s: {heard_s:.3} s are decoded, {:+.0} ms against what is told, {:+.0} ms against the \
         stop; beeps by samples: {}",
        (heard_s - figures.told_s) * 1e3,
        (heard_s - figures.took_s) * 1e3,
        figures.beeps.line(),
    );
    Ok(figures)
}
