//! What people see of the targets: whether they are asked, why not, and how fast. Breakers and counts are those of this
//! dispatcher; caps, pace and switches are those of all.

use std::collections::HashMap;

use serde::Serialize;
use spillway_bus::{BusError, PaceState};
use spillway_cost::{Capacity, Platform};
use tokio::time::Instant;

use crate::config::targets::LauncherConfig;
use crate::launch::TaskLauncher;
use crate::metrics::Metrics;
use crate::targets::{OperatorState, Target};

/// One target.
#[derive(Clone, Debug, Serialize)]
pub struct TargetRow {
    /// As configured.
    pub name: String,
    /// Kind of its launcher, as in the configuration.
    pub launcher: String,
    /// Whose prices apply.
    pub platform: Platform,
    /// As configured, for prices; may be empty.
    pub region: String,
    /// Likewise.
    pub arch: String,
    /// On demand or spot.
    pub capacity: Capacity,
    /// No longer configured; tasks there are watched until they end.
    pub retired: bool,
    /// It is asked for launches now.
    pub open: bool,
    /// `paused` or `draining`, by an operator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub switched: Option<&'static str>,
    /// Its breaker is open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub breaker: Option<OpenBreaker>,
    /// Launches at once and per second, in the long run; `None`: unlimited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pace: Option<TargetPace>,
    /// Egresses whose launch was asked there and which are not over.
    pub live: usize,
    /// Cap on tasks; `None`: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tasks: Option<u64>,
    /// Launch calls since the start of this dispatcher that went well.
    pub launched: u64,
    /// Those that did not.
    pub refused: u64,
}

/// Why a target is not asked.
#[derive(Clone, Debug, Serialize)]
pub struct OpenBreaker {
    /// Until it is asked again.
    pub seconds: u64,
    /// The failure that opened it, in the platform's words.
    pub message: String,
}

/// How fast a target is asked.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct TargetPace {
    /// Launches at once after a pause.
    pub burst: u32,
    /// Launches per second in the long run.
    pub per_second: f64,
    /// Share of it that holds now; less than 1 after the platform throttled.
    pub factor: f64,
    /// Seconds of the pause that the platform asked for.
    pub paused_s: u64,
}

/// Every target, configured ones first. `live`: egresses by target. `now_ms`: Unix milliseconds.
///
/// # Errors
/// When Redis does not answer; a retry is right.
pub async fn target_rows(
    launcher: &TaskLauncher,
    live: &HashMap<String, usize>,
    now_ms: i64,
) -> Result<Vec<TargetRow>, BusError> {
    let configured = launcher.targets.all().len();
    let known = launcher.targets.known();
    let names: Vec<String> = known.iter().map(|target| target.name().to_owned()).collect();
    let paces = launcher.tasks.pace_states(&names).await?;
    let metrics = &launcher.instance.metrics;
    let rows = known.iter().zip(paces).enumerate().map(|(nth, (target, pace))| {
        let switched = launcher.targets.operator_state(target.name());
        let live = live.get(target.name()).copied().unwrap_or_default();
        TargetRow { retired: nth >= configured, ..row(target, pace, switched, live, metrics, now_ms) }
    });
    Ok(rows.collect())
}

/// Of a configured target.
fn row(
    target: &Target,
    pace: Option<PaceState>,
    switched: Option<OperatorState>,
    live: usize,
    metrics: &Metrics,
    now_ms: i64,
) -> TargetRow {
    let config = &target.config;
    let now = Instant::now();
    let breaker = target.breaker().open(now).map(|open| OpenBreaker {
        seconds: open.until.saturating_duration_since(now).as_secs_f64().ceil() as u64,
        message: open.message.clone(),
    });
    let calls = |launched: bool| {
        let counted = metrics.total("spillway_launches_total", |labels| {
            let has = |name: &str, value: &str| labels.iter().any(|(label, is)| *label == name && is == value);
            has("target", target.name()) && has("outcome", "launched") == launched
        });
        counted as u64
    };
    TargetRow {
        name: target.name().to_owned(),
        launcher: kind(&config.launcher).to_owned(),
        platform: target.launcher.platform(),
        region: config.region.clone(),
        arch: config.arch.clone(),
        capacity: config.capacity,
        retired: false,
        open: switched.is_none() && breaker.is_none(),
        switched: switched.map(OperatorState::text),
        breaker,
        pace: target.pace.map(|full| TargetPace {
            burst: full.burst,
            per_second: full.per_second,
            factor: pace.map_or(1.0, |pace| pace.factor),
            paused_s: pace.map_or(0, |pace| paused_s(pace.closed_until_ms, now_ms)),
        }),
        live,
        max_tasks: config.max_tasks,
        launched: calls(true),
        refused: calls(false),
    }
}

fn paused_s(until_ms: i64, now_ms: i64) -> u64 {
    u64::try_from(until_ms.saturating_sub(now_ms)).unwrap_or(0).div_ceil(1000)
}

fn kind(launcher: &LauncherConfig) -> &str {
    match launcher {
        LauncherConfig::Process { .. } => "process",
        LauncherConfig::Simulated { .. } => "simulated",
        LauncherConfig::Container(spec) => &spec.launcher,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use spillway_launchers::SimulatedLauncher;
    use spillway_launchers::simulated::SimulatedOptions;

    use super::*;
    use crate::config::targets::TargetConfig;
    use crate::targets::LaunchOutcome;

    #[tokio::test(start_paused = true)]
    async fn a_target_that_is_not_asked_says_why_and_for_how_long() {
        let launcher = LauncherConfig::Simulated { latency: std::time::Duration::ZERO, quota: None };
        let config = TargetConfig {
            launches: Some(spillway_launchers::Quota { burst: 9, per_second: 2.0 }),
            ..TargetConfig::of("near", launcher)
        };
        let target = Target::new(config, Arc::new(SimulatedLauncher::new(SimulatedOptions::default())));
        let metrics = Metrics::default();
        for outcome in ["launched", "launched", "no_capacity"] {
            metrics.count("spillway_launches_total", &[("target", "near"), ("outcome", outcome)], 1.0);
            metrics.count("spillway_launches_total", &[("target", "far"), ("outcome", outcome)], 1.0);
        }
        let open = row(&target, None, None, 3, &metrics, 0);
        assert!(open.open && open.breaker.is_none() && open.switched.is_none());
        assert_eq!((open.live, open.launched, open.refused, open.launcher.as_str()), (3, 2, 1, "simulated"));
        let pace = open.pace.unwrap();
        assert_eq!((pace.burst, pace.per_second, pace.factor, pace.paused_s), (9, 2.0, 1.0, 0));

        for _ in 0..3 {
            target.record_outcome(LaunchOutcome::NoCapacity("<b>full</b>".to_owned()));
        }
        let throttled = PaceState { factor: 0.5, closed_until_ms: 2500 };
        let closed = row(&target, Some(throttled), Some(OperatorState::Paused), 0, &metrics, 1000);
        let (breaker, pace) = (closed.breaker.unwrap(), closed.pace.unwrap());
        assert_eq!((breaker.seconds, breaker.message.as_str()), (10, "<b>full</b>"));
        assert_eq!((pace.factor, pace.paused_s, closed.switched, closed.open), (0.5, 2, Some("paused"), false));
    }
}
