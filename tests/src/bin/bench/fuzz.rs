//! The receiver with what no publisher sends, ten million times: most bytes held, the furthest place ahead of its arrival. A
//! minute of it is in `cargo verify`.

use std::time::Instant;

use anyhow::{Context, Result};
use serde::Serialize;
use spillway_media::receive::fuzz::{FuzzFault, FuzzFigures, fuzz};

const INPUTS: u64 = 10_000_000;
/// Of a receiver, which is new then.
const SESSION: u64 = 20_000;

/// Figures of all sessions.
#[derive(Debug, Serialize)]
pub struct Fuzzed {
    inputs: u64,
    frames: u64,
    held_mb: f64,
    ahead_ms: f64,
    inputs_per_second: f64,
}

/// From this seed on. An error names the seed of a session that broke a bound.
pub async fn measure(seed: u64) -> Result<Fuzzed> {
    let begun = Instant::now();
    let run = tokio::task::spawn_blocking(move || -> Result<FuzzFigures, FuzzFault> {
        let mut all = FuzzFigures::default();
        for seed in seed..seed + INPUTS / SESSION {
            all = all.and(fuzz(seed, SESSION)?);
        }
        Ok(all)
    });
    let all = run.await.context("a receiver panicked")?.context("a bound is broken")?;
    let figures = Fuzzed {
        inputs: all.inputs,
        frames: all.frames,
        held_mb: all.held_bytes as f64 / f64::from(1 << 20),
        ahead_ms: all.ahead_ns as f64 / 1e6,
        inputs_per_second: all.inputs as f64 / begun.elapsed().as_secs_f64(),
    };
    println!(
        "{} arbitrary inputs: {} frames placed, at most {:.0} ms ahead; at most {:.1} MB held; {:.0} inputs a second",
        figures.inputs, figures.frames, figures.ahead_ms, figures.held_mb, figures.inputs_per_second
    );
    Ok(figures)
}
