//! Answers of the API as text for people. Pure; every text of others is made safe for the terminal.

use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::Context;
use serde_json::Value;
use spillway_dispatcher::billing::bill::{self, BillRow, By};

use crate::shown::{bytes, duration, money, plain, safe, time};

/// Longer rooms and messages are cut in lists.
const MAX_CELL_CHARS: usize = 40;

/// A column's title; those of numbers are set to the right.
struct Column(&'static str, bool);

const fn left(title: &'static str) -> Column {
    Column(title, false)
}

const fn right(title: &'static str) -> Column {
    Column(title, true)
}

fn text(value: &Value, name: &str) -> String {
    safe(value[name].as_str().unwrap_or_default())
}

fn number(value: &Value, name: &str) -> f64 {
    value[name].as_f64().unwrap_or_default()
}

fn count(value: &Value, name: &str) -> u64 {
    value[name].as_u64().unwrap_or_default()
}

fn cut(text: String) -> String {
    match text.char_indices().nth(MAX_CELL_CHARS) {
        Some(_) => text.chars().take(MAX_CELL_CHARS - 1).chain(['…']).collect(),
        None => text,
    }
}

fn table(columns: &[Column], rows: &[Vec<String>]) -> String {
    let width = |nth: usize| {
        let cells = rows.iter().filter_map(|row| row.get(nth)).map(|cell| cell.chars().count());
        cells.chain([columns[nth].0.chars().count()]).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let mut text = String::new();
    let mut line = |cells: &[String]| {
        let mut line = String::new();
        for ((cell, column), width) in cells.iter().zip(columns).zip(widths.iter().copied()) {
            let _ = if column.1 { write!(line, "{cell:>width$}  ") } else { write!(line, "{cell:<width$}  ") };
        }
        let _ = writeln!(text, "{}", line.trim_end());
    };
    line(&columns.iter().map(|column| column.0.to_owned()).collect::<Vec<_>>());
    rows.iter().for_each(|row| line(row));
    text
}

fn state_of(row: &Value) -> String {
    let place = row["now"]["place"].as_u64().map(|place| format!(" ({place}.)")).unwrap_or_default();
    format!("{}{place}", text(row, "state"))
}

fn quality_of(row: &Value) -> String {
    let (quality, why) = (text(&row["now"], "quality"), text(&row["now"], "why"));
    match (quality.as_str(), why.as_str()) {
        ("none", _) => String::new(),
        (_, "") => quality,
        _ => format!("{quality}: {why}"),
    }
}

fn stored_of(now: &Value) -> String {
    match (now["stored"].as_u64(), count(now, "bytes")) {
        (_, 0) => String::new(),
        (Some(stored), written) => format!("{}/{}", bytes(stored), bytes(written)),
        (None, written) => bytes(written),
    }
}

/// A row for each egress, and a line with sums.
pub fn egresses(rows: &[&Value]) -> String {
    let columns = [
        left("EGRESS"),
        left("ROOM"),
        left("TYPE"),
        left("STATE"),
        left("QUALITY"),
        right("LENGTH"),
        right("STORED"),
        right("LAG"),
        left("TARGET"),
        right("COST"),
        right("PER HOUR"),
    ];
    let cells = |row: &&Value| {
        let now = &row["now"];
        let recorded = number(now, "seconds") > 0.0;
        vec![
            text(row, "id"),
            cut(text(row, "room")),
            plain(&text(row, "type")),
            state_of(row),
            cut(quality_of(row)),
            if recorded { duration(number(now, "seconds")) } else { String::new() },
            stored_of(now),
            if recorded { format!("{:.1}s", number(now, "lag_ms") / 1000.0) } else { String::new() },
            text(row, "target"),
            now["cost"].as_f64().map(money).unwrap_or_default(),
            row["hour"].as_f64().map(money).unwrap_or_default(),
        ]
    };
    // The sum of none is -0.0.
    let costs = rows.iter().map(|row| number(&row["now"], "cost")).fold(0.0, |sum, cost| sum + cost);
    let table = table(&columns, &rows.iter().map(cells).collect::<Vec<_>>());
    format!("{table}{} live, {} so far\n", rows.len(), money(costs))
}

/// What `watch` says of a change where there is no terminal.
pub fn change_line(row: &Value) -> String {
    let parts = [
        text(row, "id"),
        state_of(row),
        text(row, "status"),
        text(row, "target"),
        text(row, "room"),
        text(row, "details"),
        text(row, "error"),
    ];
    let parts: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    format!("{}\n", parts.join("  "))
}

/// Everything that is known of one egress.
pub fn details(id: &str, told: &Value) -> String {
    let (row, info, tasks) = (&told["egress"], &told["info"], told["tasks"].as_array());
    let now = &row["now"];
    let mut shown = format!("{id}\n");
    let mut fact = |name: &str, value: String| {
        if !value.is_empty() {
            let _ = writeln!(shown, "  {name:<12} {value}");
        }
    };
    if row.is_object() {
        fact("room", text(row, "room"));
        fact("tenant", text(row, "tenant"));
        fact("type", plain(&text(row, "type")));
        fact("state", format!("{}, {}", state_of(row), text(row, "status")));
        fact("quality", quality_of(row));
        fact("recorded", format!("{} {}", duration(number(now, "seconds")), stored_of(now)));
        fact("accepted", time(row["accepted_ms"].as_i64().unwrap_or_default()));
        fact("launched", time(row["launched_ms"].as_i64().unwrap_or_default()));
        fact("target", format!("{}, attempt {}", text(row, "target"), count(row, "attempt")));
        fact("cost", now["cost"].as_f64().map(money).unwrap_or_default());
        fact("an hour", row["hour"].as_f64().map(money).unwrap_or_default());
        fact("task", text(row, "task"));
        fact("page", text(row, "task_url"));
        fact("log", text(row, "log_url"));
        fact("details", text(row, "details"));
        fact("error", text(row, "error"));
    } else if info.is_object() {
        fact("status", text(info, "status"));
        fact("room", text(info, "roomName"));
        fact("details", text(info, "details"));
        fact("error", text(info, "error"));
    }
    for task in tasks.into_iter().flatten() {
        let _ = writeln!(
            shown,
            "  task {}: {} at {}, {} billed, {} {}: {}",
            count(task, "attempt"),
            time(task["from_ms"].as_i64().unwrap_or_default()),
            text(task, "target"),
            duration(number(task, "seconds")),
            money(number(task, "amount")),
            text(task, "currency"),
            text(task, "outcome"),
        );
        for url in [text(task, "task_url"), text(task, "log_url")].iter().filter(|url| !url.is_empty()) {
            let _ = writeln!(shown, "    {url}");
        }
    }
    shown
}

/// A row for each target.
pub fn targets(told: &Value) -> String {
    let columns = [
        left("TARGET"),
        left("LAUNCHER"),
        left("STATE"),
        left("PACE"),
        right("LIVE"),
        right("LAUNCHED"),
        right("REFUSED"),
    ];
    let cells = |target: &Value| {
        let (breaker, pace) = (&target["breaker"], &target["pace"]);
        let mut state = Vec::new();
        if target["retired"] == true {
            state.push("no longer configured".to_owned());
        }
        state.extend(target["switched"].as_str().map(safe));
        if breaker.is_object() {
            state.push(format!("closed for {} s: {}", count(breaker, "seconds"), text(breaker, "message")));
        }
        let state = if state.is_empty() { "open".to_owned() } else { state.join("; ") };
        let slowed = number(pace, "factor") < 1.0;
        let pace = match pace.is_object() {
            true if slowed => format!("{}/s at {:.0} %", number(pace, "per_second"), number(pace, "factor") * 100.0),
            true => format!("{}/s", number(pace, "per_second")),
            false => "unlimited".to_owned(),
        };
        let live = match target["max_tasks"].as_u64() {
            Some(max) => format!("{}/{max}", count(target, "live")),
            None => count(target, "live").to_string(),
        };
        let (launched, refused) = (count(target, "launched").to_string(), count(target, "refused").to_string());
        vec![text(target, "name"), text(target, "launcher"), state, pace, live, launched, refused]
    };
    table(&columns, &told.as_array().into_iter().flatten().map(cells).collect::<Vec<_>>())
}

/// As `spillway-dispatcher bill` prints it.
///
/// # Errors
/// The answer is another version's.
pub fn bill(told: &Value, by: By) -> anyhow::Result<String> {
    let mut rows: BTreeMap<String, BillRow> = BTreeMap::new();
    for row in told["rows"].as_array().into_iter().flatten() {
        let sums = serde_json::from_value(row.clone()).context("read the bill")?;
        rows.insert(text(row, "name"), sums);
    }
    let others: BillRow = serde_json::from_value(told["others"].clone()).context("read the bill")?;
    if others.tasks > 0 {
        rows.insert("(others)".to_owned(), others);
    }
    Ok(bill::table(&rows, by))
}

/// A row for each target, or why there is none.
pub fn prices(told: &Value) -> String {
    let columns = [
        left("TARGET"),
        left("REGION"),
        left("ARCH"),
        left("CAPACITY"),
        right("VCPU"),
        right("MIB"),
        right("AMOUNT"),
        right("PER MINUTE"),
    ];
    let minutes = number(told, "minutes").max(1e-9);
    let (mut rows, mut errors) = (Vec::new(), String::new());
    for quote in told["quotes"].as_array().into_iter().flatten() {
        if let Some(error) = quote["error"].as_str() {
            let _ = writeln!(errors, "{}", safe(error));
            continue;
        }
        let (shape, amount) = (&quote["shape"], number(quote, "amount"));
        let region = if quote["elsewhere"] == true { " (price of another)" } else { "" };
        rows.push(vec![
            text(quote, "target"),
            format!("{}{region}", text(quote, "region")),
            text(quote, "arch"),
            plain(&text(quote, "capacity")),
            format!("{:.2}", number(shape, "cpu_milli") / 1000.0),
            count(shape, "memory_mib").to_string(),
            format!("{amount:.5}"),
            format!("{:.6}", amount / minutes),
        ]);
    }
    let (version, currency) = (text(told, "price_version"), text(told, "currency"));
    format!("{}{errors}prices {version} in {currency}, start and end of the task included\n", table(&columns, &rows))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row() -> Value {
        json!({ "id": "EG_1", "room": format!("<script>\u{1b}[2J{}", "x".repeat(60)), "type": "room_composite", "state": "running",
            "status": "active", "target": "near", "attempt": 2, "accepted_ms": 1_793_491_200_000_i64, "hour": 0.05,
            "task_url": "https://x/1",
            "now": { "seconds": 61.5, "bytes": 2_000_000, "stored": 1_500_000, "lag_ms": 2500, "cost": 0.0123,
                "quality": "behind", "why": "the recorder is 2.5 s behind" } })
    }

    #[test]
    fn a_list_is_set_in_columns_and_added_up() {
        let (one, waits) =
            (row(), json!({ "id": "EG_long_2", "state": "queued", "now": { "place": 3, "quality": "none" } }));
        let text = egresses(&[&one, &waits]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4, "{text}");
        assert!(lines[0].starts_with("EGRESS     ROOM"), "{text}");
        assert!(lines[1].starts_with("EG_1       <script>\u{fffd}[2J") && lines[1].contains('…'), "{text}");
        assert!(
            lines[1].contains("behind: the recorder is 2.5 s behind") && lines[1].contains("1.5 MB/2.0 MB  2.5s"),
            "{text}"
        );
        assert!(lines[1].ends_with("0.0123    0.0500"), "{text}");
        assert!(lines[2].starts_with("EG_long_2") && lines[2].ends_with("queued (3.)"), "{text}");
        assert_eq!(lines[3], "2 live, 0.0123 so far");
        assert!(!text.contains('\u{1b}'));
    }

    #[test]
    fn one_egress_is_told_with_its_tasks() {
        let task = json!({ "attempt": 1, "from_ms": 1_793_491_200_000_i64, "target": "far", "seconds": 60.0, "amount": 0.5,
            "currency": "USD", "outcome": "the runner died", "log_url": "https://x/log" });
        let text = details("EG_1", &json!({ "egress": row(), "info": {}, "tasks": [task] }));
        for line in [
            "  state        running, active",
            "  target       near, attempt 2",
            "  page         https://x/1",
            "  task 1: 2026-11-01 00:00:00 UTC at far, 0:01:00 billed, 0.5000 USD: the runner died",
            "    https://x/log",
        ] {
            assert!(text.lines().any(|it| it == line), "{line}\n{text}");
        }
        let over = details(
            "EG_1",
            &json!({ "egress": null, "info": { "status": "EGRESS_FAILED", "error": "why" }, "tasks": [] }),
        );
        assert!(over.contains("EGRESS_FAILED") && over.contains("why"), "{over}");
        assert_eq!(change_line(&row()).lines().count(), 1);
    }

    #[test]
    fn targets_and_prices_say_what_is_wrong_with_each() {
        let text = targets(&json!([
            { "name": "near", "launcher": "process", "open": true, "live": 3, "launched": 5, "refused": 0, "retired": false },
            { "name": "spot", "launcher": "ecs", "open": false, "live": 1, "max_tasks": 9, "launched": 0, "refused": 7,
              "switched": "paused", "breaker": { "seconds": 12, "message": "full\n" },
              "pace": { "burst": 90, "per_second": 18.0, "factor": 0.5, "paused_s": 0 } },
        ]));
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].contains("open") && lines[1].contains("unlimited"), "{text}");
        assert!(
            lines[2].contains("paused; closed for 12 s: full\u{fffd}") && lines[2].contains("18/s at 50 %  "),
            "{text}"
        );
        let quote = json!({ "target": "near", "region": "r", "arch": "x86_64", "capacity": "on_demand", "amount": 0.6,
            "shape": { "cpu_milli": 1000, "memory_mib": 2048, "disk_gib": 20 }, "elsewhere": false });
        let told = json!({ "minutes": 60.0, "currency": "USD", "price_version": "1", "quotes": [quote, { "error": "far: no price" }] });
        let text = prices(&told);
        assert!(text.contains("near") && text.contains("0.60000") && text.contains("0.010000"), "{text}");
        assert!(
            text.contains("\nfar: no price\n")
                && text.ends_with("prices 1 in USD, start and end of the task included\n")
        );
    }
}
