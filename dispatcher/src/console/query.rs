//! The query of a request, and what it asks of the ledger. Pure.

use std::collections::BTreeMap;

use url::form_urlencoded;

use crate::billing::bill;
use crate::billing::entry::Entry;

/// Parameters by name; the last one where a name is there twice.
#[derive(Clone, Debug, Default)]
pub struct QueryParameters(BTreeMap<String, String>);

impl QueryParameters {
    /// `known`: names that may be there.
    ///
    /// # Errors
    /// Another name is there: a misspelt filter must not become a bill of everything. The text is for the caller.
    pub fn parse(query: &str, known: &[&str]) -> Result<Self, String> {
        let pairs = form_urlencoded::parse(query.as_bytes()).into_owned();
        let parameters: BTreeMap<String, String> = pairs.collect();
        match parameters.keys().find(|name| !known.contains(&name.as_str())) {
            Some(unknown) => Err(format!("\"{unknown}\" is not known; there are {}", known.join(", "))),
            None => Ok(Self(parameters)),
        }
    }

    /// `None`: it is not there, or empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

/// Which lines of the ledger are wanted.
#[derive(Clone, Debug, PartialEq)]
pub struct LedgerFilter {
    /// Unix milliseconds, of the time at which the line was written: up to a minute or two after the end of the task.
    pub since_ms: i64,
    /// Unix milliseconds, likewise; the last one that is wanted.
    pub until_ms: i64,
    /// Part of the room's name, in lower case; empty: all rooms.
    room: String,
    tenant: Option<String>,
    kind: Option<String>,
    target: Option<String>,
    egress: Option<String>,
}

impl LedgerFilter {
    /// Names of the parameters it reads.
    pub const PARAMETERS: [&str; 8] = ["since", "until", "day", "room", "tenant", "type", "target", "egress"];

    /// `since`: where the query has none.
    ///
    /// # Errors
    /// A time is none; the text is for the caller.
    pub fn of(query: &QueryParameters, since: &str, now_ms: i64) -> Result<Self, String> {
        const DAY_MS: i64 = 86_400_000;
        let moment = |text: &str| bill::moment(text, now_ms);
        let (since_ms, until_ms) = match query.get("day") {
            Some(day) if day.matches('-').count() == 2 => {
                let begin = moment(day)?;
                (begin, begin + DAY_MS - 1)
            }
            Some(day) => return Err(format!("\"{day}\" is no day: write 2026-11-22")),
            None => {
                let since = query.get("since").unwrap_or(since);
                (moment(since)?, query.get("until").map_or(Ok(now_ms), moment)?)
            }
        };
        let given = |name: &str| query.get(name).map(str::to_owned);
        Ok(Self {
            since_ms,
            until_ms,
            room: query.get("room").unwrap_or_default().to_lowercase(),
            tenant: given("tenant"),
            kind: given("type"),
            target: given("target"),
            egress: given("egress"),
        })
    }

    /// Of one egress, from a time (Unix milliseconds) on.
    pub fn of_egress(egress_id: &str, since_ms: i64, now_ms: i64) -> Self {
        let egress = Some(egress_id.to_owned());
        Self { since_ms, until_ms: now_ms, room: String::new(), tenant: None, kind: None, target: None, egress }
    }

    /// The line is one of those, if it is within their time.
    pub fn takes(&self, entry: &Entry) -> bool {
        let is = |wanted: &Option<String>, has: &str| wanted.as_ref().is_none_or(|wanted| wanted == has);
        is(&self.tenant, &entry.tenant)
            && is(&self.kind, &entry.kind)
            && is(&self.target, &entry.target)
            && is(&self.egress, &entry.egress_id)
            && (self.room.is_empty() || entry.room.to_lowercase().contains(&self.room))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::billing::entry::TaskEnd;

    const NOW: i64 = 1_793_491_200_000;

    fn filter(query: &str) -> Result<LedgerFilter, String> {
        let query = QueryParameters::parse(query, &LedgerFilter::PARAMETERS)?;
        LedgerFilter::of(&query, "0", NOW)
    }

    fn line(room: &str, tenant: &str, kind: &str) -> Entry {
        let facts = spillway_bus::TaskFacts {
            room: room.to_owned(),
            kind: kind.to_owned(),
            salvage: false,
            platform: spillway_cost::Platform::Host,
            region: String::new(),
            arch: String::new(),
            capacity: spillway_cost::Capacity::OnDemand,
            nat: false,
            shape: spillway_cost::Shape { cpu_milli: 0, memory_mib: 0, disk_gib: 0 },
            load: spillway_cost::Load::default(),
            opened_ms: 0,
            hour: 0.0,
        };
        let egress_id = spillway_protocol::EgressId::parse("EG_1").unwrap();
        let prices = spillway_cost::PriceList::built_in().unwrap();
        let task = spillway_bus::TaskKey { egress_id, attempt: 1 };
        crate::billing::entry::entry(&task, (tenant, "near"), &facts, &TaskEnd::default(), &prices, None)
    }

    #[test]
    fn a_line_is_taken_when_everything_that_is_asked_for_holds() {
        let entry = line("acme/<script>", "acme", "track");
        for query in ["", "room=%3CSCRIPT%3E", "tenant=acme&type=track", "target=near&egress=EG_1", "room="] {
            assert!(filter(query).unwrap().takes(&entry), "{query}");
        }
        for query in ["room=daily", "tenant=acm", "type=web", "target=far", "egress=EG_2", "room=script&tenant=x"] {
            assert!(!filter(query).unwrap().takes(&entry), "{query}");
        }
    }

    #[test]
    fn times_are_those_of_the_bill_and_a_day_is_a_whole_one() {
        let all = filter("").unwrap();
        assert_eq!((all.since_ms, all.until_ms), (0, NOW));
        let day = filter("day=2026-11-02").unwrap();
        assert_eq!((day.since_ms, day.until_ms), (NOW + 86_400_000, NOW + 2 * 86_400_000 - 1));
        let week = filter("since=7d&until=1d").unwrap();
        assert_eq!((week.since_ms, week.until_ms), (NOW - 7 * 86_400_000, NOW - 86_400_000));
        for (query, message) in [
            ("day=2026-11", "is no day"),
            ("day=2026-13-01", "is no time"),
            ("since=yesterday", "is no time"),
            ("rooms=x", "\"rooms\" is not known; there are since, until"),
        ] {
            let told = filter(query).unwrap_err();
            assert!(told.contains(message), "{query}: {told}");
        }
    }
}
