//! What lives now, read from Redis when people look and at most twice a second, whoever looks: records that have changed, all
//! heartbeats, the pace of the targets. Runs in the tasks of those who look; changes nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use spillway_bus::{BusError, Heartbeat, LiveIndex, Record, TaskFacts};
use spillway_protocol::ids::EgressId;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::rows::{EgressFacts, egress_facts, progress};
use super::target_rows::target_rows;
use super::view::{LiveEgress, LiveView};
use crate::config::Config;
use crate::instance::Instance;
use crate::launch::TaskLauncher;
use crate::records::Records;
use crate::task_facts::task_facts;

/// A view that is older is made anew.
const MAX_AGE: Duration = Duration::from_millis(500);
/// Egresses of a view, the newest: a page with more of them is no help, and each costs a kilobyte for each who looks.
const MAX_EGRESSES: usize = 2000;

/// Makes views.
pub struct LiveViews {
    instance: Arc<Instance>,
    records: Records,
    launcher: Arc<TaskLauncher>,
    state: Mutex<ViewState>,
}

/// What one view leaves for the next.
#[derive(Default)]
struct ViewState {
    index: LiveIndex,
    known: HashMap<EgressId, KnownEgress>,
    /// Whose prices and targets are in `known`.
    config: Option<Arc<Config>>,
    last: Option<(Instant, Arc<LiveView>)>,
}

/// An egress whose record has not changed since it was last looked at.
struct KnownEgress {
    record: Arc<Record>,
    shown: Arc<EgressFacts>,
    /// Of its task; `None`: it has no target that is known here.
    facts: Option<TaskFacts>,
    /// Usual seconds billed beside a recording there.
    extra_s: Option<f64>,
}

impl LiveViews {
    /// Reads nothing yet.
    pub fn new(instance: Arc<Instance>, records: Records, launcher: Arc<TaskLauncher>) -> Self {
        Self { instance, records, launcher, state: Mutex::default() }
    }

    /// A view that is at most half a second old. Several who ask at once get the same.
    ///
    /// # Errors
    /// When Redis does not answer; a retry is right.
    pub async fn latest(&self) -> Result<Arc<LiveView>, BusError> {
        let mut state = self.state.lock().await;
        if let Some((at, view)) = &state.last
            && at.elapsed() < MAX_AGE
        {
            return Ok(Arc::clone(view));
        }
        let view = Arc::new(self.read(&mut state).await?);
        state.last = Some((Instant::now(), Arc::clone(&view)));
        Ok(view)
    }

    /// Frees what was kept for the next view: nobody looks any more.
    pub async fn forget(&self) {
        *self.state.lock().await = ViewState::default();
    }

    async fn read(&self, state: &mut ViewState) -> Result<LiveView, BusError> {
        let mut live = self.records.registry.refresh_live_index(&mut state.index).await?;
        let left_out = live.len().saturating_sub(MAX_EGRESSES);
        live.drain(..left_out);
        let ids: Vec<EgressId> = live.iter().map(|record| record.egress_id.clone()).collect();
        let heartbeats = self.records.heartbeats.last_of(&ids).await?;
        let (config, now_ms) = (self.instance.config(), self.instance.clock.unix_ms());
        let mut by_target: HashMap<String, usize> = HashMap::new();
        for record in live.iter().filter(|record| !record.state.is_over() && !record.dispatch.target.is_empty()) {
            *by_target.entry(record.dispatch.target.clone()).or_default() += 1;
        }
        let targets = target_rows(&self.launcher, &by_target, now_ms).await?;
        let mut before = std::mem::take(&mut state.known);
        if state.config.as_ref().is_none_or(|known| !Arc::ptr_eq(known, &config)) {
            before.clear();
            state.config = Some(Arc::clone(&config));
        }
        let places = self.places(&live);
        let mut egresses = Vec::with_capacity(live.len());
        for (record, heartbeat) in live.iter().zip(heartbeats) {
            let known = before.remove(&record.egress_id).filter(|known| Arc::ptr_eq(&known.record, record));
            let known = known.unwrap_or_else(|| self.learn(record, &config));
            egresses.push(self.egress(&known, heartbeat, &places, &config, now_ms));
            state.known.insert(record.egress_id.clone(), known);
        }
        Ok(LiveView { at_ms: now_ms, egresses, left_out, targets })
    }

    fn egress(
        &self,
        known: &KnownEgress,
        heartbeat: Option<(Duration, Heartbeat)>,
        places: &HashMap<EgressId, usize>,
        config: &Config,
        now_ms: i64,
    ) -> LiveEgress {
        let KnownEgress { record, shown, facts, extra_s } = known;
        let heartbeat = heartbeat.filter(|(_, beat)| beat.attempt >= record.attempt);
        let mut now = progress(record, heartbeat.as_ref(), facts.as_ref(), &config.prices, *extra_s, now_ms);
        now.place = places.get(&record.egress_id).copied();
        LiveEgress { facts: Arc::clone(shown), now }
    }

    fn learn(&self, record: &Arc<Record>, config: &Config) -> KnownEgress {
        let (targets, dispatch) = (&self.launcher.targets, &record.dispatch);
        let target = targets.of(record);
        let facts =
            target.as_ref().map(|target| task_facts(dispatch, target, record.is_salvage(), dispatch.launched_ms));
        let extra_s = target.as_ref().and_then(|target| self.launcher.overheads.extra_s(target.name()));
        let shown = egress_facts(record, facts.as_ref(), &config.prices, extra_s, |task| targets.links(task));
        KnownEgress { record: Arc::clone(record), shown: Arc::new(shown), facts, extra_s }
    }

    /// Positions from 1: in this dispatcher's queue as it will go, in those of others by age.
    fn places(&self, live: &[Arc<Record>]) -> HashMap<EgressId, usize> {
        let own = self.launcher.queue.lock().order();
        let mut places: HashMap<EgressId, usize> = own.into_iter().zip(1..).collect();
        let mut of_others: HashMap<&str, usize> = HashMap::new();
        for record in live.iter().filter(|record| !self.records.owns(record)) {
            if record.state.is_starting() && record.dispatch.launched_ms == 0 {
                let place = of_others.entry(record.dispatcher.as_str()).or_default();
                *place += 1;
                places.insert(record.egress_id.clone(), *place);
            }
        }
        places
    }
}
