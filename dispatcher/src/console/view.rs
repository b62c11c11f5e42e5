//! Everything that lives at one moment, and what has changed between two of them, as JSON for the page and the command line.
//! Pure.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::Serialize;

use super::rows::{EgressFacts, EgressProgress};
use super::target_rows::TargetRow;

/// Egresses and targets at one moment.
#[derive(Debug, Default)]
pub struct LiveView {
    /// Unix milliseconds.
    pub at_ms: i64,
    /// The oldest first.
    pub egresses: Vec<LiveEgress>,
    /// Older ones that are not among them.
    pub left_out: usize,
    /// Configured ones first.
    pub targets: Vec<TargetRow>,
}

/// One egress of a view.
#[derive(Clone, Debug)]
pub struct LiveEgress {
    /// The same value until its record changes.
    pub facts: Arc<EgressFacts>,
    /// Now.
    pub now: EgressProgress,
}

/// An egress as a row.
#[derive(Serialize)]
pub struct EgressRow<'a> {
    #[serde(flatten)]
    facts: &'a EgressFacts,
    now: &'a EgressProgress,
}

/// Sums over a view.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct LiveTotals {
    /// All that are not over.
    pub live: usize,
    /// Waiting for a slot.
    pub queued: usize,
    /// With a runner.
    pub recording: usize,
    /// Of them, those that are not recorded well.
    pub troubled: usize,
    /// Cost of their tasks so far.
    pub cost: f64,
    /// Expected cost of an hour of those with a task.
    pub hour: f64,
}

/// All of a view.
#[derive(Serialize)]
struct Snapshot<'a> {
    at_ms: i64,
    egresses: Vec<EgressRow<'a>>,
    left_out: usize,
    targets: &'a [TargetRow],
    totals: LiveTotals,
}

/// What is different in a later view.
#[derive(Serialize)]
struct Changes<'a> {
    at_ms: i64,
    /// New ones, and those whose record has changed.
    changed: Vec<EgressRow<'a>>,
    /// Of the others, those that have gone on.
    now: BTreeMap<&'a str, &'a EgressProgress>,
    /// Those that are no longer live.
    gone: Vec<&'a str>,
    left_out: usize,
    targets: &'a [TargetRow],
    totals: LiveTotals,
}

impl LiveEgress {
    /// For JSON.
    pub fn row(&self) -> EgressRow<'_> {
        EgressRow { facts: &self.facts, now: &self.now }
    }
}

impl LiveView {
    /// The egress of that id.
    pub fn find(&self, id: &str) -> Option<&LiveEgress> {
        self.egresses.iter().find(|egress| egress.facts.id == id)
    }

    /// All of it as JSON on one line.
    pub fn snapshot(&self) -> String {
        one_line(&Snapshot {
            at_ms: self.at_ms,
            egresses: self.egresses.iter().map(LiveEgress::row).collect(),
            left_out: self.left_out,
            targets: &self.targets,
            totals: self.totals(),
        })
    }

    /// What has changed since an earlier view, as JSON on one line. Applied to any view in between it gives this one.
    pub fn changes_since(&self, before: &LiveView) -> String {
        let mut known: HashMap<&str, &LiveEgress> =
            before.egresses.iter().map(|egress| (egress.facts.id.as_str(), egress)).collect();
        let (mut changed, mut now) = (Vec::new(), BTreeMap::new());
        for egress in &self.egresses {
            let id = egress.facts.id.as_str();
            match known.remove(id) {
                Some(then) if Arc::ptr_eq(&then.facts, &egress.facts) => {
                    if then.now != egress.now {
                        now.insert(id, &egress.now);
                    }
                }
                _ => changed.push(egress.row()),
            }
        }
        let mut gone: Vec<&str> = known.into_keys().collect();
        gone.sort_unstable();
        one_line(&Changes {
            at_ms: self.at_ms,
            changed,
            now,
            gone,
            left_out: self.left_out,
            targets: &self.targets,
            totals: self.totals(),
        })
    }

    fn totals(&self) -> LiveTotals {
        self.egresses.iter().fold(LiveTotals::default(), |sum, egress| {
            let (facts, now) = (&*egress.facts, &egress.now);
            let is = |state: &[&str]| usize::from(state.contains(&facts.state.as_str()));
            LiveTotals {
                live: sum.live + 1 - is(&["ended"]),
                queued: sum.queued + is(&["queued", "interrupted", "lost"]),
                recording: sum.recording + usize::from(now.quality.is_recording()),
                troubled: sum.troubled + usize::from(now.quality.is_troubled()),
                cost: sum.cost + now.cost.unwrap_or_default(),
                hour: sum.hour + now.cost.and(facts.hour).unwrap_or_default(),
            }
        })
    }
}

fn one_line(value: &impl Serialize) -> String {
    // Texts, numbers and maps with text keys: it cannot fail. serde_json writes no line break.
    serde_json::to_string(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use spillway_launchers::TaskLinks;

    use super::*;
    use crate::console::rows::RecordingQuality;

    fn facts(id: &str, state: &str) -> Arc<EgressFacts> {
        Arc::new(EgressFacts {
            id: id.to_owned(),
            room: "a\nb".to_owned(),
            kind: "track".to_owned(),
            tenant: String::new(),
            page: false,
            state: state.to_owned(),
            status: "active".to_owned(),
            attempt: 1,
            target: "near".to_owned(),
            dispatcher: "d".to_owned(),
            salvage: false,
            stop_asked: false,
            accepted_ms: 1,
            launched_ms: 2,
            details: String::new(),
            error: String::new(),
            task: None,
            links: TaskLinks::default(),
            earlier: Vec::new(),
            machine: None,
            hour: Some(2.0),
        })
    }

    fn egress(facts: &Arc<EgressFacts>, seconds: f64) -> LiveEgress {
        let quality = if seconds > 0.0 { RecordingQuality::Behind } else { RecordingQuality::None };
        let cost = (seconds > 0.0).then_some(0.25);
        LiveEgress { facts: Arc::clone(facts), now: EgressProgress { seconds, cost, quality, ..Default::default() } }
    }

    fn view(egresses: Vec<LiveEgress>) -> LiveView {
        LiveView { at_ms: 7, egresses, ..LiveView::default() }
    }

    fn parsed(text: &str) -> Value {
        assert!(!text.contains('\n'), "an event is one line");
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_change_has_what_is_new_what_goes_on_and_what_is_gone() {
        let (still, moving, gone) = (facts("EG_a", "queued"), facts("EG_b", "running"), facts("EG_c", "running"));
        let before = view(vec![egress(&still, 0.0), egress(&moving, 1.0), egress(&gone, 1.0)]);
        let (rewritten, new) = (facts("EG_a", "asking"), facts("EG_d", "queued"));
        let after = view(vec![egress(&rewritten, 0.0), egress(&moving, 2.0), egress(&new, 0.0)]);

        let all = parsed(&before.snapshot());
        assert_eq!(all["egresses"].as_array().unwrap().len(), 3);
        assert_eq!((&all["egresses"][1]["room"], &all["egresses"][1]["now"]["seconds"]), (&json!("a\nb"), &json!(1.0)));
        let changes = parsed(&after.changes_since(&before));
        let changed: Vec<&Value> = changes["changed"].as_array().unwrap().iter().map(|row| &row["id"]).collect();
        assert_eq!(changed, [&json!("EG_a"), &json!("EG_d")]);
        assert_eq!(changes["now"].as_object().unwrap().keys().collect::<Vec<_>>(), ["EG_b"]);
        assert_eq!(changes["gone"], json!(["EG_c"]));
        let nothing = parsed(&after.changes_since(&after));
        assert_eq!((&nothing["changed"], &nothing["now"], &nothing["gone"]), (&json!([]), &json!({}), &json!([])));
    }

    #[test]
    fn totals_count_what_is_not_over_and_what_costs() {
        let (over, waits, runs) = (facts("EG_a", "ended"), facts("EG_b", "queued"), facts("EG_c", "running"));
        let all = view(vec![egress(&over, 0.0), egress(&waits, 0.0), egress(&runs, 3.0)]);
        let totals = LiveTotals { live: 2, queued: 1, recording: 1, troubled: 1, cost: 0.25, hour: 2.0 };
        assert_eq!(all.totals(), totals);
        assert!(all.find("EG_c").is_some() && all.find("EG_x").is_none());
    }
}
