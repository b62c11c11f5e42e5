//! `spillway-dispatcher bill`: reads the ledger from Redis and adds it up. Writes nothing.

use std::collections::BTreeMap;
use std::fmt::Write;

use chrono::{NaiveDate, NaiveTime};
use serde::{Deserialize, Serialize};
use spillway_bus::{BusError, Tasks};

use super::entry::{Entry, day};

/// Ledger lines per read.
const PAGE: usize = 1000;

/// What the rows of a bill are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum By {
    /// Rooms.
    Room,
    /// Tenants.
    Tenant,
    /// Kinds of egress.
    Type,
    /// Days in UTC, by the end of the task.
    Day,
    /// Targets.
    Target,
    /// Single egresses.
    Egress,
}

impl By {
    /// Its name, as on the command line.
    pub fn title(self) -> String {
        format!("{self:?}").to_lowercase()
    }
}

/// Sums of some tasks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BillRow {
    /// How many.
    pub tasks: u64,
    /// Billed seconds.
    pub billed_s: f64,
    /// Recorded seconds.
    pub recorded_s: f64,
    /// Size of the files.
    pub bytes: u64,
    /// Dollars.
    pub amount: f64,
}

/// Ledger lines of that time, by the end of their task; Unix milliseconds.
///
/// # Errors
/// When Redis does not answer; a retry is right.
pub async fn read(tasks: &Tasks, since_ms: i64, until_ms: i64) -> Result<Vec<Entry>, BusError> {
    let mut entries = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let page = tasks.lines(since_ms, until_ms, after.as_deref(), PAGE).await?;
        let is_last = page.len() < PAGE;
        after = page.last().map(|(id, _)| id.clone());
        // A line of a newer version that cannot be parsed is left out; the pages after it are not.
        entries.extend(page.iter().filter_map(|(_, text)| serde_json::from_str(text).ok()));
        if is_last {
            return Ok(entries);
        }
    }
}

/// Sums by name.
pub fn add_up(entries: &[Entry], by: By) -> BTreeMap<String, BillRow> {
    let mut rows: BTreeMap<String, BillRow> = BTreeMap::new();
    for entry in entries {
        rows.entry(name(entry, by)).or_default().add(entry);
    }
    rows
}

/// Name of the row that an entry belongs to.
pub fn name(entry: &Entry, by: By) -> String {
    match by {
        By::Room => entry.room.clone(),
        By::Tenant => entry.tenant.clone(),
        By::Type => entry.kind.clone(),
        By::Day => day(entry.to_ms),
        By::Target => entry.target.clone(),
        By::Egress => entry.egress_id.clone(),
    }
}

impl BillRow {
    /// Adds one task.
    pub fn add(&mut self, entry: &Entry) {
        self.tasks += 1;
        self.billed_s += entry.seconds;
        self.recorded_s += entry.recorded_s;
        self.bytes += entry.bytes;
        self.amount += entry.amount;
    }

    /// Adds what another row has.
    pub fn join(&mut self, other: &Self) {
        self.tasks += other.tasks;
        self.billed_s += other.billed_s;
        self.recorded_s += other.recorded_s;
        self.bytes += other.bytes;
        self.amount += other.amount;
    }
}

/// Sum of all rows.
pub fn total(rows: &BTreeMap<String, BillRow>) -> BillRow {
    rows.values().fold(BillRow::default(), |mut sum, row| {
        sum.join(row);
        sum
    })
}

/// For a terminal, with a total.
pub fn table(rows: &BTreeMap<String, BillRow>, by: By) -> String {
    let title = by.title();
    let width = rows.keys().map(|name| name.chars().count()).chain([title.len(), 5]).max().unwrap_or(5);
    let mut text =
        format!("{title:<width$} {:>7} {:>12} {:>12} {:>12} {:>12}\n", "tasks", "billed min", "recorded", "MB", "USD");
    let mut line = |name: &str, row: &BillRow| {
        let _ = writeln!(
            text,
            "{name:<width$} {:>7} {:>12.1} {:>12.1} {:>12.1} {:>12.4}",
            row.tasks,
            row.billed_s / 60.0,
            row.recorded_s / 60.0,
            row.bytes as f64 / 1e6,
            row.amount
        );
    };
    for (name, row) in rows {
        line(if name.is_empty() { "-" } else { name }, row);
    }
    line("total", &total(rows));
    text
}

/// For a spreadsheet.
pub fn csv(rows: &BTreeMap<String, BillRow>, by: By) -> String {
    let mut text = format!("{},tasks,billed_seconds,recorded_seconds,bytes,usd\n", by.title());
    for (name, row) in rows {
        let BillRow { tasks, billed_s, recorded_s, bytes, amount } = row;
        let _ = writeln!(text, "{},{tasks},{billed_s:.3},{recorded_s:.3},{bytes},{amount:.6}", field(name));
    }
    text
}

/// A text as a field of a CSV file. Rooms have any name; a spreadsheet must not take one for a formula.
pub fn field(text: &str) -> String {
    let guarded = if text.starts_with(['=', '+', '-', '@']) { format!("'{text}") } else { text.to_owned() };
    if guarded.contains(['"', ',', '\n', '\r']) { format!("\"{}\"", guarded.replace('"', "\"\"")) } else { guarded }
}

/// `2026-11`, `2026-11-22`, `7d` or `12h` before now, or Unix seconds → the start of it in Unix milliseconds.
///
/// # Errors
/// When the text is none of these; the message is for the operator.
pub fn moment(text: &str, now_ms: i64) -> Result<i64, String> {
    let wrong = || format!("\"{text}\" is no time: write 2026-11, 2026-11-22, 7d, 12h or Unix seconds");
    // A number further away than any ledger's calendar is a typing error.
    let number =
        |text: &str| text.parse::<i64>().ok().filter(|number| (0..100_000_000_000).contains(number)).ok_or_else(wrong);
    let before = |count: i64, unit_ms: i64| now_ms.checked_sub(count.checked_mul(unit_ms)?);
    if let Some(days) = text.strip_suffix('d') {
        return before(number(days)?, 86_400_000).ok_or_else(wrong);
    }
    if let Some(hours) = text.strip_suffix('h') {
        return before(number(hours)?, 3_600_000).ok_or_else(wrong);
    }
    let parts: Vec<&str> = text.split('-').collect();
    match parts.as_slice() {
        [seconds] => Ok(number(seconds)? * 1000),
        [year, month] | [year, month, _] if text.len() >= 7 => {
            let day = parts.get(2).map_or(Ok(1), |day| number(day))?;
            let small = |number: i64| u32::try_from(number).map_err(|_| wrong());
            let year = i32::try_from(number(year)?).ok().filter(|year| (1970..=9999).contains(year));
            let (year, month, day) = (year.ok_or_else(wrong)?, small(number(month)?)?, small(day)?);
            let date = NaiveDate::from_ymd_opt(year, month, day).ok_or_else(wrong)?;
            Ok(date.and_time(NaiveTime::MIN).and_utc().timestamp_millis())
        }
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        let now = 1_763_856_000_000;
        assert_eq!(moment("2026-11", now), Ok(1_793_491_200_000));
        assert_eq!(moment("2026-11-02", now), Ok(1_793_491_200_000 + 86_400_000));
        assert_eq!(moment("7d", now), Ok(now - 7 * 86_400_000));
        assert_eq!(moment("12h", now), Ok(now - 12 * 3_600_000));
        assert_eq!(moment("1763856000", now), Ok(now));
        for text in [
            "",
            "yesterday",
            "-7d",
            "99999999999999999d",
            "9999999999999999999",
            "99999999999-11",
            "2026-13",
            "2026-11-32",
            "2026-02-30",
            "2026-11-22-1",
        ] {
            assert!(moment(text, now).is_err(), "{text}");
        }
    }

    #[test]
    fn a_room_called_like_a_formula_or_with_commas_stays_a_name() {
        assert_eq!(field("=1+1"), "'=1+1");
        assert_eq!(field("a,\"b\""), "\"a,\"\"b\"\"\"");
        assert_eq!(field("room"), "room");
    }
}
