//! Pages, sums and files of a ledger that is larger than any of them.

use futures_util::StreamExt;
use spillway_bus::{Bus, Caps, LedgerLine, OpenTask, TaskKey};
use spillway_protocol::EgressId;

use super::*;
use crate::console::query::QueryParameters;

const NOW: i64 = i64::MAX / 4;

fn filter(query: &str) -> LedgerFilter {
    LedgerFilter::of(&QueryParameters::parse(query, &LedgerFilter::PARAMETERS).unwrap(), "0", NOW).unwrap()
}

fn line(n: usize) -> String {
    let (room, tenant) = if n.is_multiple_of(100) { ("=evil,\"<script>\"", "evil") } else { ("daily", "acme") };
    serde_json::json!({
        "egress_id": format!("EG_{n}"), "attempt": 1, "room": room, "type": "track", "tenant": tenant, "target": "near",
        "platform": "cloud-run", "region": "r", "arch": "x86_64", "capacity": "spot", "cpu_milli": 1000,
        "memory_mib": 512, "disk_gib": 0, "from_ms": 1000, "to_ms": 61_000, "seconds": 60.0, "recorded_s": 50.0,
        "window": "vendor", "bytes": 1000, "puts": 1.0, "amount": 0.5,
        "parts": { "compute": 0.5, "memory": 0.0, "disk": 0.0, "address": 0.0, "nat": 0.0, "requests": 0.0,
            "launches": 0.0, "total": 0.5, "seconds": 60.0 },
        "estimate": 0.5, "currency": "USD", "price_version": "1", "outcome": "egress_complete", "novelty": [1],
        "log_url": "https://x/1",
    })
    .to_string()
}

/// Every tenth line is of a version that this one cannot read.
async fn ledger(lines: usize) -> History {
    let tasks = Tasks::new(&Bus::memory());
    for n in 0..lines {
        let key = TaskKey { egress_id: EgressId::parse(&format!("EG_{n}")).unwrap(), attempt: 1 };
        let open = OpenTask { task: &key, tenant: "t", target: "near", facts: "{}", caps: Caps::default(), pace: None };
        tasks.open(open).await.unwrap();
        let text = if n % 10 == 5 { "{}".to_owned() } else { line(n) };
        let line = LedgerLine { text: &text, month: "2026-11", tenant: "t", amount: 0.5 };
        assert!(tasks.close(&key, line).await.unwrap());
    }
    History::new(tasks)
}

#[tokio::test]
async fn pages_follow_one_another_without_a_gap_to_the_oldest_line() {
    let history = ledger(1201).await;
    let (mut seen, mut before) = (Vec::new(), None);
    loop {
        let page = history.page(&filter(""), before, 100).await.unwrap();
        assert!(page.lines.len() <= 100 && page.searched <= 600, "{}", page.searched);
        seen.extend(page.lines.into_iter().map(|row| row.entry.egress_id));
        before = page.next;
        if before.is_none() {
            break;
        }
    }
    let all: Vec<String> = (0..1201).rev().filter(|n| n % 10 != 5).map(|n| format!("EG_{n}")).collect();
    assert_eq!(seen, all);

    let page = history.page(&filter("room=%3Cscript%3E"), None, 5).await.unwrap();
    let ids: Vec<&str> = page.lines.iter().map(|row| row.entry.egress_id.as_str()).collect();
    assert_eq!(ids, ["EG_1200", "EG_1100", "EG_1000", "EG_900", "EG_800"]);
    let rest = history.page(&filter("tenant=evil"), page.next, 100).await.unwrap();
    assert_eq!((rest.lines.len(), rest.next), (8, None));
    let row = serde_json::to_value(&rest.lines[0]).unwrap();
    assert_eq!((row["egress_id"].as_str(), row["log_url"].as_str()), (Some("EG_700"), Some("https://x/1")));
    assert!(row["id"].as_str().is_some_and(|id| id.contains('-')), "{row}");
    let none = history.page(&filter("type=web"), None, 100).await.unwrap();
    assert_eq!((none.lines.len(), none.searched, none.next), (0, 1201, None));
}

#[tokio::test]
async fn sums_are_those_of_all_lines_and_have_a_bound() {
    let history = ledger(1201).await;
    let sums = history.sums(&filter(""), By::Tenant).await.unwrap();
    assert_eq!((sums.rows["evil"].tasks, sums.rows["acme"].tasks), (13, 1201 - 120 - 13));
    assert_eq!(sums.rows["evil"].amount, 6.5);
    let sums = history.sums(&filter("tenant=evil"), By::Egress).await.unwrap();
    assert_eq!((sums.rows.len(), sums.others.tasks), (13, 0));
    let mut many = BillSums::default();
    let mut entry: Entry = serde_json::from_str(&line(1)).unwrap();
    for n in 0..MAX_ROWS + 7 {
        entry.egress_id = format!("EG_{}", n % (MAX_ROWS + 3));
        many.add(&entry, By::Egress);
    }
    assert_eq!((many.rows.len(), many.others.tasks, many.rows["EG_0"].tasks), (MAX_ROWS, 3, 2));
}

#[tokio::test]
async fn a_file_has_every_line_once_and_no_formula() {
    let history = ledger(1201).await;
    let pieces: Vec<_> = history.export(filter("tenant=evil")).unwrap().collect().await;
    let text: String = pieces.iter().map(|piece| std::str::from_utf8(piece.as_ref().unwrap()).unwrap()).collect();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 14, "{text}");
    assert!(lines[0].starts_with("id,egress_id,attempt,") && lines[0].ends_with(",task_url,log_url"));
    let first = lines[1].split_once(',').unwrap().1;
    assert!(
        first.starts_with("EG_0,1,false,\"'=evil,\"\"<script>\"\"\",track,evil,near,cloud-run,r,x86_64,spot,"),
        "{first}"
    );
    assert!(
        first.ends_with(",60.000,50.000,vendor,1000,0.500000,0.500000,USD,1,egress_complete,,https://x/1"),
        "{first}"
    );

    let places: Vec<_> = (0..EXPORTS).map(|_| history.export(filter("")).unwrap()).collect();
    assert!(history.export(filter("")).is_none(), "slow readers are few");
    drop(places);
    assert!(history.export(filter("")).is_some());
}
