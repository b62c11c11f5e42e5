//! The console of a dispatcher with two hundred live egresses and a hundred thousand finished tasks.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::Value;
use spillway_tests::console::{ConsoleInstallation, LIMIT, READS};

const LIVE: usize = 200;
const LINES: u64 = 100_000;
const SIZE: (u32, u32) = (1400, 900);
const ROUNDS: usize = 10;

/// Figures of the page, and of the dispatcher behind it.
#[derive(Debug, Serialize)]
pub struct ConsoleCost {
    /// From the navigation to the first text, ms, least to most of ten loads.
    pub first_paint_ms: Vec<f64>,
    /// To all rows of the live view.
    pub all_rows_ms: Vec<f64>,
    /// Longest time that a row stood still, ms, while the page was open for twelve seconds.
    pub worst_gap_ms: f64,
    /// CPU of the dispatcher meanwhile, % of a core, and without a page: what the records themselves cost.
    pub open_percent: f64,
    /// Without a page.
    pub closed_percent: f64,
    /// A bill of all lines, by the click, ms.
    pub bill_ms: f64,
    /// Most resident memory of the dispatcher, MB.
    pub peak_mb: f64,
}

/// A page that is opened, watched, and asked for everything.
pub async fn measure() -> Result<ConsoleCost> {
    let installation = ConsoleInstallation::start(LIVE, LINES).await?;
    // Its start is over.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let (begun, before) = (Instant::now(), installation.core_s()?);
    tokio::time::sleep(Duration::from_secs(12)).await;
    let closed_percent = (installation.core_s()? - before) / begun.elapsed().as_secs_f64() * 100.0;

    let mut page = installation.open(SIZE).await?;
    installation.sign_in(&mut page, READS).await?;
    let (mut first_paint_ms, mut all_rows_ms) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (paint_ms, rows_ms) = installation.paint_ms(&mut page).await?;
        first_paint_ms.push(paint_ms);
        all_rows_ms.push(rows_ms);
    }
    first_paint_ms.sort_by(f64::total_cmp);
    all_rows_ms.sort_by(f64::total_cmp);
    let (worst_gap_ms, open_percent) = installation.worst_gap_ms(&mut page).await?;

    page.evaluate::<Value>(
        "document.querySelector('#bill input[type=date]').value = '2020-01-01', document.getElementById('tab-bill').click(), null",
    )
    .await?;
    let asked = Instant::now();
    let total = "Number(document.querySelector('#bill tfoot [data-label=Tasks]')?.textContent ?? 0)";
    page.becomes(total, LIMIT, |tasks: &u64| *tasks == LINES).await.context("a bill of everything")?;
    let bill_ms = asked.elapsed().as_secs_f64() * 1000.0;
    let peak_mb = installation.memory_mb("VmHWM")?;
    let cost =
        ConsoleCost { first_paint_ms, all_rows_ms, worst_gap_ms, open_percent, closed_percent, bill_ms, peak_mb };
    println!("{cost:?}");
    Ok(cost)
}
