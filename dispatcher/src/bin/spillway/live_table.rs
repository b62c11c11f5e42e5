//! What lives, kept up to date by the console's events. Pure.

use std::collections::HashMap;

use serde_json::Value;

/// Rows as the API gives them, the oldest egress first.
#[derive(Debug, Default)]
pub struct LiveTable {
    rows: Vec<Value>,
}

impl LiveTable {
    /// Takes an event over; rows that are new, have another record, or are gone (those with state `gone`).
    pub fn on(&mut self, name: &str, event: &Value) -> Vec<Value> {
        let list = |name: &str| event[name].as_array().cloned().unwrap_or_default();
        match name {
            "snapshot" => {
                let rows = list("egresses");
                let before: HashMap<String, Value> =
                    std::mem::take(&mut self.rows).into_iter().map(|row| (id_of(&row).to_owned(), row)).collect();
                let is_new = |row: &&Value| {
                    let then = before.get(id_of(row));
                    then.is_none_or(|then| (&then["state"], &then["attempt"]) != (&row["state"], &row["attempt"]))
                };
                let changed = rows.iter().filter(is_new).cloned();
                let now: Vec<&str> = rows.iter().map(id_of).collect();
                let gone = before.iter().filter(|(id, _)| !now.contains(&id.as_str())).map(|(_, row)| gone(row));
                let told = changed.chain(gone).collect();
                self.rows = rows;
                told
            }
            "change" => {
                let mut told = list("changed");
                for row in &told {
                    match self.rows.iter_mut().find(|known| known["id"] == row["id"]) {
                        Some(known) => *known = row.clone(),
                        None => self.rows.push(row.clone()),
                    }
                }
                for (id, now) in event["now"].as_object().into_iter().flatten() {
                    if let Some(known) = self.rows.iter_mut().find(|known| known["id"] == id.as_str()) {
                        known["now"] = now.clone();
                    }
                }
                for id in list("gone") {
                    told.extend(self.rows.iter().filter(|known| known["id"] == id).map(gone));
                    self.rows.retain(|known| known["id"] != id);
                }
                self.rows.sort_by_key(|row| row["accepted_ms"].as_i64());
                told
            }
            _ => Vec::new(),
        }
    }

    /// The oldest first.
    pub fn rows(&self) -> impl Iterator<Item = &Value> {
        self.rows.iter()
    }

    /// `None`: it does not live.
    pub fn find(&self, id: &str) -> Option<&Value> {
        self.rows.iter().find(|row| row["id"] == id)
    }
}

fn id_of(row: &Value) -> &str {
    row["id"].as_str().unwrap_or_default()
}

fn gone(row: &Value) -> Value {
    let mut row = row.clone();
    row["state"] = "gone".into();
    row
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn events_lead_from_one_table_to_the_next() {
        let row = |id: &str, accepted_ms: i64, state: &str| json!({ "id": id, "accepted_ms": accepted_ms, "state": state, "attempt": 1, "now": { "seconds": 0 } });
        let states =
            |rows: &[Value]| rows.iter().map(|row| format!("{} {}", id_of(row), row["state"])).collect::<Vec<_>>();
        let mut table = LiveTable::default();
        let first = json!({ "egresses": [row("EG_a", 1, "queued"), row("EG_c", 3, "running")] });
        assert_eq!(states(&table.on("snapshot", &first)), ["EG_a \"queued\"", "EG_c \"running\""]);
        let change = json!({ "changed": [row("EG_b", 2, "queued"), row("EG_a", 1, "running")],
            "now": { "EG_c": { "seconds": 9 }, "EG_x": {} }, "gone": [] });
        assert_eq!(states(&table.on("change", &change)), ["EG_b \"queued\"", "EG_a \"running\""]);
        assert_eq!(table.rows().map(id_of).collect::<Vec<_>>(), ["EG_a", "EG_b", "EG_c"]);
        assert_eq!(table.find("EG_c").unwrap()["now"]["seconds"], 9);
        let end = json!({ "changed": [], "now": {}, "gone": ["EG_b"] });
        assert_eq!(states(&table.on("change", &end)), ["EG_b \"gone\""]);
        assert!(table.find("EG_b").is_none() && table.on("trouble", &json!({})).is_empty());
        // After a broken connection: what is the same is not told again.
        let again = json!({ "egresses": [row("EG_a", 1, "running"), row("EG_d", 4, "queued")] });
        assert_eq!(states(&table.on("snapshot", &again)), ["EG_d \"queued\"", "EG_c \"gone\""]);
    }
}
