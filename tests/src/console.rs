//! A dispatcher's console with many live egresses and a long ledger, and what a browser sees of it: for the tests of the page and
//! for its figures.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use spillway_bus::{Bus, RedisConfig};

use crate::devtools::BrowserPage;
use crate::planted::{self, PlantedEgresses};
use crate::servers::{DispatcherProcess, TestServers};

/// Opens the console for reading.
pub const READS: &str = "reads-reads-reads-reads-";
/// Opens it for stops, too.
pub const STOPS: &str = "stops-stops-stops-stops-";

/// Rows of the live view.
pub const LIVE_ROWS: &str = "document.querySelectorAll('#live tbody tr').length";
/// For what a page loads and shows, on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(20);

/// How long the page is watched for [`worst_gap_ms`].
const WATCHED_MS: u64 = 12_000;

/// Longest time that a row of the live view has shown the same number of stored bytes, which grow with each heartbeat.
const WORST_GAP: &str = "new Promise((done) => {
  const last = new Map();
  const begun = performance.now();
  let worst = 0;
  const look = () => {
    const now = performance.now();
    for (const row of document.querySelectorAll('#live tbody tr')) {
      const text = row.querySelector('[data-label=Stored]').textContent;
      const known = last.get(row.dataset.id);
      if (!known || known.text !== text) {
        worst = known ? Math.max(worst, now - known.at) : worst;
        last.set(row.dataset.id, { text, at: now });
      }
    }
    if (now - begun < @WATCHED@) {
      setTimeout(look, 50);
    } else {
      done(Math.max(worst, ...[...last.values()].map(({ at }) => now - at)));
    }
  };
  look();
})";

/// A dispatcher with a console. Its targets run nothing: `near` is simulated, `cloud` is ECS at an address where nothing listens.
pub struct ConsoleInstallation {
    // Dropped in this order.
    planted: PlantedEgresses,
    /// The dispatcher; its console is on its health port.
    pub dispatcher: DispatcherProcess,
    servers: TestServers,
}

impl ConsoleInstallation {
    /// With so many live egresses and lines of the ledger.
    ///
    /// # Errors
    ///
    /// When a server does not start.
    pub async fn start(live: usize, lines: u64) -> Result<Self> {
        let mut servers = TestServers::start("").await?;
        servers.set("AWS_ACCESS_KEY_ID", "AKIDSTAGE");
        servers.set("AWS_SECRET_ACCESS_KEY", "stage-secret");
        planted::fill(&servers.redis_address, lines)?;
        let redis = RedisConfig { address: servers.redis_address.clone(), ..RedisConfig::default() };
        let bus = Bus::connect(&redis).await.context("reach Redis")?;
        let planted = PlantedEgresses::plant(&bus, live).await?;
        let ecs = "{ region: eu-central-1, cluster: egress, task_definition: t, subnets: [s], endpoint: \"http://127.0.0.1:1\", \
                   log_group: /spillway/runner }";
        let config = format!(
            "{}cores: 100000\nstack: stage\nconsole: {{ token: {READS}, stop_token: {STOPS} }}\ntargets:\n\
             - {{ name: near, launcher: simulated }}\n\
             - {{ name: cloud, launcher: ecs, capacity: spot, region: eu-central-1, options: {ecs} }}\n",
            servers.connections(),
        );
        let dispatcher = servers.dispatcher_from("dispatcher", &config).await?;
        Ok(Self { planted, dispatcher, servers })
    }

    /// A folder for pictures, beside the logs.
    ///
    /// # Errors
    ///
    /// When it cannot be made.
    pub fn pictures(&self) -> Result<PathBuf> {
        let folder = self.servers.folder().join("console");
        std::fs::create_dir_all(&folder).context("make a folder for pictures")?;
        Ok(folder)
    }

    /// Live egresses.
    pub fn live(&self) -> usize {
        self.planted.count()
    }

    /// The page as one who comes without a token sees it.
    ///
    /// # Errors
    ///
    /// When the browser or the page does not open.
    pub async fn open(&self, size: (u32, u32)) -> Result<BrowserPage> {
        let mut page = BrowserPage::open(&format!("http://{}/console/", self.dispatcher.health), size).await?;
        let asks = "document.getElementById('sign-in')?.hidden === false && document.activeElement.id === 'token'";
        page.becomes(asks, LIMIT, |asks: &bool| *asks).await.context("it asks for a token")?;
        Ok(page)
    }

    /// Signs in by keyboard, and waits until everything that lives is there.
    ///
    /// # Errors
    ///
    /// When it is not.
    pub async fn sign_in(&self, page: &mut BrowserPage, token: &str) -> Result<()> {
        page.write(token).await?;
        page.press("Enter").await?;
        self.wait_for_rows(page).await
    }

    async fn wait_for_rows(&self, page: &mut BrowserPage) -> Result<()> {
        let live = self.live();
        page.becomes(LIVE_ROWS, LIMIT, |rows: &usize| *rows == live).await.context("all that live are there")?;
        Ok(())
    }

    /// Loads the page of one who is signed in again: milliseconds until its first text, and until all rows are there.
    ///
    /// # Errors
    ///
    /// When it does not load.
    pub async fn paint_ms(&self, page: &mut BrowserPage) -> Result<(f64, f64)> {
        page.reload(LIMIT).await?;
        self.wait_for_rows(page).await?;
        let rows_ms = page.evaluate("performance.now()").await?;
        let paint = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? -1";
        let painted = page.becomes(paint, LIMIT, |ms: &f64| *ms >= 0.0).await?;
        Ok((painted, rows_ms))
    }

    /// Resident memory of the dispatcher, now or at most (`VmRSS`, `VmHWM`), in MB.
    ///
    /// # Errors
    ///
    /// When it has ended.
    pub fn memory_mb(&self, line: &str) -> Result<f64> {
        let path = format!("/proc/{}/status", self.dispatcher.process.id());
        let status = std::fs::read_to_string(path).context("look at the dispatcher")?;
        let found =
            status.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(':')).context("no such line")?;
        Ok(found.trim().trim_end_matches(" kB").parse::<f64>()? / 1000.0)
    }

    /// CPU seconds of the dispatcher so far.
    ///
    /// # Errors
    ///
    /// When it has ended.
    pub fn core_s(&self) -> Result<f64> {
        let path = format!("/proc/{}/stat", self.dispatcher.process.id());
        let stat = std::fs::read_to_string(path).context("look at the dispatcher")?;
        let rest = stat.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
        let ticks: f64 = rest.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
        Ok(ticks / 100.0)
    }

    /// Watches the live view for twelve seconds: the longest time without a change of a row, in milliseconds, and the
    /// dispatcher's CPU meanwhile, in percent of a core.
    ///
    /// # Errors
    ///
    /// When the page is not the live view.
    pub async fn worst_gap_ms(&self, page: &mut BrowserPage) -> Result<(f64, f64)> {
        let (begun, before) = (Instant::now(), self.core_s()?);
        let worst = page.evaluate(&WORST_GAP.replace("@WATCHED@", &WATCHED_MS.to_string())).await?;
        let percent = (self.core_s()? - before) / begun.elapsed().as_secs_f64() * 100.0;
        Ok((worst, percent))
    }
}
