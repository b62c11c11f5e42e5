//! A clock that follows Redis' `TIME`: measured when the bus connects, and every 15 s after in a task of its own. The
//! round trip bounds the error; the clock decides how the correction is made.

use std::sync::Arc;
use std::time::Duration;

use spillway_process::clock::{Correction, Measurement};
use spillway_process::{Clock, chain};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{debug, info, warn};

use super::commands::{Commands, typed};
use crate::error::BusError;

/// Crystals drift by some ten microseconds a second; what this finds is a machine that was suspended, or another Redis
/// after a failover.
const MEASURE_INTERVAL: Duration = Duration::from_secs(15);
/// Measurements at the beginning; the one with the shortest round trip is the most exact.
const FIRST_MEASUREMENTS: usize = 3;
/// A difference from here on is logged.
const LOGGED_DIFFERENCE_NS: i64 = 1_000_000_000;

/// The clock and the task that measures it, which ends when this is dropped.
pub(super) struct RedisTime {
    clock: Clock,
    _stop: DropGuard,
}

impl RedisTime {
    /// The clock is measured when it returns.
    ///
    /// # Errors
    /// Redis did not answer; a retry is right.
    pub async fn follow(clock: Clock, commands: &Arc<Commands>) -> Result<Self, BusError> {
        let mut best = measure(commands).await?;
        for _ in 1..FIRST_MEASUREMENTS {
            let next = measure(commands).await?;
            if next.round_trip() < best.round_trip() {
                best = next;
            }
        }
        let corrected = clock.measured(&best);
        if let Some(difference) = difference(corrected.behind_ns).filter(|_| corrected.how == Correction::First) {
            warn!(
                seconds = corrected.behind_ns as f64 / 1e9,
                "this host's clock is {difference} Redis' clock; using Redis' time"
            );
        }
        let stop = CancellationToken::new();
        let (followed, commands, stopped) = (clock.clone(), Arc::clone(commands), stop.clone());
        tokio::spawn(async move { stopped.run_until_cancelled(measure_repeatedly(followed, commands)).await });
        Ok(Self { clock, _stop: stop.drop_guard() })
    }

    /// A handle of the same clock may be held by any task.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }
}

async fn measure_repeatedly(clock: Clock, commands: Arc<Commands>) {
    loop {
        tokio::time::sleep(MEASURE_INTERVAL).await;
        match measure(&commands).await {
            Ok(measurement) => {
                let corrected = clock.measured(&measurement);
                if let Some(difference) = difference(corrected.behind_ns) {
                    info!(how = ?corrected.how, "our time was {difference} Redis' clock and is corrected");
                }
            }
            // The connection is replaced by its own task; the monotonic clock runs on.
            Err(error) => debug!(error = %chain(&error), "redis' time not measured"),
        }
    }
}

async fn measure(commands: &Commands) -> Result<Measurement, BusError> {
    let asked = Instant::now();
    let answer: Vec<redis::Value> = commands.run("time", None, redis::cmd("TIME")).await?;
    let answered = Instant::now();
    let mut numbers = answer.into_iter().map(|number| typed::<i64>("time", number));
    // Seconds, and microseconds of the second that runs.
    let mut next = || numbers.next().transpose().map(Option::unwrap_or_default);
    let (seconds, micros) = (next()?, next()?);
    Ok(Measurement {
        asked,
        answered,
        reference_ns: seconds.saturating_mul(1_000_000_000).saturating_add(micros * 1000),
    })
}

/// For the log; `None`: too little to log.
fn difference(behind_ns: i64) -> Option<String> {
    let seconds = behind_ns.saturating_abs() as f64 / 1e9;
    let side = if behind_ns < 0 { "ahead of" } else { "behind" };
    (behind_ns.saturating_abs() >= LOGGED_DIFFERENCE_NS).then(|| format!("{seconds:.1} s {side}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_logged_difference_has_a_side() {
        assert_eq!(difference(3_049_000_000).as_deref(), Some("3.0 s behind"));
        assert_eq!(difference(-600_000_000_000).as_deref(), Some("600.0 s ahead of"));
        assert_eq!(difference(999_999_999), None);
    }
}
