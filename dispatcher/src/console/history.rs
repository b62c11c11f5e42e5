//! The ledger for people: its lines by pages, as CSV, and added up. Reads Redis in the caller's task, a few hundred lines at a
//! time, and never holds more of them: the ledger may have a hundred thousand.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;
use std::io;
use std::sync::Arc;

use futures_util::Stream;
use futures_util::stream::unfold;
use hyper::body::Bytes;
use serde::Serialize;
use spillway_bus::{BusError, Tasks};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::query::LedgerFilter;
use crate::billing::bill::{self, BillRow, By};
use crate::billing::entry::Entry;

/// Lines per read; about a kilobyte each.
const READ: usize = 500;
/// Lines that one request for a page looks through: a filter that few lines pass is asked again from where it got to.
const MAX_SEARCHED: usize = 20_000;
/// Reads of the ledger at once, of all requests: each costs the CPU time of parsing what it reads.
const SEARCHES: usize = 2;
/// CSV files at once: a slow reader keeps its place.
const EXPORTS: usize = 4;
/// Rows of a bill; the others are one row.
const MAX_ROWS: usize = 5000;

/// Columns of a CSV file, in the order of [`csv_line`].
const COLUMNS: &str = "id,egress_id,attempt,salvage,room,type,tenant,target,platform,region,arch,capacity,cpu_milli,memory_mib,\
                       from_ms,to_ms,billed_seconds,recorded_seconds,window,bytes,amount,estimate,currency,price_version,\
                       outcome,task_url,log_url\n";

/// The ledger of this installation.
pub struct History {
    tasks: Tasks,
    searches: Semaphore,
    exports: Arc<Semaphore>,
}

/// Lines of the ledger, the newest first.
#[derive(Debug, Serialize)]
pub struct LedgerPage {
    /// At most as many as were asked for.
    pub lines: Vec<LedgerRow>,
    /// Where the next page begins; `None`: there is nothing older.
    pub next: Option<String>,
    /// Lines that were looked through.
    pub searched: usize,
}

/// One line.
#[derive(Debug, Serialize)]
pub struct LedgerRow {
    /// Its id in the ledger, for the next page.
    pub id: String,
    /// The line.
    #[serde(flatten)]
    pub entry: Entry,
}

/// Lines of the ledger, added up.
#[derive(Debug, Default)]
pub struct BillSums {
    /// By name.
    pub rows: BTreeMap<String, BillRow>,
    /// What is in none of them, because there are too many.
    pub others: BillRow,
}

impl History {
    /// Reads nothing yet.
    pub fn new(tasks: Tasks) -> Self {
        Self { tasks, searches: Semaphore::new(SEARCHES), exports: Arc::new(Semaphore::new(EXPORTS)) }
    }

    /// The newest lines that the filter takes, at most `max`. `before`: [`LedgerPage::next`] of the page before.
    ///
    /// # Errors
    /// When Redis does not answer; a retry is right.
    pub async fn page(
        &self,
        filter: &LedgerFilter,
        before: Option<String>,
        max: usize,
    ) -> Result<LedgerPage, BusError> {
        // It is never closed.
        let _place = self.searches.acquire().await;
        let mut page = LedgerPage { lines: Vec::new(), next: before, searched: 0 };
        while page.searched < MAX_SEARCHED {
            let (since_ms, until_ms) = (filter.since_ms, filter.until_ms);
            let read = self.tasks.newest_lines(since_ms, until_ms, page.next.as_deref(), READ).await?;
            let is_last = read.len() < READ;
            for (id, text) in read {
                page.searched += 1;
                page.next = Some(id.clone());
                // A line of another version that cannot be parsed is left out, as in `bill`.
                let entry = serde_json::from_str::<Entry>(&text).ok().filter(|entry| filter.takes(entry));
                page.lines.extend(entry.map(|entry| LedgerRow { id, entry }));
                if page.lines.len() >= max {
                    return Ok(page);
                }
            }
            if is_last {
                page.next = None;
                break;
            }
        }
        Ok(page)
    }

    /// Sums of the lines that the filter takes.
    ///
    /// # Errors
    /// When Redis does not answer; a retry is right.
    pub async fn sums(&self, filter: &LedgerFilter, by: By) -> Result<BillSums, BusError> {
        let _place = self.searches.acquire().await;
        let mut sums = BillSums::default();
        let mut after: Option<String> = None;
        loop {
            let read = self.tasks.lines(filter.since_ms, filter.until_ms, after.as_deref(), READ).await?;
            let is_last = read.len() < READ;
            after = read.last().map(|(id, _)| id.clone());
            for (_, text) in &read {
                let Ok(entry) = serde_json::from_str::<Entry>(text) else { continue };
                if filter.takes(&entry) {
                    sums.add(&entry, by);
                }
            }
            if is_last {
                return Ok(sums);
            }
        }
    }

    /// The lines that the filter takes as CSV, the oldest first, in pieces. `None`: too many are being read already.
    ///
    /// # Errors
    /// Of a piece: Redis does not answer. The file is not whole then.
    pub fn export(&self, filter: LedgerFilter) -> Option<impl Stream<Item = io::Result<Bytes>> + Send + use<>> {
        let place = Arc::clone(&self.exports).try_acquire_owned().ok()?;
        let pieces = VecDeque::from([Bytes::from_static(COLUMNS.as_bytes())]);
        let export = Export { tasks: self.tasks.clone(), filter, after: None, pieces, is_over: false, _place: place };
        Some(unfold(export, |mut export| async move { export.next().await.map(|piece| (piece, export)) }))
    }
}

impl BillSums {
    fn add(&mut self, entry: &Entry, by: By) {
        let name = bill::name(entry, by);
        let is_new = !self.rows.contains_key(&name);
        if is_new && self.rows.len() >= MAX_ROWS {
            self.others.add(entry);
        } else {
            self.rows.entry(name).or_default().add(entry);
        }
    }
}

/// A CSV file that is being read.
struct Export {
    tasks: Tasks,
    filter: LedgerFilter,
    after: Option<String>,
    /// Read and not given yet.
    pieces: VecDeque<Bytes>,
    is_over: bool,
    _place: OwnedSemaphorePermit,
}

impl Export {
    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        loop {
            if let Some(piece) = self.pieces.pop_front() {
                return Some(Ok(piece));
            }
            if self.is_over {
                return None;
            }
            if let Err(error) = self.read().await {
                self.is_over = true;
                return Some(Err(io::Error::other(error)));
            }
        }
    }

    async fn read(&mut self) -> Result<(), BusError> {
        let LedgerFilter { since_ms, until_ms, .. } = self.filter;
        let read = self.tasks.lines(since_ms, until_ms, self.after.as_deref(), READ).await?;
        self.is_over = read.len() < READ;
        self.after = read.last().map(|(id, _)| id.clone());
        let mut text = String::new();
        for (id, line) in &read {
            let Ok(entry) = serde_json::from_str::<Entry>(line) else { continue };
            if self.filter.takes(&entry) {
                csv_line(&mut text, id, &entry);
            }
        }
        if !text.is_empty() {
            self.pieces.push_back(Bytes::from(text));
        }
        Ok(())
    }
}

fn csv_line(text: &mut String, id: &str, entry: &Entry) {
    let word = |value: serde_json::Result<serde_json::Value>| {
        value.ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
    };
    let platform = word(serde_json::to_value(entry.platform));
    let capacity = word(serde_json::to_value(entry.capacity));
    let Entry { attempt, salvage, cpu_milli, memory_mib, from_ms, to_ms, seconds, recorded_s, bytes, .. } = entry;
    let links = &entry.links;
    let [room, kind, tenant, target, region, arch, outcome, task_url, log_url] = [
        &entry.room,
        &entry.kind,
        &entry.tenant,
        &entry.target,
        &entry.region,
        &entry.arch,
        &entry.outcome,
        links.task_url.as_ref().unwrap_or(&String::new()),
        links.log_url.as_ref().unwrap_or(&String::new()),
    ]
    .map(|text| bill::field(text));
    let _ = writeln!(
        text,
        "{id},{egress_id},{attempt},{salvage},{room},{kind},{tenant},{target},{platform},{region},{arch},{capacity},\
         {cpu_milli},{memory_mib},{from_ms},{to_ms},{seconds:.3},{recorded_s:.3},{window},{bytes},{amount:.6},\
         {estimate:.6},{currency},{version},{outcome},{task_url},{log_url}",
        egress_id = entry.egress_id,
        window = entry.window,
        amount = entry.amount,
        estimate = entry.estimate,
        currency = entry.currency,
        version = entry.price_version,
    );
}

#[cfg(test)]
#[path = "history_tests.rs"]
mod tests;
